"""The way of one chunk: claim it, recognise it, write the result; then finish the job.

Nothing here knows HTTP or Dramatiq. Every function may be called at any time, by anyone, any
number of times: the conditional moves of `JobChange` let one caller through.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db import DataError, transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone

from asr.audio import MIN_RECOGNISABLE_SECONDS, inspect
from asr.errors import AsrError, EngineUnavailable
from asr.stitch import Part, Stitched, stitch
from asr.types import (
    AudioInfo,
    AudioRequest,
    Recognition,
    segments_from_json,
    segments_to_json,
)
from jobs import cache, engines, liveness, storage
from jobs.database import insist, release_connection
from jobs.interruption import Stopping, interruptible
from jobs.models import (
    ENDED_CHUNK,
    MAX_ERRORS,
    MESSAGE_PATIENCE,
    Chunk,
    ChunkStatus,
    EventType,
    JobChange,
    JobGoneError,
    JobStatus,
    Transcript,
    changing,
    from_now,
)
from jobs.results import iso_time

RETRY_BASE_SECONDS = 2.0  # the waits between attempts: 2, 4, 8 s, each up to a quarter longer
LONGEST_WAIT_SECONDS = 3600.0  # whatever an engine asks for

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to write one chunk's result, until the lease runs out."""

    job_id: UUID
    index: int
    token: UUID
    audio_path: str
    engine: str
    language: str | None
    vocabulary: tuple[str, ...]
    diarize: bool


@dataclass(kw_only=True)
class Attempt:
    """What is known of a chunk so far, also when the attempt fails half-way."""

    claim: Claim
    started: float = field(default_factory=time.monotonic)
    info: AudioInfo | None = None
    recognition: Recognition | None = None

    @property
    def remaining_seconds(self) -> float:
        """Of the deadline, which covers decoding and recognising: the lease outlives both."""
        return settings.ENGINE_DEADLINE_SECONDS - (time.monotonic() - self.started)

    @property
    def measured(self) -> dict[str, float]:
        seconds = {"processing_seconds": time.monotonic() - self.started}
        if self.info is not None:
            seconds["duration_seconds"] = self.info.duration_seconds
        return seconds


def transcribe(job_id: UUID, index: int) -> float | None:
    """Transcribe one chunk, if it is due and nobody else has it.

    Returns:
        Seconds after which the chunk is due again; None when there is nothing more to do.

    Raises:
        Stopping: the process is to stop; the claim was given back at no cost.
    """
    claim = claim_chunk(job_id, index)
    if claim is None:
        return None
    release_connection()
    attempt = Attempt(claim=claim)
    try:
        delay = _try(attempt)
    except Stopping:
        insist(partial(settle, attempt))
        raise
    if delay is None:
        insist(partial(finish_job, job_id))
    return delay


def _try(attempt: Attempt) -> float | None:
    """Recognise and write down what came of it; seconds until the next attempt, or None."""
    try:
        with interruptible():
            attempt.recognition = recognise(attempt)
    except AsrError as error:
        return insist(partial(record_error, attempt, error))
    except Exception:
        logger.exception("Chunk %s[%d]: unexpected", attempt.claim.job_id, attempt.claim.index)
        fault = EngineUnavailable("engine_error", "an unexpected error in the service")
        return insist(partial(record_error, attempt, fault))
    try:
        insist(partial(record_result, attempt, attempt.recognition))
    except (ValueError, DataError):
        logger.exception("Chunk %s[%d]: not storable", attempt.claim.job_id, attempt.claim.index)
        fault = EngineUnavailable("engine_bad_response", "the engine's answer cannot be stored")
        return insist(partial(record_error, attempt, fault))
    return None


def settle(attempt: Attempt) -> None:
    """End an interrupted attempt: its result is kept if there is one."""
    if attempt.recognition is None:
        give_back(attempt.claim)
    else:
        record_result(attempt, attempt.recognition)


def claim_chunk(job_id: UUID, index: int) -> Claim | None:
    """Take a due chunk; None when it is not due, not there, or somebody else's."""
    worker_id = liveness.start().registered()
    token = uuid4()
    try:
        with changing(job_id) as change:
            if change.job.status != JobStatus.IN_PROGRESS:
                return None
            taken = change.move_chunk(
                index,
                ChunkStatus.IN_PROGRESS,
                EventType.CHUNK_STARTED,
                where=Q(not_before__lte=Now()),
                attempts=F("attempts") + 1,
                lease_token=token,
                lease_expires_time=from_now(timedelta(seconds=settings.LEASE_SECONDS)),
                worker_id=worker_id,
                started_time=Now(),
                dispatches=0,
            )
            if not taken:
                return None
            change.delay("")
            job = change.job
            path = Chunk.objects.values_list("audio_path", flat=True).get(job=job, index=index)
    except JobGoneError:
        return None
    return Claim(
        job_id=job_id,
        index=index,
        token=token,
        audio_path=path,
        engine=job.engine,
        language=job.language,
        vocabulary=tuple(job.vocabulary),
        diarize=job.diarize,
    )


def recognise(attempt: Attempt) -> Recognition:
    """Read, check and recognise; no database connection is held meanwhile.

    Raises:
        AsrError: recoverable or not, as its class says.
    """
    claim = attempt.claim
    data = storage.read_audio(claim.audio_path)
    attempt.info = inspect(
        engines.child_pool(),
        data,
        max_seconds=settings.AUDIO_MAX_SECONDS,
        limit=attempt.remaining_seconds,
    )
    engine = engines.get(claim.engine)
    if attempt.info.duration_seconds < MIN_RECOGNISABLE_SECONDS:
        return Recognition(segments=(), engine=claim.engine, model="")
    return engine.transcribe(
        AudioRequest(
            data=data,
            info=attempt.info,
            language=claim.language,
            vocabulary=claim.vocabulary,
            diarize=claim.diarize,
            deadline_seconds=attempt.remaining_seconds,
        )
    )


def record_result(attempt: Attempt, recognition: Recognition) -> bool:
    """Write what was recognised; False when the claim was over and nothing was written."""
    claim = attempt.claim
    return _end_claim(
        claim,
        ChunkStatus.COMPLETED,
        EventType.CHUNK_COMPLETED,
        {"text": recognition.text},
        ended_time=Now(),
        text=recognition.text,
        segments=segments_to_json(recognition.segments),
        engine=recognition.engine,
        model=recognition.model,
        language=recognition.language,
        confidence=recognition.confidence,
        error_code="",
        error_detail="",
        error_recoverable=None,
        **attempt.measured,
    )


def record_error(attempt: Attempt, error: AsrError) -> float | None:
    """Write why the attempt failed, and whether there is to be another.

    A wait that the engine asked for (429 with Retry-After) costs no attempt.

    Returns:
        Seconds after which the chunk is due again; None when it failed for good or the claim
        was over.
    """
    claim = attempt.claim
    asked_to_wait: float | None = getattr(error, "retry_after", None)
    columns: dict[str, Any] = {
        "error_code": error.code,
        "error_detail": error.detail[:500],
        "error_recoverable": error.recoverable,
        **attempt.measured,
    }
    cause = {"error": {"code": error.code, "detail": error.detail[:500]}}
    errors = (
        Chunk.objects.values_list("errors", flat=True)
        .filter(job_id=claim.job_id, index=claim.index, lease_token=claim.token)
        .first()
    )
    if errors is None:
        return None
    if asked_to_wait is None:
        errors += 1
    else:
        columns["attempts"] = F("attempts") - 1
    columns["errors"] = errors
    if not error.recoverable or errors >= MAX_ERRORS:
        _end_claim(
            claim, ChunkStatus.FAILED, EventType.CHUNK_FAILED, cause, ended_time=Now(), **columns
        )
        return None
    if asked_to_wait is None:
        delay = backoff(errors)
    else:
        delay = min(max(asked_to_wait, RETRY_BASE_SECONDS), LONGEST_WAIT_SECONDS)
    wait = timedelta(seconds=delay)
    # The message comes back by itself when the wait is over.
    written = _end_claim(
        claim,
        ChunkStatus.PENDING,
        EventType.CHUNK_PENDING,
        {"notBefore": iso_time(timezone.now() + wait), **cause},
        not_before=from_now(wait),
        resend_time=from_now(wait + MESSAGE_PATIENCE),
        **columns,
    )
    return delay if written else None


def give_back(claim: Claim) -> bool:
    """Undo the claim as if it had not been: somebody else is to take the chunk at once."""
    return _end_claim(
        claim,
        ChunkStatus.PENDING,
        EventType.CHUNK_PENDING,
        {"notBefore": iso_time(timezone.now())},
        attempts=F("attempts") - 1,
        not_before=Now(),
        resend_time=Now(),
    )


def finish_job(job_id: UUID) -> bool:
    """End the job if all its chunks have ended; True for the one caller that ended it."""
    try:
        with changing(job_id) as change:
            if change.job.status != JobStatus.IN_PROGRESS:
                return False
            if change.job.chunks.exclude(status__in=ENDED_CHUNK).exists():
                return False
            chunks = list(change.job.chunks.order_by("index"))
            if all(chunk.status == ChunkStatus.COMPLETED for chunk in chunks):
                return end_job(change, JobStatus.COMPLETED, EventType.JOB_COMPLETED, chunks)
            return end_job(change, JobStatus.FAILED, EventType.JOB_FAILED, chunks)
    except JobGoneError:
        return False


def end_job(change: JobChange, to: JobStatus, event: EventType, chunks: Iterable[Chunk]) -> bool:
    """Move the job to its end and keep its transcript, in the caller's transaction."""
    if not change.move_job(to, event):
        return False
    chunks = list(chunks)
    stitched = stitch(part_of(chunk) for chunk in chunks)
    Transcript.objects.update_or_create(
        job_id=change.job.pk,
        defaults={
            "text": stitched.text,
            "segments": segments_to_json(stitched.segments),
            "gaps": _gaps_to_json(stitched),
            "language": _common_language(chunks),
            "duration_seconds": stitched.duration_seconds,
        },
    )
    transaction.on_commit(partial(cache.write_job_through, change.job.pk), robust=True)
    return True


def part_of(chunk: Chunk) -> Part:
    """The chunk as the stitcher wants it."""
    if chunk.status == ChunkStatus.COMPLETED:
        return Part(
            index=chunk.index,
            duration_seconds=chunk.duration_seconds,
            text=chunk.text,
            segments=segments_from_json(chunk.segments),
        )
    return Part(
        index=chunk.index,
        duration_seconds=chunk.duration_seconds,
        gap_code=chunk.error_code if chunk.status == ChunkStatus.FAILED else "cancelled",
    )


def backoff(errors: int) -> float:
    """Seconds to wait after the n-th error: exponential, with jitter so that crowds part."""
    return RETRY_BASE_SECONDS * 2.0 ** (errors - 1) * random.uniform(1.0, 1.25)  # noqa: S311


def _end_claim(
    claim: Claim, to: ChunkStatus, event: EventType, data: dict[str, Any], **columns: Any
) -> bool:
    """Move a claimed chunk on, if the claim still holds."""
    try:
        with changing(claim.job_id) as change:
            written = change.move_chunk(
                claim.index, to, event, data, where=Q(lease_token=claim.token), **columns
            )
    except JobGoneError:
        written = False
    if not written:
        logger.info("Chunk %s[%d]: the claim was over", claim.job_id, claim.index)
    return written


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


def _common_language(chunks: Iterable[Chunk]) -> str | None:
    """The language of most of the recognised time; None when no engine named one."""
    seconds: dict[str, float] = {}
    for chunk in chunks:
        if chunk.language:
            seconds[chunk.language] = seconds.get(chunk.language, 0) + (chunk.duration_seconds or 0)
    return max(seconds, key=lambda language: seconds[language], default=None)
