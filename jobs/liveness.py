"""This process's row among the workers, renewed while it lives; and burying the dead.

A claim names the process that made it. When that process has been silent for 15 seconds, or is
seen to be gone, its claims are over and the sweeper puts the chunks back to work.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from uuid import UUID, uuid4

from django.db import Error as DatabaseError
from django.db import connection
from django.db.models.functions import Now

from jobs.models import SILENCE_LIMIT, WorkerProcess

RENEW_EVERY_SECONDS = 5.0

logger = logging.getLogger(__name__)


class Heartbeat:
    """Registers this process and renews its row from a thread of its own until it ends."""

    def __init__(self, queues: str) -> None:
        self.worker_id: UUID = uuid4()
        self._queues = queues
        self._stopped = threading.Event()
        self._registered = False
        self._last_beat = self._steady_since = float("-inf")
        try:
            self._beat()
        except DatabaseError:
            logger.warning("The database is away: this worker registers when it is back")
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def registered(self) -> UUID:
        """The worker's id, once its row is there: without it a claim would be over at once."""
        if not self._registered:
            self._beat()
        return self.worker_id

    def is_steady(self) -> bool:
        """Whether every beat came through for longer than a worker may be silent.

        Then the database was there for all, and who was silent is dead.
        """
        enough = SILENCE_LIMIT.total_seconds() + RENEW_EVERY_SECONDS
        return _uptime() - self._steady_since >= enough and not self._is_late()

    def stop(self) -> None:
        """Leave in order: the row goes, so nobody waits for this process."""
        self._stopped.set()
        WorkerProcess.objects.filter(pk=self.worker_id).delete()

    def _run(self) -> None:
        """Beat over a connection that is kept: hundreds of threads may wait for the pool's others,
        and a worker that is only busy must not be taken for dead.
        """
        with suppress(DatabaseError):
            connection.ensure_connection()
        while not self._stopped.wait(RENEW_EVERY_SECONDS):
            self._beat_or_tell()
        connection.close()

    def _beat_or_tell(self) -> None:
        try:
            self._beat()
        except Exception as error:  # its thread must not end while the process works on
            if isinstance(error, DatabaseError):
                logger.warning("The database is away: this worker could not say that it lives")
            else:
                logger.exception("This worker could not say that it lives")
            connection.close()

    def _is_late(self) -> bool:
        return _uptime() - self._last_beat > 2 * RENEW_EVERY_SECONDS

    def _beat(self) -> None:
        self._renew()
        if self._is_late():
            self._steady_since = _uptime()
        self._last_beat = _uptime()
        self._registered = True

    def _renew(self) -> None:
        renewed = WorkerProcess.objects.filter(pk=self.worker_id).update(last_seen=Now())
        if renewed or self._stopped.is_set():
            return
        pid = os.getpid()
        WorkerProcess.objects.create(
            pk=self.worker_id,
            hostname=socket.gethostname(),
            pid_space=pid_space(),
            pid=pid,
            pid_started=pid_started(pid) or 0,
            queues=self._queues,
            started_time=Now(),
            last_seen=Now(),
        )


def _uptime() -> float:
    """Seconds, counting those in which the machine slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


_lock = threading.Lock()
_heartbeat: Heartbeat | None = None
_owner_pid: int | None = None


def start(queues: str = "") -> Heartbeat:
    """This process's heartbeat, started at the first call; a forked child gets its own."""
    global _heartbeat, _owner_pid
    with _lock:
        if _heartbeat is None or _owner_pid != os.getpid():
            _heartbeat, _owner_pid = Heartbeat(queues), os.getpid()
        return _heartbeat


def stop() -> None:
    """End this process's heartbeat, if there is one."""
    global _heartbeat  # noqa: PLW0603
    with _lock:
        if _heartbeat is not None and _owner_pid == os.getpid():
            _heartbeat.stop()
        _heartbeat = None


def bury_the_dead() -> int:
    """Remove workers that ran where we run and whose process is gone; their number.

    Only processes within our own space of pids can be seen; all others are judged by silence.
    """
    here = pid_space()
    if not here:
        return 0
    dead = [
        worker.pk
        for worker in WorkerProcess.objects.filter(pid_space=here)
        if pid_started(worker.pid) != worker.pid_started
    ]
    if dead:
        WorkerProcess.objects.filter(pk__in=dead).delete()
    return len(dead)


@lru_cache(maxsize=1)
def pid_space() -> str:
    """Within what we can tell pids apart: boot, pid namespace and user; '' where we cannot.

    Other users' processes may be hidden from us, and would look dead.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{Path('/proc/self/ns/pid').readlink()}:{os.getuid()}"
    except OSError:
        return ""


def pid_started(pid: int) -> int | None:
    """When the process started, in clock ticks since boot (proc(5), field 22); None: no process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the command's name may hold spaces
    return None if fields[0] == "Z" else int(fields[19])
