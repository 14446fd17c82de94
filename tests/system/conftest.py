"""Whole systems: supervisord with web, workers, sweeper and a Redis of their own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from deploy.system import System
from tests.servers import fresh_database
from transcription_site import env as environment

SAMPLES = sorted((environment.BASE_DIR / "samples").glob("*.flac"))
JOB_SECONDS = 240


class RunningSystem:
    """A system under test, seen from outside: HTTP, and kill."""

    def __init__(self, folder: Path) -> None:
        self.audio_root = folder / "audio"
        self._system = System(environment.load(), folder)
        self._system.lock()
        self.start()

    def start(self) -> None:
        self._system.start("admin")
        self.client: httpx2.Client = self._system.client()
        self.url = self._system.url
        self.password = self._system.credentials["password"]

    def stop(self) -> None:
        self._system.stop(grace=20)

    def kill(self, *names: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Signal every process with one of the names in its command line; '' is every process.

        Children first: when a parent dies the kernel sends SIGHUP and SIGCONT to stopped children,
        and they would give their work back in order.
        """
        found = self.processes(*names)
        for pid in reversed(found):
            with suppress(OSError):
                os.kill(pid, number)
        return len(found)

    def processes(self, *names: str) -> list[int]:
        """Every process with one of the names in its command line, parents first."""
        family = self._system.family()

        def depth(pid: int) -> int:
            return 1 + depth(family[pid]) if pid in family else 0

        return [
            pid for pid in sorted(family, key=depth) if any(name in _command(pid) for name in names)
        ]

    def put_samples(self, user: str, count: int) -> list[str]:
        """Lay samples under the audio root, in turn; their paths."""
        folder = self.audio_root / user / uuid4().hex
        folder.mkdir(parents=True)
        paths = []
        for index in range(count):
            name = f"{index:02d}.flac"
            (folder / name).write_bytes(SAMPLES[index % len(SAMPLES)].read_bytes())
            paths.append(f"{user}/{folder.name}/{name}")
        return paths

    def submit(self, paths: list[str], **options: Any) -> str:
        answer = self.client.post("/transcribe", json={"audioChunkPaths": paths, **options})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["jobId"])

    def read(self, job_id: str) -> dict[str, Any]:
        answer = self.client.get(f"/transcript/{job_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def wait(
        self, job_id: str, until: Callable[[dict[str, Any]], bool], seconds: float = JOB_SECONDS
    ) -> dict[str, Any]:
        """Poll until the condition holds; the state that it holds in."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            result = self.read(job_id)
            if until(result):
                return result
            time.sleep(0.25)
        raise AssertionError(f"not within {seconds} s: {result}")

    def wait_for_end(self, job_id: str) -> dict[str, Any]:
        return self.wait(job_id, lambda result: result["jobStatus"] != "in_progress")


def _command(pid: int) -> str:
    """Its command line; empty where it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


StartSystem = Callable[..., RunningSystem]


@contextmanager
def running_system(folder: Path, **variables: str) -> Iterator[RunningSystem]:
    """A system with the variables given, whose files and whose new database are its own."""
    (folder / "audio").mkdir()
    own = {"REDIS_URL": "", "AUDIO_ROOT": str(folder / "audio"), "DATABASE_URL": fresh_database()}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (own | variables).items():  # without a REDIS_URL the bundled one starts
            patch.setenv(name, value)
        system = RunningSystem(folder)
        try:
            yield system
        finally:
            system.stop()


@pytest.fixture
def start_system(tmp_path: Path) -> Iterator[StartSystem]:
    """Starts a system, once, with the variables given."""
    with ExitStack() as stack:
        yield lambda **variables: stack.enter_context(running_system(tmp_path, **variables))


@pytest.fixture
def system(start_system: StartSystem) -> RunningSystem:
    """A system as it is by default."""
    return start_system()
