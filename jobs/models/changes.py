"""JobChange: the one way in which a job or a chunk changes its status.

A change is one transaction that begins by locking the job's row. Under that lock every move is
one conditional UPDATE whose row count says who won, its event gets the next number, and the user
index follows. The order "job, then its chunks" is the same everywhere, so no two changes wait for
each other in a circle.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

from django.db import models, transaction
from django.db.models import Q
from django.db.models.functions import Now

from jobs.crashpoints import crashpoint
from jobs.models.chunk import Chunk
from jobs.models.clock import iso_time
from jobs.models.event import EventType, JobEvent
from jobs.models.job import Job
from jobs.models.states import ENDED_JOB, ChunkStatus, JobStatus, chunk_sources, job_sources
from jobs.models.user_index import UserIndexStamp, UserJobIndex

NO_CLAIM: Final[dict[str, Any]] = {
    "lease_token": None,
    "lease_expires_time": None,
    "worker_id": None,
}


class JobGoneError(Exception):
    """There is no such job (any more)."""


class JobChange:
    """A job whose row is locked, and what happens to it. Made by `changing`."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._events: list[JobEvent] = []

    def move_job(self, to: JobStatus, event: EventType, **columns: Any) -> bool:
        """Move the job, if it may; False when it may not, and then nothing changes."""
        columns["completed_time"] = Now() if to in ENDED_JOB else None
        rows = Job.objects.filter(pk=self.job.pk)
        if not _move(rows, job_sources(to), to, columns):
            return False
        self.job.status = to
        UserJobIndex.objects.filter(pk=self.job.pk).update(job_status=to)
        UserIndexStamp.renew(self.job.user_id)
        self.record(event)
        return True

    def move_chunk(
        self,
        index: int,
        to: ChunkStatus,
        event: EventType,
        data: dict[str, Any] | None = None,
        where: Q = Q(),  # noqa: B008  (immutable)
        **columns: Any,
    ) -> bool:
        """Move one chunk, if it may and `where` holds; False when not: then nothing changes."""
        if to != ChunkStatus.IN_PROGRESS:
            columns |= NO_CLAIM
        rows = Chunk.objects.filter(where, job_id=self.job.pk, index=index)
        if not _move(rows, chunk_sources(to), to, columns):
            return False
        if to == ChunkStatus.PENDING:
            # As the row has it: this process's clock may be wrong.
            row = Chunk.objects.filter(job_id=self.job.pk, index=index)
            due = row.values_list("not_before", flat=True).get()
            data = {"notBefore": iso_time(due), **(data or {})}
        self.record(event, index=index, **(data or {}))
        return True

    def delay(self, reason: str) -> None:
        """Say that the job waits for something other than its turn ('' when no longer)."""
        if self.job.delay_reason == reason or self.job.ended:
            return
        Job.objects.filter(pk=self.job.pk).update(delay_reason=reason)
        self.job.delay_reason = reason
        if reason:
            self.record(EventType.JOB_DELAYED, delayReason=reason)
        else:
            self.record(EventType.JOB_RESUMED)

    def record(self, event: EventType, **data: Any) -> None:
        """Add an event; it is numbered and written when the change is complete."""
        self._events.append(JobEvent(job_id=self.job.pk, type=event, time=Now(), data=data))

    def write_events(self) -> None:
        """Number the events without a hole: the row lock makes the counter ours."""
        if not self._events:
            return
        for number, event in enumerate(self._events, start=self.job.sequence + 1):
            event.sequence = number
        JobEvent.objects.bulk_create(self._events)
        self.job.sequence += len(self._events)
        Job.objects.filter(pk=self.job.pk).update(sequence=self.job.sequence)

    def pass_crashpoints(self, moment: str) -> None:
        """One for each event of the change: `before-chunk.started`, `after-job.completed` …"""
        for event in self._events:
            crashpoint(f"{moment}-{event.type}")


@contextmanager
def changing(job_id: UUID) -> Iterator[JobChange]:
    """One transaction in which the job is locked.

    Raises:
        JobGoneError: when there is no such job.
    """
    with transaction.atomic():
        job = Job.objects.select_for_update().filter(pk=job_id).first()
        if job is None:
            raise JobGoneError(str(job_id))
        change = JobChange(job)
        yield change
        change.write_events()
        change.pass_crashpoints("before")
    change.pass_crashpoints("after")


def _move(rows: models.QuerySet[Any], sources: list[Any], to: str, columns: dict[str, Any]) -> bool:
    """The one place where a status is written."""
    return rows.filter(status__in=sources).update(status=to, **columns) == 1
