"""Files in a bucket, on a real server that checks signatures."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from botocore.exceptions import ClientError
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from rest_framework.test import APIClient

from asr.errors import AudioRejected
from jobs import storage
from jobs.storage.s3 import LOOK_SECONDS, READ_SECONDS, S3AudioStorage
from jobs.storage.s3_errors import explained
from tests.helpers import together
from tests.object_storage import KEY, ObjectStorage, start_object_storage

PATH = "alice/uploads/a.flac"
PATIENT_SECONDS = READ_SECONDS  # whoever reads waits for so long, and once more


def upload(content: bytes = b"sound") -> SimpleUploadedFile:
    return SimpleUploadedFile("a.flac", content)


@pytest.fixture
def own_server(tmp_path: Path) -> Any:
    with ExitStack() as stack:
        yield start_object_storage(stack, tmp_path)


def test_what_is_stored_is_read_measured_and_deleted(bucket: Path) -> None:
    storage.store(PATH, upload())
    assert (bucket / PATH).read_bytes() == b"sound"
    assert storage.read_audio(PATH) == b"sound"
    assert storage.audio_files().exists(PATH)
    assert storage.sizes_of([PATH]) == [5]
    storage.audio_files().delete(PATH)
    assert not (bucket / PATH).exists()
    assert not storage.audio_files().exists(PATH)


def test_the_bucket_is_made_by_whoever_comes_first(bucket: Path) -> None:
    paths = [f"alice/{n}" for n in range(8)]
    assert together(*[lambda path=path: storage.store(path, upload()) for path in paths]) == (
        [None] * 8
    )
    assert sorted(storage.sizes_of(paths), key=str) == [5] * 8


def test_sizes_come_in_order_with_what_is_wrong_in_its_place(bucket: Path) -> None:
    storage.store(PATH, upload(b"x" * 7))
    first, second, third = storage.sizes_of([PATH, "alice/no.flac", "../x"])
    assert first == 7
    assert isinstance(second, storage.AudioNotFoundError)
    assert isinstance(third, storage.InvalidPathError)


def test_a_file_that_is_gone_is_not_found(bucket: Path) -> None:
    storage.store(PATH, upload())
    with pytest.raises(storage.AudioUnavailable) as caught:
        storage.read_audio("alice/uploads/no.flac")
    assert (caught.value.code, caught.value.retry_after) == ("audio_not_found", None)


def test_no_more_is_read_than_a_file_may_have(bucket: Path, settings: Any) -> None:
    settings.AUDIO_MAX_BYTES, settings.AUDIO_MAX_SECONDS = 10, 0
    storage.store(PATH, upload(b"x" * 100_000))
    with pytest.raises(AudioRejected):
        storage.read_audio(PATH)


def test_many_are_deleted_at_once_and_those_that_are_gone_do_not_matter(bucket: Path) -> None:
    paths = [f"alice/{n}" for n in range(3)]
    for path in paths:
        storage.store(path, upload())
    storage.audio_files().delete_all([*paths, "alice/never.flac"])
    assert not [path for path in bucket.rglob("*") if path.is_file()]


def test_a_prefix_keeps_it_apart_from_others_in_the_bucket(
    bucket: Path, object_storage: ObjectStorage
) -> None:
    files = S3AudioStorage(**object_storage.options(bucket.name), prefix="verbatim/")
    files.save(PATH, upload())
    assert (bucket / "verbatim" / PATH).read_bytes() == b"sound"
    with pytest.raises(storage.InvalidPathError):
        files.size("x" * 1020)


def test_a_server_that_is_away_costs_a_wait_and_no_attempt(own_server: ObjectStorage) -> None:
    files = S3AudioStorage(**own_server.options("audio"))
    files.save(PATH, upload())
    own_server.stop()
    for call in (
        lambda: files.size(PATH),
        lambda: files.save(PATH, upload()),
        lambda: files.delete(PATH),
        lambda: files.open(PATH),
    ):
        with pytest.raises(storage.StorageAwayError):
            call()
    assert not files.is_there()
    own_server.start()
    assert files.is_there()
    assert files.size(PATH) == 5


# --- what is said at the start ---


def test_refused_credentials_are_told_with_the_variables_to_look_at(
    own_server: ObjectStorage,
) -> None:
    wrong = {"aws_access_key_id": KEY, "aws_secret_access_key": "not-the-secret"}
    with pytest.raises(storage.StorageAwayError) as caught:
        S3AudioStorage(**own_server.options("audio") | {"credentials": wrong}).look()
    assert caught.value.reason == "credentials_refused"
    assert caught.value.advice == (
        "the object storage refuses the credentials (403): see AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, and whether they may list the bucket in AUDIO_STORAGE_URL"
    )


@pytest.mark.parametrize("code", ["503", "500", "429", "SlowDown"])
def test_a_server_that_stumbles_is_not_taken_for_refused_credentials(code: str) -> None:
    answer: Any = {"Error": {"Code": code}}
    told = explained(ClientError(answer, "HeadBucket"))
    assert told.reason == "storage_unavailable"
    assert f"the object storage fails ({code})" in told.advice
    assert "KEY" not in told.advice


def test_missing_credentials_are_told(
    own_server: ObjectStorage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(storage.StorageAwayError, match="there are no credentials") as caught:
        S3AudioStorage(**own_server.options("audio") | {"credentials": None}).look()
    assert "object storage: see AWS_ACCESS_KEY_ID and" in caught.value.advice


def test_a_bucket_that_is_not_there_and_cannot_be_made_is_told(own_server: ObjectStorage) -> None:
    own_server.root.rmdir()
    own_server.root.write_text("no folder, and so no place for buckets")
    files = S3AudioStorage(**own_server.options("audio"))
    with pytest.raises(storage.StorageAwayError) as caught:
        files.look()
    assert caught.value.reason == "bucket_missing"
    assert "the bucket is not there and cannot be made" in caught.value.advice
    assert caught.value.advice.endswith("see AUDIO_STORAGE_URL")


def test_a_bucket_that_went_is_told(object_storage: ObjectStorage) -> None:
    files = S3AudioStorage(**object_storage.options("gone"))
    files._bucket_is_known = True  # it was seen by this process once
    with pytest.raises(storage.StorageAwayError) as caught:
        files.look()
    assert caught.value.advice == "the bucket is not there any more: see AUDIO_STORAGE_URL"


def test_a_server_that_is_not_there_is_told(own_server: ObjectStorage) -> None:
    own_server.stop()
    with pytest.raises(storage.StorageAwayError) as caught:
        S3AudioStorage(**own_server.options("audio")).look()
    assert caught.value.advice == (
        "the object storage does not answer: see the endpoint in AUDIO_STORAGE_URL"
    )


def test_a_process_that_starts_says_so_once_in_its_log(
    settings: Any, object_storage: ObjectStorage, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = {"aws_access_key_id": KEY, "aws_secret_access_key": "not-the-secret"}
    options = object_storage.options("audio") | {"credentials": wrong}
    backend = "jobs.storage.s3.S3AudioStorage"
    settings.STORAGES = settings.STORAGES | {"audio": {"BACKEND": backend, "OPTIONS": options}}
    storage.warn_if_away()
    (said,) = [record for record in caplog.records if record.name == "jobs.storage"]
    assert said.levelname == "WARNING"
    assert "see AWS_ACCESS_KEY_ID" in said.getMessage()
    assert KEY not in said.getMessage()
    assert said.exc_info is None


def test_a_process_that_starts_says_nothing_of_a_bucket_that_is_there(
    bucket: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage.warn_if_away()
    assert not [record for record in caplog.records if record.name == "jobs.storage"]


@pytest.fixture
def stalled(own_server: ObjectStorage, settings: Any) -> ObjectStorage:
    """Audio lives on a server that takes connections and answers nothing."""
    options = own_server.options("audio")
    backend = "jobs.storage.s3.S3AudioStorage"
    settings.STORAGES = settings.STORAGES | {"audio": {"BACKEND": backend, "OPTIONS": options}}
    storage.store(PATH, upload())
    own_server.stall()
    return own_server


def seconds_of(call: Callable[[], Any]) -> float:
    start = time.monotonic()
    call()
    return time.monotonic() - start


def test_who_only_looks_does_not_wait_long_for_a_server_that_stalls(stalled: ObjectStorage) -> None:
    def look() -> None:
        with pytest.raises(storage.StorageAwayError):
            storage.sizes_of([f"alice/{n}" for n in range(24)])

    assert LOOK_SECONDS <= seconds_of(look) < PATIENT_SECONDS
    assert seconds_of(lambda: storage.audio_files().is_there()) < PATIENT_SECONDS
    stalled.go_on()
    assert storage.sizes_of([PATH]) == [5]


@pytest.mark.django_db(transaction=True)
def test_a_submission_then_is_told_to_come_again_and_holds_no_connection_meanwhile(
    alice: APIClient, stalled: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Any] = []
    sizes = S3AudioStorage.sizes

    def watched(files: S3AudioStorage, names: Any) -> list[int | Exception]:
        held.append(connection.connection)
        return sizes(files, names)

    monkeypatch.setattr(S3AudioStorage, "sizes", watched)
    start = time.monotonic()
    answer: Any = alice.post("/transcribe", {"audioChunkPaths": [PATH]})
    assert time.monotonic() - start < PATIENT_SECONDS
    assert answer.status_code == 503
    assert answer.json()["errors"][0]["code"] == "storage_unavailable"
    assert int(answer["Retry-After"]) > 0
    assert held == [None]
    stalled.go_on()
    assert alice.post("/transcribe", {"audioChunkPaths": [PATH]}).status_code == 202


def test_wrong_credentials_are_a_storage_that_is_away(
    bucket: Path, object_storage: ObjectStorage
) -> None:
    storage.store(PATH, upload())
    options = object_storage.options(bucket.name)
    options["credentials"] = {"aws_access_key_id": KEY, "aws_secret_access_key": "another"}
    files = S3AudioStorage(**options)
    with pytest.raises(storage.StorageAwayError):
        files.size(PATH)
    assert not files.is_there()


@pytest.mark.parametrize(
    ("options", "headers"),
    [
        ({}, {"x-amz-server-side-encryption": "AES256"}),
        (
            {"encryption": "aws:kms", "kms_key": "alias/audio"},
            {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": "alias/audio",
            },
        ),
        ({"encryption": None}, {}),
    ],
)
def test_every_write_asks_for_encryption(
    bucket: Path, object_storage: ObjectStorage, options: dict[str, Any], headers: dict[str, str]
) -> None:
    files = S3AudioStorage(**object_storage.options(bucket.name), **options)
    sent: list[dict[str, str]] = []

    def look(request: Any, **_: Any) -> None:
        sent.append({name.lower(): str(value) for name, value in request.headers.items()})

    files._client.meta.events.register("before-sign.s3.PutObject", look)
    files.save(PATH, upload())
    found = [name for name in sent[-1] if "encryption" in name]
    assert {name: sent[-1][name] for name in found} == headers
    signed = files.sign_upload(PATH, size=5, content_type="audio/flac", seconds=60)
    assert signed is not None
    assert signed.headers == {"Content-Type": "audio/flac", **headers}


def test_a_signed_address_takes_that_file_and_no_other(bucket: Path) -> None:
    signed = storage.audio_files().sign_upload(PATH, size=5, content_type="audio/flac", seconds=60)
    assert signed is not None
    url, headers = signed.url, signed.headers
    for address, content, changed in (
        (url, b"sound and more", {}),
        (url, b"soun", {}),
        (url, b"sound", {"Content-Type": "text/html"}),
        (url.replace("alice", "bob"), b"sound", {}),
        (url.replace("X-Amz-Expires=60", "X-Amz-Expires=6000"), b"sound", {}),
        (url[:-1] + ("0" if url[-1] != "0" else "1"), b"sound", {}),
    ):
        answer = httpx2.put(address, content=content, headers=headers | changed)
        assert answer.status_code == 403, (address, answer.text)
    assert not list(bucket.rglob("*.flac"))
    assert httpx2.put(url, content=b"sound", headers=headers).status_code == 200
    assert storage.read_audio(PATH) == b"sound"


def test_a_signed_address_ends(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.store("alice/a", upload())  # the bucket is there
    then = datetime.now(UTC) - timedelta(minutes=16)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: then)
    signed = storage.audio_files().sign_upload(PATH, size=5, content_type="audio/flac", seconds=900)
    assert signed is not None
    answer = httpx2.put(signed.url, content=b"sound", headers=signed.headers)
    assert (answer.status_code, "AccessDenied" in answer.text) == (400, True)
    assert not list(bucket.rglob("*.flac"))
