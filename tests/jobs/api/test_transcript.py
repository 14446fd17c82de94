"""GET /transcript/{jobId}: every state, as the contract words it."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from rest_framework.test import APIClient

from jobs import actions
from jobs.models import Chunk, Job
from tests import factories
from tests.helpers import client_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_is_empty")]

KEYS = {
    "jobId", "userId", "title", "jobStatus", "submittedTime", "completedTime", "delayed",
    "delayReason", "chunks", "language", "durationSeconds", "transcription", "gaps",
}  # fmt: skip
CHUNK_KEYS = {
    "index", "audioChunkPath", "status", "attempts", "startTime", "durationSeconds",
    "processingSeconds", "language", "confidence", "engine", "deduplicated", "error",
}  # fmt: skip


def read(client: APIClient, job: Job) -> dict[str, Any]:
    response = client.get(f"/transcript/{job.pk}")
    assert response.status_code == 200, response.content
    body = dict(response.json())
    assert set(body) >= KEYS
    for chunk in body["chunks"]:
        assert set(chunk) >= CHUNK_KEYS
    for name in ("submittedTime", "completedTime"):
        assert body[name] is None or body[name].endswith("Z")
    return body


def test_a_waiting_job(alice: APIClient) -> None:
    body = read(alice, factories.make_job(2))
    assert (body["jobStatus"], body["completedTime"], body["transcription"]) == (
        "in_progress",
        None,
        None,
    )
    assert (body["language"], body["durationSeconds"], body["gaps"]) == (None, None, [])
    for index, chunk in enumerate(body["chunks"]):
        assert (chunk["index"], chunk["status"], chunk["attempts"]) == (index, "pending", 0)
        for name in ("startTime", "durationSeconds", "processingSeconds", "language",
                     "confidence", "engine", "error"):  # fmt: skip
            assert chunk[name] is None
        assert chunk["deduplicated"] is False


def test_a_running_job_shows_what_is_known_so_far(alice: APIClient) -> None:
    job = factories.make_job(4)
    factories.complete(factories.claim(job, 0), seconds=2.5)
    factories.complete(factories.claim(job, 1), seconds=1.0)
    factories.claim(job, 2)
    factories.complete(factories.claim(job, 3))
    body = read(alice, job)
    assert (body["jobStatus"], body["transcription"]) == ("in_progress", None)
    assert [chunk["status"] for chunk in body["chunks"]] == [
        "completed",
        "completed",
        "in_progress",
        "completed",
    ]
    assert [chunk["startTime"] for chunk in body["chunks"]] == [0.0, 2.5, None, None]
    first = body["chunks"][0]
    assert (first["engine"], first["language"], first["confidence"]) == ("scripted", "en", 0.5)


def test_a_chunk_that_waits_after_an_error_says_why(alice: APIClient) -> None:
    job = factories.make_job()
    factories.fail(factories.claim(job))
    (chunk,) = read(alice, job)["chunks"]
    assert (chunk["status"], chunk["attempts"]) == ("pending", 1)
    assert chunk["error"] == {
        "code": "engine_error",
        "detail": "the engine stumbled",
        "recoverable": True,
    }


def test_a_completed_job(alice: APIClient) -> None:
    job = factories.make_completed_job("hello", "world", title="Monday")
    body = read(alice, job)
    assert UUID(body["jobId"]) == job.pk
    assert (body["jobStatus"], body["title"], body["transcription"]) == (
        "completed",
        "Monday",
        "hello world",
    )
    assert (body["durationSeconds"], body["language"], body["gaps"]) == (2.0, "en", [])
    assert body["completedTime"] >= body["submittedTime"]
    assert [chunk["startTime"] for chunk in body["chunks"]] == [0.0, 1.0]


def test_a_failed_job_holds_what_was_recognised_and_names_the_gap(alice: APIClient) -> None:
    body = read(alice, factories.make_failed_job("hello", None, "world"))
    assert (body["jobStatus"], body["transcription"]) == ("failed", "hello world")
    assert body["gaps"] == [
        {"index": 1, "startTime": None, "durationSeconds": None, "code": "invalid_audio"}
    ]
    assert body["chunks"][1]["error"]["recoverable"] is False
    assert [chunk["startTime"] for chunk in body["chunks"]] == [0.0, None, 1.0]
    assert body["completedTime"] is not None


def test_a_cancelled_job(alice: APIClient) -> None:
    job = factories.make_job(2)
    factories.complete(factories.claim(job, 0), "hello")
    actions.cancel(job.pk)
    body = read(alice, job)
    assert (body["jobStatus"], body["transcription"]) == ("cancelled", "hello")
    assert [gap["code"] for gap in body["gaps"]] == ["cancelled"]
    assert [chunk["status"] for chunk in body["chunks"]] == ["completed", "cancelled"]


def test_no_text_at_all_is_an_empty_text_and_not_null(alice: APIClient) -> None:
    assert read(alice, factories.make_completed_job(""))["transcription"] == ""
    assert read(alice, factories.make_failed_job(None))["transcription"] == ""


def test_a_retried_job_has_no_transcription_again(alice: APIClient) -> None:
    job = factories.make_failed_job("hello", None)
    read(alice, job)
    actions.retry(job.pk)
    body = read(alice, job)
    assert (body["transcription"], body["completedTime"], body["gaps"]) == (None, None, [])


def test_a_completed_transcript_is_read_with_one_statement_once_the_cache_is_warm(
    alice: APIClient, django_assert_num_queries: Any
) -> None:
    job = factories.make_completed_job("hello")
    cold = read(alice, job)
    with django_assert_num_queries(1):
        assert read(alice, job) == cold


def test_a_job_is_read_by_its_user_and_by_a_service_only(
    alice: APIClient, bob: APIClient, service: APIClient, anybody: APIClient
) -> None:
    job = factories.make_completed_job("hello")
    codes = [c.get(f"/transcript/{job.pk}").status_code for c in (alice, service, bob, anybody)]
    assert codes == [200, 200, 404, 401]


def test_410_is_told_only_to_those_who_could_have_read_it(
    alice: APIClient, bob: APIClient, service: APIClient
) -> None:
    job = factories.make_completed_job("hello")
    assert alice.delete(f"/transcript/{job.pk}").status_code == 204
    for client, code in ((alice, 410), (service, 410), (bob, 404)):
        for method, suffix in (
            ("get", ""), ("delete", ""), ("post", "/cancel"), ("post", "/retry"),
        ):  # fmt: skip
            response = getattr(client, method)(f"/transcript/{job.pk}{suffix}")
            assert response.status_code == code
            expected = "erased" if code == 410 else "not_found"
            assert response.json()["errors"][0]["code"] == expected
    assert alice.get(f"/transcript/{uuid4()}").status_code == 404


def test_polling_is_constant_in_the_number_of_chunks(
    alice: APIClient, django_assert_num_queries: Any
) -> None:
    for chunks in (1, 24):
        job = factories.make_job(chunks)
        with django_assert_num_queries(3):
            read(alice, job)


def test_no_answer_shows_a_lease_or_a_path_of_the_server(alice: APIClient, settings: Any) -> None:
    job = factories.make_job()
    claim = factories.claim(job)
    text = alice.get(f"/transcript/{job.pk}").content.decode()
    assert str(claim.token) not in text
    assert str(settings.AUDIO_ROOT) not in text
    assert Chunk.objects.get(job=job).lease_token == claim.token


def test_the_browsable_api_shows_every_endpoint() -> None:
    client = client_of()
    client.force_login(factories.make_user("root", is_staff=True))
    job = factories.make_completed_job("hello", user_id="root")
    running = factories.make_job(user_id="root")
    for address, code in (
        (f"/transcript/{job.pk}", 200),
        (f"/transcript/{running.pk}", 200),
        ("/transcript/search", 200),
        (f"/transcript/{job.pk}/cancel", 405),
        (f"/transcript/{job.pk}/retry", 405),
        (f"/transcript/{uuid4()}", 404),
        ("/transcribe", 405),
    ):
        response = client.get(address, HTTP_ACCEPT="text/html")
        assert response.status_code == code, (address, response.content[:300])
        assert response["Content-Type"].startswith("text/html")
