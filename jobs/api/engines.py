"""The engines: what is configured, what each can do, and whether its vendor lets us in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from asr.breaker import Health
from asr.registry import ENGINES
from jobs import breakers, engines
from jobs.api.base import ApiViewSet
from jobs.api.errors import documented

VERIFY_SECONDS: Final = 10.0  # a page waits for it


class CapabilitiesSerializer(serializers.Serializer[Any]):
    """What an engine can do; `languages` null: every language with an ISO 639-1 code."""

    languages = serializers.SerializerMethodField()
    detectsLanguage = serializers.BooleanField(source="detects_language")  # noqa: N815
    words = serializers.BooleanField(help_text="Whether it times each word.")
    vocabulary = serializers.BooleanField()
    maxVocabularyTerms = serializers.IntegerField(  # noqa: N815
        source="max_vocabulary_terms", allow_null=True
    )
    maxVocabularyTokens = serializers.IntegerField(  # noqa: N815
        source="max_vocabulary_tokens",
        allow_null=True,
        help_text="One for each two small ASCII letters or spaces, for each byte of the rest,"
        " between two terms.",
    )
    diarize = serializers.BooleanField(source="diarization")
    runsLocally = serializers.BooleanField(source="runs_locally")  # noqa: N815
    maxSeconds = serializers.FloatField(source="max_seconds", allow_null=True)  # noqa: N815
    maxBytes = serializers.IntegerField(source="max_bytes", allow_null=True)  # noqa: N815
    pricePerMinute = serializers.FloatField(  # noqa: N815
        source="price_per_minute",
        allow_null=True,
        help_text="In US dollars: what the operator says, or the vendor lists; null where it is"
        " not known.",
    )

    def get_languages(self, capabilities: Any) -> list[str] | None:
        return None if capabilities.languages is None else sorted(capabilities.languages)


class EngineSerializer(serializers.Serializer[Any]):
    """One engine. What it can do may depend on its model: null where it is not configured."""

    name = serializers.CharField()
    isDefault = serializers.BooleanField()  # noqa: N815
    configured = serializers.BooleanField()
    detail = serializers.CharField(allow_null=True, help_text="Why it is not configured.")
    model = serializers.CharField(allow_null=True)
    breaker = serializers.ChoiceField(list(Health))
    capabilities = CapabilitiesSerializer(allow_null=True)


class EnginesSerializer(serializers.Serializer[Any]):
    """All engines, in the shape of every list; there is one page."""

    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)
    results = EngineSerializer(many=True)


class VerdictSerializer(serializers.Serializer[Any]):
    """What came of asking an engine's vendor."""

    name = serializers.CharField()
    result = serializers.ChoiceField(
        ["valid", "refused", "unreachable"],
        help_text="valid: it would work, or is merely busy. refused: what it needs is missing (a"
        " key), or was refused (key, model, address). unreachable: no answer, or one that failed.",
    )
    detail = serializers.CharField(
        allow_null=True, help_text="Why it is not valid, or not quite surely."
    )


class EngineViewSet(ApiViewSet):
    """See what there is to recognise with."""

    serializer_class = EnginesSerializer
    pagination_class = None

    @extend_schema(operation_id="engines_list", responses={200: EnginesSerializer, **documented()})
    def overview(self, request: Request) -> Response:
        """Every engine that this service knows, the configured ones with what they can do."""
        page = {"next": None, "previous": None, "results": [_shown(name) for name in ENGINES]}
        return Response(EnginesSerializer(page).data)

    @extend_schema(
        operation_id="engine_verify",
        request=None,
        responses={200: VerdictSerializer, **documented(403, 404)},
    )
    @action(detail=True, methods=["post"])
    def verify(self, request: Request, name: str) -> Response:
        """Ask the engine, as cheaply as it goes, whether it would work. For staff."""
        if name not in ENGINES:
            raise NotFound
        return Response(VerdictSerializer(engines.verify(name, limit=VERIFY_SECONDS)).data)


def _shown(name: str) -> dict[str, Any]:
    engine, detail = engines.find(name)
    return {
        "name": name,
        "isDefault": name == settings.ASR_ENGINE,
        "configured": engine is not None,
        "detail": detail,
        "model": engine and engine.model,
        "breaker": breakers.state(name),
        "capabilities": engine
        and replace(engine.capabilities, price_per_minute=engines.price_of(name)),
    }
