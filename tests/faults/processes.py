"""A system's processes by what they are for, and signals to them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from deploy.system import System


class Processes:
    """What runs in a system just now; every call looks anew."""

    def __init__(self, system: System) -> None:
        self._system = system

    def web(self) -> list[int]:
        return self._named("uvicorn")

    def sweeper(self) -> list[int]:
        return self._named("requeue_pending --every")

    def masters(self, queue: str = "chunks") -> list[int]:
        """The process that starts a queue's workers; supervisord starts it again."""
        supervisor = self._named("supervisord")
        return [pid for pid, parent in self._of_queue(queue) if parent in supervisor]

    def workers(self, queue: str = "chunks") -> list[int]:
        """The processes that hold a queue's claims, also orphaned ones."""
        supervisor = self._named("supervisord")
        return [pid for pid, parent in self._of_queue(queue) if parent not in supervisor]

    def kill(self, pids: list[int], number: signal.Signals = signal.SIGKILL) -> None:
        """Signal all of them; there must be some."""
        assert pids, "there is no such process"
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _of_queue(self, queue: str) -> list[tuple[int, int]]:
        """Each with its parent."""
        ours = self._named(f"--queues {queue} ")
        return [(pid, parent) for pid, parent in self._system.family().items() if pid in ours]

    def _named(self, text: str) -> list[int]:
        """The processes with the text in their command line; children of a pool have another."""
        return [pid for pid in self._system.family() if text in f"{_command(pid)} "]


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that waits to be reaped does not."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
