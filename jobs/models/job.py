"""Job: what was asked for, and how far it is. ErasedJob: that there was one."""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Now
from uuid6 import uuid7

from jobs.models.clock import from_now
from jobs.models.pseudonym import pseudonym
from jobs.models.states import ENDED_CHUNK, ENDED_JOB, ChunkStatus, JobStatus

MAX_CHUNKS: Final = 24
DEADLINE: Final = timedelta(hours=24)  # for all of a job, from its submission or retry
USER_ID_LENGTH: Final = 150
URL_LENGTH: Final = 2048

# "." and ".." would be folders of the audio root other than the user's own.
validate_user_id = RegexValidator(
    r"^(?!\.{1,2}\Z)[\w.@+-]{1,150}\Z",
    "1 to 150 letters, digits and _ @ + . -, but not '.' or '..'",
    code="invalid_user_id",
)


def new_job_id() -> UUID:
    """A UUID of version 7, so that ids sort by the time they were made."""
    return UUID(int=uuid7().int)


class JobQuerySet(models.QuerySet["Job"]):
    """Jobs by what is to be done with them."""

    def in_progress(self) -> JobQuerySet:
        return self.filter(status=JobStatus.IN_PROGRESS)

    def all_chunks_ended(self) -> JobQuerySet:
        """Jobs that only wait to be finished."""
        from jobs.models.chunk import Chunk  # noqa: PLC0415  (a chunk names its job)
        from jobs.models.recording import Recording  # noqa: PLC0415  (likewise)

        unfinished = Chunk.objects.filter(job=models.OuterRef("pk")).exclude(status__in=ENDED_CHUNK)
        uncut = Recording.objects.filter(job=models.OuterRef("pk"), cut_time=None)
        return self.in_progress().filter(~models.Exists(unfinished), ~models.Exists(uncut))

    def past_deadline(self) -> JobQuerySet:
        return self.in_progress().filter(deadline__lt=Now())

    def submitted_within(self, age: timedelta) -> JobQuerySet:
        """Jobs of any status not older than that; it is named so that the index serves."""
        return self.filter(status__in=JobStatus.values, submitted_time__gte=from_now(-age))

    def with_progress(self) -> JobQuerySet:
        """Adds `chunks_completed` and `chunks_total`, counted for the rows of one page only."""
        from jobs.models.chunk import Chunk  # noqa: PLC0415  (a chunk names its job)

        of_job = Chunk.objects.filter(job=models.OuterRef("pk")).order_by().values("job")
        total = of_job.annotate(number=models.Count("pk")).values("number")
        completed = total.filter(status=ChunkStatus.COMPLETED)
        return self.annotate(
            chunks_completed=Coalesce(models.Subquery(completed), 0),
            chunks_total=Coalesce(models.Subquery(total), 0),
        )


class Job(models.Model):
    """One request: 1 to 24 audio files of one user, to become one transcript."""

    id = models.UUIDField(primary_key=True, default=new_job_id, editable=False)
    user_id = models.CharField(max_length=USER_ID_LENGTH, validators=[validate_user_id])
    status = models.CharField(max_length=16, choices=JobStatus, default=JobStatus.IN_PROGRESS)
    title = models.CharField(max_length=200, blank=True, default="")

    engine = models.CharField(max_length=40, help_text="The engine that was chosen at submission.")
    language = models.CharField(max_length=35, null=True, blank=True, help_text="As asked for.")
    vocabulary = models.JSONField(default=list, blank=True)
    diarize = models.BooleanField(default=False)

    webhook_url = models.CharField(
        max_length=URL_LENGTH,
        blank=True,
        default="",
        db_default="",
        help_text="Told of the job's end.",
    )

    submitted_time = models.DateTimeField()
    completed_time = models.DateTimeField(null=True, blank=True)
    deadline = models.DateTimeField(help_text="Chunks that still wait by then fail.")
    delay_reason = models.CharField(max_length=40, blank=True, default="")
    sequence = models.PositiveIntegerField(
        default=0, help_text="Counts the job's events; it changes with every change of the job."
    )
    revision = models.PositiveIntegerField(
        default=0, db_default=0, help_text="Of its transcript; 0: as it was recognised."
    )

    objects = JobQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=JobStatus.values), name="job_status_is_known"
            ),
            models.CheckConstraint(
                condition=Q(status=JobStatus.IN_PROGRESS, completed_time__isnull=True)
                | Q(status__in=ENDED_JOB, completed_time__isnull=False),
                name="job_has_completed_time_once_ended",
            ),
            models.CheckConstraint(
                condition=Q(deadline__gt=F("submitted_time")),
                name="job_deadline_follows_submission",
            ),
        ]
        indexes = [
            models.Index(
                fields=["deadline"],
                condition=Q(status=JobStatus.IN_PROGRESS),
                name="job_sweep_in_progress",
            ),
            models.Index(fields=["status", "-submitted_time"], name="job_admin_by_status_and_age"),
            models.Index(fields=["user_id", "-submitted_time"], name="job_admin_by_user_and_age"),
            models.Index(
                fields=["completed_time"],
                condition=Q(completed_time__isnull=False),
                name="job_retention_by_end",
            ),
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def ended(self) -> bool:
        return self.status in ENDED_JOB


class ErasedJobQuerySet(models.QuerySet["ErasedJob"]):
    """Jobs that are gone, by who may know that they were there."""

    def of(self, user_id: str) -> ErasedJobQuerySet:
        """The user's, also those that stand under a pseudonym since the user's data were erased."""
        return self.filter(user_id__in=(user_id, pseudonym(user_id)))


class ErasedJob(models.Model):
    """That a job existed and whose it was, so that its owner is answered 410 and not 404."""

    job_id = models.UUIDField(primary_key=True)
    user_id = models.CharField(
        max_length=USER_ID_LENGTH, help_text="Or the pseudonym of a user whose data were erased."
    )
    erased_time = models.DateTimeField(db_default=Now())

    objects = ErasedJobQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["user_id"], name="erased_job_by_user")]

    def __str__(self) -> str:
        return str(self.job_id)
