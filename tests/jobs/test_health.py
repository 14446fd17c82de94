"""/healthz and /readyz: what is up, what is down, and what that means for the whole."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import redis
from django.conf import settings
from django.db import connection
from django.db.models.functions import Now
from django.db.utils import InterfaceError
from rest_framework.test import APIClient

from asr.breaker import FAILURES_TO_OPEN
from jobs import breakers, engines, storage
from jobs.models import UsageDay, WorkerProcess, database_time, from_now
from jobs.storage import local
from tests.factories import put_audio
from tests.helpers import broker
from tests.object_storage import KEY, ObjectStorage
from tests.scripted import ScriptedEngine
from tests.servers import start_redis

pytestmark = pytest.mark.django_db
PARTS = {"database", "broker", "cache", "storage", "engine", "spending", "workers"}


@pytest.fixture
def workers(db: None) -> None:
    WorkerProcess.objects.create(
        id=uuid4(),
        hostname="h",
        pid=1,
        pid_started=1,
        queues="chunks,control,local,webhooks,sweeper",
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
    WorkerProcess.objects.update(queues="chunks,control,webhooks,sweeper")
    _, body = readyz(anybody)
    assert body["status"] == "degraded"
    assert body["workers"]["reason"] == "no worker for local"


def test_a_system_that_nobody_sweeps_is_degraded(anybody: APIClient, workers: None) -> None:
    WorkerProcess.objects.update(queues="chunks,control,local,webhooks")
    _, body = readyz(anybody)
    assert (body["status"], body["workers"]["sweeper"]) == ("degraded", 0)
    assert body["workers"]["reason"] == "no sweeper"


def test_with_redis_away_it_is_degraded(
    anybody: APIClient, workers: None, redis_elsewhere: Callable[[str], None]
) -> None:
    redis_elsewhere("redis://127.0.0.1:1/0")
    code, body = readyz(anybody)
    assert (code, body["status"]) == (200, "degraded")
    assert body["broker"] == body["cache"] == {"status": "down", "reason": "away"}
    assert body["database"]["status"] == "up"


@pytest.fixture
def frozen_redis(tmp_path: Path) -> Iterator[str]:
    """A Redis that is stopped: it takes connections and says nothing."""
    with ExitStack() as stack:
        url = start_redis(stack, tmp_path)
        with redis.Redis.from_url(url) as client:
            pid = client.info("server")["process_id"]
        os.kill(pid, signal.SIGSTOP)
        stack.callback(os.kill, pid, signal.SIGCONT)
        yield url


def test_with_redis_stalled_it_says_so_and_does_not_stall_itself(
    anybody: APIClient,
    workers: None,
    frozen_redis: str,
    redis_elsewhere: Callable[[str], None],
    script: ScriptedEngine,
) -> None:
    redis_elsewhere(frozen_redis)
    began = time.monotonic()
    code, body = readyz(anybody)
    assert time.monotonic() - began < 4  # 1.3 s on a machine that is not busy
    assert (code, body["status"]) == (200, "degraded")
    assert body["broker"] == body["cache"] == {"status": "down", "reason": "stalled"}
    assert body["engine"] == {"status": "up", "name": "pocketsphinx"}, "its breaker is not known"


@pytest.mark.parametrize("password", ["", ":wrong@"])
def test_a_redis_that_wants_another_password_is_told_apart(
    anybody: APIClient,
    workers: None,
    tmp_path: Path,
    redis_elsewhere: Callable[[str], None],
    password: str,
) -> None:
    with ExitStack() as stack:
        url = urlsplit(start_redis(stack, tmp_path))
        with redis.Redis.from_url(url.geturl()) as client:
            client.config_set("requirepass", "right")
        redis_elsewhere(url._replace(netloc=f"{password}{url.netloc}").geturl())
        assert readyz(anybody)[1]["broker"] == {"status": "down", "reason": "credentials_refused"}


@pytest.mark.usefixtures("redis_is_empty")
@pytest.mark.django_db(transaction=True)
def test_a_redis_without_room_is_told_and_jobs_are_taken_in(
    alice: APIClient, workers: None
) -> None:
    client = broker().client
    client.config_set("maxmemory", 1)
    try:
        _, body = readyz(alice)
        accepted = alice.post("/transcribe", {"audioChunkPaths": [put_audio("alice/a.wav")]})
        result = alice.get(accepted["Location"]).json()
    finally:
        client.config_set("maxmemory", 0)
    assert (body["status"], body["broker"]["status"]) == ("degraded", "down")
    assert body["broker"]["reason"] == "broker_full"
    assert accepted.status_code == 202
    assert (result["delayed"], result["delayReason"]) == (True, "queue_unavailable")
    assert readyz(alice)[1]["broker"] == {"status": "up"}


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
    assert (code, body["status"]) == (503, "down")
    assert body["storage"] == {
        "status": "down",
        "reason": "storage_unavailable",
        "detail": "the audio root is not there: see AUDIO_ROOT",
    }


def test_refused_credentials_of_a_bucket_are_told_without_them(
    anybody: APIClient, workers: None, settings: Any, object_storage: ObjectStorage
) -> None:
    options = object_storage.options("audio")
    options["credentials"] = {"aws_access_key_id": KEY, "aws_secret_access_key": "not-the-secret"}
    backend = "jobs.storage.s3.S3AudioStorage"
    settings.STORAGES = settings.STORAGES | {"audio": {"BACKEND": backend, "OPTIONS": options}}
    code, body = readyz(anybody)
    assert (code, body["status"]) == (503, "down")
    assert body["storage"]["reason"] == "credentials_refused"
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in body["storage"]["detail"]
    assert not any(secret in str(body) for secret in (KEY, "not-the-secret", object_storage.url))


def test_with_hardly_any_room_for_audio_it_is_degraded(
    anybody: APIClient, workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "LITTLE_ROOM_BYTES", 1 << 62)
    monkeypatch.setattr(local, "LITTLE_ROOM_SHARE", 1.0)  # no disk is as empty as that
    code, body = readyz(anybody)
    assert (code, body["status"]) == (200, "degraded")
    assert body["storage"] == {"status": "degraded", "reason": "disk_full"}


@pytest.mark.parametrize(
    ("free", "size", "names", "full"),
    [
        (199, 1 << 40, 5, True),  # megabytes
        (201, 1 << 40, 5, False),
        (4, 500, 5, True),
        (6, 500, 5, False),
        (201, 1 << 40, 0, True),
    ],
)
def test_little_room_is_200_mb_and_on_a_small_disk_a_hundredth(
    monkeypatch: pytest.MonkeyPatch, free: int, size: int, names: int, full: bool
) -> None:
    values = {"f_bavail": free, "f_blocks": size, "f_frsize": 10**6, "f_files": 9}
    disk = SimpleNamespace(**values, f_favail=names)
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    assert storage.audio_files().is_full() is full


def test_a_disk_without_a_count_of_names_is_not_full(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SimpleNamespace(f_bavail=900, f_blocks=999, f_frsize=10**6, f_files=0, f_favail=0)
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    assert storage.audio_files().is_full() is False


def test_an_engine_that_is_down_degrades_until_a_probe_finds_it_well(
    anybody: APIClient, workers: None, script: ScriptedEngine
) -> None:
    name = settings.ASR_ENGINE
    up = {"status": "up", "name": name, "breaker": "closed", "down": []}
    assert readyz(anybody)[1]["engine"] == up
    for _ in range(FAILURES_TO_OPEN):
        with breakers.admit(name) as call:
            call.failed()

    code, body = readyz(anybody)
    assert (code, body["status"]) == (200, "degraded")
    degraded = {"status": "degraded", "reason": "engine_unavailable"}
    unavailable = {**degraded, "name": name, "down": [name]}
    assert body["engine"] == unavailable | {"breaker": "open"}

    state, now = breakers.store().read(name)
    assert breakers.store().swap(name, state, replace(state, open_until=now - 1))
    with breakers.admit(name) as probe:
        assert readyz(anybody)[1]["engine"] == unavailable | {"breaker": "probing"}
        probe.succeeded()
    assert readyz(anybody)[1]["engine"] == up
    assert script.calls == []


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
    queues = {"chunks": 2, "local": 1, "control": 1, "webhooks": 1}
    assert counted == {"status": "up", **queues, "sweeper": 1}
    assert set(engines.QUEUES) == set(queues) == broker().get_declared_queues()


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


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize(
    ("price", "status", "reason"),
    [
        ("7.99", "up", None),
        ("8.00", "degraded", "spending_cap_near"),
        ("10.00", "degraded", "spending_cap_reached"),
    ],
)
def test_a_cap_that_is_near_is_told(
    anybody: APIClient, settings: Any, price: str, status: str, reason: str | None
) -> None:
    settings.SPENDING_CAP_USD_PER_MONTH = Decimal(10)
    day = {"user_id": "alice", "engine": "openai", "day": database_time().date()}
    UsageDay.objects.create(**day, calls=1, price_usd=Decimal(price))
    code, body = readyz(anybody)
    assert (code, body["status"]) == (200, "ok" if status == "up" else "degraded")
    assert (body["spending"]["status"], body["spending"].get("reason")) == (status, reason)
