"""Ratings and reported mistakes in the admin: what is said of which engine, and a CSV of it."""

from __future__ import annotations

import csv
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar, Final

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from jobs import feedback
from jobs.admin_base import ReadOnly, job_link, unbroken
from jobs.admin_lists import (
    COUNTED,
    EngineFilter,
    PeriodFilter,
    RecentValuesFilter,
    UserFilter,
    id_bounds,
)
from jobs.models import iso_time

# A spreadsheet takes what begins so for a formula, and runs it.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
SHOWN: Final = 80  # characters of a comment in the list


class TimeFilter(PeriodFilter):
    column = "time"


class ModelFilter(RecentValuesFilter):
    title = "model"
    parameter_name = "model"


class FeedbackList(ChangeList):
    """A list with what was said lately of each engine, whatever is listed."""

    @cached_property
    def engines(self) -> list[dict[str, Any]]:
        return feedback.by_engine()


class FeedbackAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    """Only read, but what is nonsense may be deleted."""

    change_list_template = "admin/jobs/feedback_list.html"
    ordering = ("-id",)
    sortable_by = ()
    search_fields = ("id",)  # makes Django show the box; get_search_results decides
    searched: ClassVar[tuple[str, ...]]  # columns in which a word may stand anywhere
    actions = ("export_csv",)
    readonly_fields = ("of_job",)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return FeedbackList

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        names = [field.name for field in self.opts.fields if field.name != "id"]
        return ["of_job" if name == "job" else name for name in names]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """No index finds a word in the middle; the period that is chosen bounds what is read."""
        term = search_term.strip()
        found = Q(user_id__startswith=term)
        for column in self.searched:
            found |= Q(**{f"{column}__icontains": term})
        if bounds := id_bounds(term):
            found |= Q(job_id__gte=bounds[0], job_id__lte=bounds[1])
        return (queryset.filter(found) if term else queryset), False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(f"jobs.delete_{self.opts.model_name}")

    @admin.display(description="job")
    def of_job(self, row: Any) -> SafeString:
        return job_link(row.job_id)

    @admin.display(description="time (UTC)")
    def said(self, row: Any) -> SafeString:
        return unbroken(f"{row.time:%Y-%m-%d %H:%M:%S}")

    @admin.display(description="comment")
    def beginning(self, row: Any) -> str:
        return Truncator(row.comment).chars(SHOWN)

    @admin.action(description=f"Export as CSV ({COUNTED} rows at most)", permissions=["view"])
    def export_csv(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        """Those that are ticked, in the order of the list."""
        names = [field.attname for field in self.opts.fields]
        name = f"{self.opts.verbose_name_plural}.csv".replace(" ", "-")
        answer = HttpResponse(
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )
        written = csv.writer(answer)
        written.writerow(names)
        for row in queryset.order_by(*self.ordering).values_list(*names)[:COUNTED].iterator():
            written.writerow([_cell(value) for value in row])
        return answer


def _cell(value: object) -> str:
    """A value as text that no spreadsheet runs."""
    if value is None:
        return ""
    text = iso_time(value) if isinstance(value, datetime) else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


class RatingAdmin(FeedbackAdmin):
    list_display = ("said", "stars", "engine", "model", "user_id", "of_job", "beginning")
    list_filter = ("stars", TimeFilter, EngineFilter, ModelFilter, UserFilter)
    search_help_text = (
        "A word of the comment, or the beginning of a job id (6 characters or more) or of a "
        "user's name; within the time that is chosen."
    )
    searched = ("comment",)


class MistakeReportAdmin(FeedbackAdmin):
    list_display = (
        *("said", "kind", "heard", "meant", "engine", "model"),
        *("user_id", "of_job", "part", "beginning"),
    )
    list_filter = ("kind", TimeFilter, EngineFilter, ModelFilter, UserFilter)
    search_help_text = (
        "A word of what was heard or meant or of the comment, or the beginning of a job id "
        "(6 characters or more) or of a user's name; within the time that is chosen."
    )
    searched = ("heard", "meant", "comment")

    @admin.display(description="part")
    def part(self, row: Any) -> int | None:
        """As people count."""
        return None if row.index is None else row.index + 1
