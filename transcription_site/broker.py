"""The Dramatiq broker and its middleware, set up so that Redis' weak moments lose nothing.

A message is only a hint (the rows are the truth), but a worker whose threads have died or whose
pool is empty helps nobody. What stock Dramatiq and redis-py do in those moments was measured;
the reasons stand with each part.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import redis
from django.conf import settings
from dramatiq import Message, Worker
from dramatiq.broker import Broker, Consumer, MessageProxy
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.common import compute_backoff
from dramatiq.errors import ConnectionClosed, DecodeError
from dramatiq.middleware import GroupCallbacks, Middleware, Retries
from dramatiq.rate_limits.backends import RedisBackend

from jobs.crashpoints import crashpoint
from jobs.redis_clients import impatient_client, patient_client
from transcription_site import doorbell, watchdog

BARRIER_TTL_MS: Final = 7 * 24 * 3600 * 1000
SHUTDOWN_MARGIN_SECONDS: Final = 10.0  # beyond what Dramatiq grants its threads
REST_MS: Final = 1000  # for which a consumer sleeps at most; so late may a delayed message be
MAINTENANCE_CHANCE: Final = 100_000  # of a million commands; reclaims a dead worker's messages

logger = logging.getLogger(__name__)


class SafeConsumer(_RedisConsumer):
    """A consumer whose thread outlives an outage, and wakes when there is something to do.

    The one above it sleeps up to a second whenever it has nothing to fetch or no room for it: with
    as many messages fetched as there are threads, these waited for that second between two chunks.
    """

    def __init__(
        self, broker: SafeRedisBroker, queue_name: str, prefetch: int, timeout: int
    ) -> None:
        rest = min(timeout, REST_MS)
        super().__init__(broker, queue_name, prefetch, rest)  # type: ignore[no-untyped-call]
        self._bell = doorbell.Bell(queue_name)

    def __next__(self) -> MessageProxy | None:
        while True:
            message = self._cached()
            if message is not None:
                self.misses = 0
                return message
            if not self._fetch():
                self.misses, wait = compute_backoff(self.misses, max_backoff=self.timeout)
                self._bell.wait(wait / 1000)
                return None

    def _cached(self) -> MessageProxy | None:
        """The next message that was fetched, stepping over what is none."""
        while self.message_cache:
            data = self.message_cache.pop(0)
            try:
                message: Message[Any] = Message.decode(data)
            except (DecodeError, TypeError):  # an error would forget all that was fetched with it
                logger.exception(
                    "There is something in queue %s that is no message", self.queue_name
                )
                continue
            self.queued_message_ids.add(message.message_id)
            return MessageProxy(message)
        return None

    def _fetch(self) -> bool:
        room = self.prefetch - self.outstanding_message_count
        try:
            self.message_cache = self.broker.do_fetch(self.queue_name, room) if room > 0 else []
        except redis.ConnectionError as error:
            raise ConnectionClosed(error) from None
        return bool(self.message_cache)

    def ack(self, message: MessageProxy) -> None:
        super().ack(message)  # type: ignore[no-untyped-call]
        self._bell.ring()  # there is room for another

    def nack(self, message: MessageProxy) -> None:
        super().nack(message)  # type: ignore[no-untyped-call]
        self._bell.ring()

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        try:
            super().requeue(messages)  # type: ignore[no-untyped-call]
        except redis.RedisError as error:
            raise ConnectionClosed(error) from None


class SafeRedisBroker(RedisBroker):
    """Redis with a client that suits the process: impatient until a worker boots in it."""

    def __init__(self, *, url: str, middleware: list[Middleware]) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            client=impatient_client(url),
            middleware=middleware,
            maintenance_chance=MAINTENANCE_CHANCE,
        )

        self._batch = threading.local()

    @property
    def consumer_class(self) -> type[Consumer]:
        return SafeConsumer

    def use(self, client: redis.Redis) -> None:
        """Talk to Redis through another client from now on."""
        scripts = {name: script.script for name, script in self.scripts.items()}
        self.client = client
        self.scripts = {name: client.register_script(text) for name, text in scripts.items()}

    @contextmanager
    def together(self) -> Iterator[None]:
        """Send what is enqueued inside at its end, in one round trip: 24 cost 5 ms one by one."""
        self._batch.parcel = parcel = _Parcel(self)
        try:
            yield
        finally:
            del self._batch.parcel
        parcel.send()

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Send a message; every one goes through here, also those of groups and retries."""
        crashpoint("before-send")
        return super().enqueue(message, delay=delay)

    def _dispatch(self, command: str) -> Callable[..., Any]:
        """Dramatiq survives a ConnectionError, but a TimeoutError ends its threads."""
        inner = super()._dispatch(command)  # type: ignore[no-untyped-call]

        def dispatch(*args: Any) -> Any:
            try:
                if command != "enqueue":
                    return inner(*args)
                return self._enqueue(*args)
            except redis.TimeoutError as error:
                raise redis.ConnectionError(str(error)) from error

        return dispatch

    def _enqueue(self, *args: Any) -> None:
        """Put it with the others that are sent together; by itself when there are none."""
        parcel = getattr(self._batch, "parcel", None) or _Parcel(self)
        parcel.put(*args)
        if parcel is not getattr(self._batch, "parcel", None):
            parcel.send()


class _Parcel:
    """Messages that are sent by one command, with a ring for each queue."""

    def __init__(self, broker: SafeRedisBroker) -> None:
        self._broker = broker
        self._calls: list[list[Any]] = []
        self._queues: list[str] = []

    def put(self, queue: str, message_id: str, data: bytes) -> None:
        broker = self._broker
        now = int(time.time() * 1000)
        args = ["enqueue", now, queue, broker.broker_id, broker.heartbeat_timeout]
        args += [
            broker.dead_message_ttl,
            0,
            cast("Any", broker)._max_unpack_size(),
            message_id,
            data,
        ]
        self._calls.append([broker.namespace, *args])
        self._queues.append(queue)

    def send(self) -> None:
        """Raises redis.RedisError: whoever sent cannot know which of them arrived."""
        try:
            self._send()
        except redis.exceptions.NoScriptError:  # a server that has started anew, so all failed
            self._broker.client.script_load(self._broker.scripts["dispatch"].script)
            self._send()
        for _ in self._queues:
            crashpoint("after-send")

    def _send(self) -> None:
        # Not by calling the script, which would ask the server first whether it knows it.
        pipeline = self._broker.client.pipeline(transaction=False)
        for call in self._calls:
            pipeline.evalsha(self._broker.scripts["dispatch"].sha, 1, *call)
        for queue in set(self._queues):
            pipeline.publish(doorbell.CHANNEL, queue)
        sent = pipeline.execute(raise_on_error=False)
        for result in sent[: len(self._calls)]:  # a bell that may not be rung costs a second
            if isinstance(result, Exception):
                raise result


class WorkerLife(Middleware):
    """What a process does when it becomes a worker, and when it ceases to be one."""

    _watchdog: watchdog.Watchdog | None = None

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        from jobs import (  # noqa: PLC0415  (models are not loaded before)
            engines,
            interruption,
            liveness,
            turns,
        )

        watchdog.stop_only_once()
        engines.child_pool()
        engines.configured()  # made now, by one thread: each may hold a model
        if isinstance(broker, SafeRedisBroker):
            broker.use(patient_client(settings.BROKER_URL))
        interruption.resume()
        turns.threads.all = worker.worker_threads
        # Before the first message: a claim would start a heartbeat that knows of no queues.
        queues = worker.consumer_whitelist or broker.get_declared_queues()
        liveness.start(",".join(sorted(queues)))

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:
        from jobs import tasks  # noqa: PLC0415
        from jobs.management.commands.run_worker import SHUTDOWN_MS  # noqa: PLC0415

        client = impatient_client(settings.BROKER_URL)
        limit = SHUTDOWN_MS / 1000 + SHUTDOWN_MARGIN_SECONDS
        self._watchdog = watchdog.start(worker, client, limit=limit)
        # A predecessor that was killed on this host left its chunks: take them up at once.
        tasks.sweep_at_boot()

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        from jobs import interruption  # noqa: PLC0415

        if self._watchdog is not None:
            self._watchdog.stop()
        interruption.interrupt()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        from jobs import interruption, liveness, turns  # noqa: PLC0415

        liveness.stop()
        interruption.resume()
        turns.threads.all = 1


class BoundedRetries(Retries):
    """At most 3 retries with exponential backoff. The rows keep the budget; this is the belt."""

    def __init__(self) -> None:
        super().__init__(max_retries=3, min_backoff=2_000, max_backoff=60_000)


class RedisGroupCallbacks(GroupCallbacks):
    """Calls a job's stitching when all its messages were processed."""

    def __init__(self) -> None:
        backend = RedisBackend(client=impatient_client(settings.BROKER_URL))
        super().__init__(backend, barrier_ttl=BARRIER_TTL_MS)
