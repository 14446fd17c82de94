"""The ledger in the admin: every call of an engine, what it cost, and what became of it."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from jobs.admin_base import Numbered, ReadOnly, job_link, unbroken
from jobs.admin_lists import EngineFilter, PeriodFilter, UserFilter, id_bounds
from jobs.models import EngineCall


class LedgerList(ChangeList):
    """A list with the sums of all that it lists, on whatever page."""

    @cached_property
    def sums(self) -> list[dict[str, Any]]:
        """By engine and outcome."""
        return list(self.queryset.sums())

    @cached_property
    def total(self) -> dict[str, Any]:
        """Of all engines and outcomes; None where of no call anything is known."""
        names = ("calls", "minutes", "billed_minutes", "read", "written", "price", "unpriced")
        known = {name: [row[name] for row in self.sums if row[name] is not None] for name in names}
        return {name: sum(numbers) if numbers else None for name, numbers in known.items()}


class EngineCallAdmin(Numbered, ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = (
        *("started", "engine", "model", "user_id", "of_job", "part", "outcome", "error_code"),
        *("audio_seconds", "billed_seconds", "input_tokens", "output_tokens", "price"),
    )
    list_filter = (PeriodFilter, "outcome", EngineFilter, UserFilter)
    ordering = ("-pk",)
    sortable_by = ()
    search_fields = ("id",)  # makes Django show the box; get_search_results decides
    search_help_text = "The beginning of a job id (6 characters or more) or of a user's name."
    readonly_fields = ("of_job", "part", "started", "ended", "price")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return LedgerList

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        shown = {"job_id": "of_job", "index": "part", "price_usd": "price"}
        shown |= {"started_time": "started", "ended_time": "ended"}
        names = [field.name for field in EngineCall._meta.fields if field.name != "id"]
        return [shown.get(name, name) for name in names]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[EngineCall], search_term: str
    ) -> tuple[QuerySet[EngineCall], bool]:
        term = search_term.strip()
        found = Q(user_id__startswith=term)
        if bounds := id_bounds(term):
            found |= Q(job_id__range=bounds)
        return (queryset.filter(found) if term else queryset), False

    @admin.display(description="job")
    def of_job(self, call: EngineCall) -> SafeString:
        return job_link(call.job_id)

    @admin.display(description="started (UTC)")
    def started(self, call: EngineCall) -> SafeString:
        return unbroken(f"{call.started_time:%Y-%m-%d %H:%M:%S}")

    @admin.display(description="ended (UTC)")
    def ended(self, call: EngineCall) -> SafeString:
        return unbroken(f"{call.ended_time:%Y-%m-%d %H:%M:%S}" if call.ended_time else "-")

    @admin.display(description="list price (USD)")
    def price(self, call: EngineCall) -> str:
        return "unknown" if call.price_usd is None else f"{call.price_usd}"
