"""POST /transcribe: what is taken, how it is answered, and that it starts."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from rest_framework.test import APIClient

from jobs import tasks
from jobs.models import Chunk, Job, JobEvent
from jobs.sweeper import sweep
from tests import factories
from tests.helpers import WorkerInTest, broker, client_of, together, wait_until
from tests.scripted import ScriptedEngine

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_is_empty")]
PATH = "alice/a.wav"


@pytest.fixture(autouse=True)
def audio(audio_root: Path) -> None:
    factories.put_audio(PATH)
    factories.put_audio("alice/b.wav")
    factories.put_audio("bob/a.wav")


def post(client: APIClient, *paths: str, key: str | None = None, **fields: Any) -> Any:
    headers: Any = {} if key is None else {"HTTP_IDEMPOTENCY_KEY": key}
    return client.post("/transcribe", {"audioChunkPaths": paths or [PATH]} | fields, **headers)


def form(client: APIClient, *names: str, key: str | None = None, **fields: Any) -> Any:
    headers: Any = {} if key is None else {"HTTP_IDEMPOTENCY_KEY": key}
    files = [SimpleUploadedFile(name, factories.wav()) for name in names]
    return client.post(
        "/transcribe", {"audioChunks": files} | fields, format="multipart", **headers
    )


def queued() -> list[tuple[str, list[Any]]]:
    """The messages that lie in Redis, in order: queue and arguments."""
    client, found = broker().client, []
    for queue in ("chunks", "local", "control"):
        for message_id in client.lrange(f"dramatiq:{queue}", 0, -1):
            message = json.loads(client.hget(f"dramatiq:{queue}.msgs", message_id))
            found.append((queue, message["args"]))
    return found


def test_a_job_is_accepted_with_its_location_and_one_message_per_chunk(alice: APIClient) -> None:
    response = post(alice, PATH, "alice/b.wav", PATH, title="Monday", language="en")
    assert response.status_code == 202
    job_id = UUID(response.json()["jobId"])
    assert response.json() == {"jobId": str(job_id)}
    assert response["Location"] == f"/transcript/{job_id}"
    assert job_id.version == 7
    assert queued() == [("local", [str(job_id), index, "pocketsphinx"]) for index in range(3)]
    result = alice.get(response["Location"]).json()
    assert (result["jobStatus"], result["title"], result["userId"]) == (
        "in_progress",
        "Monday",
        "alice",
    )
    assert [chunk["audioChunkPath"] for chunk in result["chunks"]] == [PATH, "alice/b.wav", PATH]
    assert not result["delayed"]


def test_chunks_of_a_remote_engine_wait_in_their_own_queue(
    alice: APIClient, script: ScriptedEngine
) -> None:
    post(alice)
    assert [queue for queue, _ in queued()] == ["chunks"]


def test_a_form_with_files_is_accepted_in_order(alice: APIClient, audio_root: Path) -> None:
    response = form(alice, "z.wav", "a.mp3", title="Monday", language="en-US")
    assert response.status_code == 202
    job = Job.objects.get(pk=response.json()["jobId"])
    paths = list(job.chunks.order_by("index").values_list("audio_path", flat=True))
    assert [Path(path).name for path in paths] == ["00.wav", "01.mp3"]
    assert all((audio_root / path).read_bytes() == factories.wav() for path in paths)
    assert (job.title, job.language, job.diarize) == ("Monday", "en-US", False)
    assert len(queued()) == 2


@pytest.mark.parametrize("terms", [["Kubernetes", "night shift"], ["one, and no list"]])
def test_a_form_may_name_paths_and_lists_as_well(
    alice: APIClient, script: ScriptedEngine, terms: list[str]
) -> None:
    """A list is its field once for each item."""
    fields = {"audioChunkPaths": [PATH, "alice/b.wav"], "vocabulary": terms, "diarize": "true"}
    response = alice.post("/transcribe", fields, format="multipart")
    assert response.status_code == 202, response.content
    job = Job.objects.get()
    assert (job.vocabulary, job.diarize, job.chunks.count()) == (terms, True, 2)


def test_a_user_may_name_itself_and_a_service_anybody(alice: APIClient, service: APIClient) -> None:
    assert post(alice, userId="alice").status_code == 202
    assert post(service, "bob/a.wav", userId="no.account@x+y-z").status_code == 202
    assert post(service, PATH).status_code == 202
    users = list(Job.objects.order_by("pk").values_list("user_id", flat=True))
    assert users == ["alice", "no.account@x+y-z", "robot"]


def test_fields_that_may_be_null_may_be_null(alice: APIClient) -> None:
    response = post(alice, title=None, language=None, engine=None)
    assert response.status_code == 202
    assert alice.get(response["Location"]).json()["title"] is None


@pytest.mark.django_db(transaction=True)
def test_the_number_of_statements_does_not_depend_on_the_number_of_chunks(
    alice: APIClient,
) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    counts = []
    post(alice)
    for chunks in (1, 24):
        with CaptureQueriesContext(connection) as queries:
            assert post(alice, *[PATH] * chunks).status_code == 202
        counts.append(len([q for q in queries if "SAVEPOINT" not in q["sql"]]))
    assert counts[0] == counts[1]
    assert counts[0] <= 18


# --- Idempotency-Key ---


def test_the_same_key_answers_the_same_job(alice: APIClient) -> None:
    first, again = post(alice, key="k"), post(alice, key="k")
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json() == first.json()
    assert again["Location"] == first["Location"]
    assert Job.objects.count() == 1
    assert len(queued()) == 1


def test_another_body_another_user_and_another_key(
    alice: APIClient, bob: APIClient, service: APIClient
) -> None:
    first = post(alice, key="k")
    other = post(alice, key="k", title="x")
    assert other.status_code == 422
    body = other.json()
    assert (body["type"], body["errors"][0]["code"]) == ("client_error", "idempotency_key_reused")
    assert post(bob, "bob/a.wav", key="k").status_code == 202
    assert post(service, key="k", userId="alice").status_code == 202
    assert post(alice, key="k2").json() != first.json()
    assert Job.objects.count() == 4


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_has_1_to_255_characters(alice: APIClient, key: str) -> None:
    response = post(alice, key=key)
    assert response.status_code == 400
    assert response.json()["errors"][0]["attr"] == "Idempotency-Key"
    assert post(alice, key="x" * 255).status_code == 202


def test_files_in_a_form_are_compared_by_content(alice: APIClient) -> None:
    first = form(alice, "a.wav", key="k")
    assert form(alice, "a.wav", key="k").json() == first.json()
    assert form(alice, "a.wav", "a.wav", key="k").status_code == 422
    assert post(alice, key="k").status_code == 422


def test_a_key_of_a_deleted_job_still_answers_its_id(alice: APIClient) -> None:
    first = post(alice, key="k")
    assert alice.delete(first["Location"]).status_code == 204
    again = post(alice, key="k")
    assert (again.status_code, again.json()) == (200, first.json())
    assert not Job.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_20_posts_at_once_with_one_key_make_one_job() -> None:
    token = factories.make_token("alice")
    answers = together(*[lambda: post(client_of(token), key="k")] * 20)
    codes = [answer.status_code for answer in answers]
    assert codes.count(202) == 1
    assert set(codes) <= {200, 202, 409}
    for answer in answers:
        if answer.status_code == 409:
            assert answer.json()["errors"][0]["code"] == "idempotency_conflict"
            assert int(answer["Retry-After"]) > 0
        else:
            assert answer.json()["jobId"] == str(Job.objects.get().pk)
    assert JobEvent.objects.filter(type="job.submitted").count() == 1


# --- the broker is away ---


def accepted_within_2_seconds(client: APIClient) -> Job:
    began = time.monotonic()
    response = post(client, PATH, "alice/b.wav")
    assert response.status_code == 202, response.content
    assert time.monotonic() - began < 2.0
    return Job.objects.get(pk=response.json()["jobId"])


@pytest.mark.django_db(transaction=True)
def test_with_a_closed_port_the_job_is_accepted_and_starts_when_the_broker_is_back(
    redis_elsewhere: Callable[[str], None],
    script: ScriptedEngine,
    worker: WorkerInTest,
    settings: Any,
) -> None:
    alice, url = client_of(factories.make_token("alice")), settings.BROKER_URL
    redis_elsewhere("redis://127.0.0.1:1/0")
    job = accepted_within_2_seconds(alice)
    result = alice.get(f"/transcript/{job.pk}").json()
    assert (result["jobStatus"], result["delayed"], result["delayReason"]) == (
        "in_progress",
        True,
        "queue_unavailable",
    )
    assert sweep(tasks.send_chunk).broker_away
    redis_elsewhere(url)
    assert sweep(tasks.send_chunk).sent == 2
    worker.start()
    wait_until(lambda: Job.objects.get(pk=job.pk).status == "completed")
    result = alice.get(f"/transcript/{job.pk}").json()
    assert (result["delayed"], result["delayReason"]) == (False, None)
    types = list(job.events.order_by("sequence").values_list("type", flat=True))
    assert types.count("job.delayed") == 1
    assert types.count("job.resumed") == 1


@pytest.mark.django_db(transaction=True)
def test_with_a_stalled_redis_the_job_is_accepted_within_2_seconds_and_starts_later(
    redis_elsewhere: Callable[[str], None],
    stalling_redis: tuple[str, Callable[[int], None]],
    script: ScriptedEngine,
    worker: WorkerInTest,
) -> None:
    alice = client_of(factories.make_token("alice"))
    url, send_signal = stalling_redis
    redis_elsewhere(url)
    accepted_within_2_seconds(alice)  # connections are open now
    send_signal(signal.SIGSTOP)
    stalled = [accepted_within_2_seconds(alice) for _ in range(2)]
    assert [job.delay_reason for job in stalled] == ["queue_unavailable"] * 2
    send_signal(signal.SIGCONT)
    sweep(tasks.send_chunk, everything=True)
    worker.start()
    wait_until(lambda: not Job.objects.exclude(status="completed").exists())
    assert Chunk.objects.filter(status="completed", attempts=1).count() == 6
    assert len(script.calls) == len({PATH, "alice/b.wav"})  # the same sound is asked for once
