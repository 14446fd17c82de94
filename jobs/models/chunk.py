"""Chunk: one audio file of a job, its claim and its result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

from django.db import models
from django.db.models import Exists, ExpressionWrapper, F, OuterRef, Q
from django.db.models.functions import Now

from jobs.models.bulk import insert_alike
from jobs.models.clock import from_now
from jobs.models.job import USER_ID_LENGTH, Job
from jobs.models.states import ChunkStatus, JobStatus
from jobs.models.worker import WorkerProcess

MAX_ERRORS: Final = 4  # one attempt and three retries
MAX_CRASHES: Final = 3  # claims whose worker died or fell silent
MAX_REDRIVES: Final = 3  # new budgets that the schedule gives to a chunk that failed for good
MESSAGE_PATIENCE: Final = timedelta(seconds=60)  # until a message counts as lost


def common_language(chunks: Iterable[tuple[str | None, float | None]]) -> str | None:
    """The language of most of the time, of chunks given as language and seconds."""
    seconds: dict[str, float] = {}
    for language, duration in chunks:
        if language:
            seconds[language] = seconds.get(language, 0.0) + (duration or 0.0)
    return max(seconds, key=lambda language: seconds[language], default=None)


class ChunkQuerySet(models.QuerySet["Chunk"]):
    """Chunks by what is to be done with them. The database's clock decides throughout."""

    def without_words(self) -> ChunkQuerySet:
        """All columns but the large one; it is read only to stitch."""
        return self.defer("segments")

    def insert_due(self, job: Job, files: Sequence[tuple[str, bool]]) -> None:
        """A job's chunks, due at once: in order, of each the path and whether we stored it."""
        alike = {
            "job_id": job.pk,
            "user_id": job.user_id,
            "asked_engine": job.engine,
            "not_before": Now(),
            "resend_time": from_now(MESSAGE_PATIENCE),
        }
        rows = [(index, *file) for index, file in enumerate(files)]
        if rows:
            insert_alike(Chunk, alike, ("index", "audio_path", "uploaded"), rows)

    def pending(self) -> ChunkQuerySet:
        return self.filter(status=ChunkStatus.PENDING)

    def in_progress(self) -> ChunkQuerySet:
        return self.filter(status=ChunkStatus.IN_PROGRESS)

    def longest_waiting(self) -> ChunkQuerySet:
        """Due chunks, the one that waits longest first, each with its `waited` time."""
        waited = ExpressionWrapper(Now() - F("not_before"), output_field=models.DurationField())
        return self.due().annotate(waited=waited).order_by("not_before")

    def due(self) -> ChunkQuerySet:
        return self.filter(status=ChunkStatus.PENDING, not_before__lte=Now())

    def lost(self) -> ChunkQuerySet:
        """Due chunks that no message points at any more, as far as one can tell."""
        return self.due().filter(resend_time__lte=Now())

    def claim_is_over(self, *, silence: bool = True) -> ChunkQuerySet:
        """Claims whose lease ran out, or whose worker is gone or, with `silence`, silent."""
        workers = WorkerProcess.objects.alive() if silence else WorkerProcess.objects.all()
        alive = workers.filter(pk=OuterRef("worker_id"))
        return self.filter(status=ChunkStatus.IN_PROGRESS).filter(
            Q(lease_expires_time__lt=Now()) | ~Exists(alive)
        )

    def not_being_recognised(self) -> ChunkQuerySet:
        """Without those whose very sound another one is asking the same engine about just now."""
        same = Chunk.objects.in_progress().filter(recognition_key=OuterRef("recognition_key"))
        return self.filter(Q(recognition_key="") | ~Exists(same))

    def dead_letters(self) -> ChunkQuerySet:
        """Chunks that failed for good, of jobs that failed.

        While other chunks of its job still run, or once the job is cancelled, a failed chunk is
        none: nothing can be done about it, as only a failed job can be retried.
        """
        return self.filter(status=ChunkStatus.FAILED, job__status=JobStatus.FAILED)

    def recoverable(self) -> ChunkQuerySet:
        """Those that failed of something that passes: an engine that is down, a crash."""
        return self.filter(error_recoverable=True)

    def permanent(self) -> ChunkQuerySet:
        """Those that will fail again: the audio or the engine's set-up is at fault."""
        return self.filter(error_recoverable=False)


class Chunk(models.Model):
    """One audio file.

    `attempts` counts the claims, save those given back at a shutdown or for a wait that the
    engine asked for; errors and crashes have budgets of their own. A chunk that failed for good is
    a dead letter once its job has failed; `redrives` bounds how often the schedule revives it.

    A result is written only by the holder of `lease_token`, so a worker that was taken for dead
    and wakes up writes nothing.
    """

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="chunks")
    index = models.PositiveSmallIntegerField()
    audio_path = models.CharField(max_length=1024, help_text="Relative to the audio root.")
    uploaded = models.BooleanField(
        default=False, help_text="The service stored the file itself and deletes it with the job."
    )
    status = models.CharField(max_length=16, choices=ChunkStatus, default=ChunkStatus.PENDING)
    # The job's, for fair turns. Empty in rows of a process that does not know the columns yet:
    # these come to their turn by their own messages.
    user_id = models.CharField(max_length=USER_ID_LENGTH, blank=True, default="", db_default="")
    asked_engine = models.CharField(max_length=40, blank=True, default="", db_default="")

    attempts = models.PositiveSmallIntegerField(default=0)
    errors = models.PositiveSmallIntegerField(
        default=0, help_text="Attempts that ended in an error."
    )
    crashes = models.PositiveSmallIntegerField(default=0, help_text="Attempts whose worker died.")
    redrives = models.PositiveSmallIntegerField(
        default=0,
        db_default=0,  # rows of a process that does not know the column yet
        help_text="How often the schedule tried it again after it had failed for good.",
    )
    not_before = models.DateTimeField(help_text="When it may be claimed.")
    resend_time = models.DateTimeField(help_text="When its last message counts as lost.")
    dispatches = models.PositiveSmallIntegerField(
        default=0, help_text="Messages since the last claim."
    )

    lease_token = models.UUIDField(null=True, blank=True)
    lease_expires_time = models.DateTimeField(null=True, blank=True)
    worker_id = models.UUIDField(null=True, blank=True, help_text="The process that claimed it.")
    started_time = models.DateTimeField(null=True, blank=True)
    ended_time = models.DateTimeField(null=True, blank=True)

    duration_seconds = models.FloatField(null=True, blank=True, help_text="Of the decoded audio.")
    processing_seconds = models.FloatField(null=True, blank=True)
    engine = models.CharField(max_length=40, blank=True, default="")
    model = models.CharField(max_length=200, blank=True, default="")
    language = models.CharField(max_length=35, null=True, blank=True)
    language_confidence = models.FloatField(null=True, blank=True)
    confidence = models.FloatField(null=True, blank=True)
    recognition_key = models.CharField(
        max_length=64,
        blank=True,
        default="",
        db_default="",
        help_text="SHA-256 of the sound, the engine, its model and the options.",
    )
    deduplicated = models.BooleanField(
        default=False, db_default=False, help_text="Another chunk's words for the same sound."
    )
    text = models.TextField(blank=True, default="")
    segments = models.JSONField(default=list, blank=True, help_text="Times from the chunk's start.")

    error_code = models.CharField(max_length=40, blank=True, default="")
    error_detail = models.CharField(max_length=500, blank=True, default="")
    error_recoverable = models.BooleanField(null=True, blank=True)

    objects = ChunkQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["job", "index"], name="chunk_index_is_unique_in_job"),
            models.UniqueConstraint(
                fields=["recognition_key"],
                condition=Q(status=ChunkStatus.IN_PROGRESS) & ~Q(recognition_key=""),
                name="chunk_is_recognised_by_one_at_a_time",
            ),
            models.CheckConstraint(
                condition=Q(status__in=ChunkStatus.values), name="chunk_status_is_known"
            ),
            models.CheckConstraint(
                condition=Q(
                    status=ChunkStatus.IN_PROGRESS,
                    lease_token__isnull=False,
                    lease_expires_time__isnull=False,
                    worker_id__isnull=False,
                )
                | (~Q(status=ChunkStatus.IN_PROGRESS) & Q(lease_token__isnull=True)),
                name="chunk_is_leased_while_in_progress",
            ),
            models.CheckConstraint(
                condition=Q(errors__lte=MAX_ERRORS)
                & Q(crashes__lte=MAX_CRASHES)
                & Q(redrives__lte=MAX_REDRIVES),
                name="chunk_stays_within_its_budgets",
            ),
            models.CheckConstraint(
                condition=~Q(status=ChunkStatus.FAILED)
                | (~Q(error_code="") & Q(error_recoverable__isnull=False)),
                name="chunk_that_failed_says_why",
            ),
            models.CheckConstraint(
                condition=~Q(status=ChunkStatus.COMPLETED) | Q(duration_seconds__isnull=False),
                name="chunk_that_completed_was_measured",
            ),
        ]
        indexes = [
            models.Index(
                fields=["not_before"],
                condition=Q(status=ChunkStatus.PENDING),
                name="chunk_sweep_due",
            ),
            models.Index(
                fields=["asked_engine", "user_id", "not_before"],
                condition=Q(status=ChunkStatus.PENDING),
                name="chunk_turns_waiting",
            ),
            models.Index(
                fields=["lease_expires_time"],
                condition=Q(status=ChunkStatus.IN_PROGRESS),
                name="chunk_sweep_claims",
            ),
            models.Index(
                fields=["ended_time"],
                condition=Q(
                    status=ChunkStatus.FAILED, error_recoverable=True, redrives__lt=MAX_REDRIVES
                ),
                name="chunk_sweep_redrive",
            ),
            models.Index(
                fields=["ended_time", "id"],
                condition=Q(status=ChunkStatus.FAILED),
                name="chunk_dead_letters_by_age",
            ),
            models.Index(
                fields=["error_code", "ended_time"],
                condition=Q(status=ChunkStatus.FAILED),
                name="chunk_dead_letters_by_code",
            ),
            models.Index(
                fields=["recognition_key"],
                condition=Q(status=ChunkStatus.COMPLETED) & ~Q(recognition_key=""),
                name="chunk_recognised_before",
            ),
            models.Index(
                fields=["ended_time"], condition=Q(uploaded=True), name="chunk_retention_of_audio"
            ),
            # Also by prefix, which PostgreSQL's default operators would not serve.
            models.Index(
                fields=["audio_path"],
                opclasses=["varchar_pattern_ops"],
                name="chunk_by_audio_path",
            ),
        ]
        ordering = ["job", "index"]

    def __str__(self) -> str:
        return f"{self.job_id}, part {self.index + 1}"


class DeadLetter(Chunk):
    """A chunk among the dead letters, for a page of its own in the admin."""

    class Meta:
        proxy = True
        default_permissions = ()  # who may see chunks may see these
        verbose_name = "dead letter"
        verbose_name_plural = "dead letters"
