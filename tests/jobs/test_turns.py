"""Fair turns: whose chunk is next, and that one user's crowd holds up nobody."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from asr.types import AudioRequest
from jobs import actions, attempts, pipeline, quarantine, tasks, turns
from jobs.interruption import Stopping
from jobs.models import Chunk, EngineCall, Job, from_now
from tests import factories
from tests.helpers import WorkerInTest, broker, wait_until
from tests.scripted import ScriptedEngine

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def nobody_was_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor was anything looked for; and each message looks."""
    monkeypatch.setattr(turns, "_plan", turns._Plan())
    monkeypatch.setattr(turns, "PAUSE", 0.0)
    monkeypatch.setattr(turns.threads, "all", 0)  # none is free, until a worker says otherwise


def make_job(chunks: int, user: str, *, running: int = 0) -> Job:
    """A job with files, its first chunks in progress."""
    job = factories.make_job(chunks, user_id=user)
    for chunk in job.chunks.all():
        path = factories.put_audio(f"{user}/{job.pk}-{chunk.index}.wav")
        Chunk.objects.filter(pk=chunk.pk).update(audio_path=path)
    for index in range(running):
        factories.claim(job, index)
    return job


def lent(job: Job, index: int) -> turns.Place | None:
    """What goes before that chunk; None when it is its own turn, or nobody's."""
    first = next(turns.given(job.pk, index, "scripted"), None)
    return None if first == (job.pk, index) else first


# --- whose turn ---


def test_alone_everybody_has_their_own_turn_for_one_statement() -> None:
    job = make_job(4, "alice", running=2)
    with CaptureQueriesContext(connection) as queries:
        assert lent(job, 2) is None
    assert len(queries) == 1


def test_the_turn_goes_to_the_user_with_the_fewest_in_progress() -> None:
    many = make_job(5, "alice", running=3)
    make_job(4, "bob", running=2)
    few = make_job(3, "carol", running=1)
    assert lent(many, 3) == (few.pk, 1)


def test_whoever_has_the_fewest_in_progress_lends_to_nobody() -> None:
    make_job(5, "alice", running=3)
    few = make_job(3, "bob", running=1)
    assert lent(few, 1) is None


def test_of_equals_the_one_who_was_served_longer_ago_is_next() -> None:
    alice, bob, carol = (make_job(9, name) for name in ("alice", "bob", "carol"))
    assert [lent(alice, 0) for _ in range(4)] == [None, (bob.pk, 0), (carol.pk, 0), None]


def test_with_one_thread_a_newcomer_is_next() -> None:
    alice = make_job(9, "alice")
    assert lent(alice, 0) is None
    assert lent(alice, 1) is None
    bob = make_job(1, "bob")
    assert lent(alice, 2) == (bob.pk, 0)


def test_of_one_user_the_chunk_that_waits_longest_is_taken() -> None:
    many = make_job(2, "alice", running=1)
    make_job(2, "bob")
    older = make_job(2, "bob")
    waits = Chunk.objects.filter(job=older, index=1)
    waits.update(not_before=from_now(-timedelta(seconds=9)))
    assert lent(many, 1) == (older.pk, 1)


def test_only_chunks_for_the_same_engine_are_taken() -> None:
    many = make_job(2, "alice", running=1)
    factories.make_job(1, user_id="bob", engine="other")
    assert lent(many, 1) is None


def test_a_message_that_has_nothing_to_do_may_lend_its_turn_as_well() -> None:
    many, cancelled = make_job(4, "alice", running=2), make_job(2, "alice")
    few = make_job(2, "bob")
    actions.cancel(cancelled.pk)
    assert lent(cancelled, 0) == (few.pk, 0)
    assert lent(many, 0) == (few.pk, 1)


def test_what_could_not_be_claimed_at_once_is_passed_over() -> None:
    many = make_job(3, "alice", running=1)
    job = make_job(3, "bob", running=1)
    Chunk.objects.filter(job=job).update(recognition_key="")
    Chunk.objects.filter(job=job, index=0).update(recognition_key="same")
    Chunk.objects.filter(job=job, index=1).update(recognition_key="same")
    Chunk.objects.filter(job=job, index=2).update(crashes=quarantine.SUSPECT_CRASHES)
    factories.claim(many, 1)
    assert lent(many, 2) is None
    Chunk.objects.filter(job=job, index=2).update(crashes=0)
    assert lent(many, 2) == (job.pk, 2)


def test_a_chunk_that_stays_due_is_offered_once() -> None:
    many = make_job(2, "alice", running=1)
    few = make_job(1, "bob")
    assert list(turns.given(many.pk, 1, "scripted")) == [(few.pk, 0), (many.pk, 1)]


def test_one_look_plans_the_turns_of_many_messages() -> None:
    many, few = make_job(20, "alice", running=9), make_job(8, "bob")
    with CaptureQueriesContext(connection) as queries:
        assert [lent(many, 10) for _ in range(5)] == [(few.pk, n) for n in range(5)]
    assert len(queries) == 3


def test_a_plan_is_forgotten_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PLAN_SECONDS", 0.0)
    many, few = make_job(20, "alice", running=9), make_job(8, "bob")
    assert lent(many, 10) is None
    monkeypatch.setattr(turns, "PLAN_SECONDS", 60.0)
    assert lent(many, 10) == (few.pk, 0)


def test_looking_takes_a_twentieth_of_the_time_and_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "PAUSE", 1e6)
    many = make_job(3, "alice", running=1)
    few = make_job(1, "bob")
    assert lent(many, 1) == (few.pk, 0)
    with CaptureQueriesContext(connection) as queries:
        assert lent(many, 1) is None  # so soon after
    assert len(queries) == 0
    monkeypatch.setattr(turns, "PAUSE", 0.0)
    monkeypatch.setattr(turns, "_plan", turns._Plan())
    with turns._plan._looking:
        assert lent(many, 1) is None
    assert lent(many, 1) == (few.pk, 0)


def test_no_turn_is_lent_while_a_thread_is_free() -> None:
    many = make_job(3, "alice", running=1)
    few = make_job(1, "bob")
    turns.threads.all = 2
    with turns.threads.one_busy():
        assert lent(many, 1) is None
        with turns.threads.one_busy():
            assert lent(many, 1) == (few.pk, 0)
    assert lent(many, 1) is None


def test_turns_are_lent_for_a_lease_and_then_it_is_the_own_chunks(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    now = 1000.0
    monkeypatch.setattr(turns, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(turns, "PLAN_SECONDS", 1e6)
    many, few = make_job(20, "alice", running=9), make_job(8, "bob")
    given = turns.given(many.pk, 10, "scripted")
    assert [next(given), next(given)] == [(few.pk, 0), (few.pk, 1)]
    now += settings.LEASE_SECONDS - 1
    assert next(given) == (few.pk, 2)
    now += 1
    assert list(given) == [(many.pk, 10)]


def test_only_what_runs_with_the_same_engine_counts_for_a_share() -> None:
    many = make_job(4, "alice", running=2)
    few = make_job(2, "bob")
    elsewhere = factories.make_job(9, user_id="bob", engine="other")
    for index in range(9):
        factories.claim(elsewhere, index)
    assert lent(many, 2) == (few.pk, 0)


# --- the actor ---


def test_the_actor_works_on_the_others_chunk_and_then_on_its_own(script: ScriptedEngine) -> None:
    many, few = make_job(3, "alice", running=1), make_job(1, "bob")
    tasks.transcribe_chunk(str(many.pk), 1, "scripted")
    assert list(few.chunks.values_list("status", flat=True)) == ["completed"]
    statuses = many.chunks.order_by("index").values_list("status", flat=True)
    assert list(statuses) == ["in_progress", "completed", "pending"]
    assert len(script.calls) == 2
    tasks.transcribe_chunk(str(few.pk), 0, "scripted")  # its own message comes late
    assert len(script.calls) == 2


def test_an_error_of_the_others_chunk_is_its_own_and_gets_a_message_of_its_own(
    script: ScriptedEngine, redis_is_empty: None
) -> None:
    many, few = make_job(3, "alice", running=1), make_job(1, "bob")
    script.steps = [factories.passing()]
    tasks.transcribe_chunk(str(many.pk), 1, "scripted")
    assert few.chunks.get().errors == 1
    assert many.chunks.get(index=1).status == "completed"
    assert broker().client.llen("dramatiq:chunks.DQ") == 1


def test_a_stop_in_a_lent_turn_leaves_a_message_for_the_own_chunk(
    monkeypatch: pytest.MonkeyPatch, redis_is_empty: None
) -> None:
    many = make_job(3, "alice", running=1)
    make_job(1, "bob")

    def stop(*place: object) -> attempts.Again | None:
        raise Stopping

    monkeypatch.setattr(pipeline, "transcribe", stop)
    tasks.transcribe_chunk(str(many.pk), 1, "scripted")
    assert broker().client.llen("dramatiq:chunks") == 1
    assert many.chunks.get(index=1).status == "pending"


# --- the whole ---


@pytest.mark.parametrize("threads", [1, 4])
def test_one_chunk_waits_less_than_three_rounds_behind_480(
    worker: WorkerInTest, script: ScriptedEngine, threads: int
) -> None:
    crowd = [make_job(24, "alice") for _ in range(20)]
    for job in crowd:
        tasks.dispatch(job.pk)
    gate, order, lock = threading.Semaphore(0), list[int](), threading.Lock()

    def hear(request: AudioRequest) -> str:
        with lock:
            order.append(len(order))
        assert gate.acquire(timeout=60)
        return "word"

    script.otherwise = hear
    worker.start(threads)
    wait_until(lambda: len(order) == threads)  # all threads are busy with alice's
    single = make_job(1, "bob")
    tasks.dispatch(single.pk)
    before = len(order)
    while single.chunks.filter(status="completed").count() == 0:
        called = len(order)
        gate.release()
        wait_until(lambda called=called: len(order) > called)  # type: ignore[misc]
    assert len(order) - before < 3 * threads
    gate.release(1000)
    jobs = [*crowd, single]
    wait_until(lambda: not Job.objects.in_progress().exists(), seconds=120)
    wait_until(lambda: broker().client.hlen("dramatiq:chunks.msgs") == 0)
    assert all(Job.objects.get(pk=job.pk).status == "completed" for job in jobs)
    assert len(script.calls) == EngineCall.objects.count() == 481
    assert set(Chunk.objects.values_list("status", "attempts")) == {("completed", 1)}


def test_a_second_crowd_gets_its_share_of_the_threads(
    worker: WorkerInTest, script: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "PAUSE", 20.0)
    crowds = [make_job(24, name) for name in ("alice", "alice", "bob", "bob")]
    for job in crowds:
        tasks.dispatch(job.pk)

    def hear(request: AudioRequest) -> str:
        time.sleep(0.8 + len(script.calls) % 5 / 10)
        return "word"

    script.otherwise = hear
    worker.start(16)
    wait_until(lambda: not Job.objects.in_progress().exists(), seconds=60)
    assert len(script.calls) == 96
    users = list(Chunk.objects.order_by("started_time").values_list("user_id", flat=True))
    assert users[:48].count("bob") >= 10  # none of the first 16, half of those after
