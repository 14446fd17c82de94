"""Ends a worker process that only looks healthy, so that the supervisor starts a sound one.

Dramatiq lives on with threads that have died, with messages that an outage of Redis stranded in
its memory, and after its master process was killed; each was tried. Ending is cheap: the stop is
the orderly one, which gives the claims back. Calls under way are made again; no attempt is lost.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Final

import redis
from dramatiq import Worker

LOOK_EVERY_SECONDS: Final = 1.0
LONGEST_OUTAGE_SECONDS: Final = 10.0
EXIT_CODE: Final = 70  # EX_SOFTWARE of sysexits.h

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What one look found; `at` is a time on a clock that only goes forward."""

    at: float
    broker_answers: bool = True
    dead_threads: tuple[str, ...] = ()
    orphaned: bool = False


class Judge:
    """Decides, look after look, whether the process is to end."""

    def __init__(self) -> None:
        self._away_since: float | None = None

    def reason_to_end(self, sight: Sight) -> str | None:
        """Why the process is to end; None while it may go on."""
        if sight.orphaned:
            return "its master process has died"
        if sight.dead_threads:
            return f"a thread has died: {', '.join(sight.dead_threads)}"
        return self._outage_that_ended(sight)

    def _outage_that_ended(self, sight: Sight) -> str | None:
        """Not while it lasts: a new process could do no better, and recognitions would be lost."""
        if not sight.broker_answers:
            self._away_since = sight.at if self._away_since is None else self._away_since
            return None
        since, self._away_since = self._away_since, None
        if since is None or sight.at - since <= LONGEST_OUTAGE_SECONDS:
            return None
        # Messages in the old broker id's set of unacknowledged ones and in memory come free.
        return f"the broker was away for {sight.at - since:.0f} s"


class Watchdog:
    """A thread that looks about once a second, and calls `end` with the reason once there is one.

    Args:
        client: one of its own, impatient, so that looking never waits for whoever else waits.
    """

    def __init__(self, worker: Worker, client: redis.Redis, end: Callable[[str], None]) -> None:
        self._worker = worker
        self._client = client
        self._end = end
        self._judge = Judge()
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Look no more: from now on threads end in order."""
        self._stopped.set()

    def look(self) -> Sight:
        """See how the process is; takes a second or two while Redis stalls."""
        return Sight(
            at=time.monotonic(),
            broker_answers=self._broker_answers(),
            dead_threads=dead_threads(self._worker),
            orphaned=is_orphan(),
        )

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_EVERY_SECONDS):
            reason = self._judge.reason_to_end(self.look())
            if reason is not None and not self._stopped.is_set():
                self._end(reason)
                return

    def _broker_answers(self) -> bool:
        try:
            return bool(self._client.ping())
        except redis.RedisError:
            return False


def dead_threads(worker: Worker) -> tuple[str, ...]:
    """The worker's threads that were started and run no more, in words."""
    named: list[tuple[str, threading.Thread]] = [
        *((f"the consumer of {queue}", thread) for queue, thread in worker.consumers.items()),
        *(("a worker thread", thread) for thread in worker.workers),
    ]
    return tuple(
        name for name, thread in named if thread.ident is not None and not thread.is_alive()
    )


def is_orphan() -> bool:
    """Whether Dramatiq's master started this process and has died."""
    master = multiprocessing.parent_process()
    return master is not None and os.getppid() != master.pid


def start(worker: Worker, client: redis.Redis, *, limit: float) -> Watchdog | None:
    """Watch over a worker process; None where Dramatiq's master did not start this process.

    Such a worker, a test's for one, runs inside a process that is not its own to end.

    Args:
        limit: seconds for an orderly stop, after which the process ends anyhow.
    """
    if multiprocessing.parent_process() is None:
        return None
    watchdog = Watchdog(worker, client, lambda reason: end_process(reason, limit))
    watchdog.start()
    return watchdog


def stop_only_once() -> None:
    """Let no second SIGTERM cut an orderly stop short; for the main thread of a worker process.

    Dramatiq drops its work at the second. But when several processes of one master end of
    themselves, the master tells all others to stop as the first of them is gone.
    """
    if multiprocessing.parent_process() is None:
        return
    stop = signal.getsignal(signal.SIGTERM)
    told = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if not told and callable(stop):
            told = True
            stop(number, frame)

    signal.signal(signal.SIGTERM, handle)


def end_process(reason: str, limit: float) -> None:
    """Stop in order, as SIGTERM does; where that takes more than `limit` seconds, end anyhow."""
    last_resort = threading.Timer(limit, os._exit, (EXIT_CODE,))
    last_resort.daemon = True
    last_resort.start()
    line = f"This worker process ends, a sound one is to take its place: {reason}"
    if is_orphan():
        _say_without_master(line)
    else:
        logger.critical(line)
    os.kill(os.getpid(), signal.SIGTERM)


def _say_without_master(line: str) -> None:
    """The master read our log: now nobody does, and a full pipe would hold up the stop."""
    with suppress(OSError):
        os.write(2, f"CRITICAL {__name__} {line}\n".encode())
    with suppress(OSError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
