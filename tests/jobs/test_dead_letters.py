"""Dead letters: which there are, who may redrive them, and how often the schedule does."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from asr.errors import EngineUnavailable
from jobs import actions, dead_letters, finishing
from jobs.dead_letters import Selection, Tally, tally
from jobs.models import Chunk, Job, JobEvent, from_now
from jobs.sweeper import DueChunk, sweep
from jobs.tasks import send_chunk
from tests import factories
from tests.dead_letters import die, make_dead_job, statuses
from tests.helpers import WorkerInTest, together, wait_until
from tests.scripted import ScriptedEngine

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


@pytest.fixture
def sent() -> list[DueChunk]:
    return []


@pytest.fixture
def every_two_hours(settings: Any) -> None:
    settings.DEAD_LETTER_RETRY_HOURS = 2.0


def dead(selection: Selection) -> set[str]:
    return {str(chunk) for chunk in selection.chunks}


def redriven(selection: Selection) -> list[list[str]]:
    return [[str(chunk) for chunk in chunks] for chunks in dead_letters.redrive(selection)]


def redrives_of(job: Job) -> list[int]:
    return list(job.chunks.order_by("index").values_list("redrives", flat=True))


# --- which there are ---


def test_a_failed_chunk_is_a_dead_letter_once_its_job_has_failed() -> None:
    running, cancelled = factories.make_job(2), factories.make_job(2)
    for job in (running, cancelled):
        die(job, 0, "engine_error")
    actions.cancel(cancelled.pk)
    factories.make_completed_job("x")
    assert not Chunk.objects.dead_letters().exists()
    factories.complete(factories.claim(running, 1))
    assert finishing.finish_job(running.pk)
    assert dead(Selection()) == {f"{running.pk}, part 1"}
    actions.retry(running.pk)
    assert not Chunk.objects.dead_letters().exists()


def test_dead_letters_are_selected_by_code_age_and_user() -> None:
    old = make_dead_job("engine_error", "invalid_audio", ended=3 * HOUR)
    new = make_dead_job("engine_error", "engine_timeout")
    bobs = make_dead_job("worker_crashed", user_id="bob", ended=3 * HOUR)

    assert dead(Selection()) == {
        f"{old.pk}, part 1",
        f"{new.pk}, part 1",
        f"{new.pk}, part 2",
        f"{bobs.pk}, part 1",
    }
    assert dead(Selection(codes=("invalid_audio",))) == {f"{old.pk}, part 2"}
    assert dead(Selection(codes=("invalid_audio", "engine_timeout"))) == {
        f"{old.pk}, part 2",
        f"{new.pk}, part 2",
    }
    assert dead(Selection(older_than=2 * HOUR)) == {f"{old.pk}, part 1", f"{bobs.pk}, part 1"}
    assert dead(Selection(older_than=2 * HOUR, user_id="bob")) == {f"{bobs.pk}, part 1"}
    assert dead(Selection(older_than=4 * HOUR)) == set()
    assert dead(Selection(codes=("engine_error",), older_than=HOUR)) == {f"{old.pk}, part 1"}


def test_the_tally_counts_chunks_and_jobs_by_code_and_class() -> None:
    make_dead_job("engine_error", "engine_error", "invalid_audio")
    make_dead_job("engine_error", "worker_crashed")
    assert tally(Selection()) == [
        Tally(code="engine_error", recoverable=True, chunks=3, jobs=2),
        Tally(code="worker_crashed", recoverable=True, chunks=1, jobs=1),
    ]
    assert tally(Selection(codes=("invalid_audio",))) == [
        Tally(code="invalid_audio", recoverable=False, chunks=1, jobs=1)
    ]
    assert tally(Selection(user_id="bob")) == []


# --- redriving them ---


def test_a_redrive_goes_job_by_job_and_leaves_the_rest_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dead_letters, "PAGE", 1)
    first = make_dead_job("engine_error", "invalid_audio", "worker_crashed")
    second = make_dead_job("invalid_audio")
    third = make_dead_job(None, "engine_timeout")
    assert redriven(Selection()) == [
        [f"{first.pk}, part 1", f"{first.pk}, part 3"],
        [f"{third.pk}, part 2"],
    ]
    assert statuses(first) == ["pending", "failed", "pending"]
    assert statuses(second) == ["failed"]
    assert statuses(third) == ["completed", "pending"]
    assert Job.objects.get(pk=second.pk).status == "failed"
    assert redriven(Selection()) == []


def test_a_redrive_that_is_interrupted_has_done_whole_jobs() -> None:
    jobs = [make_dead_job("engine_error", "engine_error") for _ in range(3)]
    steps = dead_letters.redrive(Selection())
    next(steps)
    steps.close()
    assert [statuses(job) for job in jobs] == [["pending"] * 2, ["failed"] * 2, ["failed"] * 2]
    assert redriven(Selection()) == [
        [f"{job.pk}, part 1", f"{job.pk}, part 2"] for job in jobs[1:]
    ], "the rest waits for the next redrive"


def test_a_job_that_fails_again_meanwhile_is_not_taken_again() -> None:
    first, second = make_dead_job("engine_error"), make_dead_job("engine_error")
    taken = []
    for chunks in dead_letters.redrive(Selection()):
        taken.append(chunks[0].job_id)
        die(chunks[0].job, 0, "engine_error")
        assert finishing.finish_job(chunks[0].job_id)
        assert len(taken) < 3
    assert taken == [first.pk, second.pk]


def test_what_is_gone_or_taken_by_somebody_else_meanwhile_is_passed_over() -> None:
    jobs = [make_dead_job("engine_error") for _ in range(4)]
    steps = dead_letters.redrive(Selection())
    assert next(steps)[0].job_id == jobs[0].pk
    actions.retry(jobs[1].pk)
    actions.delete(jobs[2].pk)
    assert [chunks[0].job_id for chunks in steps] == [jobs[3].pk]
    assert JobEvent.objects.filter(job=jobs[1], type="job.retried").count() == 1


@pytest.mark.django_db(transaction=True)
def test_four_redrives_at_once_retry_each_dead_letter_once() -> None:
    jobs = [make_dead_job("engine_error", "engine_error") for _ in range(5)]
    results = together(*[lambda: redriven(Selection())] * 4)
    assert sorted(chunk for result in results for step in result for chunk in step) == sorted(
        f"{job.pk}, part {number}" for job in jobs for number in (1, 2)
    )
    assert JobEvent.objects.filter(type="job.retried").count() == 5
    assert JobEvent.objects.filter(type="chunk.pending").count() == 10


# --- the schedule ---


def test_without_the_setting_the_schedule_retries_nothing(sent: list[DueChunk]) -> None:
    job = make_dead_job("engine_error", ended=1000 * HOUR)
    assert sweep(sent.append).redriven == 0
    assert not dead_letters.redrive_due(job.pk)
    assert statuses(job) == ["failed"]
    assert sent == []


def test_the_schedule_retries_what_is_old_enough_and_sends_it_in_the_same_sweep(
    every_two_hours: None, sent: list[DueChunk]
) -> None:
    old = make_dead_job("engine_error", None, ended=2.1 * HOUR)
    new = make_dead_job("engine_error", ended=1.9 * HOUR)
    report = sweep(sent.append)
    assert (report.redriven, report.sent) == (1, 1)
    assert "1 retried by schedule" in str(report)
    assert (statuses(old), statuses(new)) == (["pending", "completed"], ["failed"])
    assert (redrives_of(old), redrives_of(new)) == ([1, 0], [0])
    assert [(chunk.job_id, chunk.index) for chunk in sent] == [(old.pk, 0)]
    assert sweep(sent.append).redriven == 0
    assert len(sent) == 1, "the message that was sent is given its time"


def test_a_sweep_that_sends_nothing_leaves_the_messages_to_the_next_one(
    every_two_hours: None, sent: list[DueChunk]
) -> None:
    make_dead_job("engine_error", ended=3 * HOUR)
    assert sweep(None).redriven == 1
    assert sweep(sent.append).sent == 1


def test_the_schedule_never_takes_a_permanent_one(
    every_two_hours: None, sent: list[DueChunk]
) -> None:
    permanent = make_dead_job("invalid_audio", ended=1000 * HOUR)
    mixed = make_dead_job("audio_too_long", "engine_error", ended=1000 * HOUR)
    assert sweep(sent.append).redriven == 1
    assert statuses(permanent) == ["failed"]
    assert statuses(mixed) == ["failed", "pending"]
    assert redrives_of(mixed) == [0, 1]


def test_the_schedule_tries_three_times_and_a_person_as_often_as_they_like(
    every_two_hours: None, sent: list[DueChunk]
) -> None:
    job = make_dead_job("engine_error", ended=3 * HOUR)

    def fails_again_long_ago() -> None:
        die(job, 0, "engine_error")
        assert finishing.finish_job(job.pk)
        job.chunks.update(ended_time=from_now(-3 * HOUR))

    for redrives in (1, 2, 3):
        assert sweep(sent.append).redriven == 1
        assert redrives_of(job) == [redrives]
        fails_again_long_ago()
    for _ in range(2):
        assert dead_letters.jobs_due() == []
        assert sweep(sent.append).redriven == 0
        assert statuses(job) == ["failed"]
        assert redriven(Selection()) == [[f"{job.pk}, part 1"]]
        fails_again_long_ago()
        assert redrives_of(job) == [3], "no manual redrive gives the schedule a new budget"
    chunk = job.chunks.get()
    assert chunk.attempts == 6
    assert sweep(sent.append).redriven == 0


def test_two_sweepers_that_saw_the_same_dead_letter_redrive_it_once(every_two_hours: None) -> None:
    job = make_dead_job("engine_error", ended=3 * HOUR)
    seen_by_both = [dead_letters.jobs_due(), dead_letters.jobs_due()]
    assert seen_by_both == [[job.pk], [job.pk]]
    assert [dead_letters.redrive_due(job.pk) for _ in seen_by_both] == [True, False]
    assert redrives_of(job) == [1]
    assert JobEvent.objects.filter(job=job, type="job.retried").count() == 1


def test_a_sweeper_that_is_late_does_not_redrive_what_failed_again_just_now(
    every_two_hours: None,
) -> None:
    job = make_dead_job("engine_error", ended=3 * HOUR)
    seen_by_the_late_one = dead_letters.jobs_due()
    assert dead_letters.redrive_due(job.pk)
    die(job, 0, "engine_error")
    assert finishing.finish_job(job.pk)
    assert [dead_letters.redrive_due(job_id) for job_id in seen_by_the_late_one] == [False]
    assert (statuses(job), redrives_of(job)) == (["failed"], [1])


@pytest.mark.django_db(transaction=True)
def test_four_sweeps_at_once_redrive_each_dead_letter_once(every_two_hours: None) -> None:
    jobs = [make_dead_job("engine_error", "worker_crashed", ended=3 * HOUR) for _ in range(4)]
    sent: list[DueChunk] = []
    reports = together(*[lambda: sweep(sent.append)] * 4)
    assert sum(report.redriven for report in reports) == 4
    assert [redrives_of(job) for job in jobs] == [[1, 1]] * 4
    assert sorted((chunk.job_id, chunk.index) for chunk in sent) == [
        (job.pk, index) for job in jobs for index in range(2)
    ]


def test_a_backlog_comes_back_bit_by_bit_the_oldest_first(
    every_two_hours: None, sent: list[DueChunk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "SCHEDULED_AT_ONCE", 2)
    middle, oldest, newest = (
        make_dead_job("engine_error", ended=hours * HOUR) for hours in (5, 9, 3)
    )
    assert sweep(sent.append).redriven == 2
    assert [statuses(job) for job in (oldest, middle, newest)] == [
        ["pending"],
        ["pending"],
        ["failed"],
    ]
    assert sweep(sent.append).redriven == 1
    assert statuses(newest) == ["pending"]


@pytest.mark.django_db(transaction=True)
def test_when_the_engine_is_back_the_schedule_completes_the_job(
    every_two_hours: None, worker: WorkerInTest, script: ScriptedEngine
) -> None:
    job = make_dead_job("engine_error", None, ended=3 * HOUR)
    factories.put_audio("alice/00.wav")
    script.steps = [EngineUnavailable("engine_error", "stumbles once more"), "at last"]
    assert sweep(send_chunk).redriven == 1
    worker.start()
    wait_until(lambda: Job.objects.get(pk=job.pk).status == "completed")
    assert job.transcript.text == "at last kept"
    assert redrives_of(job) == [1, 0]
    assert not Chunk.objects.dead_letters().exists()
