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
    """The database's time now, as a value."""
    now: Any = Now()
    sql, parameters = getattr(now, f"as_{connection.vendor}", now.as_sql)(None, connection)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {sql}", parameters)
        moment: datetime = cursor.fetchone()[0]
    for convert in connection.ops.get_db_converters(now):
        moment = convert(moment, now, connection)
    return moment


def iso_time(moment: datetime) -> str:
    """ISO 8601 in UTC with `Z`."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
