"""An actor that ends a thread of its worker for real; loaded only into a test's own worker."""

from __future__ import annotations

import sys
import threading

import dramatiq
from dramatiq.worker import ConsumerThread, WorkerThread


@dramatiq.actor(queue_name="control")
def strike_down(kind: str) -> None:
    """End this worker thread, or the queue's consumer."""
    threads = [threading.current_thread()] if kind == "worker" else threading.enumerate()
    kinds = WorkerThread if kind == "worker" else ConsumerThread
    for thread in threads:
        if isinstance(thread, kinds) and getattr(thread, "queue_name", "control") == "control":
            strike(thread)


def strike(thread: threading.Thread) -> None:
    """Let it meet, in its next round, what neither of Dramatiq's loops catches."""
    if isinstance(thread, WorkerThread):
        thread.timeout = -1  # a ValueError of the queue that it waits at
    else:
        setattr(thread, "handle_delayed_messages", sys.exit)  # noqa: B010  (a method, to mypy)
