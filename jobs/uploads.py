"""Files that come in: announced, received, taken by a job, or removed when none took them.

The order is always: the row (`Upload`), the file, the job. Removing goes the other way, and marks
the row first, so that no job takes a file that is about to go.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import Error as DatabaseError
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from jobs import quotas, storage
from jobs.database import release_connection
from jobs.models import Chunk, Recording, Upload, UploadKind, from_now
from jobs.models.bulk import insert_alike
from jobs.models.job import new_job_id
from jobs.models.upload import UploadQuerySet
from jobs.storage import SignedUpload, StorageAwayError, UploadedAudio

URL_SECONDS: Final = 900
UNUSED: Final = timedelta(hours=24)
STORING: Final = timedelta(hours=1)  # far longer than it takes to keep a job's files
ADDRESS_IS_OVER: Final = timedelta(seconds=URL_SECONDS + 300)  # clocks may differ
LOOK_AGAIN: Final = timedelta(minutes=10)  # at a storage that could not remove them
BATCH: Final = 200

logger = logging.getLogger(__name__)


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


def announce(
    user_id: str, *, name: str, size: int, content_type: str, kind: UploadKind
) -> Announced:
    """Make room for a file of exactly so many bytes, for the next URL_SECONDS.

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
    if content_type != upload.content_type:
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
    for here: each path has a row meanwhile (see `give_up`). So it comes before any other lock but
    the job's.

    Args:
        known: those that were uploads a moment ago.

    Raises:
        UploadDoomedError: one is being removed just now, or was since it was known.
    """
    ours = sorted({path for path in paths if storage.is_among_uploads(path)})
    if not ours:
        return set()
    made = _hold(dict.fromkeys(ours, ""))
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


def abandon(paths: Sequence[str]) -> None:
    """Remove files of which no job came to be; the sweeper is the belt."""
    with suppress(DatabaseError, OSError):
        _remove(_doom(Upload.objects.filter(path__in=paths)))


def give_up(owners: Mapping[str, str], *, doomed: bool = False) -> None:
    """In the transaction that deletes their jobs: these uploads are nobody's from then on.

    Args:
        owners: the users, by the uploads' paths.
        doomed: they are to be removed although jobs name them.
    """
    _hold(owners)
    if doomed:
        Upload.objects.filter(path__in=owners).update(doomed=True, expires_time=Now())


def _hold(owners: Mapping[str, str]) -> set[UUID]:
    """Lock a row for each path until the end of the caller's transaction; made where there is none.

    An upsert, as a row that is only looked for may be deleted while it is waited for, and then
    nothing would be locked. In the order of the paths, or two of these could wait for each other.

    Args:
        owners: the users, by the uploads' paths.

    Returns:
        The ids that rows made here have; a row that was there keeps its own, and all it says.
    """
    rows = [
        Upload(user_id=user_id, path=path, expires_time=Now())
        for path, user_id in sorted(owners.items())
    ]
    Upload.objects.bulk_create(
        rows, update_conflicts=True, unique_fields=["path"], update_fields=["path"]
    )
    return {row.pk for row in rows}


@contextmanager
def _locked(rows: UploadQuerySet) -> Iterator[UploadQuerySet]:
    """One transaction in which these rows are locked, in the same order as by `_hold`."""
    with transaction.atomic():
        held = rows.select_for_update().order_by("path").values_list("pk", flat=True)
        yield Upload.objects.filter(pk__in=list(held))


def sweep(paths: Sequence[str] | None = None) -> int:
    """Remove files that no job has taken in time, or those of these paths; how many.

    A storage that is away is looked at again later.
    """
    try:
        if paths is None:
            return _sweep(Upload.objects.due()[:BATCH])
        parts = [paths[first : first + BATCH] for first in range(0, len(paths), BATCH)]
        return sum(_sweep(Upload.objects.due().filter(path__in=part)) for part in parts)
    except OSError as error:
        logger.warning("Files that nobody needs could not be removed: %s", error)
        return 0


def remove_all(user_id: str, before: datetime) -> int:
    """Remove what a user has sent by then and no job has taken; how many files there were.

    Raises:
        StorageAwayError, OSError: something could not be removed.
    """
    removed = 0
    sent = unused(user_id, before)
    while some := list(sent.values_list("pk", flat=True)[:BATCH]):
        removed += _remove(_doom(Upload.objects.filter(pk__in=some)))
    return removed


def unused(user_id: str, before: datetime) -> UploadQuerySet:
    """What a user has sent by then, and no job has taken; and what is being removed anyway."""
    then = Q(created_time__lte=before) | Q(doomed=True)
    return Upload.objects.filter(then, user_id=user_id, removed_time=None)


def _sweep(due: UploadQuerySet) -> int:
    batch = list(due.values_list("pk", flat=True))
    if not batch:
        return 0
    rows = Upload.objects.filter(pk__in=batch)
    doomed = _doom(rows)
    try:
        return _remove(doomed)
    except StorageAwayError:
        with _locked(rows) as held:
            held.update(expires_time=from_now(LOOK_AGAIN))
        raise
    except OSError:  # one of them, and not all: each by itself
        return sum(_remove_one(path) for path in doomed)


def _doom(rows: UploadQuerySet) -> list[str]:
    """Let no job take these from now on; their paths, without those that a job has already."""
    with _locked(rows) as held:
        held.taken().filter(doomed=False).delete()
        held.update(doomed=True, expires_time=Now())
        return list(held.values_list("path", flat=True))


def _remove_one(path: str) -> int:
    try:
        return _remove([path])
    except OSError as error:
        logger.warning("A file that nobody needs could not be removed: %s", error)
        Upload.objects.filter(path=path).update(expires_time=from_now(LOOK_AGAIN))
        return 0


def _remove(paths: Sequence[str]) -> int:
    """Remove those that are doomed, whatever was thought of the others meanwhile."""
    doomed = Upload.objects.filter(path__in=paths, doomed=True)
    sure = list(doomed.order_by("path").values_list("path", flat=True))
    if not sure:
        return 0
    files = storage.audio_files()
    removed = files.delete_all(sure)
    with _locked(Upload.objects.filter(path__in=sure, doomed=True)) as doomed:
        if files.takes_uploads_itself:
            # Its address may still be good, and bring the file back: once more when it is not.
            late = doomed.filter(removed_time=None)
            late.update(removed_time=Now(), expires_time=from_now(ADDRESS_IS_OVER))
            doomed.filter(expires_time__lte=Now()).delete()
        else:
            doomed.delete()
    return removed
