"""Dead letters: chunks that failed for good, and how they come back to work.

A dead letter is a failed chunk of a failed job. It is `recoverable` when its error was one that
passes (an engine that is down, a crash), else `permanent`. Operators redrive dead letters as often
as they like; the schedule takes only recoverable ones, each a bounded number of times.

Everything goes job by job, each in a transaction of its own that looks again whether its chunks
are still what was selected: it may be interrupted anywhere, and done by many at once.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db.models import Count, Q

from jobs import actions
from jobs.models import MAX_REDRIVES, Chunk, JobGoneError, from_now
from jobs.models.chunk import ChunkQuerySet

ERROR_CODES: Final = frozenset(
    {
        # permanent
        *("invalid_audio", "audio_too_long", "engine_refused"),
        # recoverable
        *("audio_not_found", "storage_unavailable", "worker_crashed", "deadline_exceeded"),
        *("engine_error", "engine_timeout", "engine_bad_response"),
    }
)
PAGE: Final = 500  # jobs that are looked up at once
SCHEDULED_AT_ONCE: Final = 200  # dead letters per sweep: a backlog of days must not flood the queue


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which dead letters: of any of these codes, or of one class where no code is named."""

    codes: tuple[str, ...] = ()
    recoverable: bool = True
    older_than: timedelta | None = None
    user_id: str = ""

    @property
    def which(self) -> Q:
        """The condition on a chunk."""
        condition = Q(error_recoverable=self.recoverable)
        if self.codes:
            condition = Q(error_code__in=self.codes)
        if self.older_than is not None:
            condition &= Q(ended_time__lte=from_now(-self.older_than))
        return condition

    @property
    def chunks(self) -> ChunkQuerySet:
        chunks = Chunk.objects.dead_letters().filter(self.which)
        return chunks.filter(job__user_id=self.user_id) if self.user_id else chunks


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How many dead letters died of one code."""

    code: str
    recoverable: bool
    chunks: int
    jobs: int

    @property
    def classification(self) -> str:
        return "recoverable" if self.recoverable else "permanent"


def is_known(code: str) -> bool:
    """Whether chunks can fail with that code, or have."""
    return code in ERROR_CODES or Chunk.objects.dead_letters().filter(error_code=code).exists()


def tally(selection: Selection) -> list[Tally]:
    """The selected dead letters, counted by the database, the most frequent code first."""
    kinds = selection.chunks.order_by().values("error_code", "error_recoverable")
    counted = kinds.annotate(chunks=Count("pk"), jobs=Count("job", distinct=True))
    return [
        Tally(
            code=row["error_code"],
            recoverable=bool(row["error_recoverable"]),
            chunks=row["chunks"],
            jobs=row["jobs"],
        )
        for row in counted.order_by("-chunks", "error_code")
    ]


def redrive(selection: Selection) -> Generator[list[Chunk], None, None]:
    """Retry the selected dead letters, one job with each step; the others stay failed.

    Each step gives what was retried of one job, for the caller to dispatch and to count. A job is
    taken once at most: one that fails again meanwhile is left for the next redrive.
    """
    for job_id in _jobs_of(selection):
        try:
            chunks = actions.retry(job_id, which=selection.which)
        except (actions.NotFailedError, JobGoneError):
            continue  # somebody else was first
        if chunks:
            yield chunks


def _jobs_of(selection: Selection) -> Iterator[UUID]:
    seen = UUID(int=0)
    ids = selection.chunks.order_by("job_id").values_list("job_id", flat=True).distinct()
    while page := list(ids.filter(job_id__gt=seen)[:PAGE]):
        yield from page
        seen = page[-1]


def jobs_due() -> list[UUID]:
    """Jobs with dead letters that the schedule is to retry now; none while it is off."""
    due = _due()
    if due is None:
        return []
    oldest = Chunk.objects.dead_letters().filter(due).order_by("ended_time")
    return list(dict.fromkeys(oldest.values_list("job_id", flat=True)[:SCHEDULED_AT_ONCE]))


def redrive_due(job_id: UUID) -> bool:
    """Retry those dead letters of a job that are due; False when another sweeper was first."""
    due = _due()
    if due is None:
        return False
    try:
        return bool(actions.retry(job_id, which=due, by_schedule=True))
    except (actions.NotFailedError, JobGoneError):
        return False


def _due() -> Q | None:
    """The condition on a dead letter that the schedule is to retry; None while it is off."""
    hours: float | None = settings.DEAD_LETTER_RETRY_HOURS
    if hours is None:
        return None
    return Q(
        error_recoverable=True,
        redrives__lt=MAX_REDRIVES,
        ended_time__lte=from_now(-timedelta(hours=hours)),
    )
