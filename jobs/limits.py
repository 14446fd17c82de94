"""What a user may use: the settings, or the user's own limits where there are any."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings

from jobs.models import UserLimits


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one user may use; None for what is not limited."""

    minutes_per_day: float | None
    minutes_per_month: float | None
    jobs_in_flight: int | None
    spending_per_month_usd: Decimal | None

    @property
    def none_set(self) -> bool:
        return all(getattr(self, field.name) is None for field in fields(self))


def limits_of(user_id: str) -> Limits:
    """The user's limits. While nobody has limits of their own, that costs no statement."""
    everybodys: dict[str, Any] = {
        "minutes_per_day": settings.QUOTA_MINUTES_PER_DAY,
        "minutes_per_month": settings.QUOTA_MINUTES_PER_MONTH,
        "jobs_in_flight": settings.QUOTA_JOBS_IN_FLIGHT,
        "spending_per_month_usd": settings.SPENDING_CAP_USER_USD_PER_MONTH,
    }
    own = UserLimits.of(user_id)
    users = {name: getattr(own, name, None) for name in everybodys}
    return Limits(
        **{
            name: everybodys[name] if value is None else value  # 0 is a limit
            for name, value in users.items()
        }
    )


def first_of_month(moment: datetime) -> date:
    """The first day of the moment's month, in UTC."""
    return moment.date().replace(day=1)


def seconds_left_of_day(moment: datetime) -> int:
    """Until the next day begins, in UTC; at least 1."""
    return _seconds_until(moment.date() + timedelta(days=1), moment)


def seconds_left_of_month(moment: datetime) -> int:
    """Until the next month begins, in UTC; at least 1."""
    next_month = (first_of_month(moment) + timedelta(days=32)).replace(day=1)
    return _seconds_until(next_month, moment)


def _seconds_until(day: date, moment: datetime) -> int:
    midnight = datetime(day.year, day.month, day.day, tzinfo=moment.tzinfo)
    return max(1, -int((moment - midnight).total_seconds() // 1))
