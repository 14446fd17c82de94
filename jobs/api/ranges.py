"""A part of a file, as RFC 9110 has it asked for and answered."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from django.core.files import File

PIECE: Final = 1 << 16
_RANGE: Final = re.compile(r"\s*bytes\s*=\s*(\d{0,18})-(\d{0,18})\s*", re.ASCII | re.IGNORECASE)
# Not those for requests: who listens over a slow line would hold one of them.
_THREADS: Final = ThreadPoolExecutor(4, thread_name_prefix="audio")


class UnsatisfiableError(Exception):
    """The part lies beyond the file's end."""


def asked_range(header: str, size: int) -> range | None:
    """The bytes that a Range header asks for of a file; None: the whole file.

    That is also the answer to several ranges at once, and to what is not understood.

    Raises:
        UnsatisfiableError: there is no such part.
    """
    match = _RANGE.fullmatch(header)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        asked = range(max(0, size - int(last)), size)
    elif last and int(last) < int(first):
        return None
    else:
        asked = range(int(first), min(int(last) + 1, size) if last else size)
    if not asked:
        raise UnsatisfiableError
    return asked


def is_the_same(if_range: str, *, etag: str, modified: str) -> bool:
    """Whether what a caller has a part of is the file as it is now."""
    return not if_range or if_range in {etag, modified}


class Pieces:
    """A part of an open file for a server that asks when it can send more.

    Neither the file's content nor a thread is held while the other side reads.
    """

    def __init__(self, file: File[bytes], part: range) -> None:
        file.seek(part.start)
        self._file, self._left = file, len(part)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        while self._left:
            size = min(PIECE, self._left)
            piece: bytes = await loop.run_in_executor(_THREADS, self._file.read, size)
            if not piece:
                raise OSError("the file has become shorter")
            self._left -= len(piece)
            yield piece

    def close(self) -> None:
        """Once a thread has the time: the disk may hang, and the event loop may not."""
        _THREADS.submit(self._file.close)
