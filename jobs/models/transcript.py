"""Transcript: the stitched text of an ended job."""

from __future__ import annotations

from django.db import models

from jobs.models.job import Job


class Transcript(models.Model):
    """What was said in a whole job: as recognised, with what people have made of it.

    Times count from the start of its first chunk. It follows from the chunks and the newest
    revision, and is made anew when one of these changes.
    """

    job = models.OneToOneField(
        Job, on_delete=models.CASCADE, primary_key=True, related_name="transcript"
    )
    text = models.TextField(blank=True, default="")
    segments = models.JSONField(default=list, help_text="With words, shifted to the job's time.")
    gaps = models.JSONField(default=list, help_text="What is missing, and why.")
    language = models.CharField(max_length=35, null=True, blank=True)
    confidence = models.FloatField(null=True, blank=True, help_text="The mean over all words.")
    duration_seconds = models.FloatField()
    speakers = models.JSONField(
        null=True,
        blank=True,
        help_text="Names by label, null where nobody gave one; unknown for old transcripts.",
    )

    def __str__(self) -> str:
        return str(self.job_id)
