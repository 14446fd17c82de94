"""The ledger in the admin: every call of an engine, what it cost, and what became of it."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from jobs.admin_base import ReadOnly, job_link
from jobs.admin_lists import EngineFilter, UserFilter, id_bounds
from jobs.models import EngineCall


class EngineCallAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = (
        *("started_time", "engine", "model", "user_id", "of_job", "index"),
        *("outcome", "error_code", "audio_seconds", "price_usd"),
    )
    list_filter = ("outcome", EngineFilter, UserFilter)
    ordering = ("-pk",)
    sortable_by = ()
    search_fields = ("id",)  # makes Django show the box; get_search_results decides
    search_help_text = "The beginning of a job id (6 characters or more) or of a user's name."
    readonly_fields = ("of_job",)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        names = [field.name for field in EngineCall._meta.fields]
        return ["of_job"] + [name for name in names if name not in {"id", "job_id"}]

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
