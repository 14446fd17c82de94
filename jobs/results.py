"""The TranscriptResult: what a caller reads of a job, in whatever state it is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final
from uuid import UUID

from asr.stitch import start_times
from jobs.models import ENDED_CHUNK, Chunk, Job, RevisedText, Transcript, iso_time

SNAPSHOT_TRIES: Final = 4
_SECONDS: Final = {"startTime", "durationSeconds", "processingSeconds", "start", "end"}


def load_results(job_ids: Iterable[UUID]) -> dict[UUID, dict[str, Any]]:
    """TranscriptResults by job id, in three queries for any number of jobs, or four.

    A job that was retried between the queries has ended in one and lost its transcript in
    another: it is read again.
    """
    results = _read(list(job_ids))
    torn = [job_id for job_id, result in results.items() if _is_torn(result)]
    return results | _read(torn) if torn else results


def load_snapshots(job_ids: Iterable[UUID]) -> dict[UUID, tuple[int, dict[str, Any]]]:
    """By job id, the number of its latest event and the TranscriptResult of that very moment.

    A job that changes while it is read is read again. One that changes all the time comes with the
    number from before: what is told of it later may show already, and nothing is missing.
    """
    found: dict[UUID, tuple[int, dict[str, Any]]] = {}
    moving = list(job_ids)
    for _ in range(SNAPSHOT_TRIES):
        numbers = _numbers(moving)
        results = load_results(numbers)
        found |= {job_id: (numbers[job_id], result) for job_id, result in results.items()}
        after = _numbers(moving)
        for job_id in set(moving) - after.keys():  # gone meanwhile
            found.pop(job_id, None)
        moving = [job_id for job_id, number in after.items() if number != numbers.get(job_id)]
        if not moving:
            break
    return found


def _numbers(job_ids: list[UUID]) -> dict[UUID, int]:
    return dict(Job.objects.filter(pk__in=job_ids).values_list("pk", "sequence"))


def _is_torn(result: dict[str, Any]) -> bool:
    return result["completedTime"] is not None and result["transcription"] is None


def _read(job_ids: list[UUID]) -> dict[UUID, dict[str, Any]]:
    jobs = Job.objects.in_bulk(job_ids)
    chunks: dict[UUID, list[Chunk]] = {job_id: [] for job_id in jobs}
    for chunk in Chunk.objects.without_words().filter(job_id__in=jobs).order_by("job_id", "index"):
        chunks[chunk.job_id].append(chunk)
    ended = [job_id for job_id, job in jobs.items() if job.ended]
    transcripts = Transcript.objects.defer("segments").in_bulk(ended) if ended else {}
    edited = _edited(job_id for job_id, job in jobs.items() if job.revision)
    return {
        job_id: transcript_result(
            job, chunks[job_id], transcripts.get(job_id), edited.get(job_id, ())
        )
        for job_id, job in jobs.items()
    }


def _edited(job_ids: Iterable[UUID]) -> dict[UUID, set[int]]:
    """By job the chunks whose text is a person's."""
    edited: dict[UUID, set[int]] = {job_id: set() for job_id in job_ids}
    texts = RevisedText.objects.current().filter(job__in=edited).order_by()
    for job_id, index in texts.values_list("job_id", "index") if edited else ():
        edited[job_id].add(index)
    return edited


def transcript_result(
    job: Job,
    chunks: Sequence[Chunk],
    transcript: Transcript | None,
    edited: Collection[int],
) -> dict[str, Any]:
    """The JSON-able TranscriptResult of one job; its times are those of `in_milliseconds`.

    Args:
        chunks: in order of their index.
        edited: the indexes of those whose text a person has changed.
    """
    starts = start_times(
        [chunk.duration_seconds for chunk in chunks],
        [chunk.status in ENDED_CHUNK for chunk in chunks],
    )
    result = {
        "jobId": str(job.pk),
        "userId": job.user_id,
        "title": job.title or None,
        "jobStatus": str(job.status),
        "submittedTime": iso_time(job.submitted_time),
        "completedTime": iso_time(job.completed_time) if job.completed_time else None,
        "delayed": bool(job.delay_reason) and not job.ended,
        "delayReason": (job.delay_reason or None) if not job.ended else None,
        "chunks": [
            _chunk_result(chunk, start) | {"edited": chunk.index in edited}
            for chunk, start in zip(chunks, starts, strict=True)
        ],
        "revision": job.revision,
        "language": transcript.language if transcript else None,
        "confidence": transcript.confidence if transcript else None,
        "durationSeconds": transcript.duration_seconds if transcript else None,
        "transcription": transcript.text if transcript else None,
        "gaps": transcript.gaps if transcript else [],
    }
    shown: dict[str, Any] = in_milliseconds(result)
    return shown


def in_milliseconds(shown: Any) -> Any:
    """The same JSON-able value, with all seconds in it rounded as callers see them.

    Rows keep every digit: sums of what was rounded would drift.
    """
    if isinstance(shown, list):
        return [in_milliseconds(each) for each in shown]
    if not isinstance(shown, dict):
        return shown
    return {
        name: round(value, 3) if name in _SECONDS and value is not None else in_milliseconds(value)
        for name, value in shown.items()
    }


def _chunk_result(chunk: Chunk, start: float | None) -> dict[str, Any]:
    return {
        "index": chunk.index,
        "audioChunkPath": chunk.audio_path,
        "status": str(chunk.status),
        "attempts": chunk.attempts,
        "startTime": start,
        "durationSeconds": chunk.duration_seconds,
        "processingSeconds": chunk.processing_seconds,
        "language": chunk.language,
        "languageConfidence": chunk.language_confidence,
        "confidence": chunk.confidence,
        "engine": chunk.engine or None,
        "deduplicated": chunk.deduplicated,
        "error": {
            "code": chunk.error_code,
            "detail": chunk.error_detail,
            "recoverable": bool(chunk.error_recoverable),
        }
        if chunk.error_code
        else None,
    }
