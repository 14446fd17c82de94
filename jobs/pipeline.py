"""The way of one chunk: claim it, recognise it, write the result; then finish the job.

Nothing here knows HTTP or Dramatiq. Every function may be called at any time, by anyone, any
number of times: the conditional moves of `JobChange` let one caller through.
"""

from __future__ import annotations

import logging
from functools import partial
from uuid import UUID

from django.conf import settings
from django.db import DataError

from asr.audio import MIN_RECOGNISABLE_SECONDS, inspect
from asr.errors import AsrError, EngineMisconfigured, EngineUnavailable
from asr.service import TranscriptionService
from asr.types import AudioRequest, Recognition
from jobs import breakers, engines, storage
from jobs.claims import (
    Again,
    Attempt,
    after_window,
    claim_chunk,
    give_back,
    postpone,
    record_error,
    record_result,
)
from jobs.database import insist, release_connection
from jobs.finishing import finish_job
from jobs.interruption import Stopping, interruptible
from jobs.models import Job

logger = logging.getLogger(__name__)


def transcribe(job_id: UUID, index: int, engine: str | None = None) -> Again | None:
    """Transcribe one chunk, if it is due and nobody else has it.

    Args:
        engine: who is to recognise it; None for the engine that the job was submitted for.

    Returns:
        When the chunk is due again; None when there is nothing more to do.

    Raises:
        Stopping: the process is to stop; the claim was given back at no cost.
    """
    engine = engine or Job.objects.values_list("engine", flat=True).filter(pk=job_id).first()
    if engine is None:
        return None
    release_connection()
    with breakers.admit(engine) as call:
        if not call.admitted:
            return _without(engine, job_id, index, call.wait_seconds)
        claim = claim_chunk(job_id, index, engine, probe=bool(call.probe))
        if claim is None:
            return None
        release_connection()
        return _work(Attempt(claim=claim, call=call))


def _work(attempt: Attempt) -> Again | None:
    try:
        again = _try(attempt)
    except Stopping:
        insist(partial(settle, attempt))
        raise
    if again is None:
        insist(partial(finish_job, attempt.claim.job_id))
    return again


def _try(attempt: Attempt) -> Again | None:
    """Recognise and write down what came of it."""
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
    request = AudioRequest(
        data=data,
        info=attempt.info,
        language=claim.language,
        vocabulary=claim.vocabulary,
        diarize=claim.diarize,
        deadline_seconds=attempt.remaining_seconds,
    )
    return _ask(engine, request, attempt)


def _ask(engine: TranscriptionService, request: AudioRequest, attempt: Attempt) -> Recognition:
    """Call the engine, and tell its breaker how that went."""
    try:
        recognition = engine.transcribe(request)
    except EngineUnavailable as error:
        if error.retry_after is None:
            attempt.call.failed()
        else:
            attempt.call.succeeded()  # busy is not down
        raise
    except EngineMisconfigured as error:
        attempt.call.succeeded()
        if attempt.claim.stands_in:  # what its stand-in lacks is not held against the chunk
            raise EngineUnavailable("engine_error", error.detail) from None
        raise
    except AsrError:
        attempt.call.succeeded()
        raise
    attempt.call.succeeded()
    return recognition


def _without(engine: str, job_id: UUID, index: int, seconds: float) -> Again | None:
    """The engine is down: go to one that stands in, or wait without spending an attempt."""
    job = Job.objects.in_progress().filter(pk=job_id).first()
    if job is None:
        return None
    for name in (job.engine, *settings.ASR_FALLBACK):
        if name != engine and _suits(name, job) and breakers.would_admit(name):
            return Again(seconds=0.0, engine=name)
    return postpone(job_id, index, Again(seconds=after_window(seconds), engine=job.engine))


def _suits(name: str, job: Job) -> bool:
    """Whether the engine is configured and can honour what the job asks for."""
    try:
        engine = engines.get(name)
    except EngineMisconfigured:
        return False
    asked = {"language": job.language, "vocabulary": job.vocabulary, "diarize": job.diarize}
    return engine.refusal(**asked) is None
