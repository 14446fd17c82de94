"""2,000 WebSockets on one web process watch 200 running jobs, and Redis is restarted meanwhile."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import aiohttp

from benchmarks import sounds
from benchmarks.burst import size_of_workers
from benchmarks.clients import Client, signed_in
from benchmarks.engine_server import ends_of, engine
from benchmarks.figures import Figures, percentile
from benchmarks.world import World, running

CHUNKS: Final = 6
READERS: Final = 10  # of each job
AT_ONCE: Final = 50  # that connect
AWAY_SECONDS: Final = 3.0  # of Redis
END_SECONDS: Final = 180.0
WORKER: Final = "verbatim:worker-chunks"
_WHY: Final = (
    "170 to 180 ms where the machine is left to itself, of which 60 to 70 (p50) pass from the row"
    " to the readers: one look at the rows for all who watch a job, then one message for each of"
    " 2,000 sockets from one process, in which who comes last waits for the others. The rest is the"
    " engine's answer on its way into the row, on the same two cores. It would take a core of its"
    " own for the web, or half the sockets."
)


@dataclass
class Reader:
    """One socket: the number that its snapshot went up to, and what came after it."""

    job_id: str
    number: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    arrived: list[tuple[float, float]] = field(default_factory=list)  # monotonic, and of the day

    @property
    def latest(self) -> int:
        return self.events[-1]["sequence"] if self.events else self.number

    @property
    def has_ended(self) -> bool:
        return bool(self.events) and self.events[-1]["type"] == "job.completed"

    async def read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Take all that comes until the job has ended, or the connection has."""
        async for message in socket:
            self.arrived.append((time.monotonic(), time.time()))
            self.events.append(json.loads(message.data))
            if self.has_ended:
                return


@dataclass(frozen=True)
class Outage:
    """When Redis was away, by the monotonic clock, and how long after it all readers knew all."""

    began: float
    ended: float
    caught_up: float

    def touches(self, moment: float) -> bool:
        return self.began <= moment <= self.ended + 1


def measure(figures: Figures, *, quick: bool) -> None:
    """The jobs begin when all sockets are open; each engine call takes 8 to 28 s, or 2 to 6."""
    count, low, high = (20, 2, 6) if quick else (200, 8, 28)
    with engine(low, high) as environ, running(**environ, **size_of_workers()) as world:
        jobs = [
            (f"user{n}", sounds.put(world.audio_root, f"user{n}", CHUNKS, first=n * CHUNKS))
            for n in range(count)
        ]
        readers, outage = asyncio.run(_run(world, figures, jobs))
        ends = ends_of(environ)
    name = "sockets"
    figures.take(name, "events missing or doubled", _faults(readers), at_most=0)
    figures.take(name, "all told after Redis was back", outage.caught_up, at_most=10, unit=" s")
    late: dict[bool, list[float]] = {True: [], False: []}
    for reader in readers:
        for event, (moment, _) in zip(reader.events, reader.arrived, strict=True):
            if event["type"] == "chunk.completed":
                end = ends[event["data"]["text"]]
                late[outage.touches(end)].append(1000 * (moment - end))
    p50, p99 = percentile(late[False], 0.5), percentile(late[False], 0.99)
    beside = f"p50 {p50:.0f} ms of {len(late[False])}; longest {max(late[False]):.0f} ms"
    title = "p99 from a chunk's recognition to its text"
    figures.take(name, title, p99, at_most=300, unit=" ms", beside=beside, otherwise=_WHY)
    if late[True]:
        away = f"{percentile(late[True], 0.99):.0f} ms of {len(late[True])}"
        figures.tell(name, "the same while Redis was away", away)
    figures.tell(name, "p50, p99 of that from its row to its arrival", _since_rows(readers))


async def _run(
    world: World, figures: Figures, jobs: list[tuple[str, list[str]]]
) -> tuple[list[Reader], Outage]:
    """All readers when their jobs have ended."""
    world.control("stop", WORKER)
    async with signed_in(world) as client:
        job_ids = [await client.submit(paths, user) for user, paths in jobs]
        readers = [Reader(job_id) for job_id in job_ids for _ in range(READERS)]
        before, began = world.memory_bytes()["uvicorn"], time.monotonic()
        gate = asyncio.Semaphore(AT_ONCE)
        sockets = await asyncio.gather(*(_open(client, world, each, gate) for each in readers))
        took = time.monotonic() - began
        each = (world.memory_bytes()["uvicorn"] - before) / len(readers) / 1024
        figures.tell("sockets", "memory of each (PSS)", f"{each:.0f} KiB of {len(readers)}")
        figures.tell("sockets", "opened, each with its snapshot", f"{len(readers) / took:.0f}/s")
        reading = [
            asyncio.create_task(reader.read(socket))
            for reader, socket in zip(readers, sockets, strict=True)
        ]
        used = world.cpu_seconds()["uvicorn"]
        await asyncio.to_thread(world.control, "start", WORKER)
        began = time.monotonic()
        half = len(readers) * CHUNKS
        await _until(lambda: sum(len(reader.events) for reader in readers) > half * 1.5)
        outage = await _without_redis(world, readers)
        await asyncio.wait(reading, timeout=END_SECONDS)
        took = time.monotonic() - began
        share = 100 * (world.cpu_seconds()["uvicorn"] - used) / took
        figures.tell("sockets", "of one core, the web process", f"{share:.0f} %")
        for socket in sockets:
            await socket.close()
    return readers, outage


async def _open(
    client: Client, world: World, reader: Reader, gate: asyncio.Semaphore
) -> aiohttp.ClientWebSocketResponse:
    async with gate:
        socket = await client.session.ws_connect(
            f"/ws/transcript/{reader.job_id}", protocols=("token", world.token), compress=0
        )
        await socket.send_str("{}")
        snapshot = await socket.receive_json(timeout=END_SECONDS)
    reader.number = snapshot["sequence"]
    return socket


async def _without_redis(world: World, readers: list[Reader]) -> Outage:
    """Restart it, and wait until everybody has what had happened when it was back."""
    began = time.monotonic()
    await asyncio.to_thread(world.restart_redis, AWAY_SECONDS)
    ended = time.monotonic()
    rows = "SELECT json_object_agg(id, sequence) FROM jobs_job"
    numbers: dict[str, int] = await asyncio.to_thread(world.sql, rows)
    await _until(lambda: all(reader.latest >= numbers[reader.job_id] for reader in readers))
    return Outage(began, ended, time.monotonic() - ended)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(END_SECONDS):
        while not condition():  # noqa: ASYNC110  (it is about rows of many readers)
            await asyncio.sleep(0.02)


def _faults(readers: list[Reader]) -> int:
    """Numbers that did not come, came twice or not in order, and ends that were not told."""
    faults = 0
    for reader in readers:
        told = [event["sequence"] for event in reader.events]
        should = range(reader.number + 1, reader.latest + 1)
        faults += len(set(should) - set(told)) + len(told) - len(set(told))
        faults += (told != sorted(told)) + (not reader.has_ended)
    return faults


def _since_rows(readers: list[Reader]) -> str:
    """As both clocks are of this machine."""
    late = [
        1000 * (moment - datetime.fromisoformat(event["time"]).timestamp())
        for reader in readers
        for event, (_, moment) in zip(reader.events, reader.arrived, strict=True)
        if event["type"] == "chunk.completed"
    ]
    return f"{percentile(late, 0.5):.0f}, {percentile(late, 0.99):.0f} ms of {len(late)}"
