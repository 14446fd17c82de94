"""The addresses of the API."""

from __future__ import annotations

from django.urls import path
from drf_spectacular.views import SpectacularRedocView, SpectacularSwaggerView
from rest_framework.permissions import IsAdminUser

from jobs.api.engines import EngineViewSet
from jobs.api.exports import ExportViewSet
from jobs.api.views import SchemaView, TranscribeViewSet, TranscriptViewSet
from jobs.api.webhooks import DeliveryViewSet, WebhookViewSet

urlpatterns = [
    path("transcribe", TranscribeViewSet.as_view({"post": "create"}), name="transcribe"),
    path(
        "transcript/search", TranscriptViewSet.as_view({"get": "search"}), name="transcript-search"
    ),
    path(
        "transcript/<uuid:job_id>",
        TranscriptViewSet.as_view({"get": "retrieve", "delete": "destroy"}),
        name="transcript",
    ),
    path(
        "transcript/<uuid:job_id>/cancel",
        TranscriptViewSet.as_view({"post": "cancel"}),
        name="transcript-cancel",
    ),
    path(
        "transcript/<uuid:job_id>/retry",
        TranscriptViewSet.as_view({"post": "retry"}),
        name="transcript-retry",
    ),
    path("engines", EngineViewSet.as_view({"get": "overview"}), name="engines"),
    path(
        "engines/<str:name>/verify",
        EngineViewSet.as_view({"post": "verify"}, permission_classes=[IsAdminUser]),
        name="engine-verify",
    ),
    path(
        "transcript/<uuid:job_id>/export/<str:file_format>",
        ExportViewSet.as_view({"get": "retrieve"}),
        name="transcript-export",
    ),
    path(
        "webhooks",
        WebhookViewSet.as_view({"get": "list", "post": "create"}),
        name="webhooks",
    ),
    path(
        "webhooks/<uuid:webhook_id>",
        WebhookViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
        name="webhook",
    ),
    path(
        "webhooks/<uuid:webhook_id>/rotate",
        WebhookViewSet.as_view({"post": "rotate"}),
        name="webhook-rotate",
    ),
    path(
        "webhooks/<uuid:webhook_id>/deliveries",
        DeliveryViewSet.as_view({"get": "list"}),
        name="webhook-deliveries",
    ),
    path(
        "webhooks/<uuid:webhook_id>/deliveries/<uuid:delivery_id>/redeliver",
        DeliveryViewSet.as_view({"post": "redeliver"}),
        name="webhook-redeliver",
    ),
    path("schema", SchemaView.as_view(), name="schema"),
    path("docs", SpectacularSwaggerView.as_view(url_name="schema"), name="docs"),
    path("redoc", SpectacularRedocView.as_view(url_name="schema"), name="redoc"),
]
