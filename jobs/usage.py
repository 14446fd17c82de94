"""What was used: sums of a span of days by engine and by day, and what is left of the limits."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from django.conf import settings

from jobs.limits import limits_of
from jobs.models import EVERYBODY, UsageDay, database_time, iso_time
from jobs.quotas import bytes_announced, jobs_in_flight, minutes_used
from jobs.spending import caps_of, standings

_LIMITS: Final = (
    "minutesPerDay",
    "minutesPerMonth",
    "jobsInFlight",
    "uploadBytes",
    "spendingPerMonthUsd",
)


def usage(user_id: str | None, first: date | None, last: date | None) -> dict[str, Any]:
    """The JSON-able usage of one user, or of all (None), with both days included.

    The span is this month where it is not given; an end that is given alone takes the month of
    that day. Days and months are those of UTC, by the database's clock.
    """
    now = database_time()
    if first is None:
        first = (last or now.date()).replace(day=1)
    last = last or _end_of_month(first)
    days = UsageDay.objects.between(first, last)
    if user_id is not None:
        days = days.filter(user_id=user_id)
    return {
        "userId": user_id,
        "from": first.isoformat(),
        "to": last.isoformat(),
        "total": _shown(days.sums()),
        "byEngine": [{"engine": row["engine"], **_shown(row)} for row in days.sums_by("engine")],
        "byDay": [{"day": row["day"].isoformat(), **_shown(row)} for row in days.sums_by("day")],
        "limits": _limits(user_id, now),
    }


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "calls": row["sum_calls"],
        "minutes": _rounded(row["sum_minutes"]),
        "deduplicatedMinutes": _rounded(row["sum_deduplicated_minutes"]),
        "priceUsd": _rounded(row["sum_price_usd"]),
        "unpricedCalls": row["sum_unpriced_calls"],
    }


def _limits(user_id: str | None, now: datetime) -> dict[str, Any]:
    """Each limit that is set for the user, or for all together, and null for the others."""
    caps = caps_of([] if user_id is None else [user_id])
    scope = EVERYBODY if user_id is None else user_id
    day = _midnight(now.date() + timedelta(days=1))
    month = _midnight(_end_of_month(now.date()) + timedelta(days=1))
    shown: dict[str, Any] = dict.fromkeys(_LIMITS)
    for standing in standings({name: cap for name, cap in caps.items() if name == scope}):
        shown["spendingPerMonthUsd"] = _left(standing.cap, standing.spent, month)
    if user_id is None:
        return shown
    if settings.QUOTA_UPLOAD_BYTES is not None:
        announced = bytes_announced(user_id)
        shown["uploadBytes"] = _left(settings.QUOTA_UPLOAD_BYTES, announced.bytes, announced.until)
    if limits_of(user_id).none_set:
        return shown
    limits, used = limits_of(user_id), minutes_used(user_id, now)
    if limits.minutes_per_day is not None:
        shown["minutesPerDay"] = _left(limits.minutes_per_day, used.day, day)
    if limits.minutes_per_month is not None:
        shown["minutesPerMonth"] = _left(limits.minutes_per_month, used.month, month)
    if limits.jobs_in_flight is not None:
        shown["jobsInFlight"] = _left(limits.jobs_in_flight, jobs_in_flight(user_id), None)
    return shown


def _left(limit: float | Decimal, used: float | Decimal, until: datetime | None) -> dict[str, Any]:
    remaining = max(0.0, float(limit) - float(used))
    return {
        "limit": float(limit),
        "used": _rounded(used),
        "remaining": _rounded(remaining),
        "resetTime": until and iso_time(until),
    }


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _rounded(number: float | Decimal) -> float:
    return round(float(number), 6)


def _end_of_month(day: date) -> date:
    return day.replace(day=monthrange(day.year, day.month)[1])
