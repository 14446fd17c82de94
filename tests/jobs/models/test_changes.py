"""The state machine: whatever happens, in whatever order, the rows tell one legal story."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db.models import F
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from asr.errors import EngineUnavailable
from jobs import actions, attempts, claims, finishing, liveness, setbacks
from jobs.models import (
    Chunk,
    ErasedJob,
    EventType,
    Job,
    JobEvent,
    JobGoneError,
    JobStatus,
    Transcript,
    UserIndexStamp,
    UserJobIndex,
    WorkerProcess,
    after_commit,
    changing,
    from_now,
)
from jobs.sweeper import DueChunk, sweep
from tests import factories

# The contract's moves, written down a second time: the code's own table is not asked.
JOB_STORY = {
    "job.completed": ({"in_progress"}, "completed"),
    "job.failed": ({"in_progress"}, "failed"),
    "job.cancelled": ({"in_progress"}, "cancelled"),
    "job.retried": ({"failed"}, "in_progress"),
}
CHUNK_STORY = {
    "chunk.started": ({"pending"}, "in_progress"),
    "chunk.pending": ({"in_progress", "failed"}, "pending"),
    "chunk.completed": ({"in_progress"}, "completed"),
    "chunk.failed": ({"in_progress", "pending"}, "failed"),
    "chunk.cancelled": ({"in_progress", "pending"}, "cancelled"),
}
ENDED = {"completed", "failed", "cancelled"}


def told(events: list[JobEvent], chunks: int) -> tuple[str, list[str]]:
    """Play the events back; the statuses that they lead to, every step checked."""
    job, states, retried = "in_progress", ["pending"] * chunks, False
    for event in events:
        if event.type in JOB_STORY:
            before, job_after = JOB_STORY[event.type]
            assert job in before, f"{event.type} in {job}"
            job, retried = job_after, event.type == "job.retried"
        elif event.type in CHUNK_STORY:
            index = event.data["index"]
            sources, after = CHUNK_STORY[event.type]
            assert states[index] in sources, f"{event.type} in {states[index]}"
            assert job == "in_progress", f"{event.type} of a job that has ended"
            if event.type == "chunk.pending" and states[index] == "failed":
                assert retried, "a failed chunk came back without a retry"
            states[index] = after
    return job, states


def all_rows(job_id: UUID) -> Any:
    """Everything stored of a job, to compare."""
    return (
        list(Job.objects.filter(pk=job_id).values()),
        list(Chunk.objects.filter(job_id=job_id).order_by("index").values()),
        list(JobEvent.objects.filter(job_id=job_id).order_by("sequence").values()),
        list(Transcript.objects.filter(job_id=job_id).values()),
        list(UserJobIndex.objects.filter(job_id=job_id).values()),
    )


class JobLife(RuleBasedStateMachine):
    """One job to which everything happens that can happen."""

    sent: list[DueChunk]

    @initialize(chunks=st.integers(1, 6))
    def accepted(self, chunks: int) -> None:
        self.job = factories.make_job(chunks)
        self.job_id = self.job.pk
        self.size = chunks
        self.claims: list[attempts.Claim] = []
        self.over: list[attempts.Claim] = []
        self.finished: dict[int, dict[str, Any]] = {}
        self.claimed_since_retry = [0] * chunks
        self.given_back = [0] * chunks
        self.deleted = False
        self.sent = []

    @invariant()
    def the_worker_lives(self) -> None:
        """Its thread beats by a connection of its own, which this transaction does not see."""
        WorkerProcess.objects.update(last_seen=from_now(timedelta(0)))

    def take(self, data: Any) -> attempts.Claim:
        claim: attempts.Claim = data.draw(st.sampled_from(self.claims))
        self.claims.remove(claim)
        self.over.append(claim)
        return claim

    def index(self, data: Any) -> int:
        return int(data.draw(st.integers(0, self.size - 1)))

    # --- what can happen ---

    @rule(data=st.data())
    def a_worker_claims(self, data: Any) -> None:
        index = self.index(data)
        claim = claims.claim_chunk(self.job_id, index)
        if claim is not None:
            assert not any(held.index == index for held in self.claims), "claimed twice"
            self.claims.append(claim)
            self.claimed_since_retry[index] += 1

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def a_result_arrives(self, data: Any) -> None:
        claim = self.take(data)
        assert factories.complete(claim, f"text {claim.index}")

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), permanent=st.booleans())
    def an_error_arrives(self, data: Any, permanent: bool) -> None:
        claim = self.take(data)
        error = factories.permanent() if permanent else factories.passing()
        again = factories.fail(claim, error)
        assert again is None or (again.seconds > 0 and again.counted and not permanent)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def the_engine_asks_to_wait(self, data: Any) -> None:
        claim = self.take(data)
        before = Chunk.objects.get(job_id=self.job_id, index=claim.index).errors
        error = EngineUnavailable("engine_error", "too many requests", retry_after=7.0)
        again = factories.fail(claim, error)
        assert again is not None
        assert (again.seconds, again.counted) == (7.0, False)
        assert Chunk.objects.get(job_id=self.job_id, index=claim.index).errors == before
        self.given_back[claim.index] += 1

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def the_worker_gives_back(self, data: Any) -> None:
        claim = self.take(data)
        before = Chunk.objects.get(job_id=self.job_id, index=claim.index)
        assert setbacks.give_back(claim)
        after = Chunk.objects.get(job_id=self.job_id, index=claim.index)
        assert after.attempts == before.attempts - 1
        assert (after.errors, after.crashes) == (before.errors, before.crashes)
        self.given_back[claim.index] += 1

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def a_lease_runs_out(self, data: Any) -> None:
        claim = self.take(data)
        Chunk.objects.filter(lease_token=claim.token).update(
            lease_expires_time=from_now(-timedelta(seconds=1))
        )
        assert sweep(self.sent.append).released == 1

    @precondition(lambda self: self.claims)
    @rule(silent=st.booleans())
    def the_worker_dies(self, silent: bool) -> None:
        if silent:
            WorkerProcess.objects.update(last_seen=from_now(-timedelta(seconds=16)))
        else:
            WorkerProcess.objects.all().delete()
        assert sweep(self.sent.append).released == len(self.claims)
        self.over += self.claims
        self.claims = []
        liveness.start()._beat()
        WorkerProcess.objects.update(last_seen=from_now(timedelta(0)))

    @precondition(lambda self: self.over)
    @rule(data=st.data(), kind=st.sampled_from(["result", "error", "give back"]))
    def a_frozen_worker_wakes(self, data: Any, kind: str) -> None:
        claim = data.draw(st.sampled_from(self.over))
        before = all_rows(self.job_id)
        match kind:
            case "result":
                assert not factories.complete(claim, "from the grave")
            case "error":
                assert factories.fail(claim) is None
            case _:
                assert not setbacks.give_back(claim)
        assert all_rows(self.job_id) == before

    @rule()
    def somebody_cancels(self) -> None:
        status = self.status()
        before = all_rows(self.job_id)
        try:
            assert actions.cancel(self.job_id) is (status == "in_progress")
        except actions.AlreadyEndedError:
            assert status in {"completed", "failed"}
        except JobGoneError:
            assert self.deleted
        if status == "in_progress":
            self.over += self.claims
            self.claims = []
        else:
            assert all_rows(self.job_id) == before

    @rule()
    def somebody_retries(self) -> None:
        status = self.status()
        before = all_rows(self.job_id)
        failed = Chunk.objects.filter(job_id=self.job_id, status="failed")
        indexes = list(failed.values_list("index", flat=True))
        try:
            actions.retry(self.job_id)
        except actions.NotFailedError:
            assert status != "failed"
            assert all_rows(self.job_id) == before
        except JobGoneError:
            assert self.deleted
        else:
            assert status == "failed"
            assert not Transcript.objects.filter(job_id=self.job_id).exists()
            for index in indexes:
                chunk = Chunk.objects.get(job_id=self.job_id, index=index)
                assert (chunk.status, chunk.errors, chunk.crashes) == ("pending", 0, 0)
                self.claimed_since_retry[index] = self.given_back[index] = 0

    @rule(everything=st.booleans())
    def the_sweeper_looks(self, everything: bool) -> None:
        self.sent.clear()
        sweep(self.sent.append, everything=everything)
        pending = Chunk.objects.filter(status="pending").values_list("index", flat=True)
        assert {chunk.index for chunk in self.sent} <= set(pending)

    @rule()
    def a_message_asks_to_finish(self) -> None:
        before, rows = self.status(), all_rows(self.job_id)
        ended = finishing.finish_job(self.job_id)
        assert ended == (before == "in_progress" and self.status() in {"completed", "failed"})
        if not ended:
            assert all_rows(self.job_id) == rows

    @rule()
    def time_passes(self) -> None:
        factories.make_due(self.job_id)
        factories.make_undispatched(self.job_id)

    # Rare, because nothing comes after it.
    @precondition(lambda self: len(self.over) > 6)
    @rule()
    def somebody_deletes(self) -> None:
        try:
            actions.delete(self.job_id)
        except JobGoneError:
            assert self.deleted
        self.over += self.claims
        self.claims = []
        self.deleted = True

    # --- what must always be so ---

    def status(self) -> str | None:
        return Job.objects.filter(pk=self.job_id).values_list("status", flat=True).first()

    @invariant()
    def the_rows_tell_one_story(self) -> None:
        if self.deleted:
            assert all_rows(self.job_id) == ([], [], [], [], [])
            assert ErasedJob.objects.filter(pk=self.job_id).count() == 1
            return
        job = Job.objects.get(pk=self.job_id)
        chunks = list(job.chunks.order_by("index"))
        events = list(job.events.order_by("sequence"))
        assert [event.sequence for event in events] == list(range(1, job.sequence + 1))
        assert events[0].type == "job.submitted"
        assert told(events, self.size) == (job.status, [chunk.status for chunk in chunks])
        index = UserJobIndex.objects.get(job_id=job.pk)
        assert (index.user_id, index.job_status) == (job.user_id, job.status)
        assert (job.completed_time is not None) == (job.status in ENDED)
        assert Transcript.objects.filter(job=job).exists() == (job.status in ENDED)
        if job.status in ENDED:
            assert all(chunk.status in ENDED for chunk in chunks)

    @invariant()
    def a_completed_chunk_never_changes(self) -> None:
        rows = Chunk.objects.filter(job_id=self.job_id)
        for index, then in self.finished.items():
            if not self.deleted:
                assert rows.values().get(index=index) == then
        for row in rows.filter(status="completed").values():
            assert row["text"] == f"text {row['index']}"
            self.finished[row["index"]] = dict(row)

    @invariant()
    def budgets_hold(self) -> None:
        for chunk in Chunk.objects.filter(job_id=self.job_id):
            assert chunk.errors <= 4
            assert chunk.crashes <= 3
            paid = self.claimed_since_retry[chunk.index] - self.given_back[chunk.index]
            assert paid <= 4 + 3
            assert (chunk.status == "in_progress") == (chunk.lease_token is not None)

    def teardown(self) -> None:
        """Whatever happened so far, going on to the end ends the job."""
        if hasattr(self, "job_id"):
            self.go_on_to_the_end()
            self.the_rows_tell_one_story()
            Job.objects.filter(pk=self.job_id).delete()

    def go_on_to_the_end(self) -> None:
        for turn in range(self.size * 8 + 8):
            if self.status() != "in_progress":
                return
            for index in range(self.size):
                factories.make_due(self.job_id)
                claim = claims.claim_chunk(self.job_id, index)
                if claim is not None and turn % 2:
                    factories.fail(claim)
            Chunk.objects.filter(status="in_progress").update(
                lease_expires_time=from_now(-timedelta(seconds=1))
            )
            sweep(self.sent.append)
        pytest.fail("the job does not end")


def test_every_order_of_events_leaves_one_legal_story_that_ends(db: None) -> None:
    run_state_machine_as_test(
        JobLife,
        settings=settings(
            max_examples=30,
            stateful_step_count=25,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


# --- the parts of a change, one by one ---


@pytest.fixture
def job(db: None) -> Job:
    return factories.make_job(2)


def test_a_move_that_is_not_legal_changes_nothing_and_says_so(job: Job) -> None:
    before = all_rows(job.pk)
    with changing(job.pk) as change:
        assert not change.move_chunk(0, "completed", EventType.CHUNK_COMPLETED)  # type: ignore[arg-type]
        assert not change.move_chunk(7, "failed", EventType.CHUNK_FAILED)  # type: ignore[arg-type]
    assert all_rows(job.pk) == before


def test_a_change_that_raises_leaves_no_trace(job: Job) -> None:
    before, stamp = all_rows(job.pk), UserIndexStamp.of(job.user_id)

    def breaks_off() -> None:
        with changing(job.pk) as change:
            change.record(EventType.JOB_DELAYED, delayReason="x")
            assert change.move_job(JobStatus.CANCELLED, EventType.JOB_CANCELLED)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        breaks_off()
    assert all_rows(job.pk) == before
    assert UserIndexStamp.of(job.user_id) == stamp


def test_changing_a_job_that_is_not_there_raises(db: None) -> None:
    with pytest.raises(JobGoneError), changing(uuid4()):
        pytest.fail("there is nothing to change")


def test_every_status_change_of_a_job_renews_its_users_stamp_and_nobody_elses(job: Job) -> None:
    factories.make_job(user_id="bob")
    mine, other = UserIndexStamp.of("alice"), UserIndexStamp.of("bob")
    actions.cancel(job.pk)
    assert UserIndexStamp.of("alice") != mine
    assert UserIndexStamp.of("bob") == other


def test_a_delay_is_told_once_and_taken_back_once(job: Job) -> None:
    for reason in ("queue_unavailable", "queue_unavailable", "", ""):
        with changing(job.pk) as change:
            change.delay(reason)
    events = JobEvent.objects.filter(job=job).values_list("type", "data")
    assert list(events)[1:] == [
        ("job.delayed", {"delayReason": "queue_unavailable"}),
        ("job.resumed", {}),
    ]


def test_a_job_that_has_ended_is_not_delayed_any_more(job: Job) -> None:
    actions.cancel(job.pk)
    before = all_rows(job.pk)
    with changing(job.pk) as change:
        change.delay("queue_unavailable")
    assert all_rows(job.pk) == before


def test_a_claim_raises_attempts_before_the_work_and_names_its_worker(job: Job) -> None:
    claim = factories.claim(job, 1)
    chunk = job.chunks.get(index=1)
    assert (chunk.status, chunk.attempts, chunk.errors) == ("in_progress", 1, 0)
    assert chunk.lease_token == claim.token
    alive = WorkerProcess.objects.alive().values_list("pk", flat=True)
    assert list(alive) == [chunk.worker_id]
    assert job.chunks.get(index=0).attempts == 0


def test_a_chunk_is_not_claimed_before_its_time(job: Job) -> None:
    Chunk.objects.filter(job=job).update(not_before=from_now(timedelta(seconds=30)))
    before = all_rows(job.pk)
    assert claims.claim_chunk(job.pk, 0) is None
    assert all_rows(job.pk) == before


def test_events_of_a_job_with_a_hundred_changes_have_no_hole(job: Job) -> None:
    for _ in range(50):
        assert setbacks.give_back(factories.claim(job, 0))
    numbers = (
        JobEvent.objects.filter(job=job).order_by("sequence").values_list("sequence", flat=True)
    )
    assert list(numbers) == list(range(1, 102))
    assert job.chunks.filter(index=0, attempts=F("errors")).exists()


@pytest.mark.django_db(transaction=True)
def test_what_fails_after_a_commit_is_logged_and_stops_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done: list[str] = []

    def fail(word: str) -> None:
        raise OSError(word)

    job = factories.make_job()
    with changing(job.pk) as change:
        change.record(EventType.JOB_RESUMED)
        after_commit(fail, "no room")
        after_commit(done.append, "the next")
        assert done == []
    assert done == ["the next"]
    assert JobEvent.objects.filter(job=job, type="job.resumed").exists()
    assert "no room" in caplog.text
