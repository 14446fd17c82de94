"""Usage in the admin: what was used by day and engine, drawn; and the limits of single users."""

from __future__ import annotations

from datetime import date, timedelta
from functools import cached_property
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.http import HttpRequest
from django.utils.safestring import SafeString

from jobs import charts
from jobs.admin_base import ReadOnly, unbroken
from jobs.admin_lists import BoundedPaginator, EngineFilter, PeriodFilter, UserFilter
from jobs.models import UsageDay


class DayFilter(PeriodFilter):
    column = "day"


class UsageList(ChangeList):
    """A list with the sums of all that it lists, on whatever page, and their charts."""

    @cached_property
    def engines(self) -> list[dict[str, Any]]:
        """The sums of each engine."""
        return list(self.queryset.sums_by("engine"))

    @cached_property
    def total(self) -> dict[str, Any]:
        """The sums of all."""
        names = [name for row in self.engines[:1] for name in row if name != "engine"]
        return {name: sum(row[name] for row in self.engines) for name in names}

    @cached_property
    def minutes_by_day(self) -> list[charts.Bar]:
        """Minutes of sound of each day from the first to the last, idle ones between them too."""
        found = {row["day"]: row["sum_minutes"] for row in self.queryset.sums_by("day")}
        days = _days(min(found), max(found)) if found else []
        return charts.columns([(day.isoformat(), found.get(day, 0.0)) for day in days])

    @cached_property
    def price_by_engine(self) -> list[charts.Bar]:
        """What the calls of each engine cost, at list prices."""
        return charts.rows([(row["engine"], float(row["sum_price_usd"])) for row in self.engines])

    @property
    def most_minutes(self) -> float:
        return max(bar.value for bar in self.minutes_by_day)

    @property
    def rows_height(self) -> int:
        return int(charts.ROW * len(self.price_by_engine))


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


class UsageDayAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = (
        *("of_day", "user_id", "engine", "calls", "minutes"),
        *("deduplicated_minutes", "price", "unpriced_calls"),
    )
    list_display_links = None
    list_filter = (DayFilter, EngineFilter, UserFilter)
    ordering = ("-day", "user_id", "engine")
    sortable_by = ()
    search_fields = ("user_id__startswith",)
    search_help_text = "The beginning of a user's name."

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return UsageList

    @admin.display(description="day (UTC)")
    def of_day(self, day: UsageDay) -> SafeString:
        return unbroken(day.day.isoformat())

    @admin.display(description="minutes")
    def minutes(self, day: UsageDay) -> str:
        return f"{day.seconds / 60:.1f}"

    @admin.display(description="minutes known before")
    def deduplicated_minutes(self, day: UsageDay) -> str:
        return f"{day.deduplicated_seconds / 60:.1f}"

    @admin.display(description="list price (USD)")
    def price(self, day: UsageDay) -> str:
        return f"{day.price_usd:.4f}"


class UserLimitsAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """The one page where something is written by hand: it is asked about, never moved."""

    list_display = (
        *("user_id", "minutes_per_day", "minutes_per_month"),
        *("jobs_in_flight", "spending_per_month_usd"),
    )
    ordering = ("user_id",)
    sortable_by = ()
    search_fields = ("user_id__startswith",)
    search_help_text = "The beginning of a user's name."
    paginator = BoundedPaginator
    show_full_result_count = False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Another name would leave the first one's limits where they are."""
        return () if obj is None else ("user_id",)
