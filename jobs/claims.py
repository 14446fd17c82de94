"""Claims: a worker's right to one chunk, and its good end, the result.

The other ends are an error and the giving back (`setbacks`), and that the worker died (`sweeper`).
Whatever is written is fenced by the claim's token: a worker that was taken for dead writes nothing.
Claims and results are written in groups (`group_commit`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from django.conf import settings
from django.db.models import F, Q
from django.db.models.functions import Now

from asr.types import Recognition, segments_to_json
from jobs import liveness, quarantine
from jobs.attempts import Attempt, Claim
from jobs.group_commit import GroupCommit
from jobs.models import (
    ENDED_CHUNK,
    CallOutcome,
    Chunk,
    EngineCall,
    EventType,
    JobChange,
    JobStatus,
    changing_all,
    complete_chunks,
    count_deduplicated,
    from_now,
    start_chunks,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Wish:
    job_id: UUID
    index: int
    engine: str | None
    probe: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class _Result:
    attempt: Attempt
    recognition: Recognition


def claim_chunk(
    job_id: UUID, index: int, engine: str | None = None, *, probe: bool = False
) -> Claim | None:
    """Take a due chunk; None when it is not due, not there, or somebody else's.

    Args:
        engine: who is to recognise it; None for the engine that the job was submitted for.
        probe: the engine was down and may still be: the job is no less delayed for that.
    """
    return _claims(_Wish(job_id=job_id, index=index, engine=engine, probe=probe))


def record_result(attempt: Attempt, recognition: Recognition) -> bool:
    """Write what was recognised; False when the claim was over and nothing was written.

    `attempt.is_last` tells after that whether the job waits for nothing else.
    """
    return _results(_Result(attempt=attempt, recognition=recognition))


def _claim_all(wishes: Sequence[_Wish]) -> list[Claim | None]:
    worker_id, token = liveness.start().registered(), uuid4()
    first = {(wish.job_id, wish.index): wish for wish in reversed(wishes)}
    wanted: dict[UUID, list[int]] = {}
    with changing_all({wish.job_id for wish in wishes}) as changes:
        for job_id, index in first:
            if job_id in changes and changes[job_id].job.status == JobStatus.IN_PROGRESS:
                wanted.setdefault(job_id, []).append(index)
        taken = start_chunks(
            changes,
            wanted,
            Q(crashes__lt=quarantine.SUSPECT_CRASHES) if quarantine.is_occupied() else Q(),
            attempts=F("attempts") + 1,
            lease_token=token,
            lease_expires_time=from_now(timedelta(seconds=settings.LEASE_SECONDS)),
            worker_id=worker_id,
            started_time=Now(),
            dispatches=0,
            recognition_key="",  # known again when the file has been opened
        )
        claims = {
            (chunk.job_id, chunk.index): _claimed(
                changes[chunk.job_id], chunk, first[chunk.job_id, chunk.index], token
            )
            for chunk in taken
        }
    # Of equal wishes (a message that was delivered twice) one gets the claim.
    return [claims.pop((wish.job_id, wish.index), None) for wish in wishes]


def _claimed(change: JobChange, chunk: Chunk, wish: _Wish, token: UUID) -> Claim:
    job = change.job
    engine = wish.engine or job.engine
    change.record(EventType.CHUNK_STARTED, index=chunk.index, engine=engine)
    if not wish.probe:
        change.delay("")
    return Claim(
        chunk_id=chunk.pk,
        job_id=job.pk,
        index=chunk.index,
        user_id=job.user_id,
        token=token,
        audio_path=chunk.audio_path,
        crashes=chunk.crashes,
        engine=engine,
        own_engine=job.engine,
        probe=wish.probe,
        language=job.language,
        vocabulary=tuple(job.vocabulary),
        diarize=job.diarize,
    )


def _record_all(results: Sequence[_Result]) -> list[bool]:
    job_ids = {result.attempt.claim.job_id for result in results}
    with changing_all(job_ids) as changes:
        _close_answered(results)  # whether or not the claims still hold: the calls were made
        held = claims_held(result.attempt.claim for result in results)
        written = [result for result in results if result.attempt.claim.ticket in held]
        if written:
            complete_chunks(_RESULT, {r.attempt.claim.chunk_id: _values(r) for r in written})
        for result in written:
            _tell_completed(changes[result.attempt.claim.job_id], result)
        unfinished = Chunk.objects.filter(job_id__in=job_ids).exclude(status__in=ENDED_CHUNK)
        under_way = set(unfinished.values_list("job_id", flat=True).order_by().distinct())
        count_deduplicated([_known(result) for result in written if result.attempt.deduplicated])
    last = {result.attempt.claim.job_id: result for result in results}
    for result in results:
        job_id = result.attempt.claim.job_id
        result.attempt.is_last = result is last[job_id] and job_id not in under_way
        if result not in written:
            logger.info("Chunk %s[%d]: the claim was over", job_id, result.attempt.claim.index)
    return [result in written for result in results]


def _known(result: _Result) -> tuple[str, str, float]:
    claim = result.attempt.claim
    return claim.user_id, claim.engine, result.attempt.known_info.duration_seconds


def claims_held(claims: Iterable[Claim]) -> set[tuple[int, UUID | None]]:
    """The claims that still hold; for a change that has locked their jobs."""
    rows = Chunk.objects.in_progress().filter(pk__in={claim.chunk_id for claim in claims})
    return set(rows.order_by().values_list("pk", "lease_token"))


def _close_answered(results: Sequence[_Result]) -> None:
    """One statement for all calls of whose use the vendor said nothing."""
    made = [result for result in results if result.attempt.call_id is not None]
    for usage in {result.recognition.usage for result in made}:
        calls = [r.attempt.call_id or 0 for r in made if r.recognition.usage == usage]
        EngineCall.objects.filter(pk__in=calls).close(CallOutcome.ANSWERED, usage=usage)


_RESULT: Final = (
    *("text", "segments", "engine", "model", "language", "language_confidence", "confidence"),
    *("deduplicated", "error_code", "error_detail", "error_recoverable"),
    *("processing_seconds", "duration_seconds"),
)


def _values(result: _Result) -> list[Any]:
    """What is written of a result, in the order of `_RESULT`."""
    heard, attempt = result.recognition, result.attempt
    return [
        *(heard.text, segments_to_json(heard.segments), heard.engine, heard.model, heard.language),
        *(heard.language_confidence, heard.confidence, attempt.deduplicated, "", "", None),
        *(attempt.measured["processing_seconds"], attempt.known_info.duration_seconds),
    ]


def _tell_completed(change: JobChange, result: _Result) -> None:
    claim = result.attempt.claim
    text = result.recognition.text
    change.record(EventType.CHUNK_COMPLETED, index=claim.index, text=text)
    if claim.probe:
        change.delay("")  # the engine is back


_claims = GroupCommit(_claim_all)
_results = GroupCommit(_record_all)
