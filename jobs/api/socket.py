"""One WebSocket: a first message in, texts out, and an end with a code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from rest_framework.exceptions import APIException

from jobs.api.socket_entry import SUBPROTOCOL

FIRST_MESSAGE_SECONDS: Final = 0.5
SLOW_SECONDS: Final = 10.0  # that a reader may take for what it was sent, once all buffers are full
CODES: Final = 4000  # and the status that HTTP would answer


class Socket:
    """An ASGI connection of the type `websocket`.

    What is sent raises OSError when the caller has hung up, or was dropped as too slow.
    """

    def __init__(
        self, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        self._receive = receive
        self._send = send
        self._first: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def accept(self, subprotocols: list[str]) -> None:
        """Shake hands; a browser is told the reason for an end only after that."""
        await self._receive()  # websocket.connect
        chosen = SUBPROTOCOL if SUBPROTOCOL in subprotocols else None
        await self._send({"type": "websocket.accept", "subprotocol": chosen})

    async def listen(self) -> None:
        """Take what comes, until the connection is over: only the first message is heard."""
        while (message := await self._receive())["type"] == "websocket.receive":
            if not self._first.done():
                self._first.set_result(message.get("text") or "")

    async def first_message(self) -> str:
        """The text of what came first; empty where nothing came soon."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_MESSAGE_SECONDS):
                return await self._first
        return ""

    async def say(self, text: str) -> None:
        """Send one message."""
        await self._in_time({"type": "websocket.send", "text": text})

    async def refuse(self, refused: APIException) -> None:
        """End it as HTTP would answer."""
        await self.close(CODES + refused.status_code, str(refused.default_code))

    async def close(self, code: int, reason: str = "") -> None:
        """End it, unless it is over."""
        with suppress(OSError):
            await self._in_time({"type": "websocket.close", "code": code, "reason": reason})

    async def _in_time(self, message: Any) -> None:
        """Give it to the server, which waits only while all buffers are full."""
        try:
            async with asyncio.timeout(SLOW_SECONDS):
                await self._send(message)
        except (TimeoutError, asyncio.CancelledError):
            self._abort()
            raise

    def _abort(self) -> None:
        """Cut the connection: to be closed in order it would first have to take all that waits.

        ASGI has no word for that, so it takes uvicorn's own.
        """
        transport = getattr(getattr(self._send, "__self__", None), "transport", None)
        if transport is not None:
            transport.abort()
