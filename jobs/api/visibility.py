"""Who may see a job: asked by every view whose address names one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import JSONField, Subquery
from django.db.models.functions import JSONObject
from rest_framework.exceptions import NotFound
from rest_framework.viewsets import GenericViewSet

from jobs.api.authentication import Caller
from jobs.api.errors import Erased
from jobs.models import ErasedJob, Job


@dataclass(frozen=True, kw_only=True)
class JobStamp:
    """What must be known of a job to answer: whose it is, its status, and its version."""

    user_id: str
    status: str
    sequence: int


_STAMP = JSONObject(user_id="user_id", status="status", sequence="sequence")


class JobViewSet(GenericViewSet[Any]):
    """Views of one job, whose stamp comes with the statement that checks the token."""

    def token_annotations(self) -> dict[str, Any]:
        """What the statement that checks the token is to bring along."""
        job = Job.objects.filter(pk=self.kwargs["job_id"]).values(stamp=_STAMP)
        return {"job_stamp": Subquery(job, output_field=JSONField())}

    def visible(self, job_id: UUID) -> JobStamp:
        """The job's stamp, if the caller may know of it; else 404, or 410 once it was erased."""
        caller = Caller.of(self.request)
        known = getattr(self.request.auth, "job_stamp", None)
        if known is None:  # signed in by session, or there is no such job
            known = Job.objects.filter(pk=job_id).values_list(_STAMP, flat=True).first()
        if known is not None:
            stamp = JobStamp(**known)
            if caller.may_see(stamp.user_id):
                return stamp
            raise NotFound
        erased = ErasedJob.objects.filter(pk=job_id).first()
        if erased is not None and caller.may_see(erased.user_id):
            raise Erased
        raise NotFound
