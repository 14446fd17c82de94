"""What may be done to a job from outside: cancel, retry, delete."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from jobs import cache, storage
from jobs.finishing import end_job
from jobs.models import (
    DEADLINE,
    ENDED_CHUNK,
    MESSAGE_PATIENCE,
    Chunk,
    ChunkStatus,
    ErasedJob,
    EventType,
    Job,
    JobChange,
    JobStatus,
    Transcript,
    UserIndexStamp,
    WebhookDelivery,
    changing,
    from_now,
)

ALL: Final = Q()


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


def retry(job_id: UUID, *, which: Q = ALL, by_schedule: bool = False) -> list[Chunk]:
    """Give failed chunks of a failed job a fresh budget; finished ones are kept.

    The caller dispatches the job after that.

    Args:
        which: of the failed chunks. The others stay failed, as they are: when the job ends again,
            they are its gaps. Where it holds for none, nothing changes.
        by_schedule: count it in the chunks' `redrives`, and leave their messages to the sweeper.

    Returns:
        The chunks, with the errors that they had.

    Raises:
        JobGoneError: there is no such job.
        NotFailedError: it did not fail.
    """
    with changing(job_id) as change:
        if change.job.status != JobStatus.FAILED:
            raise NotFailedError(str(job_id))
        failed = change.job.chunks.filter(which, status=ChunkStatus.FAILED).order_by("index")
        chunks = list(failed.only("job_id", "index", "error_code", "error_recoverable"))
        if not chunks:
            return []
        fresh = {"deadline": from_now(DEADLINE), "delay_reason": ""}
        change.move_job(JobStatus.IN_PROGRESS, EventType.JOB_RETRIED, **fresh)
        Transcript.objects.filter(pk=job_id).delete()
        for chunk in chunks:
            _revive(change, chunk.index, by_schedule=by_schedule)
        assert change.stamp is not None  # noqa: S101  (it was moved)
        written = partial(cache.write_pages_through, change.job, change.stamp)
        transaction.on_commit(written, robust=True)
        return chunks


def _revive(change: JobChange, index: int, *, by_schedule: bool) -> None:
    """Let a failed chunk wait for its turn as if it had never been tried, but for `attempts`."""
    patience = timedelta(0) if by_schedule else MESSAGE_PATIENCE
    change.move_chunk(
        index,
        ChunkStatus.PENDING,
        EventType.CHUNK_PENDING,
        errors=0,
        crashes=0,
        redrives=F("redrives") + int(by_schedule),
        not_before=Now(),
        resend_time=from_now(patience),
        dispatches=0,
        ended_time=None,
        duration_seconds=None,
        error_code="",
        error_detail="",
        error_recoverable=None,
    )


def delete(job_id: UUID) -> None:
    """Erase a job in any state: rows, transcript, cache entry and the files it uploaded.

    Nobody is told of it any more.

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
        WebhookDelivery.objects.filter(job_id=job_id).delete()
        transaction.on_commit(partial(cache.forget_job, job_id, job.sequence), robust=True)
        transaction.on_commit(partial(_remove_unnamed, uploads), robust=True)


def _remove_unnamed(uploads: set[str]) -> None:
    """Looks after the commit: of two jobs deleted side by side the later one finds no other."""
    named = Chunk.objects.filter(audio_path__in=uploads).values_list("audio_path", flat=True)
    storage.remove_uploads(uploads - set(named))
