"""Chunks on their last life are worked on one at a time in a worker process.

Whatever kills a worker takes with it all that the process had under way, and the kills count for
each. A chunk that was beside the guilty one twice would die with it a third time, and fail for
good; as no two such chunks are under way in one process, the third death is the guilty one's own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from jobs.models import MAX_CRASHES

SUSPECT_CRASHES: Final = MAX_CRASHES - 1

_occupied = threading.Lock()


def is_occupied() -> bool:
    """Whether this process has such a chunk under way."""
    return _occupied.locked()


@contextmanager
def entered(crashes: int) -> Iterator[bool]:
    """Whether a chunk that crashed so often may be worked on now; if so nothing joins it."""
    if crashes < SUSPECT_CRASHES:
        yield True
    elif not _occupied.acquire(blocking=False):
        yield False
    else:
        try:
            yield True
        finally:
            _occupied.release()
