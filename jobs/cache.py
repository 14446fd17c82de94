"""The write-through cache: TranscriptResults of ended jobs, and the user index's first pages.

Nothing is ever invalidated, so nothing stale can be served, not even after Redis was away while
rows changed: a key holds the version of the rows that its value was made from (the job's event
counter, the index's stamp), and a reader asks the database for the version it wants. That costs
no statement of its own: the one that checks the token brings it along.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any, Final
from uuid import UUID

from django.core.cache import cache

from jobs.models import Job, UserIndexStamp, UserJobIndex
from jobs.results import load_results

SCHEMA: Final = 1  # raise when the shape of the cached values changes
PAGE_LENGTH: Final = 101  # the longest page, and one more to tell whether there is a next
KEPT_SECONDS: Final = 24 * 3600


def write_job_through(job_id: UUID) -> None:
    """After the commit of any change of a job's status: its result, and its user's first pages."""
    row = Job.objects.filter(pk=job_id).values_list("user_id", "status", "sequence").first()
    if row is None:
        return
    user_id, status, sequence = row
    values: dict[str, Any] = {}
    if status != "in_progress" and (result := load_results([job_id]).get(job_id)):
        values[_job_key(job_id, sequence)] = result
    stamp = UserIndexStamp.of(user_id)
    if stamp is not None:
        for statuses in ([], [status]):
            values[_page_key(user_id, statuses, stamp)] = _read_page(user_id, statuses)
    cache.set_many(values, timeout=_kept())


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


def first_page(user_id: str, statuses: Sequence[str], stamp: UUID) -> list[UUID]:
    """The newest jobs of one user, at most `PAGE_LENGTH`, as of `stamp` or later."""
    key = _page_key(user_id, statuses, stamp)
    page = _get_many([key]).get(key)
    if page is None:
        page = _read_page(user_id, statuses)
        cache.set(key, page, timeout=_kept())
    return [UUID(job_id) for job_id in page]


def forget_job(job_id: UUID, sequence: int) -> None:
    """Free the memory of a deleted job's result; no reader would find it any more."""
    cache.delete(_job_key(job_id, sequence))


def _get_many(keys: list[str]) -> dict[str, Any]:
    """What the cache has of it; nothing when an entry cannot be decoded."""
    try:
        return cache.get_many(keys) or {}
    except ValueError:  # of JSON and of UTF-8
        return {}


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
