"""Stopping in order: recognitions are interrupted, and nothing else is.

Dramatiq's own notification raises its exception anywhere in a thread. In the middle of a
transaction that leaves a connection that is neither in one nor out of one, and SQLite locked for
everybody; so here only a thread that is recognising can be struck.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stopping(BaseException):
    """The process is to stop."""


_lock = threading.Lock()
_recognising: set[int] = set()
_stopping = False


@contextmanager
def interruptible() -> Iterator[None]:
    """Code that may be struck by Stopping: it waits, and holds neither lock nor transaction.

    Raises:
        Stopping: at once when the process is stopping already, or whenever `interrupt` is called.
    """
    me = threading.get_ident()
    with _lock:
        if _stopping:
            raise Stopping
        _recognising.add(me)
    try:
        yield
    finally:
        # Whoever holds the lock to strike us does it before this goes on, so that the exception
        # lands here at the latest and never in what follows.
        with _lock:
            _recognising.discard(me)


def interrupt() -> None:
    """Raise Stopping in all that is interruptible, now and from now on."""
    global _stopping  # noqa: PLW0603  (one per process is the point)
    with _lock:
        _stopping = True
        for thread in _recognising:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread), ctypes.py_object(Stopping)
            )


def resume() -> None:
    """Let recognitions run (again), when a worker boots."""
    global _stopping  # noqa: PLW0603
    with _lock:
        _stopping = False
        _recognising.clear()
