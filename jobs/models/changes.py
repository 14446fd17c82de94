"""JobChange: the one way in which a job or a chunk changes its status.

A change is one transaction that begins by locking the job's row. Under that lock every move is
one conditional UPDATE whose row count says who won, its event gets the next number, and the user
index follows. The order "job, then its chunks" is the same everywhere, so no two changes wait for
each other in a circle.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from operator import or_
from typing import Any, Final
from uuid import UUID

from django.db import models, transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from jobs.crashpoints import crashpoint
from jobs.models.bulk import insert_alike, update_each
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
        self.stamp: UUID | None = None  # of the user's index, once the job was moved
        self._events: list[tuple[EventType, dict[str, Any]]] = []

    def move_job(self, to: JobStatus, event: EventType, **columns: Any) -> bool:
        """Move the job, if it may; False when it may not, and then nothing changes."""
        columns["completed_time"] = Now() if to in ENDED_JOB else None
        rows = Job.objects.filter(pk=self.job.pk)
        if not _moved(rows, job_sources(to), to, columns):
            return False
        self.job.status = to
        UserJobIndex.objects.filter(pk=self.job.pk).update(job_status=to)
        self.stamp = UserIndexStamp.renew(self.job.user_id)
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
        if not _moved(rows, chunk_sources(to), to, columns):
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
        self._events.append((event, data))

    @property
    def latest(self) -> int:
        """The number of the latest event, whether or not it is written yet."""
        return self.job.sequence + len(self._events)

    def number_events(self) -> list[tuple[UUID, int, EventType, dict[str, Any]]]:
        """The events, numbered without a hole: the row lock makes the counter ours."""
        first = self.job.sequence + 1
        self.job.sequence += len(self._events)
        return [
            (self.job.pk, number, event, data)
            for number, (event, data) in enumerate(self._events, start=first)
        ]

    def pass_crashpoints(self, moment: str) -> None:
        """One for each event of the change: `before-chunk.started`, `after-job.completed` …"""
        for event, _ in self._events:
            crashpoint(f"{moment}-{event}")


@contextmanager
def changing(job_id: UUID) -> Iterator[JobChange]:
    """One transaction in which the job is locked.

    Raises:
        JobGoneError: when there is no such job.
    """
    with changing_all([job_id]) as changes:
        if job_id not in changes:
            raise JobGoneError(str(job_id))
        yield changes[job_id]


@contextmanager
def changing_all(job_ids: Collection[UUID]) -> Iterator[dict[UUID, JobChange]]:
    """One transaction in which all these jobs are locked, those that are gone left out.

    They are locked in the order of their ids, so that two such changes do not wait for each other.
    """
    with transaction.atomic():
        jobs = Job.objects.select_for_update().filter(pk__in=job_ids).order_by("pk")
        changes = {job.pk: JobChange(job) for job in jobs}
        yield changes
        _write_events(changes.values())
        for change in changes.values():
            change.pass_crashpoints("before")
    for change in changes.values():
        change.pass_crashpoints("after")


def after_commit(act: Callable[..., object], *arguments: object) -> None:
    """Do it once the transaction is committed; what goes wrong then is logged and stops nothing.

    Not by a `partial`, which has no name: Django would fail to log it.
    """

    def hook() -> None:
        act(*arguments)

    transaction.on_commit(hook, robust=True)


def start_chunks(
    changes: Mapping[UUID, JobChange],
    wanted: Mapping[UUID, Collection[int]],
    where: Q = Q(),  # noqa: B008  (immutable)
    **columns: Any,
) -> list[Chunk]:
    """Move those of the wanted chunks that are due, and `where` holds for, to `in_progress`.

    `columns` hold a `lease_token` that nobody has. Returns the chunks that were moved, with their
    place and path; their events are the caller's to record.
    """
    of_jobs = [Q(job_id=job_id, index__in=wanted[job_id]) for job_id in changes.keys() & wanted]
    if not of_jobs:
        return []
    to = ChunkStatus.IN_PROGRESS
    due = Chunk.objects.due().filter(where, reduce(or_, of_jobs)).not_being_recognised()
    if not _moved(due, chunk_sources(to), to, columns):
        return []
    mine = Chunk.objects.filter(job_id__in=wanted, lease_token=columns["lease_token"])
    return list(mine.order_by().only("job_id", "index", "audio_path", "crashes"))


def complete_chunks(columns: Sequence[str], values: Mapping[int, Sequence[Any]]) -> None:
    """Move chunks whose claims hold to `completed`, each with its own values, in one go.

    Args:
        values: of the attributes in `columns`, by the chunk's primary key. The jobs are locked and
            the claims were looked at since, so that nobody can have moved one of them.
    """
    to = ChunkStatus.COMPLETED
    sources = Chunk.objects.filter(status__in=chunk_sources(to))
    alike = {"status": to, "ended_time": Now(), **NO_CLAIM}
    if update_each(sources, alike, columns, values) != len(values):
        raise AssertionError("a chunk was moved although its job is locked")


def _write_events(changes: Iterable[JobChange]) -> None:
    """All events, and how many each job has had by now."""
    events: list[tuple[Any, ...]] = []
    jobs: dict[int, list[UUID]] = {}
    for change in changes:
        new = change.number_events()
        if new:
            events += new
            jobs.setdefault(len(new), []).append(change.job.pk)
    if events:
        insert_alike(JobEvent, {"time": Now()}, ("job_id", "sequence", "type", "data"), events)
    for count, job_ids in jobs.items():
        Job.objects.filter(pk__in=job_ids).update(sequence=F("sequence") + count)


def _moved(rows: models.QuerySet[Any], sources: list[Any], to: str, columns: dict[str, Any]) -> int:
    """How many rows were moved; the one place where a status is written."""
    return rows.filter(status__in=sources).update(status=to, **columns)
