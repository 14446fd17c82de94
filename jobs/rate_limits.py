"""How often somebody may call: counted in Redis, by one script, on its clock.

By the generic cell rate algorithm: as many calls as the limit at once, and after that one whenever
its part of the period has passed. One number is kept for each caller, and no caller can slip
through between a look at it and a change of it.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast

import redis
from django.core.cache import cache

# What is kept is the time at which the caller would have used up nothing. Microseconds throughout.
_TAKE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval = tonumber(ARGV[1])
local whole = interval * tonumber(ARGV[2])
local idle = math.max(tonumber(redis.call('GET', KEYS[1]) or 0) or 0, now)
local after = idle + interval
if after > now + whole then
  return {0, 0, math.ceil(idle - now), math.ceil(after - now - whole)}
end
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000))
return {1, math.floor((now + whole - after) / interval), math.ceil(after - now), 0}
"""
_GIVE_BACK: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local after = (tonumber(redis.call('GET', KEYS[1]) or 0) or 0) - tonumber(ARGV[1])
if after <= now then return redis.call('DEL', KEYS[1]) end
local left = math.ceil((after - now) / 1000)
return redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', left)
"""


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What came of one call."""

    allowed: bool
    remaining: int
    """Calls that could be made at once after it."""
    reset_seconds: int
    """Until nothing counts any more."""
    retry_seconds: int
    """Until the next call is allowed; 0 where this one was."""


def take(caller: str, limit: int, seconds: int) -> Allowance | None:
    """Count one call of `caller`, who may make `limit` of them in `seconds`.

    None when Redis is away: an outage of the cache keeps nobody from working.
    """
    try:
        allowed, remaining, reset, retry = _run(_TAKE, caller, _interval(limit, seconds), limit)
    except redis.RedisError:
        return None
    return Allowance(
        allowed=bool(allowed),
        remaining=remaining,
        reset_seconds=math.ceil(reset / 1e6),
        retry_seconds=math.ceil(retry / 1e6),
    )


def give_back(caller: str, limit: int, seconds: int) -> None:
    """Let one call that was taken not count; in an outage of Redis nothing counts anyway."""
    with suppress(redis.RedisError):
        _run(_GIVE_BACK, caller, _interval(limit, seconds))


def forget(caller: str) -> None:
    """Let no call of `caller` until now count."""
    cache.delete(_key(caller))


def _run(script: str, caller: str, *args: float) -> Any:
    client = cast("Any", cache).client.get_client()
    return client.register_script(script)(keys=[cache.make_key(_key(caller))], args=args)


def _key(caller: str) -> str:
    return f"rate:{caller}"


def _interval(limit: int, seconds: int) -> float:
    """Microseconds after which one more call is allowed."""
    return seconds * 1_000_000 / limit
