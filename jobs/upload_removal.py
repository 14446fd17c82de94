"""Files that came in and that nobody needs: given up by their jobs, unused in time, or abandoned.

The row is marked first, so that no job takes a file that is about to go; then goes the file, and
the row last.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db import Error as DatabaseError
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from jobs import storage
from jobs.models import Chunk, Recording, Upload, from_now
from jobs.models.upload import ADDRESS_GOOD, UploadQuerySet
from jobs.storage import StorageAwayError

ADDRESS_IS_OVER: Final = ADDRESS_GOOD + timedelta(minutes=5)  # clocks may differ
LOOK_AGAIN: Final = timedelta(minutes=10)  # at a storage that could not remove them
BATCH: Final = 200

logger = logging.getLogger(__name__)


class NoSuchUploadError(Exception):
    """Nothing was announced under that id, or it is gone."""


class UploadInUseError(Exception):
    """A job names the file."""


def owner_of(upload_id: UUID) -> str | None:
    """Whose announced upload it is, as long as no job has taken it."""
    announced = Upload.objects.announced().filter(pk=upload_id)
    return announced.values_list("user_id", flat=True).first()


def give_back(user_id: str, upload_id: UUID) -> None:
    """Remove what the user has announced, whether or not it was sent.

    While the storage is away the file is left to the sweeper. It counts until it is gone for good:
    in a bucket that is when its address is over.

    Raises:
        UploadInUseError, NoSuchUploadError
    """
    doomed = _doom(Upload.objects.announced().filter(pk=upload_id, user_id=user_id))
    if doomed:
        sweep(doomed)
        return
    path = storage.upload_path(user_id, str(upload_id), "audio", name="")
    for rows in (Chunk, Recording):
        if rows.objects.filter(uploaded=True, audio_path__startswith=path).exists():
            raise UploadInUseError
    raise NoSuchUploadError


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
    hold(owners)
    if doomed:
        Upload.objects.filter(path__in=owners).update(doomed=True, expires_time=Now())


def hold(owners: Mapping[str, str]) -> set[UUID]:
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
    """One transaction in which these rows are locked, in the same order as by `hold`."""
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
