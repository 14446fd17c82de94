"""GET /usage: minutes, calls and prices, by engine and by day, and what is left of the limits."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from jobs.api.authentication import Caller
from jobs.api.base import ApiViewSet
from jobs.api.errors import AnotherUser, documented
from jobs.api.serializers import StrictCharField
from jobs.models import validate_user_id
from jobs.usage import usage

MOST_DAYS: Final = 366


class UsageQuerySerializer(serializers.Serializer[Any]):
    """The filters of GET /usage; `from` is no name that Python lets a class have."""

    userId = StrictCharField(required=False, validators=[validate_user_id])  # noqa: N815
    to = serializers.DateField(required=False)

    def get_fields(self) -> dict[str, Any]:
        return {**super().get_fields(), "from": serializers.DateField(required=False)}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        first, last = attrs.get("from"), attrs.get("to")
        if first and last and not 0 <= (last - first).days < MOST_DAYS:
            detail = f"A span is of 1 to {MOST_DAYS} days: `from` is not after `to`."
            raise serializers.ValidationError({"to": detail})
        return attrs


class SumsSerializer(serializers.Serializer[Any]):
    """What calls come to. A call that failed at no cost counts for nothing."""

    calls = serializers.IntegerField()
    minutes = serializers.FloatField(help_text="Of the sound that was asked about.")
    deduplicatedMinutes = serializers.FloatField(  # noqa: N815
        help_text="Of the sound whose words were known; they cost nothing."
    )
    priceUsd = serializers.FloatField(help_text="At list prices.")  # noqa: N815
    unpricedCalls = serializers.IntegerField(  # noqa: N815
        help_text="Calls whose price is not known, and so not in `priceUsd`."
    )


class EngineSumsSerializer(SumsSerializer):
    """The sums of one engine."""

    engine = serializers.CharField()


class DaySumsSerializer(SumsSerializer):
    """The sums of one day; days without usage are left out."""

    day = serializers.DateField()


class LimitSerializer(serializers.Serializer[Any]):
    """One limit.

    `resetTime` is when its day or month ends; of uploads, when the oldest that no job has taken is
    removed; null for jobs in flight.
    """

    limit = serializers.FloatField()
    used = serializers.FloatField()
    remaining = serializers.FloatField()
    resetTime = serializers.DateTimeField(allow_null=True)  # noqa: N815


class LimitsSerializer(serializers.Serializer[Any]):
    """The limits as they stand now, whatever the span; null for what is not limited."""

    minutesPerDay = LimitSerializer(allow_null=True)  # noqa: N815
    minutesPerMonth = LimitSerializer(allow_null=True)  # noqa: N815
    jobsInFlight = LimitSerializer(allow_null=True)  # noqa: N815
    uploadBytes = LimitSerializer(allow_null=True)  # noqa: N815
    spendingPerMonthUsd = LimitSerializer(allow_null=True)  # noqa: N815


_USAGE: Final = inline_serializer(
    "Usage",
    {
        "userId": serializers.CharField(allow_null=True, help_text="null: all users."),
        "from": serializers.DateField(),
        "to": serializers.DateField(),
        "total": SumsSerializer(),
        "byEngine": EngineSumsSerializer(many=True),
        "byDay": DaySumsSerializer(many=True),
        "limits": LimitsSerializer(),
    },
)


class UsageViewSet(ApiViewSet):
    """See what was used, and what it cost."""

    serializer_class = UsageQuerySerializer
    pagination_class = None

    @extend_schema(
        operation_id="usage",
        parameters=[
            OpenApiParameter("userId", OpenApiTypes.STR),
            OpenApiParameter("from", OpenApiTypes.DATE, description="The first day, in UTC."),
            OpenApiParameter("to", OpenApiTypes.DATE, description="The last day, in UTC."),
        ],
        responses={200: _USAGE, **documented(403)},
    )
    def retrieve(self, request: Request) -> Response:
        """A user's usage, or that of all for a service token without `userId`.

        By default of this month; at most 366 days.
        """
        query = UsageQuerySerializer(data=request.GET.dict())
        query.is_valid(raise_exception=True)
        caller, asked = Caller.of(request), query.validated_data
        user_id = asked.get("userId", None if caller.is_service else caller.username)
        if user_id is not None and not caller.may_see(user_id):
            raise AnotherUser
        return Response(usage(user_id, asked.get("from"), asked.get("to")))
