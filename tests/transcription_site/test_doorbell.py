"""The doorbell: who waits is woken by who sends, and who misses the bell looks for itself."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import dramatiq
import pytest
from django.conf import settings
from dramatiq.broker import MessageProxy

from tests.helpers import wait_until
from transcription_site import broker, doorbell
from transcription_site.broker import SafeConsumer, SafeRedisBroker
from transcription_site.doorbell import CHANNEL, Bell

LONG = 60.0  # seconds that nobody here waits, unless the bell is broken
SOON = 10.0
MANY_MISSES = 30  # after which a consumer waits for at least half of its longest time


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> SafeRedisBroker:
    monkeypatch.setattr(broker, "REST_MS", int(LONG * 1000))
    return SafeRedisBroker(url=settings.BROKER_URL, middleware=[])


@pytest.fixture
def queue(used: SafeRedisBroker) -> str:
    name = f"queue-{uuid4().hex}"
    used.declare_queue(name)
    return name


@pytest.fixture
def caught_up(used: SafeRedisBroker, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Wait until this process has heard all that was rung so far."""
    heard: list[object] = []
    ring = doorbell._listener._ring

    def listen(data: object) -> None:
        ring(data)
        heard.append(data)

    monkeypatch.setattr(doorbell._listener, "_ring", listen)
    keeper = Bell("keeper")

    def wait() -> None:
        marker = uuid4().hex.encode()

        def rung() -> bool:
            used.client.publish(CHANNEL, marker)
            return marker in heard

        wait_until(rung)
        assert keeper.queue == "keeper"

    return wait


class Waiting:
    """A thread that asks a consumer until it has a message; how long that took."""

    def __init__(self, consumer: SafeConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Event()
        self.rounds = 0
        self._message: MessageProxy | None = None
        consumer.misses = MANY_MISSES
        wait = consumer._bell.wait

        def tell(seconds: float) -> bool:
            assert seconds >= LONG / 2
            self.rounds += 1
            self.begun.set()
            return wait(seconds)

        monkeypatch.setattr(consumer._bell, "wait", tell)
        self._consumer = consumer
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()
        assert self.begun.wait(30)

    def _ask(self) -> None:
        while self._message is None:
            self._message = next(self._consumer)

    def number(self) -> int:
        """Of the message that came soon."""
        began = time.monotonic()
        self._thread.join(SOON)
        assert not self._thread.is_alive(), "nobody rang"
        assert time.monotonic() - began < SOON
        assert self._message is not None
        return int(self._message.args[0])


def message(queue: str, number: int) -> dramatiq.Message[Any]:
    return dramatiq.Message(
        queue_name=queue, actor_name="nobody", args=(number,), kwargs={}, options={}
    )


def consumer_of(used: SafeRedisBroker, queue: str, prefetch: int = 10) -> SafeConsumer:
    consumer = used.consume(queue, prefetch=prefetch, timeout=int(LONG * 1000))
    assert isinstance(consumer, SafeConsumer)
    return consumer


def kill_listeners(used: SafeRedisBroker) -> None:
    assert used.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub") > 0


# --- the bell ---


def test_a_ring_wakes_who_waits_and_is_used_up_by_that(caught_up: Callable[[], None]) -> None:
    bell = Bell("nothing-comes")
    caught_up()
    bell.wait(0)
    assert bell.wait(0.01) is False
    threading.Thread(target=bell.ring).start()
    assert bell.wait(LONG) is True
    assert bell.wait(0.01) is False
    bell.ring()  # before anybody waits
    assert bell.wait(LONG) is True


def test_only_the_queues_own_bell_rings(
    used: SafeRedisBroker, caught_up: Callable[[], None]
) -> None:
    one, same, other = Bell("one"), Bell("one"), Bell("other")
    caught_up()
    for bell in (one, same, other):
        bell.wait(0)
    used.client.publish(CHANNEL, "one")
    caught_up()
    assert [bell.wait(0) for bell in (one, same, other)] == [True, True, False]


def test_the_bell_of_a_consumer_that_is_gone_is_kept_by_nobody() -> None:
    bell = Bell("gone")
    assert bell in doorbell._listener._bells
    del bell
    gc.collect()
    assert not [each for each in doorbell._listener._bells if each.queue == "gone"]


def test_a_process_listens_by_one_connection(
    used: SafeRedisBroker, caught_up: Callable[[], None]
) -> None:
    bells = [Bell(f"queue-{number}") for number in range(5)]
    caught_up()
    ((_, listeners),) = used.client.pubsub_numsub(CHANNEL)
    assert (listeners, len(bells)) == (1, 5)


def test_who_was_cut_off_listens_again_and_takes_it_that_something_was_missed(
    used: SafeRedisBroker, caught_up: Callable[[], None]
) -> None:
    bell = Bell("one")
    caught_up()
    bell.wait(0)
    kill_listeners(used)
    assert bell.wait(LONG) is True  # though nobody rang
    caught_up()
    bell.wait(0)
    used.client.publish(CHANNEL, "one")
    assert bell.wait(LONG) is True


# --- consumers ---


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Callable[[SafeConsumer], Waiting]:
    return lambda consumer: Waiting(consumer, monkeypatch)


def test_a_message_is_seen_while_the_consumer_waits(
    used: SafeRedisBroker,
    queue: str,
    caught_up: Callable[[], None],
    asking: Callable[[SafeConsumer], Waiting],
) -> None:
    consumer = consumer_of(used, queue)
    caught_up()
    consumer._bell.wait(0)
    waiting = asking(consumer)
    used.enqueue(message(queue, 7))
    assert waiting.number() == 7
    assert waiting.rounds == 1
    assert consumer.misses == 0


def test_a_message_of_another_queue_wakes_nobody(
    used: SafeRedisBroker,
    queue: str,
    caught_up: Callable[[], None],
    asking: Callable[[SafeConsumer], Waiting],
) -> None:
    other = f"queue-{uuid4().hex}"
    used.declare_queue(other)
    consumer = consumer_of(used, queue)
    caught_up()
    consumer._bell.wait(0)
    waiting = asking(consumer)
    used.enqueue(message(other, 1))
    caught_up()
    used.enqueue(message(queue, 2))
    assert waiting.number() == 2
    assert waiting.rounds == 1


@pytest.mark.parametrize("end", ["ack", "nack"])
def test_who_has_no_room_takes_the_next_as_soon_as_one_has_ended(
    used: SafeRedisBroker,
    queue: str,
    caught_up: Callable[[], None],
    asking: Callable[[SafeConsumer], Waiting],
    end: str,
) -> None:
    for number in range(2):
        used.enqueue(message(queue, number))
    consumer = consumer_of(used, queue, prefetch=1)
    first = next(consumer)
    assert first is not None
    caught_up()
    consumer._bell.wait(0)
    waiting = asking(consumer)
    getattr(consumer, end)(first)
    assert (first.args[0], waiting.number()) == (0, 1)
    assert waiting.rounds == 1


def test_no_more_is_fetched_than_there_is_room_for(used: SafeRedisBroker, queue: str) -> None:
    for number in range(5):
        used.enqueue(message(queue, number))
    consumer = used.consume(queue, prefetch=2, timeout=10)
    taken = [next(consumer) for _ in range(4)]
    assert [each.args[0] for each in taken if each] == [0, 1]
    assert used.client.llen(f"dramatiq:{queue}") == 3


def test_who_hears_no_bell_finds_messages_all_the_same(used: SafeRedisBroker, queue: str) -> None:
    consumer = consumer_of(used, queue)
    consumer.timeout = 50
    consumer._bell = Bell("another")
    assert next(consumer) is None
    used.enqueue(message(queue, 3))
    found: list[MessageProxy] = []

    def look() -> bool:
        found.extend(each for each in [next(consumer)] if each is not None)
        return bool(found)

    wait_until(look)
    assert [each.args[0] for each in found] == [3]
