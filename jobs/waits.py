"""Waiting for jobs to end: a call that holds neither a thread nor a connection meanwhile.

Only so many wait at once. For one more, whoever has waited longest is answered at once: a newcomer
that were refused would ask again at once, and again.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any, Final, cast
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from jobs.watching import Watch

MAX_WAIT_SECONDS: Final = 30
MOST: Final = 2000  # who wait in one process
MOST_OF_ONE: Final = 100  # and of these, of one user


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
    """All who wait for the end of a job in one event loop."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._callers: dict[asyncio.Future[None], str | None] = {}  # the oldest first
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
        self._end_with_the_process()
        with self._watch.end_of(job_id) as ended:
            self._callers[ended] = caller
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await ended
            finally:
                self._callers.pop(ended, None)

    def close(self) -> None:
        """Let all go, and nobody wait any more."""
        self._closed = True
        self._watch.let_go()

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
