"""Query parameters: what a call does not know it refuses, and what it documents it takes."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from rest_framework.test import APIClient

from tests import factories

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_is_empty")]

KNOWN = {
    "/transcript/search": {"userId": "alice", "jobStatus": "completed", "limit": "1"},
    "/transcript/{job}": {"wait": "0"},
    "/transcript/{job}/export/txt": {},
    "/usage": {"userId": "alice", "from": "2026-02-01", "to": "2026-02-03"},
    "/webhooks": {"userId": "alice", "limit": "1"},
    "/webhooks/{webhook}": {},
    "/webhooks/{webhook}/deliveries": {"limit": "1"},
    "/engines": {},
}


def refused(response: Any) -> list[tuple[str, str | None]]:
    assert response.status_code == 400, response.content
    return [(error["code"], error["attr"]) for error in response.json()["errors"]]


@pytest.fixture
def ids() -> dict[str, str]:
    webhook = factories.make_webhook("https://8.8.8.8/")
    job = factories.make_completed_job("secret words")
    return {"job": str(job.pk), "webhook": str(webhook.pk)}


@pytest.mark.parametrize("path", KNOWN)
def test_what_is_unknown_is_refused_by_its_name(
    alice: APIClient, ids: dict[str, str], path: str
) -> None:
    address, known = path.format(**ids), KNOWN[path]
    assert alice.get(address, known).status_code == 200
    assert alice.get(address, known | {"format": "json"}).status_code == 200
    response = alice.get(address, known | {"jobstatus": "failed", "another": ""})
    assert refused(response) == [("unknown_field", "another"), ("unknown_field", "jobstatus")]
    assert "secret words" not in response.content.decode()


def test_a_call_that_changes_something_changes_nothing(
    alice: APIClient, ids: dict[str, str]
) -> None:
    address = f"/transcript/{ids['job']}"
    assert refused(alice.delete(f"{address}?dryRun=true")) == [("unknown_field", "dryRun")]
    assert alice.get(address).status_code == 200
    path = factories.put_audio("alice/a.wav")
    asked = alice.post("/transcribe?language=en", {"audioChunkPaths": [path]})
    assert refused(asked) == [("unknown_field", "language")]


def test_the_pages_of_a_list_can_be_turned(alice: APIClient) -> None:
    for _ in range(2):
        factories.make_completed_job("word")
        factories.make_webhook("https://8.8.8.8/")
    for path in ("/transcript/search", "/webhooks"):
        first = alice.get(path, {"limit": 1}).json()
        second = alice.get(first["next"])
        assert second.status_code == 200
        assert len(second.json()["results"]) == 1
        assert alice.get(second.json()["previous"]).json() == first


def test_who_may_not_ask_is_told_that_first(anybody: APIClient, bob: APIClient) -> None:
    assert anybody.get("/usage?x=1").status_code == 401
    strange = bob.get(f"/transcript/{factories.make_job().pk}?x=1")
    missing = bob.get(f"/transcript/{uuid4()}?x=1")
    assert refused(strange) == refused(missing) == [("unknown_field", "x")]


@pytest.mark.parametrize("path", ["/schema", "/docs", "/redoc", "/healthz", "/readyz"])
def test_pages_and_checks_take_what_comes(anybody: APIClient, path: str) -> None:
    assert anybody.get(path, {"lang": "en", "x": "1"}).status_code == 200


@pytest.mark.parametrize("path", ["/transcript/search", "/usage", "/webhooks"])
def test_the_browsable_api_shows_the_answer_and_the_refusal(service: APIClient, path: str) -> None:
    for query, shown in (("", "resetTime|results"), ("?x=1", "unknown_field")):
        page = service.get(path + query, HTTP_ACCEPT="text/html")
        assert page["Content-Type"].startswith("text/html")
        text = page.content.decode()
        assert any(word in text for word in (*shown.split("|"), "limits"))
    assert service.options(path + "?x=1").status_code == 200


def test_half_a_character_can_be_named(alice: APIClient) -> None:
    assert refused(alice.get("/usage?%ED%A0%80=1"))[0][0] == "unknown_field"
