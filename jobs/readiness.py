"""How everything is that the service needs: the judgement of `/readyz` and of the admin."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal, cast

import dramatiq
import redis
from django.conf import settings
from django.core.cache import cache
from django.db import Error as DatabaseError
from django.db import connection
from dramatiq.brokers.redis import RedisBroker

from asr.breaker import Health
from jobs import breakers, engines, spending, storage
from jobs.database import release_connection
from jobs.models import EVERYBODY, SWEEPER, WorkerProcess

Part = dict[str, Any]
"""`status` is up, degraded or down; `reason` says why it is not up."""

# Why a part does not answer; the more special kinds first.
REASONS: Final[dict[type[Exception], str]] = {
    DatabaseError: "database_unavailable",
    redis.TimeoutError: "stalled",
    redis.BusyLoadingError: "loading",
    redis.AuthenticationError: "credentials_refused",
    redis.ConnectionError: "away",
    OSError: "storage_unavailable",
}


def parts() -> dict[str, Part]:
    """Every part by its name. It never calls an engine: that is configuration and its breaker."""
    release_connection()  # Redis or a bucket may take its time
    broker = _part(_broker)
    outside = {
        "broker": broker,
        "cache": _part(_cache),
        "storage": _part(_storage),
        "engine": _part(partial(_engine, with_breaker=broker["status"] == "up")),
    }
    rows = {"spending": _part(_spending), "workers": _part(_workers)}
    return {"database": _part(_database), **outside, **rows}


def status_of(parts: dict[str, Part]) -> Literal["ok", "degraded", "down"]:
    """How the whole is: without the database or the storage of audio it is down."""
    if "down" in (parts["database"]["status"], parts["storage"]["status"]):
        return "down"
    return "ok" if all(part["status"] == "up" for part in parts.values()) else "degraded"


def _part(probe: Callable[[], Part]) -> Part:
    try:
        return probe()
    except (DatabaseError, redis.RedisError, OSError) as error:
        named = [reason for kind, reason in REASONS.items() if isinstance(error, kind)]
        return {"status": "down", "reason": named[0] if named else type(error).__name__}


def _database() -> Part:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return {"status": "up", "vendor": connection.vendor}


def _broker() -> Part:
    client = cast("RedisBroker", dramatiq.get_broker()).client
    memory = client.info("memory")
    policy, limit = memory.get("maxmemory_policy"), memory.get("maxmemory", 0)
    if policy not in {None, "noeviction"}:
        # Redis would drop messages when it is full, and say nothing.
        return {"status": "down", "reason": "broker_eviction_policy", "policy": policy}
    if 0 < limit <= memory["used_memory"]:
        return {"status": "down", "reason": "broker_full"}  # it takes no messages
    return {"status": "up"}


def _cache() -> Part:
    cache.client.get_client().ping()  # type: ignore[attr-defined]  # past IGNORE_EXCEPTIONS
    return {"status": "up"}


def _storage() -> Part:
    files = storage.audio_files()
    try:
        files.look()
    except storage.StorageAwayError as error:
        return {"status": "down", "reason": error.reason, "detail": error.advice}
    if files.is_full():
        return {"status": "degraded", "reason": "disk_full"}  # jobs with paths go on
    return {"status": "up"}


def _engine(*, with_breaker: bool) -> Part:
    """With the broker away there is no breaker but that of each worker process."""
    name = settings.ASR_ENGINE
    if name not in engines.configured():
        return {"status": "down", "reason": "engine_misconfigured", "name": name}
    if not with_breaker:
        return {"status": "up", "name": name}
    down = breakers.not_closed()
    shown = {"name": name, "breaker": down.get(name, Health.CLOSED), "down": list(down)}
    if not down:
        return {"status": "up", **shown}
    return {"status": "degraded", "reason": "engine_unavailable", **shown}


def _spending() -> Part:
    cap = settings.SPENDING_CAP_USD_PER_MONTH
    for standing in spending.standings({} if cap is None else {EVERYBODY: cap}):
        if standing.reached:
            return {"status": "degraded", "reason": "spending_cap_reached"}
        if standing.near:
            return {"status": "degraded", "reason": "spending_cap_near"}
    return {"status": "up"}


def _workers() -> Part:
    """How many processes serve each queue, and sweep; `down` where one of these has none."""
    alive = WorkerProcess.objects.alive_per_queue()
    serving = {queue: alive[queue] for queue in (*engines.QUEUES, SWEEPER)}
    without = [queue for queue, number in serving.items() if not number]
    if without:
        return {"status": "down", "reason": _lacking(without), **serving}
    return {"status": "up", **serving}


def _lacking(without: list[str]) -> str:
    queues = ", ".join(queue for queue in without if queue != SWEEPER)
    lacking = [f"no worker for {queues}"] if queues else []
    return "; ".join([*lacking, *(["no sweeper"] if SWEEPER in without else [])])
