"""The list of one's transcripts, and several of them in one file."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from tempfile import TemporaryFile
from typing import IO, Any, Final
from uuid import UUID

from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import FileResponse, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.translation import gettext as _
from django.views.generic import View

from asr.errors import EngineUnavailable
from jobs.exports import CONTENT_TYPES, NotCompletedError, export
from jobs.models import ChunkStatus, JobGoneError, JobStatus, UserJobIndex
from jobs.results import load_results
from jobs.search_words import MAX_QUERY, Term, hit, terms_of
from jobs.text_search import Found
from jobs.web.views import Page, not_found

PAGE_LENGTH: Final = 25
SHOWN_CHARACTERS: Final = 160  # of a transcript

_downloads = threading.Semaphore(2)  # at once in a process: each keeps a thread for requests


class TranscriptsPage(Page):
    """One's jobs, newest first: of one status or of all, with certain words or any."""

    template_name = "web/transcripts.html"
    here = "transcripts"

    def get_context_data(self, **context: Any) -> dict[str, Any]:
        asked = self.request.GET
        status, text = asked.get("status", ""), asked.get("text", "")[:MAX_QUERY]
        before, terms = _uuid(asked.get("before", "")), terms_of(text)
        rows = self._rows(status, text, terms)
        if before:
            rows = rows.filter(job_id__lt=before)
        ids = [row.job_id for row in rows[: PAGE_LENGTH + 1]]
        results = load_results(ids[:PAGE_LENGTH])
        return super().get_context_data(
            status=status,
            text=text,
            statuses=JobStatus.choices,
            formats=list(CONTENT_TYPES),
            jobs=[
                _row(results[job_id], terms) for job_id in ids[:PAGE_LENGTH] if job_id in results
            ],
            is_first=before is None,
            older=self._older(ids),
            **context,
        )

    def _rows(self, status: str, text: str, terms: list[Term]) -> Any:
        statuses = [status] if status in JobStatus.values else []
        if terms:
            return Found(terms, self.user_id, statuses)
        if text.strip():
            return UserJobIndex.objects.none()  # no word in it
        return UserJobIndex.objects.search(self.user_id, statuses)

    def _older(self, ids: list[UUID]) -> str:
        """The query of the next page; empty on the last."""
        if len(ids) <= PAGE_LENGTH:
            return ""
        query = self.request.GET.copy()
        query["before"] = str(ids[PAGE_LENGTH - 1])
        return query.urlencode()


def _row(result: dict[str, Any], terms: list[Term]) -> dict[str, Any]:
    """What the list shows of a job."""
    chunks = result["chunks"]
    lengths = [chunk["durationSeconds"] or 0.0 for chunk in chunks]
    return {
        **result,
        "status_label": JobStatus(result["jobStatus"]).label,
        "shown": list(_shown(result["transcription"] or "", terms)),
        "done": sum(chunk["status"] == ChunkStatus.COMPLETED for chunk in chunks),
        "failed": sum(chunk["status"] == ChunkStatus.FAILED for chunk in chunks),
        "total": len(chunks),
        "seconds": round(result["durationSeconds"] or sum(lengths)),
        "has_file": result["jobStatus"] in {JobStatus.COMPLETED, JobStatus.FAILED},
    }


def _shown(text: str, terms: list[Term]) -> Iterator[tuple[str, bool]]:
    """The beginning of a text, or what was found in it: pieces, and whether each is a hit."""
    if not terms:
        if text:
            yield text[:SHOWN_CHARACTERS].rstrip() + ("…" if text[SHOWN_CHARACTERS:] else ""), False
        return
    found, at = hit(text, terms), 0
    for start, end in found["spans"]:
        yield found["text"][at:start], False
        yield found["text"][start:end], True
        at = end
    yield found["text"][at:], False


class DownloadPage(LoginRequiredMixin, View):
    """Chosen transcripts as one ZIP archive: `?format=txt&job=…&job=…`."""

    def get(self, request: HttpRequest) -> HttpResponseBase:
        """Those that are another's, gone or not to be had are left out; 404 when none is left."""
        file_format = request.GET.get("format", "")
        values = request.GET.getlist("job")[:PAGE_LENGTH]
        asked = [job_id for value in values if (job_id := _uuid(value))]
        mine = UserJobIndex.objects.search(request.user.get_username(), []).filter(pk__in=asked)
        job_ids = list(mine.values_list("pk", flat=True))
        if file_format not in CONTENT_TYPES or not job_ids:
            return not_found(request)
        if not _downloads.acquire(blocking=False):
            return _busy()
        try:
            archive = _packed(job_ids, file_format)
        except EngineUnavailable:  # no process made a document in time
            return _busy()
        finally:
            _downloads.release()
        if archive is None:
            return not_found(request)
        # Whole before the first byte goes out, and of a length that is told: one that breaks off
        # on its way is no file for the browser.
        return FileResponse(archive, as_attachment=True, filename="transcripts.zip")


def _packed(job_ids: list[UUID], file_format: str) -> IO[bytes] | None:
    """An archive of those that are to be had; None if there are none. Whoever gets it closes it."""
    with ExitStack() as unless_whole:
        archive = unless_whole.enter_context(TemporaryFile())
        names = set()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for job_id in job_ids:
                with suppress(JobGoneError, NotCompletedError):
                    file = export(job_id, file_format)
                    # There may be two of the same title.
                    name = f"{job_id} {file.name}" if file.name in names else file.name
                    packed.writestr(name, file.content)
                    names.add(name)
        if not names:
            return None
        archive.seek(0)
        unless_whole.pop_all()
        return archive


def _busy() -> HttpResponse:
    text = _("The service is busy with other downloads; try again in some seconds.")
    headers = {"Retry-After": "10"}
    return HttpResponse(text, status=503, content_type="text/plain", headers=headers)


def _uuid(value: str) -> UUID | None:
    with suppress(ValueError):
        return UUID(value)
    return None
