"""The sweeper: what nobody looks after any more is found, once, and put back to work."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from django.db.models.functions import Now
from django.utils import timezone

from jobs import actions, finishing, sweeper
from jobs.models import (
    Chunk,
    EngineCall,
    IdempotencyKey,
    Job,
    JobEvent,
    Transcript,
    WorkerProcess,
    changing,
    database_time,
    from_now,
)
from jobs.quotas import minutes_used
from jobs.sweeper import DueChunk, sweep
from tests import factories
from tests.helpers import together

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)


@pytest.fixture
def sent() -> list[DueChunk]:
    return []


def let_the_lease_run_out(job: Job) -> None:
    Chunk.objects.filter(job=job, status="in_progress").update(lease_expires_time=from_now(-SECOND))


def test_a_healthy_system_leaves_nothing_to_the_sweeper(sent: list[DueChunk]) -> None:
    job = factories.make_job(3)
    factories.claim(job, 0)
    factories.complete(factories.claim(job, 1))
    factories.make_completed_job("done")
    before = list(Chunk.objects.order_by("pk").values())
    report = sweep(sent.append)
    assert (report.released, report.sent, report.finished, report.expired) == (0, 0, 0, 0)
    assert not report.broker_away
    assert sent == []
    assert list(Chunk.objects.order_by("pk").values()) == before


def test_a_claim_whose_lease_ran_out_is_released_and_sent_at_once(sent: list[DueChunk]) -> None:
    job = factories.make_job(2)
    factories.claim(job, 1)
    let_the_lease_run_out(job)
    report = sweep(sent.append)
    assert (report.released, report.sent) == (1, 1)
    chunk = job.chunks.get(index=1)
    assert (chunk.status, chunk.crashes, chunk.errors, chunk.attempts) == ("pending", 1, 0, 1)
    assert (chunk.error_code, chunk.error_recoverable) == ("worker_crashed", True)
    assert (chunk.lease_token, chunk.worker_id) == (None, None)
    assert [(due.job_id, due.index, due.engine) for due in sent] == [(job.pk, 1, "scripted")]


@pytest.mark.parametrize("gone", ["silent", "no row", "process gone"])
def test_the_claims_of_a_dead_worker_are_released_before_their_lease_ends(
    sent: list[DueChunk], gone: str
) -> None:
    job = factories.make_job(2)
    factories.claim(job, 0)
    factories.claim(job, 1)
    workers = WorkerProcess.objects.all()
    match gone:
        case "silent":
            workers.update(last_seen=from_now(-timedelta(seconds=16)), pid_space="elsewhere")
        case "no row":
            workers.delete()
        case _:
            workers.update(pid_started=1)
    assert sweep(sent.append).released == 2
    assert list(job.chunks.values_list("status", "crashes")) == [("pending", 1)] * 2
    assert len(sent) == 2


def test_a_worker_that_was_heard_14_seconds_ago_keeps_its_claims(sent: list[DueChunk]) -> None:
    job = factories.make_job()
    factories.claim(job)
    WorkerProcess.objects.update(last_seen=from_now(-timedelta(seconds=14)))
    assert sweep(sent.append).released == 0
    assert job.chunks.get().status == "in_progress"


def test_the_third_crash_is_the_last(sent: list[DueChunk]) -> None:
    job = factories.make_job(2)
    factories.complete(factories.claim(job, 1), "kept")
    for crash in range(1, 4):
        factories.claim(job, 0)
        let_the_lease_run_out(job)
        report = sweep(sent.append)
        assert report.released == 1
        assert job.chunks.get(index=0).crashes == crash
    assert report.finished == 1
    chunk = job.chunks.get(index=0)
    assert (chunk.status, chunk.error_code, chunk.errors, chunk.attempts) == (
        "failed",
        "worker_crashed",
        0,
        3,
    )
    assert len(sent) == 2
    assert Job.objects.get(pk=job.pk).status == "failed"
    transcript = Transcript.objects.get(job=job)
    assert (transcript.text, transcript.gaps[0]["code"]) == ("kept", "worker_crashed")


def test_a_call_that_a_crash_has_ended_uses_up_no_minutes_where_nobody_bills_it(
    sent: list[DueChunk],
) -> None:
    job = factories.make_job(2)
    for index, price in enumerate((0, None)):
        factories.claim(job, index)
        columns: dict[str, Any] = {"user_id": "alice", "audio_seconds": 60.0, "price_usd": price}
        EngineCall.objects.open([EngineCall(job_id=job.pk, index=index, engine="e", **columns)])
    sweep(sent.append)
    assert minutes_used("alice", database_time()).day == 2.0, "they run"
    let_the_lease_run_out(job)
    sweep(sent.append)
    assert minutes_used("alice", database_time()).day == 1.0
    outcomes = EngineCall.objects.order_by("index").values_list("outcome", flat=True)
    assert list(outcomes) == ["failed", "unknown"]


def test_crashes_and_errors_do_not_eat_each_others_budget(sent: list[DueChunk]) -> None:
    job = factories.make_job()
    for _ in range(2):
        factories.claim(job)
        let_the_lease_run_out(job)
        sweep(sent.append)
    for _ in range(3):
        factories.make_due(job.pk)
        assert factories.fail(factories.claim(job)) is not None
    factories.make_due(job.pk)
    factories.complete(factories.claim(job))
    chunk = job.chunks.get()
    assert (chunk.status, chunk.errors, chunk.crashes, chunk.attempts) == ("completed", 3, 2, 6)


def test_every_waiting_chunk_says_from_when_on_it_may_be_taken(sent: list[DueChunk]) -> None:
    """The contract: chunk.pending comes with data.notBefore, whoever sent the chunk back."""
    job = factories.make_job()
    factories.claim(job)
    let_the_lease_run_out(job)
    sweep(sent.append)
    (event,) = JobEvent.objects.filter(type="chunk.pending")
    assert event.data["notBefore"].endswith("Z")
    assert event.data["error"]["code"] == "worker_crashed"


def test_a_lost_message_is_sent_again_when_its_patience_is_over(sent: list[DueChunk]) -> None:
    job = factories.make_job(3)
    sweep(sent.append)
    assert sent == []
    factories.make_undispatched(job.pk)
    report = sweep(sent.append)
    assert report.sent == 3
    assert [due.index for due in sent] == [0, 1, 2]
    assert sweep(sent.append).sent == 0
    assert len(sent) == 3


def test_the_patience_doubles_with_each_message(sent: list[DueChunk]) -> None:
    job = factories.make_job()
    factories.make_undispatched(job.pk)
    for copies in range(9):
        assert sweep(sent.append).sent == 1
        patience = 60 * 2 ** min(copies, 6)
        rows = Chunk.objects.filter(job=job)
        low, high = timedelta(seconds=patience - 5), timedelta(seconds=patience + 5)
        assert rows.filter(resend_time__range=(from_now(low), from_now(high))).exists()
        rows.update(resend_time=Now())
    factories.claim(job)
    assert job.chunks.get().dispatches == 0


def test_a_chunk_that_waits_for_its_time_is_not_sent(sent: list[DueChunk]) -> None:
    job = factories.make_job()
    factories.fail(factories.claim(job))
    assert sweep(sent.append, everything=True).sent == 0
    assert sent == []


def test_at_boot_every_due_chunk_is_sent_also_where_a_message_was_sent_lately(
    sent: list[DueChunk],
) -> None:
    waiting = factories.make_job(2)
    running = factories.make_job()
    factories.claim(running)
    factories.make_completed_job("done")
    Chunk.objects.filter(job=waiting).update(not_before=from_now(-timedelta(minutes=1)))
    assert sweep(sent.append, everything=True).sent == 2
    assert {due.job_id for due in sent} == {waiting.pk}


def test_more_chunks_than_a_batch_are_all_sent(
    sent: list[DueChunk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "BATCH", 4)
    for _ in range(5):
        factories.make_undispatched(factories.make_job(3).pk)
    assert sweep(sent.append).sent == 15
    assert len({due.pk for due in sent}) == 15


def test_when_the_broker_is_away_all_that_was_not_sent_is_tried_again_next_time(
    sent: list[DueChunk],
) -> None:
    job = factories.make_job(5)
    factories.make_undispatched(job.pk)

    def send_two(chunk: DueChunk) -> None:
        if len(sent) == 2:
            raise ConnectionError("the broker is away")
        sent.append(chunk)

    report = sweep(send_two)
    assert (report.sent, report.broker_away) == (2, True)
    assert "broker is away" in str(report)
    sent.clear()
    assert sweep(sent.append).sent == 3
    assert [due.index for due in sent] == [2, 3, 4]


# --- the broker is away ---


def delay_of(job: Job) -> tuple[str, list[str]]:
    """Why it is delayed, and what was told of that."""
    events = JobEvent.objects.filter(job=job, type__in=("job.delayed", "job.resumed"))
    told = list(events.order_by("sequence").values_list("type", flat=True))
    return Job.objects.get(pk=job.pk).delay_reason, told


def test_jobs_with_chunks_that_are_due_are_said_to_be_delayed_once() -> None:
    jobs = [factories.make_job(2), factories.make_job()]
    factories.claim(jobs[0], 0)
    assert sweeper.mark_delayed(broker_away=True) == 2
    assert sweeper.mark_delayed(broker_away=True) == 0
    for job in jobs:
        assert delay_of(job) == ("queue_unavailable", ["job.delayed"])


def test_a_job_that_does_not_wait_for_the_broker_is_not_delayed_by_it() -> None:
    running, waiting, ended, down = (factories.make_job(2) for _ in range(4))
    for index in range(2):
        factories.claim(running, index)
    factories.make_completed_job("done")
    for index in range(2):
        factories.fail(factories.claim(waiting, index))  # due again in some seconds
    actions.cancel(ended.pk)
    with changing(down.pk) as change:
        change.delay("engine_unavailable")
    assert sweeper.mark_delayed(broker_away=True) == 0
    assert delay_of(running) == delay_of(waiting) == delay_of(ended) == ("", [])
    assert delay_of(down) == ("engine_unavailable", ["job.delayed"])


def test_a_job_is_delayed_no_longer_when_its_chunks_are_claimed() -> None:
    job = factories.make_job(2)
    sweeper.mark_delayed(broker_away=True)
    factories.claim(job, 0)
    assert delay_of(job) == ("", ["job.delayed", "job.resumed"])
    factories.claim(job, 1)
    assert sweeper.mark_delayed(broker_away=True) == 0
    assert delay_of(job) == ("", ["job.delayed", "job.resumed"])


def test_jobs_go_on_when_the_broker_is_back_also_before_anyone_claims_their_chunks() -> None:
    waiting, down = factories.make_job(2), factories.make_job()
    sweeper.mark_delayed(broker_away=True)
    with changing(down.pk) as change:
        change.delay("engine_unavailable")
    assert sweeper.mark_delayed(broker_away=False) == 1
    assert sweeper.mark_delayed(broker_away=False) == 0
    assert delay_of(waiting) == ("", ["job.delayed", "job.resumed"])
    assert delay_of(down)[0] == "engine_unavailable"


def test_a_chunk_that_is_claimed_between_look_and_mark_delays_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job, gone = factories.make_job(), factories.make_job()
    begin = changing

    def late(job_id: UUID) -> Any:
        if job_id == job.pk:
            factories.claim(job)
        else:
            actions.delete(gone.pk)
        return begin(job_id)

    monkeypatch.setattr(sweeper, "changing", late)
    assert sweeper.mark_delayed(broker_away=True) == 0
    assert delay_of(job) == ("", [])


def test_no_more_than_a_batch_is_marked_in_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "BATCH", 2)
    for _ in range(3):
        factories.make_job()
    assert [sweeper.mark_delayed(broker_away=True) for _ in range(3)] == [2, 1, 0]


def test_a_job_past_its_deadline_ends_with_what_it_has(sent: list[DueChunk]) -> None:
    job = factories.make_job(3)
    factories.complete(factories.claim(job, 1), "kept")
    running = factories.claim(job, 2)
    past = timezone.now() - timedelta(hours=25)
    Job.objects.filter(pk=job.pk).update(submitted_time=past, deadline=from_now(-SECOND))
    factories.make_undispatched(job.pk)
    sweep(sent.append)
    assert sent == []
    assert job.chunks.get(index=0).error_code == "deadline_exceeded"
    assert job.chunks.get(index=2).status == "in_progress"
    assert Job.objects.get(pk=job.pk).status == "in_progress"
    assert factories.fail(running) is not None
    report = sweep(sent.append)
    assert (report.finished, sent) == (1, [])
    assert Job.objects.get(pk=job.pk).status == "failed"
    transcript = Transcript.objects.get(job=job)
    assert transcript.text == "kept"
    assert [gap["code"] for gap in transcript.gaps] == ["deadline_exceeded"] * 2


def test_a_job_that_was_given_more_time_since_it_was_looked_at_does_not_expire() -> None:
    job = factories.make_job(1)
    assert not sweeper._expire(job)
    assert job.chunks.get().status == "pending"


def test_nothing_expires_twice(sent: list[DueChunk]) -> None:
    job = factories.make_job(1)
    factories.claim(job)
    past = timezone.now() - timedelta(hours=25)
    Job.objects.filter(pk=job.pk).update(submitted_time=past, deadline=from_now(-SECOND))
    events = JobEvent.objects.count()
    sweep(sent.append)
    sweep(sent.append)
    assert JobEvent.objects.count() == events
    assert job.chunks.get().status == "in_progress"


def test_a_job_whose_finish_was_lost_is_finished(sent: list[DueChunk]) -> None:
    job = factories.make_job(2)
    for index in range(2):
        factories.complete(factories.claim(job, index), f"w{index}")
    assert sweep(sent.append).finished == 1
    assert Job.objects.get(pk=job.pk).status == "completed"
    assert Transcript.objects.get(job=job).text == "w0 w1"
    assert sweep(sent.append).finished == 0


def test_old_keys_and_long_gone_workers_are_cleared_away_and_young_ones_stay(
    sent: list[DueChunk],
) -> None:
    for key, hours in (("old", 25), ("young", 23)):
        made = IdempotencyKey.objects.create(user_id="alice", key=key, fingerprint="f")
        IdempotencyKey.objects.filter(pk=made.pk).update(
            created_time=from_now(-timedelta(hours=hours))
        )
    factories.claim(factories.make_job())
    WorkerProcess.objects.update(last_seen=from_now(-timedelta(hours=2)), pid_space="elsewhere")
    sweep(sent.append)
    assert list(IdempotencyKey.objects.values_list("key", flat=True)) == ["young"]
    assert not WorkerProcess.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_ten_sweeps_at_once_release_once_send_once_and_finish_once() -> None:
    crashed, done, lost = factories.make_job(4), factories.make_job(2), factories.make_job(6)
    for index in range(4):
        factories.claim(crashed, index)
    let_the_lease_run_out(crashed)
    for index in range(2):
        factories.complete(factories.claim(done, index))
    factories.make_undispatched(lost.pk)
    sent: list[DueChunk] = []
    reports: list[Any] = together(*[lambda: sweep(sent.append)] * 10)
    assert not [report for report in reports if isinstance(report, Exception)]
    assert sum(report.released for report in reports) == 4
    assert sum(report.finished for report in reports) == 1
    assert list(crashed.chunks.values_list("status", "crashes")) == [("pending", 1)] * 4
    assert JobEvent.objects.filter(job=done, type="job.completed").count() == 1
    assert Transcript.objects.filter(job=done).count() == 1
    keys = [(due.job_id, due.index) for due in sent]
    assert sorted(keys) == sorted(
        [(crashed.pk, n) for n in range(4)] + [(lost.pk, n) for n in range(6)]
    )


@pytest.mark.django_db(transaction=True)
def test_ten_boot_sweeps_at_once_send_each_chunk_at_least_once_and_change_no_state() -> None:
    job = factories.make_job(5)
    factories.claim(job, 0)
    Chunk.objects.filter(job=job).update(not_before=from_now(-SECOND))
    sent: list[DueChunk] = []
    together(*[lambda: sweep(sent.append, everything=True)] * 10)
    assert {due.index for due in sent} == {1, 2, 3, 4}
    assert list(job.chunks.order_by("index").values_list("status", "attempts")) == [
        ("in_progress", 1),
        *[("pending", 0)] * 4,
    ]


@pytest.mark.django_db(transaction=True)
def test_a_sweep_and_a_late_result_at_the_same_moment_leave_one_winner() -> None:
    for _ in range(4):
        job = factories.make_job()
        claim = factories.claim(job)
        let_the_lease_run_out(job)
        report, written = together(
            lambda: sweep(lambda chunk: None), partial(factories.complete, claim)
        )
        chunk = job.chunks.get()
        assert (report.released, chunk.status) == ((0, "completed") if written else (1, "pending"))
        finishing.finish_job(job.pk)
