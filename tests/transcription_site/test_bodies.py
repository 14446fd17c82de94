"""Bodies over a real socket: how long one may be, and how long one may take to come."""

from __future__ import annotations

import gzip
import json
import random
import socket
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from jobs.api.encodings import PIECE, Gunzip
from jobs.models import Job
from tests import factories
from tests.helpers import served
from transcription_site import asgi

LIMIT = 200_000
Ask = Callable[..., tuple[int, Any]]


@pytest.fixture
def port(transactional_db: None, settings: Any, tmp_path: Path) -> Iterator[int]:
    """Of the service as it is served, but for a smaller limit."""
    settings.REQUEST_MAX_BYTES = LIMIT
    settings.AUDIO_ROOT = tmp_path
    with served(asgi.application) as (number, _):
        yield number


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


def announce(connection: HTTPConnection, token: str, size: int) -> Any:
    """The answer of `POST /uploads` for a recording."""
    asked = {"fileName": "a.wav", "sizeBytes": size, "contentType": "audio/wav"}
    headers = {"Authorization": f"Token {token}", "Content-Type": "application/json"}
    connection.request("POST", "/uploads", json.dumps(asked | {"kind": "recording"}), headers)
    return json.loads(connection.getresponse().read())


def target_of(announced: Any) -> str:
    address = urlsplit(announced["uploadUrl"])
    return f"{address.path}?{address.query}"


@pytest.mark.parametrize("signed", [True, False])
def test_only_a_signed_address_takes_what_is_longer(port: int, signed: bool) -> None:
    token, size = factories.make_token("alice"), 2 * LIMIT
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        announced = announce(connection, token, size)
        target = target_of(announced) if signed else target_of(announced).partition("?")[0]
        connection.request("PUT", target, bytes(size), announced["headers"])
        answer = connection.getresponse()
        answer.read()
    assert answer.status == (204 if signed else 403)


# --- bodies that come packed


def submission(length: int = 0) -> bytes:
    factories.put_audio("alice/a.wav")
    return json.dumps({"audioChunkPaths": ["alice/a.wav"]}).encode().ljust(length)


def send_packed(
    port: int, head: Callable[..., bytes], body: bytes, encoding: str = "gzip"
) -> tuple[int, Any]:
    lines = (f"Content-Encoding: {encoding}", f"Content-Length: {len(body)}")
    return ask(port, head(*lines), body)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
def test_a_body_may_come_as_gzip_up_to_the_same_limit(
    port: int, head: Callable[..., bytes], encoding: str
) -> None:
    status, answer = send_packed(port, head, gzip.compress(submission(LIMIT)), encoding)
    assert status == 202, answer
    assert Job.objects.count() == 1


def test_one_byte_more_is_too_much_however_small_it_comes(
    port: int, head: Callable[..., bytes]
) -> None:
    status, answer = send_packed(port, head, gzip.compress(submission(LIMIT + 1)))
    assert (status, code(answer)) == (413, "request_too_large")
    assert not Job.objects.exists()


def test_a_body_as_it_is_may_say_so(port: int, head: Callable[..., bytes]) -> None:
    assert send_packed(port, head, submission(), "identity")[0] == 202


def test_it_may_be_of_several_members_and_come_in_any_pieces(
    port: int, head: Callable[..., bytes]
) -> None:
    whole = submission()
    packed = b"".join(gzip.compress(part) for part in (whole[:7], b"", whole[7:]))
    lines = head("Content-Encoding: gzip", "Transfer-Encoding: chunked")
    pieces = [chunk(packed[n : n + 1]) for n in range(len(packed))]
    assert ask(port, lines, *pieces, chunk(b""))[0] == 202


def test_a_form_with_files_may_come_as_gzip(port: int, settings: Any, tmp_path: Path) -> None:
    token, sound = factories.make_token("alice"), factories.wav(fill=7)
    form = (
        b'--edge\r\nContent-Disposition: form-data; name="audioChunks"; filename="a.wav"\r\n'
        b"Content-Type: audio/wav\r\n\r\n" + sound + b"\r\n--edge--\r\n"
    )
    headers = {
        "Authorization": f"Token {token}",
        "Content-Type": "multipart/form-data; boundary=edge",
        "Content-Encoding": "gzip",
    }
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("POST", "/transcribe", gzip.compress(form), headers)
        answer = connection.getresponse()
        assert answer.status == 202, answer.read()
    assert [path.read_bytes() for path in tmp_path.rglob("*.wav")] == [sound]


def bomb() -> bytes:
    """1 GB of zeros."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join([packer.compress(bytes(1 << 20)) for _ in range(1000)]) + packer.flush()


def test_a_bomb_is_not_unpacked(
    port: int, head: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked = 0
    pieces = Gunzip.pieces

    def counted(stream: Gunzip, data: bytes) -> Iterator[bytes]:
        nonlocal unpacked
        for piece in pieces(stream, data):
            unpacked += len(piece)
            assert len(piece) <= PIECE
            yield piece

    monkeypatch.setattr(Gunzip, "pieces", counted)
    status, answer = send_packed(port, head, bomb())
    assert (status, code(answer)) == (413, "request_too_large")
    assert LIMIT < unpacked <= LIMIT + PIECE


def test_a_body_may_not_unpack_to_a_hundred_times_its_length(
    port: int, head: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "UNPACKED_UNASKED", 0)
    body = submission(LIMIT)
    packed = gzip.compress(body)
    monkeypatch.setattr(asgi, "UNPACKED_AT_MOST", len(body) // len(packed) + 1)
    assert send_packed(port, head, packed)[0] == 202
    monkeypatch.setattr(asgi, "UNPACKED_AT_MOST", len(body) // len(packed) - 1)
    status, answer = send_packed(port, head, packed)
    assert (status, code(answer)) == (413, "request_too_large")


@pytest.mark.parametrize(
    "endless",
    [gzip.compress(b""), b"\0\0\0\xff\xff"],
    ids=["members", "blocks"],
)
def test_what_holds_nothing_does_not_come_for_ever(
    port: int, head: Callable[..., bytes], endless: bytes
) -> None:
    start = gzip.compress(b"")[:10] if endless[:1] == b"\0" else b""
    body = start + endless * (2 * LIMIT // len(endless))
    status, answer = send_packed(port, head, body)
    assert status == 413, answer


def test_many_members_are_not_counted_to_the_end(
    port: int, head: Callable[..., bytes], settings: Any
) -> None:
    settings.REQUEST_MAX_BYTES = 10_000_000
    status, answer = send_packed(port, head, gzip.compress(b"") * 20_000)
    assert (status, code(answer)) == (400, "parse_error")


PACKED = gzip.compress(b'{"audioChunkPaths": ["alice/a.wav"]}')


@pytest.mark.parametrize(
    "body",
    [
        b"not gzip at all",
        PACKED[:-1],
        PACKED[:12],
        PACKED[:-5] + bytes([PACKED[-5] ^ 1]) + PACKED[-4:],
        PACKED + b"more",
        zlib.compress(b"{}"),
    ],
    ids=["no-gzip", "no-end", "a-start", "wrong-sum", "rubbish-after", "deflate"],
)
def test_broken_gzip_is_the_callers_error(
    port: int, head: Callable[..., bytes], body: bytes
) -> None:
    factories.put_audio("alice/a.wav")
    status, answer = send_packed(port, head, body)
    assert (status, answer["type"], code(answer)) == (400, "client_error", "parse_error")
    assert "Content-Encoding" in answer["errors"][0]["detail"]
    assert not Job.objects.exists()


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "zstd", "compress"])
def test_another_encoding_is_not_taken(
    port: int, head: Callable[..., bytes], encoding: str
) -> None:
    status, answer = send_packed(port, head, gzip.compress(submission()), encoding)
    assert (status, code(answer)) == (415, "unsupported_media_type")
    assert not Job.objects.exists()


def test_a_request_without_a_body_may_say_what_it_likes(
    port: int, head: Callable[..., bytes]
) -> None:
    for encoding in ("gzip", "br"):
        lines = head(f"Content-Encoding: {encoding}", method="GET", path="/transcript/search")
        assert ask(port, lines)[0] == 200


@pytest.mark.parametrize(("more", "expected"), [(-1, 400), (0, 204), (1, 413)])
def test_an_announced_length_is_that_of_the_file_and_not_of_what_comes(
    port: int, tmp_path: Path, more: int, expected: int
) -> None:
    token, size = factories.make_token("alice"), 2 * LIMIT
    content = random.Random(1).randbytes(size + more)  # which gzip makes longer
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        announced = announce(connection, token, size)
        headers = announced["headers"] | {"Content-Encoding": "gzip"}
        connection.request("PUT", target_of(announced), gzip.compress(content), headers)
        answer = connection.getresponse()
        assert answer.status == expected, answer.read()
    stored = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert stored == ([content] if expected == 204 else [])
