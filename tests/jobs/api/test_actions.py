"""Cancel, retry and delete over HTTP: their codes, and what they leave behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from rest_framework.test import APIClient

from jobs.models import Chunk, ErasedJob, Job
from tests import factories
from tests.helpers import broker

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_is_empty")]


def codes(response: object) -> list[str]:
    return [error["code"] for error in response.json()["errors"]]  # type: ignore[attr-defined]


def test_cancelling_answers_202_then_200(alice: APIClient) -> None:
    job = factories.make_job(2)
    first = alice.post(f"/transcript/{job.pk}/cancel")
    assert first.status_code == 202
    assert (first.json()["jobStatus"], first.json()["transcription"]) == ("cancelled", "")
    again = alice.post(f"/transcript/{job.pk}/cancel")
    assert (again.status_code, again.json()) == (200, first.json())


def test_cancelling_what_has_ended_otherwise_is_a_conflict(alice: APIClient) -> None:
    for job in (factories.make_completed_job("x"), factories.make_failed_job(None)):
        response = alice.post(f"/transcript/{job.pk}/cancel")
        assert (response.status_code, codes(response)) == (409, ["already_ended"])
        assert response.json()["type"] == "client_error"
        assert Job.objects.get(pk=job.pk).status == job.status


def test_retrying_a_failed_job_sends_its_failed_chunks_alone(alice: APIClient) -> None:
    job = factories.make_failed_job("kept", None, "kept", None)
    response = alice.post(f"/transcript/{job.pk}/retry")
    assert response.status_code == 202
    body = response.json()
    assert (body["jobStatus"], body["transcription"], body["completedTime"]) == (
        "in_progress",
        None,
        None,
    )
    assert [chunk["status"] for chunk in body["chunks"]] == [
        "completed",
        "pending",
        "completed",
        "pending",
    ]
    assert [chunk["attempts"] for chunk in body["chunks"]] == [1, 1, 1, 1]
    client = broker().client
    assert sum(client.llen(f"dramatiq:{queue}") for queue in ("chunks", "local")) == 2


def test_retrying_what_has_not_failed_is_a_conflict(alice: APIClient) -> None:
    for job in (factories.make_job(), factories.make_completed_job("x")):
        response = alice.post(f"/transcript/{job.pk}/retry")
        assert (response.status_code, codes(response)) == (409, ["not_failed"])
    assert broker().client.keys("dramatiq:*.msgs") == []


def test_deleting_answers_204_and_then_410(alice: APIClient) -> None:
    job = factories.make_completed_job("x")
    response = alice.delete(f"/transcript/{job.pk}")
    assert (response.status_code, response.content) == (204, b"")
    again = alice.delete(f"/transcript/{job.pk}")
    assert (again.status_code, codes(again)) == (410, ["erased"])
    assert not Job.objects.exists()
    assert ErasedJob.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_deleting_an_upload_of_two_jobs_takes_both_deletions(
    alice: APIClient, audio_root: Path
) -> None:
    upload = SimpleUploadedFile("a.wav", factories.wav())
    first = alice.post("/transcribe", {"audioChunks": [upload]}, format="multipart")
    path = Chunk.objects.get().audio_path
    second = alice.post("/transcribe", {"audioChunkPaths": [path]})
    assert second.status_code == 202
    assert alice.delete(first["Location"]).status_code == 204
    assert (audio_root / path).is_file()
    assert alice.delete(second["Location"]).status_code == 204
    assert not (audio_root / path).exists()


def test_a_file_put_there_by_others_survives_its_job(alice: APIClient, audio_root: Path) -> None:
    factories.put_audio("alice/a.wav", factories.wav())
    response = alice.post("/transcribe", {"audioChunkPaths": ["alice/a.wav"]})
    assert alice.delete(response["Location"]).status_code == 204
    assert (audio_root / "alice/a.wav").read_bytes() == factories.wav()


def test_a_service_may_act_on_any_job(service: APIClient) -> None:
    job = factories.make_job()
    assert service.post(f"/transcript/{job.pk}/cancel").status_code == 202
    assert service.delete(f"/transcript/{job.pk}").status_code == 204
