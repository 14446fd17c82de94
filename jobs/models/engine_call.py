"""EngineCall: the ledger. One row for each call of an engine, written before it is made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from django.db import models, transaction
from django.db.models import Count, Q, Sum
from django.db.models.functions import Now

from asr.types import Usage
from jobs.models.usage_day import count_calls

MOST_TOKENS: Final = 2**31 - 1  # a column's; a vendor's nonsense must not cost the transcript


class CallOutcome(models.TextChoices):
    """What became of a call."""

    UNKNOWN = "unknown"  # the answer is still to come, or was lost: the vendor may bill it
    ANSWERED = "answered"
    FAILED = "failed"  # no answer in time, or one of no use
    REFUSED = "refused"


# The vendor did the work, though its answer was of no use.
_BILLED_ALL_THE_SAME: Final = "engine_bad_response"
_FREE: Final = Q(outcome=CallOutcome.REFUSED) | (
    Q(outcome=CallOutcome.FAILED) & ~Q(error_code=_BILLED_ALL_THE_SAME)
)


def is_free(outcome: CallOutcome, error_code: str) -> bool:
    """Whether a call that ended so is known to have cost nothing, and so counts for nothing."""
    failed = outcome == CallOutcome.FAILED and error_code != _BILLED_ALL_THE_SAME
    return failed or outcome == CallOutcome.REFUSED


class EngineCallQuerySet(models.QuerySet["EngineCall"]):
    """Rows of the ledger. What counts of them is summed in `UsageDay`."""

    def counted(self) -> EngineCallQuerySet:
        """Calls that were answered, or may be billed for all we know."""
        return self.exclude(_FREE)

    def open(self, calls: Iterable[EngineCall]) -> list[EngineCall]:
        """Write the calls that are to be made, in the caller's transaction."""
        opened = self.bulk_create(calls)
        count_calls([call.pk for call in opened])
        return opened

    def forget(self) -> None:
        """Delete calls that were not made, or that the engine was too busy to take."""
        with transaction.atomic():
            count_calls(self._counting(), times=-1)
            self.delete()

    def close(
        self, outcome: CallOutcome, *, error_code: str = "", usage: Usage | None = None
    ) -> None:
        """Write what became of these calls; those that cost nothing do not count any more.

        A call whose price is 0, as a local engine's, has failed where others are unknown: nobody
        bills it. What does not count stays so, also when a worker that was given up answers.
        """
        if is_free(outcome, error_code):
            with transaction.atomic():
                count_calls(self._counting(), times=-1)
                self._close(outcome, error_code, Usage())
            return
        if outcome == CallOutcome.UNKNOWN:
            self.filter(price_usd=0).close(CallOutcome.FAILED, error_code=error_code)
        self.counted()._close(outcome, error_code, usage or Usage())

    def close_lost(self, job_id: UUID, index: int) -> None:
        """Close the calls of a chunk whose worker died, but for those that may be billed."""
        lost = self.filter(job_id=job_id, index=index, outcome=CallOutcome.UNKNOWN, price_usd=0)
        lost.close(CallOutcome.FAILED, error_code="worker_crashed")

    def _counting(self) -> list[int]:
        """Those that count until now, locked: writing is tried again and again."""
        return list(self.select_for_update().counted().values_list("pk", flat=True))

    def _close(self, outcome: CallOutcome, error_code: str, counted: Usage) -> None:
        tokens = [counted.input_tokens, counted.output_tokens]
        read, written = (n if n is not None and 0 <= n <= MOST_TOKENS else None for n in tokens)
        self.update(
            outcome=outcome,
            error_code=error_code,
            ended_time=Now(),
            billed_seconds=counted.seconds,
            input_tokens=read,
            output_tokens=written,
        )

    def sums(self) -> models.QuerySet[Any, Any]:
        """What these calls come to, as a dict for each engine and outcome.

        `price` is the sum of those that have one, None when none has; `unpriced` counts the others.
        """
        return (
            self.order_by("engine", "outcome")
            .values("engine", "outcome")
            .annotate(
                calls=Count("pk"),
                minutes=Sum("audio_seconds") / 60.0,
                billed_minutes=Sum("billed_seconds") / 60.0,
                read=Sum("input_tokens"),
                written=Sum("output_tokens"),
                price=Sum("price_usd"),
                unpriced=Count("pk", filter=Q(price_usd=None)),
            )
        )


class EngineCall(models.Model):
    """One call, as far as it is known. It outlives its job: what was paid was paid.

    `price_usd` is the list price of that much sound when the call was made; None where the price
    is not known. A vendor's own bill may round otherwise, and failed calls are usually free.
    """

    job_id = models.UUIDField()
    index = models.PositiveSmallIntegerField()
    user_id = models.CharField(max_length=150)
    engine = models.CharField(max_length=40)
    model = models.CharField(max_length=200, blank=True, default="")
    audio_seconds = models.FloatField()
    price_usd = models.DecimalField(max_digits=12, decimal_places=6, null=True, blank=True)
    started_time = models.DateTimeField(db_default=Now())
    ended_time = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(
        max_length=16, choices=CallOutcome, default=CallOutcome.UNKNOWN, db_index=True
    )
    error_code = models.CharField(max_length=40, blank=True, default="")
    billed_seconds = models.FloatField(null=True, blank=True, help_text="As the vendor counted.")
    input_tokens = models.PositiveIntegerField(null=True, blank=True)
    output_tokens = models.PositiveIntegerField(null=True, blank=True)

    objects = EngineCallQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(outcome__in=CallOutcome.values), name="engine_call_outcome_is_known"
            )
        ]
        indexes = [
            models.Index(fields=["user_id", "started_time"], name="engine_call_by_user"),
            models.Index(fields=["job_id", "index"], name="engine_call_by_chunk"),
            models.Index(fields=["started_time"], name="engine_call_by_time"),
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.engine}: {self.job_id}, part {self.index + 1}"
