"""The state machine: every status, and every move that is legal.

    Job     in_progress → completed | failed | cancelled        failed → in_progress (retry)
    Chunk   pending → in_progress → completed | failed | cancelled
            in_progress → pending   an attempt failed, was given back or its worker died
            pending → failed | cancelled                        failed → pending (retry)

`changes.JobChange` makes the moves; nothing else writes a status.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class JobStatus(TextChoices):
    """What becomes of a whole job."""

    IN_PROGRESS = "in_progress", _("In Progress")
    COMPLETED = "completed", _("Completed")
    FAILED = "failed", _("Failed")
    CANCELLED = "cancelled", _("Cancelled")


class ChunkStatus(TextChoices):
    """What becomes of one audio file of a job."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


JOB_MOVES: Final[Mapping[JobStatus, frozenset[JobStatus]]] = {
    JobStatus.IN_PROGRESS: frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.COMPLETED: frozenset(),
    JobStatus.FAILED: frozenset({JobStatus.IN_PROGRESS}),
    JobStatus.CANCELLED: frozenset(),
}

CHUNK_MOVES: Final[Mapping[ChunkStatus, frozenset[ChunkStatus]]] = {
    ChunkStatus.PENDING: frozenset(
        {ChunkStatus.IN_PROGRESS, ChunkStatus.FAILED, ChunkStatus.CANCELLED}
    ),
    ChunkStatus.IN_PROGRESS: frozenset(
        {
            ChunkStatus.PENDING,
            ChunkStatus.COMPLETED,
            ChunkStatus.FAILED,
            ChunkStatus.CANCELLED,
        }
    ),
    ChunkStatus.COMPLETED: frozenset(),
    ChunkStatus.FAILED: frozenset({ChunkStatus.PENDING}),
    ChunkStatus.CANCELLED: frozenset(),
}

ENDED_JOB: Final = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)
ENDED_CHUNK: Final = (ChunkStatus.COMPLETED, ChunkStatus.FAILED, ChunkStatus.CANCELLED)


def job_sources(to: JobStatus) -> list[JobStatus]:
    """The statuses that a job may move to `to` from."""
    return [source for source, targets in JOB_MOVES.items() if to in targets]


def chunk_sources(to: ChunkStatus) -> list[ChunkStatus]:
    """The statuses that a chunk may move to `to` from."""
    return [source for source, targets in CHUNK_MOVES.items() if to in targets]
