"""How fast the machine itself is just now: others may be at work on it."""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor

_SECONDS = 0.5


def speed() -> float:
    """Million steps a second of a loop of Python, on all cores at once."""
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(cores) as pool:
        return sum(pool.map(_steps, [_SECONDS] * cores)) / _SECONDS / 1e6


def _steps(seconds: float) -> int:
    steps, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        for _ in range(1000):
            steps += 1
    return steps
