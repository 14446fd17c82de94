"""The ASGI entry point, served by uvicorn."""

from __future__ import annotations

import io
import os
from collections.abc import Awaitable, Callable
from typing import IO, Any, NoReturn

import django
from django.core.handlers.asgi import ASGIHandler

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "transcription_site.settings")


class Application(ASGIHandler):
    """Django's, for whom a body that finds no room on the disk has no answer at all."""

    async def read_body(self, receive: Callable[[], Awaitable[Any]]) -> IO[bytes]:
        """The body, in memory or in a file; whoever reads one without room gets the error."""
        more = True

        async def received() -> Any:
            nonlocal more
            message = await receive()
            more = message.get("more_body", False)
            return message

        try:
            body: IO[bytes] = await super().read_body(received)
        except OSError as error:
            while more:  # a caller who still sends does not hear what is said to it
                await received()
            return UnstoredBody(error)
        return body


class UnstoredBody(io.BytesIO):
    """Stands for a body that could not be kept."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self._reason = error.args  # the error itself would keep the partial file

    def _fail(self, *_: object) -> NoReturn:
        raise OSError(*self._reason)

    read = readline = readlines = seek = _fail


django.setup(set_prefix=False)
application = Application()
