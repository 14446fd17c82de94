"""The ASGI entry point, served by uvicorn."""

from __future__ import annotations

import asyncio
import io
import logging
import multiprocessing
import os
import resource
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import IO, Any, Final, NoReturn, cast
from urllib.parse import parse_qs

import django
from django.conf import settings
from django.core.exceptions import RequestAborted, RequestDataTooBig, SuspiciousOperation
from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, reset_queries
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from asr.child import die_with
from jobs.api.encodings import BrokenEncodingError, unpacking
from jobs.storage import warn_if_away
from transcription_site.static_files import with_static_files

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "transcription_site.settings")

WEB_THREADS: Final = 16  # as many as there are connections in the database's pool
SILENCE_SECONDS: Final = 60.0  # in the middle of a body, or of an answer
UNPACKED_AT_MOST: Final = 100  # times as long as it came; sound and JSON are 2 to 20 times
UNPACKED_UNASKED: Final = 1_000_000  # bytes that any body may unpack to
MAX_FILES: Final = 65_536  # of the process: each caller who waits or watches holds a connection

logger = logging.getLogger(__name__)


class Application(ASGIHandler):
    """Django's, with one thread for the whole of a request, and few of them.

    All views are synchronous. Django's own handler would take every middleware and every signal
    through a thread by itself, and start a new thread for each request: 2.4 ms of processor time
    for a view that does nothing, against 0.4. With a crowd of callers as many threads would wait
    for the database's pool, until that gives up.
    """

    def __init__(self) -> None:
        from jobs.api.sockets import Sockets  # noqa: PLC0415  (the apps are loaded by now)
        from jobs.waits import Waits  # noqa: PLC0415  (likewise)
        from jobs.watching import Watch  # noqa: PLC0415  (likewise)

        super().__init__()
        self._threads = ThreadPoolExecutor(WEB_THREADS, thread_name_prefix="request")
        self._sign_of_life = ThreadPoolExecutor(1, thread_name_prefix="healthz")
        watch = Watch()
        self._waits = Waits(watch)
        self._sockets = Sockets(watch)

    def load_middleware(self, is_async: bool = False) -> None:
        """All of it synchronous, as the views are."""
        super().load_middleware(is_async=False)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Without a thread of its own for each request."""
        if scope["type"] == "websocket":
            await self._sockets(scope, receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"only HTTP and WebSockets are spoken here, not {scope['type']}")
        room, encoding = _room(scope), _encoding(scope)
        if encoding:
            incoming: IncomingBody = PackedBody(receive, room, encoding)
            unsaid = {b"content-encoding", b"content-length"}  # what Django reads is unpacked
            scope = {**scope, "headers": [h for h in scope["headers"] if h[0] not in unsaid]}
        else:
            incoming = IncomingBody(receive, room)
        await self.handle(scope, incoming, partial(incoming.answer, send))

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        """The answer, which may wait for a job to end."""
        return await self._waits.answer(request, self._in_a_thread)

    async def _in_a_thread(self, request: HttpRequest) -> HttpResponseBase:
        """The whole of the middleware and the view, in one of the threads."""
        answer = partial(copy_context().run, self._answer, request)
        # Whether the process serves is answered also while all threads wait for a database.
        threads = self._sign_of_life if request.path == "/healthz" else self._threads
        answered = asyncio.get_running_loop().run_in_executor(threads, answer)
        try:
            return await asyncio.shield(answered)
        except asyncio.CancelledError:  # the caller hung up; the view still reads the body
            (await answered).close()
            raise

    def _answer(self, request: HttpRequest) -> HttpResponseBase:
        try:
            return self.get_response(request)
        finally:
            close_old_connections()

    async def read_body(self, receive: Any) -> IO[bytes]:
        """The body, in memory or in a file; whoever reads one that was not kept gets the error.

        Django's own handler would take any length, and give no answer where there is no room.
        """
        try:
            body: IO[bytes] = await super().read_body(receive.part)
        except (OSError, SuspiciousOperation) as error:
            await receive.let_pass()
            return UnstoredBody(error)
        return body

    async def listen_for_disconnect(self, receive: Any) -> None:
        """Also of a caller who still sends what is not read any more."""
        while (await receive())["type"] != "http.disconnect":
            pass
        raise RequestAborted


class IncomingBody:
    """What comes in of a request's body: not more than one may have, and not for ever.

    Called, it is what the server gave: the next message, whenever it comes.
    """

    def __init__(self, receive: Callable[[], Awaitable[Any]], room: int) -> None:
        self._receive = receive
        self._room = room
        self._more, self._silent = True, False
        self._hung_up = False

    async def __call__(self) -> Any:
        return await self._receive()

    async def part(self) -> Any:
        """The next part.

        Raises:
            RequestDataTooBig: it is more than there may be.
            SuspiciousOperation: nothing came for long.
        """
        return await self._arriving()

    async def _arriving(self) -> Any:
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                message = await self._receive()
        except TimeoutError:
            self._silent = True
            raise SuspiciousOperation("nothing more of the body came") from None
        self._more = message.get("more_body", False)
        self._room -= len(message.get("body", b""))
        if self._room < 0:
            raise RequestDataTooBig("the body is longer than any may be")
        return message

    async def let_pass(self) -> None:
        """Read on for a while: a caller who still sends does not hear what is said to it."""
        self._room = settings.REQUEST_MAX_BYTES
        with suppress(SuspiciousOperation):
            while self._more and not self._silent:
                await self._arriving()

    async def answer(self, send: Callable[[Any], Awaitable[None]], message: Any) -> None:
        """Send an answer's part; a connection on which there is more to come is not used again.

        A caller who takes nothing for long counts as one who has hung up.
        """
        if self._more and message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        if self._hung_up:
            return
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                await send(message)
        except TimeoutError:
            raise asyncio.CancelledError from None
        except RuntimeError as error:
            if "handler is closed" not in str(
                error
            ):  # what uvloop says of a connection that is gone
                raise
            self._hung_up = True
            logger.info("A caller hung up before the whole answer was sent")


class PackedBody(IncomingBody):
    """One with a Content-Encoding, whose parts are unpacked: never more than a piece is held.

    What it unpacks to is bounded as if it came so, and by what came in: it is read before anybody
    knows who sends it. What comes in is bounded as well, for there are streams without an end that
    hold nothing.
    """

    def __init__(self, receive: Callable[[], Awaitable[Any]], room: int, encoding: str) -> None:
        super().__init__(receive, room + room // 64 + 1024)  # gzip adds less to what is random
        self._unpacked_room = room
        self._trust = UNPACKED_UNASKED
        self._packed = unpacking(encoding)
        self._pieces: Iterator[bytes] = iter(())

    async def part(self) -> Any:
        """The next part, unpacked.

        Raises:
            RequestDataTooBig, SuspiciousOperation: see `IncomingBody.part`.
            BrokenEncodingError, UnknownEncodingError: it cannot be unpacked.
        """
        while (piece := next(self._pieces, None)) is None:
            if not self._more:
                if not self._packed.is_whole:
                    raise BrokenEncodingError("the body ends too early")
                return {"type": "http.request", "body": b"", "more_body": False}
            message = await self._arriving()
            if message["type"] == "http.disconnect":
                return message
            came = message.get("body", b"")
            self._trust += UNPACKED_AT_MOST * len(came)
            self._pieces = self._packed.pieces(came)
        self._unpacked_room -= len(piece)
        self._trust -= len(piece)
        if self._unpacked_room < 0 or self._trust < 0:
            raise RequestDataTooBig("the body unpacks to more than any may be")
        await asyncio.sleep(0)  # others are answered between two pieces
        return {"type": "http.request", "body": piece, "more_body": True}


def _encoding(scope: Any) -> str:
    """What the body is packed with; empty where it comes as it is."""
    given = [value for name, value in scope["headers"] if name == b"content-encoding"]
    encoding = b",".join(given).decode("latin-1").strip().lower()
    return "" if encoding == "identity" else encoding


def _room(scope: Any) -> int:
    """How long a body may be: a recording may only come to an address that we have signed."""
    from jobs.api.uploads import is_signed  # noqa: PLC0415  (the apps are loaded by now)

    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    upload_id = scope["path"].removeprefix("/uploads/")
    size, signature = (query.get(name, [""])[0] for name in ("size", "signature"))
    if scope["method"] == "PUT" and is_signed(upload_id, size, signature):
        return int(size)
    return int(settings.REQUEST_MAX_BYTES)


class UnstoredBody(io.BytesIO):
    """Stands for a body that could not be kept."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._kind, self._reason = type(error), error.args  # itself it would keep the partial file

    def _fail(self, *_: object) -> NoReturn:
        raise self._kind(*self._reason)

    read = readline = readlines = seek = _fail


def _allow_many_connections() -> None:
    """The usual limit of 1024 files is for programs that cannot count further; raise it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _die_with_the_first() -> None:
    """Where uvicorn runs several processes: one that outlived the first would hold its port."""
    if parent := multiprocessing.parent_process():
        die_with(cast("int", parent.pid))


_allow_many_connections()
_die_with_the_first()
django.setup(set_prefix=False)
# Each would send every request through a thread once more; `_answer` does what they do.
request_started.disconnect(reset_queries)
request_started.disconnect(close_old_connections)
request_finished.disconnect(close_old_connections)
application = with_static_files(Application())
warn_if_away()
