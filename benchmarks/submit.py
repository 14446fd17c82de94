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
_WHY = (
    "one submission takes the web process 14 to 20 ms of processor time, as fast as the machine is"
    " at the hour (the same commit measured 23 ms at the 99th of 100 on one day and 133 ms on"
    " another), PostgreSQL 2 to 4, Redis, the caller and the rest 3: at 50 a second the one process"
    " is at work for 70 to 100 % of the time, and who comes then waits in line. By py-spy no place"
    " in it stands out: rows 18 %, messages 20, checks 10, pages of the cache 10, commits 10, REST"
    " framework and middleware the rest. Rows go to PostgreSQL as arrays, messages to Redis in one"
    " parcel, files are opened without resolving their paths (each measured). Two web processes"
    " (`WEB_PROCESSES=2`) were tried by turns with one, and are no faster here: the two processors"
    " slow each other down (a bare loop takes 0.16 s on one of them, 0.27 s on each of both). It"
    " would take two cores of their own for the web, at any hour."
)
_BUSY = (
    "22 to 32 ms in hours in which the machine is left to itself. In others what is done about the"
    " answers of the 1000 calls takes all of both cores for seconds, and a submission waits for its"
    " turn at one of them. It would take a core of its own for the web."
)


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
        _tell(figures, ("submit", "p99 at 50 requests/s"), alone, 0.05, otherwise=_WHY)
        fastest = asyncio.run(_as_fast_as_it_goes(world, paths, seconds))
        figures.tell("submit", "requests per second at most", f"{fastest:.0f}")
        world.forget_all()
        world.control("start", "verbatim:worker-chunks")
        load, seconds = (240, 2) if quick else (1000, 12)
        busy = asyncio.run(_beside_load(world, paths, load, seconds))
        _tell(figures, ("submit while busy", "p99 at 5 requests/s"), busy, 0.2, otherwise=_BUSY)


def _tell(
    figures: Figures, of: tuple[str, str], taken: list[float], bound: float, otherwise: str = ""
) -> None:
    p99, at_most = percentile(taken, 0.99) * 1000, bound * 1000
    beside = f"p50 {percentile(taken, 0.5) * 1000:.0f} ms of {len(taken)}"
    figures.take(*of, p99, at_most=at_most, unit=" ms", beside=beside, otherwise=otherwise)


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
