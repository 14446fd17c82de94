"""The write-through cache: TranscriptResults of ended jobs, and the user index's first pages.

Nothing is ever invalidated, so nothing stale can be served, not even after Redis was away while
rows changed: a key holds the version of the rows that its value was made from (the job's event
counter, the index's stamp), and a reader asks the database for the version it wants. That costs
no statement of its own: the one that checks the token brings it along.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, cast
from uuid import UUID

import redis
from django.core.cache import cache
from django.db import models

from jobs.models import Chunk, ErasedJob, Job, JobChange, Transcript, UserJobIndex
from jobs.results import load_results, transcript_result

SCHEMA: Final = 3  # raise when the shape of the cached values changes
PAGE_LENGTH: Final = 101  # the longest page, and one more to tell whether there is a next
KEPT_SECONDS: Final = 24 * 3600


def write_job_through(
    change: JobChange, chunks: Sequence[Chunk], transcript: Transcript, edited: Collection[int]
) -> None:
    """After the commit that ended or edited a job: its result; if it ended, the first pages."""
    job = Job.objects.filter(pk=change.job.pk, sequence=change.job.sequence).first()
    if job is None:
        return  # it has gone on since
    result = {_job_key(job.pk, job.sequence): transcript_result(job, chunks, transcript, edited)}
    pages = _pages(job, change.stamp) if change.stamp else {}
    cache.set_many(pages | result, timeout=_kept())


def write_pages_through(job: Job, stamp: UUID) -> None:
    """After the commit that gave a job its status: its user's first pages."""
    cache.set_many(_pages(job, stamp), timeout=_kept())


def read_results(versions: dict[UUID, int]) -> dict[UUID, dict[str, Any]]:
    """TranscriptResults of ended jobs whose event counters are given; made if not cached."""
    keys = {_job_key(job_id, sequence): job_id for job_id, sequence in versions.items()}
    found = {keys[key]: value for key, value in _get_many(list(keys)).items()}
    missing = [job_id for job_id in versions if job_id not in found]
    if missing:
        made = load_results(missing)
        cache.set_many(
            {_job_key(job_id, versions[job_id]): result for job_id, result in made.items()},
            timeout=_kept(),
        )
        found |= made
    return found


def read_body(job_id: UUID, sequence: int) -> bytes | None:
    """An ended job's TranscriptResult as it is cached: JSON, to be sent as it is.

    None when it is not there; `read_results` makes it.
    """
    client = cast("Any", cache).client.get_client(write=False)
    try:
        body: bytes = client.get(cache.make_key(_job_key(job_id, sequence))) or b""
    except redis.RedisError:
        return None
    is_whole = body.startswith(b'{"jobId":"%s"' % str(job_id).encode()) and body.endswith(b"}")
    return body if is_whole else None


def first_page(user_id: str, statuses: Sequence[str], stamp: UUID) -> list[UUID]:
    """The newest jobs of one user, at most `PAGE_LENGTH`, as of `stamp` or later."""
    key = _page_key(user_id, statuses, stamp)
    page = _get_many([key]).get(key)
    if page is None:
        page = _read_page(user_id, statuses)
        cache.set(key, page, timeout=_kept())
    return [UUID(job_id) for job_id in page]


def forget_jobs(versions: dict[UUID, int]) -> None:
    """Free the memory of deleted jobs' results; no reader would find them any more."""
    cache.delete_many([_job_key(job_id, sequence) for job_id, sequence in versions.items()])


def entries_of(user_id: str, erased: models.QuerySet[ErasedJob]) -> Iterator[list[str]]:
    """Keys, as Redis has them, of a user's pages and of these jobs' results of any version.

    It looks at every key there is: what a reader wrote a moment too late is found as well.

    Raises:
        redis.RedisError: Redis is away.
    """
    everything, pages, results = (
        str(cache.make_key(beginning))
        for beginning in ("", f"index:{SCHEMA}:{user_id}:", f"job:{SCHEMA}:")
    )
    cursor = None
    while cursor != 0:
        cursor, found = _client().scan(cursor or 0, match=f"{everything}*", count=1000)
        keys = [key.decode() for key in found]
        jobs = {key: _uuid(key.removeprefix(results)) for key in keys if key.startswith(results)}
        gone = set(erased.filter(pk__in=filter(None, jobs.values())).values_list("pk", flat=True))
        yield [key for key in keys if key.startswith(pages) or jobs.get(key) in gone]


def forget(keys: list[str]) -> int:
    """Delete entries by such keys; how many were there. Raises as `entries_of`."""
    return int(_client().delete(*keys)) if keys else 0


def _client() -> Any:
    """Redis itself: it raises where the cache would only be slow."""
    return cast("Any", cache).client.get_client(write=True)


def _uuid(rest: str) -> UUID | None:
    with suppress(ValueError):
        return UUID(rest.partition(":")[0])
    return None


def _get_many(keys: list[str]) -> dict[str, Any]:
    """What the cache has of it; nothing when an entry cannot be decoded."""
    try:
        return cache.get_many(keys) or {}
    except ValueError:  # of JSON and of UTF-8
        return {}


def _pages(job: Job, stamp: UUID) -> dict[str, list[str]]:
    """The first pages that a job of this status stands on."""
    found = UserJobIndex.objects.search(job.user_id, [])[:PAGE_LENGTH]
    newest = [(str(job_id), status) for job_id, status in found.values_list("job_id", "job_status")]
    if len(newest) < PAGE_LENGTH:  # there are no others
        of_status = [job_id for job_id, status in newest if status == job.status]
    else:
        of_status = _read_page(job.user_id, [job.status])
    return {
        _page_key(job.user_id, [], stamp): [job_id for job_id, _ in newest],
        _page_key(job.user_id, [job.status], stamp): of_status,
    }


def _read_page(user_id: str, statuses: Iterable[str]) -> list[str]:
    found = UserJobIndex.objects.search(user_id, list(statuses))[:PAGE_LENGTH]
    return [str(job_id) for job_id in found.values_list("job_id", flat=True)]


def _job_key(job_id: UUID, sequence: int) -> str:
    return f"job:{SCHEMA}:{job_id}:{sequence}"


def _page_key(user_id: str, statuses: Iterable[str], stamp: UUID) -> str:
    return f"index:{SCHEMA}:{user_id}:{','.join(sorted(statuses))}:{stamp}"


def _kept() -> int:
    """A lifetime with jitter, so that what was written together does not expire together."""
    return int(KEPT_SECONDS * random.uniform(0.9, 1.1))  # noqa: S311
