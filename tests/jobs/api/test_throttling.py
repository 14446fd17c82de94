"""The rate limit over HTTP: who is limited, by how much, and how an answer tells."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from tests import factories
from tests.helpers import client_of, together

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_is_empty")]
SEARCH = "/transcript/search"


def left(response: Any) -> tuple[int, str | None, str | None]:
    return (
        response.status_code,
        response.headers.get("RateLimit-Limit"),
        response.headers.get("RateLimit-Remaining"),
    )


@pytest.fixture
def limited(settings: Any) -> None:
    settings.RATE_LIMIT = (3, 60)


def test_unless_it_is_set_nobody_is_limited_and_redis_is_not_asked(
    alice: APIClient, raw_cache: Any
) -> None:
    before = raw_cache.info("stats")["total_commands_processed"]
    assert left(alice.get("/engines")) == (200, None, None)
    assert raw_cache.info("stats")["total_commands_processed"] - before <= 1  # INFO itself


@pytest.mark.usefixtures("limited")
def test_every_answer_tells_what_is_left_and_the_refusal_when_to_come_again(
    alice: APIClient,
) -> None:
    missing = "/transcript/01234567-89ab-7def-8123-456789abcdef"
    found = [alice.get(SEARCH), alice.get(missing), alice.post("/transcribe", {"x": 1})]
    assert [left(each) for each in found] == [(200, "3", "2"), (404, "3", "1"), (400, "3", "0")]
    refused = alice.get(SEARCH)
    assert left(refused) == (429, "3", "0")
    assert (refused["Retry-After"], refused["RateLimit-Reset"]) == ("20", "60")
    body = refused.json()
    assert body["type"] == "client_error"
    assert [(error["code"], error["attr"]) for error in body["errors"]] == [("throttled", None)]


@pytest.mark.usefixtures("limited")
def test_each_token_is_limited_by_itself(alice: APIClient, bob: APIClient) -> None:
    for _ in range(4):
        last = alice.get(SEARCH)
    assert last.status_code == 429
    assert left(bob.get(SEARCH)) == (200, "3", "2")
    assert left(client_of(factories.make_token("alice")).get(SEARCH)) == (200, "3", "2")


@pytest.mark.usefixtures("limited")
def test_service_tokens_and_staff_are_not_limited_and_other_sessions_are(
    service: APIClient, anybody: APIClient
) -> None:
    for _ in range(5):
        assert left(service.get(SEARCH)) == (200, None, None)
    anybody.force_login(factories.make_user("staff", is_staff=True))
    assert left(anybody.get(SEARCH)) == (200, None, None)
    anybody.force_login(factories.make_user("carol"))
    assert left(anybody.get(SEARCH)) == (200, "3", "2")
    another = client_of()
    another.force_login(factories.make_user("carol"))
    assert left(another.get(SEARCH)) == (200, "3", "1")


@pytest.mark.usefixtures("limited")
def test_neither_the_health_checks_nor_callers_without_sign_in_are_counted(
    alice: APIClient, anybody: APIClient
) -> None:
    for _ in range(5):
        assert left(alice.get("/healthz")) == (200, None, None)
        assert left(alice.get("/readyz"))[1] is None
        assert left(anybody.get(SEARCH)) == (401, None, None)


@pytest.mark.django_db(transaction=True)
def test_of_20_callers_at_once_exactly_5_are_let_through(settings: Any) -> None:
    settings.RATE_LIMIT = (5, 60)
    token = factories.make_token("alice")
    answers = together(*[lambda: client_of(token).get(SEARCH)] * 20)
    codes = [answer.status_code for answer in answers]
    assert (codes.count(200), codes.count(429)) == (5, 15)


@pytest.mark.usefixtures("limited")
def test_while_redis_is_away_everybody_is_let_through(
    alice: APIClient, redis_elsewhere: Callable[[str], None]
) -> None:
    redis_elsewhere("redis://127.0.0.1:1/0")
    for _ in range(5):
        assert left(alice.get(SEARCH)) == (200, None, None)


@pytest.mark.django_db(transaction=True)
def test_a_stalled_redis_keeps_no_submission_longer_than_2_seconds(
    settings: Any,
    redis_elsewhere: Callable[[str], None],
    stalling_redis: tuple[str, Callable[[int], None]],
) -> None:
    settings.RATE_LIMIT = (100, 60)
    alice, path = client_of(factories.make_token("alice")), factories.put_audio("alice/a.wav")
    url, send_signal = stalling_redis
    redis_elsewhere(url)
    assert left(alice.get(SEARCH))[1:] == ("100", "99")
    send_signal(signal.SIGSTOP)
    began = time.monotonic()
    response = alice.post("/transcribe", {"audioChunkPaths": [path]})
    assert response.status_code == 202, response.content
    assert time.monotonic() - began < 2.0
