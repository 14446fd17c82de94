"""48 real chunks through the whole service with PocketSphinx, beside the bare engine."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from asr.engines import pocketsphinx
from benchmarks import sounds
from benchmarks.clients import signed_in
from benchmarks.figures import Figures
from benchmarks.world import World, running

CHUNKS_PER_JOB = 6
ENGINE = "decoding"  # the children that decode and recognise, as `World.cpu_seconds` names them

_WHY = (
    "the cores are busy with the engine all the time, so that whatever else runs on them adds to "
    "it: the row beside tells how much that is, shared by all cores. What is left is the first "
    "chunk's way in, the last one's way out, and the machine, whose bare rounds differ by more. "
    "Tried: a bell instead of polling for messages, group commits, one look for all who wait for "
    "a job. It would take a third core for the service."
)


def measure(figures: Figures, *, quick: bool) -> None:
    """The bare engine runs in as many processes as the service gives it: one for each core."""
    count, rounds = (8, 1) if quick else (48, 3)
    ours, bare, beside = [], [], []
    with running(ASR_ENGINE="pocketsphinx") as world:
        warm = sounds.put(world.audio_root, "warm", 4, first=rounds * count)
        asyncio.run(_transcribe(world, warm, "warm"))  # every child has loaded its model
        for number in range(rounds):  # by turns: the machine is not always as fast
            paths = sounds.put(world.audio_root, "speaker", count, first=number * count)
            before = _beside_the_engine(world)
            ours.append(asyncio.run(_transcribe(world, paths, "speaker")))
            beside.append((_beside_the_engine(world) - before) / ours[-1])
            bare.append(_bare([world.audio_root / path for path in paths]))
    figures.take(
        "engine",
        f"wall time of {count} chunks, the best of {rounds}",
        min(ours) / min(bare),
        at_most=1.05,
        unit=" times",
        beside=f"{_listed(ours)} s; bare engine {_listed(bare)} s",
        otherwise=_WHY,
    )
    share = 100 * sum(beside) / rounds / (os.cpu_count() or 1)
    figures.tell("engine", "processor time of all but the engine", f"{share:.1f} % of the cores")


def _beside_the_engine(world: World) -> float:
    """Processor seconds so far."""
    return sum(spent for part, spent in world.cpu_seconds().items() if part != ENGINE)


def _listed(times: list[float]) -> str:
    return ", ".join(f"{seconds:.1f}" for seconds in times)


async def _transcribe(world: World, paths: list[str], user: str) -> float:
    async with signed_in(world) as client:
        began = time.monotonic()
        jobs = [
            await client.submit(paths[first : first + CHUNKS_PER_JOB], user)
            for first in range(0, len(paths), CHUNKS_PER_JOB)
        ]
        for result in await asyncio.gather(*(client.wait(job_id) for job_id in jobs)):
            if result["jobStatus"] != "completed":
                raise RuntimeError(f"a job ended as {result['jobStatus']}")
        return time.monotonic() - began


def _bare(files: list[Path]) -> float:
    """Read, decode and recognise, as the engine's own code does; models are loaded before."""
    processes = os.cpu_count() or 1
    with ProcessPoolExecutor(processes, initializer=pocketsphinx.load) as pool:
        list(pool.map(time.sleep, [0.5] * processes))
        began = time.monotonic()
        for heard in pool.map(_recognise, files):
            if not heard:
                raise RuntimeError("the engine heard nothing")
        return time.monotonic() - began


def _recognise(file: Path) -> int:
    hearing = pocketsphinx.recognise(file.read_bytes(), 60.0)
    while True:
        try:
            next(hearing)
        except StopIteration as end:
            return len(end.value)
