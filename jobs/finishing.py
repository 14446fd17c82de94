"""The end of a job: when all its chunks have ended, their texts become one transcript."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from asr.stitch import Part, Stitched, stitch
from asr.types import mean_confidence
from jobs import cache, text_search, webhooks
from jobs.models import (
    ENDED_CHUNK,
    Chunk,
    ChunkStatus,
    Edits,
    EventType,
    Job,
    JobChange,
    JobGoneError,
    JobStatus,
    Recording,
    Transcript,
    after_commit,
    changing,
    common_language,
    edits_of,
)


def finish_job(job_id: UUID) -> bool:
    """End the job if all its chunks have ended; True for the one caller that ended it."""
    try:
        with changing(job_id) as change:
            if change.job.status != JobStatus.IN_PROGRESS:
                return False
            chunks = list(change.job.chunks.order_by("index"))
            if any(chunk.status not in ENDED_CHUNK for chunk in chunks):
                return False
            if not chunks and Recording.objects.uncut().filter(pk=job_id).exists():
                return False
            if all(chunk.status == ChunkStatus.COMPLETED for chunk in chunks):
                return end_job(change, JobStatus.COMPLETED, EventType.JOB_COMPLETED, chunks)
            return end_job(change, JobStatus.FAILED, EventType.JOB_FAILED, chunks)
    except JobGoneError:
        return False


def finish_job_if_due(job_id: UUID) -> bool:
    """The same for callers who mostly come when it has been done: nothing is locked then."""
    due = Job.objects.all_chunks_ended().filter(pk=job_id)
    return due.exists() and finish_job(job_id)


def end_job(change: JobChange, to: JobStatus, event: EventType, chunks: Iterable[Chunk]) -> bool:
    """Move the job to its end and keep its transcript, in the caller's transaction."""
    if not change.move_job(to, event):
        return False
    chunks, edits = list(chunks), edits_of(change.job)
    transcript = keep_transcript(change.job, chunks, edits)
    after_commit(cache.write_job_through, change, chunks, transcript, set(edits.texts))
    webhooks.announce(change, to)
    return True


def keep_transcript(job: Job, chunks: Sequence[Chunk], edits: Edits) -> Transcript:
    """Store the transcript of what was recognised and edited, in place of the one before.

    This is the one way in which a transcript comes about. The job is locked.
    """
    stitched = stitch(parts_of(chunks, edits), edits.speakers)
    spoken = ((chunk.language, chunk.duration_seconds) for chunk in chunks)
    columns = {
        "text": stitched.text,
        "segments": stitched.segments,
        "gaps": _gaps_to_json(stitched),
        "language": common_language(spoken),
        "confidence": mean_confidence(stitched.segments),
        "duration_seconds": stitched.duration_seconds,
        "speakers": stitched.speakers,
    }
    transcript = Transcript(job=job, **columns)
    Transcript.objects.bulk_create(
        [transcript], update_conflicts=True, unique_fields=["job"], update_fields=list(columns)
    )
    text_search.keep(job, transcript)
    return transcript


def parts_of(chunks: Iterable[Chunk], edits: Edits) -> list[Part]:
    """The chunks as the stitcher wants them."""
    return [replace(_part_of(chunk), edited_text=edits.texts.get(chunk.index)) for chunk in chunks]


def _part_of(chunk: Chunk) -> Part:
    if chunk.status == ChunkStatus.COMPLETED:
        return Part(
            index=chunk.index,
            duration_seconds=chunk.duration_seconds,
            text=chunk.text,
            segments=chunk.segments,
        )
    return Part(
        index=chunk.index,
        duration_seconds=chunk.duration_seconds,
        gap_code=chunk.error_code if chunk.status == ChunkStatus.FAILED else "cancelled",
    )


def _gaps_to_json(stitched: Stitched) -> list[dict[str, Any]]:
    return [
        {
            "index": gap.index,
            "startTime": gap.start_time,
            "durationSeconds": gap.duration_seconds,
            "code": gap.code,
        }
        for gap in stitched.gaps
    ]
