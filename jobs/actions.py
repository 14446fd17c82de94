"""What may be done to a job from outside: cancel, retry, delete."""

from __future__ import annotations

from functools import partial
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from jobs import cache, storage
from jobs.models import (
    DEADLINE,
    ENDED_CHUNK,
    MESSAGE_PATIENCE,
    Chunk,
    ChunkStatus,
    ErasedJob,
    EventType,
    Job,
    JobStatus,
    Transcript,
    UserIndexStamp,
    changing,
    from_now,
)
from jobs.pipeline import end_job
from jobs.results import iso_time


class AlreadyEndedError(Exception):
    """A job that has ended otherwise cannot be cancelled."""


class NotFailedError(Exception):
    """Only a failed job can be retried."""


def cancel(job_id: UUID) -> bool:
    """Stop a job; what was recognised is kept. False when it was cancelled before.

    A worker in the middle of one of its chunks finds its claim over and writes nothing.

    Raises:
        JobGoneError: there is no such job.
        AlreadyEndedError: it is completed or failed.
    """
    with changing(job_id) as change:
        if change.job.status == JobStatus.CANCELLED:
            return False
        if change.job.status != JobStatus.IN_PROGRESS:
            raise AlreadyEndedError(str(job_id))
        unfinished = change.job.chunks.exclude(status__in=ENDED_CHUNK).order_by("index")
        for index in list(unfinished.values_list("index", flat=True)):
            change.move_chunk(
                index, ChunkStatus.CANCELLED, EventType.CHUNK_CANCELLED, ended_time=Now()
            )
        chunks = change.job.chunks.order_by("index")
        return end_job(change, JobStatus.CANCELLED, EventType.JOB_CANCELLED, chunks)


def retry(job_id: UUID) -> None:
    """Give the failed chunks of a failed job a fresh budget; finished ones are kept.

    The caller dispatches the job after that.

    Raises:
        JobGoneError: there is no such job.
        NotFailedError: it did not fail.
    """
    with changing(job_id) as change:
        fresh = {"deadline": from_now(DEADLINE), "delay_reason": ""}
        if not change.move_job(JobStatus.IN_PROGRESS, EventType.JOB_RETRIED, **fresh):
            raise NotFailedError(str(job_id))
        Transcript.objects.filter(pk=job_id).delete()
        failed = change.job.chunks.filter(status=ChunkStatus.FAILED).order_by("index")
        for index in list(failed.values_list("index", flat=True)):
            change.move_chunk(
                index,
                ChunkStatus.PENDING,
                EventType.CHUNK_PENDING,
                {"notBefore": iso_time(timezone.now())},
                errors=0,
                crashes=0,
                not_before=Now(),
                resend_time=from_now(MESSAGE_PATIENCE),
                dispatches=0,
                ended_time=None,
                duration_seconds=None,
                error_code="",
                error_detail="",
                error_recoverable=None,
            )
        transaction.on_commit(partial(cache.write_job_through, job_id), robust=True)


def delete(job_id: UUID) -> None:
    """Erase a job in any state: rows, transcript, cache entry and the files it uploaded.

    Files that others put under the audio root stay, and so does an upload that another job names.

    Raises:
        JobGoneError: there is no such job.
    """
    with changing(job_id) as change:
        job = change.job
        uploads = set(job.chunks.filter(uploaded=True).values_list("audio_path", flat=True))
        ErasedJob.objects.create(job_id=job_id, user_id=job.user_id)
        UserIndexStamp.renew(job.user_id)
        Job.objects.filter(pk=job_id).delete()
        transaction.on_commit(partial(cache.forget_job, job_id, job.sequence), robust=True)
        transaction.on_commit(partial(_remove_unnamed, uploads), robust=True)


def _remove_unnamed(uploads: set[str]) -> None:
    """Looks after the commit: of two jobs deleted side by side the later one finds no other."""
    named = Chunk.objects.filter(audio_path__in=uploads).values_list("audio_path", flat=True)
    storage.remove_uploads(uploads - set(named))
