"""Previews: what an engine has heard of a chunk that it is still listening to.

A hint and no more: nothing is stored, nothing said twice, and all of it may be lost. Who recognises
only lays the text down. A thread of its own takes it to Redis, so that no outage there holds up a
recognition.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from queue import SimpleQueue
from typing import Final
from uuid import UUID

import redis
from django.conf import settings
from django.utils import timezone

from jobs.looks import compact_json
from jobs.models import iso_time
from jobs.redis_clients import async_listening_client, impatient_client

# One for all jobs: to be subscribed to it costs a process the same however many it watches.
CHANNEL: Final = "verbatim:previews"
EVERY_SECONDS: Final = 1.0  # one message for a chunk, with its newest text
LONGEST: Final = 20_000  # characters; more than anybody says in a chunk
SILENT_SECONDS: Final = 10.0  # after Redis could not be reached
AWAY_SECONDS: Final = 1.0  # until who listens tries to connect again

Chunk = tuple[UUID, int]
Hear = Callable[[str], None]


class Teller:
    """Tells all processes what is heard in this one."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        # It is written in C: an exception that is sent to a thread cannot land within.
        self._news: SimpleQueue[tuple[Chunk, str | None]] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def telling(self, job_id: UUID, index: int) -> Iterator[Hear]:
        """Takes the text so far of that chunk, as often as there is more; waits for nobody.

        What has not been told at the end is not told any more.
        """
        chunk, heard = (job_id, index), False

        def hear(text: str) -> None:
            nonlocal heard
            if not isinstance(text, str) or len(text) > LONGEST:
                return  # a child that has been taken over may say anything
            heard = True
            self._begin()
            self._news.put((chunk, text))

        try:
            yield hear
        finally:
            if heard:
                self._news.put((chunk, None))

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._tell, name="previews", daemon=True)
                self._thread.start()

    def _tell(self) -> None:
        while True:
            newest = dict([self._news.get()])
            while not self._news.empty():
                newest.update([self._news.get()])
            texts = {chunk: text for chunk, text in newest.items() if text is not None}
            if texts:
                time.sleep(EVERY_SECONDS if self._publish(texts) else SILENT_SECONDS)

    def _publish(self, texts: Mapping[Chunk, str]) -> bool:
        try:
            with self._client.pipeline(transaction=False) as pipe:
                for (job_id, index), text in texts.items():
                    pipe.publish(CHANNEL, _message(job_id, index, text))
                pipe.execute()
        except (redis.RedisError, OSError, ValueError):  # such as half of a surrogate pair
            return False
        return True


@cache
def teller() -> Teller:
    """The one of this process."""
    return Teller(impatient_client(settings.BROKER_URL))


@dataclass(frozen=True, slots=True)
class Preview:
    """What is heard so far of a chunk; `text` is the message, encoded once for all who are told."""

    job_id: UUID
    index: int
    text: str


async def listen(tell: Callable[[Preview], None]) -> None:
    """Tell of the previews of all jobs as they come, for ever; of none while Redis is away."""
    while True:
        with suppress(redis.RedisError, OSError):
            async with (
                async_listening_client(settings.BROKER_URL) as client,
                client.pubsub(ignore_subscribe_messages=True) as channel,
            ):
                await channel.subscribe(CHANNEL)
                async for message in channel.listen():
                    if preview := _read(message["data"]):
                        tell(preview)
        await asyncio.sleep(AWAY_SECONDS)


def _message(job_id: UUID, index: int, text: str) -> str:
    return compact_json(
        {
            "type": "chunk.preview",
            "jobId": str(job_id),
            "time": iso_time(timezone.now()),
            "data": {"index": index, "text": text},
        }
    )


def _read(data: bytes) -> Preview | None:
    """None for what we did not write: another version of this service may be at work beside."""
    try:
        message = json.loads(data)
        return Preview(UUID(message["jobId"]), int(message["data"]["index"]), data.decode())
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
