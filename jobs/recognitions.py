"""No sound is paid for twice, and no call of an engine goes unwritten.

A chunk's `recognition_key` says what is asked of whom. The database lets no two chunks in progress
have the same one, so of two that are handed in at once one asks and the other waits; and whoever
has it looks, after that, whether a completed chunk had it before. There is no store besides the
chunks: what is deleted is forgotten.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from django.conf import settings
from django.db import IntegrityError
from django.db.models import Min

from asr.types import Recognition, segments_from_json
from jobs import engines
from jobs.attempts import Again, Attempt
from jobs.claims import claims_held
from jobs.group_commit import GroupCommit
from jobs.models import (
    Chunk,
    ChunkQuerySet,
    ChunkStatus,
    EngineCall,
    changing_all,
    common_language,
)
from jobs.models.bulk import update_each
from jobs.setbacks import after_window, give_back, soon
from jobs.spending import after_refusal, within_caps

MICRO_USD = Decimal("0.000001")  # as the ledger's column has it


@dataclass(frozen=True, kw_only=True, eq=False)
class _Beginning:
    attempt: Attempt
    key: str


class ClaimOverError(Exception):
    """The chunk was cancelled, deleted, or given to somebody else: nobody is to be asked."""


class _AskedByAnotherError(Exception):
    """Another chunk in progress has the same key."""


def begin(attempt: Attempt) -> Again | None:
    """Take what is known of the sound, or open the ledger for the call that is to be made.

    Returns:
        When to look again, as another chunk is asking the same just now, or a cap on spending is
        reached; the claim was given back at no cost. None otherwise: `attempt.recognition` was
        found, or `attempt.call_id` is open.

    Raises:
        ClaimOverError: nothing is to be done any more.
    """
    try:
        if not _beginnings(_Beginning(attempt=attempt, key=_key(attempt))):
            raise ClaimOverError
    except _AskedByAnotherError:
        again = soon(attempt.claim.engine)
        return _given_back(attempt, again, recognition_key=_key(attempt))
    if attempt.recognition is None and attempt.call_id is None:
        return _given_back(attempt, _after_refusal(attempt), delay_reason="engine_unavailable")
    return None


def _after_refusal(attempt: Attempt) -> Again:
    """A cap is reached; where this engine stands in, the chunk's own may be back before."""
    claim = attempt.claim
    seconds = after_window(settings.BREAKER_SECONDS) if claim.stands_in else after_refusal()
    return Again(seconds=seconds, engine=claim.own_engine)


def _given_back(attempt: Attempt, again: Again, **how: str) -> Again:
    if not give_back(attempt.claim, again, **how):
        raise ClaimOverError
    return again


def forget_call(attempt: Attempt) -> None:
    """Take the call out of the ledger: it was not made, or the engine was too busy to take it."""
    EngineCall.objects.filter(pk=attempt.call_id or 0).forget()
    attempt.call_id = None


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


def _begin_all(beginnings: Sequence[_Beginning]) -> list[bool]:
    """See `begin`; False for each claim that is over."""
    # Under the jobs' locks, as whatever moves their chunks, and in the order of the keys: else two
    # such transactions could wait for each other.
    with changing_all({each.attempt.claim.job_id for each in beginnings}):
        held = claims_held(each.attempt.claim for each in beginnings)
        asking = sorted(
            (each for each in beginnings if each.attempt.claim.ticket in held),
            key=lambda each: each.key,
        )
        _take_keys(asking)
        keys = {each.key for each in asking} - {""}
        # Looked for only now: one that completed before the key was ours is seen here.
        known = {chunk.recognition_key: chunk for chunk in _completed(keys)}
        new = [each.attempt for each in asking if each.key not in known]
        _expect_languages(new)
        calls = [_call_of(attempt) for attempt in new]
        may_be_made = sorted(within_caps(calls))
        opened = EngineCall.objects.open(calls[position] for position in may_be_made)
    for position, call in zip(may_be_made, opened, strict=True):
        new[position].call_id = call.pk
    for each in asking:
        if found := known.get(each.key):
            each.attempt.recognition, each.attempt.deduplicated = _recognition_of(found), True
    return [each in asking for each in beginnings]


_beginnings = GroupCommit(_begin_all)


def _take_keys(beginnings: Sequence[_Beginning]) -> None:
    mine = Chunk.objects.in_progress()
    keys = {each.attempt.claim.chunk_id: [each.key] for each in beginnings}
    try:
        if keys:
            update_each(mine, {}, ["recognition_key"], keys)
    except IntegrityError as error:  # the one constraint that this column is under
        raise _AskedByAnotherError from error


def _completed(keys: set[str]) -> ChunkQuerySet:
    """One chunk for each key, of however many have taken its words since."""
    same = Chunk.objects.filter(recognition_key__in=keys, status=ChunkStatus.COMPLETED).order_by()
    first = same.values("recognition_key").annotate(first=Min("pk")).values("first")
    return Chunk.objects.filter(pk__in=first).order_by()


def _recognition_of(chunk: Chunk) -> Recognition:
    return Recognition(
        segments=segments_from_json(chunk.segments),
        engine=chunk.engine,
        model=chunk.model,
        language=chunk.language,
        language_confidence=chunk.language_confidence,
    )


def _call_of(attempt: Attempt) -> EngineCall:
    claim, engine = attempt.claim, attempt.known_engine
    seconds, price = attempt.known_info.duration_seconds, engines.price_of(claim.engine)
    return EngineCall(
        job_id=claim.job_id,
        index=claim.index,
        user_id=claim.user_id,
        engine=claim.engine,
        model=engine.model,
        audio_seconds=seconds,
        price_usd=None if price is None else Decimal(price * seconds / 60).quantize(MICRO_USD),
    )


def _expect_languages(attempts: Sequence[Attempt]) -> None:
    """For who is to detect: the language of most of the chunks before, as far as they ended."""
    unsure = [
        attempt
        for attempt in attempts
        if attempt.claim.index
        and not attempt.claim.language
        and attempt.known_engine.capabilities.detects_language
    ]
    if not unsure:
        return
    jobs = {attempt.claim.job_id for attempt in unsure}
    completed = Chunk.objects.filter(job_id__in=jobs, status=ChunkStatus.COMPLETED).order_by()
    heard = list(completed.values_list("job_id", "index", "language", "duration_seconds"))
    for attempt in unsure:
        job_id, index = attempt.claim.job_id, attempt.claim.index
        before = [(tag, length) for job, at, tag, length in heard if job == job_id and at < index]
        attempt.expected_language = common_language(before)
