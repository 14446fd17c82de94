"""An actor that does nothing, in the queue of the remote engines."""

from __future__ import annotations

import dramatiq

from jobs.engines import REMOTE_QUEUE


@dramatiq.actor(queue_name=REMOTE_QUEUE)
def nothing() -> None:
    """What is left is the broker, the worker and its middleware."""
