"""Cancel, retry and delete: what they change, what they keep, and when they refuse."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db.models import Q
from django.utils import timezone

from jobs import actions, finishing
from jobs.models import (
    Chunk,
    ErasedJob,
    Job,
    JobEvent,
    JobGoneError,
    Transcript,
    UserIndexStamp,
    UserJobIndex,
    from_now,
)
from jobs.submission import Submission, submit
from jobs.sweeper import sweep
from tests import factories
from tests.dead_letters import die, make_dead_job, statuses
from tests.helpers import together
from tests.scripted import ScriptedEngine

pytestmark = pytest.mark.django_db


def upload(*paths: str, chunks: int = 1, user: str = "alice") -> Job:
    """A job made of uploads, or of files that are there."""
    files = tuple(SimpleUploadedFile("x.wav", factories.wav()) for _ in range(chunks))
    asked = Submission(user_id=user, audio_paths=paths, uploads=() if paths else files)
    return Job.objects.get(pk=submit(asked, caller=user).job_id)


def paths_of(job: Job) -> list[str]:
    return list(job.chunks.order_by("index").values_list("audio_path", flat=True))


# --- cancel ---


def test_cancelling_keeps_what_was_recognised_and_names_what_is_missing() -> None:
    job = factories.make_job(4)
    factories.complete(factories.claim(job, 2), "kept")
    factories.fail(factories.claim(job, 3), factories.permanent())
    running = factories.claim(job, 0)
    assert actions.cancel(job.pk) is True
    job.refresh_from_db()
    assert job.status == "cancelled"
    assert job.completed_time is not None
    assert [chunk.status for chunk in job.chunks.order_by("index")] == [
        "cancelled",
        "cancelled",
        "completed",
        "failed",
    ]
    transcript = Transcript.objects.get(job=job)
    assert transcript.text == "kept"
    assert [(gap["index"], gap["code"]) for gap in transcript.gaps] == [
        (0, "cancelled"),
        (1, "cancelled"),
        (3, "invalid_audio"),
    ]
    assert not factories.complete(running, "too late")
    assert job.chunks.get(index=0).text == ""
    types = list(job.events.order_by("sequence").values_list("type", flat=True))
    assert types[-3:] == ["chunk.cancelled", "chunk.cancelled", "job.cancelled"]


def test_cancelling_twice_changes_nothing_the_second_time() -> None:
    job = factories.make_job()
    assert actions.cancel(job.pk) is True
    events = JobEvent.objects.count()
    assert actions.cancel(job.pk) is False
    assert JobEvent.objects.count() == events


def test_an_ended_job_cannot_be_cancelled() -> None:
    for job in (factories.make_completed_job("x"), factories.make_failed_job("x", None)):
        with pytest.raises(actions.AlreadyEndedError):
            actions.cancel(job.pk)
        assert Job.objects.get(pk=job.pk).status == job.status


@pytest.mark.django_db(transaction=True)
def test_ten_cancels_at_once_cancel_once() -> None:
    job = factories.make_job(3)
    assert sorted(together(*[lambda: actions.cancel(job.pk)] * 10)) == [False] * 9 + [True]
    types = list(JobEvent.objects.filter(job=job).values_list("type", flat=True))
    assert (types.count("job.cancelled"), types.count("chunk.cancelled")) == (1, 3)


# --- retry ---


def test_a_retry_gives_failed_chunks_a_fresh_budget_and_keeps_the_others() -> None:
    job = factories.make_failed_job("kept", None)
    finished = Chunk.objects.filter(job=job, index=0).values().get()
    actions.retry(job.pk)
    job.refresh_from_db()
    assert (job.status, job.completed_time) == ("in_progress", None)
    assert UserJobIndex.objects.get(job=job).job_status == "in_progress"
    assert not Transcript.objects.filter(job=job).exists()
    chunk = job.chunks.get(index=1)
    assert (chunk.status, chunk.errors, chunk.crashes, chunk.attempts) == ("pending", 0, 0, 1)
    assert (chunk.error_code, chunk.ended_time) == ("", None)
    assert Chunk.objects.filter(job=job, index=0).values().get() == finished
    for _ in range(4):
        factories.make_due(job.pk)
        factories.fail(factories.claim(job, 1))
    assert finishing.finish_job(job.pk)
    assert job.chunks.get(index=1).attempts == 5
    assert Job.objects.get(pk=job.pk).status == "failed"
    types = list(job.events.order_by("sequence").values_list("type", flat=True))
    assert types.count("job.retried") == 1
    assert types.count("job.failed") == 2


def test_a_retry_says_from_when_on_its_chunks_may_be_taken() -> None:
    """The contract: chunk.pending comes with data.notBefore."""
    job = factories.make_failed_job(None)
    actions.retry(job.pk)
    event = JobEvent.objects.get(job=job, type="chunk.pending")
    assert event.data["notBefore"].endswith("Z")


def test_a_job_retried_after_its_deadline_is_given_time_to_run() -> None:
    job = factories.make_failed_job("kept", None)
    past = timezone.now() - timedelta(hours=30)
    Job.objects.filter(pk=job.pk).update(
        submitted_time=past, deadline=from_now(-timedelta(hours=6))
    )
    actions.retry(job.pk)
    sweep(lambda chunk: None)
    assert job.chunks.get(index=1).status == "pending"
    factories.complete(factories.claim(job, 1), "now")
    assert finishing.finish_job(job.pk)
    assert Transcript.objects.get(job=job).text == "kept now"


def test_a_retried_job_is_not_delayed_by_what_delayed_it_before() -> None:
    job = factories.make_failed_job(None)
    Job.objects.filter(pk=job.pk).update(delay_reason="queue_unavailable")
    actions.retry(job.pk)
    assert Job.objects.get(pk=job.pk).delay_reason == ""


def test_only_a_failed_job_can_be_retried() -> None:
    cancelled = factories.make_job()
    actions.cancel(cancelled.pk)
    for job in (factories.make_job(), factories.make_completed_job("x"), cancelled):
        before = JobEvent.objects.filter(job=job).count()
        with pytest.raises(actions.NotFailedError):
            actions.retry(job.pk)
        assert JobEvent.objects.filter(job=job).count() == before


@pytest.mark.django_db(transaction=True)
def test_ten_retries_at_once_retry_once() -> None:
    job = factories.make_failed_job("kept", None, None)
    results = together(*[lambda: actions.retry(job.pk)] * 10)
    retried = [result for result in results if isinstance(result, list)]
    assert [[chunk.index for chunk in chunks] for chunks in retried] == [[1, 2]]
    assert sum(isinstance(result, actions.NotFailedError) for result in results) == 9
    assert JobEvent.objects.filter(job=job, type="job.retried").count() == 1
    assert JobEvent.objects.filter(job=job, type="chunk.pending").count() == 2


def test_a_retry_of_some_leaves_the_other_failed_chunks_as_they_are() -> None:
    job = make_dead_job("engine_error", None, "invalid_audio", "engine_error")
    others = job.chunks.filter(index__in=[1, 2]).order_by("index")
    before = list(others.values())
    retried = actions.retry(job.pk, which=Q(error_code="engine_error"))
    assert [(chunk.index, chunk.error_code) for chunk in retried] == [
        (0, "engine_error"),
        (3, "engine_error"),
    ]
    assert statuses(job) == ["pending", "completed", "failed", "pending"]
    assert list(others.values()) == before
    job.refresh_from_db()
    assert (job.status, job.completed_time) == ("in_progress", None)
    for index in (0, 3):
        factories.complete(factories.claim(job, index), f"again {index}")
    assert finishing.finish_job(job.pk)
    job.refresh_from_db()
    assert job.status == "failed"
    transcript = Transcript.objects.get(job=job)
    assert transcript.text == "again 0 kept again 3"
    assert [(gap["index"], gap["code"]) for gap in transcript.gaps] == [(2, "invalid_audio")]
    assert list(others.values()) == before
    types = list(job.events.order_by("sequence").values_list("type", flat=True))
    assert types.count("job.retried") == 1
    assert types.count("chunk.pending") == 2


def test_a_retry_of_none_changes_nothing() -> None:
    job = make_dead_job("invalid_audio", None)
    rows: list[Any] = [Job, Chunk, Transcript, UserJobIndex, UserIndexStamp, JobEvent]
    before = [list(model.objects.values()) for model in rows]
    assert actions.retry(job.pk, which=Q(error_recoverable=True)) == []
    assert [list(model.objects.values()) for model in rows] == before


def test_only_the_schedules_retries_count_as_redrives_and_none_takes_them_back() -> None:
    job = make_dead_job("engine_error", "engine_error")
    actions.retry(job.pk, which=Q(index=1), by_schedule=True)
    assert list(job.chunks.order_by("index").values_list("redrives", flat=True)) == [0, 1]
    die(job, 1, "engine_timeout")
    assert finishing.finish_job(job.pk)
    actions.retry(job.pk)
    assert list(job.chunks.order_by("index").values_list("redrives", flat=True)) == [0, 1]
    assert statuses(job) == ["pending", "pending"]


# --- delete ---


@pytest.mark.parametrize("state", ["waiting", "running", "completed", "failed", "cancelled"])
def test_a_job_in_any_state_is_erased_with_everything_of_it(state: str) -> None:
    job = factories.make_completed_job("x") if state == "completed" else factories.make_job()
    if state == "running":
        factories.claim(job)
    elif state == "failed":
        factories.fail(factories.claim(job), factories.permanent())
        finishing.finish_job(job.pk)
    elif state == "cancelled":
        actions.cancel(job.pk)
    other = factories.make_completed_job("stays", user_id="bob")
    stamp = UserIndexStamp.of("alice")
    actions.delete(job.pk)
    for model in (Job, Chunk, JobEvent, Transcript, UserJobIndex):
        key = "pk" if model is Job else "job_id"
        assert not model.objects.filter(**{key: job.pk}).exists()
        assert model.objects.filter(**{key: other.pk}).exists()
    assert ErasedJob.objects.get(pk=job.pk).user_id == "alice"
    assert UserIndexStamp.of("alice") != stamp


def test_what_is_gone_cannot_be_acted_on() -> None:
    for act in (actions.cancel, actions.retry, actions.delete):
        with pytest.raises(JobGoneError):
            act(uuid4())
    assert not ErasedJob.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_deleting_removes_uploads_and_their_folder(
    audio_root: Path, script: ScriptedEngine
) -> None:
    job = upload(chunks=3)
    files = [audio_root / path for path in paths_of(job)]
    assert all(file.is_file() for file in files)
    actions.delete(job.pk)
    assert not any(file.exists() for file in files)
    assert not files[0].parent.exists()
    assert (audio_root / "alice" / "uploads").exists()


@pytest.mark.django_db(transaction=True)
def test_deleting_keeps_what_others_put_under_the_root(
    audio_root: Path, script: ScriptedEngine
) -> None:
    factories.put_audio("alice/mtg/00.wav")
    factories.put_audio("alice/uploads/by-hand.wav")
    job = upload("alice/mtg/00.wav", "alice/uploads/by-hand.wav")
    actions.delete(job.pk)
    assert (audio_root / "alice/mtg/00.wav").is_file()
    assert (audio_root / "alice/uploads/by-hand.wav").is_file()


@pytest.mark.django_db(transaction=True)
def test_an_upload_that_another_job_names_stays_until_that_job_goes(
    audio_root: Path, script: ScriptedEngine
) -> None:
    first = upload(chunks=2)
    kept, lone = paths_of(first)
    second = upload(kept, kept)
    actions.delete(first.pk)
    assert (audio_root / kept).is_file()
    assert not (audio_root / lone).exists()
    actions.delete(second.pk)
    assert not (audio_root / kept).exists(), "the last job that named the upload is gone"


@pytest.mark.django_db(transaction=True)
def test_an_upload_whose_file_is_gone_already_does_not_stop_the_deletion(
    audio_root: Path, script: ScriptedEngine
) -> None:
    job = upload(chunks=2)
    (audio_root / paths_of(job)[0]).unlink()
    actions.delete(job.pk)
    assert not Job.objects.exists()
    assert not (audio_root / paths_of(job)[0]).parent.exists() if paths_of(job) else True


@pytest.mark.django_db(transaction=True)
def test_ten_deletions_at_once_erase_once() -> None:
    job = factories.make_completed_job("x")
    results = together(*[lambda: actions.delete(job.pk)] * 10)
    assert results.count(None) == 1
    assert sum(isinstance(result, JobGoneError) for result in results) == 9
    assert ErasedJob.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_delete_and_finish_at_the_same_moment_leave_nothing_half() -> None:
    for _ in range(4):
        job = factories.make_job(2)
        for index in range(2):
            factories.complete(factories.claim(job, index))
        together(partial(finishing.finish_job, job.pk), partial(actions.delete, job.pk))
        assert not Job.objects.filter(pk=job.pk).exists()
        assert not Transcript.objects.filter(pk=job.pk).exists()
        assert not UserJobIndex.objects.filter(pk=job.pk).exists()
