"""UsageDay: the sums of the ledger, by user, day and engine. Quotas and reports read these.

A month of 96,000 calls a day is 3,000,000 rows of the ledger, and a cap on spending is asked before
each call: no index makes such a sum cheap. Here a month of 1,000 users is 30,000 rows, and that of
one user is some dozens. Rows are written in the transaction that opens or closes the calls, by one
statement for all calls of a group; so they are right whenever the ledger is.

Their rows are the last that a transaction locks, in the order of their keys, and whoever holds them
waits for nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date
from typing import Any, Final, cast

from django.db import connection, models, transaction
from django.db.models import Sum
from django.db.models.functions import Now

from jobs.models.job import USER_ID_LENGTH
from jobs.models.pseudonym import pseudonym

_KEY: Final = ("user_id", "day", "engine")
_SUMS: Final = ("calls", "unpriced_calls", "seconds", "deduplicated_seconds", "price_usd")
_SUMMED: Final = {
    "sum_calls": Sum("calls"),
    "sum_unpriced_calls": Sum("unpriced_calls"),
    "sum_minutes": Sum("seconds") / 60.0,
    "sum_deduplicated_minutes": Sum("deduplicated_seconds") / 60.0,
    "sum_price_usd": Sum("price_usd"),
}


class UsageDayQuerySet(models.QuerySet["UsageDay"]):
    """Days of usage."""

    def of(self, user_id: str) -> UsageDayQuerySet:
        """A user's, also from before an erasure: nobody gets room by that."""
        return self.filter(user_id__in=(user_id, pseudonym(user_id)))

    def between(self, first: date, last: date) -> UsageDayQuerySet:
        return self.filter(day__gte=first, day__lte=last)

    def sums(self) -> dict[str, Any]:
        """What these come to: `sum_calls` …, 0 where there is nothing."""
        found = self.aggregate(**_SUMMED)
        return {name: value or 0 for name, value in found.items()}

    def sums_by(self, column: str) -> models.QuerySet[Any, Any]:
        """The same as a dict for each value of the column, which stands in it."""
        some = self.exclude(calls=0, deduplicated_seconds=0)  # all calls of that day failed
        by_value = some.order_by(column).values(column)
        return cast("models.QuerySet[Any, Any]", by_value.annotate(**_SUMMED))


class UsageDay(models.Model):
    """One user's calls of one engine within one day (UTC), and what was known without a call.

    A call counts from the moment that it is opened until it is known to have failed: see
    `EngineCallQuerySet.close`.
    """

    user_id = models.CharField(max_length=USER_ID_LENGTH)
    day = models.DateField()
    engine = models.CharField(max_length=40)
    calls = models.IntegerField(default=0)
    unpriced_calls = models.IntegerField(default=0, help_text="Calls whose price is not known.")
    seconds = models.FloatField(default=0.0, help_text="Of the sound that was asked about.")
    deduplicated_seconds = models.FloatField(
        default=0.0, help_text="Of the sound whose words were known; they cost nothing."
    )
    price_usd = models.DecimalField(
        max_digits=14, decimal_places=6, default=0, help_text="At list prices."
    )

    objects = UsageDayQuerySet.as_manager()

    class Meta:
        verbose_name = "usage of a day"
        verbose_name_plural = "usage"
        constraints = [models.UniqueConstraint(fields=_KEY, name="usage_day_is_unique")]
        indexes = [models.Index(fields=["day"], name="usage_day_by_day")]
        ordering = ["-day", "user_id", "engine"]

    def __str__(self) -> str:
        return f"{self.user_id}, {self.engine}: {self.day}"


def count_calls(call_ids: Collection[int], *, times: int = 1) -> None:
    """Add these calls of the ledger to their days.

    Args:
        times: -1 to take them out again. The caller sees to it that none is taken out twice.
    """
    if not call_ids:
        return
    day, parameters = connection.ops.datetime_cast_date_sql("started_time", (), "UTC")
    ids = ", ".join(["%s"] * len(call_ids))
    _merge(
        f"SELECT user_id, {day}, engine, %s * COUNT(*),"  # noqa: S608  (names of our own)
        " %s * SUM(CASE WHEN price_usd IS NULL THEN 1 ELSE 0 END), %s * SUM(audio_seconds), 0,"
        f" %s * COALESCE(SUM(price_usd), 0) FROM jobs_enginecall WHERE id IN ({ids})",
        [*parameters, *[times] * 4, *call_ids],
    )


def count_deduplicated(sounds: Sequence[tuple[str, str, float]]) -> None:
    """Add sounds that cost nothing to this day; each is its user, its engine and its seconds."""
    if not sounds:
        return
    compiler = UsageDay.objects.all().query.get_compiler(connection=connection)
    now, parameters = compiler.compile(Now())
    day, parameters = connection.ops.datetime_cast_date_sql(now, tuple(parameters), "UTC")
    rows = ", ".join(["(%s, %s, %s)"] * len(sounds))
    _merge(
        f"SELECT column1, {day}, column2, 0, 0, 0, SUM(column3), 0"  # noqa: S608
        f" FROM (VALUES {rows}) AS given WHERE true",
        [*parameters, *(value for sound in sounds for value in sound)],
    )


def rename_user(user_id: str, to: str) -> int:
    """Give a user's days to another name, which may have the same days; how many there were."""
    days = UsageDay.objects.filter(user_id=user_id)
    with transaction.atomic():
        found = list(
            days.select_for_update().order_by("day", "engine").values_list("pk", flat=True)
        )
        if found:
            marks = ", ".join(["%s"] * len(found))
            sums = ", ".join(f"SUM({name})" for name in _SUMS)
            _merge(
                f"SELECT %s, day, engine, {sums} FROM jobs_usageday"  # noqa: S608
                f" WHERE id IN ({marks})",
                [to, *found],
            )
            UsageDay.objects.filter(pk__in=found).delete()
    return len(found)


def _merge(selected: str, parameters: Sequence[Any]) -> None:
    """Add what is selected to the rows there are; the database sorts, so that all sort alike."""
    added = ", ".join(f"{name} = jobs_usageday.{name} + excluded.{name}" for name in _SUMS)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO jobs_usageday ({', '.join(_KEY + _SUMS)}) {selected}"
            f" GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
            f" ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET {added}",
            parameters,
        )
