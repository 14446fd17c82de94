"""JSON, forms and single files in."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any

from rest_framework import parsers
from rest_framework.exceptions import ParseError


class JSONParser(parsers.JSONParser):
    """DRF's, but nesting too deep for Python's parser is the caller's error and not ours."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        try:
            return super().parse(stream, media_type, parser_context)
        except RecursionError:
            raise ParseError("JSON parse error - nested too deeply") from None


class _LeavesNoPart(parsers.BaseParser):
    """A file that finds no room leaves no part of itself to fill the disk."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        try:
            return super().parse(stream, media_type, parser_context)
        except OSError:
            for handler in (parser_context or {})["request"].upload_handlers:
                with suppress(OSError):  # it tries to write the rest, then removes the file
                    handler.upload_interrupted()
            raise


class MultiPartParser(_LeavesNoPart, parsers.MultiPartParser):
    """DRF's, and clean."""


class FileParser(_LeavesNoPart, parsers.FileUploadParser):
    """The body as one file, whatever type it says to be of."""

    def get_filename(self, stream: Any, media_type: Any, parser_context: Any) -> str:
        """The address names the file."""
        return "body"
