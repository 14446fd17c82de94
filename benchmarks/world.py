"""A whole system to measure: PostgreSQL and Redis set up as in production, the real processes."""

from __future__ import annotations

import os
import re
import signal
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import uuid4

import psutil
import psycopg
import redis

from benchmarks.site import instant  # noqa: F401  (its name may stand in ASR_ENGINE)
from deploy.system import System, free_port
from tests.faults.servers import OwnPostgres, OwnRedis
from transcription_site import env as environment

START_SECONDS = 60
_STATEMENT = re.compile(
    r"LOG: +(statement|execute [^:]*): (?!$|BEGIN|COMMIT|SET |ALTER SYSTEM|SELECT pg_)"
)


class World:
    """One running system; `url` and `token` are the way in, `audio_root` is where files lie."""

    def __init__(self, folder: Path, postgres: OwnPostgres, redis_server: OwnRedis) -> None:
        self.var = folder
        self.audio_root = folder / "audio"
        self.database_url = postgres.url
        self.redis: redis.Redis = redis_server.client
        self._redis_server = redis_server
        self._log = postgres.log
        self._servers = {"postgres": postgres.pid, "redis": redis_server.pid}
        self._system: System | None = None

    def start(self, environ: dict[str, str]) -> None:
        """Bring up all processes, and wait until every worker has said that it lives."""
        os.environ.update(environ)
        self._system = System(environment.load(), self.var)
        self._system.lock()
        self._system.start("admin")
        self.url, self.token = self._system.url, self._system.credentials["token"]
        self.password = self._system.credentials["password"]
        count = "SELECT count(*) FROM jobs_workerprocess"
        _wait_until(lambda: self.sql(count) >= _workers(environ))

    def stop(self) -> None:
        """End all processes, whatever they are doing."""
        if self._system is not None:
            self._system.stop(grace=0)

    def control(self, *command: str) -> None:
        """Tell supervisorctl; the workers of `verbatim:worker-chunks` can be stopped."""
        assert self._system is not None
        self._system.control(*command)

    def restart_redis(self, seconds: float) -> None:
        """Kill Redis, and bring it back after so long."""
        self._redis_server.kill()
        time.sleep(seconds)
        self._redis_server.start()
        self._servers["redis"] = self._redis_server.pid

    def messages(self, queue: str) -> int:
        """Messages that wait in a queue, or were fetched from it and are not done yet."""
        acknowledged = self.redis.scan_iter(f"dramatiq:__acks__.*.{queue}")
        waiting: Any = self.redis.llen(f"dramatiq:{queue}")
        fetched: list[Any] = [self.redis.scard(key) for key in acknowledged]
        return int(waiting + sum(fetched))

    def sql(self, statement: str, *values: Any) -> Any:
        """The first column of the first row."""
        row = self.row(statement, *values)
        return row[0] if row else None

    def row(self, statement: str, *values: Any) -> Any:
        """The first row."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            return connection.execute(statement, values or None).fetchone()

    def forget_all(self) -> None:
        """Drop all jobs and messages."""
        self.redis.flushall()
        self.execute("TRUNCATE jobs_job CASCADE")

    def execute(self, statement: str, *values: Any) -> None:
        """Run a statement that answers nothing."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute(statement, values or None)

    def statements(self, call: Callable[[], object]) -> int:
        """SQL statements of a call to the web server, BEGIN and COMMIT left out.

        By PostgreSQL's own log, while the workers and the sweeper are frozen.
        """
        end = uuid4().hex
        with self._frozen(("worker", "requeue_pending")):
            self._log_statements("all")
            try:
                before = self._log.stat().st_size
                call()
                self.execute(f"SET application_name = '{end}'")
                _wait_until(lambda: end in self._log.read_text())
            finally:
                self._log_statements("none")
        with self._log.open() as log:
            log.seek(before)
            of_call = takewhile(lambda line: end not in line, log)
            return sum(bool(_STATEMENT.search(line)) for line in of_call)

    @contextmanager
    def _frozen(self, parts: tuple[str, ...]) -> Iterator[None]:
        processes = [pid for pid, part in self.processes().items() if part.startswith(parts)]
        try:
            for pid in processes:
                _signal(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in processes:
                _signal(pid, signal.SIGCONT)

    def _log_statements(self, which: str) -> None:
        self.execute(f"ALTER SYSTEM SET log_statement = '{which}'")
        self.execute("SELECT pg_reload_conf()")
        # PostgreSQL tells its backends before it starts one that knows of it.
        _wait_until(lambda: self.sql("SHOW log_statement") == which)

    def processes(self) -> dict[int, str]:
        """Every process of the system and of its servers, with the name of its part."""
        assert self._system is not None
        found = {}
        for pid in self._system.family():
            with suppress(psutil.Error):
                found[pid] = _part(psutil.Process(pid))
        for name, pid in self._servers.items():
            server = psutil.Process(pid)
            found |= {process.pid: name for process in [server, *server.children(recursive=True)]}
        return found

    def cpu_seconds(self) -> dict[str, float]:
        """Processor time used so far, by part; that of ended children counts for their parent."""
        used: dict[str, float] = defaultdict(float)
        for pid, part in self.processes().items():
            with suppress(psutil.Error):
                times = psutil.Process(pid).cpu_times()
                used[part] += times.user + times.system
                if part != "postgres":  # its backends' time would be counted twice
                    used[part] += times.children_user + times.children_system
        return dict(used)

    def memory_bytes(self) -> dict[str, int]:
        """Memory by part, shared pages divided among those that share them (PSS)."""
        used: dict[str, int] = defaultdict(int)
        for pid, part in self.processes().items():
            with suppress(psutil.Error):
                used[part] += psutil.Process(pid).memory_full_info().pss
        return dict(used)

    def connections(self) -> dict[str, int]:
        """Connections that PostgreSQL and Redis hold just now."""
        backends = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        return {
            "postgres": self.sql(backends) - 1,
            "redis": self.redis.info("clients")["connected_clients"] - 1,
        }


@contextmanager
def running(**variables: str) -> Iterator[World]:
    """A system with these variables beside the usual ones, from nothing."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="verbatim-bench-")))
        for name in ("redis", "postgres", "var/audio"):
            (folder / name).mkdir(parents=True)
        folder.chmod(0o755)  # as root PostgreSQL runs as somebody else
        redis_server = OwnRedis(folder / "redis")
        stack.callback(redis_server.kill)
        redis_server.start()
        postgres = OwnPostgres(folder / "postgres", durable=True)
        stack.callback(postgres.stop)
        world = World(folder / "var", postgres, redis_server)
        stack.callback(world.stop)
        for field in environment.Environment.model_fields:  # a developer's own, and those in .env
            os.environ[field.upper()] = os.environ[f"{field.upper()}_FILE"] = ""
        world.start(
            {
                "VAR_DIR": str(world.var),
                "AUDIO_ROOT": str(world.audio_root),
                "DATABASE_URL": postgres.url,
                "REDIS_URL": redis_server.url,
                "WEB_PORT": str(free_port()),
                "LOG_LEVEL": "WARNING",
                **variables,
            }
        )
        yield world


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the system does not get so far")
        time.sleep(0.1)


def _workers(environ: dict[str, str]) -> int:
    return int(environ.get("WORKER_PROCESSES", "2")) + 2


def _part(process: psutil.Process) -> str:
    """What a process is for, by its command line."""
    command = " ".join(process.cmdline())
    for name in ("uvicorn", "dramatiq", "requeue_pending", "supervisord"):
        if name in command:
            queue = command.partition("--queues ")[2].split(" ")[0]
            return f"worker-{queue}" if name == "dramatiq" else name
    return "decoding"
