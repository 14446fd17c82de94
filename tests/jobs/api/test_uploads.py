"""POST /uploads and the PUT after it, with both storages: callers need not know which it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx2
import pytest
from django.conf import settings as django_settings
from django.db import transaction
from rest_framework.test import APIClient

from jobs import actions, storage, upload_removal, uploads
from jobs.models import Chunk, Upload, from_now
from jobs.sweeper import sweep
from tests import factories
from tests.helpers import WorkerInTest, wait_until
from tests.object_storage import ObjectStorage
from tests.scripted import ScriptedEngine

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("redis_is_empty"),
]
SOUND = factories.wav(fill=7)
Put = Callable[..., int]


@pytest.fixture(params=["local", "s3"])
def where(request: pytest.FixtureRequest) -> str:
    """Where audio lives."""
    if request.param == "s3":
        request.getfixturevalue("bucket")
    return str(request.param)


@pytest.fixture
def put(where: str, anybody: APIClient) -> Put:
    """Send a file to the address that was answered, with nothing but its headers."""
    return sender(where, anybody)


def sender(where: str, anybody: APIClient) -> Put:
    def send(answer: dict[str, Any], content: bytes = SOUND, **headers: str) -> int:
        url, all_headers = answer["uploadUrl"], answer["headers"] | headers
        if where == "s3":
            return httpx2.put(url, content=content, headers=all_headers).status_code
        parts = urlsplit(url)
        response: Any = anybody.generic(
            "PUT",
            f"{parts.path}?{parts.query}",
            content,  # type: ignore[arg-type]
            content_type=all_headers.pop("Content-Type"),
            headers=all_headers,
        )
        return int(response.status_code)

    return send


def announce(client: APIClient, **fields: Any) -> Any:
    asked = {"fileName": "Talk.WAV", "sizeBytes": len(SOUND), "contentType": "audio/wav"}
    return client.post("/uploads", asked | fields)


def submit(client: APIClient, *paths: str) -> Any:
    return client.post("/transcribe", {"audioChunkPaths": list(paths)})


def wrong(response: Any) -> tuple[int, str, str | None]:
    error = response.json()["errors"][0]
    return response.status_code, error["code"], error["attr"]


def exists(path: str) -> bool:
    return storage.audio_files().exists(path)


def test_a_file_is_announced_sent_transcribed_and_deleted_with_its_job(
    alice: APIClient, put: Put, worker: WorkerInTest, script: ScriptedEngine
) -> None:
    response = announce(alice)
    answer = response.json()
    path = answer["audioChunkPath"]
    assert (response.status_code, answer["method"]) == (201, "PUT")
    assert path.startswith("alice/uploads/")
    assert path.endswith(".wav")
    assert "Content-Length" not in answer["headers"]
    assert put(answer) in {200, 201, 204}

    script.otherwise = lambda request: f"{len(request.data)} bytes"
    worker.start()
    job_id = submit(alice, path).json()["jobId"]
    wait_until(lambda: alice.get(f"/transcript/{job_id}").json()["jobStatus"] == "completed")
    assert alice.get(f"/transcript/{job_id}").json()["transcription"] == f"{len(SOUND)} bytes"
    assert alice.delete(f"/transcript/{job_id}").status_code == 204
    assert not exists(path)
    assert not Upload.objects.filter(removed_time=None).exists()


@pytest.mark.parametrize("content", [SOUND + b"x", SOUND[:-1], b""], ids=["longer", "less", "none"])
def test_another_length_is_refused_and_the_address_stays_good(
    alice: APIClient, put: Put, content: bytes
) -> None:
    answer = announce(alice).json()
    assert put(answer, content) in {400, 403, 413}
    assert not exists(answer["audioChunkPath"])
    assert put(answer) < 300
    assert storage.read_audio(answer["audioChunkPath"]) == SOUND


def test_another_type_is_refused(alice: APIClient, put: Put) -> None:
    answer = announce(alice).json()
    assert put(answer, **{"Content-Type": "text/html"}) in {400, 403}
    assert not exists(answer["audioChunkPath"])


@pytest.mark.parametrize("announced", ["audio/WAV", "Audio/wav ; codecs=1", "audio/wav;codecs=1"])
def test_a_type_is_what_it_is_in_any_spelling(alice: APIClient, put: Put, announced: str) -> None:
    answer = announce(alice, contentType=announced).json()
    assert answer["headers"]["Content-Type"] == "audio/wav"
    assert put(answer) < 300


@pytest.mark.parametrize("sent", ["Audio/WAV", "audio/wav; charset=binary", "audio/wav;x"])
def test_the_services_own_address_takes_the_type_in_any_spelling(
    alice: APIClient, anybody: APIClient, sent: str
) -> None:
    put = sender("local", anybody)  # a bucket wants the very header that it signed
    answer = announce(alice).json()
    assert put(answer, **{"Content-Type": sent}) == 204
    assert put(answer, **{"Content-Type": "audio/wave"}) == 400


def test_an_address_that_was_altered_takes_nothing(alice: APIClient, put: Put, where: str) -> None:
    answer, other = announce(alice).json(), announce(alice).json()
    name, changed = urlsplit(answer["uploadUrl"]), urlsplit(other["uploadUrl"])
    swapped = answer | {"uploadUrl": name._replace(path=changed.path).geturl()}
    last = "B" if name.query[-1] == "A" else "A"
    cut = answer | {"uploadUrl": name._replace(query=name.query[:-1] + last).geturl()}
    for bad in (swapped, cut):
        assert put(bad) == 403
    unsigned = put(answer | {"uploadUrl": name._replace(query="").geturl()})
    assert unsigned in {400, 403}
    assert not exists(answer["audioChunkPath"])
    assert not exists(other["audioChunkPath"])


def test_an_address_of_our_own_ends(  # that of a bucket: see test_object_storage
    alice: APIClient, anybody: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = announce(alice).json()
    monkeypatch.setattr(uploads, "URL_SECONDS", 0)
    assert sender("local", anybody)(answer) == 403
    assert not exists(answer["audioChunkPath"])


def test_a_service_uploads_for_others_and_nobody_else_does(
    alice: APIClient, service: APIClient, bob: APIClient, where: str
) -> None:
    assert wrong(announce(alice, userId="bob")) == (403, "permission_denied", "userId")
    path = announce(service, userId="bob").json()["audioChunkPath"]
    assert path.startswith("bob/uploads/")
    assert wrong(submit(alice, path))[:2] == (403, "permission_denied")


def test_nothing_that_was_not_sent_can_be_named(alice: APIClient, where: str) -> None:
    path = announce(alice).json()["audioChunkPath"]
    assert wrong(submit(alice, path)) == (400, "audio_not_found", "audioChunkPaths.0")


@pytest.mark.parametrize(
    ("fields", "code", "attr"),
    [
        ({"sizeBytes": 0}, "audio_empty", "sizeBytes"),
        ({"sizeBytes": -1}, "audio_empty", "sizeBytes"),
        ({"sizeBytes": 5_000_001}, "audio_too_large", "sizeBytes"),
        ({"sizeBytes": 500_000_001, "kind": "recording"}, "audio_too_large", "sizeBytes"),
        ({"sizeBytes": "many"}, "invalid", "sizeBytes"),
        ({"contentType": "text/html"}, "invalid", "contentType"),
        ({"contentType": "audio"}, "invalid", "contentType"),
        ({"contentType": ""}, "blank", "contentType"),
        ({"contentType": None}, "null", "contentType"),
        ({"contentType": "audio/wav\r\nx: y"}, "invalid", "contentType"),
        ({"kind": "video"}, "invalid_choice", "kind"),
        ({"fileName": "x" * 256}, "max_length", "fileName"),
        ({"fileName": 7}, "invalid", "fileName"),
        ({"file": "x"}, "unknown_field", "file"),
    ],
)
def test_what_cannot_come_is_refused_before_it_is_sent(
    alice: APIClient, fields: dict[str, Any], code: str, attr: str
) -> None:
    refused = announce(alice, **fields)
    assert wrong(refused) == (400, code, attr)
    assert not Upload.objects.exists()
    if attr == "contentType":
        detail = refused.json()["errors"][0]["detail"]
        assert all(word in detail for word in ("audio/", "video/", "application/"))


def test_who_announces_more_than_may_wait_is_told_to_come_again(
    alice: APIClient, put: Put, settings: Any
) -> None:
    settings.QUOTA_UPLOAD_BYTES = 2 * len(SOUND)
    first, _ = announce(alice).json(), announce(alice).json()
    refused = announce(alice)
    assert wrong(refused) == (429, "quota_exceeded", None)
    assert int(refused["Retry-After"]) > 0
    assert put(first) < 300
    assert submit(alice, first["audioChunkPath"]).status_code == 202
    assert announce(alice).status_code == 201


def test_the_quota_is_shown_and_says_when_there_is_room_again(
    alice: APIClient, settings: Any
) -> None:
    settings.QUOTA_UPLOAD_BYTES = 2 * len(SOUND)
    empty = {"limit": 2.0 * len(SOUND), "used": 0.0, "remaining": 2.0 * len(SOUND)}
    assert alice.get("/usage").json()["limits"]["uploadBytes"] == empty | {"resetTime": None}
    announce(alice)
    announce(alice)
    soon = from_now(timedelta(seconds=90))
    Upload.objects.filter(pk=Upload.objects.latest("pk").pk).update(expires_time=soon)
    shown = alice.get("/usage").json()["limits"]["uploadBytes"]
    assert (shown["used"], shown["remaining"]) == (2.0 * len(SOUND), 0.0)
    refused = announce(alice)
    assert shown["resetTime"] in refused.json()["errors"][0]["detail"]
    assert 30 < int(refused["Retry-After"]) <= 91


def test_what_was_announced_can_be_given_back(
    alice: APIClient, put: Put, settings: Any, where: str
) -> None:
    settings.QUOTA_UPLOAD_BYTES = len(SOUND)
    for send in (False, True) if where == "local" else (True,):
        answer = announce(alice).json()
        assert not send or put(answer) < 300
        assert announce(alice).status_code == 429
        assert alice.delete(f"/uploads/{answer['uploadId']}").status_code == 204
        assert not exists(answer["audioChunkPath"])
        # A bucket's address takes the file again, as long as it is good.
        counted = 0.0 if where == "local" else float(len(SOUND))
        assert alice.get("/usage").json()["limits"]["uploadBytes"]["used"] == counted
        assert alice.delete(f"/uploads/{answer['uploadId']}").status_code == 404
        assert wrong(submit(alice, answer["audioChunkPath"]))[1] == "audio_not_found"
    if where == "local":  # a bucket asks nobody, and so the file is removed once more
        assert put(answer) == 403
        assert not Upload.objects.exists()


@pytest.mark.parametrize("kind", ["chunk", "recording"])
def test_what_a_job_has_is_not_given_back(alice: APIClient, put: Put, kind: str) -> None:
    answer = announce(alice, kind=kind).json()
    assert put(answer) < 300
    name = "recordingPath" if kind == "recording" else "audioChunkPath"
    asked = {name: answer[name]} if kind == "recording" else {"audioChunkPaths": [answer[name]]}
    assert alice.post("/transcribe", asked).status_code == 202
    refused = alice.delete(f"/uploads/{answer['uploadId']}")
    assert wrong(refused) == (409, "upload_in_use", None)
    assert exists(answer[name])


def test_nobody_gives_back_what_is_anothers(
    alice: APIClient, bob: APIClient, service: APIClient, put: Put
) -> None:
    answer, taken = announce(alice).json(), announce(alice).json()
    assert put(answer) < 300
    assert put(taken) < 300
    assert submit(alice, taken["audioChunkPath"]).status_code == 202
    for upload_id in (answer["uploadId"], taken["uploadId"], uuid4()):
        assert wrong(bob.delete(f"/uploads/{upload_id}")) == (404, "not_found", None)
    assert exists(answer["audioChunkPath"])
    assert service.delete(f"/uploads/{answer['uploadId']}").status_code == 204


def test_what_is_given_back_while_the_storage_is_away_is_swept_later(
    alice: APIClient, bucket: Any, object_storage: ObjectStorage, settings: Any
) -> None:
    answer = announce(alice).json()
    here = django_settings.STORAGES
    options = object_storage.options(bucket.name) | {"endpoint": "http://127.0.0.1:1"}
    settings.STORAGES = here | {"audio": {**here["audio"], "OPTIONS": options}}
    assert alice.delete(f"/uploads/{answer['uploadId']}").status_code == 204
    assert Upload.objects.get().doomed
    settings.STORAGES = here
    Upload.objects.update(expires_time=from_now(-timedelta(seconds=1)))
    sweep(None)
    assert not Upload.objects.filter(removed_time=None).exists()


def test_the_answer_is_as_the_guide_shows_it(alice: APIClient) -> None:
    guide = (Path(__file__).parents[3] / "docs" / "storage.md").read_text()
    shown = json.loads(guide.partition("```json\n")[2].partition("```")[0])
    fields = {"fileName": "talk.flac", "sizeBytes": 48211, "contentType": "audio/flac"}
    assert json.dumps(fields) in guide
    answer = announce(alice, **fields).json()
    assert list(answer) == list(shown)
    assert without_chance(answer) == without_chance(shown)


def without_chance(answer: Any) -> Any:
    """The answer, with what differs each time by its form alone."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", json.dumps(answer))
    text = re.sub(r"http://[^/]+/", "http://HOST/", text)
    text = re.sub(r"signature=[\w-]+:[\w-]{43}", "signature=SIGNATURE", text)
    return json.loads(re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME", text))


@pytest.mark.parametrize("kind", ["chunk", "recording"])
def test_a_file_larger_than_all_that_may_wait_is_not_asked_for_again(
    alice: APIClient, settings: Any, kind: str
) -> None:
    settings.QUOTA_UPLOAD_BYTES = len(SOUND)
    refused = announce(alice, kind=kind, sizeBytes=len(SOUND) + 1)
    assert wrong(refused) == (400, "audio_too_large", "sizeBytes")
    assert "Retry-After" not in refused
    assert announce(alice, kind=kind).status_code == 201


def test_a_recording_may_be_larger(alice: APIClient, where: str) -> None:
    answer = announce(alice, kind="recording", sizeBytes=5_000_001).json()
    assert "audioChunkPath" not in answer
    assert answer["recordingPath"].startswith("alice/uploads/")


def test_what_nobody_used_is_swept_after_a_day(alice: APIClient, put: Put) -> None:
    unused, used, fresh = [announce(alice).json() for _ in range(3)]
    for answer in (unused, used, fresh):
        assert put(answer) < 300
    assert submit(alice, used["audioChunkPath"]).status_code == 202
    names = [unused["audioChunkPath"], used["audioChunkPath"]]
    Upload.objects.filter(path__in=names).update(expires_time=from_now(-timedelta(seconds=1)))
    sweep(None)
    assert [exists(a["audioChunkPath"]) for a in (unused, used, fresh)] == [False, True, True]
    assert Upload.objects.get(removed_time=None).path == fresh["audioChunkPath"]
    assert wrong(submit(alice, unused["audioChunkPath"]))[1] == "audio_not_found"


def test_a_file_that_is_being_removed_is_taken_by_no_job(alice: APIClient, put: Put) -> None:
    answer = announce(alice).json()
    assert put(answer) < 300
    Upload.objects.update(doomed=True)
    assert wrong(submit(alice, answer["audioChunkPath"])) == (
        *(400, "audio_not_found"),
        "audioChunkPaths.0",
    )
    assert not Chunk.objects.exists()


def test_an_upload_that_two_jobs_name_goes_with_the_last(alice: APIClient, put: Put) -> None:
    answer = announce(alice).json()
    assert put(answer) < 300
    path = answer["audioChunkPath"]
    first, second = [UUID(submit(alice, path).json()["jobId"]) for _ in range(2)]
    actions.delete(first)
    assert exists(path)
    actions.delete(second)
    assert not exists(path)
    assert not Upload.objects.filter(removed_time=None).exists()


def test_what_a_job_has_is_not_overwritten(alice: APIClient, anybody: APIClient) -> None:
    put = sender("local", anybody)  # a bucket takes it until the address ends
    answer = announce(alice).json()
    assert put(answer) < 300
    assert submit(alice, answer["audioChunkPath"]).status_code == 202
    assert put(answer) == 403


def test_files_whose_job_never_came_to_be_are_swept(alice: APIClient, where: str) -> None:
    (path,) = uploads.store_all("alice", uuid4(), [_upload()])
    Upload.objects.update(expires_time=from_now(-timedelta(seconds=1)))
    sweep(None)
    assert not exists(path)


def test_while_the_storage_is_away_nothing_is_announced_and_nothing_forgotten(
    alice: APIClient, object_storage: ObjectStorage, bucket: Any, settings: Any
) -> None:
    (path,) = uploads.store_all("alice", uuid4(), [_upload()])
    Upload.objects.update(expires_time=from_now(-timedelta(seconds=1)))
    here = django_settings.STORAGES
    options = object_storage.options(bucket.name) | {"endpoint": "http://127.0.0.1:1"}
    settings.STORAGES = here | {"audio": {**here["audio"], "OPTIONS": options}}
    sweep(None)
    assert Upload.objects.filter(path=path, doomed=True).exists()
    assert wrong(announce(alice))[:2] == (503, "storage_unavailable")
    assert [row.path for row in Upload.objects.all()] == [path]  # the other takes no room
    assert alice.get("/readyz").json()["storage"]["status"] == "down"
    settings.STORAGES = here
    Upload.objects.update(expires_time=from_now(-timedelta(seconds=1)))
    sweep(None)
    assert not exists(path)
    assert not Upload.objects.filter(removed_time=None).exists()


def test_a_file_that_comes_again_after_it_was_deleted_is_deleted_again(
    alice: APIClient, put: Put, where: str
) -> None:
    answer = announce(alice).json()
    path = answer["audioChunkPath"]
    assert put(answer) < 300
    job_id = submit(alice, path).json()["jobId"]
    assert alice.delete(f"/transcript/{job_id}").status_code == 204
    assert put(answer) == (200 if where == "s3" else 403)  # a bucket asks nobody
    Upload.objects.update(expires_time=from_now(-timedelta(seconds=1)))
    sweep(None)
    assert not exists(path)
    assert not Upload.objects.exists()


def test_to_remove_one_file_touches_no_other_that_comes_in(
    alice: APIClient, put: Put, audio_root: Path
) -> None:
    coming = audio_root / "alice" / "uploads" / "x" / f".00.wav.{'0' * 32}.part"
    coming.parent.mkdir(parents=True)
    coming.write_bytes(b"half")
    answer = announce(alice).json()
    assert put(answer) < 300
    job_id = submit(alice, answer["audioChunkPath"]).json()["jobId"]
    alice.delete(f"/transcript/{job_id}")
    assert coming.exists()


def test_files_of_a_job_that_was_stored_after_all_stay(where: str) -> None:
    paths = uploads.store_all("alice", uuid4(), [_upload()])
    with transaction.atomic():
        uploads.take(paths)  # as in the one whose COMMIT was heard of by nobody
    upload_removal.abandon(paths)
    assert exists(paths[0])


def _upload() -> Any:
    from django.core.files.uploadedfile import SimpleUploadedFile

    return SimpleUploadedFile("a.wav", SOUND)
