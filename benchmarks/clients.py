"""Callers of the service: many at once from one process, light enough not to be measured."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from benchmarks.world import World


@dataclass
class Client:
    """An open session; `seconds` holds how long each request took, by kind."""

    session: aiohttp.ClientSession
    seconds: dict[str, list[float]] = field(default_factory=dict)

    async def ask(self, kind: str, method: str, path: str, *, status: int, **content: Any) -> bytes:
        """One request; another status than expected is an error."""
        began = time.monotonic()
        async with self.session.request(method, path, **content) as answer:
            body = await answer.read()
        self.seconds.setdefault(kind, []).append(time.monotonic() - began)
        if answer.status != status:
            raise RuntimeError(f"{method} {path} answered {answer.status}: {body[:500]!r}")
        return body

    async def submit(self, paths: list[str], user: str) -> str:
        """`POST /transcribe`; the id of the job."""
        asked = {"audioChunkPaths": paths, "userId": user}
        body = await self.ask("submit", "POST", "/transcribe", status=202, json=asked)
        return str(json.loads(body)["jobId"])

    async def read(self, job_id: str, *, wait: int = 0) -> dict[str, Any]:
        """`GET /transcript/{jobId}`, which may wait for the job's end for so many seconds."""
        query = f"?wait={wait}" if wait else ""
        body = await self.ask("read", "GET", f"/transcript/{job_id}{query}", status=200)
        return dict(json.loads(body))

    async def wait(self, job_id: str) -> dict[str, Any]:
        """Its result, when the job has ended."""
        while (result := await self.read(job_id, wait=30))["jobStatus"] == "in_progress":
            pass
        return result


@asynccontextmanager
async def signed_in(world: World) -> AsyncIterator[Client]:
    """A client with the world's token."""
    async with aiohttp.ClientSession(
        world.url,
        headers={"Authorization": f"Token {world.token}", "Accept": "application/json"},
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=60),
    ) as session:
        yield Client(session)


async def at_a_rate(calls: Iterable[Callable[[], Awaitable[Any]]], per_second: float) -> None:
    """Begin the calls at a steady rate, however long each takes, and wait for them all."""
    began, running = time.monotonic(), []
    for number, call in enumerate(calls):
        await asyncio.sleep(max(0.0, began + number / per_second - time.monotonic()))
        running.append(asyncio.ensure_future(call()))
    await asyncio.gather(*running)
