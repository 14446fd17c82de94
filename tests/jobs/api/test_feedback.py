"""Ratings and reports over HTTP: what is kept, of which jobs, and how it is refused."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from rest_framework.test import APIClient

from jobs import actions, feedback
from jobs.api import feedback as api
from jobs.models import MistakeReport, Rating
from tests import factories
from tests.helpers import client_of, is_somebody_waiting, together, wait_until

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_is_empty")]


def error(answer: Any) -> tuple[int, str, str | None]:
    body = answer.json()
    assert set(body) == {"type", "errors"}
    return answer.status_code, body["errors"][0]["code"], body["errors"][0]["attr"]


def test_a_rating_is_kept_replaced_and_taken_back(alice: APIClient) -> None:
    job = factories.make_completed_job("hello", "world")
    address, shown = f"/transcript/{job.pk}/rating", alice.get(f"/transcript/{job.pk}").content
    assert error(alice.get(address)) == (404, "not_found", None)
    first = alice.put(address, {"stars": 2, "comment": "fair\nenough"})
    assert (first.status_code, first.json()) == (200, alice.get(address).json())
    assert (
        first.json().items()
        >= {
            "jobId": str(job.pk),
            "stars": 2,
            "comment": "fair\nenough",
            "userId": "alice",
            "engine": "scripted",
            "model": "m",
        }.items()
    )
    second = alice.put(address, {"stars": 5}).json()
    assert (second["stars"], second["comment"]) == (5, "")
    assert second["time"] >= first.json()["time"]
    assert Rating.objects.count() == 1
    assert alice.get(f"/transcript/{job.pk}").content == shown
    assert alice.delete(address).status_code == 204
    assert error(alice.delete(address)) == (404, "not_found", None)
    assert not Rating.objects.exists()


def test_mistakes_are_reported_and_listed_newest_first(alice: APIClient) -> None:
    job = factories.make_completed_job("hello word", "good by")
    address, shown = f"/transcript/{job.pk}/mistakes", alice.get(f"/transcript/{job.pk}").content
    place = {"kind": "wrong_word", "index": 1, "startTime": 3.25}
    said = {"heard": "good by", "meant": "good-bye", "comment": "twice"}
    made = alice.post(address, place | said)
    assert made.status_code == 201
    whose = {"jobId": str(job.pk), "userId": "alice", "engine": "scripted", "model": "m"}
    assert made.json().items() >= (place | said | whose).items()
    whole = alice.post(address, {"kind": "other"}).json()
    assert [whole[name] for name in ("index", "startTime", "heard")] == [None, None, ""]
    listed = alice.get(address).json()
    assert listed["results"] == [whole, made.json()]
    pages = [alice.get(f"{address}?limit=1").json()]
    pages.append(alice.get(pages[0]["next"]).json())
    assert [page["results"] for page in pages] == [[whole], [made.json()]]
    assert alice.get(f"/transcript/{job.pk}").content == shown


def test_while_a_job_runs_nothing_new_is_said_of_it(alice: APIClient) -> None:
    job = factories.make_failed_job("kept", None)
    rating, mistakes = f"/transcript/{job.pk}/rating", f"/transcript/{job.pk}/mistakes"
    assert alice.put(rating, {"stars": 1}).status_code == 200
    assert alice.post(mistakes, {"kind": "missing_words", "index": 1}).status_code == 201
    actions.retry(job.pk)
    assert error(alice.put(rating, {"stars": 5})) == (409, "not_completed", None)
    assert error(alice.post(mistakes, {"kind": "other"})) == (409, "not_completed", None)
    assert alice.get(rating).json()["stars"] == 1
    assert len(alice.get(mistakes).json()["results"]) == 1


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled"])
def test_however_a_job_has_ended_it_can_be_rated(alice: APIClient, state: str) -> None:
    if state == "cancelled":
        job = factories.make_job(2)
        actions.cancel(job.pk)
    else:
        job = factories.make_failed_job("x", None if state == "failed" else "y")
    answer = alice.put(f"/transcript/{job.pk}/rating", {"stars": 3})
    assert answer.status_code == 200
    assert answer.json()["engine"] == (None if state == "cancelled" else "scripted")


@pytest.mark.parametrize(
    ("body", "attr"),
    [
        ({}, "stars"),
        ({"stars": 0}, "stars"),
        ({"stars": 6}, "stars"),
        ({"stars": 2.5}, "stars"),
        ({"stars": "4"}, "stars"),
        ({"stars": True}, "stars"),
        ({"stars": None}, "stars"),
        ({"stars": 10**400}, "stars"),
        ({"stars": 4, "comment": "x" * 2001}, "comment"),
        ({"stars": 4, "comment": None}, "comment"),
        ({"stars": 4, "comment": "\0"}, "comment"),
        ({"stars": 4, "user": "bob"}, "user"),
    ],
)
def test_a_rating_that_is_none_is_refused(
    alice: APIClient, body: dict[str, Any], attr: str
) -> None:
    job = factories.make_completed_job("x")
    status, _, named = error(alice.put(f"/transcript/{job.pk}/rating", body))
    assert (status, named) == (400, attr)
    assert not Rating.objects.exists()


@pytest.mark.parametrize(
    ("body", "attr"),
    [
        ({"kind": None}, "kind"),
        ({"kind": "typo"}, "kind"),
        ({"index": 1}, "index"),
        ({"index": -1}, "index"),
        ({"index": "0"}, "index"),
        ({"startTime": -1}, "startTime"),
        ({"startTime": "1"}, "startTime"),
        ({"startTime": 10**400}, "startTime"),
        ({"heard": "x" * 501}, "heard"),
        ({"meant": "x" * 501}, "meant"),
        ({"meant": 7}, "meant"),
        ({"comment": "x" * 2001}, "comment"),
        ({"engine": "best"}, "engine"),
    ],
)
def test_a_report_that_is_none_is_refused(
    alice: APIClient, body: dict[str, Any], attr: str
) -> None:
    job = factories.make_completed_job("x")
    body = {"kind": "other", **body}
    status, _, named = error(alice.post(f"/transcript/{job.pk}/mistakes", body))
    assert (status, named) == (400, attr)
    assert not MistakeReport.objects.exists()


@pytest.mark.parametrize("seconds", ["NaN", "Infinity", "1e999"])
def test_seconds_that_are_no_number_are_refused(alice: APIClient, seconds: str) -> None:
    job = factories.make_completed_job("x")
    body = f'{{"kind": "other", "startTime": {seconds}}}'
    answer = alice.generic(
        "POST", f"/transcript/{job.pk}/mistakes", body, content_type="application/json"
    )
    assert answer.status_code == 400


def test_what_is_as_long_as_it_may_be_is_kept(alice: APIClient) -> None:
    job = factories.make_completed_job("x")
    said = {"heard": "ö" * 500, "meant": "語" * 500, "comment": "😀" * 2000}
    assert alice.post(
        f"/transcript/{job.pk}/mistakes", {"kind": "other", **said}
    ).json().items() >= (said.items())


@pytest.mark.django_db(transaction=True)
def test_a_job_has_no_more_reports_than_it_may_also_when_many_report_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard_by = feedback._heard_by

    def held_up(chunks: Any) -> Any:
        wait_until(lambda: is_somebody_waiting() or MistakeReport.objects.exists())
        return heard_by(chunks)

    monkeypatch.setattr(feedback, "_heard_by", held_up)
    monkeypatch.setattr(feedback, "MAX_REPORTS", 2)
    token, job = factories.make_token("alice"), factories.make_completed_job("x")
    say = partial(_post, token, f"/transcript/{job.pk}/mistakes")
    answers = together(*[say] * 4)
    assert sorted(answer.status_code for answer in answers) == [201, 201, 409, 409]
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert error(refused) == (409, "too_many_reports", None)
    assert MistakeReport.objects.count() == 2


def _post(token: str, address: str) -> Any:
    return client_of(token).post(address, {"kind": "other"})


@pytest.mark.django_db(transaction=True)
def test_two_who_rate_at_once_leave_one_rating() -> None:
    token, job = factories.make_token("alice"), factories.make_completed_job("x")
    rate = [partial(_put, token, f"/transcript/{job.pk}/rating", stars) for stars in (1, 5, 3)]
    assert [answer.status_code for answer in together(*rate)] == [200] * 3
    assert Rating.objects.get().stars in (1, 3, 5)


def _put(token: str, address: str, stars: int) -> Any:
    return client_of(token).put(address, {"stars": stars})


def test_a_service_token_speaks_in_its_own_name(service: APIClient) -> None:
    job = factories.make_completed_job("x")
    said = service.put(f"/transcript/{job.pk}/rating", {"stars": 3}).json()
    assert said["userId"] != "alice"
    assert Rating.objects.get().user_id == said["userId"]


def test_of_a_job_that_is_gone_nothing_is_said(
    alice: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = factories.make_completed_job("x")
    alice.put(f"/transcript/{job.pk}/rating", {"stars": 3})
    look = api.RatingViewSet.visible

    def delete_then(view: Any, job_id: Any) -> Any:
        stamp = look(view, job_id)
        actions.delete(job_id)
        return stamp

    monkeypatch.setattr(api.RatingViewSet, "visible", delete_then)
    address = f"/transcript/{job.pk}/rating"
    assert error(alice.put(address, {"stars": 3})) == (410, "erased", None)
    assert not Rating.objects.exists()
