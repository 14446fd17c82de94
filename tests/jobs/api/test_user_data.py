"""DELETE /users/{userId}/data: who may, what is answered, and what later reads are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from rest_framework.test import APIClient

from jobs.models import EngineCall, ErasedJob, Job, UserIndexStamp
from tests import factories
from tests.helpers import client_of
from tests.scripted import ScriptedEngine

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("redis_is_empty")]
ADDRESS = "/users/alice/data"


def codes(response: Any) -> list[str]:
    return [error["code"] for error in response.json()["errors"]]


def test_a_user_erases_everything_and_gets_a_receipt(
    alice: APIClient, audio_root: Path, script: ScriptedEngine
) -> None:
    file = SimpleUploadedFile("a.wav", factories.wav())
    answer = alice.post("/transcribe", {"audioChunks": [file]}, format="multipart")
    assert answer.status_code == 202, answer.content
    factories.make_completed_job("spoken", "words")
    assert alice.get("/transcript/search").json()["results"]

    response = alice.delete(ADDRESS)

    assert response.status_code == 200, response.content
    receipt = response.json()
    assert receipt["userId"] == "alice"
    assert receipt["requestedTime"] <= receipt["completedTime"]
    assert receipt["completedTime"].endswith("Z")
    assert (
        receipt["removed"].items()
        >= {
            "jobs": 2,
            "chunks": 3,
            "transcripts": 1,
            "indexEntries": 2,
            "audioFiles": 1,
        }.items()
    )
    assert set(receipt["remaining"].values()) == {0}
    assert set(receipt["remaining"]) == set(receipt["removed"])
    assert receipt["verified"] is True
    assert not [path for path in audio_root.rglob("*") if path.is_file()]


def test_later_reads_are_410_for_the_owner_and_staff_and_404_for_others(
    alice: APIClient, bob: APIClient, service: APIClient
) -> None:
    deleted, job = factories.make_completed_job("x"), factories.make_completed_job("x")
    alice.delete(f"/transcript/{deleted.pk}")
    assert alice.get(f"/transcript/{job.pk}").status_code == 200  # cached from now on
    assert alice.delete(ADDRESS).status_code == 200
    assert not ErasedJob.objects.filter(user_id="alice").exists()
    session = client_of()
    session.force_login(factories.make_user("alice"))
    for address in (f"/transcript/{job.pk}", f"/transcript/{deleted.pk}"):
        for caller in (alice, service, session):
            answer = caller.get(address)
            assert (answer.status_code, codes(answer)) == (410, ["erased"])
        assert bob.get(address).status_code == 404
    assert alice.delete(f"/transcript/{job.pk}").status_code == 410
    assert alice.get(f"/transcript/{job.pk}/export/txt").status_code == 410
    assert alice.get("/transcript/search").json()["results"] == []
    assert service.get("/transcript/search?userId=alice").json()["results"] == []


def test_a_second_time_there_is_nothing_left(alice: APIClient) -> None:
    factories.make_completed_job("x")
    assert alice.delete(ADDRESS).json()["removed"]["jobs"] == 1
    again = alice.delete(ADDRESS)
    assert (again.status_code, set(again.json()["removed"].values())) == (200, {0})


def test_another_users_data_answer_as_if_nobody_were_there(bob: APIClient) -> None:
    factories.make_completed_job("x", user_id="alice")
    answers = [bob.delete(address) for address in (ADDRESS, "/users/nobody-at-all/data")]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].json() == answers[1].json()
    assert Job.objects.count() == 1


@pytest.mark.parametrize("name", ["..", ".", "a b", "a:b", "%00", "x" * 151, "erased:00"])
def test_what_is_no_users_name_is_not_found(service: APIClient, name: str) -> None:
    assert service.delete(f"/users/{name}/data").status_code == 404


def test_staff_and_services_may_and_need_no_account_of_that_name(service: APIClient) -> None:
    factories.make_completed_job("x", user_id="someone@example.org")
    assert service.delete("/users/someone@example.org/data").json()["removed"]["jobs"] == 1
    factories.make_completed_job("x", user_id="bob")
    staff = client_of()
    staff.force_login(factories.make_user("root", is_staff=True))
    assert staff.delete("/users/bob/data").json()["removed"]["jobs"] == 1
    ordinary = client_of(factories.make_token("root"))
    factories.make_completed_job("x", user_id="bob")
    assert ordinary.delete("/users/bob/data").status_code == 404


def test_the_user_goes_on_with_the_same_token(alice: APIClient, script: ScriptedEngine) -> None:
    factories.make_completed_job("x")
    alice.delete(ADDRESS)
    factories.put_audio("alice/a.wav")
    answer = alice.post("/transcribe", {"audioChunkPaths": ["alice/a.wav"]})
    assert answer.status_code == 202
    (found,) = alice.get("/transcript/search").json()["results"]
    assert found["jobId"] == answer.json()["jobId"]
    assert UserIndexStamp.of("alice") is not None


def test_the_ledger_keeps_its_rows_without_the_name(alice: APIClient) -> None:
    job = factories.make_completed_job("x")
    EngineCall.objects.create(
        job_id=job.pk, index=0, user_id="alice", engine="e", audio_seconds=60, price_usd="0.006"
    )
    assert alice.delete(ADDRESS).json()["removed"]["callsPseudonymised"] == 1
    call = EngineCall.objects.get()
    assert call.user_id.startswith("erased:")
    assert (call.job_id, f"{call.price_usd}") == (job.pk, "0.006000")


def test_while_the_storage_is_away_it_is_503_and_nothing_is_lost(
    alice: APIClient, audio_root: Path, script: ScriptedEngine
) -> None:
    file = SimpleUploadedFile("a.wav", factories.wav())
    alice.post("/transcribe", {"audioChunks": [file]}, format="multipart")
    audio_root.rename(audio_root.with_name("unmounted"))
    answer = alice.delete(ADDRESS)
    assert (answer.status_code, codes(answer)) == (503, ["storage_unavailable"])
    assert answer["Retry-After"]
    audio_root.with_name("unmounted").rename(audio_root)
    assert alice.delete(ADDRESS).json()["removed"]["audioFiles"] == 1


def test_while_the_cache_is_away_it_is_503_and_names_what_is_left(
    alice: APIClient, redis_elsewhere: Callable[[str], None]
) -> None:
    factories.make_completed_job("x")
    redis_elsewhere("redis://127.0.0.1:1/0")
    answer = alice.delete(ADDRESS)
    assert (answer.status_code, codes(answer)) == (503, ["erasure_incomplete"])
    assert answer.json()["type"] == "server_error"
    assert "cachedEntries" in answer.json()["errors"][0]["detail"]
    assert answer["Retry-After"]
    assert not Job.objects.exists()
