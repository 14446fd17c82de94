"""Working a job within a command: the row is the truth, so it needs no broker and no workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final
from uuid import UUID

from django.db import DatabaseError, connection

from jobs import engines, liveness, pipeline

LEAVE_SECONDS: Final = 5.0  # for threads to see that their job was cancelled


class Threads:
    """Threads that transcribe chunks; a chunk is in one thread's hands at a time.

    They are daemons: a remote call that cannot be interrupted does not hold up the exit.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._at_work: dict[int, threading.Thread] = {}
        self._failure: BaseException | None = None

    def take(self, job_id: UUID, due: Iterable[int], room: int) -> None:
        """Start on due chunks of the job, on so many at once at most."""
        for index in due:
            with self._changed:
                if index in self._at_work or len(self._at_work) >= room:
                    continue
                thread = threading.Thread(target=self._run, args=(job_id, index), daemon=True)
                self._at_work[index] = thread
                thread.start()

    def wait(self, seconds: float) -> None:
        """Until a chunk is done with, or that long. Raises what ended a thread."""
        with self._changed:
            self._changed.wait(seconds)
            if self._failure is not None:
                raise self._failure

    def join(self, seconds: float) -> None:
        """Until all are done, or that long in all."""
        deadline = time.monotonic() + seconds
        for thread in list(self._at_work.values()):
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self, job_id: UUID, index: int) -> None:
        failure = None
        try:
            again = pipeline.transcribe(job_id, index)
            while again is not None and not again.seconds:  # an engine stands in for another
                again = pipeline.transcribe(job_id, index, again.engine)
            # A delay stands in the row as well: until then the chunk is not due.
        except BaseException as error:
            failure = error
        finally:
            connection.close()
        with self._changed:
            self._failure = self._failure or failure
            del self._at_work[index]
            self._changed.notify()


@contextmanager
def workshop() -> Iterator[Threads]:
    """Threads to work with; afterwards no child process, thread or worker's row is left."""
    threads = Threads()
    try:
        yield threads
    finally:
        engines.close()
        threads.join(LEAVE_SECONDS)
        with suppress(DatabaseError):
            liveness.stop()
