"""Webhooks in the admin: where users have things sent, and what became of each delivery."""

from __future__ import annotations

from collections import Counter
from typing import Any
from urllib.parse import urlsplit

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from jobs import tasks, webhooks
from jobs.admin_base import ACTED_ON_AT_ONCE, ReadOnly, job_link, say, unbroken
from jobs.admin_lists import RecentValuesFilter, UserFilter, id_bounds
from jobs.models import WebhookAttempt, WebhookDelivery, WebhookEndpoint


class ErrorFilter(RecentValuesFilter):
    title = "error"
    parameter_name = "error"


def without_query(url: str) -> str:
    """An address as operators need it; a query may hold a user's secret."""
    parts = urlsplit(url)
    return parts._replace(query="…" if parts.query else "", fragment="").geturl()


class WebhookEndpointAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("whole_id", "user_id", "address", "enabled", "disabled_reason", "created_time")
    list_filter = (UserFilter,)
    ordering = ("-id",)
    sortable_by = ()
    search_fields = ("user_id__startswith",)
    search_help_text = "The beginning of a user's name."
    fields = (
        *("id", "user_id", "address", "events", "enabled", "disabled_time", "disabled_reason"),
        *("previous_secret_expires_time", "created_time"),
    )
    readonly_fields = ("address", "enabled")

    @admin.display(description="id")
    def whole_id(self, endpoint: WebhookEndpoint) -> SafeString:
        return unbroken(endpoint.pk)

    @admin.display(description="address")
    def address(self, endpoint: WebhookEndpoint) -> str:
        return without_query(endpoint.url) or "(that of each job)"

    @admin.display(description="enabled", boolean=True)
    def enabled(self, endpoint: WebhookEndpoint) -> bool:
        return endpoint.enabled


class AttemptInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    model = WebhookAttempt
    extra = 0
    fields = ("time", "status_code", "error", "seconds")

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("jobs.view_webhookdelivery")


class WebhookDeliveryAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = (
        *("created", "user_id", "type", "address", "status", "attempts"),
        *("status_code", "error", "due", "of_job"),
    )
    list_filter = ("status", ErrorFilter, UserFilter)
    list_select_related = ("endpoint",)
    ordering = ("-id",)
    sortable_by = ()
    search_fields = ("id",)  # makes Django show the box; get_search_results decides
    search_help_text = "The beginning of a job id (6 characters or more) or of a user's name."
    actions = ("redeliver",)
    inlines = (AttemptInline,)
    fields = (
        *("event_id", "type", "of_job", "user_id", "address", "status", "attempts"),
        *("status_code", "error", "due", "created", "ended_time"),
    )
    readonly_fields = ("of_job", "address", "due", "created")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[WebhookDelivery], search_term: str
    ) -> tuple[QuerySet[WebhookDelivery], bool]:
        term = search_term.strip()
        found = Q(user_id__startswith=term)
        if bounds := id_bounds(term):
            found |= Q(job_id__range=bounds)
        return (queryset.filter(found) if term else queryset), False

    @admin.display(description="job")
    def of_job(self, delivery: WebhookDelivery) -> SafeString:
        return job_link(delivery.job_id)

    @admin.display(description="address")
    def address(self, delivery: WebhookDelivery) -> str:
        return without_query(delivery.target)

    @admin.display(description="created (UTC)")
    def created(self, delivery: WebhookDelivery) -> SafeString:
        return unbroken(f"{delivery.created_time:%Y-%m-%d %H:%M:%S}")

    @admin.display(description="next attempt (UTC)")
    def due(self, delivery: WebhookDelivery) -> SafeString:
        due = delivery.next_attempt_time
        return unbroken(f"{due:%Y-%m-%d %H:%M:%S}" if due else "-")

    # Who may change jobs may have their ends told again, as the API does.

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("jobs.change_job")

    @admin.action(description="Deliver again", permissions=["operate"])
    def redeliver(self, request: HttpRequest, queryset: QuerySet[WebhookDelivery]) -> None:
        renewed, skipped = list[WebhookDelivery](), Counter[str]()
        for delivery in queryset.select_related("endpoint").order_by("pk")[:ACTED_ON_AT_ONCE]:
            try:
                webhooks.redeliver(delivery)
            except webhooks.DisabledError:
                skipped["of an endpoint that is switched off"] += 1
            except webhooks.UnderWayError:
                skipped["being sent just now"] += 1
            else:
                renewed.append(delivery)
                self.log_change(request, delivery, "Sent again")
        beyond = queryset.count() - len(renewed) - skipped.total()
        skipped[f"beyond {ACTED_ON_AT_ONCE} at once"] = beyond
        tasks.send_webhooks([delivery.pk for delivery in renewed])
        say(self, request, f"{len(renewed)} to be delivered again", skipped)
