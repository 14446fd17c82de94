"""UserLimits: what one user may use, where it is not what the settings say for all."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any, ClassVar, Final

from django.core.validators import MinValueValidator
from django.db import models, transaction

from jobs.models.job import USER_ID_LENGTH, validate_user_id

LOOKED_FOR_EVERY: Final = 5.0  # seconds

_POSITIVE: Final = [MinValueValidator(Decimal(0))]


class UserLimits(models.Model):
    """One user's own limits; an empty one is that of the settings, if there is one."""

    user_id = models.CharField(
        max_length=USER_ID_LENGTH, primary_key=True, validators=[validate_user_id]
    )
    minutes_per_day = models.FloatField(
        null=True, blank=True, validators=_POSITIVE, help_text="Of sound, by calendar day in UTC."
    )
    minutes_per_month = models.FloatField(
        null=True, blank=True, validators=_POSITIVE, help_text="Of sound, by calendar month in UTC."
    )
    jobs_in_flight = models.PositiveIntegerField(
        null=True, blank=True, help_text="Jobs that have not ended, at the same time."
    )
    spending_per_month_usd = models.DecimalField(
        max_digits=12,
        decimal_places=2,
        null=True,
        blank=True,
        validators=_POSITIVE,
        help_text="US dollars at list prices, by calendar month in UTC.",
    )

    _looked: ClassVar[float] = float("-inf")
    _any: ClassVar[bool] = False

    class Meta:
        verbose_name = "limits of a user"
        verbose_name_plural = "limits of users"

    def __str__(self) -> str:
        return self.user_id

    def save(self, *args: Any, **kwargs: Any) -> None:
        """This process knows of the row at once, the others within `LOOKED_FOR_EVERY`."""
        super().save(*args, **kwargs)
        UserLimits.look_again()
        transaction.on_commit(UserLimits.look_again)  # others may have looked in between

    @classmethod
    def of(cls, user_id: str) -> UserLimits | None:
        """The user's own limits. As long as nobody has any, that costs no statement."""
        return cls.objects.filter(pk=user_id).first() if cls.anybody_has() else None

    @classmethod
    def anybody_has(cls) -> bool:
        """Whether there are any, as of some seconds ago at most."""
        if time.monotonic() - cls._looked > LOOKED_FOR_EVERY:
            cls._any, cls._looked = cls.objects.exists(), time.monotonic()
        return cls._any

    @classmethod
    def look_again(cls) -> None:
        """Forget whether anybody has limits of their own."""
        cls._looked = float("-inf")
