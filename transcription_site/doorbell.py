"""Tells idle consumers that there is something to fetch.

Dramatiq's consumers look into their queue, and while there is nothing, ever more seldom: up to a
second lies between a message and its being seen, and looking more often costs the idle system more
than it is worth. So who sends rings (PUBLISH), and who has nothing to do waits for the bell. A ring
may be lost, with Redis or without: then it takes the second that it always took.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Final
from weakref import WeakSet

import redis
from django.conf import settings

from jobs.redis_clients import listening_client

CHANNEL: Final = "verbatim:bell"
_AWAY_SECONDS: Final = 1.0


class Bell:
    """What the consumer of one queue waits for."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self._rung = threading.Event()
        _listener.add(self)

    def ring(self) -> None:
        """Wake who waits, or who will wait next."""
        self._rung.set()

    def wait(self, seconds: float) -> bool:
        """Wait until it rings, or has rung since the last wait; whether it did."""
        rung = self._rung.wait(seconds)
        self._rung.clear()
        return rung


class _Listener:
    """One connection of this process, by which all of its bells are rung."""

    def __init__(self) -> None:
        self._bells: WeakSet[Bell] = WeakSet()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, bell: Bell) -> None:
        with self._lock:
            self._bells.add(bell)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._listen, name="bell", daemon=True)
                self._thread.start()

    def _listen(self) -> None:
        client = listening_client(settings.BROKER_URL)
        while True:
            with suppress(redis.RedisError, OSError), client.pubsub() as channel:
                channel.subscribe(CHANNEL)
                for message in channel.listen():
                    self._ring(message["data"])
            time.sleep(_AWAY_SECONDS)

    def _ring(self, data: object) -> None:
        queue = data.decode(errors="replace") if isinstance(data, bytes) else ""
        with self._lock:
            bells = list(self._bells)
        for bell in bells:
            if queue in {"", bell.queue}:  # subscribed (again): something may have been missed
                bell.ring()


_listener = _Listener()
