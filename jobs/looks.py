"""One look at the rows: what has become of all jobs and users that anybody in the process watches.

A handful of statements, however many watch. The rows are the truth: whoever looks later, after an
outage or a lost connection, finds all the same events under the same numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db.models import Max

from jobs.database import release_connection
from jobs.models import Job, JobEvent, UserJobIndex, iso_time
from jobs.models.clock import database_time

# No transaction that writes events takes that long: the database ends what waits or idles for half.
OVERLAP: Final = timedelta(seconds=60)

Numbers = Mapping[UUID, int]


@dataclass(frozen=True, slots=True)
class Event:
    """One change of a job; `text` is the message, encoded once for all who are told."""

    job_id: UUID
    sequence: int
    text: str
    index: int | None
    """Of the chunk that it is about, if it is about one."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is watched.

    `jobs`: by id the number behind which events are wanted, None where only the status is.
    `users`: by userId the numbers up to which events of their jobs are known, None at first.
    `looked_time`: when users were looked for the last time.
    """

    jobs: Mapping[UUID, int | None]
    users: Mapping[str, Numbers | None]
    looked_time: datetime | None


@dataclass(kw_only=True)
class Seen:
    """What there is.

    `jobs`: sequence and status of those that exist. `users`: by userId the sequences of jobs that
    are in progress or were lately. `known`: where the news of a user's job begin that was not
    known. `events`: by job, in order, from the earliest number that anybody asked for.
    """

    jobs: dict[UUID, tuple[int, str]]
    users: dict[str, dict[UUID, int]] = field(default_factory=dict)
    known: dict[UUID, int] = field(default_factory=dict)
    events: dict[UUID, list[Event]] = field(default_factory=dict)
    looked_time: datetime | None = None


def look(asked: Asked) -> Seen:
    """Raises django.db.Error when the database is away."""
    try:
        rows = Job.objects.filter(pk__in=asked.jobs).order_by()
        states = rows.values_list("pk", "sequence", "status")
        seen = Seen(jobs={pk: (number, status) for pk, number, status in states})
        behind = {
            job_id: after
            for job_id, (number, _) in seen.jobs.items()
            if (after := asked.jobs[job_id]) is not None and number > after
        }
        if asked.users:
            _look_for_users(asked, seen, behind)
        for event in JobEvent.objects.after(behind):
            seen.events.setdefault(event.job_id, []).append(encoded(event))
        return seen
    finally:
        release_connection()


def _look_for_users(asked: Asked, seen: Seen, behind: dict[UUID, int]) -> None:
    """Jobs in progress, and those that ended since the last look or shortly before it.

    A job that is not among these any more is forgotten, at twice the overlap after its end. Should
    it be retried, its news are exactly the events that are younger than the overlap: any older one
    was seen, and none that was seen is younger.
    """
    seen.looked_time = database_time()
    start = (asked.looked_time or seen.looked_time) - OVERLAP
    running = UserJobIndex.objects.filter(user_id__in=asked.users, job_status="in_progress")
    ended = Job.objects.filter(user_id__in=asked.users, completed_time__gte=start - OVERLAP)
    # In one statement: a job that is retried between two would be in neither.
    rows = running.values_list("user_id", "job_id", "job__sequence").union(
        ended.order_by().values_list("user_id", "pk", "sequence"), all=True
    )
    seen.users = {user_id: {} for user_id in asked.users}
    for user_id, job_id, number in rows:
        seen.users[user_id][job_id] = number
    unknown = []
    for user_id, known in asked.users.items():
        for job_id, number in seen.users[user_id].items() if known is not None else ():
            after = (known or {}).get(job_id)
            if after is None:
                unknown.append(job_id)
            elif number > after:
                behind[job_id] = min(behind.get(job_id, after), after)
    seen.known = _numbers_before(start, unknown)
    for job_id, after in seen.known.items():
        behind[job_id] = min(behind.get(job_id, after), after)


def _numbers_before(start: datetime, job_ids: list[UUID]) -> dict[UUID, int]:
    if not job_ids:
        return {}
    older = JobEvent.objects.filter(job_id__in=job_ids, time__lt=start).order_by()
    last = older.values_list("job_id").annotate(last=Max("sequence"))
    return dict.fromkeys(job_ids, 0) | dict(last)


def events_of(job_id: UUID, after: int) -> list[Event]:
    """All events of the job behind that number, in order."""
    return [encoded(event) for event in JobEvent.objects.after({job_id: after})]


def encoded(event: JobEvent) -> Event:
    """As it is told."""
    message = {
        "sequence": event.sequence,
        "type": event.type,
        "jobId": str(event.job_id),
        "time": iso_time(event.time),
        "data": event.data,
    }
    text, index = compact_json(message), event.data.get("index")
    return Event(event.job_id, event.sequence, text, index)


def compact_json(message: object) -> str:
    """A message's text."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


def running_jobs(user_id: str, limit: int) -> list[UUID]:
    """The user's newest jobs in progress."""
    rows = UserJobIndex.objects.search(user_id, ["in_progress"])
    return list(rows.values_list("job_id", flat=True)[:limit])
