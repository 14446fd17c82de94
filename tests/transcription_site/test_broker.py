"""The broker: impatient where a caller waits, patient where work waits, and hard to kill."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, cast
from uuid import uuid4

import dramatiq
import pytest
import redis
from django.conf import settings
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import GroupCallbacks, Retries, ShutdownNotifications, TimeLimit

from jobs import tasks, turns
from jobs.redis_clients import impatient_client, patient_client
from tests.helpers import WorkerInTest, broker
from transcription_site.broker import SafeConsumer, SafeRedisBroker
from transcription_site.doorbell import CHANNEL

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


def test_a_message_may_take_two_whole_turns_and_a_lease_of_lending() -> None:
    """A turn is a lease of work, one to write the result, one to finish the job."""
    turn = 3 * settings.LEASE_SECONDS
    limit = tasks.transcribe_chunk.options["time_limit"]
    assert limit == (2 * turn + settings.LEASE_SECONDS) * 1000


def test_a_worker_says_how_many_threads_it_has_until_it_ends(worker: WorkerInTest) -> None:
    assert turns.threads.all == 1
    worker.start(threads=3)
    assert turns.threads.all == 3
    worker.stop()
    assert turns.threads.all == 1


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


# --- what is sent together ---


@pytest.fixture
def sender() -> SafeRedisBroker:
    """A broker that has sent something already: its connection is open, its script is known."""
    used = SafeRedisBroker(url=settings.BROKER_URL, middleware=[])
    used.enqueue(_message(_queue(used), 0))
    return used


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often this thread has spoken to Redis since it was last asked."""
    spoken: list[threading.Thread] = []
    send = redis.Connection.send_packed_command

    def counted(self: redis.Connection, *args: Any, **kwargs: Any) -> None:
        spoken.append(threading.current_thread())
        send(self, *args, **kwargs)

    def count() -> int:
        number = spoken.count(threading.current_thread())
        spoken.clear()
        return number

    monkeypatch.setattr(redis.Connection, "send_packed_command", counted)
    return count


def test_messages_that_are_sent_together_go_at_the_end_in_one_round_trip(
    sender: SafeRedisBroker, round_trips: Callable[[], int]
) -> None:
    queue = _queue(sender)
    sent = [_message(queue, n) for n in range(24)]
    with sender.together():
        for message in sent:
            sender.enqueue(message)
        assert round_trips() == 0
        assert sender.do_qsize(queue) == 0
        round_trips()
    assert round_trips() == 1
    assert _contents(sender, queue) == list(range(24))


def test_a_message_that_is_sent_alone_takes_one_round_trip(
    sender: SafeRedisBroker, round_trips: Callable[[], int]
) -> None:
    queue = _queue(sender)
    sender.enqueue(_message(queue, 1))
    assert round_trips() == 1
    assert _contents(sender, queue) == [1]


def test_each_queue_is_rung_once_however_many_messages_it_gets(sender: SafeRedisBroker) -> None:
    queues = [_queue(sender), _queue(sender)]
    with sender.client.pubsub() as channel:
        channel.subscribe(CHANNEL)
        assert channel.get_message(timeout=30) is not None
        with sender.together():
            for number in range(6):
                sender.enqueue(_message(queues[number % 2], number))
        sender.client.publish(CHANNEL, "end")
        rung = [channel.get_message(timeout=30)["data"].decode() for _ in range(3)]
    assert (sorted(rung[:2]), rung[2]) == (sorted(queues), "end")


def test_a_bell_that_may_not_be_rung_makes_no_sent_message_an_error(
    sender: SafeRedisBroker,
) -> None:
    """Redis 7 gives a new user no channels unless it is told to."""
    admin = redis.Redis.from_url(settings.BROKER_URL)
    rules = ("on", "nopass", "~*", "+@all", "resetchannels")
    admin.execute_command("ACL", "SETUSER", "mute", *rules)
    try:
        mute = redis.Redis.from_url(settings.BROKER_URL, username="mute", password="any")
        with pytest.raises(redis.exceptions.NoPermissionError):
            mute.publish(CHANNEL, "")
        queue = _queue(sender)
        sender.use(mute)
        sender.enqueue(_message(queue, 1))
        assert _contents(sender, queue) == [1]
    finally:
        admin.execute_command("ACL", "DELUSER", "mute")


def test_when_something_goes_wrong_before_the_end_none_is_sent(sender: SafeRedisBroker) -> None:
    queue = _queue(sender)
    with pytest.raises(ZeroDivisionError), sender.together():
        _stumble_after(lambda: sender.enqueue(_message(queue, 1)))
    assert sender.do_qsize(queue) == 0
    sender.enqueue(_message(queue, 2))  # and what comes next does not wait for company
    assert _contents(sender, queue) == [2]


def test_what_another_thread_sends_meanwhile_goes_its_own_way(sender: SafeRedisBroker) -> None:
    queue = _queue(sender)

    def send_meanwhile() -> None:
        sender.enqueue(_message(queue, 2))
        with sender.together():
            sender.enqueue(_message(queue, 3))

    with sender.together():
        sender.enqueue(_message(queue, 1))
        thread = threading.Thread(target=send_meanwhile)
        thread.start()
        thread.join(30)
        assert sender.do_qsize(queue) == 2
    assert _contents(sender, queue) == [2, 3, 1]


def test_a_server_that_has_forgotten_the_script_gets_every_message_once(
    sender: SafeRedisBroker,
) -> None:
    queue = _queue(sender)
    sender.client.script_flush()
    with sender.together():
        for number in range(3):
            sender.enqueue(_message(queue, number))
    sender.client.script_flush()
    sender.enqueue(_message(queue, 3))
    assert _contents(sender, queue) == [0, 1, 2, 3]


def test_that_redis_is_away_is_told_at_the_end() -> None:
    used = SafeRedisBroker(url=CLOSED, middleware=[])
    queue = _queue(used)
    together = used.together()
    together.__enter__()
    used.enqueue(_message(queue, 1))
    with pytest.raises(redis.RedisError):
        together.__exit__(None, None, None)


def _stumble_after(step: Callable[[], object]) -> None:
    step()
    raise ZeroDivisionError


def _queue(used: SafeRedisBroker) -> str:
    name = f"queue-{uuid4().hex}"
    used.declare_queue(name)
    return name


def _contents(used: SafeRedisBroker, queue: str) -> list[int]:
    """What lies in the queue, the oldest first."""
    ids = used.client.lrange(f"dramatiq:{queue}", 0, -1)
    bodies = used.client.hmget(f"dramatiq:{queue}.msgs", ids)
    assert used.client.hlen(f"dramatiq:{queue}.msgs") == len(ids)
    return [dramatiq.Message.decode(cast("bytes", body)).args[0] for body in bodies]


def _message(queue: str, number: int) -> dramatiq.Message[Any]:
    return dramatiq.Message(
        queue_name=queue, actor_name="nobody", args=(number,), kwargs={}, options={}
    )


class _Message:
    options = {"redis_message_id": "1"}
