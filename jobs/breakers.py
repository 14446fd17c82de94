"""The breakers of the remote engines, shared by all processes through Redis.

A local engine has none: it is not somebody's server that could be hammered, and a file that
crashes its child says nothing of the next file.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict
from functools import cache
from typing import Any, Final, cast

import redis
from django.conf import settings

from asr.breaker import CLOSED, Breaker, BreakerState, Call, Health, LocalStore, Store
from asr.errors import EngineMisconfigured
from jobs import engines
from jobs.redis_clients import impatient_client

_KEPT_MS: Final = 24 * 3600 * 1000

logger = logging.getLogger(__name__)

# One clock for all: the server's.
_READ: Final = """
local time = redis.call('TIME')
return {redis.call('GET', KEYS[1]) or '', time[1], time[2]}
"""
_SWAP: Final = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
"""


class SharedStore:
    """States in Redis; while it is away, each process goes on with what it knows."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._local = LocalStore()
        self._alone_until = 0.0
        self._read = client.register_script(_READ)
        self._swap = client.register_script(_SWAP)

    def read(self, name: str) -> tuple[BreakerState, float]:
        """See `asr.breaker.Store.read`."""
        if self._alone:
            return self._local.read(name)
        try:
            value, seconds, microseconds = cast("list[bytes]", self._read(keys=[_key(name)]))
            state = _parsed(value)
            if state is None:
                logger.error("The breaker of %s held what is no state; it is closed", name)
                self._client.delete(_key(name))
        except redis.RedisError:
            return self._local.read(name)
        state = state or CLOSED
        self._local.put(name, state)
        return state, int(seconds) + int(microseconds) / 1e6

    def swap(self, name: str, old: BreakerState, new: BreakerState) -> bool:
        """See `asr.breaker.Store.swap`."""
        try:
            states = (_written(old), _written(new))
            if not self._alone:
                return bool(self._swap(keys=[_key(name)], args=[*states, str(_KEPT_MS)]))
        except redis.ResponseError:
            # It is full, or a replica: what it says from now on is not what was last known.
            self._alone_until = time.monotonic() + settings.BREAKER_SECONDS
        except redis.RedisError:
            pass
        return self._local.swap(name, old, new)

    @property
    def _alone(self) -> bool:
        return time.monotonic() < self._alone_until


def admit(name: str) -> Call:
    """Ask before a call of the engine of that name. See `Breaker.admit`."""
    return _breaker(name).admit() if _has_breaker(name) else Call()


def would_admit(name: str) -> bool:
    """Whether a call of that engine would be let through now."""
    return _breaker(name).would_admit() if _has_breaker(name) else True


def state(name: str) -> Health:
    """How that engine's breaker stands."""
    return _breaker(name).health() if _has_breaker(name) else Health.CLOSED


def not_closed() -> dict[str, Health]:
    """The configured engines that are down, or tried again just now."""
    states = {name: state(name) for name in engines.configured()}
    return {name: health for name, health in states.items() if health != Health.CLOSED}


@cache
def store() -> Store:
    """The store of this process."""
    return SharedStore(impatient_client(settings.BROKER_URL))


def _breaker(name: str) -> Breaker:
    return Breaker(
        name, store(), window=settings.BREAKER_SECONDS, probe_limit=settings.LEASE_SECONDS
    )


def _has_breaker(name: str) -> bool:
    try:
        return not engines.get(name).capabilities.runs_locally
    except EngineMisconfigured:
        return False  # it is never called


def _key(name: str) -> str:
    return f"verbatim:breaker:{name}"


def _written(state: BreakerState) -> str:
    fields: dict[str, Any] = asdict(state)
    return "" if state == CLOSED else json.dumps(fields)


def _parsed(value: bytes) -> BreakerState | None:
    """None when we did not write it: no swap would ever find it unchanged."""
    try:
        state = BreakerState(**json.loads(value)) if value else CLOSED
    except (ValueError, TypeError):
        return None
    return state if _written(state).encode() == value else None
