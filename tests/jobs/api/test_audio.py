"""GET /transcript/{jobId}/audio/{index}: whole, in parts, from a bucket, and to slow readers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import psutil
import pytest
import uvicorn
from django.core.files.base import ContentFile
from rest_framework.test import APIClient

from jobs import actions, storage
from jobs.models import Chunk, Job
from tests import factories
from tests.helpers import wait_until
from transcription_site import asgi

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.usefixtures("redis_is_empty"),
    pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume"),  # but for a server
]

PATH = "alice/mtg/00 für.flac"
SIZE = 200_000  # several pieces


@pytest.fixture
def sound() -> bytes:
    return b"fLaC" + bytes(n * n % 251 for n in range(SIZE - 4))


@pytest.fixture
def job(db: None, sound: bytes) -> Job:
    return job_of(PATH, sound)


def job_of(path: str, data: bytes | None = None) -> Job:
    if data is not None:
        factories.put_audio(path, data)
    job = factories.make_job()
    Chunk.objects.filter(job=job).update(audio_path=path)
    return job


def address(job: Job, index: int = 0) -> str:
    return f"/transcript/{job.pk}/audio/{index}"


def get(client: APIClient, job: Job, **headers: str) -> Any:
    named: Any = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    return client.get(address(job), **named)


def content(response: Any) -> bytes:
    return b"".join(response)


def code(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["errors"][0]["code"]


# --- the whole file ---


def test_the_file_comes_as_it_was_handed_in(alice: APIClient, job: Job, sound: bytes) -> None:
    response = get(alice, job)
    assert response.status_code == 200
    assert content(response) == sound
    assert response["Content-Type"] == "audio/flac"
    assert response["Content-Length"] == str(SIZE)
    assert response["Content-Disposition"] == "inline; filename*=utf-8''00%20f%C3%BCr.flac"
    assert response["Accept-Ranges"] == "bytes"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Cache-Control"] == "private, no-cache"
    assert "default-src 'none'" in response["Content-Security-Policy"]
    assert "Content-Range" not in response


def test_the_type_is_that_of_the_content_and_never_a_page(alice: APIClient) -> None:
    page = get(alice, job_of("alice/a.html", b"<html><script>alert(1)</script>"))
    assert page["Content-Type"] == "application/octet-stream"
    disguised = get(alice, job_of("alice/a.mp3", factories.wav()))
    assert disguised["Content-Type"] == "audio/wav"
    for response in (page, disguised):
        assert content(response)


def test_head_says_what_get_would(alice: APIClient, job: Job) -> None:
    whole = get(alice, job)
    head = alice.head(address(job), HTTP_RANGE="bytes=0-9")
    assert (head.status_code, head.content) == (200, b"")
    names = ("Content-Length", "Content-Type", "ETag", "Last-Modified", "Accept-Ranges")
    assert [head[name] for name in names] == [whole[name] for name in names]
    content(whole)


def test_whatever_the_caller_accepts_the_file_is_sent(alice: APIClient, job: Job) -> None:
    response = get(alice, job, accept="text/html")
    assert response["Content-Type"] == "audio/flac"
    content(response)


# --- parts ---


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-", 0, SIZE - 1),
        ("bytes=100-199", 100, 199),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE - 1),
        ("bytes=70000-199999", 70_000, SIZE - 1),
        ("bytes=70000-999999999", 70_000, SIZE - 1),
        ("bytes=-1", SIZE - 1, SIZE - 1),
        ("bytes=-999999999", 0, SIZE - 1),
        ("Bytes = 5-6", 5, 6),
    ],
)
def test_a_part_is_sent(
    alice: APIClient, job: Job, sound: bytes, asked: str, first: int, last: int
) -> None:
    response = get(alice, job, range=asked)
    assert response.status_code == 206
    assert response["Content-Range"] == f"bytes {first}-{last}/{SIZE}"
    assert response["Content-Length"] == str(last - first + 1)
    assert content(response) == sound[first : last + 1]


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=0-1,5-6",
        "bytes=5-4",
        "bytes=-",
        "bytes=a-b",
        "bytes=",
        "lines=0-1",
        "x",
        "bytes=-0x1",
    ],
)
def test_what_is_no_single_part_is_answered_by_the_whole(
    alice: APIClient, job: Job, sound: bytes, asked: str
) -> None:
    response = get(alice, job, range=asked)
    assert (response.status_code, content(response)) == (200, sound)
    assert "Content-Range" not in response


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 5}", "bytes=-0"])
def test_a_part_beyond_the_end_is_refused(alice: APIClient, job: Job, asked: str) -> None:
    response = get(alice, job, range=asked)
    assert code(response) == (416, "range_not_satisfiable")
    assert response["Content-Range"] == f"bytes */{SIZE}"


def test_an_empty_file_has_no_part(alice: APIClient) -> None:
    job = job_of("alice/empty", b"")
    assert content(get(alice, job)) == b""
    assert code(get(alice, job, range="bytes=0-"))[0] == 416


def test_a_part_is_sent_only_of_the_file_that_the_caller_has(alice: APIClient, job: Job) -> None:
    whole = get(alice, job)
    content(whole)

    def status(if_range: str) -> int:
        response = get(alice, job, range="bytes=0-9", if_range=if_range)
        content(response)
        return int(response.status_code)

    assert status(whole["ETag"]) == status(whole["Last-Modified"]) == 206
    assert status(f"W/{whole['ETag']}") == status('"other"') == 200
    assert status("Wed, 21 Oct 2015 07:28:00 GMT") == status("x") == 200
    factories.put_audio(PATH, b"fLaC and something else")
    assert status(whole["ETag"]) == 200


def test_what_the_caller_has_is_not_sent_again(alice: APIClient, job: Job) -> None:
    whole = get(alice, job)
    content(whole)
    assert get(alice, job, if_none_match=whole["ETag"]).status_code == 304
    assert get(alice, job, if_modified_since=whole["Last-Modified"]).status_code == 304
    assert get(alice, job, if_none_match=whole["ETag"], range="bytes=0-").status_code == 304
    assert code(get(alice, job, if_match='"other"')) == (412, "precondition_failed")


# --- whose, and what is gone ---


def test_anothers_job_is_not_there(bob: APIClient, service: APIClient, job: Job) -> None:
    assert code(get(bob, job)) == (404, "not_found")
    response = get(service, job)
    assert response.status_code == 200
    content(response)


@pytest.mark.parametrize("index", [1, 99999999999999999999])
def test_a_chunk_that_is_not_there(alice: APIClient, job: Job, index: int) -> None:
    assert code(alice.get(address(job, index))) == (404, "not_found")


@pytest.mark.parametrize("path", ["alice/gone.flac", "alice", "alice/link"])
def test_a_file_that_is_gone_or_something_else_by_now(
    alice: APIClient, audio_root: Path, tmp_path: Path, path: str
) -> None:
    (tmp_path / "secret").write_text("secret")
    (audio_root / "alice").mkdir()
    (audio_root / "alice" / "link").symlink_to(tmp_path / "secret")
    assert code(get(alice, job_of(path))) == (404, "audio_not_found")


def test_an_erased_job_has_no_sound(alice: APIClient, job: Job) -> None:
    actions.delete(job.pk)
    assert code(get(alice, job)) == (410, "erased")


def test_a_storage_that_is_away_is_said_to_be(alice: APIClient, job: Job, audio_root: Path) -> None:
    audio_root.rename(audio_root.with_name("elsewhere"))
    assert code(get(alice, job)) == (503, "storage_unavailable")


# --- a bucket ---


def test_from_a_bucket_the_caller_is_sent_to_a_signed_address(
    alice: APIClient, bucket: Path, sound: bytes
) -> None:
    storage.store(PATH, ContentFile(sound, name="a"))
    response = get(alice, job_of(PATH))
    assert response.status_code == 302
    assert response["Cache-Control"] == "no-store"
    answer = httpx2.get(response["Location"], headers={"Range": "bytes=10-19"})
    assert answer.is_success  # that server says 200 of a part
    assert answer.content == sound[10:20]
    assert answer.headers["Content-Type"] == "audio/flac"
    query = dict(part.split("=") for part in urlsplit(response["Location"]).query.split("&"))
    assert query["X-Amz-Expires"] == "300"
    assert query["response-content-disposition"].startswith("inline%3B")
    for changed in ("text%2Fhtml", "audio%2Fwav"):
        other = response["Location"].replace("audio%2Fflac", changed)
        assert httpx2.get(other).status_code == 403


def test_what_is_not_in_the_bucket_is_not_found(alice: APIClient, bucket: Path) -> None:
    storage.store("alice/other", ContentFile(b"x", name="a"))
    assert code(get(alice, job_of(PATH))) == (404, "audio_not_found")
    storage.store("alice/empty", ContentFile(b"", name="a"))
    assert get(alice, job_of("alice/empty")).status_code == 302


def test_a_bucket_that_is_away_is_said_to_be(alice: APIClient, bucket: Path, settings: Any) -> None:
    options = settings.STORAGES["audio"]["OPTIONS"] | {"endpoint": "http://127.0.0.1:1"}
    backend = settings.STORAGES["audio"] | {"OPTIONS": options}
    settings.STORAGES = settings.STORAGES | {"audio": backend}
    assert code(get(alice, job_of(PATH))) == (503, "storage_unavailable")


# --- over a socket ---

LARGE = 8_000_000  # more than the sockets of both sides hold
SLOW_READERS = 40


@pytest.fixture
def port(transactional_db: None) -> Iterator[int]:
    """Of the service as it is served."""
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
def slow_reader(port: int) -> Iterator[Callable[[Job, str], socket.socket]]:
    """Asks for the sound over a connection of its own, and reads nothing of it."""
    with ExitStack() as stack:

        def ask(job: Job, token: str) -> socket.socket:
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(30)
            connection.connect(("127.0.0.1", port))
            stack.callback(connection.close)
            lines = (
                f"GET {address(job)} HTTP/1.1",
                "Host: localhost",
                f"Authorization: Token {token}",
            )
            connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
            return connection

        yield ask


def open_files() -> list[str]:
    """Those of the audio root that this process reads."""
    return [file.path for file in psutil.Process().open_files() if "/audio/alice/" in file.path]


def test_slow_readers_keep_nobody_waiting(
    port: int, slow_reader: Callable[[Job, str], socket.socket]
) -> None:
    data = b"fLaC" + bytes(LARGE)
    job, token = job_of("alice/large", data), factories.make_token("alice")
    memory = psutil.Process().memory_info().rss
    readers = [slow_reader(job, token) for _ in range(SLOW_READERS)]
    wait_until(lambda: len(open_files()) == SLOW_READERS)
    with httpx2.Client(
        base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Token {token}"}
    ) as client:
        began = time.monotonic()
        for _ in range(20):
            assert client.get(f"/transcript/{job.pk}").status_code == 200
        assert time.monotonic() - began < 10
        assert client.get(address(job)).content == data
    grown = psutil.Process().memory_info().rss - memory
    assert grown < SLOW_READERS * LARGE / 4
    answer = HTTPResponse(readers[0])
    answer.begin()
    assert answer.read() == data  # a slow reader gets all of it in the end
    for reader in readers:
        reader.close()
    wait_until(lambda: not open_files())


def test_a_reader_who_takes_nothing_for_long_is_let_go(
    slow_reader: Callable[[Job, str], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "SILENCE_SECONDS", 0.5)
    job, token = job_of("alice/large", b"fLaC" + bytes(LARGE)), factories.make_token("alice")
    reader = slow_reader(job, token)
    wait_until(open_files)
    wait_until(lambda: not open_files())
    received = 0
    while piece := reader.recv(1 << 20):
        received += len(piece)
    assert received < LARGE
