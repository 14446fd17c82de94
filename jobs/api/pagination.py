"""Cursor pages, newest first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.fields import IntegerField
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request


class NewestFirst(CursorPagination):
    """Pages of the user index. Job ids sort by time, so they are the position."""

    position: Callable[[str], object] = UUID
    ordering = "-job_id"
    page_size = 20
    page_size_query_param = "limit"
    max_page_size = 100

    def get_page_size(self, request: Request) -> int:
        """Raises ValidationError for a `limit` that is none."""
        limit = IntegerField(min_value=1, max_value=self.max_page_size)
        try:
            return int(limit.run_validation(request.query_params.get("limit", self.page_size)))
        except ValidationError as error:
            raise ValidationError({"limit": error.detail}) from None

    def decode_cursor(self, request: Request) -> Any:
        try:
            cursor = super().decode_cursor(request)
            if cursor is not None and cursor.position is not None:
                type(self).position(str(cursor.position))
        except (NotFound, ValueError):
            raise ValidationError({"cursor": "Not a cursor of this list."}) from None
        return cursor


class NewestRowsFirst(NewestFirst):
    """Pages of rows whose own ids sort by time."""

    ordering = "-id"


class NewestRevisionsFirst(NewestFirst):
    """Pages of a job's revisions, by their numbers."""

    position = int
    ordering = "-number"


class CachedFirstPage:
    """The first rows of a list, in the little of a queryset's manner that a paginator uses."""

    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows

    def order_by(self, *ordering: str) -> CachedFirstPage:
        """The rows lie in the one order there is."""
        return self

    def __getitem__(self, wanted: slice) -> list[Any]:
        return self._rows[wanted]
