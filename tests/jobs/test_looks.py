"""One look at the rows: a few statements for all, and no event lost or told twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection

from jobs import actions
from jobs.looks import OVERLAP, Asked, Seen, events_of, look
from jobs.models import EventType, Job, JobEvent, changing, from_now
from jobs.results import load_snapshots
from jobs.watching import AWAY_SECONDS, LIVE_SECONDS, UserChannel, _pause
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)

CountQueries = Callable[[int], Any]


def look_at(jobs: dict[UUID, int | None] | None = None, **more: Any) -> Seen:
    return look(Asked(jobs=jobs or {}, **{"users": {}, "looked_time": None, **more}))


def numbers(seen: Seen, job: Job) -> list[int]:
    return [event.sequence for event in seen.events.get(job.pk, ())]


def test_two_statements_tell_all_that_is_new_of_any_number_of_jobs(
    django_assert_num_queries: CountQueries,
) -> None:
    jobs = [factories.make_completed_job("a") for _ in range(5)]
    still, waited_for, gone = factories.make_job(1), factories.make_completed_job("b"), uuid4()
    asked: dict[UUID, int | None] = {job.pk: number for number, job in enumerate(jobs)}
    with django_assert_num_queries(2):
        seen = look_at({**asked, still.pk: 1, waited_for.pk: None, gone: 0})
    for number, job in enumerate(jobs):
        assert numbers(seen, job) == list(range(number + 1, 5))
    assert seen.jobs[still.pk] == (1, "in_progress")
    assert seen.jobs[waited_for.pk] == (4, "completed")
    assert still.pk not in seen.events
    assert waited_for.pk not in seen.events
    assert gone not in seen.jobs


def test_one_statement_tells_that_nothing_is_new(django_assert_num_queries: CountQueries) -> None:
    jobs = [factories.make_job(1) for _ in range(5)]
    with django_assert_num_queries(1):
        assert look_at({job.pk: 1 for job in jobs}).events == {}


def test_users_cost_two_more_and_one_for_jobs_that_were_not_known(
    django_assert_num_queries: CountQueries,
) -> None:
    known = factories.make_job(1)
    first = look_at(users={"alice": None, "bob": None})
    assert first.users == {"alice": {known.pk: 1}, "bob": {}}
    assert first.events == {}
    with django_assert_num_queries(2):
        second = look_at(users=first.users, looked_time=first.looked_time)
    assert second.users == first.users
    new = factories.make_completed_job("word", user_id="bob")
    factories.make_job(1, user_id="carol")
    with django_assert_num_queries(4):
        third = look_at(users=second.users, looked_time=second.looked_time)
    assert third.users == {"alice": {known.pk: 1}, "bob": {new.pk: 4}}
    assert third.known == {new.pk: 0}
    assert numbers(third, new) == [1, 2, 3, 4]


def test_a_job_that_both_a_user_and_a_reader_wait_for_is_read_from_the_earlier_number() -> None:
    job = factories.make_completed_job("a")
    known = {"alice": {job.pk: 3}}
    first = look_at(users={"alice": None})
    seen = look_at({job.pk: 1}, users=known, looked_time=first.looked_time)
    assert numbers(seen, job) == [2, 3, 4]
    seen = look_at({job.pk: 3}, users={"alice": {job.pk: 2}}, looked_time=first.looked_time)
    assert numbers(seen, job) == [3, 4]


def make_old(job: Job, age: timedelta) -> None:
    JobEvent.objects.filter(job=job).update(time=from_now(-age))
    Job.objects.filter(pk=job.pk).update(completed_time=from_now(-age))


@pytest.mark.parametrize("age", [timedelta(seconds=10), timedelta(seconds=90), timedelta(hours=1)])
def test_a_job_that_ended_is_known_or_forgotten_and_no_event_comes_twice(age: timedelta) -> None:
    job = factories.make_failed_job(None)
    channel = UserChannel()
    page = channel.page

    def look_again(before: Seen | None) -> Seen:
        time = before and before.looked_time
        seen = look_at(users={"alice": channel.known}, looked_time=time)
        channel.hear(seen.users["alice"], seen.known, seen.events)
        return seen

    first = look_again(None)
    make_old(job, age)
    second = look_again(first)
    assert (job.pk in second.users["alice"]) == (age < 2 * OVERLAP)
    actions.retry(job.pk)
    look_again(second)
    events = asyncio.run(page.turn()).events
    assert [event.sequence for event in events] == [job.sequence + 1, job.sequence + 2]


def test_what_is_told_is_the_event_as_it_is_stored() -> None:
    job = factories.make_job(1)
    with changing(job.pk) as change:
        change.record(EventType.JOB_DELAYED, text='"ä"\n')
    (event,) = events_of(job.pk, 1)
    stored = JobEvent.objects.get(job=job, sequence=2)
    time = stored.time.isoformat().replace("+00:00", "Z")
    assert event.text == (
        f'{{"sequence":2,"type":"job.delayed","jobId":"{job.pk}","time":"{time}",'
        '"data":{"text":"\\"ä\\"\\n"}}'
    )


def test_a_snapshot_and_its_number_are_of_the_same_moment() -> None:
    job, still = factories.make_job(2), factories.make_job(1)
    moved: list[int] = []

    def between(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if 'FROM "jobs_chunk"' in sql and len(moved) < 2:  # the job's row has been read by then
            moved.append(len(moved))
            thread = threading.Thread(target=_complete, args=(job, moved[-1]))
            thread.start()
            thread.join()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(between):
        found = load_snapshots([job.pk, still.pk])
    number, result = found[job.pk]
    assert number == 5
    assert [chunk["status"] for chunk in result["chunks"]] == ["completed", "completed"]
    assert found[still.pk][0] == 1
    assert moved == [0, 1]


def _complete(job: Job, index: int) -> None:
    factories.complete(factories.claim(job, index), "word")
    connection.close()


def test_a_job_that_never_rests_comes_with_the_earlier_number() -> None:
    job = factories.make_job(1)

    def between(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if 'FROM "jobs_chunk"' in sql:
            thread = threading.Thread(target=_delay, args=(job,))
            thread.start()
            thread.join()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(between):
        number, _ = load_snapshots([job.pk])[job.pk]
    assert number == Job.objects.get(pk=job.pk).sequence - 1


def _delay(job: Job) -> None:
    with changing(job.pk) as change:
        change.record(EventType.JOB_DELAYED)
    connection.close()


def test_a_job_that_goes_while_it_is_read_is_left_out() -> None:
    job = factories.make_job(1)

    def between(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        answer = execute(sql, params, many, context)
        if 'FROM "jobs_chunk"' in sql:
            thread = threading.Thread(target=_delete, args=(job,))
            thread.start()
            thread.join()
        return answer

    with connection.execute_wrapper(between):
        assert load_snapshots([job.pk, uuid4()]) == {}


def _delete(job: Job) -> None:
    if Job.objects.filter(pk=job.pk).exists():
        actions.delete(job.pk)
    connection.close()


def test_the_pause_follows_the_load() -> None:
    assert (_pause(0.001, live=True), _pause(0.001, live=False)) == LIVE_SECONDS
    assert _pause(0.02, live=True) == LIVE_SECONDS[1]
    assert _pause(0.5, live=True) == 1.0
    assert _pause(0.05, live=False) == 1.0
    assert _pause(9.0, live=False) == AWAY_SECONDS
