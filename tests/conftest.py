"""What all tests share: callers, an engine with a script, a worker, and things that go away."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.cache import cache
from django.db import connections
from django.db.utils import OperationalError
from rest_framework.test import APIClient

from jobs import engines
from jobs.redis_clients import impatient_client
from tests import factories
from tests.helpers import WorkerInTest, broker, client_of, group_backend
from tests.scripted import ScriptedEngine
from tests.servers import start_redis


@pytest.fixture
def redis_is_empty() -> None:
    broker().client.flushdb()
    cache.clear()


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    """The engine of every job, which says what the test tells it to."""
    engine = ScriptedEngine()
    monkeypatch.setattr(engines, "get", lambda name: engine)
    return engine


@pytest.fixture
def alice(db: None) -> APIClient:
    """A caller with an ordinary token."""
    return client_of(factories.make_token("alice"))


@pytest.fixture
def bob(db: None) -> APIClient:
    return client_of(factories.make_token("bob"))


@pytest.fixture
def service(db: None) -> APIClient:
    """A caller with a service token."""
    return client_of(factories.make_token("robot", service=True))


@pytest.fixture
def anybody() -> APIClient:
    """A caller without sign-in."""
    return client_of()


@pytest.fixture
def database_down(transactional_db: None) -> Callable[[], Any]:
    """A context in which no connection to the database can be made, in no thread."""
    backend = type(connections["default"])

    def refuse(*args: Any) -> None:
        raise OperationalError("could not connect to server at /var/secret/place")

    @contextlib.contextmanager
    def down() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            connections.close_all()
            patch.setattr(backend, "get_new_connection", refuse)
            yield

    return down


@pytest.fixture
def redis_elsewhere(settings: Any) -> Iterator[Callable[[str], None]]:
    """Point broker, group callbacks and cache at another Redis."""
    client, group_client = broker().client, group_backend().client

    def move(url: str) -> None:
        broker().use(impatient_client(url))
        group_backend().client = impatient_client(url)
        settings.BROKER_URL = url
        settings.CACHES = {"default": settings.CACHES["default"] | {"LOCATION": url}}

    yield move
    broker().use(client)
    group_backend().client = group_client


@pytest.fixture
def worker(transactional_db: None, redis_is_empty: None) -> Iterator[WorkerInTest]:
    """It stops first; then the client comes back that is for those who only send."""
    client = broker().client
    running = WorkerInTest()
    yield running
    running.stop()
    broker().use(client)


@pytest.fixture
def raw_cache() -> redis.Redis:
    """The cache's own Redis client."""
    client: redis.Redis = cache.client.get_client()  # type: ignore[attr-defined]
    return client


@pytest.fixture
def stalling_redis(tmp_path: Path) -> Iterator[tuple[str, Callable[[int], None]]]:
    """A Redis of our own and a way to send it signals."""
    with contextlib.ExitStack() as stack:
        url = start_redis(stack, tmp_path)
        with redis.Redis.from_url(url) as client:
            pid = int(client.info("server")["process_id"])
        yield url, lambda number: os.kill(pid, number)
        os.kill(pid, signal.SIGCONT)
