"""The sound of a chunk as it was handed in, for whoever listens while reading."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final
from uuid import UUID

from django.core.files import File

from asr.sniffing import BYTES, media_type
from jobs import storage
from jobs.database import release_connection
from jobs.models import Chunk
from jobs.storage import AudioNotFoundError, InvalidPathError

URL_SECONDS: Final = 300  # of a bucket's address: a player asks here again for a new one


class UnknownChunkError(Exception):
    """The job has no chunk of that number."""


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A file that is there. It is the caller's to close."""

    name: str
    content_type: str
    file: File[bytes]
    size: int
    modified_ns: int

    @property
    def etag(self) -> str:
        """Another one for every other content."""
        return f'"{self.modified_ns:x}-{self.size:x}"'


def sound_of(job_id: UUID, index: int) -> Sound | str:
    """A chunk's file, or the address in the bucket that gives it for some minutes.

    Raises:
        UnknownChunkError: the job has no such chunk.
        AudioNotFoundError: the file is gone.
        OSError: the storage fails; StorageAwayError when it is away.
    """
    path = Chunk.objects.filter(job_id=job_id, index=index).values_list("audio_path", flat=True)
    found = path.first()
    if found is None:
        raise UnknownChunkError
    release_connection()
    try:
        return _open(found)
    except InvalidPathError:  # something else lies there by now
        raise AudioNotFoundError(found) from None


def _open(path: str) -> Sound | str:
    files, name = storage.audio_files(), PurePosixPath(path).name
    if files.is_remote:
        content_type = media_type(files.beginning(path, BYTES))
        return files.sign_download(
            path, content_type=content_type, file_name=name, seconds=URL_SECONDS
        )
    file = files.open(path)
    try:
        state = os.fstat(file.fileno())
        content_type = media_type(file.read(BYTES))
    except OSError:
        file.close()
        raise
    return Sound(
        name=name,
        content_type=content_type,
        file=file,
        size=state.st_size,
        modified_ns=state.st_mtime_ns,
    )
