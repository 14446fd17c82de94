"""The admin: what operators see, what they may do, and what they cannot break."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from typing import Any
from uuid import UUID, uuid4

import dramatiq
import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django_dramatiq.models import Task

from asr.errors import AudioRejected
from asr.types import AudioInfo, Recognition, Segment
from jobs import (
    admin_lists,
    attempts,
    claims,
    editing,
    finishing,
    liveness,
    setbacks,
)
from jobs.models import (
    AuthToken,
    Chunk,
    ChunkStatus,
    ErasedJob,
    Job,
    JobStatus,
    WorkerProcess,
    from_now,
)
from jobs.redis_clients import impatient_client
from jobs.submission import Submission, submit

pytestmark = pytest.mark.django_db(transaction=True)

JOBS = "admin:jobs_job_changelist"


@pytest.fixture(autouse=True)
def empty_redis() -> Iterator[None]:
    broker: Any = dramatiq.get_broker()
    broker.client.flushdb()
    cache.clear()
    yield
    liveness.stop()


@pytest.fixture
def broker_away() -> Iterator[None]:
    broker: Any = dramatiq.get_broker()
    client = broker.client
    broker.use(impatient_client("redis://127.0.0.1:1/0"))
    yield
    broker.use(client)


def submitted(user_id: str = "alice", files: int = 2, title: str = "Monday") -> UUID:
    uploads: Any = tuple(SimpleUploadedFile(f"{n}.wav", b"RIFF") for n in range(files))
    return submit(Submission(user_id=user_id, uploads=uploads, title=title), caller=user_id).job_id


def attempt(job_id: UUID, index: int) -> attempts.Attempt:
    claim = claims.claim_chunk(job_id, index)
    assert claim is not None
    return attempts.Attempt(
        claim=claim, info=AudioInfo(duration_seconds=4.5, container="wav", digest="")
    )


def complete(job_id: UUID, index: int, text: str = "good morning") -> None:
    words = Recognition(
        segments=(Segment(text=text, start=0.0, end=4.0),), engine="pocketsphinx", model="en-us"
    )
    assert claims.record_result(attempt(job_id, index), words)
    finishing.finish_job(job_id)


def fail(job_id: UUID, index: int) -> None:
    setbacks.record_error(attempt(job_id, index), AudioRejected("invalid_audio", "no sound in it"))
    finishing.finish_job(job_id)


def failed_job(user_id: str = "alice") -> UUID:
    job_id = submitted(user_id)
    complete(job_id, 0)
    fail(job_id, 1)
    assert Job.objects.get(pk=job_id).status == JobStatus.FAILED
    return job_id


def status_of(job_id: UUID) -> str:
    return Job.objects.get(pk=job_id).status


def depth(queue: str) -> int:
    broker: Any = dramatiq.get_broker()
    return int(broker.do_qsize(queue))


def act(client: Client, action: str, *job_ids: UUID) -> str:
    """Run an action on jobs; what the page then says."""
    data = {"action": action, "_selected_action": [str(job_id) for job_id in job_ids]}
    page = client.post(reverse(JOBS), data, follow=True)
    assert page.status_code == 200
    return " | ".join(str(message) for message in page.context["messages"])


def listed(client: Client, **query: str) -> set[UUID]:
    page = client.get(reverse(JOBS), query)
    assert page.status_code == 200, page
    return {job.pk for job in page.context["cl"].result_list}


def text_of(page: Any) -> str:
    """What a reader sees of a page."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page.content.decode())).split())


# --- the list of jobs ---


def test_the_list_shows_progress_with_as_many_queries_for_many_jobs_as_for_one(
    admin_client: Client,
) -> None:
    job_id = submitted(files=6)
    complete(job_id, 0)
    complete(job_id, 3)
    with CaptureQueriesContext(connection) as for_one:
        page = admin_client.get(reverse(JOBS))
    assert "2/6" in text_of(page)

    for _ in range(5):
        submitted(files=3)
    with CaptureQueriesContext(connection) as for_many:
        page = admin_client.get(reverse(JOBS))

    assert text_of(page).count("0/3") == 5
    assert len(for_many) == len(for_one)


def test_jobs_are_filtered_by_status_user_and_age(admin_client: Client) -> None:
    fresh, ended, old = submitted("alice"), failed_job("bob"), submitted("alice")
    hours_old = submitted("carol")
    Job.objects.filter(pk=old).update(submitted_time=from_now(-timedelta(days=2)))
    Job.objects.filter(pk=hours_old).update(submitted_time=from_now(-timedelta(hours=5)))

    assert listed(admin_client) == {fresh, ended, old, hours_old}
    assert listed(admin_client, status__exact="failed") == {ended}
    assert listed(admin_client, user_id="alice") == {fresh, old}
    assert listed(admin_client, age="hour") == {fresh, ended}
    assert listed(admin_client, age="day") == {fresh, ended, hours_old}
    assert listed(admin_client, age="older") == {old}
    assert listed(admin_client, age="older", user_id="bob") == set()


def test_the_user_filter_keeps_a_chosen_user_whose_jobs_are_long_past(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_lists, "OFFERED", 1)
    past, _ = submitted("alice"), submitted("bob")

    page = admin_client.get(reverse(JOBS), {"user_id": "alice"})

    assert [job.pk for job in page.context["cl"].result_list] == [past]
    assert "By user All bob alice" in text_of(page)


def test_jobs_are_found_by_the_beginning_of_id_user_and_path(admin_client: Client) -> None:
    alices, bobs = submitted("alice"), submitted("bob.b")
    at_the_root = submitted("carol")
    Chunk.objects.filter(job_id=at_the_root, index=1).update(audio_path="meeting one.flac")
    theirs = str(alices)

    assert listed(admin_client, q=theirs) == {alices}
    assert listed(admin_client, q=f" {theirs.upper()} ") == {alices}
    assert listed(admin_client, q=theirs.replace("-", "")[:31]) == {alices}
    assert listed(admin_client, q=theirs[:8]) == {alices, bobs, at_the_root}
    assert listed(admin_client, q="alice") == {alices}
    assert listed(admin_client, q="bob.") == {bobs}
    assert listed(admin_client, q="bob.b/uploads/") == {bobs}
    assert listed(admin_client, q="meeting one") == {at_the_root}
    assert listed(admin_client, q="nobody") == set()
    assert listed(admin_client, q=str(uuid4())) == set()


def test_a_list_counts_no_further_than_anyone_pages(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_lists, "COUNTED", 2)
    for _ in range(3):
        submitted()

    page = admin_client.get(reverse(JOBS))

    assert page.context["cl"].result_count == 2


# --- a job's page ---


def test_a_jobs_page_shows_its_chunks_events_and_text_and_lets_nothing_be_edited(
    admin_client: Client,
) -> None:
    job_id = failed_job()
    address = reverse("admin:jobs_job_change", args=[job_id])

    page = admin_client.get(address)

    text = text_of(page)
    for shown in (str(job_id), "alice", "Monday", "pocketsphinx", f"alice/uploads/{job_id}/00.wav"):
        assert shown in text
    assert "invalid_audio no sound in it" in text
    assert text.count("good morning") >= 2  # the chunk's and the transcript's
    assert "part 2: invalid_audio" in text
    assert "part: 2" in text  # of an event
    assert "index: " not in text
    assert re.search(r"6 \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} job\.failed", text)
    assert 'name="_save"' not in page.content.decode()
    editable = re.findall(r'<(?:input|textarea|select)[^>]*name="([^"]+)"', page.content.decode())
    hidden = ("csrfmiddlewaretoken", "_FORMS", "-id", "-job", "q")
    assert [name for name in editable if not name.endswith(hidden)] == []

    refused = admin_client.post(address, {"status": "completed", "user_id": "mallory"})

    assert refused.status_code == 403
    assert Job.objects.filter(pk=job_id, status=JobStatus.FAILED, user_id="alice").exists()


def test_a_jobs_page_shows_who_edited_what_and_lets_nothing_of_it_be_edited(
    admin_client: Client,
) -> None:
    job_id = failed_job()
    editing.save(job_id, editor="carol", seen=0, texts={0: "good evening"}, speakers={})
    page = admin_client.get(reverse("admin:jobs_job_change", args=[job_id]))
    assert "carol" in text_of(page)
    assert "good evening" in text_of(page)
    assert 'name="revisions-0-editor"' not in page.content.decode()


def test_a_jobs_page_says_that_there_is_no_text_yet(admin_client: Client) -> None:
    page = admin_client.get(reverse("admin:jobs_job_change", args=[submitted()]))
    assert "(none until the job ends)" in text_of(page)


@pytest.mark.parametrize("model", ["job", "chunk", "workerprocess", "authtoken", "enginecall"])
def test_nothing_can_be_added(admin_client: Client, model: str) -> None:
    address = reverse(f"admin:jobs_{model}_add")
    assert admin_client.get(address).status_code == 403
    assert admin_client.post(address, {}).status_code == 403


# --- actions ---


def test_retry_runs_failed_jobs_again_and_skips_the_others(admin_client: Client) -> None:
    failed, running = failed_job(), submitted()

    said = act(admin_client, "retry", failed, running)

    assert said == "1 retried; skipped: 1 not failed."
    assert status_of(failed) == JobStatus.IN_PROGRESS
    chunks = dict(Chunk.objects.filter(job_id=failed).values_list("index", "status"))
    assert chunks == {0: ChunkStatus.COMPLETED, 1: ChunkStatus.PENDING}
    assert depth("local") == 1
    assert not Chunk.objects.filter(job_id=running, attempts__gt=0).exists()
    assert [entry.object_id for entry in LogEntry.objects.all()] == [str(failed)]


def test_retry_while_the_broker_is_away_says_when_the_chunks_start(
    admin_client: Client, broker_away: None
) -> None:
    first, second = failed_job(), failed_job()

    said = act(admin_client, "retry", first, second)

    assert said.startswith("2 retried. | The broker is away")
    assert status_of(first) == status_of(second) == JobStatus.IN_PROGRESS


def test_cancel_stops_jobs_in_progress_and_skips_the_others(admin_client: Client) -> None:
    running, failed = submitted(), failed_job()
    complete(running, 0)

    assert act(admin_client, "cancel", running, failed) == (
        "1 cancelled; skipped: 1 already ended."
    )
    assert act(admin_client, "cancel", running) == "0 cancelled; skipped: 1 cancelled before."

    assert (status_of(running), status_of(failed)) == (JobStatus.CANCELLED, JobStatus.FAILED)
    chunks = list(Chunk.objects.filter(job_id=running).values_list("status", flat=True))
    assert chunks == [ChunkStatus.COMPLETED, ChunkStatus.CANCELLED]


def test_requeue_sends_due_chunks_any_number_of_times_and_changes_no_job(
    admin_client: Client,
) -> None:
    waiting, running, ended = submitted(files=3), submitted(files=1), failed_job()
    attempt(running, 0)
    complete(waiting, 0)
    before = list(Job.objects.order_by("pk").values())

    for sent in (2, 4):
        said = act(admin_client, "requeue", waiting, running, ended)
        assert said == "1 requeued; skipped: 2 without a chunk that is due."
        assert depth("local") == sent

    assert list(Job.objects.order_by("pk").values()) == before


def test_requeue_while_the_broker_is_away_says_that_nothing_was_sent(
    admin_client: Client, broker_away: None
) -> None:
    said = act(admin_client, "requeue", submitted(), submitted())
    assert said == "0 requeued; skipped: 2 not sent (the broker is away)."


def test_more_jobs_than_one_request_can_do_are_skipped(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.admin.ACTED_ON_AT_ONCE", 1)
    first, second = submitted(), submitted()

    assert act(admin_client, "cancel", first, second) == (
        "1 cancelled; skipped: 1 beyond 1 at once."
    )
    assert (status_of(first), status_of(second)) == (JobStatus.CANCELLED, JobStatus.IN_PROGRESS)


def test_who_may_only_look_can_do_nothing(client: Client) -> None:
    user = User.objects.create_user("reader", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_job"))
    client.force_login(user)
    job_id = submitted()
    assert listed(client) == {job_id}
    assert "Chunks" in text_of(client.get(reverse("admin:jobs_job_change", args=[job_id])))

    for action in ("cancel", "retry", "requeue", "delete_selected"):
        act(client, action, job_id)
    refused = client.post(reverse("admin:jobs_job_delete", args=[job_id]), {"post": "yes"})

    assert refused.status_code == 403
    assert status_of(job_id) == JobStatus.IN_PROGRESS
    assert depth("local") == 0


# --- deleting ---


def test_deleting_a_job_on_its_page_erases_its_uploads_and_leaves_a_tombstone(
    admin_client: Client, settings: Any
) -> None:
    job_id, other = failed_job(), submitted()
    folder = settings.AUDIO_ROOT / "alice" / "uploads"
    address = reverse("admin:jobs_job_delete", args=[job_id])
    assert f"Job {job_id} of alice" in text_of(admin_client.get(address))
    assert (folder / str(job_id)).is_dir()

    admin_client.post(address, {"post": "yes"})

    assert not Job.objects.filter(pk=job_id).exists()
    assert ErasedJob.objects.get(pk=job_id).user_id == "alice"
    assert not (folder / str(job_id)).exists()
    assert (folder / str(other)).is_dir()
    assert status_of(other) == JobStatus.IN_PROGRESS


def test_deleting_selected_jobs_goes_the_same_way(admin_client: Client, settings: Any) -> None:
    jobs = [submitted(), failed_job()]
    data = {
        "action": "delete_selected",
        "_selected_action": [str(job_id) for job_id in jobs],
        "post": "yes",
    }

    page = admin_client.post(reverse(JOBS), data, follow=True)

    assert "Successfully deleted 2 jobs." in text_of(page)
    assert not Job.objects.exists()
    assert {erased.pk for erased in ErasedJob.objects.all()} == set(jobs)
    for job_id in jobs:
        assert not (settings.AUDIO_ROOT / "alice" / "uploads" / str(job_id)).exists()


def test_files_are_kept_when_the_deletion_is_rolled_back(
    admin_client: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise RuntimeError

    job_id = submitted()
    monkeypatch.setattr("jobs.admin.JobAdmin.response_delete", refuse)

    with pytest.raises(RuntimeError):
        admin_client.post(reverse("admin:jobs_job_delete", args=[job_id]), {"post": "yes"})

    assert status_of(job_id) == JobStatus.IN_PROGRESS
    assert (settings.AUDIO_ROOT / "alice" / "uploads" / str(job_id) / "00.wav").exists()


# --- the other pages ---


def test_chunks_are_filtered_and_found(admin_client: Client) -> None:
    job_id, other = failed_job(), submitted("bob")

    def found(**query: str) -> set[str]:
        page = admin_client.get(reverse("admin:jobs_chunk_changelist"), query)
        return {str(chunk) for chunk in page.context["cl"].result_list}

    both = {f"{job_id}, part 1", f"{job_id}, part 2"}
    assert found(status__exact="failed") == {f"{job_id}, part 2"}
    assert found(error_code="invalid_audio") == {f"{job_id}, part 2"}
    assert found(engine="pocketsphinx") == both
    assert found(q=str(job_id)) == both
    assert found(q="bob/") == {f"{other}, part 1", f"{other}, part 2"}

    chunk = Chunk.objects.get(job_id=job_id, index=1)
    address = reverse("admin:jobs_chunk_change", args=[chunk.pk])
    assert "no sound in it" in text_of(admin_client.get(address))
    assert admin_client.post(address, {"status": "pending"}).status_code == 403
    assert admin_client.post(reverse("admin:jobs_chunk_delete", args=[chunk.pk])).status_code == 403


def test_workers_are_shown_alive_or_silent(admin_client: Client) -> None:
    for hostname, age in (("near", 0), ("far", 20)):
        WorkerProcess.objects.create(
            pk=uuid4(),
            hostname=hostname,
            pid=1,
            pid_started=1,
            queues="chunks",
            started_time=Now(),
            last_seen=from_now(-timedelta(seconds=age)),
        )

    page = admin_client.get(reverse("admin:jobs_workerprocess_changelist"))

    seen = {worker.hostname: worker.is_alive for worker in page.context["cl"].result_list}
    assert seen == {"near": True, "far": False}
    assert page.content.decode().count('alt="True"') == 1


def test_to_delete_a_token_revokes_it_and_no_other(admin_client: Client) -> None:
    user = User.objects.create_user("alice")
    kept, kept_secret = AuthToken.objects.create(user=user)
    revoked, secret = AuthToken.objects.create(user=user)
    page = admin_client.get(reverse("admin:jobs_authtoken_changelist"), {"q": "ali"})
    assert "manage.py issue_token" in text_of(page)
    assert {token.pk for token in page.context["cl"].result_list} == {kept.pk, revoked.pk}
    address = reverse("admin:jobs_authtoken_change", args=[revoked.pk])
    assert revoked.digest not in text_of(admin_client.get(address))

    admin_client.post(reverse("admin:jobs_authtoken_delete", args=[revoked.pk]), {"post": "yes"})

    def answer(token: str) -> int:
        headers = {"Authorization": f"Token {token}"}
        return Client().get("/transcript/search", headers=headers).status_code

    assert (answer(secret), answer(kept_secret)) == (401, 200)


def test_the_site_knows_users_and_groups_but_not_dramatiqs_empty_table() -> None:
    assert type(admin.site._wrapped).__name__ == "VerbatimAdminSite"  # type: ignore[attr-defined]
    assert admin.site.is_registered(User)
    assert admin.site.is_registered(Group)
    assert not admin.site.is_registered(Task)
