"""Files under the audio root, opened so that no path leads out of it.

A path is walked folder by folder with O_NOFOLLOW; where that meets a link, once more after the
path's links were resolved. So a link swapped in between check and use is refused, not followed.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any, Final
from uuid import uuid4

from django.conf import settings
from django.core.files import File

from jobs.crashpoints import full_disk
from jobs.storage.base import AudioStorage, blocks, check_path
from jobs.storage.errors import AudioNotFoundError, InvalidPathError, StorageAwayError

# Room for a job of the largest uploads and its transcript; on a small disk a hundredth of it.
LITTLE_ROOM_BYTES: Final = 200_000_000
LITTLE_ROOM_SHARE: Final = 0.01
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# The second of a folder that is one; the walk cannot tell it from a file in a folder's place.
_PERHAPS_A_LINK: Final = {errno.ELOOP, errno.ENOTDIR}
_NOT_THERE: Final = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ENAMETOOLONG}


class LocalAudioStorage(AudioStorage):
    """The folder `AUDIO_ROOT`. It is never made anew: what is stored beside a disk that is not
    mounted is lost when the disk comes back.
    """

    def delete(self, name: str) -> None:
        self.delete_all([name])

    def delete_all(self, names: Iterable[str]) -> int:
        """Folders go once they are empty, with the files' own parts of an interrupted save.

        Raises StorageAwayError.
        """
        removed, root = 0, _root()
        for name in names:
            file = root / check_path(name)
            if Path(os.path.realpath(file.parent)) != file.parent:
                continue  # a link on the way: nothing that the service stored itself
            with suppress(FileNotFoundError):
                file.unlink()
                removed += 1
            _clear(file)
        self.look()
        return removed

    def exists(self, name: str) -> bool:
        with suppress(InvalidPathError, AudioNotFoundError):
            self.size(name)
            return True
        return False

    def size(self, name: str) -> int:
        descriptor = _open_regular(name)
        try:
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def look(self, *, to_write: bool = True) -> None:
        """See `AudioStorage`."""
        if not os.access(settings.AUDIO_ROOT, os.R_OK | os.X_OK):
            raise StorageAwayError(look_at="AUDIO_ROOT")
        if to_write and not os.access(settings.AUDIO_ROOT, os.W_OK):
            raise StorageAwayError("nothing may be written to the audio root", look_at="AUDIO_ROOT")

    def is_full(self) -> bool:
        """See `AudioStorage`. Raises OSError."""
        disk = os.statvfs(settings.AUDIO_ROOT)
        free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
        no_names_left = disk.f_files > 0 and disk.f_favail == 0
        return no_names_left or free < min(LITTLE_ROOM_BYTES, size * LITTLE_ROOM_SHARE)

    def _open(self, name: str, mode: str = "rb") -> File[bytes]:
        """For reading."""
        return File(os.fdopen(_open_regular(name), "rb"), name)

    def _save(self, name: str, content: Any) -> str:
        """A partial file of an interrupted save goes when its folder is emptied."""
        path = check_path(name)
        try:
            folder = _make_folder(path.parts[:-1])
        except FileNotFoundError:  # somebody removed it just now, as it was empty
            folder = _make_folder(path.parts[:-1])
        partial = f".{path.name}.{uuid4().hex}.part"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(partial, flags, 0o640, dir_fd=folder)
            with os.fdopen(descriptor, "wb") as file:
                for block in blocks(content):
                    file.write(block)
                file.flush()
                full_disk()
                os.fsync(file.fileno())
            os.rename(partial, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(partial, dir_fd=folder)
            raise
        finally:
            os.close(folder)
        return name


def _root() -> Path:
    return Path(os.path.realpath(settings.AUDIO_ROOT))


def _open_regular(name: str) -> int:
    """A descriptor of a regular file, for reading.

    O_NOFOLLOW and O_NONBLOCK stand for everything that is no such file.
    """
    path = check_path(name)
    try:
        try:
            descriptor = _open_beneath(path)
        except OSError as error:
            if error.errno not in _PERHAPS_A_LINK:
                raise
            descriptor = _open_beneath(_without_links(path))
    except OSError as error:
        if not os.access(settings.AUDIO_ROOT, os.R_OK | os.X_OK):  # workers may only read
            raise StorageAwayError from None
        if error.errno in _NOT_THERE:
            raise AudioNotFoundError(name) from None
        if error.errno in {errno.ELOOP, errno.ENXIO, errno.EISDIR}:
            raise InvalidPathError(name) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidPathError(name)
    return descriptor


def _without_links(path: PurePath) -> PurePath:
    """Where the path leads, relative to the root. Raises InvalidPathError when that is outside."""
    root = _root()
    real = Path(os.path.realpath(root / path))
    if not real.is_relative_to(root) or real == root:
        raise InvalidPathError(str(path))
    return real.relative_to(root)


def _open_beneath(path: PurePath) -> int:
    """Follows no link but the root itself."""
    folder = os.open(settings.AUDIO_ROOT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in path.parts[:-1]:
            inner = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        # O_NONBLOCK: opening a FIFO must not wait for its writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(path.name, flags, dir_fd=folder)
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


def _clear(file: Path) -> None:
    """Delete what an interrupted save left of a file, and the folder if it is empty then."""
    own = re.compile(rf"\.{re.escape(file.name)}\.[0-9a-f]{{32}}\.part")
    with suppress(OSError):
        for other in file.parent.iterdir():
            if own.fullmatch(other.name):
                other.unlink(missing_ok=True)
        file.parent.rmdir()
