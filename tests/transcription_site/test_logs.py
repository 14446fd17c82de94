"""What a caller does wrong is a short line in the log, and no alarm."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from django.http import HttpRequest, HttpResponse
from django.urls import path

from transcription_site.asgi import Application
from transcription_site.logs import SHOWN
from transcription_site.urls import handler400, handler403, handler404, handler500
from transcription_site.urls import urlpatterns as site_patterns

__all__ = ["handler400", "handler403", "handler404", "handler500", "urlpatterns"]  # as addresses
pytestmark = [pytest.mark.urls(__name__), pytest.mark.django_db(transaction=True)]


def stumble(request: HttpRequest) -> HttpResponse:
    raise ZeroDivisionError


urlpatterns = [path("test/stumble", stumble), *site_patterns]


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the service writes to its log."""
    (handler,) = (each for each in logging.getLogger().handlers if each.name == "stderr")
    assert isinstance(handler, logging.StreamHandler)
    written = io.StringIO()
    before = handler.setStream(written)
    yield written
    handler.setStream(before)


def ask(method: str, address: str, **more: Any) -> httpx2.Response:
    async def call() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=Application(), raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, address, **more)

    return asyncio.run(call())


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [("gzip", b"no gzip", 400), ("br", b"x", 415), ("", b"x" * 300_000, 413)],
)
def test_a_body_that_cannot_be_read_is_one_line(
    log: io.StringIO, settings: Any, encoding: str, body: bytes, status: int
) -> None:
    settings.REQUEST_MAX_BYTES = 200_000
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding or "identity"}

    async def pieces() -> AsyncIterator[bytes]:  # so that its length is not told
        yield body

    answer = ask("POST", "/transcribe", content=pieces(), headers=headers)
    assert answer.status_code == status
    (line,) = log.getvalue().splitlines()
    assert " WARNING django." in line
    assert answer.headers["X-Request-ID"] in line


def test_a_foreign_host_is_one_short_line(log: io.StringIO) -> None:
    host = "x" * 5000 + ".example"
    assert ask("GET", "/readyz", headers={"Host": host}).status_code == 400
    (line,) = log.getvalue().splitlines()
    assert " WARNING django.security.DisallowedHost " in line
    assert line.endswith("…")
    assert len(line) < SHOWN + 150


def test_our_own_errors_keep_their_traceback(log: io.StringIO) -> None:
    assert ask("GET", "/test/stumble").status_code == 500
    first, *others = log.getvalue().splitlines()
    assert " ERROR django.request " in first
    assert others[-1] == "ZeroDivisionError"


@pytest.mark.parametrize("foreign", ["a" * 5000, "-" * 5000 + uuid4().hex, "{" + uuid4().hex + "}"])
def test_a_request_id_that_is_no_uuid_is_neither_logged_nor_echoed(
    log: io.StringIO, foreign: str
) -> None:
    answer = ask("GET", "/nowhere", headers={"X-Request-ID": foreign})
    assert len(answer.headers["X-Request-ID"]) <= 36
    (line,) = log.getvalue().splitlines()
    assert answer.headers["X-Request-ID"] in line
    assert foreign not in line


def test_a_caller_who_hung_up_is_one_line_and_no_failure(log: io.StringIO) -> None:
    async def send(message: Any) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport>; the handler is closed")

    serve(send)
    (line,) = log.getvalue().splitlines()
    assert line.endswith("A caller hung up before the whole answer was sent")
    assert " INFO " in line


def test_any_other_failure_to_send_is_not_taken_for_that() -> None:
    async def send(message: Any) -> None:
        raise RuntimeError("Response content longer than Content-Length")

    with pytest.raises(RuntimeError, match="longer"):
        serve(send)


def serve(send: Any) -> None:
    """One request for /healthz, the answer to which goes there."""
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/healthz",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }
    first = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        return first.pop() if first else await asyncio.Future()

    asyncio.run(Application()(scope, receive, send))
