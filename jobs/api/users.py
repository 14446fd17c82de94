"""What is kept of a user, as a whole."""

from __future__ import annotations

from typing import Any, Final

from django.core.exceptions import ValidationError
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from jobs import erasure
from jobs.api.authentication import Caller
from jobs.api.base import ApiViewSet
from jobs.api.errors import Unfinished, documented
from jobs.models import iso_time, validate_user_id

_NAME: Final = {"type": "string", "pattern": r"^[\w.@+-]+$", "minLength": 1, "maxLength": 150}


class ReceiptSerializer(serializers.Serializer[Any]):
    """What was erased. It is given only when nothing was found any more."""

    userId = serializers.CharField()  # noqa: N815
    requestedTime = serializers.DateTimeField()  # noqa: N815
    completedTime = serializers.DateTimeField()  # noqa: N815
    removed = serializers.DictField(
        child=serializers.IntegerField(), help_text="How much of each kind."
    )
    remaining = serializers.DictField(
        child=serializers.IntegerField(), help_text="The same kinds, counted again: all 0."
    )
    verified = serializers.BooleanField(help_text="Whether all were counted again.")


class UserDataViewSet(ApiViewSet):
    """All that is kept of one user."""

    serializer_class = ReceiptSerializer

    @extend_schema(
        operation_id="user_data_erase",
        parameters=[OpenApiParameter("user_id", _NAME, OpenApiParameter.PATH)],
        responses={200: ReceiptSerializer, **documented(404)},
    )
    def destroy(self, request: Request, user_id: str) -> Response:
        """Erase the user's jobs with everything of them, whatever their state, and say how much.

        Files that others put under the audio root stay, as do the account and its tokens. The
        ledger's rows stay under a pseudonym. What is submitted meanwhile is taken and stays. A
        call that is cut off or answered with 503 is to be repeated; so may be any other.
        """
        _check_visible(user_id, Caller.of(request))
        try:
            receipt = erasure.erase(user_id)
        except erasure.ErasureIncomplete as error:
            raise Unfinished(str(error)) from error
        return Response(
            {
                "userId": receipt.user_id,
                "requestedTime": iso_time(receipt.requested_time),
                "completedTime": iso_time(receipt.completed_time),
                "removed": receipt.removed,
                "remaining": receipt.remaining,
                "verified": not any(receipt.remaining.values()),
            }
        )


def _check_visible(user_id: str, caller: Caller) -> None:
    """Raises NotFound for a name that is the caller's business no more than one that nobody has."""
    try:
        validate_user_id(user_id)
    except ValidationError:
        raise NotFound from None
    if not caller.may_see(user_id):
        raise NotFound
