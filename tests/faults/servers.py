"""Servers that a row may kill, freeze, empty and bring back at the same address."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import redis

from deploy.system import die_with_parent, free_port, search_path
from tests.servers import postgres_server
from transcription_site.env import BASE_DIR

START_SECONDS = 60
QUEUES = ("chunks", "local", "control", "webhooks")


class Server:
    """One process at one address, over as many lives as a row likes."""

    def __init__(self, log: Path, *, user: str | None = None) -> None:
        self.log = log
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it and wait until it is gone; also when it is frozen or gone already."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)

    def freeze(self) -> None:
        """SIGSTOP: it keeps its connections, takes new ones, and says nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _spawn(self, command: list[str], answers: Callable[[], Any]) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                user=self._user,
                group=self._user,
                preexec_fn=die_with_parent,  # noqa: PLW1509  (rows start servers in the main thread)
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                answers()
            except (redis.RedisError, psycopg.OperationalError):
                time.sleep(0.05)
            else:
                return
        raise AssertionError(f"it does not start:\n{self.log.read_text(errors='replace')}")


class OwnRedis(Server):
    """A Redis with the policy of deploy/redis.conf: AOF every second, nothing evicted."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "redis.log")
        self._folder = folder
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.client = redis.Redis(port=self._port, socket_timeout=10)

    def start(self, *, appendonly: bool = True) -> None:
        """Come (back) with what the append-only file holds; without one, empty."""
        binary = shutil.which("redis-server", path=search_path())
        assert binary is not None
        options = f"--bind 127.0.0.1 --port {self._port} --dir {self._folder}"
        keep = f"--appendonly {'yes' if appendonly else 'no'}"
        policy = str(BASE_DIR / "deploy" / "redis.conf")
        self._spawn([binary, policy, *options.split(), *keep.split()], self.client.ping)

    def waiting(self) -> set[tuple[str, Any]]:
        """The messages that wait, each with its queue; delayed ones wait in `<queue>.DQ`."""
        queues = [name for queue in QUEUES for name in (queue, f"{queue}.DQ")]
        return {
            (queue, message_id)
            for queue in queues
            for message_id in self.client.lrange(f"dramatiq:{queue}", 0, -1)
        }


class OwnPostgres(Server):
    """A PostgreSQL for one system alone, so that a row may stop it.

    As in production what was confirmed is there after a crash of the server; `durable`: also after
    one of the machine, as only a benchmark needs to know what that costs.
    """

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        command, user, self._server_url = postgres_server(folder)
        self._command = [*command, "-c", "synchronous_commit=on"]
        if durable:
            self._command += ["-c", "fsync=on", "-c", "full_page_writes=on"]
        super().__init__(folder / "postgres.log", user=user)
        name = f"system_{uuid4().hex}"
        self.start()
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        self.url = f"{self._server_url.removesuffix('/postgres')}/{name}"

    def start(self) -> None:
        self._spawn(self._command, lambda: psycopg.connect(self._server_url).close())

    def stop(self) -> None:
        """As `pg_ctl stop -m immediate`: every connection is cut, nothing is written down."""
        self.kill(signal.SIGQUIT)
