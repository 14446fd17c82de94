"""How fast the machine itself is just now: others may be at work on it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import psutil

_SECONDS = 0.5
_PATIENCE_SECONDS = 120.0
_FULL_PACE = 0.95  # of the best that was seen

_best = 0.0


def speed() -> float:
    """Million steps a second of a loop of Python, on all cores at once."""
    cores = os.cpu_count() or 1
    global _best  # noqa: PLW0603
    with ProcessPoolExecutor(cores) as pool:
        pace = sum(pool.map(_steps, [_SECONDS] * cores)) / _SECONDS / 1e6
    _best = max(_best, pace)
    return pace


def settled() -> float:
    """The same, once it is nearly what it was at best in this run, or after two minutes."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while (pace := speed()) < _FULL_PACE * _best and time.monotonic() < end:
        time.sleep(5)
    return pace


@contextmanager
def stolen() -> Iterator[Callable[[], float]]:
    """Per cent of the cores' time that the host gave to other machines within the block."""
    before, began = psutil.cpu_times().steal, time.monotonic()
    share = 0.0
    yield lambda: share
    seconds = (time.monotonic() - began) * (os.cpu_count() or 1)
    share = 100 * (psutil.cpu_times().steal - before) / seconds


def _steps(seconds: float) -> int:
    steps, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        for _ in range(1000):
            steps += 1
    return steps
