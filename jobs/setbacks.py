"""Setbacks: a claim that ends in an error or is given back, and chunks that wait."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import F, Q
from django.db.models.functions import Now

from asr.errors import AsrError, EngineUnavailable
from jobs.attempts import Again, Attempt, Claim
from jobs.models import (
    MAX_ERRORS,
    MESSAGE_PATIENCE,
    CallOutcome,
    Chunk,
    ChunkQuerySet,
    ChunkStatus,
    EngineCall,
    EventType,
    JobGoneError,
    JobStatus,
    changing,
    from_now,
)
from jobs.storage import AudioUnavailable

RETRY_BASE_SECONDS = 2.0  # the waits between attempts: 2, 4, 8 s, each up to a quarter longer
LONGEST_WAIT_SECONDS = 3600.0  # whatever an engine asks for
CHECK_AGAIN_SECONDS = (1.0, 2.0)  # how long a chunk waits for what another one does

logger = logging.getLogger(__name__)


def record_error(attempt: Attempt, error: AsrError) -> Again | None:
    """Write why the attempt failed, and whether there is to be another, by the job's own engine.

    A wait that the engine asked for (429 with Retry-After) costs no attempt, nor does trying
    whether an engine is back that was down, nor an audio root that is away.

    Returns:
        When the chunk is due again; None when it failed for good or the claim was over.
    """
    claim = attempt.claim
    wait = _free_wait(attempt, error)
    errors = (
        Chunk.objects.values_list("errors", flat=True)
        .filter(job_id=claim.job_id, index=claim.index, lease_token=claim.token)
        .first()
    )
    closing = partial(_close_call, attempt, _outcome_of(error), error_code=error.code)
    if errors is None:
        closing()
        return None
    columns: dict[str, Any] = {
        "error_code": error.code,
        "error_detail": error.detail[:500],
        "error_recoverable": error.recoverable,
        "engine": claim.engine,
        **attempt.measured,
    }
    cause = {"engine": claim.engine, "error": {"code": error.code, "detail": error.detail[:500]}}
    if wait is None:
        errors += 1
        columns["errors"] = errors
    else:
        columns["attempts"] = F("attempts") - 1
    if not error.recoverable or errors >= MAX_ERRORS:
        columns["ended_time"] = Now()
        failed = (ChunkStatus.FAILED, EventType.CHUNK_FAILED)
        _end_claim(claim, *failed, cause, closing=closing, **columns)
        return None
    if wait is None:
        again = Again(seconds=backoff(errors), engine=claim.own_engine, counted=True)
    else:
        again = Again(seconds=wait, engine=claim.own_engine)
    columns |= _due(again)
    waits = (ChunkStatus.PENDING, EventType.CHUNK_PENDING)
    written = _end_claim(claim, *waits, cause, closing=closing, **columns)
    return again if written else None


def _outcome_of(error: AsrError) -> CallOutcome:
    """Without an answer nobody can say whether the vendor did the work, and will bill it."""
    if not isinstance(error, EngineUnavailable):
        return CallOutcome.REFUSED
    return CallOutcome.UNKNOWN if error.answer_lost else CallOutcome.FAILED


def _close_call(attempt: Attempt, outcome: CallOutcome, **columns: Any) -> None:
    if attempt.call_id is not None:
        EngineCall.objects.filter(pk=attempt.call_id).close(outcome, **columns)


def _free_wait(attempt: Attempt, error: AsrError) -> float | None:
    """Seconds to wait after an attempt that costs nothing; None when it is to be counted."""
    if not isinstance(error, EngineUnavailable | AudioUnavailable):
        return None
    if error.retry_after is not None:
        return min(max(error.retry_after, RETRY_BASE_SECONDS), LONGEST_WAIT_SECONDS)
    # Not to wait for the next probe itself, but to go the way of all others while the engine is
    # down: to one that stands in, or to wait and be called delayed.
    return 0.0 if attempt.call.failed_as_probe else None


def postpone(job_id: UUID, index: int, again: Again) -> Again | None:
    """Let a waiting chunk wait on for its engine; None when it does not wait any more."""
    waiting = Chunk.objects.due().filter(job_id=job_id, index=index)
    try:
        with changing(job_id) as change:
            if change.job.ended or wait_on(waiting, again) is None:
                return None
            change.delay("engine_unavailable")
    except JobGoneError:
        return None
    return again


def look_again(job_id: UUID, index: int, engine: str) -> Again | None:
    """When to look again at a chunk that nobody could claim just now; None if it need not.

    It is due, but another one asks the same, or is in quarantine.
    """
    due = Chunk.objects.due().filter(job_id=job_id, index=index)
    return wait_on(due.filter(job__status=JobStatus.IN_PROGRESS), soon(engine))


def soon(engine: str) -> Again:
    """After a wait for what another chunk does."""
    return Again(seconds=random.uniform(*CHECK_AGAIN_SECONDS), engine=engine)  # noqa: S311


def wait_on(waiting: ChunkQuerySet, again: Again) -> Again | None:
    """Let chunks that wait already wait on; None when there are none any more."""
    return again if waiting.update(dispatches=0, **_due(again)) else None


def _due(again: Again) -> dict[str, Any]:
    """The columns that say when a waiting chunk is due, and when its message counts as lost."""
    wait = timedelta(seconds=again.seconds)
    patience = MESSAGE_PATIENCE if again.needs_message else timedelta()
    return {"not_before": from_now(wait), "resend_time": from_now(wait + patience)}


def after_window(seconds: float) -> float:
    """A little later, each chunk at a time of its own: the crowd must not come all at once."""
    return seconds + random.uniform(0.0, settings.BREAKER_SECONDS / 4)  # noqa: S311


def give_back(
    claim: Claim, again: Again | None = None, *, delay_reason: str = "", **columns: Any
) -> bool:
    """Undo the claim as if it had not been.

    Args:
        again: when the chunk is due; by default somebody else is to take it at once.
        delay_reason: what the job is said to wait for.
    """
    due = {"not_before": Now(), "resend_time": Now()} if again is None else _due(again)
    columns |= {"attempts": F("attempts") - 1, **due}
    waits = (ChunkStatus.PENDING, EventType.CHUNK_PENDING)
    return _end_claim(claim, *waits, {}, delay_reason=delay_reason, **columns)


def backoff(errors: int) -> float:
    """Seconds to wait after the n-th error: exponential, with jitter so that crowds part."""
    return RETRY_BASE_SECONDS * 2.0 ** (errors - 1) * random.uniform(1.0, 1.25)  # noqa: S311


def _end_claim(
    claim: Claim,
    to: ChunkStatus,
    event: EventType,
    data: dict[str, Any],
    *,
    closing: Callable[[], None] = lambda: None,
    delay_reason: str = "",
    **columns: Any,
) -> bool:
    """Move a claimed chunk on, if the claim still holds.

    Args:
        closing: completes the ledger, whether or not the claim still holds: the call was made.
    """
    try:
        with changing(claim.job_id) as change:
            closing()
            written = change.move_chunk(
                claim.index, to, event, data, where=Q(lease_token=claim.token), **columns
            )
            if written and delay_reason:
                change.delay(delay_reason)
    except JobGoneError:
        closing()
        written = False
    if not written:
        logger.info("Chunk %s[%d]: the claim was over", claim.job_id, claim.index)
    return written
