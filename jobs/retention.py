"""Retention: uploads and whole jobs go when they ended long enough ago, if so asked.

Everything goes in batches of its own transaction, the longest ended first: it may be interrupted
anywhere, and done by many at once.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.db.models import Exists, OuterRef

from jobs import actions, storage, upload_removal
from jobs.models import Chunk, ChunkQuerySet, Job, Recording, changing_all, from_now
from jobs.models.job import JobQuerySet
from jobs.models.recording import RecordingQuerySet

BATCH: Final = 100  # jobs, or files


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How long what is kept; None: for ever. Of one user, or of all where none is named."""

    audio: timedelta | None = None
    transcripts: timedelta | None = None
    user_id: str = ""

    @classmethod
    def as_set(cls, user_id: str = "") -> Retention:
        """By the environment."""
        audio, transcripts = settings.AUDIO_RETENTION_DAYS, settings.TRANSCRIPT_RETENTION_DAYS
        return cls(audio=_days(audio), transcripts=_days(transcripts), user_id=user_id)

    def jobs(self) -> JobQuerySet:
        """Jobs that are past their time, the longest ended first."""
        if self.transcripts is None:
            return Job.objects.none()
        past = Job.objects.filter(completed_time__lt=from_now(-self.transcripts))
        past = past.filter(user_id=self.user_id) if self.user_id else past
        return past.order_by("completed_time")

    def uploads(self, age: timedelta | None) -> ChunkQuerySet:
        """Chunks whose upload is of use to no job that is not past that age."""
        if age is None:
            return Chunk.objects.none()
        before = from_now(-age)
        # The chunk's own end comes before its job's: by that the index finds it.
        past = Chunk.objects.filter(
            uploaded=True, ended_time__lt=before, job__completed_time__lt=before
        )
        past = past.filter(job__user_id=self.user_id) if self.user_id else past
        return past.filter(*_unused(before)).order_by("ended_time")

    def recordings(self) -> RecordingQuerySet:
        """Recordings that came in by the service, likewise."""
        if self.audio is None:
            return Recording.objects.none()
        before = from_now(-self.audio)
        past = Recording.objects.filter(uploaded=True, job__completed_time__lt=before)
        past = past.filter(job__user_id=self.user_id) if self.user_id else past
        return past.filter(*_unused(before))


def _unused(before: Any) -> list[Any]:
    """That no job which did not end before then names the file."""
    return [
        ~Exists(
            rows.objects.filter(audio_path=OuterRef("audio_path")).exclude(
                job__completed_time__lt=before
            )
        )
        for rows in (Chunk, Recording)
    ]


def _days(days: float | None) -> timedelta | None:
    return None if days is None else timedelta(days=days)


def count(retention: Retention) -> Counter[str]:
    """How many `jobs` and `audioFiles` are past their time; those of such jobs among them."""
    ages = [age for age in (retention.audio, retention.transcripts) if age is not None]
    paths = retention.uploads(min(ages, default=None)).order_by().values("audio_path").distinct()
    return Counter(jobs=retention.jobs().count(), audioFiles=paths.count())


def purge(retention: Retention, *, seconds: float = float("inf")) -> tuple[Counter[str], bool]:
    """Remove what is past its time, for about that long.

    Returns:
        What was removed, as `actions.delete_all` counts it, and whether that was all there is.

    Raises:
        StorageAwayError: the storage of audio is away: without their rows nobody would know the
            files.
    """
    removed = Counter[str]()
    deadline = time.monotonic() + seconds
    for step in (_purge_jobs, _purge_uploads):
        while step(retention, removed):
            if time.monotonic() > deadline:
                return removed, False
    return removed, True


def _purge_jobs(retention: Retention, removed: Counter[str]) -> bool:
    """One batch; False when there was none."""
    batch = list(retention.jobs().values_list("pk", flat=True)[:BATCH])
    if batch:
        _check_storage()
        removed.update(actions.delete_all(batch))
    return bool(batch)


def _purge_uploads(retention: Retention, removed: Counter[str]) -> bool:
    """One batch. Whoever is interrupted after the commit leaves the files to the sweeper."""
    past = retention.uploads(retention.audio).values_list("audio_path", flat=True)
    paths = {*past[:BATCH], *retention.recordings().values_list("audio_path", flat=True)[:BATCH]}
    if paths:
        _check_storage()
        _take_from_jobs(retention, paths)
        removed["audioFiles"] += upload_removal.sweep(sorted(paths))
    return bool(paths)


def _take_from_jobs(retention: Retention, paths: set[str]) -> None:
    """Take the files from their jobs, but for those that a job has come to need meanwhile.

    Jobs first, then uploads, as by whoever deletes a job: a job may be retried just now, or a new
    one name the file. Each of them is either seen here, or waits and finds the file gone.
    """
    named = [rows.objects.filter(audio_path__in=paths).order_by() for rows in (Chunk, Recording)]
    jobs = {job_id for rows in named for job_id in rows.values_list("job_id", flat=True)}
    with changing_all(jobs):
        owners: dict[str, str] = {}
        for rows in named:
            owners |= dict(rows.values_list("audio_path", "job__user_id"))
        upload_removal.give_up(owners)
        past = {
            path
            for rows in (retention.uploads(retention.audio), retention.recordings())
            for path in rows.filter(audio_path__in=paths).values_list("audio_path", flat=True)
        }
        for rows in named:
            rows.filter(audio_path__in=past).update(uploaded=False)
        upload_removal.give_up({path: owners[path] for path in past}, doomed=True)


def _check_storage() -> None:
    storage.audio_files().look()
