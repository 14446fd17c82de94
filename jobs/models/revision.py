"""What people have made of a transcript: every version of its texts and of its speakers' names.

A chunk's row keeps what was recognised; what stands here lies over it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from jobs.models.job import USER_ID_LENGTH, Job


@dataclass(frozen=True, kw_only=True)
class Edits:
    """One version: the texts by the index of their chunk, names by the key of their speaker."""

    texts: Mapping[int, str] = field(default_factory=dict)
    speakers: Mapping[str, str] = field(default_factory=dict)


AS_RECOGNISED: Final = Edits()


class Revision(models.Model):
    """One version of a job's transcript. Number 0, as it was recognised, has no row.

    What one editor saves within a minute is one version, with the number of the last save.
    """

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="revisions")
    number = models.PositiveIntegerField()
    editor = models.CharField(
        max_length=USER_ID_LENGTH, help_text="Or the pseudonym of an erased user."
    )
    begun_time = models.DateTimeField(db_default=Now(), help_text="Of the first save in it.")
    time = models.DateTimeField(db_default=Now(), help_text="Of the last save in it.")
    changed = models.JSONField(default=list, help_text="The chunks whose text it changed.")
    speakers = models.JSONField(default=dict, help_text="All names, by the speaker's key.")
    restores = models.PositiveIntegerField(
        null=True, blank=True, help_text="The revision that it brought back."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["job", "number"], name="revision_number_is_unique_in_job"
            )
        ]
        indexes = [models.Index(fields=["editor"], name="revision_by_editor")]
        ordering = ["job", "-number"]

    def __str__(self) -> str:
        return f"{self.job_id} revision {self.number}"


class RevisedTextQuerySet(models.QuerySet["RevisedText"]):
    """Texts by the version that they are part of."""

    def current(self) -> RevisedTextQuerySet:
        return self.filter(until=None)

    def as_of(self, number: int) -> RevisedTextQuerySet:
        return self.filter(Q(until=None) | Q(until__gt=number), since__lte=number)


class RevisedText(models.Model):
    """A chunk's text as a person wrote it, from one revision on and before another.

    So a version is stored by what it changed alone: an hour of writing in a transcript of two
    hours is some hundred kilobytes, where whole copies of it would be as many megabytes.
    """

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="revised_texts")
    index = models.PositiveSmallIntegerField(help_text="Of the chunk.")
    text = models.TextField(blank=True)
    since = models.PositiveIntegerField()
    until = models.PositiveIntegerField(null=True, blank=True)

    objects = RevisedTextQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["job", "index"],
                condition=Q(until=None),
                name="chunk_has_one_current_text",
            ),
            models.CheckConstraint(
                condition=Q(until=None) | Q(until__gt=F("since")),
                name="revised_text_ends_after_it_began",
            ),
        ]
        ordering = ["job", "index", "since"]

    def __str__(self) -> str:
        return f"{self.job_id}[{self.index}]"


def edits_of(job: Job) -> Edits:
    """The newest version. Its job is locked, or the answer may be newer than `job.revision`."""
    if not job.revision:
        return AS_RECOGNISED
    texts = RevisedText.objects.current().filter(job=job).values_list("index", "text")
    newest = Revision.objects.filter(job=job).latest("number")
    return Edits(texts=dict(texts), speakers=newest.speakers)
