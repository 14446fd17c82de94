"""Is it well? `/healthz` for the process, `/readyz` for everything that it needs."""

from __future__ import annotations

from typing import Any, Final

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
from jobs import engines, readiness


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
    parts = readiness.parts()
    status = readiness.status_of(parts)
    return Response({"status": status, **parts}, status=503 if status == "down" else 200)
