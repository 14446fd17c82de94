"""A service on a real port, and callers who watch it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn
from django.db import connection
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests import factories
from tests.helpers import served
from transcription_site.asgi import Application

SECONDS = 20.0  # in which everything comes


class Caller:
    """One WebSocket, from the caller's side."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def read(self) -> Any:
        """The next message."""
        return json.loads(self.socket.recv(SECONDS))

    def read_many(self, count: int) -> list[Any]:
        return [self.read() for _ in range(count)]

    def read_until(self, kind: str) -> list[Any]:
        """All messages up to the first of that type."""
        messages = [self.read()]
        while messages[-1]["type"] != kind:
            messages.append(self.read())
        return messages

    def say(self, message: object) -> None:
        self.socket.send(message if isinstance(message, str) else json.dumps(message))

    def end(self) -> tuple[int, str]:
        """Code and reason, when the server closes and says nothing before."""
        with pytest.raises(ConnectionClosed) as closed:
            pytest.fail(f"not closed, but said: {self.socket.recv(SECONDS)!r}")
        frame = closed.value.rcvd
        assert frame is not None, "cut"
        return frame.code, frame.reason


@dataclass
class Service:
    """What is served, and where."""

    application: Application
    port: int
    server: uvicorn.Server

    @property
    def open(self) -> int:
        """How many sockets are signed in."""
        return len(self.application._sockets)

    @contextmanager
    def watch(
        self, path: str, token: str | None = None, *, first: object = None, **options: Any
    ) -> Iterator[Caller]:
        """A caller with a token, who may say something first."""
        options = {"subprotocols": ["token", token] if token else None, **options}
        url = f"ws://localhost:{self.port}{path}"
        with connect(url, compression=None, max_size=None, close_timeout=1, **options) as socket:
            caller = Caller(socket)
            if first is not None:
                with suppress(ConnectionClosed):  # refused by now: that is told when read
                    caller.say(first)
            yield caller

    @contextmanager
    def watch_job(self, job: Any, user: str = "alice", first: object = "") -> Iterator[Caller]:
        """That user watches the job; the first message asks for the snapshot at once."""
        token = factories.make_token(user)
        with self.watch(f"/ws/transcript/{job.pk}", token, first=first) as caller:
            yield caller


@contextmanager
def service(**options: Any) -> Iterator[Service]:
    """The service with an application of its own, where nobody watches yet."""
    application = Application()
    connection.close()  # SQLite: nothing of the test holds a lock
    with served(application, **options) as (port, server):
        yield Service(application, port, server)
