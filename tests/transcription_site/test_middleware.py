"""A body that comes in chunks, without a Content-Length, through the whole ASGI application."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from asgiref.testing import ApplicationCommunicator
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpResponse
from django.test import RequestFactory

from jobs.models import Chunk, Job
from tests import factories
from transcription_site.middleware import body_length_middleware

PART = "--x\r\nContent-Disposition: form-data; name="
UPLOADS = b"".join(
    f'{PART}"audioChunks"; filename="{number}.wav"\r\n\r\n'.encode() + factories.wav() + b"\r\n"
    for number in range(2)
)
FORM = f'{PART}"title"\r\n\r\nMonday\r\n'.encode() + UPLOADS + b"--x--\r\n"


@pytest.fixture
def audio_root(tmp_path: Path, settings: Any) -> Path:
    settings.AUDIO_ROOT = tmp_path
    return tmp_path


@pytest.fixture
def token(transactional_db: None, redis_is_empty: None, audio_root: Path) -> str:
    factories.put_audio("alice/a.wav")
    return factories.make_token("alice")


def send(body: bytes, kind: str, token: str, *, method: str = "POST", **more: str) -> Any:
    """Send it as a server does that got it in chunks; the answer's status and JSON."""
    headers = {"content-type": kind, "authorization": f"Token {token}", "host": "localhost", **more}
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": "/transcribe" if method == "POST" else "/transcript/search",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }

    async def call() -> tuple[int, Any]:
        application = ApplicationCommunicator(ASGIHandler(), scope)
        for start in range(0, len(body), 1000):
            await application.send_input(
                {"type": "http.request", "body": body[start : start + 1000], "more_body": True}
            )
        await application.send_input({"type": "http.request", "body": b"", "more_body": False})
        start_of_answer = await application.receive_output(20)
        parts = [part async for part in _parts(application)]
        await application.wait(20)  # until it has closed what it opened
        return start_of_answer["status"], json.loads(b"".join(parts))

    return async_to_sync(call)()


async def _parts(application: ApplicationCommunicator) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await application.receive_output(20)
        yield message.get("body", b"")
        more = message.get("more_body", False)


def test_json_in_chunks_becomes_a_job(token: str) -> None:
    body = json.dumps({"audioChunkPaths": ["alice/a.wav"], "title": "Monday"}).encode()
    status, answer = send(body, "application/json", token, **{"transfer-encoding": "chunked"})
    assert status == 202, answer
    assert str(Job.objects.get(title="Monday").pk) == answer["jobId"]


def test_a_form_in_chunks_becomes_a_job_with_every_byte_of_its_files(
    token: str, audio_root: Path
) -> None:
    status, answer = send(FORM, "multipart/form-data; boundary=x", token)
    assert status == 202, answer
    assert Job.objects.get().title == "Monday"
    paths = list(Chunk.objects.order_by("index").values_list("audio_path", flat=True))
    assert [(audio_root / path).read_bytes() for path in paths] == [factories.wav()] * 2


def test_a_length_that_was_told_stays(token: str) -> None:
    body = json.dumps({"audioChunkPaths": ["alice/a.wav"]}).encode()
    told = {"content-length": str(len(body))}
    assert send(body, "application/json", token, **told)[0] == 202


def test_no_body_stays_no_body(token: str) -> None:
    status, answer = send(b"", "application/json", token)
    assert (status, answer["errors"][0]["code"]) == (400, "audio_chunk_count")
    assert send(b"", "application/json", token, method="GET")[0] == 200


def test_a_body_in_chunks_has_the_same_limit_as_any_other(token: str) -> None:
    body = json.dumps({"audioChunkPaths": ["x" * 1000] * 3000}).encode()
    status, answer = send(body, "application/json", token)
    assert (status, answer["errors"][0]["code"]) == (413, "request_too_large")
    assert not Job.objects.exists()


# --- by itself ---


def test_it_serves_without_threads_in_both_worlds() -> None:
    seen: list[str | None] = []

    def view(request: Any) -> HttpResponse:
        seen.append(request.META.get("CONTENT_LENGTH"))
        return HttpResponse()

    async def view_async(request: Any) -> HttpResponse:
        return view(request)

    scope = {"method": "POST", "path": "/", "headers": []}
    middleware = body_length_middleware(view_async)
    assert asyncio.iscoroutinefunction(middleware)
    asyncio.run(middleware(ASGIRequest(scope, BytesIO(b"abc"))))
    body_length_middleware(view)(ASGIRequest(scope, BytesIO(b"abc")))
    told = {**scope, "headers": [(b"content-length", b"7")]}
    body_length_middleware(view)(ASGIRequest(told, BytesIO(b"abc")))
    assert seen == ["3", "3", "7"]


def test_a_wsgi_request_is_left_alone() -> None:
    request = RequestFactory().get("/")
    assert isinstance(request, WSGIRequest)
    before = dict(request.META)
    body_length_middleware(lambda request: HttpResponse())(request)
    assert before == request.META
