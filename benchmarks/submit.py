"""Submissions of 24 chunks: with the workers stopped, and while 1000 chunks are in flight."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from benchmarks import sounds
from benchmarks.clients import at_a_rate, signed_in
from benchmarks.engine_server import engine
from benchmarks.figures import Figures, percentile
from benchmarks.world import World, running

CHUNKS = 24


def measure(figures: Figures, *, quick: bool) -> None:
    """At 50 a second for 20 s, as fast as it goes, and at 5 a second beside the load."""
    seconds = 2 if quick else 20
    threads = {"WORKER_PROCESSES": "2", "WORKER_THREADS": "512"}
    with engine(20, 20) as environ, running(**environ, **threads) as world:
        paths = sounds.put(world.audio_root, "many", CHUNKS)
        world.control("stop", "verbatim:worker-chunks")
        count = world.statements(lambda: asyncio.run(_at(world, paths, 1, 1)))
        figures.take("submit", "SQL statements of one", count, at_most=12)
        alone = asyncio.run(_at(world, paths, 50, seconds))
        _tell(figures, "submit", "p99 at 50 requests/s", alone, 0.05)
        fastest = asyncio.run(_as_fast_as_it_goes(world, paths, seconds))
        figures.tell("submit", "requests per second at most", f"{fastest:.0f}")
        world.forget_all()
        world.control("start", "verbatim:worker-chunks")
        load, seconds = (240, 2) if quick else (1000, 12)
        busy = asyncio.run(_beside_load(world, paths, load, seconds))
        _tell(figures, "submit while busy", "p99 at 5 requests/s", busy, 0.2)


def _tell(figures: Figures, scenario: str, name: str, taken: list[float], bound: float) -> None:
    p99 = percentile(taken, 0.99) * 1000
    beside = f"p50 {percentile(taken, 0.5) * 1000:.0f} ms of {len(taken)}"
    figures.take(scenario, name, p99, at_most=bound * 1000, unit=" ms", beside=beside)


async def _at(world: World, paths: list[str], per_second: int, seconds: int) -> list[float]:
    async with signed_in(world) as client:
        call = partial(client.submit, paths, "many")
        await at_a_rate([call] * (per_second * seconds), per_second)
        return client.seconds["submit"]


async def _as_fast_as_it_goes(world: World, paths: list[str], seconds: int) -> float:
    async with signed_in(world) as client:

        async def again_and_again() -> None:
            end = asyncio.get_running_loop().time() + seconds
            while asyncio.get_running_loop().time() < end:
                await client.submit(paths, "many")

        await asyncio.gather(*(again_and_again() for _ in range(8)))
        return len(client.seconds["submit"]) / seconds


async def _beside_load(world: World, paths: list[str], in_flight: int, seconds: int) -> list[float]:
    """What is submitted on top waits in the queue: a thread is free only when a call ends."""
    async with signed_in(world) as client:
        for first in range(0, in_flight, CHUNKS):
            many = sounds.put(world.audio_root, "load", CHUNKS, first=first + CHUNKS)
            await client.submit(many, "load")
        await asyncio.to_thread(_wait_until_in_flight, world, in_flight)
        client.seconds.clear()
        await at_a_rate([partial(client.submit, paths, "many")] * (5 * seconds), 5)
        return client.seconds["submit"]


def _wait_until_in_flight(world: World, count: int) -> None:
    while world.sql("SELECT count(*) FROM jobs_chunk WHERE status = 'in_progress'") < count:
        time.sleep(0.1)
