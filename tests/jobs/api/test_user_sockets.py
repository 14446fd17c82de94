"""WS /ws/transcripts: all jobs of a user, those of now and those to come."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from jobs import actions, finishing
from jobs.api import sockets
from jobs.models import Job, JobEvent, from_now
from tests import factories
from tests.jobs.api.socket_clients import Caller, Service, service

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("redis_is_empty"),
]
ALL = "/ws/transcripts"


@pytest.fixture
def web() -> Iterator[Service]:
    with service() as running:
        yield running


def told(caller: Caller, count: int) -> list[tuple[str, int]]:
    return [(message["jobId"], message["sequence"]) for message in caller.read_many(count)]


def make_old(job: Job) -> None:
    """Let an hour pass since all of it."""
    hour = timedelta(hours=-1)
    JobEvent.objects.filter(job=job).update(time=from_now(hour))
    Job.objects.filter(pk=job.pk).update(completed_time=from_now(hour))


def test_the_snapshot_shows_ones_own_jobs_in_progress_newest_first(web: Service) -> None:
    older, newer = factories.make_job(1), factories.make_job(2)
    factories.claim(older)
    factories.make_completed_job("done")
    factories.make_job(1, user_id="bob")
    with web.watch(ALL, factories.make_token("alice")) as caller:
        snapshot = caller.read()
    assert set(snapshot) == {"type", "transcripts", "sequences"}
    assert snapshot["type"] == "snapshot"
    shown = [transcript["jobId"] for transcript in snapshot["transcripts"]]
    assert shown == [str(newer.pk), str(older.pk)]
    assert snapshot["sequences"] == {str(newer.pk): 1, str(older.pk): 2}
    assert snapshot["transcripts"][1]["chunks"][0]["status"] == "in_progress"


def test_running_jobs_go_on_and_new_ones_begin_with_their_first_event(web: Service) -> None:
    running = factories.make_job(1)
    token = factories.make_token("alice")
    with web.watch(ALL, token) as one, web.watch(ALL, token) as other:
        assert one.read()["sequences"] == other.read()["sequences"] == {str(running.pk): 1}
        factories.make_completed_job("bobs", user_id="bob")
        factories.claim(running)
        new = factories.make_completed_job("at", "once")
        for caller in (one, other):
            events = told(caller, 7)
            assert [n for pk, n in events if pk == str(running.pk)] == [2]
            assert [n for pk, n in events if pk == str(new.pk)] == [1, 2, 3, 4, 5, 6]


def test_more_jobs_than_are_shown_at_first_are_told_of_all_the_same(
    web: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "SHOWN_AT_FIRST", 1)
    hidden, shown = factories.make_job(1), factories.make_job(1)
    with web.watch(ALL, factories.make_token("alice")) as caller:
        assert caller.read()["sequences"] == {str(shown.pk): 1}
        factories.claim(hidden)
        assert told(caller, 1) == [(str(hidden.pk), 2)]


def test_a_job_that_ended_is_told_of_again_when_it_is_retried(web: Service) -> None:
    lately, long_ago = factories.make_failed_job(None), factories.make_failed_job(None)
    make_old(long_ago)
    with web.watch(ALL, factories.make_token("alice")) as caller:
        assert caller.read()["transcripts"] == []
        for job in (lately, long_ago):
            actions.retry(job.pk)
            event = caller.read()
            assert (event["jobId"], event["sequence"]) == (str(job.pk), job.sequence + 1)
            assert event["type"] == "job.retried"
            assert caller.read()["type"] == "chunk.pending"


def test_what_is_deleted_is_no_more_told_of_and_the_others_are(web: Service) -> None:
    gone, stays = factories.make_job(1), factories.make_job(1)
    with web.watch(ALL, factories.make_token("alice")) as caller:
        assert len(caller.read()["transcripts"]) == 2
        actions.delete(gone.pk)
        factories.complete(factories.claim(stays), "word")
        assert told(caller, 2) == [(str(stays.pk), 2), (str(stays.pk), 3)]
        assert finishing.finish_job(stays.pk)
        assert caller.read()["type"] == "job.completed"


def test_one_job_may_be_watched_both_ways(web: Service) -> None:
    job = factories.make_job(1)
    token = factories.make_token("alice")
    with web.watch(ALL, token) as all_jobs, web.watch_job(job) as one:
        all_jobs.read()
        one.read()
        factories.complete(factories.claim(job), "word")
        assert told(all_jobs, 2) == told(one, 2) == [(str(job.pk), 2), (str(job.pk), 3)]


@pytest.mark.parametrize(
    ("service_token", "query", "shown"),
    [
        (True, "?userId=alice", "alice"),
        (True, "", "robot"),
        (False, "?userId=robot", "robot"),
        (False, "?userId=", "robot"),
    ],
)
def test_a_service_token_watches_whom_it_names_and_else_itself(
    web: Service, service_token: bool, query: str, shown: str
) -> None:
    jobs = {name: factories.make_job(1, user_id=name) for name in ("alice", "robot")}
    token = factories.make_token("robot", service=service_token)
    with web.watch(f"{ALL}{query}", token) as caller:
        assert list(caller.read()["sequences"]) == [str(jobs[shown].pk)]


@pytest.mark.parametrize(
    ("service_token", "query", "end"),
    [
        (False, "?userId=bob", (4403, "permission_denied")),
        (True, "?userId=a%20b", (4400, "invalid_user_id")),
        (True, "?userId=%00", (4400, "invalid_user_id")),
    ],
)
def test_others_are_refused(
    web: Service, service_token: bool, query: str, end: tuple[int, str]
) -> None:
    token = factories.make_token("alice", service=service_token)
    with web.watch(f"{ALL}{query}", token) as caller:
        assert caller.end() == end


def test_what_a_first_message_says_does_not_matter(web: Service) -> None:
    with web.watch(ALL, factories.make_token("alice"), first={"since": 5}) as caller:
        snapshot: Any = caller.read()
        assert snapshot["transcripts"] == []
