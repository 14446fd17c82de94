"""SpendingMeter: the lock under which a cap on spending is compared, and how near it is."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from decimal import Decimal

from django.db import models
from django.db.models import F, Q

from jobs.models.job import USER_ID_LENGTH

EVERYBODY = ""  # no user has this name


class SpendingMeterQuerySet(models.QuerySet["SpendingMeter"]):
    """Meters."""

    def lock(self, scopes: Collection[str]) -> dict[str, SpendingMeter]:
        """These meters, made if need be, locked in the order of their names.

        In a transaction that has whatever locks on jobs and chunks it needs: after these it may
        take those of `UsageDay`, and no others.
        """
        wanted = self.select_for_update().filter(pk__in=scopes).order_by("pk")
        found = {meter.pk: meter for meter in wanted}
        if missing := set(scopes) - found.keys():
            new = [SpendingMeter(scope=scope) for scope in sorted(missing)]
            self.bulk_create(new, ignore_conflicts=True)
            found = {meter.pk: meter for meter in wanted.all()}
        return found

    def warned(self, month: date) -> SpendingMeterQuerySet:
        """Those whose cap is near, or reached, in the month that begins then."""
        return self.filter(month=month).exclude(warned_at_usd=None)


class SpendingMeter(models.Model):
    """Everybody's meter, whose scope is "", or that of the user who is named.

    What was spent stands in `UsageDay`; this is written only when a cap comes near, and holds for
    its month and for the cap of that time: raised, it is not near any more.
    """

    scope = models.CharField(max_length=USER_ID_LENGTH, primary_key=True, blank=True)
    month = models.DateField(null=True, blank=True, help_text="Its first day.")
    warned_at_usd = models.DecimalField(
        max_digits=12, decimal_places=2, null=True, blank=True, help_text="The cap that is near."
    )
    closed_at_usd = models.DecimalField(
        max_digits=12,
        decimal_places=2,
        null=True,
        blank=True,
        help_text="The cap that a call would have passed: no other is made until it is raised.",
    )

    objects = SpendingMeterQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(closed_at_usd=None) | Q(closed_at_usd=F("warned_at_usd")),
                name="meter_that_is_closed_has_warned",
            )
        ]

    def __str__(self) -> str:
        return self.scope or "everybody"

    def is_closed(self, month: date, cap: Decimal) -> bool:
        """Whether a call was refused in this month, for this cap or a higher one."""
        return self.month == month and self.closed_at_usd is not None and self.closed_at_usd >= cap
