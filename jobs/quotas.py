"""Quotas: whether a user may hand in another job, or file. They hold for whoever hands it in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from django.conf import settings
from django.db.models import Min, Sum

from jobs.limits import (
    Limits,
    first_of_month,
    limits_of,
    seconds_left_of_day,
    seconds_left_of_month,
)
from jobs.models import (
    EVERYBODY,
    JobStatus,
    Upload,
    UsageDay,
    UserIndexStamp,
    UserJobIndex,
    database_time,
    iso_time,
)
from jobs.spending import Standing, caps_of, standings

IN_FLIGHT_RETRY_SECONDS: Final = 30


class QuotaExceeded(Exception):
    """The user may hand in nothing more for now; the message names the limit and its end."""

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after  # seconds


@dataclass(frozen=True, kw_only=True)
class MinutesUsed:
    """Minutes of sound that count, of a user's calls of this day and of this month."""

    day: float
    month: float


@dataclass(frozen=True, kw_only=True)
class BytesAnnounced:
    """What a user has announced and no job has taken, and when the first of it is removed."""

    bytes: int
    until: datetime | None


def refuse_if_used_up(user_id: str, *, costs: bool) -> None:
    """Compare what is used up with what the user may use, and what is spent with the caps.

    Calls that run count as used. No statement is made where nothing is limited.

    Args:
        costs: whether the job's engine has a price; one that is free goes on when a cap is reached.

    Raises:
        QuotaExceeded: a limit is reached.
    """
    _check_minutes(user_id, limits_of(user_id))
    if not costs:
        return
    for standing in standings(caps_of([user_id])):
        if standing.reached:
            raise QuotaExceeded(_of_spending(standing), seconds_left_of_month(database_time()))


def take_place(user_id: str) -> None:
    """See that there is room for one more job in flight; in the transaction that stores it.

    The stamp of the user's index is the lock, taken before they are counted: another submission of
    the user waits here until this one is stored. After `uploads.take`, as whoever deletes jobs
    has the locks in that order.

    Raises:
        QuotaExceeded: there is none.
    """
    most = limits_of(user_id).jobs_in_flight
    if most is None:
        return
    UserIndexStamp.renew(user_id)
    if jobs_in_flight(user_id, at_most=most) >= most:
        detail = (
            f"The quota of {most} jobs in flight is reached; there is room when one of them ends."
        )
        raise QuotaExceeded(detail, IN_FLIGHT_RETRY_SECONDS)


def take_room(user_id: str, size: int) -> None:
    """See that there is room for an upload of so many bytes; in the transaction that announces it.

    What a job has taken, or is being removed, does not count.

    Raises:
        QuotaExceeded: there is none, until a job takes some or the first of them is removed.
    """
    most = settings.QUOTA_UPLOAD_BYTES
    if most is None:
        return
    UserIndexStamp.hold(user_id)
    found = bytes_announced(user_id)
    if found.bytes + size <= most:
        return
    now = database_time()
    until = max(found.until or now, now)
    detail = (
        f"Uploads that no job has taken yet may have {most} bytes in all: name them in a job, give"
        f" one back by DELETE, or wait until {iso_time(until)}, when the oldest is removed."
    )
    raise QuotaExceeded(detail, int((until - now).total_seconds()) + 1)


def bytes_announced(user_id: str) -> BytesAnnounced:
    """What counts for QUOTA_UPLOAD_BYTES: as long as an address may bring a file, also in vain.

    So what is given back goes on counting where a bucket takes files at addresses that are good.
    """
    unused = Upload.objects.filter(user_id=user_id, size_bytes__isnull=False)
    found = unused.aggregate(bytes=Sum("size_bytes"), first=Min("expires_time"))
    return BytesAnnounced(bytes=found["bytes"] or 0, until=found["first"])


def jobs_in_flight(user_id: str, *, at_most: int | None = None) -> int:
    """How many of the user's jobs have not ended, counted no further than `at_most`."""
    running = UserJobIndex.objects.filter(user_id=user_id, job_status=JobStatus.IN_PROGRESS)
    return running[:at_most].count()


def minutes_used(user_id: str, now: datetime) -> MinutesUsed:
    """The minutes of the day and the month in which `now` lies."""
    return MinutesUsed(
        day=_minutes_since(user_id, now.date()), month=_minutes_since(user_id, first_of_month(now))
    )


def _minutes_since(user_id: str, first: date) -> float:
    days = UsageDay.objects.of(user_id).filter(day__gte=first)
    return float(days.sums()["sum_minutes"])


def _check_minutes(user_id: str, limits: Limits) -> None:
    if limits.minutes_per_day is None and limits.minutes_per_month is None:
        return
    now = database_time()
    used = minutes_used(user_id, now)
    for most, minutes, period, wait in (
        (limits.minutes_per_month, used.month, "month", seconds_left_of_month(now)),
        (limits.minutes_per_day, used.day, "day", seconds_left_of_day(now)),
    ):
        if most is not None and minutes >= most:
            detail = (
                f"The quota of {most:g} minutes of sound a {period} is used up until the next"
                f" {period} begins (UTC)."
            )
            raise QuotaExceeded(detail, wait)


def _of_spending(standing: Standing) -> str:
    whose = "of the service" if standing.scope == EVERYBODY else f"of {standing.cap} USD"
    return f"The spending cap {whose} is reached until the next month begins (UTC)."
