"""Several sounds that are asked for in one group: what one meets is no other's business."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from asr.types import AudioInfo
from jobs import actions, claims, recognitions
from jobs.attempts import Again, Attempt
from jobs.models import Chunk, EngineCall, Job
from tests import factories
from tests.helpers import together_in_a_group
from tests.scripted import ScriptedEngine

pytestmark = pytest.mark.django_db(transaction=True)


def attempt_of(job: Job, sound: str) -> Attempt:
    """A claimed chunk of one job, its file opened."""
    info = AudioInfo(duration_seconds=1.0, container="wav", digest=sound * 64)
    return Attempt(claim=factories.claim(job), info=info, engine=ScriptedEngine())


def begin_all(*attempts: Attempt) -> list[Any]:
    calls = [partial(recognitions.begin, attempt) for attempt in attempts]
    return together_in_a_group(recognitions._beginnings, *calls)


def test_of_equal_sounds_in_one_group_one_is_asked_for_and_the_others_wait() -> None:
    attempts = [attempt_of(factories.make_job(), sound) for sound in "abaacb"]
    found = begin_all(*attempts)
    asking = [attempt for attempt, again in zip(attempts, found, strict=True) if again is None]
    assert sorted(a.known_info.digest[0] for a in asking) == ["a", "b", "c"]
    assert sorted(a.call_id for a in asking if a.call_id) == sorted(
        EngineCall.objects.values_list("pk", flat=True)
    )
    for attempt, again in zip(attempts, found, strict=True):
        chunk = Chunk.objects.get(pk=attempt.claim.chunk_id)
        assert attempt.recognition is None
        call = EngineCall.objects.filter(job_id=attempt.claim.job_id)
        if again is None:
            assert (chunk.status, chunk.attempts) == ("in_progress", 1)
            assert call.get().pk == attempt.call_id
        else:
            assert isinstance(again, Again)
            assert (chunk.status, chunk.attempts, chunk.errors) == ("pending", 0, 0)
            assert not call.exists()


def test_a_claim_that_is_over_keeps_no_other_from_asking() -> None:
    jobs = [factories.make_job() for _ in range(4)]
    attempts = [attempt_of(job, sound) for job, sound in zip(jobs, "abcd", strict=True)]
    actions.cancel(jobs[1].pk)
    actions.delete(jobs[2].pk)
    found = begin_all(*attempts)
    assert [type(each) for each in found[1:3]] == [recognitions.ClaimOverError] * 2
    assert (found[0], found[3]) == (None, None)
    calls = EngineCall.objects.values_list("job_id", flat=True)
    assert set(calls) == {jobs[0].pk, jobs[3].pk}
    assert Chunk.objects.get(job=jobs[1]).recognition_key == ""


def test_what_is_known_is_taken_and_what_is_new_is_asked_for() -> None:
    known = attempt_of(factories.make_job(), "a")
    assert recognitions.begin(known) is None
    assert claims.record_result(known, factories.recognition("heard before"))
    attempts = [attempt_of(factories.make_job(), sound) for sound in "bacd"]
    assert begin_all(*attempts) == [None] * 4
    assert [attempt.deduplicated for attempt in attempts] == [False, True, False, False]
    assert [attempt.call_id is None for attempt in attempts] == [False, True, False, False]
    assert attempts[1].recognition is not None
    assert attempts[1].recognition.text == "heard before"
