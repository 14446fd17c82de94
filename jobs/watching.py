"""Watching jobs: however many wait or watch in a process, one look after the other serves them all.

Who watches holds neither a thread nor a connection of the database. Nothing has to be told: what
was not heard of is seen by the next look.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import Error as DatabaseError

from jobs.looks import Asked, Event, Numbers, Seen, look
from jobs.models import JobStatus
from jobs.previews import Preview, listen

LOOK_SECONDS: Final = 0.1
LIVE_SECONDS: Final = (0.05, 0.1)  # at least and at most, while events are read
PAUSE: Final = 20.0  # at least, times as long as the look took: a busy system has better to do
LIVE_PAUSE: Final = 2.0  # the same while events are read, where looks take long
AWAY_SECONDS: Final = 2.0  # between two looks at most, and until a database that failed is asked

IN_PROGRESS: Final = JobStatus.IN_PROGRESS

logger = logging.getLogger(__name__)


class Page:
    """Some events, and what follows them: a reader's place.

    A page that every reader has left is freed, as nobody holds it any more.
    """

    __slots__ = ("_next", "_turned", "events", "is_last")

    def __init__(self, events: Sequence[Event] = (), *, is_last: bool = False) -> None:
        self.events = events
        self.is_last = is_last
        self._next: Page | None = None
        self._turned = asyncio.Event()

    async def turn(self) -> Page:
        """The next page, once there is one."""
        await self._turned.wait()
        assert self._next is not None  # noqa: S101
        return self._next

    def append(self, page: Page) -> Page:
        """Let all who wait turn to that page."""
        self._next = page
        self._turned.set()
        return page


class Channel:
    """What all readers of one job, or of one user's jobs, are told."""

    def __init__(self) -> None:
        self.page = Page()
        self.readers = 0

    def tell(self, events: Sequence[Event]) -> None:
        if events:
            self.page = self.page.append(Page(events))


class JobChannel(Channel):
    """Of one job; `sequence` is the number up to which it has been told.

    `previews` are the newest of each chunk, until something happens to it. They stand on no page: a
    page is turned for each, and who comes late to it finds the newest and misses the others.
    """

    def __init__(self, sequence: int) -> None:
        super().__init__()
        self.sequence = sequence
        self.previews: dict[int, Preview] = {}

    def hear(self, events: Sequence[Event]) -> None:
        """Tell what is new of these."""
        new = [event for event in events if event.sequence > self.sequence]
        if new:
            self.sequence = new[-1].sequence
            for event in new:
                if event.index is not None:
                    self.previews.pop(event.index, None)
            self.tell(new)

    def show(self, preview: Preview) -> None:
        """Tell what is heard so far."""
        self.previews[preview.index] = preview
        self.page = self.page.append(Page())

    def end(self) -> None:
        """The job is gone."""
        self.page = self.page.append(Page(is_last=True))


class UserChannel(Channel):
    """Of all jobs of a user; `known` are the numbers up to which they have been told.

    It begins with the first look: who has waited until it is `ready`, and then reads rows, will be
    told of everything that these rows do not show.
    """

    def __init__(self) -> None:
        super().__init__()
        self.known: Numbers | None = None
        self.ready = asyncio.Event()

    def hear(self, numbers: Numbers, begins: Numbers, events: Mapping[UUID, list[Event]]) -> None:
        """Tell what is new of these."""
        if self.known is None:
            self.known = numbers
            self.ready.set()
            return
        told: list[Event] = []
        known = {job_id: self.known.get(job_id, begins.get(job_id, 0)) for job_id in numbers}
        for job_id, after in known.items():
            new = [event for event in events.get(job_id, ()) if event.sequence > after]
            if new:
                known[job_id] = new[-1].sequence
                told += new
        self.known = known
        self.tell(told)


class Watch:
    """All who wait and watch in one event loop."""

    def __init__(self) -> None:
        self._ends: dict[UUID, set[asyncio.Future[None]]] = {}
        self._jobs: dict[UUID, JobChannel] = {}
        self._users: dict[str, UserChannel] = {}
        self._looked_time: datetime | None = None
        self._looking: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None
        # Its own: all threads for requests may be waiting for something themselves.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="watch")

    @contextmanager
    def end_of(self, job_id: UUID) -> Iterator[asyncio.Future[None]]:
        """Done when the job is not in progress any more."""
        ended = asyncio.get_running_loop().create_future()
        self._ends.setdefault(job_id, set()).add(ended)
        self._begin()
        try:
            yield ended
        finally:
            others = self._ends.get(job_id, set())
            others.discard(ended)
            if not others:
                self._ends.pop(job_id, None)

    @contextmanager
    def job(self, job_id: UUID, sequence: int) -> Iterator[JobChannel]:
        """What happens to the job; its number was `sequence` just before, or later."""
        channel = self._jobs.setdefault(job_id, JobChannel(sequence))
        if self._listening is None or self._listening.done():
            self._listening = asyncio.create_task(listen(self._show))
        try:
            with self._reading(self._jobs, job_id, channel):
                yield channel
        finally:
            if not self._jobs and self._listening is not None:
                self._listening.cancel()
                self._listening = None

    @contextmanager
    def user(self, user_id: str) -> Iterator[UserChannel]:
        """What happens to all jobs of the user."""
        channel = self._users.setdefault(user_id, UserChannel())
        with self._reading(self._users, user_id, channel):
            yield channel

    def let_go(self) -> None:
        """Let all go who wait for an end."""
        self._wake(list(self._ends))

    @contextmanager
    def _reading(self, channels: dict[Any, Any], key: object, channel: Channel) -> Iterator[None]:
        channel.readers += 1
        self._begin()
        try:
            yield
        finally:
            channel.readers -= 1
            if not channel.readers and channels.get(key) is channel:
                del channels[key]

    def _begin(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._looked_time = None
        pause = LOOK_SECONDS
        while self._ends or self._jobs or self._users:
            await asyncio.sleep(pause)
            ends, jobs, users = list(self._ends), dict(self._jobs), dict(self._users)
            wanted = {**dict.fromkeys(ends), **{pk: job.sequence for pk, job in jobs.items()}}
            known = {user_id: user.known for user_id, user in users.items()}
            asked = Asked(jobs=wanted, users=known, looked_time=self._looked_time)
            began = time.monotonic()
            try:
                seen = await loop.run_in_executor(self._thread, look, asked)
            except DatabaseError as error:
                logger.warning("Nobody hears of a job's events, or of its end: %s", error)
                pause = AWAY_SECONDS
                continue
            except Exception:
                logger.exception("A look failed, and is tried again")
                pause = AWAY_SECONDS
                continue
            pause = _pause(time.monotonic() - began, live=bool(jobs or users))
            self._looked_time = seen.looked_time
            self._tell(seen, jobs, users)
            running = {pk for pk, (_, status) in seen.jobs.items() if status == IN_PROGRESS}
            self._wake([job_id for job_id in ends if job_id not in running])

    def _tell(
        self, seen: Seen, jobs: Mapping[UUID, JobChannel], users: Mapping[str, UserChannel]
    ) -> None:
        """Those who were looked for; a channel that was made since is for the next look."""
        for job_id, job in jobs.items():
            if job_id in seen.jobs:
                job.hear(seen.events.get(job_id, ()))
            else:
                job.end()
                if self._jobs.get(job_id) is job:
                    del self._jobs[job_id]
        for user_id, user in users.items():
            user.hear(seen.users[user_id], seen.known, seen.events)

    def _show(self, preview: Preview) -> None:
        if preview.job_id in self._jobs:
            self._jobs[preview.job_id].show(preview)

    def _wake(self, job_ids: Sequence[UUID]) -> None:
        for job_id in job_ids:
            for ended in self._ends.get(job_id, ()):
                if not ended.done():
                    ended.set_result(None)


def _pause(took: float, *, live: bool) -> float:
    shortest, longest = LIVE_SECONDS if live else (LOOK_SECONDS, AWAY_SECONDS)
    if live:
        longest = max(longest, LIVE_PAUSE * took)
    return max(shortest, min(PAUSE * took, longest))
