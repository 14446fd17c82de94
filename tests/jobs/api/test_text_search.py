"""GET /transcript/search?text=…: the same on both databases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from rest_framework.test import APIClient

from jobs import actions, text_search
from jobs.finishing import finish_job
from jobs.models import Job, SearchText, changing_all
from tests import factories

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_is_empty")]

TEXTS = {
    "english": "The budget for March, and what we don't know.",
    "german": "Das Budget für März: größere Straßen, neue Übergänge.",
    "french": "L'été à Paris, c'est l'heure des cafés.",
    "japanese": "今日の会議は東京で始まります。",
    "korean": "오늘 회의는 서울에서",
    "codes": "Call 555-1234 at example.com, re: 12.5% of C++ and a_b.",
    "hindi": "हिन्दी में बैठक",
}


@pytest.fixture(params=["newest", "index"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How matches are found: among the newest jobs, or by the database's index."""
    if request.param == "index":
        monkeypatch.setattr(text_search.Found, "_newest", lambda *_: None)
    else:
        monkeypatch.setattr(text_search.Found, "_by_index", never)
    return str(request.param)


def never(*_: Any) -> Any:
    raise AssertionError("it was to be found otherwise")


@pytest.fixture
def jobs(db: None) -> dict[str, Job]:
    return {name: factories.make_completed_job(text) for name, text in TEXTS.items()}


def answer(client: APIClient, text: str, more: str = "") -> Any:
    response = client.get(f"/transcript/search?text={quote(text)}{more}")
    assert response.status_code == 200, response.content
    return response.json()


def ids(client: APIClient, text: str, more: str = "") -> list[str]:
    return [result["jobId"] for result in answer(client, text, more)["results"]]


def named(*jobs: Job) -> list[str]:
    return [str(job.pk) for job in jobs]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("budget", "german english"),
        ("BUDGET march", "english"),
        ("march budget", "english"),
        ("budget april", ""),
        ("budg", "german english"),
        ("budg for", ""),  # only the last word may go on
        ("the mar", "english"),
        ('"mar"', ""),
        ('"budget for"', "english"),
        ('"for budget"', ""),
        ('"budget mar"', ""),
        ("budget -march", "german"),
        ('budget -"budget for"', "german"),
        ('budget -"for budget"', "german english"),
        ("-march", ""),
        ("märz", "german"),
        ("marz", "german"),
        ("MÄRZ", "german"),
        ("ma\u0308rz", "german"),
        ("strassen", "german"),
        ("straße", "german"),
        ("Übergänge groessere", ""),
        ("ubergange grossere", "german"),
        ("don't know", "english"),
        ("don’t", "english"),
        ("heure", "french"),
        ("l'heure", "french"),
        ("ete cafe", "french"),
        ("会議", "japanese"),
        ("東京で", "japanese"),
        ("議会", ""),
        ("会議 -東京", ""),
        ("회의", "korean"),
        ("서울", "korean"),
        ("बैठक", "hindi"),
        ("12.5%", "codes"),
        ("555-1234", "codes"),
        ("example.com", "codes"),
        ("c++", "codes french"),
        ("a_b", "codes"),
        ("1234 call", "codes"),
        ("xyz", ""),
        ("budget AND march", "english"),
        ("budget OR july", ""),
    ],
)
def test_words_find_the_same_on_every_database(
    alice: APIClient, jobs: dict[str, Job], text: str, found: str
) -> None:
    assert ids(alice, text) == named(*(jobs[name] for name in found.split()))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "text",
    [
        *"'\"*^:()-+&|!<>{}[]\\/%_~$@;,.?#=`",
        *("a' & 'b", "':*", "\\", '"', '""', 'a"', "NEAR(a b)", "words:a", "a*b", "-", "--", "- a"),
        *("' OR 1=1 --", "%", "a:*", "!a", "<->", "@alice", "🎉", "\u200d", "x" * 200, "a " * 100),
    ],
)
def test_no_character_is_an_error(alice: APIClient, jobs: dict[str, Job], text: str) -> None:
    answer(alice, text)


@pytest.mark.parametrize("text", ["", "%20", "x" * 201, "a%00b"])
def test_what_is_no_text_is_refused(alice: APIClient, text: str) -> None:
    response = alice.get(f"/transcript/search?text={text}")
    assert response.status_code == 400
    assert [error["attr"] for error in response.json()["errors"]] == ["text"]


def test_a_result_is_the_whole_job_with_its_hit(alice: APIClient, jobs: dict[str, Job]) -> None:
    (result,) = answer(alice, "budget -april märz")["results"]
    shown = result.pop("hit")
    assert result == alice.get(f"/transcript/{result['jobId']}").json()
    assert shown["text"] == TEXTS["german"]
    assert [shown["text"][first:last] for first, last in shown["spans"]] == ["Budget", "März"]


def test_a_search_without_text_shows_no_hit(alice: APIClient, jobs: dict[str, Job]) -> None:
    results = alice.get("/transcript/search").json()["results"]
    assert len(results) == len(TEXTS)
    assert not any("hit" in result for result in results)


@pytest.mark.usefixtures("way")
def test_only_own_texts_are_searched(alice: APIClient, bob: APIClient, service: APIClient) -> None:
    mine = factories.make_completed_job("secret word")
    other = factories.make_completed_job("secret word", user_id="bob")
    upper = factories.make_completed_job("secret word", user_id="Alice")
    assert ids(alice, "secret") == ids(alice, "secret", "&userId=alice") == named(mine)
    assert ids(bob, "secret") == named(other)
    assert ids(service, "secret") == named(upper, other, mine)
    assert ids(service, "secret", "&userId=Alice") == named(upper)
    assert ids(service, "secret", "&userId=nobody") == []
    assert alice.get("/transcript/search?text=secret&userId=bob").status_code == 403


@pytest.mark.usefixtures("way")
def test_the_status_is_a_filter_beside_the_text(alice: APIClient) -> None:
    completed = factories.make_completed_job("the word")
    failed = factories.make_failed_job("the word", None)
    cancelled = factories.make_job(2)
    factories.complete(factories.claim(cancelled), "the word")
    assert ids(alice, "word") == named(failed, completed)  # that one is in progress
    actions.cancel(cancelled.pk)
    assert ids(alice, "word") == named(cancelled, failed, completed)
    assert ids(alice, "word", "&jobStatus=failed") == named(failed)
    assert ids(alice, "word", "&jobStatus=failed&jobStatus=cancelled") == named(cancelled, failed)
    assert ids(alice, "word", "&jobStatus=in_progress") == []


def retry(job: Job) -> None:
    actions.retry(job.pk)


def delete(job: Job) -> None:
    actions.delete(job.pk)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("act", [retry, delete])
def test_a_text_that_is_gone_is_not_found(alice: APIClient, act: Callable[[Job], None]) -> None:
    job, other = (factories.make_failed_job("the word", None) for _ in range(2))
    act(job)
    assert ids(alice, "word") == named(other)
    assert SearchText.objects.count() == 1


@pytest.mark.usefixtures("way")
def test_a_job_that_is_retried_is_found_by_its_new_text(alice: APIClient) -> None:
    job = factories.make_failed_job("the word", None)
    actions.retry(job.pk)
    factories.make_due(job.pk)
    factories.complete(factories.claim(job, 1), "another")
    finish_job(job.pk)
    assert ids(alice, "another word") == ids(alice, '"word another"') == named(job)


@pytest.mark.usefixtures("way")
def test_a_text_that_is_rewritten_is_found_by_the_new_one_alone(alice: APIClient) -> None:
    job, other = (factories.make_completed_job("the word") for _ in range(2))
    with changing_all([job.pk]) as changes:
        transcript = job.transcript
        transcript.text = "another text"
        text_search.keep(changes[job.pk].job, transcript)
    assert ids(alice, "word") == named(other)
    assert ids(alice, "text") == named(job)


@pytest.mark.usefixtures("way")
def test_pages_go_forth_and_back(alice: APIClient) -> None:
    made = [factories.make_completed_job(f"the word {n}") for n in range(5)]
    factories.make_completed_job("nothing")
    pages, address = [], "/transcript/search?text=word&limit=2"
    while address:
        body = alice.get(address).json()
        pages.append([result["jobId"] for result in body["results"]])
        address, before = body["next"], body["previous"]
    newest = named(*reversed(made))
    assert pages == [newest[:2], newest[2:4], newest[4:]]
    assert ["text=word" in (before or "")] == [True]
    back = alice.get(before).json()
    assert [result["jobId"] for result in back["results"]] == pages[1]


def test_a_rare_word_is_found_behind_many_jobs(
    alice: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_search, "NEWEST", 2)
    rare = [factories.make_completed_job("the rare word") for _ in range(2)]
    common = [factories.make_completed_job("the word") for _ in range(4)]
    assert ids(alice, "rare") == named(*reversed(rare))
    assert ids(alice, "word") == named(*reversed(common), *reversed(rare))
    assert ids(alice, "word", "&limit=1") == named(common[-1])
