"""Whose limits hold, and when a day and a month are over."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from jobs.limits import Limits, limits_of, seconds_left_of_day, seconds_left_of_month
from jobs.models import UserLimits


@pytest.mark.django_db
def test_without_any_limits_nothing_is_asked(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert limits_of("alice").none_set


@pytest.mark.django_db
def test_a_users_own_limits_take_the_place_of_those_of_all_and_0_is_one(settings: Any) -> None:
    settings.QUOTA_MINUTES_PER_DAY = 60.0
    settings.QUOTA_JOBS_IN_FLIGHT = 5
    settings.SPENDING_CAP_USER_USD_PER_MONTH = Decimal("10.00")
    own = {"minutes_per_month": 100.0, "jobs_in_flight": 0, "spending_per_month_usd": Decimal(20)}
    UserLimits.objects.create(user_id="alice", **own)
    assert limits_of("alice") == Limits(minutes_per_day=60.0, **own)  # type: ignore[arg-type]
    assert limits_of("bob") == Limits(
        minutes_per_day=60.0,
        minutes_per_month=None,
        jobs_in_flight=5,
        spending_per_month_usd=Decimal("10.00"),
    )


@pytest.mark.django_db
def test_limits_that_another_process_saved_are_noticed_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    UserLimits.objects.bulk_create([UserLimits(user_id="alice", jobs_in_flight=1)])
    assert limits_of("alice").none_set  # it was looked at just now
    monkeypatch.setattr(UserLimits, "_looked", UserLimits._looked - 6)
    assert limits_of("alice").jobs_in_flight == 1


@pytest.mark.parametrize(
    ("moment", "of_day", "of_month"),
    [
        (datetime(2026, 11, 21, 12, tzinfo=UTC), 43_200, 43_200 + 9 * 86_400),
        (datetime(2026, 12, 31, 23, 59, 58, 500_000, tzinfo=UTC), 2, 2),
        (datetime(2026, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), 1, 1),
        (datetime(2028, 2, 1, tzinfo=UTC), 86_400, 29 * 86_400),
    ],
)
def test_days_and_months_end_at_midnight(moment: datetime, of_day: int, of_month: int) -> None:
    assert (seconds_left_of_day(moment), seconds_left_of_month(moment)) == (of_day, of_month)
