"""Bodies over a real socket: how long one may be, and how long one may take to come."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn

from jobs.models import Job
from tests import factories
from tests.helpers import wait_until
from transcription_site import asgi

LIMIT = 200_000
Ask = Callable[..., tuple[int, Any]]


@pytest.fixture
def port(transactional_db: None, settings: Any, tmp_path: Path) -> Iterator[int]:
    """Of the service as it is served, but for a smaller limit."""
    settings.REQUEST_MAX_BYTES = LIMIT
    settings.AUDIO_ROOT = tmp_path
    config = uvicorn.Config(
        asgi.application, port=0, lifespan="off", log_config=None, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield int(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


@pytest.fixture
def head(port: int) -> Callable[..., bytes]:
    """The first lines of a submission."""
    token = factories.make_token("alice")

    def lines(*more: str, method: str = "POST", path: str = "/transcribe") -> bytes:
        first = (f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Token {token}")
        return (
            "\r\n".join((*first, "Content-Type: application/json", *more)) + "\r\n\r\n"
        ).encode()

    return lines


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def answer_on(connection: socket.socket) -> tuple[int, Any]:
    """Status and JSON of one answer."""
    answer = HTTPResponse(connection)
    answer.begin()
    return answer.status, json.loads(answer.read())


def ask(port: int, *parts: bytes) -> tuple[int, Any]:
    with closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as connection:
        for part in parts:
            connection.sendall(part)
        return answer_on(connection)


def code(answer: Any) -> str:
    return str(answer["errors"][0]["code"])


def test_a_body_of_a_length_that_was_told_may_not_be_too_long(
    port: int, head: Callable[..., bytes]
) -> None:
    size = LIMIT + 1
    status, answer = ask(port, head(f"Content-Length: {size}"), b"x" * size)
    assert (status, code(answer)) == (413, "request_too_large")
    assert answer["type"] == "client_error"
    assert not Job.objects.exists()


def test_nor_may_one_whose_length_was_not_told(port: int, head: Callable[..., bytes]) -> None:
    status, answer = ask(
        port, head("Transfer-Encoding: chunked"), *[chunk(b"x" * 10_000)] * 25, chunk(b"")
    )
    assert (status, code(answer)) == (413, "request_too_large")
    assert answer["type"] == "client_error"


def test_a_body_up_to_the_limit_is_read(port: int, head: Callable[..., bytes]) -> None:
    factories.put_audio("alice/a.wav")
    body = json.dumps({"audioChunkPaths": ["alice/a.wav"]}).encode().ljust(LIMIT)
    status, answer = ask(port, head(f"Content-Length: {LIMIT}"), body)
    assert status == 202, answer
    assert Job.objects.count() == 1


def test_who_sends_for_ever_is_cut_off(port: int, head: Callable[..., bytes]) -> None:
    sent = 0
    with closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        connection.sendall(head("Transfer-Encoding: chunked"))
        connection.settimeout(5)
        with suppress(ConnectionError):
            while sent < 100_000_000:
                connection.sendall(chunk(b"x" * 100_000))
                sent += 100_000
    assert sent < 100_000_000, "the service took 500 times what it may"


def test_a_body_that_does_not_come_is_not_waited_for(
    port: int, head: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "SILENCE_SECONDS", 0.2)
    status, answer = ask(port, head("Content-Length: 1000"), b"{")
    assert status == 400
    assert answer["errors"][0]["detail"] == "The request is malformed."
    assert not Job.objects.exists()


def test_it_is_told_also_where_nobody_reads_the_body(
    port: int, head: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "SILENCE_SECONDS", 0.2)
    lines = head("Content-Length: 1000", method="GET", path="/transcript/search")
    assert ask(port, lines, b"{")[0] == 200


@pytest.mark.parametrize("signed", [True, False])
def test_only_a_signed_address_takes_what_is_longer(port: int, signed: bool) -> None:
    token = factories.make_token("alice")
    size = 2 * LIMIT
    asked = {"fileName": "a.wav", "sizeBytes": size, "contentType": "audio/wav"}
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        headers = {"Authorization": f"Token {token}", "Content-Type": "application/json"}
        body = json.dumps(asked | {"kind": "recording"})
        connection.request("POST", "/uploads", body, headers)
        announced = json.loads(connection.getresponse().read())
        address = urlsplit(announced["uploadUrl"])
        target = f"{address.path}?{address.query if signed else ''}"
        connection.request("PUT", target, bytes(size), announced["headers"])
        answer = connection.getresponse()
        answer.read()
    assert answer.status == (204 if signed else 403)
