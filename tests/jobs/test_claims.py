"""Claims and results of many threads, written in groups: each as if it were the only one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from django.db import OperationalError, connection
from django.db.models.functions import Now

from asr.types import Usage
from jobs import actions, claims, finishing, pipeline, setbacks
from jobs.attempts import Attempt, Claim
from jobs.models import Chunk, EngineCall, Job, JobEvent, Transcript, changing
from tests import factories
from tests.helpers import together, together_in_a_group
from tests.scripted import ScriptedEngine

pytestmark = pytest.mark.django_db(transaction=True)


def claim_all(*wishes: tuple[Job, int], **options: Any) -> list[Any]:
    calls = [partial(claims.claim_chunk, job.pk, index, **options) for job, index in wishes]
    return together_in_a_group(claims._claims, *calls)


def every(*jobs: Job) -> list[tuple[Job, int]]:
    return [(job, index) for job in jobs for index in range(job.chunks.count())]


def row(chunk_id: int) -> dict[str, Any]:
    return dict(Chunk.objects.filter(pk=chunk_id).values().get())


def told(job: Job, kind: str) -> list[Any]:
    """The events of that kind, after a look at all the numbers."""
    events = JobEvent.objects.filter(job=job).order_by("sequence")
    numbers = list(events.values_list("sequence", flat=True))
    job.refresh_from_db()
    assert numbers == list(range(1, job.sequence + 1))
    return list(events.filter(type=kind).values_list("data", flat=True))


# --- claims ---


def test_messages_that_came_twice_claim_each_chunk_once() -> None:
    jobs = [
        factories.make_job(4),
        factories.make_job(3, user_id="bob", language="de", vocabulary=["Aa"], diarize=True),
        factories.make_job(1),
    ]
    taken = [claim for claim in claim_all(*every(*jobs) * 3) if claim is not None]
    assert sorted((claim.job_id, claim.index) for claim in taken) == sorted(
        (job.pk, index) for job, index in every(*jobs)
    )
    for claim in taken:
        assert isinstance(claim, Claim)
        chunk = Chunk.objects.select_related("job").get(pk=claim.chunk_id)
        job = chunk.job
        assert (chunk.status, chunk.attempts, chunk.lease_token) == ("in_progress", 1, claim.token)
        assert (claim.job_id, claim.index, claim.audio_path) == (
            job.pk,
            chunk.index,
            chunk.audio_path,
        )
        assert (claim.user_id, claim.engine, claim.own_engine) == (
            job.user_id,
            "scripted",
            "scripted",
        )
        assert (claim.language, claim.vocabulary, claim.diarize) == (
            job.language,
            tuple(job.vocabulary),
            job.diarize,
        )
    for job in jobs:
        started = told(job, "chunk.started")
        assert sorted(event["index"] for event in started) == list(range(job.chunks.count()))


def test_a_job_that_somebody_holds_keeps_no_other_from_being_claimed() -> None:
    held, *others = [factories.make_job() for _ in range(4)]
    holds, release = threading.Event(), threading.Event()

    def hold() -> None:
        with changing(held.pk):
            holds.set()
            assert release.wait(60)
        connection.close()

    def claimed(job: Job) -> bool:
        try:
            return claims.claim_chunk(job.pk, 0) is not None
        except OperationalError:  # a row is waited for in vain for five seconds
            return False

    holder = threading.Thread(target=hold)
    holder.start()
    assert holds.wait(30)
    rows_are_locked = connection.vendor == "postgresql"  # SQLite locks all, and waits for longer
    if not rows_are_locked:
        release.set()
    jobs = [others[0], held, *others[1:]]
    taken = together_in_a_group(claims._claims, *[partial(claimed, job) for job in jobs])
    release.set()
    holder.join(60)
    assert sorted(taken) == [not rows_are_locked, True, True, True]


def test_what_cannot_be_claimed_keeps_nothing_else_from_being_claimed() -> None:
    due, cancelled, gone, waiting = (factories.make_job(2) for _ in range(4))
    actions.cancel(cancelled.pk)
    actions.delete(gone.pk)
    factories.fail(factories.claim(waiting, 0))  # due only after a while
    before = [row(chunk.pk) for chunk in (*cancelled.chunks.all(), waiting.chunks.get(index=0))]
    wishes = [(gone, 0), (due, 0), (cancelled, 0), (waiting, 0), (due, 7), (waiting, 1), (due, 1)]
    taken = claim_all(*wishes)
    assert [claim is not None for claim in taken] == [
        wish in [(due, 0), (due, 1), (waiting, 1)] for wish in wishes
    ]
    after = [row(chunk.pk) for chunk in (*cancelled.chunks.all(), waiting.chunks.get(index=0))]
    assert after == before
    assert told(cancelled, "chunk.started") == []


def test_no_chunk_of_a_job_that_has_ended_is_claimed_whatever_the_chunk_says() -> None:
    ended, going_on = factories.make_job(2), factories.make_job(1)
    Job.objects.filter(pk=ended.pk).update(status="cancelled", completed_time=Now())
    taken = claim_all((ended, 0), (going_on, 0), (ended, 1))
    assert [claim is not None for claim in taken] == [False, True, False]
    assert set(ended.chunks.values_list("status", "attempts")) == {("pending", 0)}


def test_in_one_group_each_is_for_its_own_engine_and_a_probe_ends_no_delay() -> None:
    jobs = [factories.make_job(1) for _ in range(4)]
    for job in jobs:
        with changing(job.pk) as change:
            change.delay("engine_unavailable")
    calls: list[Callable[[], Any]] = [
        partial(claims.claim_chunk, job.pk, 0, f"engine-{n}", probe=n % 2 == 0)
        for n, job in enumerate(jobs)
    ]
    taken = together_in_a_group(claims._claims, *calls)
    assert [(claim.engine, claim.probe) for claim in taken] == [
        (f"engine-{n}", n % 2 == 0) for n in range(4)
    ]
    assert [len(told(job, "job.resumed")) for job in jobs] == [0, 1, 0, 1]
    reasons = [Job.objects.get(pk=job.pk).delay_reason for job in jobs]
    assert reasons == ["engine_unavailable", "", "engine_unavailable", ""]


# --- results ---


def attempts_of(*jobs: Job) -> list[Attempt]:
    """All chunks of the jobs claimed, each with its call in the ledger."""
    attempts = [factories.attempt(factories.claim(job, index)) for job, index in every(*jobs)]
    for attempt in attempts:
        call = EngineCall.objects.create(
            job_id=attempt.claim.job_id,
            index=attempt.claim.index,
            user_id=attempt.claim.user_id,
            engine="scripted",
            audio_seconds=1.0,
        )
        attempt.call_id = call.pk
    return attempts


def words_of(attempt: Attempt) -> str:
    return f"{attempt.claim.index} of {attempt.claim.job_id}"


def record_all(*attempts: Attempt) -> list[Any]:
    calls = [
        partial(claims.record_result, attempt, factories.recognition(words_of(attempt)))
        for attempt in attempts
    ]
    return together_in_a_group(claims._results, *calls)


def test_of_a_group_those_results_are_written_whose_claims_still_hold() -> None:
    kept, cancelled, gone, lost = (factories.make_job(3) for _ in range(4))
    attempts = attempts_of(kept, cancelled, gone, lost)
    actions.cancel(cancelled.pk)
    actions.delete(gone.pk)
    theirs = next(a.claim for a in attempts if a.claim.job_id == lost.pk and a.claim.index == 1)
    claims_of_lost = Chunk.objects.filter(pk=theirs.chunk_id)
    claims_of_lost.update(lease_token=uuid4())  # taken for dead, and claimed by another
    over = {a.claim.chunk_id for a in attempts if a.claim.job_id in {cancelled.pk, gone.pk}}
    over.add(theirs.chunk_id)
    before = {pk: row(pk) for pk in over if Chunk.objects.filter(pk=pk).exists()}
    assert len(before) == 4

    written = record_all(*attempts)

    assert written == [attempt.claim.chunk_id not in over for attempt in attempts]
    assert {pk: row(pk) for pk in before} == before
    for attempt in attempts:
        if attempt.claim.chunk_id in over:
            continue
        chunk = Chunk.objects.get(pk=attempt.claim.chunk_id)
        assert (chunk.status, chunk.text, chunk.lease_token) == (
            "completed",
            words_of(attempt),
            None,
        )
        assert chunk.segments[0]["text"] == words_of(attempt)
        assert (chunk.engine, chunk.model, chunk.duration_seconds) == ("scripted", "m", 1.0)
    assert [event["index"] for event in told(lost, "chunk.completed")] in ([0, 2], [2, 0])
    assert told(cancelled, "chunk.completed") == []
    # The calls were made, whatever became of the claims.
    assert set(EngineCall.objects.values_list("outcome", flat=True)) == {"answered"}


@pytest.mark.parametrize("late_first", [True, False])
def test_of_two_claims_of_one_chunk_in_one_group_the_one_that_holds_is_written(
    late_first: bool,
) -> None:
    other, job = factories.make_job(1), factories.make_job(1)
    late = factories.claim(job)
    assert setbacks.give_back(late)  # as whoever takes a worker for dead does
    holding = factories.claim(job)
    pair = [(late, "late"), (holding, "in time")]
    given = [(factories.claim(other), "other"), *(pair if late_first else reversed(pair))]
    calls = [partial(factories.complete, claim, text) for claim, text in given]
    results = together_in_a_group(claims._results, *calls)
    written = {text for (_, text), result in zip(given, results, strict=True) if result}
    assert written == {"other", "in time"}
    assert job.chunks.get().text == "in time"
    assert len(told(job, "chunk.completed")) == 1


def test_each_call_of_a_group_has_the_usage_that_its_vendor_told() -> None:
    attempts = attempts_of(factories.make_job(4))
    usages = [Usage(seconds=1.0), Usage(input_tokens=7), None, Usage(seconds=1.0)]

    def record(attempt: Attempt, usage: Usage | None) -> bool:
        return claims.record_result(attempt, replace(factories.recognition("word"), usage=usage))

    calls = [partial(record, *each) for each in zip(attempts, usages, strict=True)]
    assert together_in_a_group(claims._results, *calls) == [True] * 4
    ledger = EngineCall.objects.order_by("index").values_list("billed_seconds", "input_tokens")
    assert list(ledger) == [(1.0, None), (None, 7), (None, None), (1.0, None)]


def test_a_result_that_cannot_be_stored_spoils_no_other() -> None:
    attempts = attempts_of(factories.make_job(4))
    said = [factories.recognition(text) for text in ("one", "two", "three", "four")]
    said[1] = replace(said[1], model="half a pair: \ud83d")
    calls = [
        partial(claims.record_result, attempt, recognition)
        for attempt, recognition in zip(attempts, said, strict=True)
    ]
    results = together_in_a_group(claims._results, *calls)
    assert isinstance(results.pop(1), ValueError)
    assert results == [True] * 3
    chunks = Chunk.objects.order_by("index").values_list("status", "text")
    assert list(chunks) == [
        ("completed", "one"),
        ("in_progress", ""),
        ("completed", "three"),
        ("completed", "four"),
    ]


# --- the last one ---


def test_of_all_attempts_of_a_job_one_is_the_last() -> None:
    jobs = [factories.make_job(count) for count in (6, 6, 1, 5)]
    attempts = attempts_of(*jobs)
    assert record_all(*attempts) == [True] * len(attempts)
    last = [attempt.claim.job_id for attempt in attempts if attempt.is_last]
    assert sorted(last) == sorted(job.pk for job in jobs)


def test_none_is_the_last_while_another_chunk_of_the_job_is_under_way() -> None:
    waiting, working, done = factories.make_job(3), factories.make_job(3), factories.make_job(3)
    attempts = [
        factories.attempt(factories.claim(job, n)) for job in (waiting, done) for n in (0, 1)
    ]
    attempts += [factories.attempt(factories.claim(working, n)) for n in range(3)]
    attempts.pop()  # it goes on
    factories.fail(factories.claim(done, 2), factories.permanent())
    assert all(record_all(*attempts))
    assert [attempt.claim.job_id for attempt in attempts if attempt.is_last] == [done.pk]
    ended = together(*[partial(finishing.finish_job, job.pk) for job in (waiting, working, done)])
    assert ended == [False, False, True]
    assert {waiting.pk, working.pk} == set(Job.objects.in_progress().values_list("pk", flat=True))


def test_without_a_gate_too_there_is_one_last_attempt_of_each_job() -> None:
    jobs = [factories.make_job(8) for _ in range(4)]
    attempts = attempts_of(*jobs)
    recognised = factories.recognition("word")
    assert all(together(*[partial(claims.record_result, each, recognised) for each in attempts]))
    last = [attempt.claim.job_id for attempt in attempts if attempt.is_last]
    assert sorted(last) == sorted(job.pk for job in jobs)


def test_a_job_is_finished_once_however_many_say_that_it_is_over() -> None:
    jobs = [factories.make_job(2) for _ in range(3)]
    record_all(*attempts_of(*jobs))
    ended = together(*[partial(finishing.finish_job, job.pk) for job in jobs * 4])
    assert ended.count(True) == len(jobs)
    assert ended.count(False) == 3 * len(jobs)
    for job in jobs:
        assert len(told(job, "job.completed")) == 1
    assert Transcript.objects.count() == len(jobs)


def test_chunks_of_several_jobs_with_doubled_messages_are_worked_off_at_once(
    script: ScriptedEngine,
) -> None:
    jobs = [factories.make_job(4) for _ in range(3)]
    for chunk in Chunk.objects.all():
        path = factories.put_audio(f"{chunk.job_id}/{chunk.index}.wav")
        Chunk.objects.filter(pk=chunk.pk).update(audio_path=path)
    messages = every(*jobs) * 2
    together(*[partial(pipeline.transcribe, job.pk, index) for job, index in messages])
    assert len(script.calls) == len(every(*jobs))
    for job in jobs:
        assert sorted(event["index"] for event in told(job, "chunk.completed")) == [0, 1, 2, 3]
        assert len(told(job, "job.completed")) == 1
        assert Transcript.objects.get(job=job).text == "word word word word"
        assert Job.objects.get(pk=job.pk).status == "completed"
    assert set(Chunk.objects.values_list("attempts", flat=True)) == {1}
