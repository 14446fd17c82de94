"""Nothing to do: what the whole system uses, and how soon it takes up a first chunk."""

from __future__ import annotations

import asyncio
import time

from benchmarks import sounds
from benchmarks.clients import signed_in
from benchmarks.figures import Figures, percentile
from benchmarks.world import World, running

_FIRST = """
SELECT array_agg(EXTRACT(EPOCH FROM started - submitted)::float) FROM (
  SELECT min(chunk.started_time) AS started, min(job.submitted_time) AS submitted
  FROM jobs_job AS job JOIN jobs_chunk AS chunk ON chunk.job_id = job.id GROUP BY job.id) AS jobs
"""
_IDLE = (
    "2.7 to 2.9 % where the machine is left to itself: the same work takes more of a slower core."
    " Idle consumers are woken by a bell and do not poll. What is left are threads that look now"
    " and then whether they are to end, heartbeats, and the sweeper."
)
_WHY = (
    "the p50 is 17 to 19 ms in every run, however fast the machine is. The p99 of 100 is the second"
    " longest: 33 to 45 ms in some runs and 150 to 300 ms in others. Why is not known: the bare"
    " machine was slower in most of those, and the host gave little of it to others (steal)."
)


def measure(figures: Figures, *, quick: bool) -> None:
    """The usual sizes: 2 processes of 128 threads for remote engines, and all the others."""
    environ = {"DJANGO_SETTINGS_MODULE": "benchmarks.site.settings", "ASR_ENGINE": "instant"}
    with running(**environ) as world:
        settle, seconds = (3, 5) if quick else (10, 60)
        time.sleep(settle)
        before = world.cpu_seconds()
        time.sleep(seconds)
        used = {name: spent - before[name] for name, spent in world.cpu_seconds().items()}
        share = 100 * sum(used.values()) / seconds
        parts = sorted(used.items(), key=lambda item: -item[1])[:4]
        beside = ", ".join(f"{name} {100 * spent / seconds:.1f}" for name, spent in parts)
        figures.take(
            *("idle", "of one core", share),
            at_most=3,
            unit=" %",
            beside=beside,
            otherwise=_IDLE,
        )
        asyncio.run(_submit_now_and_then(world, 10 if quick else 100))
        waits = world.sql(_FIRST)
    p99, p50 = (1000 * percentile(waits, share) for share in (0.99, 0.5))
    beside = f"p50 {p50:.0f} ms of {len(waits)}"
    figures.take("first chunk", "p99", p99, at_most=100, unit=" ms", beside=beside, otherwise=_WHY)


async def _submit_now_and_then(world: World, count: int) -> None:
    """Each on a system that is idle again: 6 chunks, then a pause."""
    async with signed_in(world) as client:
        for number in range(count):
            paths = sounds.put(world.audio_root, "first", 6, first=6 * number)
            await client.wait(await client.submit(paths, "first"))
            await asyncio.sleep(0.1)
