"""JobEvent: the append-only history of a job."""

from __future__ import annotations

from django.db import models
from django.db.models import TextChoices

from jobs.models.job import Job


class EventType(TextChoices):
    """What can happen to a job and its chunks."""

    JOB_SUBMITTED = "job.submitted"
    JOB_DELAYED = "job.delayed"
    JOB_RESUMED = "job.resumed"
    JOB_RETRIED = "job.retried"
    JOB_COMPLETED = "job.completed"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    JOB_EDITED = "job.edited"
    CHUNK_STARTED = "chunk.started"
    CHUNK_PENDING = "chunk.pending"
    CHUNK_COMPLETED = "chunk.completed"
    CHUNK_FAILED = "chunk.failed"
    CHUNK_CANCELLED = "chunk.cancelled"


class JobEvent(models.Model):
    """One change of a job, written in the transaction that made it. Numbers have no hole."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="events")
    sequence = models.PositiveIntegerField()
    type = models.CharField(max_length=20, choices=EventType)
    time = models.DateTimeField()
    data = models.JSONField(default=dict)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["job", "sequence"], name="event_number_is_unique_in_job"
            )
        ]
        ordering = ["job", "sequence"]

    def __str__(self) -> str:
        return f"{self.sequence} {self.type}"
