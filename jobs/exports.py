"""An ended job's transcript as a file to download."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate
from typing import Any, Final
from uuid import UUID

from django.conf import settings

from asr.formats import make_docx, make_pdf
from asr.formats.subtitles import to_srt, to_vtt
from asr.formats.text import to_txt
from asr.formats.transcript import Transcript as Content
from asr.formats.uncertain import uncertain
from asr.stitch import Gap
from asr.types import segments_from_json
from jobs import engines
from jobs.database import release_connection
from jobs.models import Chunk, Job, JobGoneError, JobStatus, Transcript
from jobs.results import in_milliseconds, transcript_result

RENDER_SECONDS: Final = 60.0  # ten times what a transcript of two hours takes (measured)
_NAME_BYTES: Final = 200  # file systems take 255
_NOT_IN_A_NAME = re.compile(r'[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029"*/:<>?\\|]+')


class NotCompletedError(Exception):
    """The job runs, or was cancelled."""


@dataclass(frozen=True, kw_only=True)
class File:
    """What is downloaded; `ascii_name` is for programs that read no other."""

    name: str
    ascii_name: str
    content_type: str
    content: bytes


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """All that the database knows of one ended job."""

    job: Job
    chunks: list[Chunk]
    transcript: Transcript


def export(job_id: UUID, file_format: str) -> File:
    """A completed job's transcript, or what there is of a failed one, with its gaps marked.

    Args:
        file_format: one of CONTENT_TYPES.

    Raises:
        JobGoneError: there is no such job (any more).
        NotCompletedError: its transcript is not to be had.
        EngineUnavailable: no process made the file in time.
    """
    rows = _read(job_id)
    release_connection()
    content = _RENDERERS[file_format](rows)
    title = rows.job.title
    plain_title = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return File(
        name=f"{_stem(title, job_id)}.{file_format}",
        ascii_name=f"{_stem(plain_title, job_id)}.{file_format}",
        content_type=CONTENT_TYPES[file_format],
        content=content.encode() if isinstance(content, str) else content,
    )


def _read(job_id: UUID) -> _Rows:
    job = Job.objects.filter(pk=job_id).first()
    if job is None:
        raise JobGoneError
    if job.status not in {JobStatus.COMPLETED, JobStatus.FAILED}:
        raise NotCompletedError
    chunks = list(Chunk.objects.without_words().filter(job_id=job_id).order_by("index"))
    transcript = Transcript.objects.filter(pk=job_id).first()
    if transcript is None:  # retried since the job was read
        raise NotCompletedError
    return _Rows(job=job, chunks=chunks, transcript=transcript)


def _content(rows: _Rows) -> Content:
    durations = (chunk.duration_seconds or 0.0 for chunk in rows.chunks)
    starts = tuple(accumulate(durations, initial=0.0))
    assert rows.job.completed_time is not None  # noqa: S101  (a constraint)
    return Content(
        title=rows.job.title,
        language=rows.transcript.language,
        completed_time=rows.job.completed_time,
        duration_seconds=rows.transcript.duration_seconds,
        segments=segments_from_json(rows.transcript.segments),
        gaps=tuple(_gap(gap) for gap in rows.transcript.gaps),
        chunk_starts=starts[: len(rows.chunks)],
    )


def _gap(gap: dict[str, Any]) -> Gap:
    return Gap(
        index=gap["index"],
        start_time=gap["startTime"],
        duration_seconds=gap["durationSeconds"],
        code=gap["code"],
    )


def _json(rows: _Rows) -> str:
    """Everything: the TranscriptResult, its segments with their words, and where to look twice."""
    segments = rows.transcript.segments
    speakers = dict.fromkeys(
        item["speaker"] for part in segments for item in (part, *part["words"])
    )
    below = settings.UNCERTAIN_BELOW
    result = transcript_result(rows.job, rows.chunks, rows.transcript) | {
        "segments": segments,
        "speakers": [speaker for speaker in speakers if speaker is not None],
        "uncertainBelow": below,
        "uncertain": [asdict(span) for span in uncertain(_content(rows), below=below)],
    }
    return json.dumps(in_milliseconds(result), ensure_ascii=False, indent=1)


def _rendered(render: Callable[[Content], str], rows: _Rows) -> str:
    return render(_content(rows))


def _made_by_child(make: Callable[[Content], bytes], rows: _Rows) -> bytes:
    """Seconds of work that would hold Python's lock, and the event loop with it."""
    return engines.child_pool().run(make, _content(rows), limit=RENDER_SECONDS)


def _stem(title: str, job_id: UUID) -> str:
    """The title as a file name that every system takes, or the job's id."""
    name = " ".join(_NOT_IN_A_NAME.sub(" ", title).split()).strip(". ")
    short = name.encode()[:_NAME_BYTES].decode(errors="ignore").rstrip(". ")
    return short or f"transcript-{job_id}"


CONTENT_TYPES: Final = {
    "txt": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "json": "application/json",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "pdf": "application/pdf",
}
_RENDERERS: Final[dict[str, Callable[[_Rows], str | bytes]]] = {
    "txt": partial(_rendered, to_txt),
    "srt": partial(_rendered, to_srt),
    "vtt": partial(_rendered, to_vtt),
    "json": _json,
    "docx": partial(_made_by_child, make_docx),
    "pdf": partial(_made_by_child, make_pdf),
}
