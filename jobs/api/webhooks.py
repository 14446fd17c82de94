"""Webhooks: who is told when jobs end, and what became of each delivery."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.exceptions import ErrorDetail, NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from jobs import tasks, webhooks
from jobs.address_guard import UrlNotAllowedError
from jobs.api.authentication import Caller
from jobs.api.base import PAGE, ApiViewSet
from jobs.api.errors import AnotherUser, Conflict, documented
from jobs.api.pagination import NewestRowsFirst
from jobs.api.serializers import StrictBooleanField, StrictCharField, StrictSerializer
from jobs.models import (
    MAX_WEBHOOKS,
    URL_LENGTH,
    DeliveryStatus,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
    validate_user_id,
)


class WebhookSerializer(serializers.Serializer[Any]):
    """An endpoint, as it is listed."""

    id = serializers.UUIDField()
    userId = serializers.CharField(source="user_id")  # noqa: N815
    url = serializers.SerializerMethodField(
        help_text="Null: this one's secret signs what goes to the `webhookUrl` of single jobs."
    )
    events = serializers.ListField(child=serializers.ChoiceField(WebhookEvent.choices))
    enabled = serializers.BooleanField()
    disabledReason = serializers.SerializerMethodField(  # noqa: N815
        help_text="`by_user`, or `gone`: it answered with 410."
    )
    createdTime = serializers.DateTimeField(source="created_time")  # noqa: N815

    def get_url(self, endpoint: WebhookEndpoint) -> str | None:
        return endpoint.url or None

    def get_disabledReason(self, endpoint: WebhookEndpoint) -> str | None:  # noqa: N802
        return endpoint.disabled_reason or None


class WebhookWithSecretSerializer(WebhookSerializer):
    """An endpoint with what its receiver needs to verify."""

    secret = serializers.CharField()
    previousSecretExpiresTime = serializers.DateTimeField(  # noqa: N815
        source="previous_secret_expires_time",
        allow_null=True,
        help_text="Until then the secret before the last rotation signs as well.",
    )


def _events() -> serializers.ListField:
    return serializers.ListField(
        child=serializers.ChoiceField(WebhookEvent.choices),
        required=False,
        allow_empty=False,
        max_length=len(WebhookEvent),
        help_text="All if left out.",
    )


class NewWebhookSerializer(StrictSerializer):
    """POST /webhooks."""

    url = StrictCharField(
        allow_null=True,
        max_length=URL_LENGTH,
        help_text="Null answers the one that signs for the `webhookUrl` of single jobs.",
    )
    events = _events()
    userId = StrictCharField(  # noqa: N815
        required=False, validators=[validate_user_id], help_text="Your own name if left out."
    )


class WebhookChangeSerializer(StrictSerializer):
    """PATCH /webhooks/{id}."""

    url = StrictCharField(required=False, max_length=URL_LENGTH)
    events = _events()
    enabled = StrictBooleanField(required=False)


class UserQuerySerializer(serializers.Serializer[Any]):
    """The filters of GET /webhooks."""

    userId = StrictCharField(required=False, validators=[validate_user_id])  # noqa: N815
    limit = serializers.IntegerField(required=False, min_value=1, max_value=100)


class AttemptSerializer(serializers.Serializer[Any]):
    """One attempt; `error` is null when it was delivered."""

    time = serializers.DateTimeField()
    statusCode = serializers.IntegerField(source="status_code", allow_null=True)  # noqa: N815
    error = serializers.SerializerMethodField()
    seconds = serializers.FloatField(allow_null=True)

    def get_error(self, attempt: Any) -> str | None:
        return attempt.error or None


class DeliverySerializer(serializers.Serializer[Any]):
    """One event on its way to one address."""

    id = serializers.UUIDField()
    eventId = serializers.CharField(source="event_id", help_text="`webhook-id`.")  # noqa: N815
    type = serializers.ChoiceField(WebhookEvent.choices)
    jobId = serializers.UUIDField(source="job_id")  # noqa: N815
    url = serializers.CharField(source="target")
    status = serializers.ChoiceField(DeliveryStatus.choices)
    createdTime = serializers.DateTimeField(source="created_time")  # noqa: N815
    nextAttemptTime = serializers.DateTimeField(  # noqa: N815
        source="next_attempt_time", allow_null=True
    )
    attempts = AttemptSerializer(source="log", many=True)


class WebhookView(ApiViewSet):
    """What all addresses below `/webhooks` share: whose they are."""

    queryset = WebhookEndpoint.objects.none()
    pagination_class = NewestRowsFirst

    def handle_exception(self, exc: Exception) -> Response:
        """What was deleted since it was looked at is not there either."""
        gone = isinstance(exc, WebhookEndpoint.DoesNotExist | WebhookDelivery.DoesNotExist)
        return super().handle_exception(NotFound() if gone else exc)

    def visible(self, webhook_id: UUID) -> WebhookEndpoint:
        """The endpoint, if the caller may know of it; else 404."""
        endpoint = WebhookEndpoint.objects.filter(pk=webhook_id).first()
        if endpoint is None or not Caller.of(self.request).may_see(endpoint.user_id):
            raise NotFound
        return endpoint

    def page(self, rows: QuerySet[Any]) -> Response:
        """One page of them, newest first."""
        shown = self.get_serializer(self.paginate_queryset(rows), many=True)
        return self.get_paginated_response(shown.data)


class WebhookViewSet(WebhookView):
    """Have your own servers told when jobs end."""

    serializer_class = WebhookSerializer

    @extend_schema(
        operation_id="webhooks_list",
        parameters=[OpenApiParameter("userId", OpenApiTypes.STR), *PAGE],
        responses={200: WebhookSerializer(many=True), **documented(403)},
    )
    def list(self, request: Request) -> Response:
        """Your endpoints, without their secrets; all users' for a service token."""
        rows, caller = WebhookEndpoint.objects.all(), Caller.of(request)
        asked = UserQuerySerializer(data=request.GET.dict())
        asked.is_valid(raise_exception=True)
        user_id = asked.validated_data.get("userId")
        if user_id is not None and not caller.may_see(user_id):
            raise AnotherUser
        if user_id is None and not caller.is_service:
            user_id = caller.username
        return self.page(rows if user_id is None else rows.filter(user_id=user_id))

    @extend_schema(
        operation_id="webhook_create",
        request={"application/json": NewWebhookSerializer},
        responses={
            201: WebhookWithSecretSerializer,
            200: WebhookWithSecretSerializer,
            **documented(403, 409, 415),
        },
    )
    def create(self, request: Request) -> Response:
        """Name an address that is told of the ends of your jobs.

        Of the one with `url` null there is one for each user: repeating the call answers it with
        200, for the `events` of the last call that named some.
        """
        caller, asked = Caller.of(request), _valid(NewWebhookSerializer, request)
        user_id = asked.get("userId", caller.username)
        if not caller.may_see(user_id):
            raise AnotherUser
        url, events, made = asked["url"], asked.get("events"), True
        if url is None:
            endpoint, made = webhooks.set_up_single_jobs(user_id, events)
        else:
            with _refused_urls():
                endpoint = webhooks.create(user_id, url, events)
        location = {"Location": reverse("webhook", args=[endpoint.pk])}
        code = status.HTTP_201_CREATED if made else status.HTTP_200_OK
        return Response(_whole(endpoint), status=code, headers=location)

    @extend_schema(
        operation_id="webhook_retrieve",
        responses={200: WebhookWithSecretSerializer, **documented(404)},
    )
    def retrieve(self, request: Request, webhook_id: UUID) -> Response:
        """One endpoint, with its secret."""
        return Response(_whole(self.visible(webhook_id)))

    @extend_schema(
        operation_id="webhook_change",
        request={"application/json": WebhookChangeSerializer},
        responses={200: WebhookWithSecretSerializer, **documented(404, 415)},
    )
    def partial_update(self, request: Request, webhook_id: UUID) -> Response:
        """Change its address or events, switch it on or off; off cancels what is pending."""
        endpoint, asked = self.visible(webhook_id), _valid(WebhookChangeSerializer, request)
        if "url" in asked and not endpoint.url:
            raise ValidationError({"url": "This one has no address of its own."})
        with _refused_urls():
            webhooks.change_endpoint(endpoint, **asked)
        return Response(_whole(endpoint))

    @extend_schema(operation_id="webhook_delete", responses={204: None, **documented(404)})
    def destroy(self, request: Request, webhook_id: UUID) -> Response:
        """Forget the endpoint with its deliveries, sent or not."""
        webhooks.forget(self.visible(webhook_id))
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(
        operation_id="webhook_rotate",
        request=None,
        responses={200: WebhookWithSecretSerializer, **documented(404)},
    )
    def rotate(self, request: Request, webhook_id: UUID) -> Response:
        """Give it a new secret; for 24 hours the previous one signs as well."""
        endpoint = self.visible(webhook_id)
        webhooks.rotate(endpoint)
        return Response(_whole(endpoint))


class DeliveryViewSet(WebhookView):
    """See what an endpoint was told, and have it told again."""

    serializer_class = DeliverySerializer

    @extend_schema(
        operation_id="webhook_deliveries",
        parameters=PAGE,
        responses={200: DeliverySerializer(many=True), **documented(404)},
    )
    def list(self, request: Request, webhook_id: UUID) -> Response:
        """What it was or is to be told, of the last 30 days, with every attempt."""
        deliveries = self.visible(webhook_id).deliveries
        return self.page(deliveries.select_related("endpoint").prefetch_related("log"))

    @extend_schema(
        operation_id="webhook_redeliver",
        request=None,
        responses={202: DeliverySerializer, **documented(404, 409)},
    )
    def redeliver(self, request: Request, webhook_id: UUID, delivery_id: UUID) -> Response:
        """Send it once more, now, whatever became of it; `webhook-id` stays the same."""
        deliveries = self.visible(webhook_id).deliveries.select_related("endpoint")
        delivery = deliveries.filter(pk=delivery_id).first()
        if delivery is None:
            raise NotFound
        try:
            webhooks.redeliver(delivery)
        except webhooks.UnderWayError:
            raise Conflict("It is being sent just now.", "being_delivered") from None
        except webhooks.DisabledError:
            raise Conflict("The endpoint is switched off.", "webhook_disabled") from None
        tasks.send_webhooks([delivery.pk])
        return Response(DeliverySerializer(delivery).data, status=status.HTTP_202_ACCEPTED)


def _valid(shape: type[StrictSerializer], request: Request) -> dict[str, Any]:
    serializer = shape(data=request.data)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


def _whole(endpoint: WebhookEndpoint) -> dict[str, Any]:
    return dict(WebhookWithSecretSerializer(endpoint).data)


@contextmanager
def _refused_urls() -> Iterator[None]:
    """What may be refused about an endpoint, in the contract's words."""
    try:
        yield
    except UrlNotAllowedError as error:
        raise ValidationError({"url": [ErrorDetail(str(error), "url_not_allowed")]}) from None
    except webhooks.TooManyWebhooksError:
        detail = f"A user has at most {MAX_WEBHOOKS} webhooks; delete one first."
        raise Conflict(detail, "too_many_webhooks") from None
