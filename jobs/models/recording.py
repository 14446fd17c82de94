"""Recording: one long file that is to become the chunks of a job."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now

from jobs.models.job import Job
from jobs.models.states import JobStatus
from jobs.models.worker import WorkerProcess

CUT_PATIENCE: Final = timedelta(seconds=60)  # after which the message to cut it counts as lost


class RecordingQuerySet(models.QuerySet["Recording"]):
    """Recordings by what is to be done with them."""

    def uncut(self) -> RecordingQuerySet:
        """Those whose job still waits for its chunks."""
        return self.filter(cut_time=None, job__status=JobStatus.IN_PROGRESS)

    def due(self) -> RecordingQuerySet:
        """Those that nobody is cutting, or whose worker died over it."""
        alive = WorkerProcess.objects.alive().filter(pk=OuterRef("worker_id"))
        over = Q(lease_token=None) | Q(lease_expires_time__lt=Now()) | ~Exists(alive)
        return self.uncut().filter(over, not_before__lte=Now())

    def lost(self) -> RecordingQuerySet:
        """Due ones that no message points at any more, as far as one can tell."""
        return self.due().filter(resend_time__lte=Now())


class Recording(models.Model):
    """It stays with its job: the file goes when the job does."""

    job = models.OneToOneField(
        Job, on_delete=models.CASCADE, primary_key=True, related_name="recording"
    )
    audio_path = models.CharField(max_length=1024, help_text="Relative to the audio root.")
    uploaded = models.BooleanField(
        default=False, help_text="It came in by the service, which deletes it with the job."
    )
    attempts = models.PositiveSmallIntegerField(default=0)
    not_before = models.DateTimeField()
    resend_time = models.DateTimeField()
    lease_token = models.UUIDField(null=True, blank=True)
    lease_expires_time = models.DateTimeField(null=True, blank=True)
    worker_id = models.UUIDField(null=True, blank=True)
    cut_time = models.DateTimeField(null=True, blank=True)

    objects = RecordingQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(
                fields=["not_before"],
                condition=Q(cut_time__isnull=True),
                name="recording_sweep_uncut",
            ),
            models.Index(fields=["audio_path"], name="recording_by_path"),
        ]

    def __str__(self) -> str:
        return self.audio_path
