"""A completed transcript of 10,000 words from the cache, beside views that answer nothing.

The empty view knows who asks, as any view must; the bare one is Django without the framework.
"""

from __future__ import annotations

import asyncio

from benchmarks import sounds
from benchmarks.clients import Client, signed_in
from benchmarks.figures import Figures
from benchmarks.world import World, running

CALLERS = 8
ROUNDS = 3
WORDS = 10_000


def measure(figures: Figures, *, quick: bool) -> None:
    """In turns, so that both meet the same weather."""
    seconds = 1 if quick else 5
    environ = {"DJANGO_SETTINGS_MODULE": "benchmarks.site.settings", "ASR_ENGINE": "instant"}
    with running(**environ) as world:
        job_id = asyncio.run(_prepare(world))
        rates: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            for path in ("/bare", "/empty", f"/transcript/{job_id}"):
                rates.setdefault(path, []).append(asyncio.run(_rate(world, path, seconds)))
        read = asyncio.run(_ask(world, job_id))
        statements = world.statements(lambda: asyncio.run(_ask(world, job_id)))
    bare, empty, ours = (sum(taken) / ROUNDS for taken in rates.values())
    beside = f"{ours:.0f}/s of {len(read) / 1000:.0f} kB; empty {empty:.0f}/s; bare {bare:.0f}/s"
    figures.take("read", "share of an empty view's rate", ours / empty, at_least=0.5, beside=beside)
    figures.take("read", "SQL statements of one", statements, at_most=1)


async def _prepare(world: World) -> str:
    """A job whose chunks get their many words by hand, before it is first read."""
    async with signed_in(world) as client:
        paths = sounds.put(world.audio_root, "reader", 6)
        job_id = await client.submit(paths, "reader")
        await client.wait(job_id)
    world.execute("UPDATE jobs_transcript SET text = repeat('wonderful ', %s)", WORDS)
    world.execute("UPDATE jobs_job SET sequence = sequence + 1")  # another version for the cache
    return job_id


async def _rate(world: World, path: str, seconds: float) -> float:
    async with signed_in(world) as client:
        await asyncio.gather(*(_again_and_again(client, path, seconds) for _ in range(CALLERS)))
        return len(client.seconds["read"]) / seconds


async def _again_and_again(client: Client, path: str, seconds: float) -> None:
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        await client.ask("read", "GET", path, status=200)


async def _ask(world: World, job_id: str) -> bytes:
    async with signed_in(world) as client:
        return await client.ask("read", "GET", f"/transcript/{job_id}", status=200)
