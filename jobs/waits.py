"""Waiting for jobs to end: a call that holds neither a thread nor a connection meanwhile.

Beyond a bound one more waits only for a while. A newcomer that were refused would ask again at
once, and again; so would one who were let go early, and put out the next.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import Counter
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
MOST: Final = 2000  # who wait in one process as long as they like
MOST_OF_ONE: Final = 100  # and of these, of one user
CROWDED_SECONDS: Final = 5.0  # for which one more waits at most


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
        self._callers: Counter[str | None] = Counter()
        self._closed = False

    def __len__(self) -> int:
        return self._callers.total()

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

        Sooner, where too many wait already.
        """
        if self._closed:
            return
        if self._is_crowded(caller):
            seconds = min(seconds, CROWDED_SECONDS)
        self._end_with_the_process()
        self._callers[caller] += 1
        try:
            with self._watch.end_of(job_id) as ended, suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await ended
        finally:
            self._callers -= Counter([caller])

    def close(self) -> None:
        """Let all go, and nobody wait any more."""
        self._closed = True
        self._watch.let_go()

    def _is_crowded(self, caller: str | None) -> bool:
        own = 0 if caller is None else self._callers[caller]
        return own >= MOST_OF_ONE or len(self) >= MOST

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
