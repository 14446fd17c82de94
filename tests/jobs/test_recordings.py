"""One long recording becomes a job like any other."""

from __future__ import annotations

import errno
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.db.models import F
from rest_framework.test import APIClient

from asr.errors import ChildCrashed
from jobs import actions, recordings, upload_removal, uploads
from jobs.models import Chunk, Job, Recording, Upload, database_time, from_now
from jobs.sweeper import sweep
from tests import factories
from tests.asr.sounds import encode, silence
from tests.asr.test_cutting import speech
from tests.helpers import WorkerInTest, together, wait_until
from tests.scripted import ScriptedEngine

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("redis_is_empty"),
]


def put_recording(seconds: float) -> str:
    sound, _ = speech(seconds)
    return factories.put_audio("alice/long", encode(sound, "flac"))


def submit(client: APIClient, path: str = "alice/long", **fields: Any) -> Any:
    return client.post("/transcribe", {"recordingPath": path} | fields)


def result(client: APIClient, job_id: str) -> dict[str, Any]:
    return dict(client.get(f"/transcript/{job_id}").json())


def wrong(response: Any) -> tuple[int, str, str | None]:
    error = response.json()["errors"][0]
    return response.status_code, error["code"], error["attr"]


@pytest.fixture
def short_pieces(settings: Any) -> None:
    settings.AUDIO_MAX_SECONDS = 20.0


@pytest.fixture
def job(alice: APIClient, short_pieces: None, script: ScriptedEngine) -> Job:
    put_recording(50)
    return Job.objects.get(pk=submit(alice).json()["jobId"])


def test_40_minutes_of_speech_are_one_transcript_with_times_right_to_50_ms(
    alice: APIClient, worker: WorkerInTest, script: ScriptedEngine
) -> None:
    put_recording(2400)
    script.otherwise = lambda request: factories.recognition("word")
    worker.start()
    job_id = submit(alice).json()["jobId"]
    assert result(alice, job_id)["jobStatus"] == "in_progress"
    wait_until(lambda: result(alice, job_id)["jobStatus"] != "in_progress", 120)
    found = result(alice, job_id)
    assert found["jobStatus"] == "completed", found
    assert found["durationSeconds"] == pytest.approx(2400, abs=0.05)
    assert found["transcription"].split() == ["word"] * len(found["chunks"])
    assert 8 <= len(found["chunks"]) <= 10
    starts = [chunk["startTime"] for chunk in found["chunks"]]
    ends = [
        start + chunk["durationSeconds"]
        for start, chunk in zip(starts, found["chunks"], strict=True)
    ]
    assert starts[1:] == pytest.approx(ends[:-1], abs=0.001)
    _, pauses = speech(2400)
    for start in starts[1:]:
        assert min(abs(start - middle) for middle in pauses) < 0.2


def test_until_it_is_cut_the_job_has_no_chunks_and_does_not_end(job: Job, alice: APIClient) -> None:
    sweep(None)
    found = result(alice, str(job.pk))
    assert (found["jobStatus"], found["chunks"]) == ("in_progress", [])


def test_it_is_cut_once_however_many_try(job: Job, audio_root: Path) -> None:
    outcomes = together(*[lambda: recordings.cut_recording(job.pk)] * 4)
    assert sorted(outcomes) == [False, False, False, True]
    assert job.chunks.count() == 3
    assert set(job.chunks.values_list("uploaded", flat=True)) == {True}
    assert len(list(audio_root.rglob("*.flac"))) == 3
    assert not Upload.objects.exists()


@pytest.mark.parametrize("swept", [True, False])
def test_pieces_that_were_removed_before_the_job_had_them_are_cut_again(
    job: Job, monkeypatch: pytest.MonkeyPatch, audio_root: Path, swept: bool
) -> None:
    cut = recordings._cut

    def cut_slowly(claim: Any) -> list[str]:
        paths = cut(claim)
        Upload.objects.filter(path=paths[1]).update(doomed=True, expires_time=job.submitted_time)
        if swept:
            upload_removal.sweep()
        return paths

    with monkeypatch.context() as patch:
        patch.setattr(recordings, "_cut", cut_slowly)
        assert not recordings.cut_recording(job.pk)
    row = Recording.objects.get(pk=job.pk)
    assert (row.attempts, row.lease_token, row.cut_time) == (1, None, None)
    assert not job.chunks.exists()
    assert not list(audio_root.rglob("*.flac"))
    assert not Upload.objects.exists()
    Recording.objects.update(not_before=job.submitted_time)
    assert recordings.cut_recording(job.pk)
    assert job.chunks.count() == 3
    assert len(list(audio_root.rglob("*.flac"))) == 3


def test_its_pieces_go_with_the_job_and_the_operators_file_stays(
    job: Job, audio_root: Path
) -> None:
    recordings.cut_recording(job.pk)
    actions.delete(job.pk)
    assert [path.name for path in audio_root.rglob("*") if path.is_file()] == ["long"]


def test_an_uploaded_recording_goes_with_its_job(
    alice: APIClient, audio_root: Path, short_pieces: None, script: ScriptedEngine
) -> None:
    data = encode(speech(30)[0], "flac")
    announced = uploads.announce(
        "alice",
        name="a.flac",
        size=len(data),
        content_type="audio/flac",
        kind="recording",  # type: ignore[arg-type]
    )
    factories.put_audio(announced.path, data)
    job_id = submit(alice, announced.path).json()["jobId"]
    Upload.objects.update(expires_time=from_now(-timedelta(seconds=1)))
    sweep(None)
    recordings.cut_recording(Job.objects.get(pk=job_id).pk)
    assert (audio_root / announced.path).exists()
    assert alice.delete(f"/transcript/{job_id}").status_code == 204
    assert not [path for path in audio_root.rglob("*") if path.is_file()]


def test_a_cancelled_job_is_not_cut(job: Job, audio_root: Path) -> None:
    actions.cancel(job.pk)
    assert not recordings.cut_recording(job.pk)
    assert not job.chunks.exists()
    assert not list(audio_root.rglob("*.flac"))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"no sound at all", "invalid_audio"),
        (encode(silence(61.0), "flac"), "audio_too_long"),
    ],
)
def test_what_cannot_be_cut_fails_the_job_with_its_reason(
    alice: APIClient,
    short_pieces: None,
    settings: Any,
    data: bytes,
    code: str,
    script: ScriptedEngine,
) -> None:
    settings.RECORDING_MAX_SECONDS = 60.0
    factories.put_audio("alice/long", data)
    job_id = submit(alice).json()["jobId"]
    assert not recordings.cut_recording(Job.objects.get(pk=job_id).pk)
    found = result(alice, job_id)
    assert (found["jobStatus"], found["chunks"][0]["error"]["code"]) == ("failed", code)
    assert found["gaps"][0]["code"] == code


def test_a_recording_without_sound_is_a_success_with_an_empty_text(
    alice: APIClient, script: ScriptedEngine
) -> None:
    factories.put_audio("alice/long", encode(np.empty(0, np.int16), "flac"))
    job_id = submit(alice).json()["jobId"]
    recordings.cut_recording(Job.objects.get(pk=job_id).pk)
    found = result(alice, job_id)
    assert (found["jobStatus"], found["transcription"]) == ("completed", "")


def test_a_storage_that_is_away_costs_no_attempt(job: Job, audio_root: Path) -> None:
    audio_root.rename(audio_root.with_name("unmounted"))
    assert not recordings.cut_recording(job.pk)
    row = Recording.objects.get(pk=job.pk)
    assert (row.attempts, row.lease_token) == (0, None)
    audio_root.with_name("unmounted").rename(audio_root)
    Recording.objects.update(not_before=job.submitted_time)
    assert recordings.cut_recording(job.pk)


def test_a_full_disk_costs_no_attempt_and_no_piece_is_left(
    job: Job, audio_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_for_two = iter([None] * 4)  # each file, and each folder

    def store(descriptor: int) -> None:
        if next(room_for_two, "none") == "none":
            raise OSError(errno.ENOSPC, "no room")

    with monkeypatch.context() as patch:
        patch.setattr(recordings, "PIECES_AT_ONCE", 1)
        patch.setattr(os, "fsync", store)
        assert not recordings.cut_recording(job.pk)
    row = Recording.objects.get(pk=job.pk)
    assert (row.attempts, row.lease_token) == (0, None)
    assert [path.name for path in audio_root.rglob("*") if path.is_file()] == ["long"]
    assert not Upload.objects.exists()
    assert not Recording.objects.due().exists()
    Recording.objects.update(not_before=job.submitted_time)
    assert recordings.cut_recording(job.pk)
    assert job.chunks.count() == 3


@pytest.mark.parametrize(("waited", "again"), [(0, 30), (100, 100), (50_000, 600)])
def test_the_longer_a_disk_is_full_the_longer_it_is_before_all_is_decoded_anew(
    job: Job, monkeypatch: pytest.MonkeyPatch, waited: float, again: float
) -> None:
    submitted = F("submitted_time") - timedelta(seconds=waited)
    Job.objects.update(submitted_time=submitted, deadline=F("deadline") - timedelta(seconds=waited))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "fsync", full)
    assert not recordings.cut_recording(job.pk)
    row = Recording.objects.get(pk=job.pk)
    assert row.attempts == 0
    assert (row.not_before - database_time()).total_seconds() == pytest.approx(again, abs=15)


def test_a_retry_does_not_wait_for_what_was_before_it(
    job: Job, monkeypatch: pytest.MonkeyPatch, alice: APIClient
) -> None:
    Job.objects.update(submitted_time=F("submitted_time") - timedelta(days=3))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "fsync", full)
    assert not recordings.cut_recording(job.pk)
    row = Recording.objects.get(pk=job.pk)
    assert (row.not_before - database_time()).total_seconds() < 45


def test_after_four_failures_the_job_fails_and_a_retry_cuts_anew(
    job: Job, monkeypatch: pytest.MonkeyPatch, alice: APIClient
) -> None:
    def crash(*_: Any) -> Any:
        raise ChildCrashed("the child died")

    with monkeypatch.context() as patch:
        patch.setattr(recordings, "_cut", crash)
        for _ in range(4):
            Recording.objects.update(not_before=job.submitted_time)
            recordings.cut_recording(job.pk)
    found = result(alice, str(job.pk))
    assert found["jobStatus"] == "failed"
    assert found["chunks"][0]["error"]["recoverable"]
    actions.retry(job.pk)
    assert result(alice, str(job.pk))["chunks"] == []
    assert recordings.cut_recording(job.pk)
    assert job.chunks.count() == 3


def test_a_worker_that_died_over_it_is_followed_by_another(job: Job) -> None:
    assert recordings._claim(job.pk) is not None
    assert recordings._claim(job.pk) is None
    Recording.objects.update(lease_expires_time=from_now(-timedelta(seconds=1)))
    sent: list[Any] = []
    Recording.objects.update(resend_time=from_now(-timedelta(seconds=1)))
    sweep(lambda chunk: None, None, sent.append)
    assert sent == [job.pk]
    sweep(lambda chunk: None, None, sent.append)
    assert sent == [job.pk]  # a message has a minute
    assert recordings.cut_recording(job.pk)


def test_past_its_deadline_it_fails(job: Job, alice: APIClient) -> None:
    Job.objects.filter(pk=job.pk).update(
        submitted_time=from_now(-timedelta(days=2)), deadline=from_now(-timedelta(days=1))
    )
    sweep(None)
    sweep(None)
    found = result(alice, str(job.pk))
    assert (found["jobStatus"], found["gaps"][0]["code"]) == ("failed", "deadline_exceeded")
    assert not recordings.cut_recording(job.pk)


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({"recordingPath": "alice/none"}, (400, "audio_not_found", "recordingPath")),
        ({"recordingPath": "../x"}, (400, "invalid_path", "recordingPath")),
        ({"recordingPath": "bob/long"}, (403, "permission_denied", "recordingPath")),
        ({"recordingPath": "alice/empty"}, (400, "audio_empty", "recordingPath")),
        ({"recordingPath": "alice/large"}, (400, "audio_too_large", "recordingPath")),
        (
            {"recordingPath": "alice/empty", "audioChunkPaths": ["alice/empty"]},
            (400, "audio_chunk_count", "audioChunkPaths"),
        ),
        ({"recordingPath": 7}, (400, "invalid", "recordingPath")),
    ],
)
def test_what_is_no_recording_is_refused(
    alice: APIClient, settings: Any, fields: dict[str, Any], answer: tuple[int, str, str]
) -> None:
    settings.RECORDING_MAX_BYTES = 100
    factories.put_audio("alice/empty", b"")
    factories.put_audio("alice/large", b"x" * 101)
    assert wrong(alice.post("/transcribe", fields)) == answer
    assert not Chunk.objects.exists()
