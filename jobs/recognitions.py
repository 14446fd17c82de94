"""No sound is paid for twice, and no call of an engine goes unwritten.

A chunk's `recognition_key` says what is asked of whom. The database lets no two chunks in progress
have the same one, so of two that are handed in at once one asks and the other waits; and whoever
has it looks, after that, whether a completed chunk had it before. There is no store besides the
chunks: what is deleted is forgotten.
"""

from __future__ import annotations

import hashlib
import json
import random
from decimal import Decimal
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError

from asr.types import Recognition, segments_from_json
from jobs.attempts import Again, Attempt, Claim
from jobs.claims import give_back, wait_on
from jobs.models import (
    Chunk,
    ChunkQuerySet,
    ChunkStatus,
    EngineCall,
    JobGoneError,
    changing,
    common_language,
)

CHECK_AGAIN_SECONDS = (1.0, 2.0)  # how long a chunk waits to see whether the other has its answer


class ClaimOverError(Exception):
    """The chunk was cancelled, deleted, or given to somebody else: nobody is to be asked."""


class _AskedByAnotherError(Exception):
    """Another chunk in progress has the same key."""


def begin(attempt: Attempt) -> Again | None:
    """Take what is known of the sound, or open the ledger for the call that is to be made.

    Returns:
        When to look again, as another chunk is asking the same just now; the claim was given back
        at no cost. None otherwise: `attempt.recognition` was found, or `attempt.call_id` is open.

    Raises:
        ClaimOverError: nothing is to be done any more.
    """
    claim, key = attempt.claim, _key(attempt)
    mine = Chunk.objects.filter(job_id=claim.job_id, index=claim.index, lease_token=claim.token)
    try:
        # Under the job's lock, as whatever moves its chunks: else two wait for each other.
        with changing(claim.job_id):
            _take_key(mine, key)
            known = Chunk.objects.filter(recognition_key=key, status=ChunkStatus.COMPLETED)
            # Looked for only now: another that completed before the key was ours is seen here.
            found = known.order_by("pk").first() if key else None
            if found is None:
                attempt.expected_language = _spoken_before(claim)
                attempt.call_id = _opened(attempt).pk
                return None
    except JobGoneError:
        raise ClaimOverError from None
    except _AskedByAnotherError:
        again = _later(claim.engine)
        return again if give_back(claim, again, recognition_key=key) else None
    attempt.recognition, attempt.deduplicated = _recognition_of(found), True
    return None


def forget_call(attempt: Attempt) -> None:
    """Take the call out of the ledger: it was not made, or the engine was too busy to take it."""
    EngineCall.objects.filter(pk=attempt.call_id or 0).delete()
    attempt.call_id = None


def look_again(job_id: UUID, index: int, engine: str) -> Again | None:
    """When to look again at a chunk that waits for another one's answer; None if it need not."""
    waiting = Chunk.objects.due().being_recognised().filter(job_id=job_id, index=index)
    if not waiting.exists():
        return None
    return wait_on(waiting, _later(engine))


def _take_key(mine: ChunkQuerySet, key: str) -> None:
    try:
        written = mine.update(recognition_key=key)
    except IntegrityError as error:  # the one constraint that this column is under
        raise _AskedByAnotherError from error
    if not written:
        raise ClaimOverError


def _later(engine: str) -> Again:
    return Again(seconds=random.uniform(*CHECK_AGAIN_SECONDS), engine=engine)  # noqa: S311


def _key(attempt: Attempt) -> str:
    """SHA-256 (hex) of what is asked of whom; '' when nothing is to be remembered."""
    claim = attempt.claim
    if settings.DEDUPLICATE == "off":
        return ""
    asked = [
        claim.user_id if settings.DEDUPLICATE == "user" else None,
        attempt.known_info.digest,
        claim.engine,
        attempt.known_engine.model,
        attempt.known_engine.variant,
        claim.language,
        claim.vocabulary,
        claim.diarize,
    ]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _recognition_of(chunk: Chunk) -> Recognition:
    return Recognition(
        segments=segments_from_json(chunk.segments),
        engine=chunk.engine,
        model=chunk.model,
        language=chunk.language,
        language_confidence=chunk.language_confidence,
    )


def _opened(attempt: Attempt) -> EngineCall:
    claim, engine = attempt.claim, attempt.known_engine
    seconds, price = attempt.known_info.duration_seconds, engine.capabilities.price_per_minute
    return EngineCall.objects.create(
        job_id=claim.job_id,
        index=claim.index,
        user_id=claim.user_id,
        engine=claim.engine,
        model=engine.model,
        audio_seconds=seconds,
        price_usd=None if price is None else Decimal(price * seconds / 60),
    )


def _spoken_before(claim: Claim) -> str | None:
    """The language of most of what was recognised of the chunks before this one."""
    before = Chunk.objects.filter(
        job_id=claim.job_id, index__lt=claim.index, status=ChunkStatus.COMPLETED
    )
    return common_language(before.values_list("language", "duration_seconds"))
