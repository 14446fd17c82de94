"""Transcript: the stitched text of an ended job."""

from __future__ import annotations

from django.db import models

from jobs.models.job import Job


class Transcript(models.Model):
    """What was recognised of a whole job. Times count from the start of its first chunk."""

    job = models.OneToOneField(
        Job, on_delete=models.CASCADE, primary_key=True, related_name="transcript"
    )
    text = models.TextField(blank=True, default="")
    segments = models.JSONField(default=list, help_text="With words, shifted to the job's time.")
    gaps = models.JSONField(default=list, help_text="What is missing, and why.")
    language = models.CharField(max_length=35, null=True, blank=True)
    confidence = models.FloatField(null=True, blank=True, help_text="The mean over all words.")
    duration_seconds = models.FloatField()

    def __str__(self) -> str:
        return str(self.job_id)
