"""SearchText: the words of a transcript, as they are looked for."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from jobs.models.job import USER_ID_LENGTH
from jobs.models.states import ENDED_JOB, JobStatus
from jobs.models.transcript import Transcript


class SearchText(models.Model):
    """One row per transcript; it goes with the transcript, and its words' index with it.

    The database itself keeps that index (see the migration): on PostgreSQL a column that is made
    of this row, on SQLite a virtual table that triggers fill, by `id`: that is why there is one.
    """

    id = models.BigAutoField(primary_key=True)
    job = models.OneToOneField(
        Transcript,
        on_delete=models.CASCADE,
        related_name="search_text",
        help_text="The transcript, whose key is its job's.",
    )
    user_id = models.CharField(max_length=USER_ID_LENGTH)
    job_status = models.CharField(max_length=16, choices=JobStatus)
    words = models.TextField(help_text="Folded: small, without accents, a space around each.")

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(job_status__in=ENDED_JOB), name="search_text_is_of_an_ended_job"
            )
        ]

    def __str__(self) -> str:
        return str(self.job_id)
