"""/healthz and /readyz: what is up, what is down, and what that means for the whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.db.utils import InterfaceError
from rest_framework.test import APIClient

from jobs import engines
from jobs.models import WorkerProcess, from_now
from tests.helpers import broker
from tests.scripted import ScriptedEngine

pytestmark = pytest.mark.django_db
PARTS = {"database", "broker", "cache", "storage", "engine", "workers"}


@pytest.fixture
def workers(db: None) -> None:
    WorkerProcess.objects.create(
        id=uuid4(),
        hostname="h",
        pid=1,
        pid_started=1,
        queues="chunks,control,local",
        started_time=Now(),
        last_seen=Now(),
    )


def readyz(client: APIClient) -> tuple[int, dict[str, Any]]:
    response = client.get("/readyz")
    body = response.json()
    assert set(body) >= PARTS | {"status"}
    assert "/" not in response.content.decode().replace("application/json", "")
    return response.status_code, body


def test_all_is_well(anybody: APIClient, workers: None) -> None:
    code, body = readyz(anybody)
    assert (code, body["status"]) == (200, "ok")
    assert {body[part]["status"] for part in PARTS} == {"up"}


def test_health_needs_no_sign_in_and_no_database(
    anybody: APIClient, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(0):
        response = anybody.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_without_a_worker_it_is_degraded(anybody: APIClient) -> None:
    code, body = readyz(anybody)
    assert (code, body["status"], body["workers"]["status"]) == (200, "degraded", "down")


def test_a_silent_worker_counts_for_nothing(anybody: APIClient, workers: None) -> None:
    from datetime import timedelta

    WorkerProcess.objects.update(last_seen=from_now(-timedelta(seconds=16)))
    assert readyz(anybody)[1]["workers"]["status"] == "down"


def test_a_queue_without_worker_is_named(anybody: APIClient, workers: None) -> None:
    WorkerProcess.objects.update(queues="chunks,control")
    _, body = readyz(anybody)
    assert body["status"] == "degraded"
    assert "local" in body["workers"]["reason"]


def test_with_redis_away_it_is_degraded(
    anybody: APIClient, workers: None, redis_elsewhere: Callable[[str], None]
) -> None:
    redis_elsewhere("redis://127.0.0.1:1/0")
    code, body = readyz(anybody)
    assert (code, body["status"]) == (200, "degraded")
    assert (body["broker"]["status"], body["cache"]["status"]) == ("down", "down")
    assert body["database"]["status"] == "up"


@pytest.mark.django_db(transaction=True)
def test_with_the_database_away_it_is_down_and_alive(
    anybody: APIClient, database_down: Callable[[], Any]
) -> None:
    with database_down():
        code, body = readyz(anybody)
        assert anybody.get("/healthz").status_code == 200
    assert (code, body["status"]) == (503, "down")
    assert body["database"] == {"status": "down", "reason": "database_unavailable"}
    assert body["broker"]["status"] == "up"
    assert readyz(anybody)[0] == 200


def test_a_connection_that_was_lost_is_a_database_that_is_away(
    anybody: APIClient, workers: None
) -> None:
    def lost(*args: Any) -> None:
        raise InterfaceError("connection already closed")

    with connection.execute_wrapper(lost):
        code, body = readyz(anybody)
    assert (code, body["status"], body["database"]["status"]) == (503, "down", "down")


def test_without_its_audio_root_it_is_down(
    anybody: APIClient, workers: None, settings: Any, audio_root: Path
) -> None:
    settings.AUDIO_ROOT = audio_root / "gone"
    code, body = readyz(anybody)
    assert (code, body["status"], body["storage"]["status"]) == (503, "down", "down")


def test_an_engine_that_is_not_configured_degrades(
    anybody: APIClient, workers: None, settings: Any
) -> None:
    settings.ASR_ENGINE = "openai"
    _, body = readyz(anybody)
    assert (body["status"], body["engine"]["reason"]) == ("degraded", "engine_misconfigured")


def test_no_engine_is_ever_called(anybody: APIClient, script: ScriptedEngine) -> None:
    readyz(anybody)
    assert script.calls == []


def test_a_redis_that_may_drop_messages_is_told(anybody: APIClient, workers: None) -> None:
    client = broker().client
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        _, body = readyz(anybody)
    finally:
        client.config_set("maxmemory-policy", "noeviction")
    assert (body["status"], body["broker"]["reason"]) == ("degraded", "broker_eviction_policy")


def test_the_processes_of_each_queue_that_messages_go_to_are_counted(
    anybody: APIClient, workers: None
) -> None:
    WorkerProcess.objects.create(
        id=uuid4(),
        hostname="h",
        pid=2,
        pid_started=1,
        queues="chunks,other",
        started_time=Now(),
        last_seen=Now(),
    )
    counted = readyz(anybody)[1]["workers"]
    assert counted == {"status": "up", "chunks": 2, "local": 1, "control": 1}
    assert set(engines.QUEUES) == set(counted) - {"status"} == broker().get_declared_queues()


@pytest.mark.parametrize("address", ["/healthz", "/readyz"])
@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_another_method_is_told_in_the_shape_of_errors(method: str, address: str) -> None:
    response = getattr(APIClient(enforce_csrf_checks=True), method)(address)
    assert response.status_code == 405
    assert set(response["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    assert response["Content-Type"] == "application/json"
    body = response.json()
    assert body["type"] == "client_error"
    (error,) = body["errors"]
    assert (error["code"], error["attr"]) == ("method_not_allowed", None)


@pytest.mark.parametrize("address", ["/healthz", "/readyz"])
def test_a_probe_is_answered_whatever_it_asks_for_and_whoever_it_is(
    anybody: APIClient, workers: None, address: str
) -> None:
    for headers in (
        {"accept": "text/html"},
        {"accept": "text/plain"},
        {"authorization": "Token no-such-token"},
    ):
        response = anybody.get(address, {"format": "xml"}, headers=headers)
        assert (response.status_code, response["Content-Type"]) == (200, "application/json")
        assert response.json()["status"] == "ok"
    assert anybody.head(address).status_code == 200
