"""IdempotencyKey: that a submission was made, so that repeating it makes no second job."""

from __future__ import annotations

from datetime import timedelta

from django.db import models
from django.db.models.functions import Now

from jobs.models.clock import from_now
from jobs.models.job import USER_ID_LENGTH

KEPT = timedelta(hours=24)
ABANDONED_AFTER = timedelta(seconds=60)


class IdempotencyKeyQuerySet(models.QuerySet["IdempotencyKey"]):
    """Keys by age."""

    def expired(self) -> IdempotencyKeyQuerySet:
        return self.filter(created_time__lt=from_now(-KEPT))

    def abandoned(self) -> IdempotencyKeyQuerySet:
        """Reservations whose submission died before it made its job."""
        return self.filter(job_id__isnull=True, created_time__lt=from_now(-ABANDONED_AFTER))


class IdempotencyKey(models.Model):
    """A key of one user: reserved when the submission begins, bound to its job when it commits."""

    user_id = models.CharField(max_length=USER_ID_LENGTH)
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64, help_text="SHA-256 of the submission.")
    # No foreign key: the answer to a repeated call stays the same after the job was deleted.
    job_id = models.UUIDField(null=True, blank=True)
    created_time = models.DateTimeField(db_default=Now())

    objects = IdempotencyKeyQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user_id", "key"], name="idempotency_key_is_unique")
        ]
        indexes = [models.Index(fields=["created_time"], name="idempotency_sweep_by_age")]

    def __str__(self) -> str:
        return f"{self.user_id} {self.key}"
