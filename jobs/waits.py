"""Waiting for jobs to end: however many wait in a process, one statement looks for them all.

Who waits holds neither a thread nor a connection of the database. Nothing has to be told: an end
that was not heard of is seen by the next look.

Only so many wait at once. For one more, whoever has waited longest is answered at once: a newcomer
that were refused would ask again at once, and again.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any, Final, cast
from uuid import UUID

from django.db import Error as DatabaseError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from jobs.database import release_connection
from jobs.models import Job

MAX_WAIT_SECONDS: Final = 30
MOST: Final = 2000  # who wait in one process
MOST_OF_ONE: Final = 100  # and of these, of one user
LOOK_SECONDS: Final = 0.1
PAUSE: Final = 20.0  # at least, times as long as the look took: a busy system has better to do
AWAY_SECONDS: Final = 2.0  # between two looks at most, and until a database that failed is asked

logger = logging.getLogger(__name__)


class AskAgain(HttpResponse):
    """A view's word to the server: wait for the end of this job, and call me once more.

    `caller` is whose place it takes; None for a service, which asks for many users.
    """

    def __init__(self, job_id: UUID, seconds: float, caller: str | None = None) -> None:
        super().__init__()
        self.job_id = job_id
        self.seconds = seconds
        self.caller = caller


def may_wait(request: HttpRequest) -> bool:
    """Whether `AskAgain` would be understood, as it is the first time that a view is called."""
    return bool(getattr(request, "may_wait", False))


class Waits:
    """All who wait in one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, set[asyncio.Future[None]]] = {}
        self._callers: dict[asyncio.Future[None], str | None] = {}  # the oldest first
        self._looking: asyncio.Task[None] | None = None
        # Its own: all threads for requests may be waiting for something themselves.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="waits")
        self._closed = False

    def __len__(self) -> int:
        return len(self._callers)

    async def answer(
        self,
        request: HttpRequest,
        respond: Callable[[HttpRequest], Awaitable[HttpResponseBase]],
    ) -> HttpResponseBase:
        """What the view says; where it would wait for a job, what it says after that."""
        cast("Any", request).may_wait = True
        response = await respond(request)
        if isinstance(response, AskAgain):
            await self.until_ended(response.job_id, response.seconds, response.caller)
            cast("Any", request).may_wait = False
            response = await respond(request)
        return response

    async def until_ended(self, job_id: UUID, seconds: float, caller: str | None = None) -> None:
        """Return when the job is not in progress any more, or after so many seconds.

        Sooner, when too many have come since.
        """
        if self._closed:
            return
        self._make_room(caller)
        ended = asyncio.get_running_loop().create_future()
        self._callers[ended] = caller
        self._waiting.setdefault(job_id, set()).add(ended)
        if self._looking is None or self._looking.done():
            self._end_with_the_process()
            self._looking = asyncio.create_task(self._look())
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await ended
        finally:
            self._callers.pop(ended, None)
            others = self._waiting.get(job_id, set())
            others.discard(ended)
            if not others:
                self._waiting.pop(job_id, None)

    def close(self) -> None:
        """Let all go, and nobody wait any more."""
        self._closed = True
        self._wake(list(self._waiting))

    def _make_room(self, caller: str | None) -> None:
        """Let the one go who has waited longest: of this caller, then of all."""
        own = [ended for ended, of in self._callers.items() if of == caller]
        if caller is not None and len(own) >= MOST_OF_ONE:
            self._let_go(own[0])
        if len(self._callers) >= MOST:
            self._let_go(next(iter(self._callers)))

    def _let_go(self, ended: asyncio.Future[None]) -> None:
        del self._callers[ended]  # now: others may come before it is answered
        if not ended.done():
            ended.set_result(None)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        pause = LOOK_SECONDS
        while self._waiting:
            await asyncio.sleep(pause)
            asked, began = list(self._waiting), time.monotonic()
            try:
                running = await loop.run_in_executor(self._thread, _in_progress, asked)
            except DatabaseError as error:
                logger.warning("Nobody who waits for a job hears of its end: %s", error)
                pause = AWAY_SECONDS
                continue
            pause = PAUSE * (time.monotonic() - began)
            pause = min(max(pause, LOOK_SECONDS), AWAY_SECONDS)
            self._wake(job_id for job_id in asked if job_id not in running)

    def _wake(self, job_ids: Iterable[UUID]) -> None:
        for job_id in job_ids:
            for ended in self._waiting.get(job_id, ()):
                if not ended.done():
                    ended.set_result(None)

    def _end_with_the_process(self) -> None:
        """The server stops when all are answered: those who wait are, once it is told to stop."""
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            before = signal.getsignal(number)
            if callable(before) and not isinstance(before, _ClosesFirst):
                signal.signal(
                    number, _ClosesFirst(before, partial(loop.call_soon_threadsafe, self.close))
                )


class _ClosesFirst:
    """A signal's handler that lets all who wait go, and then does what was to be done before."""

    def __init__(self, before: Callable[..., Any], close: Callable[[], object]) -> None:
        self._before = before
        self._close = close

    def __call__(self, number: int, frame: FrameType | None) -> None:
        with suppress(RuntimeError):  # the loop is over already
            self._close()
        self._before(number, frame)


def _in_progress(job_ids: Collection[UUID]) -> set[UUID]:
    try:
        return set(Job.objects.in_progress().filter(pk__in=job_ids).values_list("pk", flat=True))
    finally:
        release_connection()
