"""World: one whole system, real to the last process, that a row may break anywhere."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import httpx2

from deploy.system import System, is_free
from tests.asr.vendor import serving
from tests.faults.database import Database
from tests.faults.engine_server import WORDS_AT_ONCE, engine_server
from tests.faults.processes import Processes
from tests.faults.servers import OwnPostgres, OwnRedis
from tests.helpers import wait_until
from tests.servers import fresh_database
from transcription_site import env as environment

RECEIVER = "127.0.7.1"  # alone of this machine may be told of ends
# Short enough for a test to wait for, long enough for a slow machine to keep.
VARIABLES = {
    "WORKER_PROCESSES": "1",
    "WORKER_THREADS": "32",
    "LOCAL_PROCESSES": "1",
    "ENGINE_DEADLINE_SECONDS": "20",
    "LEASE_SECONDS": "50",
    "BREAKER_SECONDS": "5",
    "ENGINE_PRICES": "openai=0.006",
    "WEBHOOK_ALLOW_HTTP": "True",
    "WEBHOOK_ALLOWED_NETWORKS": f"{RECEIVER}/32",
}

USER = "alice"  # whose the jobs of the rows are
TWO_PROCESSES = {"WORKER_PROCESSES": "2"}
ONE_BY_ONE = {"WORKER_PROCESSES": "1", "WORKER_THREADS": "1"}


def own_port() -> int:
    """A free port that neither another run of the suite nor an outgoing connection will take."""
    while True:
        port = random.randrange(20_000, 32_000)
        if is_free("127.0.0.1", port):
            return port


class World:
    """Web, workers and sweeper under supervisord, with a Redis, a database and an engine.

    `engine` is the scripted engine server, `receiver` is told of the ends of alice's jobs (its
    `webhook` is an address of the API), `redis` and (with `own_postgres`) `postgres` are servers to
    kill and freeze, `processes` finds everything else.
    """

    def __init__(self, folder: Path, *, own_postgres: bool = False, **variables: str) -> None:
        self._stack = ExitStack()
        self.var = folder
        self.audio_root = folder / "audio"
        self.audio_root.mkdir(parents=True)
        try:
            self._open(own_postgres, variables)
        except BaseException:
            self._stack.close()
            raise

    def _open(self, own_postgres: bool, variables: dict[str, str]) -> None:
        self.engine = self._stack.enter_context(engine_server())
        self.receiver = self._stack.enter_context(serving(RECEIVER))
        self.redis = OwnRedis(self._folder("own-redis"))
        self._stack.callback(self.redis.kill)
        self.redis.start()
        self.postgres: OwnPostgres | None = None
        if own_postgres:
            # As root the server runs as another user, and pytest shuts its own folders to others.
            folder = tempfile.TemporaryDirectory(prefix="verbatim-postgres-")
            self.postgres = OwnPostgres(Path(self._stack.enter_context(folder)))
            self._stack.callback(self.postgres.stop)
        url = self.postgres.url if self.postgres else fresh_database()
        self.database = Database(url, self.var)
        self._variables = {
            **VARIABLES,
            "VAR_DIR": str(self.var),
            "AUDIO_ROOT": str(self.audio_root),
            "DATABASE_URL": url,
            "REDIS_URL": self.redis.url,
            "WEB_PORT": str(own_port()),
            **self.engine.environment,
            **variables,
        }
        with self._environ():
            self._system = System(environment.load(), self.var)
        self.processes = Processes(self._system)
        self._system.lock()
        self._stack.callback(self._system.stop, grace=0)
        self.start()
        told = {"url": self.receiver.url, "userId": USER}
        answer = self.client.post("/webhooks", json=told)
        assert answer.status_code == 201, answer.text
        self.webhook = str(answer.headers["Location"])

    def start(self, **variables: str) -> None:
        """Bring up what is not there: everything, at first and after `die`."""
        self._variables |= variables
        with self._environ():
            self._system.start("admin")
        self.client: httpx2.Client = self._system.client()
        wait_until(self._has_workers)

    def die(self) -> None:
        """kill -9 every process, the supervisor's too, as when the power fails; not the servers."""
        self._system.stop(grace=0)

    def close(self) -> None:
        self._stack.close()

    def readiness(self) -> dict[str, Any]:
        """What /readyz says."""
        return dict(self.client.get("/readyz").json())

    def manage(self, *command: str) -> subprocess.Popen[str]:
        """`manage.py …` in another shell."""
        return subprocess.Popen(
            [sys.executable, "manage.py", *command],
            cwd=environment.BASE_DIR,
            env=os.environ | self._variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def credentials(self) -> dict[str, str]:
        """An operator's `username` and `password`."""
        return self._system.credentials

    def log(self, name: str) -> str:
        """What a process has said so far: `web`, `worker-chunks`, `sweeper`, `supervisord` …"""
        return (self.var / "log" / f"{name}.log").read_text(errors="replace")

    def calm(self) -> None:
        """The engine answers at once again, and the receiver of webhooks takes what comes."""
        self.engine.plan = lambda hit: WORDS_AT_ONCE
        self.engine.release()
        self.receiver.says(200, {})

    def serves(self) -> bool:
        """Whether the web server answers."""
        try:
            return self.client.get("/healthz").status_code == 200
        except httpx2.HTTPError:
            return False

    def is_well(self) -> bool:
        """Whether nothing is left of a fault: all there, and nothing under way."""
        return self.readiness()["status"] == "ok" and not self.redis.waiting()

    def _has_workers(self) -> bool:
        return all(self.processes.workers(queue) for queue in ("chunks", "control"))

    def _environ(self) -> Any:
        return mock.patch.dict(os.environ, self._variables)

    def _folder(self, name: str) -> Path:
        folder = self.var / name
        folder.mkdir()
        return folder
