"""The cache is an accelerator: whatever lies in it, nothing stale is ever answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
from django.core.cache import cache as django_cache
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from jobs import actions, cache, finishing
from jobs.models import Job, UserIndexStamp
from tests import factories
from tests.helpers import client_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("redis_is_empty")]

Snapshot = dict[bytes, bytes]


@pytest.fixture
def snapshot(raw_cache: redis.Redis) -> Callable[[], Snapshot]:
    def take() -> Snapshot:
        client: Any = raw_cache
        return {key: client.get(key) for key in client.keys("*")}

    return take


@pytest.fixture
def put_back(raw_cache: redis.Redis) -> Callable[[Snapshot], None]:
    """An old Redis comes back with what it held when it went away."""

    def put(entries: Snapshot) -> None:
        assert entries, "there was nothing in the cache: the test would show nothing"
        for key, value in entries.items():
            raw_cache.set(key, value)

    return put


def read(job: Job) -> dict[str, Any]:
    response = client_of(factories.make_token("alice")).get(f"/transcript/{job.pk}")
    assert response.status_code == 200, response.content
    return dict(response.json())


def found(*statuses: str) -> list[str]:
    query = "&".join(f"jobStatus={status}" for status in statuses)
    response = client_of(factories.make_token("alice")).get(f"/transcript/search?{query}")
    assert response.status_code == 200, response.content
    return [result["jobId"] for result in response.json()["results"]]


def test_an_ended_job_is_written_through_and_read_without_the_database() -> None:
    job = factories.make_completed_job("hello", "world")
    with CaptureQueriesContext(connection) as queries:
        (result,) = cache.read_results({job.pk: job.sequence}).values()
    assert len(queries) == 0
    assert result["transcription"] == "hello world"
    stamp = UserIndexStamp.of("alice")
    assert stamp is not None
    with CaptureQueriesContext(connection) as queries:
        assert cache.first_page("alice", [], stamp) == [job.pk]
        assert cache.first_page("alice", ["completed"], stamp) == [job.pk]
    assert len(queries) == 0


def test_a_job_in_progress_is_not_cached(snapshot: Callable[[], Snapshot]) -> None:
    job = factories.make_failed_job("hello", None)
    raw_keys = [key for key in snapshot() if str(job.pk).encode() in key]
    assert len(raw_keys) == 1  # as it was when it had failed
    actions.retry(job.pk)
    read(job)
    assert raw_keys == [key for key in snapshot() if str(job.pk).encode() in key]


def test_what_is_read_is_what_was_cached() -> None:
    job = factories.make_failed_job("hello", None)
    warm = read(job)
    django_cache.clear()
    cold = read(job)
    again = read(job)
    assert warm == cold == again
    assert cold["gaps"][0]["code"] == "invalid_audio"


def test_what_is_sent_from_the_cache_is_what_the_framework_renders() -> None:
    job = factories.make_completed_job("你好", 'a "quoted" word')
    title = "one line\N{LINE SEPARATOR}and another"
    Job.objects.filter(pk=job.pk).update(title=title, sequence=F("sequence") + 1)
    read(job)  # another version, which is now in the cache
    client = client_of(factories.make_token("alice"))
    warm = client.get(f"/transcript/{job.pk}").content
    django_cache.clear()
    assert warm == client.get(f"/transcript/{job.pk}").content
    assert "你好".encode() in warm


def test_every_entry_ends_some_day(raw_cache: redis.Redis) -> None:
    factories.make_completed_job("x")
    keys = raw_cache.keys("*")
    assert keys
    for key in keys:
        assert 0 < raw_cache.ttl(key) <= 24 * 3600 * 1.1


def test_an_old_failed_result_is_never_served_after_a_retry(
    snapshot: Callable[[], Snapshot], put_back: Callable[[Snapshot], None]
) -> None:
    job = factories.make_failed_job("one", None)
    assert read(job)["jobStatus"] == "failed"
    assert found("failed") == [str(job.pk)]
    old = snapshot()
    actions.retry(job.pk)
    put_back(old)
    result = read(job)
    assert (result["jobStatus"], result["transcription"]) == ("in_progress", None)
    assert (result["completedTime"], result["gaps"]) == (None, [])
    assert (found("failed"), found("in_progress")) == ([], [str(job.pk)])

    factories.complete(factories.claim(job, 1), "two")
    assert finishing.finish_job(job.pk)
    put_back(old)
    result = read(job)
    assert (result["jobStatus"], result["transcription"]) == ("completed", "one two")
    assert (found("failed"), found("completed")) == ([], [str(job.pk)])


def test_a_second_failure_is_not_mistaken_for_the_first(
    snapshot: Callable[[], Snapshot], put_back: Callable[[Snapshot], None]
) -> None:
    job = factories.make_failed_job(None, None)
    read(job)
    old = snapshot()
    actions.retry(job.pk)
    factories.complete(factories.claim(job, 0), "one")
    factories.fail(factories.claim(job, 1), factories.permanent())
    assert finishing.finish_job(job.pk)
    put_back(old)
    assert read(job)["transcription"] == "one"


def test_a_deleted_job_is_never_served_from_the_cache(
    snapshot: Callable[[], Snapshot], put_back: Callable[[Snapshot], None]
) -> None:
    job, other = factories.make_completed_job("gone"), factories.make_completed_job("stays")
    read(job)
    old = snapshot()
    actions.delete(job.pk)
    put_back(old)
    client = client_of(factories.make_token("alice"))
    assert client.get(f"/transcript/{job.pk}").status_code == 410
    assert found() == [str(other.pk)]
    assert found("completed") == [str(other.pk)]


def test_deleting_frees_the_memory_of_the_result(snapshot: Callable[[], Snapshot]) -> None:
    job = factories.make_completed_job("gone")
    read(job)
    actions.delete(job.pk)
    assert not [key for key in snapshot() if str(job.pk).encode() in key]


def test_a_page_from_before_a_new_job_is_not_served_after_it(
    snapshot: Callable[[], Snapshot], put_back: Callable[[Snapshot], None]
) -> None:
    first = factories.make_completed_job("x")
    assert found() == [str(first.pk)]
    old = snapshot()
    second = factories.make_job()
    put_back(old)
    assert found() == [str(second.pk), str(first.pk)]


def test_a_cancelled_job_leaves_the_page_of_running_ones() -> None:
    job = factories.make_job()
    assert found("in_progress") == [str(job.pk)]
    actions.cancel(job.pk)
    assert (found("in_progress"), found("cancelled")) == ([], [str(job.pk)])


def test_a_write_that_comes_late_stores_nothing_that_is_read_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between commit and write-through the job is retried: the late writer writes old news."""
    late: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(cache, "write_job_through", lambda *args: late.append(args))
        job = factories.make_failed_job("one", None)
    django_cache.clear()
    actions.retry(job.pk)
    cache.write_job_through(*late[0])
    assert read(job)["jobStatus"] == "in_progress"
    factories.complete(factories.claim(job, 1), "two")
    finishing.finish_job(job.pk)
    cache.write_job_through(*late[0])
    assert read(job)["transcription"] == "one two"


def test_results_that_change_while_they_are_loaded_are_not_mixed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A retry between the reading of the job and of its transcript must not show half of each."""
    job = factories.make_failed_job("one", None)
    django_cache.clear()
    from jobs import results

    make = results.transcript_result
    seen: list[dict[str, Any]] = []

    def noted(*args: Any) -> dict[str, Any]:
        seen.append(make(*args))
        return seen[-1]

    monkeypatch.setattr(results, "transcript_result", noted)
    queries: list[str] = []

    def retry_before_the_last_query(execute: Any, sql: str, *args: Any) -> Any:
        if "jobs_transcript" in sql and not queries:
            queries.append(sql)
            actions.retry(job.pk)
        return execute(sql, *args)

    with connection.execute_wrapper(retry_before_the_last_query):
        answer = results.load_results([job.pk])[job.pk]
    if answer["jobStatus"] == "failed":
        assert answer["transcription"] == "one"


def test_with_the_cache_flushed_everything_is_answered_from_the_rows() -> None:
    job = factories.make_completed_job("hello")
    django_cache.clear()
    assert read(job)["transcription"] == "hello"
    django_cache.clear()
    assert found("completed") == [str(job.pk)]


def test_with_the_cache_away_everything_is_answered_from_the_rows(
    redis_elsewhere: Callable[[str], None],
) -> None:
    redis_elsewhere("redis://127.0.0.1:1/0")
    job = factories.make_completed_job("hello")
    assert read(job)["transcription"] == "hello"
    assert found("completed") == [str(job.pk)]
    actions.delete(job.pk)
    assert found() == []


@pytest.mark.parametrize("rubbish", [b"not json", b"\xff\xfe"])
def test_rubbish_in_the_cache_is_not_answered(raw_cache: redis.Redis, rubbish: bytes) -> None:
    job = factories.make_completed_job("hello")
    for key in raw_cache.keys("*"):
        raw_cache.set(key, rubbish)
    assert read(job)["transcription"] == "hello"
    assert found("completed") == [str(job.pk)]
