"""JobEvent: the append-only history of a job."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from django.db import connection, models
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


class JobEventManager(models.Manager["JobEvent"]):
    """Finds the events of many jobs."""

    def after(self, numbers: Mapping[UUID, int]) -> list[JobEvent]:
        """The events behind each job's number, in order; one statement for any number of jobs."""
        if not numbers:
            return []
        given = ", ".join(["(%s, %s)"] * len(numbers))
        key = Job._meta.pk
        return list(
            self.raw(
                f"SELECT event.* FROM (VALUES {given}) AS given JOIN jobs_jobevent AS event"  # noqa: S608
                " ON event.job_id = given.column1 AND event.sequence > given.column2"
                " ORDER BY event.job_id, event.sequence",
                [
                    value
                    for job_id, number in numbers.items()
                    for value in (key.get_db_prep_value(job_id, connection), number)
                ],
            )
        )


class JobEvent(models.Model):
    """One change of a job, written in the transaction that made it. Numbers have no hole."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="events")
    sequence = models.PositiveIntegerField()
    type = models.CharField(max_length=20, choices=EventType)
    time = models.DateTimeField()
    data = models.JSONField(default=dict)

    objects = JobEventManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["job", "sequence"], name="event_number_is_unique_in_job"
            )
        ]
        ordering = ["job", "sequence"]

    def __str__(self) -> str:
        return f"{self.sequence} {self.type}"
