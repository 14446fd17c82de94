"""What people say of a transcript: how good it is, and where it is wrong.

Engine and model are copied when it is said: a retry may have another engine hear the job anew.
"""

from __future__ import annotations

from typing import Any, Final, cast

from django.db import models
from django.db.models import Avg, Count, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from jobs.models.job import USER_ID_LENGTH, Job, new_job_id

MOST_STARS: Final = 5
COMMENT_LENGTH: Final = 2000
QUOTE_LENGTH: Final = 500
MAX_REPORTS: Final = 200  # of one job


class MistakeKind(models.TextChoices):
    """What is wrong."""

    WRONG_WORD = "wrong_word", _("Wrong word")
    MISSING_WORDS = "missing_words", _("Missing words")
    INVENTED_WORDS = "invented_words", _("Invented words")
    WRONG_SPEAKER = "wrong_speaker", _("Wrong speaker")
    WRONG_TIME = "wrong_time", _("Wrong time")
    OTHER = "other", _("Other")


class Feedback(models.Model):
    """What ratings and reports have in common."""

    # Not the database's own number: ids sort by time, and tell nobody how many there are.
    id = models.UUIDField(primary_key=True, default=new_job_id, editable=False)
    user_id = models.CharField(
        max_length=USER_ID_LENGTH, help_text="Who said it, or the pseudonym of an erased user."
    )
    engine = models.CharField(
        max_length=40, blank=True, default="", help_text="That heard it, or most of the job."
    )
    model = models.CharField(max_length=200, blank=True, default="")
    comment = models.CharField(max_length=COMMENT_LENGTH, blank=True, default="")
    time = models.DateTimeField(db_default=Now())

    class Meta:
        abstract = True


class RatingQuerySet(models.QuerySet["Rating"]):
    """Ratings."""

    def by_engine(self) -> models.QuerySet[Any, Any]:
        """How many there are and their mean, as a dict for each engine and model."""
        by_engine = self.order_by().values("engine", "model")
        return cast(
            "models.QuerySet[Any, Any]",
            by_engine.annotate(ratings=Count("pk"), mean_stars=Avg("stars")),
        )


class Rating(Feedback):
    """How good a job's transcript is, in stars."""

    job = models.OneToOneField(Job, on_delete=models.CASCADE, related_name="rating")
    stars = models.PositiveSmallIntegerField(
        choices=[(stars, str(stars)) for stars in range(1, MOST_STARS + 1)]
    )

    objects = RatingQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(stars__gte=1, stars__lte=MOST_STARS), name="rating_has_its_stars"
            )
        ]
        indexes = [
            models.Index(fields=["user_id"], name="rating_by_user"),
            models.Index(fields=["time", "engine", "model", "stars"], name="rating_summed_by_time"),
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.job_id}: {self.stars} of {MOST_STARS}"


class MistakeReportQuerySet(models.QuerySet["MistakeReport"]):
    """Reports."""

    def by_engine(self) -> models.QuerySet[Any, Any]:
        """How many there are, as a dict for each engine and model."""
        by_engine = self.order_by().values("engine", "model")
        return cast("models.QuerySet[Any, Any]", by_engine.annotate(reports=Count("pk")))


class MistakeReport(Feedback):
    """One place where a transcript is wrong, or something about the whole of it."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="mistakes")
    index = models.PositiveSmallIntegerField(null=True, blank=True, help_text="Of the chunk.")
    start_seconds = models.FloatField(null=True, blank=True, help_text="From the job's start.")
    kind = models.CharField(max_length=16, choices=MistakeKind)
    heard = models.CharField(max_length=QUOTE_LENGTH, blank=True, default="")
    meant = models.CharField(max_length=QUOTE_LENGTH, blank=True, default="")

    objects = MistakeReportQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=MistakeKind.values), name="mistake_kind_is_known"
            )
        ]
        indexes = [
            models.Index(fields=["user_id"], name="mistake_by_user"),
            models.Index(fields=["time", "engine", "model"], name="mistake_summed_by_time"),
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.job_id}: {self.get_kind_display()}"
