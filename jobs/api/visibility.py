"""Who may see a job: asked by every view whose address names one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.db import connection
from rest_framework.exceptions import NotFound

from jobs.api.authentication import Beside, Caller
from jobs.api.base import ApiViewSet
from jobs.api.errors import Erased
from jobs.models import ErasedJob, Job


@dataclass(frozen=True)
class JobStamp:
    """What must be known of a job to answer: whose it is, its status, and its version."""

    user_id: str
    status: str
    sequence: int


_COLUMNS: Final = {f"job_{name}": name for name in ("user_id", "status", "sequence")}


def beside_token(job_id: UUID) -> Beside:
    """The job's stamp, from the statement that checks the token."""
    value = Job._meta.pk.get_db_prep_value(job_id, connection)
    return Beside(table="jobs_job", condition="beside.id = %s", value=value, columns=_COLUMNS)


def visible_job(job_id: UUID, caller: Caller, auth: object) -> JobStamp:
    """The job's stamp, if the caller may know of it; else 404, or 410 once it was erased.

    `auth`: the token that was checked with `beside_token`, or None.
    """
    known: Any = [getattr(auth, name, None) for name in _COLUMNS]
    if known[0] is None:  # signed in by session, or there is no such job
        known = Job.objects.filter(pk=job_id).values_list(*_COLUMNS.values()).first()
    if known is not None:
        stamp = JobStamp(*known)
        if caller.may_see(stamp.user_id):
            return stamp
        raise NotFound
    known_to = (
        ErasedJob.objects.all() if caller.is_service else ErasedJob.objects.of(caller.username)
    )
    if known_to.filter(pk=job_id).exists():
        raise Erased
    raise NotFound


class JobViewSet(ApiViewSet):
    """Views of one job, whose stamp comes with the statement that checks the token."""

    def beside_token(self) -> Beside:
        """See `AsksWithToken`."""
        return beside_token(self.kwargs["job_id"])

    def visible(self, job_id: UUID) -> JobStamp:
        """See `visible_job`."""
        return visible_job(job_id, Caller.of(self.request), self.request.auth)
