"""Where audio lives: files under the audio root, opened so that no path leads out of it.

A path is walked folder by folder with O_NOFOLLOW after its links were resolved, so that a link
swapped in between check and use is refused instead of followed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, Protocol
from uuid import UUID

from django.conf import settings

from asr.errors import AsrError, AudioRejected

UPLOADS: Final = "uploads"  # the folder of a user's own uploads, beneath the user's folder
AWAY_SECONDS: Final = 10.0  # until a chunk looks again for an audio root that is away
MAX_PATH_BYTES: Final = 1024  # more would not fit into the index on it
# Room for a job of the largest uploads and its transcript; on a small disk a hundredth of it.
LITTLE_ROOM_BYTES: Final = 200_000_000
LITTLE_ROOM_SHARE: Final = 0.01
# As `store_upload` names them, whole or not.
_OF_AN_UPLOAD: Final = re.compile(r"\d\d(\.[a-z0-9]{1,5})?|\.\d\d(\.[a-z0-9]{1,5})?\.part")
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# The disk, the user's quota, or the largest file that the process may write.
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_THERE: Final = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ENAMETOOLONG}


class InvalidPathError(Exception):
    """The path is malformed, leads out of the audio root or names no regular file."""


class AudioNotFoundError(Exception):
    """There is no such file inside the audio root."""


class StorageAwayError(OSError):
    """The audio root itself is not there: a disk that is not mounted, say."""

    def __init__(self) -> None:
        super().__init__(errno.ENOENT, "the audio root is not there")


class AudioUnavailable(AsrError):
    """A file that was there cannot be read: `audio_not_found`, `storage_unavailable`.

    `retry_after` is set where nothing can be read: then a wait of that many seconds costs nothing.
    """

    recoverable = True

    def __init__(self, code: str, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(code, detail)
        self.retry_after = retry_after


class UploadedAudio(Protocol):
    """What of Django's UploadedFile is needed here."""

    @property
    def name(self) -> str | None: ...

    @property
    def size(self) -> int | None: ...

    def chunks(self) -> Iterator[bytes]: ...


def check_path(path: str) -> PurePosixPath:
    """The path's parts, if its words alone are acceptable.

    Raises:
        InvalidPathError: empty, too long, absolute, with `..`, NUL, backslash or a surrogate.
    """
    parts = PurePosixPath(path)
    if (
        not parts.parts
        or len(path.encode(errors="surrogatepass")) > MAX_PATH_BYTES
        or parts.is_absolute()
        or ".." in parts.parts
        or "\0" in path
        or "\\" in path
        or any("\ud800" <= character <= "\udfff" for character in path)
    ):
        raise InvalidPathError(path)
    return parts


@contextmanager
def open_audio(path: str) -> Iterator[BinaryIO]:
    """The file at `path`, relative to the audio root, for reading.

    Raises:
        InvalidPathError: as `check_path`, or it leads out of the root or is no regular file.
        AudioNotFoundError: it is not there.
        StorageAwayError: the audio root is not there.
        OSError: the storage itself fails.
    """
    root = Path(os.path.realpath(settings.AUDIO_ROOT))
    real = Path(os.path.realpath(root / check_path(path)))
    if not real.is_relative_to(root) or real == root:
        raise InvalidPathError(path)
    try:
        descriptor = _open_beneath(root, real.relative_to(root))
    except OSError as error:
        if not os.access(root, os.R_OK | os.X_OK):  # workers may only read
            raise StorageAwayError from None
        if error.errno in _NOT_THERE:
            raise AudioNotFoundError(path) from None
        if error.errno in {errno.ELOOP, errno.ENXIO, errno.EISDIR}:
            raise InvalidPathError(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)  # fdopen would refuse a folder in its own words, and leave it open
        raise InvalidPathError(path)
    with os.fdopen(descriptor, "rb") as file:
        yield file


def size_of(path: str) -> int:
    """The file's size in bytes. Raises as `open_audio`."""
    with open_audio(path) as file:
        return os.fstat(file.fileno()).st_size


def read_audio(path: str) -> bytes:
    """The whole file, for recognition.

    Raises:
        AudioUnavailable: it is gone, or the storage fails.
        AudioRejected: it grew past the limit or was swapped for something else since submission.
    """
    try:
        with open_audio(path) as file:
            data = file.read(settings.AUDIO_MAX_BYTES + 1)
    except AudioNotFoundError:
        raise AudioUnavailable("audio_not_found", "the file is no longer there") from None
    except InvalidPathError:
        raise AudioRejected("invalid_audio", "the path no longer names an audio file") from None
    except StorageAwayError as error:
        raise AudioUnavailable(
            "storage_unavailable", str(error.strerror), retry_after=AWAY_SECONDS
        ) from None
    except OSError as error:
        detail = f"the file cannot be read ({errno.errorcode.get(error.errno or 0, 'unknown')})"
        raise AudioUnavailable("storage_unavailable", detail) from None
    if len(data) > settings.AUDIO_MAX_BYTES:
        raise AudioRejected("invalid_audio", "the file has grown past the size limit")
    return data


def fingerprint(uploads: Iterable[UploadedAudio]) -> str:
    """SHA-256 over the uploads' contents, in order."""
    digest = hashlib.sha256()
    for upload in uploads:
        one = hashlib.sha256()
        for block in upload.chunks():
            one.update(block)
        digest.update(one.digest())
    return digest.hexdigest()


def store_upload(user_id: str, job_id: UUID, index: int, upload: UploadedAudio) -> str:
    """Keep an uploaded file under the user's folder; its path relative to the audio root.

    The file appears under its name only when it is whole.

    Raises:
        StorageAwayError: the audio root is not there. It is never made anew: what is stored beside
            a disk that is not mounted is lost when the disk comes back.
        OSError: it could not be stored; a partial file goes with its folder, see `remove_empty`.
    """
    suffix = PurePosixPath(upload.name or "").suffix.lower()
    suffix = suffix if re.fullmatch(r"\.[a-z0-9]{1,5}", suffix) else ""
    parts = (user_id, UPLOADS, str(job_id))
    name = f"{index:02d}{suffix}"
    folder = _make_folder(parts)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(f".{name}.part", flags, 0o640, dir_fd=folder)
        with os.fdopen(descriptor, "wb") as file:
            for block in upload.chunks():
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        os.rename(f".{name}.part", name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    finally:
        os.close(folder)
    return str(PurePosixPath(*parts, name))


def uploads_of(user_id: str) -> Iterator[tuple[UUID, str]]:
    """The files that `store_upload` put under the user's folder, each with the id of its job.

    What anybody else has put there is left out, as far as its name tells.

    Raises:
        StorageAwayError: the audio root is not there.
    """
    root = Path(os.path.realpath(settings.AUDIO_ROOT))
    if not is_there():
        raise StorageAwayError
    home = root / user_id / UPLOADS
    if os.path.realpath(home) != str(home):
        return  # a link: nothing that the service made
    for file in home.glob("*-*-7*-*-*/*"):
        if file.parent.is_symlink() or file.is_symlink() or not file.is_file():
            continue
        if _OF_AN_UPLOAD.fullmatch(file.name):
            with suppress(ValueError):
                yield UUID(file.parent.name), str(file.relative_to(root))


def remove_uploads(paths: Iterable[str]) -> int:
    """Delete uploaded files, and their folders once empty; how many were there.

    Partial files of an interrupted upload go with the folder.
    """
    removed = 0
    root = Path(os.path.realpath(settings.AUDIO_ROOT))
    folders = set()
    for path in paths:
        file = root / check_path(path)
        if Path(os.path.realpath(file.parent)) != file.parent:
            continue  # a link on the way: nothing that the service stored itself
        folders.add(file.parent)
        with suppress(FileNotFoundError):
            file.unlink()
            removed += 1
    for folder in folders:
        remove_empty(folder)
    return removed


def remove_empty(folder: Path) -> None:
    """Delete a folder of uploads if only partial files are left in it."""
    with suppress(OSError):
        for partial in folder.glob(".*.part"):
            partial.unlink(missing_ok=True)
        folder.rmdir()


def folder_of_uploads(user_id: str, job_id: UUID) -> Path:
    """Where `store_upload` puts the files of that job."""
    return Path(os.path.realpath(settings.AUDIO_ROOT)) / user_id / UPLOADS / str(job_id)


def is_there() -> bool:
    """Whether the audio root can be read and written."""
    return os.access(settings.AUDIO_ROOT, os.R_OK | os.W_OK | os.X_OK)


def is_out_of_room(error: OSError) -> bool:
    """Whether something could not be written for want of room."""
    return error.errno in _NO_ROOM


def is_full() -> bool:
    """Whether uploads will soon find no room, or do not already.

    Raises:
        OSError: the storage fails.
    """
    disk = os.statvfs(settings.AUDIO_ROOT)
    free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    no_names_left = disk.f_files > 0 and disk.f_favail == 0
    return no_names_left or free < min(LITTLE_ROOM_BYTES, size * LITTLE_ROOM_SHARE)


def _open_beneath(root: Path, relative: Path) -> int:
    folder = os.open(root, _FOLDER)
    try:
        for part in relative.parts[:-1]:
            inner = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        # O_NONBLOCK: opening a FIFO must not wait for its writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(relative.name, flags, dir_fd=folder)
    finally:
        os.close(folder)


def _make_folder(parts: Iterable[str]) -> int:
    """A descriptor of the folder beneath the audio root, made if need be, links not followed."""
    try:
        folder = os.open(os.path.realpath(settings.AUDIO_ROOT), _FOLDER)
    except (FileNotFoundError, NotADirectoryError):
        raise StorageAwayError from None
    for part in parts:
        try:
            with suppress(FileExistsError):
                os.mkdir(part, 0o750, dir_fd=folder)
            inner = os.open(part, _FOLDER, dir_fd=folder)
        finally:
            os.close(folder)
        folder = inner
    return folder
