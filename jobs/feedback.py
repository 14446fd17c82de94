"""Rating transcripts and reporting their mistakes, so that engines can be compared.

The job is locked while something is kept: it cannot begin to run again or go meanwhile, and two who
report at once do not pass the bound together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.db.models.functions import Now

from jobs.models import (
    MAX_REPORTS,
    Job,
    MistakeKind,
    MistakeReport,
    Rating,
    changing,
    from_now,
)

SUMMED: Final = timedelta(days=90)


class NotEndedError(Exception):
    """The job runs: there is no transcript to say anything of."""


class UnknownChunkError(Exception):
    """There is no such chunk."""


class TooManyReportsError(Exception):
    """The job has as many reports as it may."""


def rate(job_id: UUID, *, user_id: str, stars: int, comment: str) -> Rating:
    """Keep the one rating of an ended job, in place of the one before.

    Args:
        user_id: who rates.
        stars: 1 to 5.

    Raises:
        JobGoneError: there is no such job (any more).
        NotEndedError: it is in progress.
    """
    with changing(job_id) as change:
        engine, model = _heard_by(_ended(change.job))
        said = {"user_id": user_id, "stars": stars, "comment": comment, "time": Now()}
        Rating.objects.update_or_create(
            job=change.job, defaults={**said, "engine": engine, "model": model}
        )
        return Rating.objects.get(job=change.job)


def rating_of(job_id: UUID) -> Rating | None:
    """The job's rating, if it has one."""
    return Rating.objects.filter(job_id=job_id).first()


def take_back(job_id: UUID) -> bool:
    """Forget the job's rating; False when it had none."""
    return bool(Rating.objects.filter(job_id=job_id).delete()[0])


def report(
    job_id: UUID,
    *,
    user_id: str,
    kind: MistakeKind,
    index: int | None,
    start_seconds: float | None,
    heard: str,
    meant: str,
    comment: str,
) -> MistakeReport:
    """Keep that something in an ended job is wrong.

    Args:
        user_id: who says so.
        index: the chunk where it is; None: it is about the whole.
        start_seconds: when it is, from the job's start.

    Raises:
        JobGoneError, NotEndedError: as `rate`.
        UnknownChunkError: there is no chunk of that index.
        TooManyReportsError: there are 200 of the job.
    """
    with changing(job_id) as change:
        chunks = _ended(change.job)
        if index is not None:
            chunks = [chunk for chunk in chunks if chunk["index"] == index]
            if not chunks:
                raise UnknownChunkError(str(index))
        if MistakeReport.objects.filter(job=change.job).count() >= MAX_REPORTS:
            raise TooManyReportsError(str(job_id))
        engine, model = _heard_by(chunks)
        made = MistakeReport.objects.create(
            job=change.job,
            user_id=user_id,
            kind=kind,
            index=index,
            start_seconds=start_seconds,
            heard=heard,
            meant=meant,
            comment=comment,
            engine=engine,
            model=model,
        )
        made.refresh_from_db(fields=["time"])  # the database's
        return made


def _ended(job: Job) -> list[Any]:
    """The ended job's chunks, each as a dict with who heard it."""
    if not job.ended:
        raise NotEndedError(str(job.pk))
    return list(job.chunks.values("index", "engine", "model", "duration_seconds"))


def _heard_by(chunks: Iterable[dict[str, Any]]) -> tuple[str, str]:
    """The engine and the model of most of the time; empty where nobody heard anything."""
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    for chunk in chunks:
        if chunk["engine"]:
            seconds[chunk["engine"], chunk["model"]] += chunk["duration_seconds"] or 0.0
    return max(seconds, key=lambda heard_by: seconds[heard_by], default=("", ""))


def by_engine() -> list[dict[str, Any]]:
    """What was said within the last 90 days of each `engine` and `model`, in their order.

    Each has `ratings` and `mean_stars` (None without ratings), and `reports`.
    """
    since = {"time__gte": from_now(-SUMMED)}
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    ratings, reports = Rating.objects.filter(**since), MistakeReport.objects.filter(**since)
    for row in (*ratings.by_engine(), *reports.by_engine()):
        none = {"ratings": 0, "mean_stars": None, "reports": 0}
        sums.setdefault((row["engine"], row["model"]), none).update(row)
    return [sums[key] for key in sorted(sums)]
