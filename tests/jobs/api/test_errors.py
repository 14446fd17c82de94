"""The contract's error table, row by row, over HTTP; and one shape for everything that is wrong."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import httpx2
import pytest
from asgiref.sync import async_to_sync
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.db.backends.signals import connection_created
from django.db.utils import InterfaceError, OperationalError
from django.http import HttpResponse
from django.test import AsyncClient, Client
from rest_framework.test import APIClient
from uuid6 import uuid7

from jobs.models import IdempotencyKey, Job
from tests import factories
from tests.helpers import client_of
from tests.scripted import ScriptedEngine
from transcription_site.asgi import application

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_is_empty")]

TYPES = {400: "validation_error", 401: "client_error", 403: "client_error", 404: "client_error"}


def wrong(response: Any, status: int, kind: str | None = None) -> list[tuple[str, str | None]]:
    """Check the shape of an error; its codes with the fields that they name."""
    text = response.content.decode()
    assert response.status_code == status, text
    assert response["Content-Type"] == "application/json"
    UUID(response["X-Request-ID"])
    body = json.loads(text)
    assert set(body) == {"type", "errors"}
    expected = kind or ("server_error" if status >= 500 else TYPES.get(status, "client_error"))
    assert body["type"] == expected
    assert body["errors"]
    for error in body["errors"]:
        assert set(error) == {"code", "detail", "attr"}
        assert isinstance(error["code"], str)
        assert isinstance(error["detail"], str)
        assert error["detail"]
        assert error["attr"] is None or isinstance(error["attr"], str)
    for secret in ("Traceback", "/work", "/tmp", "site-packages", "/var/", "line 1, in"):
        assert secret not in text
    return [(error["code"], error["attr"]) for error in body["errors"]]


def post(client: APIClient, body: Any, **headers: Any) -> Any:
    # Not by DRF's test renderer, which cannot write half a character.
    return client.post("/transcribe", json.dumps(body), content_type="application/json", **headers)


def form(client: APIClient, **fields: Any) -> Any:
    return client.post("/transcribe", fields, format="multipart")


def upload(data: bytes | None = None, name: str = "a.wav") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, factories.wav() if data is None else data)


PATH = "alice/a.wav"

# What arrives (JSON), the status, and each error's code and field.
ROWS: list[Any] = [
    ("no field at all", {}, 400, [("audio_chunk_count", "audioChunkPaths")]),
    ("no path", {"audioChunkPaths": []}, 400, [("audio_chunk_count", "audioChunkPaths")]),
    ("25", {"audioChunkPaths": [PATH] * 25}, 400, [("audio_chunk_count", "audioChunkPaths")]),
    ("not there", {"audioChunkPaths": [PATH, "alice/no.wav"]}, 400,
     [("audio_not_found", "audioChunkPaths.1")]),
    ("0 bytes", {"audioChunkPaths": [PATH, PATH, "alice/empty.wav"]}, 400,
     [("audio_empty", "audioChunkPaths.2")]),
    ("over 5 MB", {"audioChunkPaths": ["alice/large.wav"]}, 400,
     [("audio_too_large", "audioChunkPaths.0")]),
    ("another's folder", {"audioChunkPaths": [PATH, "bob/a.wav"]}, 403,
     [("permission_denied", "audioChunkPaths.1")]),
    ("another's userId", {"audioChunkPaths": [PATH], "userId": "bob"}, 403,
     [("permission_denied", "userId")]),
    ("unknown field", {"audioChunkPaths": [PATH], "color": 1}, 400, [("unknown_field", "color")]),
    ("two unknown fields", {"audioChunkPaths": [PATH], "b": 1, "a": {}}, 400,
     [("unknown_field", "a"), ("unknown_field", "b")]),
    ("another engine", {"audioChunkPaths": [PATH], "engine": "openai"}, 400,
     [("unsupported_option", "engine")]),
    ("no such engine", {"audioChunkPaths": [PATH], "engine": "../x"}, 400,
     [("unsupported_option", "engine")]),
    ("language", {"audioChunkPaths": [PATH], "language": "de"}, 400,
     [("unsupported_option", "language")]),
    ("vocabulary", {"audioChunkPaths": [PATH], "vocabulary": ["Kubernetes"]}, 400,
     [("unsupported_option", "vocabulary")]),
    ("diarize", {"audioChunkPaths": [PATH], "diarize": True}, 400,
     [("unsupported_option", "diarize")]),
]  # fmt: skip

WRONG_TYPES: list[Any] = [
    ("audioChunkPaths", "alice/a.wav", "audioChunkPaths"),
    ("audioChunkPaths", None, "audioChunkPaths"),
    ("audioChunkPaths", {"0": PATH}, "audioChunkPaths"),
    ("audioChunkPaths", [PATH, 1], "audioChunkPaths.1"),
    ("audioChunkPaths", [None], "audioChunkPaths.0"),
    ("audioChunkPaths", [[PATH]], "audioChunkPaths.0"),
    ("audioChunkPaths", [{}], "audioChunkPaths.0"),
    ("audioChunks", ["x"], "audioChunks.0"),
    ("userId", 1, "userId"),
    ("userId", "", "userId"),
    ("userId", "a/b", "userId"),
    ("userId", "..", "userId"),
    ("userId", "x" * 151, "userId"),
    ("userId", None, "userId"),
    ("title", 1, "title"),
    ("title", ["x"], "title"),
    ("title", "x" * 201, "title"),
    ("title", "a\0b", "title"),
    ("title", "\ud800", "title"),
    ("language", 1, "language"),
    ("language", "", "language"),
    ("language", "e" * 40, "language"),
    ("vocabulary", "x", "vocabulary"),
    ("vocabulary", [1], "vocabulary.0"),
    ("vocabulary", ["ok", "x" * 101], "vocabulary.1"),
    ("vocabulary", ["x"] * 101, "vocabulary"),
    ("vocabulary", ["\ud800"], "vocabulary.0"),
    ("vocabulary", None, "vocabulary"),
    ("diarize", "true", "diarize"),
    ("diarize", 1, "diarize"),
    ("diarize", None, "diarize"),
    ("diarize", [], "diarize"),
    ("engine", 1, "engine"),
    ("engine", "x" * 41, "engine"),
    ("engine", {}, "engine"),
]


@pytest.fixture
def audio(audio_root: Path) -> None:
    factories.put_audio(PATH)
    factories.put_audio("bob/a.wav")
    factories.put_audio("alice/empty.wav", b"")
    factories.put_audio("alice/large.wav", b"x" * 5_000_001)


@pytest.mark.usefixtures("audio")
@pytest.mark.parametrize(
    ("body", "status", "errors"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS]
)
def test_each_row_of_the_table_in_json(
    alice: APIClient, body: Any, status: int, errors: list[Any]
) -> None:
    assert wrong(post(alice, body), status) == errors
    assert not Job.objects.exists()


@pytest.mark.usefixtures("audio")
def test_a_language_by_its_name_is_refused_with_what_is_wanted(alice: APIClient) -> None:
    response = post(alice, {"audioChunkPaths": [PATH], "language": "english"})
    assert wrong(response, 400) == [("invalid", "language")]
    assert "en or pt-BR" in response.json()["errors"][0]["detail"]


@pytest.mark.usefixtures("audio")
@pytest.mark.parametrize("count", [0, 25])
def test_who_sends_too_few_or_too_many_files_hears_of_recordings(
    alice: APIClient, count: int
) -> None:
    response = post(alice, {"audioChunkPaths": [PATH] * count})
    assert "recordingPath" in response.json()["errors"][0]["detail"]


@pytest.mark.usefixtures("audio")
@pytest.mark.parametrize(
    ("body", "status", "errors"),
    [r[1:] for r in ROWS if r[0] != "no path"],
    ids=[r[0] for r in ROWS if r[0] != "no path"],
)
def test_each_row_of_the_table_in_a_form(
    alice: APIClient, body: Any, status: int, errors: list[Any]
) -> None:
    plain = {key: str(value) if isinstance(value, dict) else value for key, value in body.items()}
    assert wrong(form(alice, **plain), status) == errors
    assert not Job.objects.exists()


@pytest.mark.usefixtures("audio")
@pytest.mark.parametrize(("field", "value", "attr"), WRONG_TYPES)
def test_a_wrong_type_is_told_with_the_fields_name(
    alice: APIClient, field: str, value: Any, attr: str
) -> None:
    errors = wrong(post(alice, {"audioChunkPaths": [PATH]} | {field: value}), 400)
    assert {named for _, named in errors} == {attr}
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    ("files", "errors"),
    [
        ([b""], [("audio_empty", "audioChunks.0")]),
        ([b"x", b"", b"x" * 5_000_001], [("audio_empty", "audioChunks.1"),
                                         ("audio_too_large", "audioChunks.2")]),
        ([b"x"] * 25, [("audio_chunk_count", "audioChunks")]),
        ([b"x"] * 101, [("audio_chunk_count", "audioChunks")]),
    ],
)  # fmt: skip
def test_files_in_a_form_are_judged_like_paths(
    alice: APIClient, audio_root: Path, files: list[bytes], errors: list[Any]
) -> None:
    assert wrong(form(alice, audioChunks=[upload(data) for data in files]), 400) == errors
    assert not [path for path in audio_root.rglob("*") if path.is_file()]


@pytest.mark.usefixtures("audio")
def test_files_and_paths_together_are_refused(alice: APIClient) -> None:
    response = form(alice, audioChunks=[upload()], audioChunkPaths=[PATH])
    assert wrong(response, 400) == [("invalid", "audioChunks")]


def test_a_text_where_a_file_belongs_is_refused(alice: APIClient) -> None:
    assert {attr for _, attr in wrong(form(alice, audioChunks=["x"]), 400)} == {"audioChunks.0"}


def test_a_file_in_a_field_that_is_not_there_is_refused(alice: APIClient) -> None:
    assert wrong(form(alice, audio=upload()), 400) == [("unknown_field", "audio")]


def test_only_a_form_may_bring_a_csrf_token(alice: APIClient, audio: None) -> None:
    in_json = post(alice, {"audioChunkPaths": [PATH], "csrfmiddlewaretoken": "x"})
    assert wrong(in_json, 400) == [("unknown_field", "csrfmiddlewaretoken")]
    in_form = form(alice, audioChunks=upload(), csrfmiddlewaretoken="x")
    assert in_form.status_code == 202, in_form.content


# --- paths that lead out ---


@pytest.fixture
def traps(audio: None, audio_root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(b"secret")
    alice = audio_root / "alice"
    (alice / "folder").mkdir()
    (alice / "out.wav").symlink_to(tmp_path / "secret.wav")
    (alice / "out-nothing.wav").symlink_to(tmp_path / "nothing.wav")
    (alice / "out").symlink_to(tmp_path)
    (alice / "self").symlink_to("self")
    os.mkfifo(alice / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(alice)
        listening.bind("socket")
        os.chdir(here)


INVALID = [
    "/etc/passwd", "/no/such/file", "../secret.wav", "../nothing.wav", "alice/../../secret.wav",
    "alice/../a.wav", "..", "alice/..", "alice/\0.wav", "alice\\a.wav", "alice/\ud800.wav", "",
    ".", "x" * 2000, "alice/out.wav", "alice/out-nothing.wav", "alice/out/secret.wav",
    "alice/out/nothing.wav", "alice/self", "alice/pipe", "alice/socket", "alice/folder",
]  # fmt: skip


@pytest.mark.usefixtures("traps")
@pytest.mark.timeout(20)
def test_an_invalid_path_is_answered_in_the_same_words_whatever_lies_there(
    alice: APIClient, service: APIClient
) -> None:
    answers = set()
    for client in (alice, service):
        for path in INVALID:
            response = post(client, {"audioChunkPaths": [path]})
            assert wrong(response, 400) == [("invalid_path", "audioChunkPaths.0")], path
            answers.add(response.content)
    assert len(answers) == 1
    assert not Job.objects.exists()


@pytest.mark.usefixtures("traps")
@pytest.mark.timeout(20)
def test_an_invalid_path_in_a_form_is_answered_alike(alice: APIClient) -> None:
    for path in INVALID:
        if "\ud800" not in path and path:  # a form cannot carry the one, and drops the other
            response = form(alice, audioChunkPaths=[PATH, path])
            assert wrong(response, 400) == [("invalid_path", "audioChunkPaths.1")], path


@pytest.mark.usefixtures("audio")
def test_what_lies_in_anothers_folder_is_not_told(alice: APIClient) -> None:
    there, nothing = (
        post(alice, {"audioChunkPaths": [path]}) for path in ("bob/a.wav", "bob/nothing.wav")
    )
    assert wrong(there, 403) == [("permission_denied", "audioChunkPaths.0")]
    assert there.content == nothing.content


# --- bodies that are no bodies ---


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1,", b"nul", b"\xff\xfe", b"{'a': 1}", b'{"a": NaN}', b"[" * 100_000,
     b'{"title": ' + b"9" * 5000 + b"}", b'{"a":' * 20_000 + b"1" + b"}" * 20_000],
)  # fmt: skip
def test_what_is_no_json_is_a_parse_error(alice: APIClient, body: bytes) -> None:
    response = alice.post("/transcribe", body, content_type="application/json")
    if body:
        assert wrong(response, 400, "client_error") == [("parse_error", None)]
    else:
        wrong(response, 400, json.loads(response.content)["type"])


@pytest.mark.parametrize("body", ["[]", "null", "1", '"x"', "true", "[[]]"])
def test_json_that_is_no_object_is_refused(alice: APIClient, body: str) -> None:
    response = alice.post("/transcribe", body, content_type="application/json")
    wrong(response, 400)
    assert not Job.objects.exists()


def test_an_unknown_field_that_no_text_can_show_is_refused_all_the_same(alice: APIClient) -> None:
    response = alice.post("/transcribe", '{"\\ud800": 1}', content_type="application/json")
    assert [code for code, _ in wrong(response, 400)] == ["unknown_field"]


@pytest.mark.parametrize("charset", ["zlib", "rot13", "hex", "base64", "undefined", "nobody"])
@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x"])
def test_a_strange_charset_is_the_callers_error(alice: APIClient, charset: str, kind: str) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="title"\r\n\r\na\r\n--x--\r\n'
    body = b'{"title": "a"}' if "json" in kind else part
    response = alice.post("/transcribe", body, content_type=f"{kind}; charset={charset}")
    wrong(response, 400, json.loads(response.content)["type"])


@pytest.mark.parametrize("charset", ["zlib", "rot13", "nobody"])
def test_a_strange_charset_of_a_read_does_no_harm(charset: str) -> None:
    headers = {"authorization": f"Token {factories.make_token('alice')}"}

    async def ask() -> Any:
        client = AsyncClient(raise_request_exception=False)
        return await client.generic(
            "GET",
            "/transcript/search?userId=%61lice",
            content_type=f"text/plain; charset={charset}",
            headers=headers,
        )

    assert async_to_sync(ask)().status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/xml", "application/x-www-form-urlencoded"]
)
def test_another_media_type_is_told(alice: APIClient, kind: str) -> None:
    response = alice.post("/transcribe", b"x", content_type=kind)
    assert wrong(response, 415) == [("unsupported_media_type", None)]


def test_a_form_without_boundary_is_a_parse_error(alice: APIClient) -> None:
    response = alice.post("/transcribe", b"x", content_type="multipart/form-data")
    assert wrong(response, 400, "client_error") == [("parse_error", None)]


def test_a_body_that_is_much_too_large_is_refused(alice: APIClient) -> None:
    body = json.dumps({"audioChunkPaths": ["x" * 1000] * 3000})
    response = alice.post("/transcribe", body, content_type="application/json")
    assert wrong(response, 413) == [("request_too_large", None)]


# --- addresses ---


@pytest.mark.parametrize(
    "address",
    ["/nothing", "/transcribe/", "/transcript", "/transcript/", "/transcript/x",
     "/transcript/search/", "/transcript/00000000", "/%00", "/%ff", "/transcript/../x"],
)  # fmt: skip
def test_an_unknown_address_has_the_same_shape(anybody: APIClient, address: str) -> None:
    assert wrong(anybody.get(address), 404) == [("not_found", None)]


@pytest.mark.parametrize(
    ("method", "address"),
    [("get", "/transcribe"), ("put", "/transcribe"), ("delete", "/transcript/search"),
     ("post", "/transcript/{job}"), ("get", "/transcript/{job}/cancel"),
     ("delete", "/transcript/{job}/retry"), ("post", "/schema")],
)  # fmt: skip
def test_a_method_that_is_not_there_is_told(alice: APIClient, method: str, address: str) -> None:
    response = getattr(alice, method)(address.format(job=uuid4()))
    assert wrong(response, 405) == [("method_not_allowed", None)]
    assert response["Allow"]


def test_a_media_type_that_we_do_not_speak_is_told(alice: APIClient) -> None:
    response = alice.get("/transcript/search", HTTP_ACCEPT="application/xml")
    assert wrong(response, 406) == [("not_acceptable", None)]


def test_a_host_that_is_not_ours_is_told_in_the_same_shape(anybody: APIClient) -> None:
    response = anybody.get("/transcript/search", HTTP_HOST="evil.example")
    assert wrong(response, 400, "client_error") == [("bad_request", None)]


def test_every_answer_has_a_request_id_and_keeps_a_callers_own(
    alice: APIClient, anybody: APIClient
) -> None:
    own = str(uuid4())
    for client in (alice, anybody):
        for address in ("/healthz", "/readyz", "/schema", "/docs", "/transcript/search", "/no"):
            assert UUID(client.get(address)["X-Request-ID"])
            kept = client.get(address, HTTP_X_REQUEST_ID=own)["X-Request-ID"]
            assert UUID(kept) == UUID(own)
            made = client.get(address, HTTP_X_REQUEST_ID="x\r\nSet-Cookie: a=b")["X-Request-ID"]
            assert UUID(made)


def test_a_missing_csrf_token_is_told_in_the_same_shape(anybody: APIClient) -> None:
    client = APIClient(enforce_csrf_checks=True)
    response = client.post("/api-auth/login/", {"username": "a"}, format="multipart")
    assert wrong(response, 403) == [("permission_denied", None)]


@pytest.mark.parametrize("address", ["/admin/login/", "/admin/jobs/job/"])
def test_the_admin_site_keeps_djangos_page_about_it(address: str) -> None:
    client = APIClient(enforce_csrf_checks=True)
    response = client.post(address, {"username": "a"}, format="multipart")
    assert response.status_code == 403
    assert response["Content-Type"].startswith("text/html")
    assert b"CSRF verification failed" in response.content


# --- whose job it is ---


def test_another_users_job_answers_byte_for_byte_like_no_job(
    alice: APIClient, bob: APIClient
) -> None:
    job = factories.make_completed_job("secret", user_id="alice")
    erased = factories.make_completed_job("secret", user_id="alice")
    assert alice.delete(f"/transcript/{erased.pk}").status_code == 204
    for method, suffix in (
        ("get", ""), ("delete", ""), ("post", "/cancel"), ("post", "/retry"),
    ):  # fmt: skip
        answers = [
            getattr(bob, method)(f"/transcript/{job_id}{suffix}")
            for job_id in (job.pk, erased.pk, UUID(int=uuid7().int))
        ]
        for answer in answers:
            assert wrong(answer, 404) == [("not_found", None)]
        assert len({answer.content for answer in answers}) == 1
        assert (
            len({tuple(sorted(set(answer.headers) - {"X-Request-ID"})) for answer in answers}) == 1
        )
    assert Job.objects.filter(pk=job.pk, status="completed").exists()


# --- when something of ours fails ---


def test_a_fault_of_ours_tells_nothing(alice: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.api import views

    def broken(*args: Any) -> None:
        raise RuntimeError("secret at /srv/place")

    monkeypatch.setattr(views, "load_results", broken)
    job = factories.make_job()
    assert wrong(alice.get(f"/transcript/{job.pk}"), 500) == [("error", None)]


CALLS: list[Any] = [
    ("get", "/transcript/search"), ("get", "/transcript/{job}"), ("delete", "/transcript/{job}"),
    ("post", "/transcript/{job}/cancel"), ("post", "/transcript/{job}/retry"),
    ("post", "/transcribe"),
]  # fmt: skip


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("method", "address"), CALLS)
def test_without_the_database_every_call_is_503_with_retry_after(
    database_down: Callable[[], Any], method: str, address: str
) -> None:
    client = client_of(factories.make_token("alice"))
    factories.put_audio(PATH)
    job = factories.make_job()
    body = {"audioChunkPaths": [PATH]} if address == "/transcribe" else None
    with database_down():
        response = (
            getattr(client, method)(address.format(job=job.pk), body, format="json")
            if method == "post"
            else getattr(client, method)(address.format(job=job.pk))
        )
        assert wrong(response, 503) == [("database_unavailable", None)]
        assert int(response["Retry-After"]) > 0
    assert client.get("/transcript/search").status_code == 200
    assert Job.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_without_the_database_the_pages_of_a_session_are_503_too(
    database_down: Callable[[], Any],
) -> None:
    client = Client(raise_request_exception=False)
    client.force_login(factories.make_user("root", is_staff=True, is_superuser=True))
    with database_down():
        for address in ("/admin/login/", "/admin/", "/transcript/search"):
            response = client.get(address)
            assert wrong(response, 503) == [("database_unavailable", None)], address
            assert int(response["Retry-After"]) > 0


@pytest.mark.django_db(transaction=True)
def test_without_the_database_the_asgi_application_answers_503_too(
    database_down: Callable[[], Any],
) -> None:
    token = factories.make_token("alice")
    session = Client()
    session.force_login(factories.make_user("root", is_staff=True, is_superuser=True))
    calls = [
        ("/transcript/search", {"authorization": f"Token {token}"}),
        (f"/transcript/{uuid4()}", {"authorization": f"Token {token}"}),
        ("/admin/login/", {"cookie": f"sessionid={session.cookies['sessionid'].value}"}),
    ]

    async def ask() -> list[Any]:
        client = AsyncClient(raise_request_exception=False)
        return [await client.get(address, headers=headers) for address, headers in calls]

    with database_down():
        for response in async_to_sync(ask)():
            assert wrong(response, 503) == [("database_unavailable", None)]
            assert int(response["Retry-After"]) > 0


def test_a_connection_that_was_lost_is_a_database_that_is_away(alice: APIClient) -> None:
    def lost(*args: Any) -> None:
        raise InterfaceError("connection already closed")

    with connection.execute_wrapper(lost):
        response = alice.get("/transcript/search")
    assert wrong(response, 503) == [("database_unavailable", None)]


def test_no_error_of_the_asgi_application_is_a_page(script: ScriptedEngine) -> None:
    token = factories.make_token("alice")
    headers = {"authorization": f"Token {token}"}

    async def ask() -> list[Any]:
        client = AsyncClient(raise_request_exception=False)
        return [
            await client.get("/nothing"),
            await client.get("/transcript/search"),
            await client.post(
                "/transcribe", b"{", content_type="application/json", headers=headers
            ),
            await client.get("/transcript/search", {"limit": 0}, headers=headers),
        ]

    answers = async_to_sync(ask)()
    assert [answer.status_code for answer in answers] == [404, 401, 400, 400]
    for answer in answers:
        assert re.fullmatch(r"application/json", answer["Content-Type"])
        assert set(answer.json()) == {"type", "errors"}
        assert UUID(answer["X-Request-ID"])


# --- when there is no room ---

ROOM = 20_000_000
BIG = ROOM + 1


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file can grow past that size: the kernel's own refusal, as that of a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def nothing_is_left(settings: Any, tmp_path: Path, audio_root: Path) -> Callable[[], None]:
    """Large uploads are allowed; a check that one that failed left no trace."""
    settings.AUDIO_MAX_BYTES = 2 * BIG
    settings.FILE_UPLOAD_TEMP_DIR = tmp_path / "temporary"
    settings.FILE_UPLOAD_TEMP_DIR.mkdir()

    def check() -> None:
        kept = [*audio_root.rglob("*"), *settings.FILE_UPLOAD_TEMP_DIR.iterdir()]
        assert [path for path in kept if path.is_file()] == []
        assert not Job.objects.exists()
        assert not IdempotencyKey.objects.exists()

    return check


@pytest.mark.parametrize("in_memory", [True, False])
def test_uploads_that_find_no_room_are_507_and_leave_nothing(
    alice: APIClient, settings: Any, nothing_is_left: Callable[[], None], in_memory: bool
) -> None:
    if in_memory:  # then it is the audio root that has no room, else the folder of temporary files
        settings.FILE_UPLOAD_MAX_MEMORY_SIZE = 2 * BIG
    files = [upload(), upload(b"x" * BIG), upload()]
    with room_for(ROOM):
        response = alice.post(
            "/transcribe", {"audioChunks": files}, format="multipart", HTTP_IDEMPOTENCY_KEY="again"
        )
        assert wrong(response, 507) == [("insufficient_storage", None)]
        nothing_is_left()
        factories.put_audio(PATH)
        assert (
            post(alice, {"audioChunkPaths": [PATH]}, HTTP_IDEMPOTENCY_KEY="again").status_code
            == 202
        )


def test_while_the_audio_root_is_away_nothing_is_taken_and_it_is_not_made_anew(
    alice: APIClient, settings: Any
) -> None:
    settings.AUDIO_ROOT = Path(settings.AUDIO_ROOT) / "unmounted"
    by_path = alice.post("/transcribe", {"audioChunkPaths": ["alice/a.wav"]})
    for response in (form(alice, audioChunks=[upload()]), by_path):
        assert wrong(response, 503) == [("storage_unavailable", None)]
        assert int(response["Retry-After"]) > 0
    assert not settings.AUDIO_ROOT.exists()
    assert not Job.objects.exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_every_way_of_having_no_room_is_507(
    alice: APIClient, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(*args: Any) -> None:
        raise OSError(code, "no room at /srv/place")

    monkeypatch.setattr(os, "fsync", full)
    assert wrong(form(alice, audioChunks=[upload()]), 507) == [("insufficient_storage", None)]


def test_a_storage_that_fails_otherwise_is_a_fault_of_ours(
    alice: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> None:
        raise OSError(errno.EIO, "broken at /srv/place")

    monkeypatch.setattr(os, "fsync", broken)
    assert wrong(form(alice, audioChunks=[upload()]), 500) == [("error", None)]
    assert not Job.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the file's end
@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_finds_no_room_is_507_before_anything_reads_it(
    nothing_is_left: Callable[[], None], announced: bool
) -> None:
    token = factories.make_token("alice")
    boundary = b"--frontier\r\n"
    head = b'Content-Disposition: form-data; name="audioChunks"; filename="a.wav"\r\n\r\n'
    end = b"\r\n--frontier--\r\n"
    pieces = [boundary, head, *[b"x" * 1_000_000] * 21, end]
    headers = {
        "Authorization": f"Token {token}",
        "Content-Type": "multipart/form-data; boundary=frontier",
        "Content-Length": str(sum(map(len, pieces))),
    }
    if not announced:
        headers["Transfer-Encoding"] = "chunked"
        del headers["Content-Length"]

    async def send() -> httpx2.Response:
        async def body() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        transport = httpx2.ASGITransport(cast("Any", application))
        async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as client:
            return await client.post("/transcribe", content=body(), headers=headers)

    with room_for(ROOM):
        answer = async_to_sync(send)()
    response = HttpResponse(answer.content, status=answer.status_code, headers=answer.headers)
    assert wrong(response, 507) == [("insufficient_storage", None)]
    nothing_is_left()


@pytest.fixture
def database_is_full(transactional_db: None) -> Iterator[None]:
    """SQLite may not grow and is filled up; PostgreSQL says of each new job what it says then."""
    if connection.vendor == "sqlite":
        yield from _sqlite_is_full()
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE "
            "EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$"
        )
        cursor.execute(
            "CREATE TRIGGER no_room BEFORE INSERT ON jobs_job EXECUTE FUNCTION no_room()"
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP FUNCTION no_room CASCADE")


def _sqlite_is_full() -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE filler (data BLOB)")
        (pages,) = cursor.execute("PRAGMA page_count").fetchone()

    def no_more_pages(connection: Any, **kwargs: Any) -> None:
        connection.connection.execute(f"PRAGMA max_page_count = {pages}")

    no_more_pages(connection)
    connection_created.connect(no_more_pages)  # each connection has to be told
    with pytest.raises(OperationalError, match="is full"):
        _insert_forever()
    yield
    connection_created.disconnect(no_more_pages)
    connection.close()
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE filler")


def _insert_forever() -> None:
    with connection.cursor() as cursor:
        while True:
            cursor.execute("INSERT INTO filler VALUES (zeroblob(100))")


@pytest.mark.django_db(transaction=True)
def test_a_database_without_room_is_503_for_a_new_job_and_reads_go_on(
    alice: APIClient,
    script: ScriptedEngine,
    nothing_is_left: Callable[[], None],
    database_is_full: None,
) -> None:
    vocabulary = ["x" * 100] * 100  # more than what room there may be within a page
    response = form(alice, audioChunks=[upload() for _ in range(24)], vocabulary=vocabulary)
    assert wrong(response, 503) == [("database_unavailable", None)]
    assert int(response["Retry-After"]) > 0
    nothing_is_left()
    assert alice.get("/transcript/search").json()["results"] == []
