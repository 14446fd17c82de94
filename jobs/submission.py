"""Taking a job in: checks, uploads, idempotency, and the rows in one transaction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from asr.errors import EngineMisconfigured
from asr.types import Capabilities
from jobs import cache, engines, quotas, storage, upload_removal, uploads, webhooks
from jobs.address_guard import UrlNotAllowedError
from jobs.crashpoints import crashpoint
from jobs.models import (
    CUT_PATIENCE,
    DEADLINE,
    MAX_CHUNKS,
    Chunk,
    EventType,
    IdempotencyKey,
    Job,
    JobEvent,
    Recording,
    UserIndexStamp,
    UserJobIndex,
    after_commit,
    from_now,
    validate_user_id,
)
from jobs.models.job import new_job_id
from jobs.quotas import QuotaExceeded
from jobs.storage import UploadedAudio


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """One reason not to take a job: a code of the contract, a sentence, and the field."""

    code: str
    detail: str
    attr: str | None
    retry_after: int | None = None  # seconds

    @classmethod
    def of_quota(cls, full: QuotaExceeded) -> Refusal:
        wait = full.retry_after
        return cls(code="quota_exceeded", detail=full.detail, attr=None, retry_after=wait)


class SubmissionRefused(Exception):
    """The job is not taken, for one or more reasons."""

    def __init__(self, *refusals: Refusal) -> None:
        super().__init__("; ".join(refusal.detail for refusal in refusals))
        self.refusals = refusals


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What a caller asks for. Either paths or uploads, in spoken order, or one recording."""

    user_id: str
    audio_paths: tuple[str, ...] = ()
    recording_path: str = ""
    uploads: tuple[UploadedAudio, ...] = ()
    own_folder_only: bool = True
    title: str = ""
    engine: str | None = None
    language: str | None = None
    vocabulary: tuple[str, ...] = ()
    diarize: bool = False
    webhook_url: str = ""

    @property
    def field(self) -> str:
        return "audioChunks" if self.uploads else "audioChunkPaths"

    @property
    def named(self) -> tuple[str, ...]:
        """The paths that the caller names."""
        return (self.recording_path,) if self.recording_path else self.audio_paths

    @property
    def fields(self) -> list[str]:
        """Each file's field."""
        if self.recording_path:
            return ["recordingPath"]
        return [f"{self.field}.{position}" for position in range(len(self.uploads or self.named))]


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """The job that a submission became, and whether this very call made it."""

    job_id: UUID
    created: bool


def submit(submission: Submission, *, caller: str, idempotency_key: str | None = None) -> Accepted:
    """Check and store a job; it is the caller's business to dispatch it after that.

    Args:
        caller: the user whose token it is; idempotency keys are scoped to it.

    Raises:
        SubmissionRefused: nothing was stored.
        OSError: an upload could not be stored, and so nothing was.
    """
    if idempotency_key is None:
        known = check(submission)
        return Accepted(job_id=_store(submission, known, None), created=True)
    # Before the checks: what is repeated was accepted once, whatever became of its files since.
    reservation = _reserve(caller, idempotency_key, _fingerprint(submission))
    if reservation.job_id is not None:
        return Accepted(job_id=reservation.job_id, created=False)
    try:
        known = check(submission)
        return Accepted(job_id=_store(submission, known, reservation), created=True)
    except BaseException:
        IdempotencyKey.objects.filter(pk=reservation.pk, job_id__isnull=True).delete()
        raise


def check(submission: Submission) -> set[str]:
    """Everything that can be known before the job is stored.

    Returns:
        Which of the named files are uploads: those must be there still when the job is stored.

    Raises:
        SubmissionRefused: with every reason that was found.
    """
    _check_user(submission.user_id)
    _check_count(submission)
    most = min(settings.AUDIO_MAX_BYTES, _checked_engine(submission).max_bytes or float("inf"))
    if submission.recording_path:
        most = settings.RECORDING_MAX_BYTES
    known = _check_files(submission, most)
    _check_webhook(submission)
    with _quota_refusals():
        quotas.refuse_if_used_up(submission.user_id, costs=engines.costs(engine_of(submission)))
    return known


@contextmanager
def _quota_refusals() -> Iterator[None]:
    try:
        yield
    except QuotaExceeded as full:
        raise SubmissionRefused(Refusal.of_quota(full)) from None


def engine_of(submission: Submission) -> str:
    """The engine that is asked for."""
    return submission.engine or settings.ASR_ENGINE


def _check_webhook(submission: Submission) -> None:
    try:
        if submission.webhook_url:
            webhooks.check_url(submission.webhook_url)
    except UrlNotAllowedError as error:
        refusal = Refusal(code="url_not_allowed", detail=str(error), attr="webhookUrl")
        raise SubmissionRefused(refusal) from None


def _check_user(user_id: str) -> None:
    """An account may bear a name that is no folder of its own, such as "..": no file goes there."""
    try:
        validate_user_id(user_id)
    except ValidationError as error:
        raise _refused("invalid_user_id", error.messages[0], "userId") from None


def _check_count(submission: Submission) -> None:
    count = len(submission.audio_paths) + len(submission.uploads)
    if submission.recording_path and not count:
        return
    if not 1 <= count <= MAX_CHUNKS or submission.recording_path:
        detail = f"A job has 1 to {MAX_CHUNKS} audio files, not {count}."
        if not count:
            detail += " Send audioChunkPaths, or files as audioChunks in a multipart form."
        detail += " One long recording goes by recordingPath."
        if submission.recording_path:
            detail = "A job has either audio files or one recording."
        raise _refused("audio_chunk_count", detail, submission.field)


def _paths(submission: Submission) -> list[str]:
    """The paths that the caller names, each in its one spelling, as rows have it."""
    return [str(storage.check_path(path)) for path in submission.named]


def _check_files(submission: Submission, most: float) -> set[str]:
    """That each is there and has 1 to `most` bytes; which of the named ones are uploads."""
    known: set[str] = set()
    if submission.uploads:
        sizes: list[int | Exception] = [upload.size or 0 for upload in submission.uploads]
    else:
        _check_folders(submission)
        known = uploads.known(_paths(submission))
        sizes = storage.sizes_of(submission.named)
    judged = map(_judge, sizes, submission.fields, repeat(most))
    if refusals := [refusal for refusal in judged if refusal is not None]:
        raise SubmissionRefused(*refusals)
    return known


def _check_folders(submission: Submission) -> None:
    """Words first, then whose folder it is: what lies there is told to nobody else."""
    malformed = []
    for attr, path in zip(submission.fields, submission.named, strict=True):
        try:
            parts = storage.check_path(path).parts
        except storage.InvalidPathError:
            malformed.append(_invalid_path(attr))
            continue
        if not submission.own_folder_only:
            continue
        if parts[0] != submission.user_id:
            detail = f"The path must lie under {submission.user_id}/."
            raise SubmissionRefused(Refusal(code="permission_denied", detail=detail, attr=attr))
        if len(parts) < 2:
            malformed.append(_invalid_path(attr))  # the folder itself
    if malformed:
        raise SubmissionRefused(*malformed)


def _invalid_path(attr: str) -> Refusal:
    # The same words in every case: they must not tell whether the target exists.
    detail = "Not a path to a regular file inside the audio root."
    return Refusal(code="invalid_path", detail=detail, attr=attr)


def _refused(code: str, detail: str, attr: str) -> SubmissionRefused:
    return SubmissionRefused(Refusal(code=code, detail=detail, attr=attr))


def _audio_not_found(attr: str) -> Refusal:
    return Refusal(code="audio_not_found", detail="There is no such file.", attr=attr)


def _judge(size: int | Exception, attr: str, most: float) -> Refusal | None:
    if isinstance(size, storage.AudioNotFoundError):
        return _audio_not_found(attr)
    if isinstance(size, Exception):
        return _invalid_path(attr)
    if size == 0:
        return Refusal(code="audio_empty", detail="The file has 0 bytes.", attr=attr)
    if size > most:
        detail = f"The file has {size} bytes; at most {most} are taken."
        return Refusal(code="audio_too_large", detail=detail, attr=attr)
    return None


def _checked_engine(submission: Submission) -> Capabilities:
    """What the engine can do, once it is known to honour all that is asked for."""
    name = engine_of(submission)
    try:
        engine = engines.get(name)
    except EngineMisconfigured as error:
        known = ", ".join(engines.configured())
        why = f"is not configured here ({error.detail})"
        detail = f"The engine {name!r} {why}; there is: {known}."
        raise _refused("unsupported_option", detail, "engine") from None
    refused = engine.refusal(
        language=submission.language,
        vocabulary=submission.vocabulary,
        diarize=submission.diarize,
    )
    if refused is not None:
        option = refused.option
        detail = f"The engine {name!r} cannot honour {option}: {refused.reason}."
        raise SubmissionRefused(Refusal(code="unsupported_option", detail=detail, attr=option))
    return engine.capabilities


def _fingerprint(submission: Submission) -> str:
    """SHA-256 of everything that was asked for, the uploads' contents included."""
    names = Submission.__dataclass_fields__.keys() - {"uploads"}
    asked = {name: getattr(submission, name) for name in names}
    asked["uploads"] = storage.fingerprint(submission.uploads)
    asked["names"] = [upload.name for upload in submission.uploads]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _reserve(caller: str, key: str, fingerprint: str) -> IdempotencyKey:
    """The caller's reservation of the key: a new one, or the one of the job made with it.

    Raises:
        SubmissionRefused: the key stands for another submission, or for one still under way.
    """
    keys = IdempotencyKey.objects.filter(user_id=caller, key=key)
    keys.expired().delete()
    keys.abandoned().delete()
    try:
        with transaction.atomic():
            return IdempotencyKey.objects.create(user_id=caller, key=key, fingerprint=fingerprint)
    except IntegrityError:
        known = keys.first()
    if known is not None and known.fingerprint != fingerprint:
        detail = "This Idempotency-Key was used for another submission."
        raise _refused("idempotency_key_reused", detail, "Idempotency-Key")
    if known is None or known.job_id is None:
        detail = "The first call with this Idempotency-Key is still running."
        raise _refused("idempotency_conflict", detail, "Idempotency-Key")
    return known


def _store(submission: Submission, known: set[str], reservation: IdempotencyKey | None) -> UUID:
    job_id = new_job_id()
    stored: list[str] = []
    try:
        if submission.uploads:
            stored = uploads.store_all(submission.user_id, job_id, submission.uploads)
        if submission.webhook_url:  # so that the secret can be read before it signs
            webhooks.for_single_jobs(submission.user_id)
        paths = stored or _paths(submission)
        with transaction.atomic():
            uploaded = _taken(submission, paths, known.union(stored))
            with _quota_refusals():
                quotas.take_place(submission.user_id)
            job, stamp = _insert(submission, job_id, paths, uploaded)
            if reservation is not None:
                _bind(reservation, job_id)
            after_commit(cache.write_pages_through, job, stamp)
            crashpoint("before-job.submitted")
        crashpoint("after-job.submitted")
    except BaseException:
        upload_removal.abandon(stored)
        raise
    return job_id


def _insert(
    submission: Submission, job_id: UUID, paths: Sequence[str], uploaded: set[str]
) -> tuple[Job, UUID]:
    """Job, chunks, index and first event; the job, and the stamp of its user's index."""
    job = Job.objects.create(
        pk=job_id,
        user_id=submission.user_id,
        title=submission.title,
        engine=engine_of(submission),
        language=submission.language,
        vocabulary=list(submission.vocabulary),
        diarize=submission.diarize,
        webhook_url=submission.webhook_url,
        submitted_time=Now(),
        deadline=from_now(DEADLINE),
        sequence=1,
    )
    if submission.recording_path:
        Recording.objects.create(
            job=job,
            audio_path=paths[0],
            uploaded=paths[0] in uploaded,
            not_before=Now(),
            resend_time=from_now(CUT_PATIENCE),
        )
    else:
        Chunk.objects.insert_due(job, [(path, path in uploaded) for path in paths])
    UserJobIndex.objects.create(
        job_id=job_id, user_id=job.user_id, job_status=job.status, submitted_time=Now()
    )
    JobEvent.objects.create(job_id=job_id, sequence=1, type=EventType.JOB_SUBMITTED, time=Now())
    # Last: every submission of the user waits for the one that holds this row.
    return job, UserIndexStamp.renew(job.user_id)


def _taken(submission: Submission, paths: Sequence[str], known: set[str]) -> set[str]:
    """Which files an upload brought: they go with the last job that names them."""
    try:
        return uploads.take(paths, known)
    except uploads.UploadDoomedError as error:
        attr = submission.fields[paths.index(error.args[0])]
        raise SubmissionRefused(_audio_not_found(attr)) from None


def _bind(reservation: IdempotencyKey, job_id: UUID) -> None:
    """Make the reservation the job's, unless it was given up for dead meanwhile."""
    mine = IdempotencyKey.objects.filter(pk=reservation.pk, job_id__isnull=True)
    if not mine.update(job_id=job_id):
        detail = "Another call with this Idempotency-Key took over."
        raise _refused("idempotency_conflict", detail, "Idempotency-Key")
