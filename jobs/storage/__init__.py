"""Where audio lives: a folder, or a bucket of S3 (`settings.STORAGES["audio"]`).

What callers need stands here; what differs between the two lies in `local` and `s3`.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Final, Protocol, cast
from uuid import UUID

from django.conf import settings
from django.core.files import File
from django.core.files.storage import storages

from asr.errors import AudioRejected
from jobs.database import release_connection
from jobs.storage.base import AudioStorage, SignedUpload, check_path
from jobs.storage.errors import (
    AWAY_SECONDS,
    FULL_MOST_SECONDS,
    FULL_SECONDS,
    AudioNotFoundError,
    AudioUnavailable,
    InvalidPathError,
    StorageAwayError,
    is_out_of_room,
)

__all__ = [
    "AudioNotFoundError",
    "AudioUnavailable",
    "InvalidPathError",
    "SignedUpload",
    "StorageAwayError",
    "UploadedAudio",
    "audio_files",
    "check_path",
    "fingerprint",
    "is_among_uploads",
    "is_out_of_room",
    "read_audio",
    "reading",
    "unavailable",
    "upload_path",
    "warn_if_away",
]

# A piece of a recording may be as large as its samples; nobody else's file may, as its size was
# looked at when it was submitted.
PIECE_BYTES_PER_SECOND: Final = 32_000 + 1_000
UPLOADS: Final = "uploads"  # the folder of a user's own uploads, beneath the user's folder

logger = logging.getLogger(__name__)


class UploadedAudio(Protocol):
    """What of Django's UploadedFile is needed here."""

    @property
    def name(self) -> str | None: ...

    @property
    def size(self) -> int | None: ...

    def seek(self, position: int) -> object: ...

    def chunks(self) -> Iterator[bytes]: ...


def audio_files() -> AudioStorage:
    """The storage that is configured."""
    return cast("AudioStorage", storages["audio"])


def warn_if_away(*, to_write: bool = True) -> None:
    """Say so in the log of a process that starts; it works once the storage is there."""
    try:
        audio_files().look(to_write=to_write)
    except StorageAwayError as error:
        logger.warning("Audio cannot be reached: %s", error.advice)


def read_audio(path: str) -> bytes:
    """The whole file, for recognition.

    Raises:
        AudioUnavailable: it is gone, or the storage fails.
        AudioRejected: it grew past the limit or was swapped for something else since submission.
    """
    most = max(settings.AUDIO_MAX_BYTES, int(settings.AUDIO_MAX_SECONDS * PIECE_BYTES_PER_SECOND))
    with reading(path) as file:
        data: bytes = file.read(most + 1)
    if len(data) > most:
        raise AudioRejected("invalid_audio", "the file has grown past the size limit")
    return data


@contextmanager
def reading(path: str) -> Iterator[File[bytes]]:
    """The file, open; what goes wrong with it while it is read is an AsrError.

    Raises:
        AudioUnavailable, AudioRejected: as `read_audio`.
    """
    try:
        with audio_files().open(path) as file:
            yield file
    except AudioNotFoundError:
        raise AudioUnavailable("audio_not_found", "the file is no longer there") from None
    except InvalidPathError:
        raise AudioRejected("invalid_audio", "the path no longer names an audio file") from None
    except OSError as error:
        raise unavailable(error) from None


def unavailable(error: OSError) -> AudioUnavailable:
    """What it means to a chunk, or to a recording, that the storage fails."""
    if isinstance(error, StorageAwayError):
        detail, wait = str(error.strerror), AWAY_SECONDS
        return AudioUnavailable("storage_unavailable", detail, retry_after=wait)
    if is_out_of_room(error):
        detail, wait, most = "there is no room for it", FULL_SECONDS, FULL_MOST_SECONDS
        return AudioUnavailable("storage_unavailable", detail, retry_after=wait, retry_most=most)
    detail = f"the file cannot be read ({errno.errorcode.get(error.errno or 0, 'unknown')})"
    return AudioUnavailable("storage_unavailable", detail)


def fingerprint(uploads: Iterable[UploadedAudio]) -> str:
    """SHA-256 over the uploads' contents, in order."""
    digest = hashlib.sha256()
    for upload in uploads:
        one = hashlib.sha256()
        for block in upload.chunks():
            one.update(block)
        digest.update(one.digest())
    return digest.hexdigest()


def upload_path(user_id: str, *parts: str | UUID, name: str) -> str:
    """Where an upload lies: under the user's folder, with the suffix of the caller's file name."""
    suffix = PurePosixPath(name).suffix.lower()
    suffix = suffix if re.fullmatch(r"\.[a-z0-9]{1,5}", suffix) else ""
    return str(PurePosixPath(user_id, UPLOADS, *map(str, parts))) + suffix


def is_among_uploads(path: str) -> bool:
    """Whether it lies where uploads do; others may have put files there as well."""
    return PurePosixPath(path).parts[1:2] == (UPLOADS,)


def store(path: str, content: UploadedAudio) -> None:
    """Keep a file. It appears under its name only when it is whole.

    Raises:
        StorageAwayError: the storage is not there.
        OSError: it could not be stored.
    """
    audio_files().save(path, cast("File[bytes]", content))


def sizes_of(paths: Sequence[str]) -> list[int | Exception]:
    """Sizes in bytes, or InvalidPathError or AudioNotFoundError in a file's place.

    No connection of the database is held while a server is asked.

    Raises:
        OSError: the storage fails.
    """
    files = audio_files()
    if files.is_remote:
        release_connection()
    return files.sizes(paths)
