"""Bodies that come packed by `Content-Encoding`. Knows neither Django's models nor a request."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from django.core.exceptions import SuspiciousOperation

PIECE: Final = 1 << 18  # bytes that are held unpacked at a time
_GZIP: Final = 31  # for zlib: a header and a checksum of gzip's
_MEMBERS: Final = 10_000  # each costs time even if it is empty; packers write one for 64 kB or more


class BrokenEncodingError(SuspiciousOperation):
    """The body is not what its Content-Encoding says."""


class UnknownEncodingError(SuspiciousOperation):
    """The body has a Content-Encoding that is not taken."""


class Gunzip:
    """One gzip stream of any number of members, unpacked as it comes."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP)
        self._members = 1
        self._begun = False

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What the next bytes hold, in pieces of PIECE bytes at most.

        Raises:
            BrokenEncodingError: they are no gzip, or of absurdly many members.
        """
        self._begun |= bool(data)
        while data:  # what may wait in the stream comes with the next: a checksum ends each member
            if self._stream.eof:
                self._stream = zlib.decompressobj(_GZIP)
                self._members += 1
            try:
                piece = self._stream.decompress(data, PIECE)
            except zlib.error:
                raise BrokenEncodingError("the body is no gzip") from None
            if self._members > _MEMBERS:
                raise BrokenEncodingError("the body is of too many parts")
            data = self._stream.unused_data or self._stream.unconsumed_tail
            yield piece

    @property
    def is_whole(self) -> bool:
        """Whether it may end here; a request without a body may say of it what it likes."""
        return self._stream.eof or not self._begun


class NotUnpacked:
    """A stream of an encoding that is not known: it may only be empty."""

    is_whole = True

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Nothing.

        Raises:
            UnknownEncodingError: there is something.
        """
        if data:
            raise UnknownEncodingError("the body's Content-Encoding is not known")
        return iter(())


def unpacking(encoding: str) -> Gunzip | NotUnpacked:
    """What unpacks a body of that Content-Encoding, in lower case."""
    return Gunzip() if encoding in {"gzip", "x-gzip"} else NotUnpacked()
