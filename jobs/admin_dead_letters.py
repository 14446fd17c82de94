"""The admin's page of dead letters: chunks that failed for good, and their way back to work."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import Any, Final
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from jobs import actions
from jobs.admin_base import (
    ACTED_ON_AT_ONCE,
    Numbered,
    ReadOnly,
    Sender,
    job_link,
    say,
    unbroken,
)
from jobs.admin_lists import (
    DAY,
    HOUR,
    AgeFilter,
    ErrorCodeFilter,
    RecentValuesFilter,
    matching_dead_letters,
)
from jobs.models import Chunk, DeadLetter, JobEvent, JobGoneError, from_now

EVENTS_SHOWN: Final = 200
GONE: Final = "no longer among the dead letters"


class ClassFilter(admin.SimpleListFilter):
    title = "classification"
    parameter_name = "class"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("recoverable", "Recoverable"), ("permanent", "Permanent")]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        match self.value():
            case "recoverable":
                return queryset.recoverable()
            case "permanent":
                return queryset.permanent()
        return queryset


class EndedFilter(AgeFilter):
    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        match self.value():
            case "hour":
                return queryset.filter(ended_time__gte=from_now(-HOUR))
            case "day":
                return queryset.filter(ended_time__gte=from_now(-DAY))
            case "older":
                return queryset.filter(ended_time__lt=from_now(-DAY))
        return queryset


class JobEngineFilter(RecentValuesFilter):
    """By the engine that was asked for: a chunk that failed has none that spoke."""

    title = "engine"
    parameter_name = "job__engine"


class DeadLetterAdmin(Numbered, ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = (
        *("of_job", "part", "user", "classification", "error_code", "error_detail"),
        *("attempts", "errors", "crashes", "redrives", "ended"),
    )
    list_display_links = ("part",)
    list_filter = (ClassFilter, ErrorCodeFilter, EndedFilter, JobEngineFilter)
    list_select_related = ("job",)
    ordering = ("-ended_time", "-id")
    sortable_by = ()
    search_fields = ("id",)  # makes Django show the box; get_search_results decides
    search_help_text = (
        "The beginning of a job id (6 characters or more), of a user's name or of an audio path."
    )
    actions = ("retry",)
    fieldsets = (
        (None, {"fields": ("of_job", "part", "user", "audio_path", "asked_for")}),
        ("Error", {"fields": ("classification", "error_code", "error_detail", "ended")}),
        ("Budgets", {"fields": ("attempts", "errors", "crashes", "redrives")}),
        ("Attempts", {"fields": ("history",)}),
    )
    readonly_fields = ("of_job", "part", "user", "asked_for", "classification", "ended", "history")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return DeadLetter.objects.dead_letters().without_words()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        return (queryset.filter(matching_dead_letters(term)) if term else queryset), False

    @admin.display(description="job")
    def of_job(self, chunk: Chunk) -> SafeString:
        return job_link(chunk.job_id)

    @admin.display(description="user")
    def user(self, chunk: Chunk) -> str:
        return chunk.job.user_id

    @admin.display(description="engine")
    def asked_for(self, chunk: Chunk) -> str:
        return chunk.engine or chunk.job.engine

    @admin.display(description="classification")
    def classification(self, chunk: Chunk) -> str:
        return "recoverable" if chunk.error_recoverable else "permanent"

    @admin.display(description="ended (UTC)")
    def ended(self, chunk: Chunk) -> SafeString:
        return unbroken(f"{chunk.ended_time:%Y-%m-%d %H:%M:%S}" if chunk.ended_time else "-")

    @admin.display(description="events of this chunk")
    def history(self, chunk: Chunk) -> str:
        events = JobEvent.objects.filter(job_id=chunk.job_id, data__index=chunk.index)
        newest = reversed(events.order_by("-sequence")[:EVENTS_SHOWN])
        return render_to_string("admin/jobs/deadletter/history.html", {"events": newest})

    # Who may see chunks may see these; who may change jobs may retry them.

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("jobs.view_chunk")

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("jobs.change_job")

    @admin.action(description="Retry the selected chunks", permissions=["operate"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Only these: the other failed chunks of their jobs stay failed."""
        found = queryset.count()
        skipped = Counter({GONE: selected(request, found) - found})
        send, retried = Sender(), 0
        chosen = list(queryset.order_by("job_id", "index")[:ACTED_ON_AT_ONCE])
        skipped[f"beyond {ACTED_ON_AT_ONCE} at once"] = found - len(chosen)
        for job_id, group in groupby(chosen, key=lambda chunk: chunk.job_id):
            chunks = list(group)
            done = retry_these(job_id, {chunk.pk for chunk in chunks})
            if done:
                send(job_id)
            for chunk in chunks:
                if chunk.pk in done:
                    self.log_change(request, chunk, "Retried")
            retried += len(done)
            skipped[GONE] += len(chunks) - len(done)
        say(self, request, f"{retried} retried", skipped)
        send.tell(self, request)


def retry_these(job_id: UUID, keys: set[int]) -> set[int]:
    """The keys of those that could be; somebody else may have been first, or deleted the job."""
    try:
        return {chunk.pk for chunk in actions.retry(job_id, which=Q(pk__in=keys))}
    except (actions.NotFailedError, JobGoneError):
        return set()


def selected(request: HttpRequest, found: int) -> int:
    """How many rows were ticked; some may be dead letters no longer."""
    if request.POST.get("select_across") == "1":
        return found
    return len(request.POST.getlist(ACTION_CHECKBOX_NAME))
