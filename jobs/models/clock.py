"""Time by the database's clock, the one clock that all processes share; and how it is written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import DateTimeField, ExpressionWrapper
from django.db.models.functions import Now


def from_now(delta: timedelta) -> ExpressionWrapper[Any]:
    """The database's time now plus `delta`, for use in queries and updates."""
    return ExpressionWrapper(Now() + delta, output_field=DateTimeField())


def database_time() -> datetime:
    """The database's time now, in UTC, for what is not decided within a statement."""
    own = "statement_timestamp()" if connection.vendor == "postgresql" else "CURRENT_TIMESTAMP"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {own}")
        moment: datetime | str = cursor.fetchone()[0]
    if isinstance(moment, str):  # SQLite's, of whole seconds
        return datetime.fromisoformat(moment).replace(tzinfo=UTC)
    return moment.astimezone(UTC)


def iso_time(moment: datetime) -> str:
    """ISO 8601 in UTC with `Z`."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
