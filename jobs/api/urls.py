"""The addresses of the API."""

from __future__ import annotations

from csp.decorators import csp_update
from django.urls import path
from drf_spectacular.views import SpectacularRedocView, SpectacularSwaggerSplitView
from rest_framework.permissions import IsAdminUser

from jobs.api.audio import AudioViewSet
from jobs.api.editing import EditingViewSet
from jobs.api.engines import EngineViewSet
from jobs.api.exports import ExportViewSet
from jobs.api.feedback import MistakeViewSet, RatingViewSet
from jobs.api.uploads import OneUploadViewSet, UploadViewSet
from jobs.api.usage import UsageViewSet
from jobs.api.users import UserDataViewSet
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
    path(
        "transcript/<uuid:job_id>/text",
        EditingViewSet.as_view({"get": "retrieve", "patch": "partial_update"}),
        name="transcript-text",
    ),
    path(
        "transcript/<uuid:job_id>/revisions",
        EditingViewSet.as_view({"get": "list"}),
        name="transcript-revisions",
    ),
    path(
        "transcript/<uuid:job_id>/revisions/<int:number>/restore",
        EditingViewSet.as_view({"post": "restore"}),
        name="transcript-revision-restore",
    ),
    path(
        "transcript/<uuid:job_id>/words",
        EditingViewSet.as_view({"get": "words"}),
        name="transcript-words",
    ),
    path(
        "transcript/<uuid:job_id>/rating",
        RatingViewSet.as_view({"get": "retrieve", "put": "update", "delete": "destroy"}),
        name="transcript-rating",
    ),
    path(
        "transcript/<uuid:job_id>/mistakes",
        MistakeViewSet.as_view({"get": "list", "post": "create"}),
        name="transcript-mistakes",
    ),
    path("usage", UsageViewSet.as_view({"get": "retrieve"}), name="usage"),
    path("uploads", UploadViewSet.as_view({"post": "create"}), name="uploads"),
    path(
        "uploads/<uuid:upload_id>",
        OneUploadViewSet.as_view({"put": "receive", "delete": "destroy"}),
        name="upload",
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
        "transcript/<uuid:job_id>/audio/<int:index>",
        AudioViewSet.as_view({"get": "retrieve"}),
        name="transcript-audio",
    ),
    path(
        "users/<str:user_id>/data",
        UserDataViewSet.as_view({"delete": "destroy"}),
        name="user-data",
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
    # Split: its own script as an address, since scripts within a page are not let run.
    path("docs", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="docs"),
    path(
        "redoc",
        # It makes the worker that searches out of itself.
        csp_update({"worker-src": ["blob:"]})(SpectacularRedocView.as_view(url_name="schema")),
        name="redoc",
    ),
]
