"""The ways to talk to the broker's Redis: of who waits for it, and of who must not."""

from __future__ import annotations

import socket
from typing import Any, Final

import redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.retry import Retry


def impatient_client(url: str) -> redis.Redis:
    """For who only sends or looks (web, commands, breakers): fail within a second or so.

    A submission is answered within 2 s while Redis stalls: 0.7 s here, twice 0.3 s for the cache.
    The row is stored by then; the sweeper sends what could not be sent.
    """
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=64,
        timeout=1,
        socket_timeout=0.7,
        socket_connect_timeout=0.7,
        retry=Retry(NoBackoff(), 0),
    )
    return redis.Redis(connection_pool=pool)


def patient_client(url: str) -> redis.Redis:
    """For workers: masks short outages, and blocks when all connections are taken.

    A time-out is not retried: the scripts are not idempotent, and a second EVALSHA after a lost
    reply fetches or enqueues twice. redis-py's default pool fails above 100 connections instead
    of blocking, which lost 855 of 1000 messages that failed at the same moment.
    """
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=64,
        timeout=30,
        socket_timeout=5,
        socket_connect_timeout=5,
        retry=Retry(
            ExponentialWithJitterBackoff(base=0.01, cap=1),
            10,
            supported_errors=(redis.ConnectionError,),
        ),
    )
    return redis.Redis(connection_pool=pool)


def listening_client(url: str) -> redis.Redis:
    """For who waits for news: no time-out while there are none; the kernel looks for the peer."""
    return redis.Redis.from_url(url, **_listening(url), retry=Retry(NoBackoff(), 0))


def async_listening_client(url: str) -> AsyncRedis:
    """The same for an event loop."""
    return AsyncRedis.from_url(url, **_listening(url), retry=AsyncRetry(NoBackoff(), 0))


# A host that has vanished is noticed within a minute; the kernel's default is two hours.
_KEEPALIVE: Final = {
    socket.TCP_KEEPIDLE: 30,
    socket.TCP_KEEPINTVL: 10,
    socket.TCP_KEEPCNT: 3,
}


def _listening(url: str) -> dict[str, Any]:
    options: dict[str, Any] = {"socket_timeout": None, "socket_connect_timeout": 5}
    if not url.startswith("unix:"):  # such a peer is never gone unheard, and redis-py raises
        options["socket_keepalive"] = True
        options["socket_keepalive_options"] = _KEEPALIVE
    return options
