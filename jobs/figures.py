"""What rows tell of this moment, of the last 24 hours and of this month, for who looks after it.

Every statement is bounded, in time or in rows, and served by an index. What a queue or a wait was
like an hour ago stands in no row, and so is not told.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from django.db.models import Count, Q, QuerySet
from django.db.models.functions import TruncHour

from jobs.limits import first_of_month
from jobs.models import CallOutcome, Chunk, EngineCall, Job, UsageDay

HOUR: Final = timedelta(hours=1)
DAY: Final = 24 * HOUR
COUNTED: Final = 100_000  # chunks that wait; more are not counted
COUNTED_DEAD: Final = 10_000
WAITS: Final[dict[str, timedelta]] = {
    "under 1 minute": timedelta(minutes=1),
    "1 to 10 minutes": timedelta(minutes=10),
    "10 to 60 minutes": HOUR,
    "1 to 6 hours": 6 * HOUR,
    "longer": timedelta(days=365),
}
"""How long a due chunk waits: less than that, and no less than the one before."""

AUDIO_AT_FAULT: Final = frozenset({"invalid_audio", "audio_too_long"})
"""Codes of files that no engine could have understood."""


@dataclass(frozen=True, kw_only=True)
class Hour:
    """What was counted in the hour that begins then, by kind."""

    start: datetime
    numbers: Counter[str]


def hours_of_day(now: datetime) -> list[datetime]:
    """The hours that the last 24 hours lie in; of the first and the last only a part."""
    last = now.replace(minute=0, second=0, microsecond=0)
    return [last - n * HOUR for n in range(24, -1, -1)]


def jobs_by_hour(now: datetime) -> list[Hour]:
    """Jobs submitted in the last 24 hours, by their status of now."""
    return _hours(now, _counted(Job.objects.submitted_within(DAY), "submitted_time", "status"))


def calls_by_hour(now: datetime) -> dict[str, list[Hour]]:
    """Calls begun in the last 24 hours that have ended, by engine: `answered` and `failed`.

    What an engine refused has failed. A call whose answer was lost is neither.
    """
    calls = EngineCall.objects.filter(started_time__gte=now - DAY)
    by_engine: dict[str, list[tuple[datetime, str, int]]] = defaultdict(list)
    for hour, engine, outcome, number in _counted(calls, "started_time", "engine", "outcome"):
        if outcome != CallOutcome.UNKNOWN:
            kind = "answered" if outcome == CallOutcome.ANSWERED else "failed"
            by_engine[engine].append((hour, kind, number))
    return {engine: _hours(now, counted) for engine, counted in sorted(by_engine.items())}


def dead_letters_by_hour(now: datetime) -> list[Hour]:
    """Dead letters of the last 24 hours: `recoverable`, `permanent`, and `audio`, whose file is
    at fault.
    """
    dead = Chunk.objects.dead_letters().filter(ended_time__gte=now - DAY)
    counted = _counted(dead, "ended_time", "error_recoverable", "error_code")
    return _hours(
        now, ((hour, _class(recoverable, code), n) for hour, recoverable, code, n in counted)
    )


def dead_letters() -> dict[str, str]:
    """How many there are of each class, counted up to `COUNTED_DEAD`."""
    dead = Chunk.objects.dead_letters()
    classes = {"recoverable": dead.recoverable(), "permanent": dead.permanent()}
    return {name: bounded(rows, COUNTED_DEAD) for name, rows in classes.items()}


def waiting_by_age(now: datetime) -> dict[str, int]:
    """Pending chunks by how long they wait; those whose time is still to come are `not due yet`.

    Of more than `COUNTED` those that wait longest.
    """
    oldest = Chunk.objects.pending().order_by("not_before").values("not_before")[:COUNTED]
    edges = [now, *(now - wait for wait in WAITS.values())]
    waits = {
        name: Q(not_before__lte=edge, not_before__gt=next_edge)
        for name, edge, next_edge in zip(WAITS, edges, edges[1:], strict=False)
    }
    waits["not due yet"] = Q(not_before__gt=now)
    numbered = {f"wait_{n}": wait for n, wait in enumerate(waits.values())}
    counts = {name: Count("not_before", filter=wait) for name, wait in numbered.items()}
    return dict(zip(waits, oldest.aggregate(**counts).values(), strict=True))


def spending_by_day(now: datetime) -> list[tuple[date, Decimal]]:
    """The list prices of each day of this month until today."""
    first = first_of_month(now)
    found = UsageDay.objects.between(first, now.date()).sums_by("day")
    spent = {row["day"]: Decimal(row["sum_price_usd"]) for row in found}
    days = [first + timedelta(days=n) for n in range((now.date() - first).days + 1)]
    return [(day, spent.get(day, Decimal(0))) for day in days]


def bounded(rows: QuerySet[Any], most: int) -> str:
    """How many rows there are, counted no further than that."""
    number = rows.order_by().values("pk")[:most].count()
    return f"{number}" if number < most else f"{most} or more"


def _class(recoverable: bool | None, code: str) -> str:
    if recoverable:
        return "recoverable"
    return "audio" if code in AUDIO_AT_FAULT else "permanent"


def _counted(rows: QuerySet[Any], column: str, *kinds: str) -> Iterable[tuple[Any, ...]]:
    """The hour of the column, the kinds, and how many rows have them."""
    by_hour = rows.order_by().annotate(hour=TruncHour(column, tzinfo=UTC))
    counted: QuerySet[Any, Any] = by_hour.values_list("hour", *kinds).annotate(Count("pk"))
    return counted


def _hours(now: datetime, counted: Iterable[tuple[Any, ...]]) -> list[Hour]:
    """Every hour of the day, also those in which nothing was counted."""
    numbers: dict[datetime, Counter[str]] = defaultdict(Counter)
    for hour, kind, number in counted:
        numbers[hour][kind] += number
    return [Hour(start=start, numbers=numbers[start]) for start in hours_of_day(now)]
