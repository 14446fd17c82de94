"""What can be wrong with a file, and with the place where files lie."""

from __future__ import annotations

import errno
from typing import Final

from asr.errors import AsrError

AWAY_SECONDS: Final = 10.0  # until a chunk looks again for a storage that is away
FULL_SECONDS: Final = 30.0  # until it is tried again to store where no room was
FULL_MOST_SECONDS: Final = 600.0  # to that the wait may grow: each attempt does all the work anew
# The disk, the user's quota, or the largest file that the process may write.
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class InvalidPathError(Exception):
    """The path is malformed, leads out of the audio root or names no regular file."""


class AudioNotFoundError(Exception):
    """There is no such file in the storage."""


class StorageAwayError(OSError):
    """The storage itself is not there: no disk is mounted, or its server does not answer.

    `reason` is one word for programs; `look_at` says which variables a person may look at.
    """

    def __init__(
        self,
        detail: str = "the audio root is not there",
        *,
        reason: str = "storage_unavailable",
        look_at: str = "",
    ) -> None:
        super().__init__(errno.ENOENT, detail)
        self.reason = reason
        self.look_at = look_at

    @property
    def advice(self) -> str:
        """What is wrong and where to look, in one line that holds no secret and no path."""
        return f"{self.strerror}: see {self.look_at}" if self.look_at else str(self.strerror)


class AudioUnavailable(AsrError):
    """A file that was there cannot be read, or one that is made of it cannot be kept:
    `audio_not_found`, `storage_unavailable`.

    `retry_after` is set where nothing can be read, or kept: then a wait of that many seconds costs
    nothing. It may grow to `retry_most`, where much is done before it is seen that it is too soon.
    """

    recoverable = True

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        retry_after: float | None = None,
        retry_most: float | None = None,
    ) -> None:
        super().__init__(code, detail)
        self.retry_after = retry_after
        self.retry_most = retry_most


def is_out_of_room(error: OSError) -> bool:
    """Whether something could not be written for want of room."""
    return error.errno in _NO_ROOM
