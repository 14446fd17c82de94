"""Webhooks: who is told when a job ends, each thing to tell, and the log of every attempt."""

from __future__ import annotations

import base64
import secrets
from datetime import datetime, timedelta
from typing import Final
from uuid import uuid4

from django.db import models
from django.db.models import Count, Q, TextChoices
from django.db.models.functions import Now

from jobs.models.clock import from_now
from jobs.models.job import URL_LENGTH, USER_ID_LENGTH, new_job_id, validate_user_id
from jobs.models.states import JobStatus

MAX_WEBHOOKS: Final = 10  # endpoints of one user
ROTATION: Final = timedelta(hours=24)  # for which the previous secret signs as well
CLAIM: Final = timedelta(seconds=60)  # an attempt takes 10 s at most: after that it has died
DELIVERIES_KEPT: Final = timedelta(days=30)
AT_ONCE_EACH: Final = 2  # deliveries to one endpoint: one that hangs holds up no other
AT_ONCE_OF_USER: Final = 4  # to all endpoints of one user, who may have ten that hang


class WebhookEvent(TextChoices):
    """What can be told: that a job ended, and how."""

    COMPLETED = "transcript.completed"
    FAILED = "transcript.failed"
    CANCELLED = "transcript.cancelled"

    @classmethod
    def of(cls, status: JobStatus) -> WebhookEvent:
        """The event of a job that ends so."""
        return cls(f"transcript.{status}")

    @property
    def job_status(self) -> JobStatus:
        """How the job had ended then; it may have been retried since."""
        return JobStatus(self.value.removeprefix("transcript."))


class DeliveryStatus(TextChoices):
    """What becomes of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"


def new_secret() -> str:
    """32 random bytes, written as Standard Webhooks has it."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def all_events() -> list[str]:
    return list(WebhookEvent.values)


class WebhookEndpoint(models.Model):
    """An address of a user, and the secret that signs what is sent to it.

    One row of each user may have no address: its secret signs what goes to the `webhookUrl` of
    single jobs.
    """

    id = models.UUIDField(primary_key=True, default=new_job_id, editable=False)
    user_id = models.CharField(max_length=USER_ID_LENGTH, validators=[validate_user_id])
    url = models.CharField(max_length=URL_LENGTH, blank=True, default="")
    events = models.JSONField(default=all_events)
    secret = models.CharField(max_length=100, default=new_secret)
    previous_secret = models.CharField(max_length=100, blank=True, default="")
    previous_secret_expires_time = models.DateTimeField(null=True, blank=True)
    disabled_time = models.DateTimeField(null=True, blank=True)
    disabled_reason = models.CharField(max_length=40, blank=True, default="")
    created_time = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["user_id"], condition=Q(url=""), name="one_webhook_without_url_per_user"
            )
        ]
        indexes = [models.Index(fields=["user_id", "-id"], name="webhook_by_user")]
        ordering = ["-id"]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def enabled(self) -> bool:
        return self.disabled_time is None


class WebhookDeliveryQuerySet(models.QuerySet["WebhookDelivery"]):
    """Deliveries by what is to be done with them. The database's clock decides throughout."""

    def pending(self) -> WebhookDeliveryQuerySet:
        return self.filter(status=DeliveryStatus.PENDING)

    def due(self) -> WebhookDeliveryQuerySet:
        return self.pending().filter(not_before__lte=Now())

    def under_way(self) -> WebhookDeliveryQuerySet:
        """Those that somebody is sending just now."""
        return self.filter(claim__isnull=False, not_before__gt=Now())

    def sendable(self) -> WebhookDeliveryQuerySet:
        """Due ones of endpoints and users to whom not as much is being sent as may be."""
        sending, count = WebhookDelivery.objects.under_way(), Count("pk")
        busy = sending.values("endpoint").alias(count=count).filter(count__gte=AT_ONCE_EACH)
        users = sending.values("user_id").alias(count=count).filter(count__gte=AT_ONCE_OF_USER)
        return self.due().exclude(endpoint__in=busy).exclude(user_id__in=users)

    def lost(self) -> WebhookDeliveryQuerySet:
        """Due ones that no message points at any more, as far as one can tell."""
        return self.due().filter(resend_time__lte=Now())

    def not_under_way(self) -> WebhookDeliveryQuerySet:
        """Those that nobody is sending just now."""
        return self.filter(Q(claim=None) | Q(not_before__lte=Now()))

    def expired(self) -> WebhookDeliveryQuerySet:
        ended = self.exclude(status=DeliveryStatus.PENDING)
        return ended.filter(created_time__lt=from_now(-DELIVERIES_KEPT))

    def cancel(self, reason: str) -> int:
        """End those that are pending; how many there were."""
        ended = {"status": DeliveryStatus.CANCELLED, "ended_time": Now(), "claim": None}
        return self.pending().update(error=reason, **ended)


class WebhookDelivery(models.Model):
    """One event to be told to one address: the outbox, written by who ends the job.

    Who sends it sets `claim` and moves `not_before` past the time that an attempt can take: so it
    is sent by one at a time, and again when that one has died.
    """

    id = models.UUIDField(primary_key=True, default=new_job_id, editable=False)
    event_id = models.CharField(max_length=64, help_text="The same for all targets and attempts.")
    type = models.CharField(max_length=24, choices=WebhookEvent)
    job_id = models.UUIDField(db_index=True)
    user_id = models.CharField(max_length=USER_ID_LENGTH)
    # Without the database's constraint: that an endpoint was deleted while a job ended must not
    # undo the job's end. Such a delivery goes when its turn comes.
    endpoint = models.ForeignKey(
        WebhookEndpoint, on_delete=models.CASCADE, db_constraint=False, related_name="deliveries"
    )
    url = models.CharField(
        max_length=URL_LENGTH,
        blank=True,
        default="",
        help_text="The job's own; else the endpoint's.",
    )
    status = models.CharField(max_length=16, choices=DeliveryStatus, default=DeliveryStatus.PENDING)
    attempts = models.PositiveSmallIntegerField(
        default=0, help_text="Since it was last asked for; they decide on the next wait."
    )
    claim = models.UUIDField(null=True, blank=True, help_text="The attempt that is under way.")
    not_before = models.DateTimeField(help_text="When it may be sent.")
    resend_time = models.DateTimeField(help_text="When its last message counts as lost.")
    status_code = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="Of the last answer."
    )
    error = models.CharField(max_length=40, blank=True, default="")
    created_time = models.DateTimeField(db_default=Now())
    ended_time = models.DateTimeField(null=True, blank=True)

    objects = WebhookDeliveryQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "webhook deliveries"
        constraints = [
            models.UniqueConstraint(
                fields=["event_id", "endpoint"], name="event_is_told_to_each_endpoint_once"
            ),
            models.CheckConstraint(
                condition=Q(status__in=DeliveryStatus.values), name="delivery_status_is_known"
            ),
        ]
        indexes = [
            models.Index(
                fields=["not_before"],
                condition=Q(status=DeliveryStatus.PENDING),
                name="delivery_sweep_due",
            ),
            models.Index(
                fields=["endpoint"],
                condition=Q(claim__isnull=False),
                name="delivery_under_way",
            ),
            models.Index(fields=["endpoint", "-id"], name="delivery_by_endpoint"),
            models.Index(fields=["created_time"], name="delivery_sweep_by_age"),
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.event_id} to {self.endpoint_id}"

    @property
    def next_attempt_time(self) -> datetime | None:
        """When it is due; None when it has ended."""
        return self.not_before if self.status == DeliveryStatus.PENDING else None

    @property
    def target(self) -> str:
        """Where it goes."""
        return self.url or self.endpoint.url


class WebhookAttempt(models.Model):
    """One attempt to deliver. It is written before anything is sent, its outcome after that."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    delivery = models.ForeignKey(
        WebhookDelivery, on_delete=models.CASCADE, related_name="log", db_constraint=False
    )
    time = models.DateTimeField(db_default=Now())
    status_code = models.PositiveSmallIntegerField(null=True, blank=True)
    error = models.CharField(
        max_length=40, blank=True, default="interrupted", help_text="Empty: it was delivered."
    )
    seconds = models.FloatField(null=True, blank=True)

    class Meta:
        indexes = [models.Index(fields=["time"], name="webhook_attempt_sweep_by_age")]
        ordering = ["time", "id"]

    def __str__(self) -> str:
        return str(self.id)
