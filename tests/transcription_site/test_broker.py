"""The broker: impatient where a caller waits, patient where work waits, and hard to kill."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import dramatiq
import pytest
import redis
from django.conf import settings
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import GroupCallbacks, Retries, ShutdownNotifications, TimeLimit

from jobs import tasks
from jobs.redis_clients import impatient_client, patient_client
from tests.helpers import broker
from transcription_site.broker import SafeConsumer, SafeRedisBroker

CLOSED = "redis://127.0.0.1:1/0"


def kinds() -> list[type]:
    return [type(middleware) for middleware in broker().middleware]


def position(kind: type) -> int:
    (found,) = [n for n, each in enumerate(kinds()) if issubclass(each, kind)]
    return found


def test_the_time_limit_stands_last_so_that_retries_are_never_interrupted() -> None:
    assert position(TimeLimit) == len(kinds()) - 1
    assert position(Retries) < position(GroupCallbacks)
    assert not any(issubclass(kind, ShutdownNotifications) for kind in kinds()), "see interruption"
    assert kinds()[0].__name__ == "DbConnectionsMiddleware"


def test_retries_are_bounded() -> None:
    retries = broker().middleware[position(Retries)]
    assert (retries.max_retries, retries.min_backoff, retries.max_backoff) == (3, 2_000, 60_000)
    assert retries.retry_when is None


def test_the_lease_ends_before_the_time_limit_strikes() -> None:
    limit = tasks.transcribe_chunk.options["time_limit"]
    assert limit > settings.LEASE_SECONDS * 1000 > settings.ENGINE_DEADLINE_SECONDS * 1000


def test_cache_and_broker_have_a_redis_database_each() -> None:
    assert settings.CACHES["default"]["LOCATION"] != settings.BROKER_URL


def test_the_impatient_client_gives_up_within_two_seconds() -> None:
    began = time.monotonic()
    with pytest.raises(redis.RedisError):
        impatient_client(CLOSED).ping()
    assert time.monotonic() - began < 2


def test_the_patient_client_waits_for_a_connection_instead_of_failing() -> None:
    pool = patient_client(settings.BROKER_URL).connection_pool
    assert isinstance(pool, redis.BlockingConnectionPool)
    assert (pool.max_connections, pool.timeout) == (64, 30)
    retry = pool.make_connection().retry
    assert redis.TimeoutError not in retry._supported_errors
    assert redis.ConnectionError in retry._supported_errors


def test_changing_the_client_changes_the_scripts_too() -> None:
    used = SafeRedisBroker(url=CLOSED, middleware=[])
    names = set(used.scripts)
    client = impatient_client(settings.BROKER_URL)
    used.use(client)
    assert used.client is client
    assert set(used.scripts) == names
    assert all(script.registered_client is client for script in used.scripts.values())


def test_a_time_out_reaches_dramatiq_as_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    used = SafeRedisBroker(url=settings.BROKER_URL, middleware=[])

    def slow(*args: Any, **kwargs: Any) -> None:
        raise redis.TimeoutError("slow")

    monkeypatch.setitem(used.scripts, "dispatch", slow)
    with pytest.raises(redis.ConnectionError, match="slow"):
        used.do_qsize("chunks")


def test_a_consumer_that_cannot_requeue_says_that_its_connection_is_closed() -> None:
    used = SafeRedisBroker(url=CLOSED, middleware=[])
    assert used.consumer_class is SafeConsumer
    consumer = SafeConsumer(used, "chunks", prefetch=1, timeout=1000)
    with pytest.raises(ConnectionClosed):
        consumer.requeue([_Message()])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "rubbish", [b"no json {", b"\xff\xfe", b"[1, 2, 3]", b'{"actor_name": "a"}', b""]
)
def test_what_is_no_message_costs_no_other_message(rubbish: bytes) -> None:
    used = SafeRedisBroker(url=settings.BROKER_URL, middleware=[])
    queue = f"queue-{uuid4().hex}"
    used.declare_queue(queue)
    used.client.hset(f"dramatiq:{queue}.msgs", "1", rubbish)
    used.client.rpush(f"dramatiq:{queue}", "1")
    sound = [_message(queue, n) for n in range(3)]
    for message in sound:
        used.enqueue(message)
    consumer = used.consume(queue, prefetch=10, timeout=100)

    received = [next(consumer) for _ in sound]

    assert [message.args for message in received if message] == [(0,), (1,), (2,)]
    assert next(consumer) is None


def _message(queue: str, number: int) -> dramatiq.Message[Any]:
    return dramatiq.Message(
        queue_name=queue, actor_name="nobody", args=(number,), kwargs={}, options={}
    )


class _Message:
    options = {"redis_message_id": "1"}
