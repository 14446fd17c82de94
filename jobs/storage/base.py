"""What Verbatim asks of a storage, beyond what Django does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from django.core.files.storage import Storage

from jobs.storage.errors import AudioNotFoundError, InvalidPathError, StorageAwayError

MAX_PATH_BYTES: Final = 1024  # more would not fit into the index on it, nor into a key of S3


@dataclass(frozen=True, kw_only=True)
class SignedUpload:
    """An address that takes one file, and the headers that must go with it."""

    url: str
    headers: dict[str, str]


class AudioStorage(Storage):
    """Django's storage of files that are named by a path relative to its root.

    `open`, `size`, `save` and `delete` raise InvalidPathError, AudioNotFoundError,
    StorageAwayError, and OSError for any other failure. A file appears only when it is whole.
    """

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        """The name as it is: callers make names that nobody has."""
        return name

    def sizes(self, names: Sequence[str]) -> list[int | Exception]:
        """In bytes, or why a file has none."""
        return [self._size_or_error(name) for name in names]

    # Whether an address that was signed takes the file again after it was deleted.
    takes_uploads_itself = False
    # Whether a look at a file is a call over the network.
    is_remote = False

    def delete_all(self, names: Iterable[str]) -> int:
        """Delete files; how many were there, as far as the storage tells."""
        raise NotImplementedError

    def look(self, *, to_write: bool = True) -> None:
        """See whether files can be read and, unless told otherwise, written.

        Raises:
            StorageAwayError: they cannot; its `advice` says why, as far as the storage tells.
        """
        raise NotImplementedError

    def is_there(self) -> bool:
        """Whether files can be read and written."""
        try:
            self.look()
        except StorageAwayError:
            return False
        return True

    def is_full(self) -> bool:
        """Whether files will soon find no room, or do not already."""
        return False

    def sign_upload(
        self, name: str, *, size: int, content_type: str, seconds: int
    ) -> SignedUpload | None:
        """An address of the storage's own; None where the service has to take the file itself."""
        return None

    def _size_or_error(self, name: str) -> int | Exception:
        try:
            return int(self.size(name))
        except (InvalidPathError, AudioNotFoundError) as error:
            return error


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


def blocks(content: Any) -> Iterable[bytes]:
    """A file's content in pieces."""
    content.seek(0)
    yield from content.chunks()
