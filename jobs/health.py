"""Is it well? `/healthz` for the process, `/readyz` for everything that it needs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

import dramatiq
import redis
from django.conf import settings
from django.core.cache import cache
from django.db import Error as DatabaseError
from django.db import connection
from dramatiq.brokers.redis import RedisBroker
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import (
    api_view,
    authentication_classes,
    content_negotiation_class,
    permission_classes,
    renderer_classes,
)
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from asr.breaker import Health
from jobs import breakers, engines, spending, storage
from jobs.models import EVERYBODY, WorkerProcess

Part = dict[str, Any]

# Why a part does not answer; the more special kinds first.
REASONS: Final[dict[type[Exception], str]] = {
    DatabaseError: "database_unavailable",
    redis.TimeoutError: "stalled",
    redis.BusyLoadingError: "loading",
    redis.AuthenticationError: "credentials_refused",
    redis.ConnectionError: "away",
    OSError: "storage_unavailable",
}


class PartSerializer(serializers.Serializer[Any]):
    """One thing that the service needs; `reason` says why it is not up."""

    status = serializers.ChoiceField(["up", "degraded", "down"])
    reason = serializers.CharField(required=False)


class DatabasePartSerializer(PartSerializer):
    """The database and its kind."""

    vendor = serializers.CharField(required=False)


class BrokerPartSerializer(PartSerializer):
    """The broker; `policy` is what it does when it is full, where that would lose messages."""

    policy = serializers.CharField(required=False)


class StoragePartSerializer(PartSerializer):
    """Where audio lies; `detail` names the variables to look at when that is not there."""

    detail = serializers.CharField(required=False)


class EnginePartSerializer(PartSerializer):
    """The engine of jobs that name none, and all engines that are `down`; both this list and
    `breaker` are left out while the broker, which keeps them, is away.
    """

    name = serializers.CharField()
    breaker = serializers.ChoiceField(list(Health), required=False)
    down = serializers.ListField(child=serializers.CharField(), required=False)


class SpendingPartSerializer(PartSerializer):
    """The cap on the spending of all users: `spending_cap_near` from 80 % of it, then
    `spending_cap_reached`. `up` where there is none.
    """


class WorkersPartSerializer(PartSerializer):
    """How many living processes serve each queue."""

    def get_fields(self) -> dict[str, Any]:
        numbers = {queue: serializers.IntegerField(required=False) for queue in engines.QUEUES}
        return {**super().get_fields(), **numbers}


class HealthSerializer(serializers.Serializer[Any]):
    """The process serves."""

    status = serializers.ChoiceField(["ok"])


class ReadinessSerializer(serializers.Serializer[Any]):
    """How the service is, as a whole and in each part."""

    status = serializers.ChoiceField(["ok", "degraded", "down"])
    database = DatabasePartSerializer()
    broker = BrokerPartSerializer()
    cache = PartSerializer()
    storage = StoragePartSerializer()
    engine = EnginePartSerializer()
    spending = SpendingPartSerializer()
    workers = WorkersPartSerializer()


class AlwaysJson(BaseContentNegotiation):
    """JSON whatever is asked for: a probe that accepts only text is answered all the same."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> Any:
        return renderers[0], renderers[0].media_type


METHOD_NOT_ALLOWED: Final = {405: {"$ref": "#/components/schemas/Error"}}  # the edge beside us


@extend_schema(
    operation_id="healthz", tags=["health"], responses={200: HealthSerializer, **METHOD_NOT_ALLOWED}
)
@api_view(["GET", "HEAD"])
@authentication_classes([])
@permission_classes([])
@renderer_classes([JSONRenderer])
@content_negotiation_class(AlwaysJson)
def healthz(request: Request) -> Response:
    """200 while the process serves."""
    return Response({"status": "ok"})


@extend_schema(
    operation_id="readyz",
    tags=["health"],
    responses={200: ReadinessSerializer, 503: ReadinessSerializer, **METHOD_NOT_ALLOWED},
)
@api_view(["GET", "HEAD"])
@authentication_classes([])
@permission_classes([])
@renderer_classes([JSONRenderer])
@content_negotiation_class(AlwaysJson)
def readyz(request: Request) -> Response:
    """200 `ok` or `degraded`, 503 `down` (database or storage away), with each part's state.

    It never calls an engine: `engine` is configuration and the breaker's state.
    """
    broker = _part(_broker)
    parts = {
        "database": _part(_database),
        "broker": broker,
        "cache": _part(_cache),
        "storage": _part(_storage),
        "engine": _part(partial(_engine, with_breaker=broker["status"] == "up")),
        "spending": _part(_spending),
        "workers": _part(_workers),
    }
    vital = (parts["database"], parts["storage"])
    if any(part["status"] == "down" for part in vital):
        status = "down"
    elif any(part["status"] != "up" for part in parts.values()):
        status = "degraded"
    else:
        status = "ok"
    return Response({"status": status, **parts}, status=503 if status == "down" else 200)


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
    """How many processes serve each queue; `down` where one that jobs need has none."""
    alive = WorkerProcess.objects.alive_per_queue()
    serving = {queue: alive[queue] for queue in engines.QUEUES}
    without = [queue for queue, number in serving.items() if not number]
    if without:
        return {"status": "down", "reason": f"no worker for {', '.join(without)}", **serving}
    return {"status": "up", **serving}
