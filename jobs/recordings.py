"""Long recordings: cut at pauses into a job's chunks; from then on it is a job like any other.

The job's row says that it is in progress, the recording's that it has no chunks yet. Cutting may
be begun any number of times: one transaction under the job's lock makes the chunks, once.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

from django.conf import settings
from django.core.files.base import ContentFile
from django.db.models import F
from django.db.models.functions import Now

from asr.audio import cut, plan_cuts
from asr.errors import AsrError, AudioRejected, ChildBusy
from jobs import engines, liveness, storage, upload_removal, uploads
from jobs.database import release_connection
from jobs.finishing import finish_job
from jobs.models import (
    DEADLINE,
    Chunk,
    ChunkStatus,
    EventType,
    Job,
    JobChange,
    JobGoneError,
    JobStatus,
    Recording,
    changing,
    database_time,
    from_now,
)
from jobs.storage import AudioUnavailable

MAX_ATTEMPTS: Final = 4
CUT_SECONDS: Final = 600.0  # two hours of Opus take about 30 s of a core
LEASE: Final = timedelta(seconds=CUT_SECONDS + 60)
PIECES_AT_ONCE: Final = 4  # of up to 10 MB each, in memory
MAX_PIECES: Final = 30
_BLOCK: Final = 1 << 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Claim:
    job_id: UUID
    user_id: str
    path: str
    token: UUID
    attempts: int


def cut_recording(job_id: UUID) -> bool:
    """Make the job's chunks, if nobody else does or did; True when they are to be dispatched."""
    claim = _claim(job_id)
    release_connection()
    if claim is None:
        return False
    try:
        if claim.attempts > MAX_ATTEMPTS:
            raise AudioUnavailable("worker_crashed", "the worker died each time it cut this file")
        paths = _cut(claim)
    except AsrError as error:
        _record_error(claim, error)
        return False
    except OSError as error:  # of the storage, or of the disk for temporary files
        _record_error(claim, storage.unavailable(error))
        return False
    return _keep(claim, paths)


def fail_uncut(change: JobChange, code: str, detail: str, *, recoverable: bool) -> None:
    """Give the job one chunk that failed: the recording itself, which nobody could cut."""
    mine = Recording.objects.filter(pk=change.job.pk)
    mine.update(cut_time=Now(), lease_token=None)  # whoever is at it writes nothing
    Chunk.objects.insert_due(change.job, [(mine.get().audio_path, False)])
    change.move_chunk(
        0,
        ChunkStatus.FAILED,
        EventType.CHUNK_FAILED,
        {"error": {"code": code, "detail": detail}},
        ended_time=Now(),
        error_code=code,
        error_detail=detail,
        error_recoverable=recoverable,
    )


def _claim(job_id: UUID) -> _Claim | None:
    token = uuid4()
    due = Recording.objects.due().filter(pk=job_id)
    claimed = due.update(
        attempts=F("attempts") + 1,
        lease_token=token,
        lease_expires_time=from_now(LEASE),
        worker_id=liveness.start().registered(),
    )
    if not claimed:
        return None
    row = Recording.objects.select_related("job").get(pk=job_id)
    return _Claim(
        job_id=job_id,
        user_id=row.job.user_id,
        path=row.audio_path,
        token=token,
        attempts=row.attempts,
    )


def _cut(claim: _Claim) -> list[str]:
    """The paths of the pieces, which lie in the storage then; all of them, or none.

    Raises AsrError, OSError.
    """
    paths: list[str] = []
    try:
        with _private_copy(claim.path) as file:
            for files in _pieces(file):
                paths += uploads.store_all(claim.user_id, uuid4(), files)
    except BaseException:
        upload_removal.abandon(paths)
        raise
    return paths


def _pieces(file: str) -> Iterator[list[ContentFile[bytes]]]:
    """The recording in this file, some pieces of it at a time.

    Raises AsrError.
    """
    pool, most = engines.child_pool(), settings.RECORDING_MAX_SECONDS
    piece, deadline = settings.AUDIO_MAX_SECONDS, time.monotonic() + CUT_SECONDS
    patience = CUT_SECONDS / 2
    ends = pool.run(plan_cuts, file, most, piece, limit=CUT_SECONDS, patience=patience)
    spans = list(zip([0, *ends], ends, strict=False))
    if len(spans) > MAX_PIECES:
        raise AudioRejected("audio_too_long", f"it makes more than {MAX_PIECES} chunks")
    for first in range(0, len(spans), PIECES_AT_ONCE):
        some = spans[first : first + PIECES_AT_ONCE]
        made = pool.run(cut, file, most, some, limit=deadline - time.monotonic())
        yield [ContentFile(data, name="piece.flac") for data in made]


@contextmanager
def _private_copy(path: str) -> Iterator[str]:
    """The recording in a temporary file that nobody else can read, and that always goes.

    Raises:
        AsrError, OSError: it cannot be read, or is larger than a recording may be.
    """
    with tempfile.NamedTemporaryFile(prefix="verbatim-recording-") as file:
        with storage.reading(path) as recording:
            left = settings.RECORDING_MAX_BYTES
            while block := recording.read(_BLOCK):
                left -= len(block)
                if left < 0:
                    raise AudioRejected("invalid_audio", "the file has grown past the size limit")
                file.write(block)
        file.flush()
        yield str(Path(file.name))


def _keep(claim: _Claim, paths: list[str]) -> bool:
    """Make the chunks, if the claim still holds; else the pieces are nobody's."""
    kept = False
    try:
        with changing(claim.job_id) as change:
            mine = Recording.objects.uncut().filter(pk=claim.job_id, lease_token=claim.token)
            if mine.update(cut_time=Now(), lease_token=None, worker_id=None):
                uploads.take(paths, paths)
                Chunk.objects.insert_due(change.job, [(path, True) for path in paths])
                kept = True
    except JobGoneError:
        pass
    except uploads.UploadDoomedError:  # it took so long to cut that nobody seemed to take them
        upload_removal.abandon(paths)
        detail = "the pieces were removed before the job had them"
        _record_error(claim, AudioUnavailable("storage_unavailable", detail))
        return False
    if not kept:
        logger.info("Recording %s: the claim was over", claim.job_id)
        upload_removal.abandon(paths)
    elif not paths:
        finish_job(claim.job_id)  # there was nothing to hear in it
    return kept


def _age(job: Job) -> float:
    """Seconds since the job was handed in, or retried: who waits that long again waits twice."""
    return (database_time() - (job.deadline - DEADLINE)).total_seconds()


def _record_error(claim: _Claim, error: AsrError) -> None:
    """Try again later, or fail the job; a storage that is away or full costs no attempt."""
    wait = getattr(error, "retry_after", None)
    most = getattr(error, "retry_most", None)
    free = wait is not None or isinstance(error, ChildBusy)
    try:
        with changing(claim.job_id) as change:
            mine = Recording.objects.uncut().filter(pk=claim.job_id, lease_token=claim.token)
            if change.job.status != JobStatus.IN_PROGRESS or not mine.exists():
                return
            again = error.recoverable and (free or claim.attempts < MAX_ATTEMPTS)
            if again:
                seconds = wait if wait is not None else 2.0**claim.attempts
                if most is not None:
                    seconds = min(max(seconds, _age(change.job)), most)
                due = from_now(timedelta(seconds=seconds))
                attempts = claim.attempts - 1 if free else claim.attempts
                mine.update(lease_token=None, attempts=attempts, not_before=due, resend_time=due)
                return
            fail_uncut(change, error.code, error.detail, recoverable=error.recoverable)
    except JobGoneError:
        return
    finish_job(claim.job_id)
