"""What must never be true is refused by the database itself, whoever writes it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from jobs.models import (
    Chunk,
    ErasedJob,
    IdempotencyKey,
    Job,
    JobEvent,
    Transcript,
    UserJobIndex,
    from_now,
)
from tests import factories

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    "columns",
    [
        {"status": "done"},
        {"status": ""},
        {"status": "completed"},
        {"status": "failed", "completed_time": None},
        {"completed_time": Now()},
        {"deadline": from_now(-timedelta(days=1))},
    ],
)
def test_an_illegal_job_is_refused(columns: dict[str, Any]) -> None:
    job = factories.make_job()
    with pytest.raises(IntegrityError), transaction.atomic():
        Job.objects.filter(pk=job.pk).update(**columns)
    job.refresh_from_db()
    assert (job.status, job.completed_time) == ("in_progress", None)


@pytest.mark.parametrize(
    "columns",
    [
        {"status": "running"},
        {"status": "in_progress"},
        {"status": "in_progress", "lease_token": uuid4()},
        {"status": "in_progress", "lease_token": uuid4(), "lease_expires_time": Now()},
        {"status": "in_progress", "lease_token": uuid4(), "worker_id": uuid4()},
        {"lease_token": uuid4()},
        {"errors": 5},
        {"crashes": 4},
        {"redrives": 4},
        {"redrives": -1},
        {"errors": -1},
        {"attempts": -1},
        {"status": "failed"},
        {"status": "failed", "error_recoverable": True},
        {"status": "failed", "error_code": "engine_error"},
        {"status": "completed"},
        {"index": 0},
    ],
)
def test_an_illegal_chunk_is_refused(columns: dict[str, Any]) -> None:
    job = factories.make_job(2)
    with pytest.raises(IntegrityError), transaction.atomic():
        Chunk.objects.filter(job=job, index=1).update(**columns)
    assert job.chunks.filter(index=1, status="pending", attempts=0).exists()


def test_an_event_number_exists_once_in_a_job() -> None:
    job = factories.make_job()
    with pytest.raises(IntegrityError), transaction.atomic():
        JobEvent.objects.create(job=job, sequence=1, type="job.failed", time=Now())
    assert job.events.count() == 1


def test_a_job_has_one_transcript_and_one_index_row() -> None:
    job = factories.make_completed_job("one")
    with pytest.raises(IntegrityError), transaction.atomic():
        Transcript.objects.create(job=job, duration_seconds=1)
    with pytest.raises(IntegrityError), transaction.atomic():
        UserJobIndex.objects.create(
            job=job, user_id="bob", job_status="completed", submitted_time=Now()
        )
    assert UserJobIndex.objects.get(job=job).user_id == "alice"


def test_an_unknown_status_does_not_get_into_the_index() -> None:
    job = factories.make_job()
    with pytest.raises(IntegrityError), transaction.atomic():
        UserJobIndex.objects.filter(job=job).update(job_status="pending")


def test_an_idempotency_key_exists_once_per_user() -> None:
    IdempotencyKey.objects.create(user_id="alice", key="k", fingerprint="1")
    IdempotencyKey.objects.create(user_id="bob", key="k", fingerprint="1")
    with pytest.raises(IntegrityError), transaction.atomic():
        IdempotencyKey.objects.create(user_id="alice", key="k", fingerprint="2")


def test_a_job_is_erased_once() -> None:
    job_id = uuid4()
    ErasedJob.objects.create(job_id=job_id, user_id="alice")
    with pytest.raises(IntegrityError), transaction.atomic():
        ErasedJob.objects.create(job_id=job_id, user_id="alice")
