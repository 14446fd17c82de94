"""GET /transcript/search: filters, pages, and that nothing committed is missed."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from rest_framework.test import APIClient

from jobs import actions
from jobs.models import Job
from tests import factories

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_is_empty")]


def search(client: APIClient, query: str = "") -> dict[str, Any]:
    response = client.get(f"/transcript/search{query and '?' + query}")
    assert response.status_code == 200, response.content
    body = dict(response.json())
    assert set(body) == {"next", "previous", "results"}
    return body


def ids(client: APIClient, query: str = "") -> list[str]:
    return [result["jobId"] for result in search(client, query)["results"]]


def named(*jobs: Job) -> list[str]:
    return [str(job.pk) for job in jobs]


def refused(client: APIClient, query: str, attr: str | None, status: int = 400) -> None:
    response = client.get(f"/transcript/search?{query}")
    assert response.status_code == status, (query, response.content)
    errors = response.json()["errors"]
    assert {error["attr"] for error in errors} == {attr}, (query, errors)


@pytest.fixture
def jobs(db: None) -> dict[str, Job]:
    made = {
        "failed": factories.make_failed_job("x", None),
        "completed": factories.make_completed_job("hello"),
        "bobs": factories.make_completed_job("secret", user_id="bob"),
        "in_progress": factories.make_job(),
        "cancelled": factories.make_job(),
    }
    actions.cancel(made["cancelled"].pk)
    return made


def test_an_ordinary_token_finds_its_own_jobs_newest_first(
    alice: APIClient, jobs: dict[str, Job]
) -> None:
    expected = named(*(jobs[name] for name in ("cancelled", "in_progress", "completed", "failed")))
    assert ids(alice) == expected
    assert ids(alice, "userId=alice") == expected


def test_results_are_whole_transcript_results(alice: APIClient, jobs: dict[str, Job]) -> None:
    for result in search(alice)["results"]:
        assert result == alice.get(f"/transcript/{result['jobId']}").json()


@pytest.mark.parametrize("status", ["failed", "completed", "in_progress", "cancelled"])
def test_a_status_is_a_filter(alice: APIClient, jobs: dict[str, Job], status: str) -> None:
    assert ids(alice, f"jobStatus={status}") == named(jobs[status])


def test_several_statuses_are_a_filter_too(alice: APIClient, jobs: dict[str, Job]) -> None:
    query = "jobStatus=failed&jobStatus=completed&jobStatus=failed"
    assert ids(alice, query) == named(jobs["completed"], jobs["failed"])


def test_a_service_searches_all_or_one(service: APIClient, jobs: dict[str, Job]) -> None:
    assert len(ids(service)) == 5
    assert ids(service, "userId=bob") == named(jobs["bobs"])
    assert ids(service, "jobStatus=completed") == named(jobs["bobs"], jobs["completed"])
    assert ids(service, "userId=bob&jobStatus=failed") == []
    assert ids(service, "userId=nobody") == []


def test_an_ordinary_token_does_not_search_another_user(
    alice: APIClient, jobs: dict[str, Job]
) -> None:
    refused(alice, "userId=bob", "userId", 403)
    refused(alice, "userId=nobody", "userId", 403)


@pytest.mark.parametrize(
    ("query", "attr"),
    [
        ("jobStatus=pending", "jobStatus.0"),
        ("jobStatus=completed&jobStatus=done", "jobStatus.1"),
        ("jobStatus=", "jobStatus.0"),
        ("jobStatus=COMPLETED", "jobStatus.0"),
        ("userId=", "userId"),
        ("userId=a/b", "userId"),
        ("userId=%00", "userId"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=%C3%BC", "cursor"),
        ("cursor=cD1ub3QtYS11dWlk", "cursor"),
    ],
)
def test_what_is_no_filter_is_refused(service: APIClient, query: str, attr: str) -> None:
    refused(service, query, attr)


def pages(client: APIClient, query: str) -> list[list[str]]:
    found, address = [], f"/transcript/search?{query}"
    while address:
        response = client.get(address)
        assert response.status_code == 200
        body = response.json()
        found.append([result["jobId"] for result in body["results"]])
        address = body["next"] and "?".join(urlsplit(body["next"])[2:4])
        assert len(found) < 50
    return found


@pytest.mark.parametrize("limit", [1, 3, 7, 8, 100])
def test_pages_hold_every_job_once_forth_and_back(alice: APIClient, limit: int) -> None:
    jobs = [factories.make_job() for _ in range(7)]
    expected = named(*reversed(jobs))
    there = pages(alice, f"limit={limit}")
    assert [job for page in there for job in page] == expected
    assert all(len(page) <= limit for page in there)
    assert search(alice, f"limit={limit}")["previous"] is None
    if len(there) > 1:
        last = alice.get(search(alice, f"limit={limit}")["next"]).json()
        first = alice.get(last["previous"]).json()
        assert [result["jobId"] for result in first["results"]] == there[0]


def test_pages_keep_their_filters(service: APIClient) -> None:
    wanted = [factories.make_job() for _ in range(3)]
    factories.make_job(user_id="bob")
    factories.make_completed_job("x")
    query = "userId=alice&jobStatus=in_progress&limit=2"
    assert pages(service, query) == [named(wanted[2], wanted[1]), named(wanted[0])]


def test_a_page_has_20_jobs_unless_asked(alice: APIClient) -> None:
    for _ in range(21):
        factories.make_job()
    body = search(alice)
    assert len(body["results"]) == 20
    assert body["next"]
    assert len(search(alice, "limit=100")["results"]) == 21
    assert len(search(alice, "limit=21")["results"]) == 21
    assert search(alice, "limit=21")["next"] is None


def test_a_hundred_and_first_job_is_on_a_second_page(alice: APIClient) -> None:
    jobs = [factories.make_job() for _ in range(102)]
    assert [len(page) for page in pages(alice, "limit=100")] == [100, 2]
    assert pages(alice, "limit=100")[1] == named(jobs[1], jobs[0])


def test_new_jobs_do_not_move_a_page_that_is_being_read(alice: APIClient) -> None:
    jobs = [factories.make_job() for _ in range(4)]
    first = search(alice, "limit=2")
    factories.make_job()
    second = alice.get(first["next"]).json()
    assert [result["jobId"] for result in second["results"]] == named(jobs[1], jobs[0])


def test_what_was_committed_is_seen_by_the_next_search(alice: APIClient) -> None:
    assert ids(alice) == []
    job = factories.make_job()
    assert ids(alice) == ids(alice, "jobStatus=in_progress") == named(job)
    factories.complete(factories.claim(job), "done")
    assert ids(alice, "jobStatus=in_progress") == named(job)
    from jobs.finishing import finish_job

    finish_job(job.pk)
    assert ids(alice, "jobStatus=in_progress") == []
    (result,) = search(alice, "jobStatus=completed")["results"]
    assert result["transcription"] == "done"
    actions.delete(job.pk)
    assert ids(alice) == []


def test_the_number_of_statements_does_not_depend_on_the_number_of_results(
    alice: APIClient, service: APIClient, django_assert_max_num_queries: Any
) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    def statements(client: APIClient) -> int:
        search(client)
        with CaptureQueriesContext(connection) as queries:
            search(client)
        return len(queries)

    def fill() -> None:
        factories.make_job(3)
        factories.make_completed_job("x", "y")

    fill()
    few = statements(alice), statements(service)
    for _ in range(8):
        fill()
    assert (statements(alice), statements(service)) == few
    assert few[0] <= 5
    assert few[1] <= 6


def test_with_a_warm_cache_a_page_of_ended_jobs_takes_two_statements(
    alice: APIClient, django_assert_num_queries: Any
) -> None:
    for _ in range(3):
        factories.make_completed_job("x")
    search(alice)
    with django_assert_num_queries(2):
        assert len(search(alice)["results"]) == 3


def test_search_wants_a_sign_in(anybody: APIClient) -> None:
    response = anybody.get("/transcript/search")
    assert response.status_code == 401
    assert response.json()["errors"][0]["code"] == "not_authenticated"
