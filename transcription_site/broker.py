"""The Dramatiq broker and its middleware, set up so that Redis' weak moments lose nothing.

A message is only a hint (the rows are the truth), but a worker whose threads have died or whose
pool is empty helps nobody. What stock Dramatiq and redis-py do in those moments was measured;
the reasons stand with each part.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

import redis
from django.conf import settings
from dramatiq import Message, Worker
from dramatiq.broker import Broker, Consumer, MessageProxy
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.errors import ConnectionClosed, DecodeError
from dramatiq.middleware import GroupCallbacks, Middleware, Retries
from dramatiq.rate_limits.backends import RedisBackend

from jobs.crashpoints import crashpoint
from jobs.redis_clients import impatient_client, patient_client
from transcription_site import watchdog

BARRIER_TTL_MS: Final = 7 * 24 * 3600 * 1000
SHUTDOWN_MARGIN_SECONDS: Final = 10.0  # beyond what Dramatiq grants its threads
MAINTENANCE_CHANCE: Final = 100_000  # of a million commands; reclaims a dead worker's messages

logger = logging.getLogger(__name__)


class SafeConsumer(_RedisConsumer):
    """A consumer whose thread outlives an outage: it knows only ConnectionClosed."""

    def __next__(self) -> MessageProxy | None:
        """Step over what is no message: an error here forgets all that was fetched with it."""
        while True:
            try:
                return cast("MessageProxy | None", super().__next__())  # type: ignore[no-untyped-call]
            except (DecodeError, TypeError):
                logger.exception(
                    "There is something in queue %s that is no message", self.queue_name
                )

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

    @property
    def consumer_class(self) -> type[Consumer]:
        return SafeConsumer

    def use(self, client: redis.Redis) -> None:
        """Talk to Redis through another client from now on."""
        scripts = {name: script.script for name, script in self.scripts.items()}
        self.client = client
        self.scripts = {name: client.register_script(text) for name, text in scripts.items()}

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Send a message; every one goes through here, also those of groups and retries."""
        crashpoint("before-send")
        sent: Message[Any] = super().enqueue(message, delay=delay)
        crashpoint("after-send")
        return sent

    def _dispatch(self, command: str) -> Callable[..., Any]:
        """Dramatiq survives a ConnectionError, but a TimeoutError ends its threads."""
        inner = super()._dispatch(command)  # type: ignore[no-untyped-call]

        def dispatch(*args: Any) -> Any:
            try:
                return inner(*args)
            except redis.TimeoutError as error:
                raise redis.ConnectionError(str(error)) from error

        return dispatch


class WorkerLife(Middleware):
    """What a process does when it becomes a worker, and when it ceases to be one."""

    _watchdog: watchdog.Watchdog | None = None

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        from jobs import engines, interruption, liveness  # noqa: PLC0415  (models are not loaded before)

        watchdog.stop_only_once()
        engines.child_pool()
        engines.configured()  # made now, by one thread: each may hold a model
        if isinstance(broker, SafeRedisBroker):
            broker.use(patient_client(settings.BROKER_URL))
        interruption.resume()
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
        from jobs import interruption, liveness  # noqa: PLC0415

        liveness.stop()
        interruption.resume()


class BoundedRetries(Retries):
    """At most 3 retries with exponential backoff. The rows keep the budget; this is the belt."""

    def __init__(self) -> None:
        super().__init__(max_retries=3, min_backoff=2_000, max_backoff=60_000)


class RedisGroupCallbacks(GroupCallbacks):
    """Calls a job's stitching when all its messages were processed."""

    def __init__(self) -> None:
        backend = RedisBackend(client=impatient_client(settings.BROKER_URL))
        super().__init__(backend, barrier_ttl=BARRIER_TTL_MS)
