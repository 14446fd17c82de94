"""The page of one transcript: read it as it comes, listen, correct, take it away."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import Http404
from django.utils.translation import ngettext

from jobs.exports import CONTENT_TYPES
from jobs.feedback import rating_of
from jobs.models import (
    COMMENT_LENGTH,
    MOST_STARS,
    QUOTE_LENGTH,
    Chunk,
    ChunkStatus,
    ErasedJob,
    JobStatus,
    MistakeKind,
    RevisedText,
)
from jobs.results import load_snapshots
from jobs.web.views import ERASED, Page


class TranscriptPage(Page):
    """One job. What the scripts need beside the text lies in data attributes."""

    template_name = "web/transcript.html"
    here = "transcript"

    def get_context_data(self, **context: Any) -> dict[str, Any]:
        job_id = self.kwargs["job_id"]
        sequence, result = load_snapshots([job_id]).get(job_id, (0, None))
        if result is None or not self._may_see(result["userId"]):
            raise Http404(self._why(job_id))
        return super().get_context_data(
            job=result,
            status_label=JobStatus(result["jobStatus"]).label,
            sequence=sequence,
            ended=result["jobStatus"] != JobStatus.IN_PROGRESS,
            has_file=result["jobStatus"] in {JobStatus.COMPLETED, JobStatus.FAILED},
            formats=list(CONTENT_TYPES),
            uncertain_below=settings.UNCERTAIN_BELOW,
            parts=_parts(job_id, result),
            **_feedback(job_id),
            **context,
        )

    def _may_see(self, user_id: str) -> bool:
        return user_id == self.user_id or self._is_staff

    @property
    def _is_staff(self) -> bool:
        return bool(getattr(self.request.user, "is_staff", False))

    def _why(self, job_id: UUID) -> str:
        """As the API tells it: also to staff, and to whoever had their data erased."""
        erased = ErasedJob.objects.filter(pk=job_id)
        known = erased if self._is_staff else erased.of(self.user_id)
        return ERASED if known.exists() else ""


def _feedback(job_id: UUID) -> dict[str, Any]:
    """What was said of the transcript, and what may be."""
    every = range(1, MOST_STARS + 1)
    return {
        "rating": rating_of(job_id),
        "star_names": [(n, ngettext("%(n)d star", "%(n)d stars", n) % {"n": n}) for n in every],
        "mistake_kinds": MistakeKind.choices,
        "comment_length": COMMENT_LENGTH,
        "quote_length": QUOTE_LENGTH,
    }


def _parts(job_id: UUID, result: dict[str, Any]) -> list[dict[str, Any]]:
    """Each chunk with the text that there is of it, and its number as people count."""
    texts = dict(Chunk.objects.filter(job_id=job_id).values_list("index", "text"))
    edited = RevisedText.objects.current().filter(job_id=job_id)
    texts |= dict(edited.values_list("index", "text"))
    return [
        {
            **chunk,
            "number": chunk["index"] + 1,
            "text": texts.get(chunk["index"], ""),
            "is_missing": chunk["status"] == ChunkStatus.FAILED,
            "waits": chunk["status"] in {ChunkStatus.PENDING, ChunkStatus.IN_PROGRESS},
        }
        for chunk in result["chunks"]
    ]
