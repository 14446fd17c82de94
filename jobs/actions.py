"""What may be done to a job from outside: cancel, retry, delete."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.db.models import F, Q
from django.db.models.functions import Now

from jobs import cache, upload_removal
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
    JobGoneError,
    JobStatus,
    Recording,
    Transcript,
    UserIndexStamp,
    WebhookDelivery,
    after_commit,
    changing,
    changing_all,
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
        chunks = list(
            failed.only("job_id", "index", "audio_path", "error_code", "error_recoverable")
        )
        if not chunks:
            return []
        uncut = Recording.objects.filter(pk=job_id, audio_path__in=[c.audio_path for c in chunks])
        fresh = {"deadline": from_now(DEADLINE), "delay_reason": ""}
        change.move_job(JobStatus.IN_PROGRESS, EventType.JOB_RETRIED, **fresh)
        Transcript.objects.filter(pk=job_id).delete()
        if uncut.exists():  # its one chunk only said why there were none
            change.job.chunks.all().delete()
            uncut.update(cut_time=None, attempts=0, not_before=Now(), resend_time=Now())
        else:
            for chunk in chunks:
                _revive(change, chunk.index, by_schedule=by_schedule)
        assert change.stamp is not None  # noqa: S101  (it was moved)
        after_commit(cache.write_pages_through, change.job, change.stamp)
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
        user_id=change.job.user_id,  # a chunk may be older than these columns
        asked_engine=change.job.engine,
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
    if not delete_all([job_id])["jobs"]:
        raise JobGoneError(str(job_id))


def delete_all(job_ids: Collection[UUID]) -> Counter[str]:
    """The same for many jobs, in one transaction; those that are gone are left out.

    A worker in the middle of one of their chunks finds its claim over and writes nothing.

    Returns:
        What was removed: `jobs`, `chunks`, `transcripts`, `searchTexts`, `revisions`,
            `revisedTexts`, `ratings`, `mistakeReports`, `events`, `indexEntries`,
            `webhookDeliveries`, `audioFiles`.
    """
    removed = Counter[str]()
    with changing_all(job_ids) as changes:
        jobs = [change.job for change in changes.values()]
        brought = Chunk.objects.filter(uploaded=True, job_id__in=changes).order_by()
        owners = dict(brought.values_list("audio_path", "job__user_id"))
        long = Recording.objects.filter(uploaded=True, job_id__in=changes)
        owners |= dict(long.values_list("audio_path", "job__user_id"))
        upload_removal.give_up(owners)
        ErasedJob.objects.bulk_create(ErasedJob(job_id=job.pk, user_id=job.user_id) for job in jobs)
        told = WebhookDelivery.objects.filter(job_id__in=changes)
        for doomed in (told, Job.objects.filter(pk__in=changes)):
            rows = doomed.delete()[1]
            removed.update({name: rows.get(model, 0) for name, model in _REMOVED.items()})
        # Last, and in order: every submission of a user waits for the one that holds this row.
        for user_id in sorted({job.user_id for job in jobs}):
            UserIndexStamp.renew(user_id)
        after_commit(cache.forget_jobs, {job.pk: job.sequence for job in jobs})
        # After the commit: of two jobs deleted side by side the later one finds no other.
        after_commit(_remove_files, sorted(owners), removed)
    return removed


_REMOVED: Final = {
    "jobs": "jobs.Job",
    "chunks": "jobs.Chunk",
    "transcripts": "jobs.Transcript",
    "searchTexts": "jobs.SearchText",
    "revisions": "jobs.Revision",
    "revisedTexts": "jobs.RevisedText",
    "ratings": "jobs.Rating",
    "mistakeReports": "jobs.MistakeReport",
    "events": "jobs.JobEvent",
    "indexEntries": "jobs.UserJobIndex",
    "webhookDeliveries": "jobs.WebhookDelivery",
}


def _remove_files(paths: list[str], removed: Counter[str]) -> None:
    removed["audioFiles"] += upload_removal.sweep(paths)
