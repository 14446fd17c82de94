"""Files that come in: announced, received, and taken by a job.

`upload_removal` removes the others. The order is always: the row (`Upload`), the file, the job.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from jobs import quotas, storage
from jobs.database import release_connection
from jobs.models import Chunk, Recording, Upload, UploadKind, from_now
from jobs.models.bulk import insert_alike
from jobs.models.job import new_job_id
from jobs.models.upload import ADDRESS_GOOD
from jobs.storage import SignedUpload, UploadedAudio
from jobs.upload_removal import abandon, hold

URL_SECONDS: Final = int(ADDRESS_GOOD.total_seconds())
UNUSED: Final = timedelta(hours=24)
STORING: Final = timedelta(hours=1)  # far longer than it takes to keep a job's files


class UploadRefused(Exception):
    """The file is not the one that was announced, or comes too late."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


class UploadDoomedError(Exception):
    """The file is being removed, as nobody took it in time. Its one argument is the path."""


@dataclass(frozen=True, kw_only=True)
class Announced:
    """An upload that may begin; `signed` None: it goes to the service itself."""

    upload_id: UUID
    path: str
    signed: SignedUpload | None


def media_type(content_type: str) -> str:
    """The type itself, as it is compared: in lower case and without parameters."""
    return content_type.partition(";")[0].strip().lower()


def announce(
    user_id: str, *, name: str, size: int, content_type: str, kind: UploadKind
) -> Announced:
    """Make room for a file of exactly so many bytes, for the next URL_SECONDS.

    Args:
        content_type: a `media_type`.

    Raises:
        QuotaExceeded: too much of the user's waits for a job.
        StorageAwayError: the storage cannot be asked.
    """
    upload_id = new_job_id()
    path = storage.upload_path(user_id, str(upload_id), "audio", name=name)
    files = storage.audio_files()
    if files.is_remote:
        release_connection()
    signed = files.sign_upload(path, size=size, content_type=content_type, seconds=URL_SECONDS)
    with transaction.atomic():
        quotas.take_room(user_id, size)
        Upload.objects.create(
            pk=upload_id,
            user_id=user_id,
            path=path,
            kind=kind,
            size_bytes=size,
            content_type=content_type,
            expires_time=from_now(UNUSED),
        )
    return Announced(upload_id=upload_id, path=path, signed=signed)


def receive(upload_id: UUID, content: UploadedAudio, *, content_type: str) -> None:
    """Keep a file that was announced; it may come again until a job takes it.

    Raises:
        UploadRefused: another length or type, or it was taken or removed since.
        StorageAwayError, OSError: it could not be stored.
    """
    upload = Upload.objects.filter(pk=upload_id, doomed=False).first()
    if upload is None:
        raise UploadRefused("upload_expired", "A job has this file already, or it was removed.")
    if media_type(content_type) != upload.content_type:
        raise UploadRefused("invalid_content_type", f"Announced was {upload.content_type}.")
    if content.size != upload.size_bytes:
        detail = f"Announced were {upload.size_bytes} bytes, and {content.size} came."
        raise UploadRefused("invalid_length", detail)
    release_connection()  # a bucket may take its time
    storage.store(upload.path, content)
    if not Upload.objects.filter(pk=upload_id, doomed=False).exists() and not _is_named(
        upload.path
    ):
        storage.audio_files().delete(upload.path)  # it was removed while this one came in
        raise UploadRefused("upload_expired", "It was removed meanwhile.")


def _is_named(path: str) -> bool:
    return any(rows.objects.filter(audio_path=path).exists() for rows in (Chunk, Recording))


def store_all(user_id: str, job_id: UUID, files: Sequence[UploadedAudio]) -> list[str]:
    """Keep the files of a submission, before there is a job; their paths, in order.

    Raises:
        StorageAwayError, OSError: one could not be stored, and so none is kept.
    """
    paths = [
        storage.upload_path(user_id, str(job_id), f"{index:02d}", name=file.name or "")
        for index, file in enumerate(files)
    ]
    alike = {"user_id": user_id, "created_time": Now(), "expires_time": from_now(STORING)}
    insert_alike(Upload, alike, ("id", "path"), [(new_job_id(), path) for path in paths])
    release_connection()
    try:
        for path, file in zip(paths, files, strict=True):
            storage.store(path, file)
    except BaseException:
        abandon(paths)
        raise
    return paths


def known(paths: Sequence[str]) -> set[str]:
    """Which of the paths are uploads, whether a job has them or none yet, or they are going.

    Looked at before the file: one that is known by then and by `take` no more was removed between.
    """
    ours = [path for path in paths if storage.is_among_uploads(path)]
    if not ours:
        return set()
    rows = Upload.objects.filter(path__in=ours).values_list("path")
    return {path for (path,) in rows.union(*_named(ours))}


def take(paths: Sequence[str], known: Collection[str] = ()) -> set[str]:
    """Which of the paths are uploads; from the end of the caller's transaction on a job's.

    Whoever deletes the last job that names one waits for the end of that transaction, or is waited
    for here: each path has a row meanwhile (see `upload_removal.give_up`). So it comes before any
    other lock but the job's.

    Args:
        known: those that were uploads a moment ago.

    Raises:
        UploadDoomedError: one is being removed just now, or was since it was known.
    """
    ours = sorted({path for path in paths if storage.is_among_uploads(path)})
    if not ours:
        return set()
    made = hold(dict.fromkeys(ours, ""))
    rows = Upload.objects.filter(path__in=ours)
    taken = set()
    for pk, path, doomed in rows.order_by("path").values_list("pk", "path", "doomed"):
        if doomed:
            raise UploadDoomedError(path)
        if pk not in made:
            taken.add(path)
    rows.delete()
    if others := [path for path in ours if path not in taken]:
        chunks, recordings = _named(others)
        taken.update(path for (path,) in chunks.union(recordings))
    for path in sorted(set(known) - taken):
        raise UploadDoomedError(path)
    return taken


def _named(paths: Sequence[str]) -> list[Any]:
    """Queries for those that jobs have as their uploads: as chunks, and as recordings."""
    return [
        rows.filter(uploaded=True, audio_path__in=paths).order_by().values_list("audio_path")
        for rows in (Chunk.objects.all(), Recording.objects.all())
    ]
