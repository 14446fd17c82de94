"""Upload: a file that came in, or is to come in, and that no job has taken yet."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.db import models
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now

from jobs.models.chunk import Chunk
from jobs.models.job import USER_ID_LENGTH, new_job_id
from jobs.models.recording import Recording

ADDRESS_GOOD: Final = timedelta(minutes=15)  # for which a file may be sent


class UploadKind(models.TextChoices):
    """What the file is to become."""

    CHUNK = "chunk"
    RECORDING = "recording"


class UploadQuerySet(models.QuerySet["Upload"]):
    """Uploads by what is to be done with them."""

    def announced(self) -> UploadQuerySet:
        """Those that may be sent and named by a job, and count as its user's until then."""
        return self.filter(doomed=False, size_bytes__isnull=False)

    def due(self) -> UploadQuerySet:
        """Those that nobody took in time, and those whose file could not be removed before."""
        return self.filter(expires_time__lte=Now())

    def taken(self) -> UploadQuerySet:
        """Those that a job names."""
        mine = {"audio_path": OuterRef("path")}
        named = Exists(Chunk.objects.filter(**mine)) | Exists(Recording.objects.filter(**mine))
        return self.filter(named)


class Upload(models.Model):
    """As long as the row is there the file, if there is one, belongs to no job.

    The row comes before the file and goes with the transaction that makes the file a job's, so
    that whatever dies in between, the file is found and removed.
    """

    id = models.UUIDField(primary_key=True, default=new_job_id, editable=False)
    user_id = models.CharField(max_length=USER_ID_LENGTH)
    path = models.CharField(max_length=1024, unique=True)
    kind = models.CharField(max_length=16, choices=UploadKind, default=UploadKind.CHUNK)
    size_bytes = models.PositiveBigIntegerField(null=True, blank=True, help_text="As announced.")
    content_type = models.CharField(max_length=100, blank=True, default="")
    created_time = models.DateTimeField(db_default=Now())
    expires_time = models.DateTimeField(help_text="When it is removed, if no job has taken it.")
    removed_time = models.DateTimeField(
        null=True, blank=True, help_text="The file is gone, but its address may bring it back."
    )
    doomed = models.BooleanField(
        default=False, help_text="The file is being removed: no job may take it any more."
    )

    objects = UploadQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(kind__in=UploadKind.values), name="upload_kind_is_known"
            )
        ]
        indexes = [
            models.Index(fields=["expires_time"], name="upload_sweep_by_age"),
            models.Index(fields=["user_id"], name="upload_by_user"),
        ]

    def __str__(self) -> str:
        return self.path
