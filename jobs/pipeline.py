"""The way of one chunk: claim it, recognise it, write the result; then finish the job.

Nothing here knows HTTP or Dramatiq. Every function may be called at any time, by anyone, any
number of times: the conditional moves of `JobChange` let one caller through.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import DataError, IntegrityError
from django.db.models import Exists

from asr.audio import MIN_RECOGNISABLE_SECONDS, inspect
from asr.errors import (
    AsrError,
    AudioRejected,
    ChildCrashed,
    ChildTimeout,
    EngineMisconfigured,
    EngineUnavailable,
)
from asr.types import AudioRequest, Capabilities, Recognition
from jobs import breakers, engines, previews, quarantine, recognitions, spending, storage
from jobs.attempts import Again, Attempt
from jobs.claims import claim_chunk, record_result
from jobs.database import insist, release_connection
from jobs.finishing import finish_job
from jobs.interruption import Stopping, interruptible
from jobs.models import Chunk, Job
from jobs.setbacks import after_window, give_back, look_again, postpone, record_error, soon

LATE_SECONDS: Final = 1.0  # until a chunk comes again whose time was over before a call

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
    if again := _wait_for_a_cap(engine, job_id):
        return postpone(job_id, index, again)
    with breakers.admit(engine) as call:
        if not call.admitted:
            return _without(engine, job_id, index, call.wait_seconds)
        claim = claim_chunk(job_id, index, engine, probe=bool(call.probe))
        release_connection()
        if claim is None:
            return look_again(job_id, index, engine)
        with quarantine.entered(claim.crashes) as may_go_on:
            if may_go_on:
                return _work(Attempt(claim=claim, call=call))
        again = soon(engine)
        return again if give_back(claim, again) else None


def _wait_for_a_cap(engine: str, job_id: UUID) -> Again | None:
    """When to come again, while a cap on spending is reached that a call would fall under."""
    if not engines.costs(engine) or not spending.is_capped():
        return None
    job = Job.objects.only("user_id", "engine").filter(pk=job_id).first()
    wait = None if job is None else spending.seconds_to_wait(job.user_id)
    release_connection()
    if job is None or wait is None:
        return None
    # Not as long for one that stands in: the chunk's own engine may be back before.
    seconds = wait if engine == job.engine else after_window(settings.BREAKER_SECONDS)
    return Again(seconds=seconds, engine=job.engine)


def _work(attempt: Attempt) -> Again | None:
    try:
        again = _try(attempt)
    except Stopping:
        insist(partial(settle, attempt))
        raise
    if again is None and attempt.is_last:
        insist(partial(finish_job, attempt.claim.job_id))
    return again


def _try(attempt: Attempt) -> Again | None:
    """Open the file, look whether its sound is known, ask, and write down what came of it."""
    error = _failure_of(_open, attempt)
    if error is None and attempt.recognition is None:
        try:
            again = insist(partial(recognitions.begin, attempt))
        except recognitions.ClaimOverError:
            return None
        if again is not None:
            return again
        release_connection()
        if attempt.recognition is None:
            error = _failure_of(_ask, attempt)
            _tell_breaker(attempt, error)
            if isinstance(error, EngineUnavailable) and error.retry_after is not None:
                insist(partial(recognitions.forget_call, attempt))
    if error is None:
        error = _keep(attempt)
    elif attempt.claim.stands_in:
        error = _not_held_against_the_chunk(error, asked=attempt.granted_seconds is not None)
    return None if error is None else insist(partial(record_error, attempt, error))


def _not_held_against_the_chunk(error: AsrError, *, asked: bool) -> AsrError:
    """What a stand-in lacks, or fails in: the chunk goes back to its own engine, at no cost.

    What went wrong before it was asked (the file, our decoder) would go wrong there as well.
    """
    if isinstance(error, EngineMisconfigured):
        return EngineUnavailable("engine_error", error.detail, retry_after=settings.BREAKER_SECONDS)
    if asked and isinstance(error, EngineUnavailable) and error.retry_after is None:
        lost, wait = error.answer_lost, settings.BREAKER_SECONDS
        return EngineUnavailable(error.code, error.detail, retry_after=wait, answer_lost=lost)
    return error


def _failure_of(step: Callable[[Attempt], None], attempt: Attempt) -> AsrError | None:
    """Take a step that waits and holds nothing; None when it went well.

    Raises:
        Stopping: the process is to stop.
    """
    try:
        with interruptible():
            step(attempt)
    except AsrError as error:
        return error
    except Exception:
        logger.exception("Chunk %s[%d]: unexpected", attempt.claim.job_id, attempt.claim.index)
        return EngineUnavailable("engine_error", "an unexpected error in the service")
    return None


def _open(attempt: Attempt) -> None:
    """Read and measure the file, and find its engine."""
    claim = attempt.claim
    attempt.data = storage.read_audio(claim.audio_path)
    attempt.info = inspect(
        engines.child_pool(),
        attempt.data,
        max_seconds=settings.AUDIO_MAX_SECONDS,
        limit=attempt.remaining_seconds,
    )
    attempt.engine = engines.get(claim.engine)
    if attempt.info.duration_seconds < MIN_RECOGNISABLE_SECONDS:
        attempt.recognition = Recognition(segments=(), engine=claim.engine, model="")
        return
    if not _is_within_limits(attempt.engine.capabilities, attempt):
        detail = f"the audio is longer or larger than the engine {claim.engine} takes"
        if claim.stands_in:
            raise EngineMisconfigured(detail)
        raise AudioRejected("audio_too_long", detail)


def _is_within_limits(can: Capabilities, attempt: Attempt) -> bool:
    within_length = attempt.known_info.duration_seconds <= (can.max_seconds or float("inf"))
    return within_length and len(attempt.data) <= (can.max_bytes or float("inf"))


def _ask(attempt: Attempt) -> None:
    """Call the engine.

    Raises:
        EngineUnavailable: the time was over before, as the database was away: at no cost.
    """
    claim = attempt.claim
    if attempt.remaining_seconds <= 0:
        detail = "the time was over before the engine could be asked"
        raise EngineUnavailable("engine_timeout", detail, retry_after=LATE_SECONDS)
    with previews.teller().telling(claim.job_id, claim.index) as hear:
        request = AudioRequest(
            data=attempt.data,
            info=attempt.known_info,
            language=claim.language,
            expected_language=attempt.expected_language,
            vocabulary=claim.vocabulary,
            diarize=claim.diarize,
            deadline_seconds=attempt.remaining_seconds,
            hear=hear,
        )
        attempt.granted_seconds = request.deadline_seconds
        attempt.recognition = attempt.known_engine.transcribe(request)


def _tell_breaker(attempt: Attempt, error: AsrError | None) -> None:
    """Say how the engine did. It talks to Redis, so never while it can be struck by a stop."""
    granted = attempt.granted_seconds
    if granted is None or isinstance(error, ChildTimeout | ChildCrashed):
        return  # the engine was not asked: it was the file, the storage or our decoder
    if isinstance(error, EngineMisconfigured) and attempt.claim.stands_in:
        attempt.call.failed()
    elif not isinstance(error, EngineUnavailable) or error.retry_after is not None:
        attempt.call.succeeded()  # it answered: busy is not down
    elif error.code != "engine_timeout" or granted > settings.ENGINE_DEADLINE_SECONDS / 2:
        attempt.call.failed()  # but what our decoding left no time for is not its fault


def _keep(attempt: Attempt) -> AsrError | None:
    """Write the result; why it cannot be, or None."""
    assert attempt.recognition is not None  # noqa: S101
    try:
        insist(partial(record_result, attempt, attempt.recognition))
    except (ValueError, OverflowError, DataError, IntegrityError):
        logger.exception("Chunk %s[%d]: not storable", attempt.claim.job_id, attempt.claim.index)
        return EngineUnavailable("engine_bad_response", "the engine's answer cannot be stored")
    return None


def settle(attempt: Attempt) -> None:
    """End an interrupted attempt: its result is kept if there is one."""
    if attempt.recognition is not None:
        record_result(attempt, attempt.recognition)
        return
    give_back(attempt.claim)
    if attempt.granted_seconds is None:  # nobody was asked
        recognitions.forget_call(attempt)


def _without(engine: str, job_id: UUID, index: int, seconds: float) -> Again | None:
    """The engine is down: go to one that stands in, or wait without spending an attempt."""
    waiting = Chunk.objects.due().filter(job_id=job_id, index=index)
    job = Job.objects.in_progress().filter(Exists(waiting), pk=job_id).first()
    release_connection()
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
