"""What keeps the admin's lists quick with millions of rows: bounded counts, indexed searches.

Django's own would count all rows, read all values for a filter and search by joins.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from functools import cached_property
from typing import Any, Final
from uuid import UUID

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from jobs.models import Chunk, UserIndexStamp, from_now

COUNTED: Final = 10_000  # a list counts and pages no further
OFFERED: Final = 2_000  # the first rows of a list whose values a filter offers
FOUND_USERS: Final = 200
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(hours=24)
MONTH: Final = 30 * DAY
PERIODS: Final[dict[str, timedelta | None]] = {
    "day": DAY,
    "week": 7 * DAY,
    "year": 365 * DAY,
    "all": None,
}


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts no further than anyone pages: to count millions of rows takes seconds."""

    @cached_property
    def count(self) -> int:
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]
        return rows.order_by().values("pk")[:COUNTED].count()


class RecentValuesFilter(admin.SimpleListFilter):
    """Offers the values of the list's first rows, the most frequent first; all is too slow."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        rows = model_admin.get_queryset(request).order_by(*model_admin.ordering)
        newest = rows.values_list(self.parameter_name, flat=True)
        values = [value for value, _ in Counter(filter(None, newest[:OFFERED])).most_common(15)]
        chosen = self.value()
        if chosen and chosen not in values:
            values.append(chosen)
        return [(value, value) for value in values]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(**{str(self.parameter_name): self.value()} if self.value() else {})


class UserFilter(RecentValuesFilter):
    title = "user"
    parameter_name = "user_id"


class EngineFilter(RecentValuesFilter):
    title = "engine"
    parameter_name = "engine"


class ErrorCodeFilter(RecentValuesFilter):
    title = "error code"
    parameter_name = "error_code"


class AgeFilter(admin.SimpleListFilter):
    title = "age"
    parameter_name = "age"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("hour", "Under 1 hour"), ("day", "Under 24 hours"), ("older", "Older")]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        match self.value():
            case "hour":
                return queryset.submitted_within(HOUR)
            case "day":
                return queryset.submitted_within(DAY)
            case "older":
                return queryset.filter(submitted_time__lt=from_now(-DAY))
        return queryset


class PeriodFilter(admin.SimpleListFilter):
    """By time. Unless asked for, not all: what is listed is also summed."""

    title = "time"
    parameter_name = "period"
    column = "started_time"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        names = ("Last 24 hours", "Last 7 days", "Last 365 days", "Any time")
        return list(zip(PERIODS, names, strict=True))

    def choices(self, changelist: Any) -> Iterator[Any]:
        unchosen, *others = super().choices(changelist)
        yield unchosen | {"display": "Last 30 days"}
        yield from others

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        period = PERIODS.get(self.value() or "", MONTH)
        since = {f"{self.column}__gte": from_now(-period)} if period else {}
        return queryset.filter(**since)


def id_bounds(term: str) -> tuple[UUID, UUID] | None:
    """The ids that begin with `term`; None when no id does. Short words are left to users."""
    digits = term.replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]{6,32}", digits):
        return None
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))


def users_starting_with(term: str) -> list[str]:
    """A list and no subquery: databases join two indexes by OR only for plain values."""
    starting = UserIndexStamp.objects.filter(pk__startswith=term).values_list("pk", flat=True)
    return list(starting[:FOUND_USERS])


def matching_jobs(term: str) -> Q:
    """Jobs by the beginning of their id, user or an audio path, each found by an index."""
    by_path = Q(pk__in=Chunk.objects.filter(audio_path__startswith=term).values("job_id"))
    if "/" in term:
        return by_path
    users, bounds = users_starting_with(term), id_bounds(term)
    if not users and not bounds:
        return by_path
    of_users = Q(user_id__in=users)
    return of_users | Q(pk__range=bounds) if bounds else of_users


def matching_chunks(term: str) -> Q:
    """Chunks by the beginning of their job's id or of their audio path."""
    bounds = id_bounds(term)
    if bounds:
        return Q(job_id__gte=bounds[0], job_id__lte=bounds[1])
    return Q(audio_path__startswith=term)


def matching_dead_letters(term: str) -> Q:
    """Chunks as above, or by the beginning of their user's name."""
    users = [] if "/" in term else users_starting_with(term)
    found = matching_chunks(term)
    return found | Q(job__user_id__in=users) if users else found
