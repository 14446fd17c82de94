"""Many rows at once, where Django would compile each value of each row anew.

A submission of 24 chunks spent 11 of its 28 ms in `bulk_create` (35 columns each, most of them
alike). The SQL here is what PostgreSQL and SQLite have in common, but for how rows are handed over:
PostgreSQL takes an array for each column, so that the statement is the same for any number of rows
and its driver has not to take it apart anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import connection, models


def insert_alike(
    model: type[models.Model],
    alike: Mapping[str, Any],
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
) -> None:
    """Insert rows that differ in a few columns only.

    Args:
        alike: values or expressions that all rows share, by attribute (`job_id`); any other column
            gets its field's default.
        columns: the attributes that differ, in the order of the values in `rows`.
    """
    fields = {
        field.attname: field
        for field in model._meta.concrete_fields
        if not (field.primary_key and field.has_default() is False)
    }
    shared = {name: alike.get(name, fields[name].get_default()) for name in fields}
    for name in columns:
        del shared[name]
    selected, parameters = [], []
    for name, value in shared.items():
        sql, values = _compiled(model, fields[name], value)
        selected.append(sql)
        parameters += values
    names = ", ".join(_quoted(fields[name].column) for name in (*columns, *shared))
    differing = ", ".join(f"given.column{n}" for n in range(1, len(columns) + 1))
    given, values = _given([fields[name] for name in columns], rows)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {_quoted(model._meta.db_table)} ({names}) SELECT {differing}, "  # noqa: S608
            f"{', '.join(selected)} FROM {given}",
            [*parameters, *values],
        )


def update_each(
    rows: models.QuerySet[Any],
    alike: Mapping[str, Any],
    columns: Sequence[str],
    values: Mapping[int, Sequence[Any]],
) -> int:
    """Give each row values of its own, by its primary key; how many rows there were to change.

    Args:
        rows: which rows may be changed at all: a queryset with simple conditions.
        alike: values or expressions that all rows share, by attribute.
        columns: the attributes that differ, in the order of the values.
    """
    if not values:
        return 0
    model = rows.model
    fields = {field.attname: field for field in model._meta.concrete_fields}
    compiler = rows.query.get_compiler(connection=connection)
    assigned, parameters = [], []
    for name, value in alike.items():
        sql, shared = _compiled(model, fields[name], value)
        assigned.append(f"{_quoted(fields[name].column)} = {sql}")
        parameters += shared
    assigned += [
        f"{_quoted(fields[name].column)} = given.column{number}"
        for number, name in enumerate(columns, start=2)
    ]
    given, listed = _given(
        [model._meta.pk, *(fields[name] for name in columns)],
        [(pk, *own) for pk, own in values.items()],
    )
    where, conditions = compiler.compile(rows.query.where)
    table, key = _quoted(model._meta.db_table), _quoted(model._meta.pk.column)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {table} SET {', '.join(assigned)} FROM {given}"  # noqa: S608
            f" WHERE {where} AND {table}.{key} = given.column1",
            [*parameters, *listed, *conditions],
        )
        return int(cursor.rowcount)


def _given(
    fields: Sequence[models.Field[Any, Any]], rows: Sequence[Sequence[Any]]
) -> tuple[str, list[Any]]:
    """A table `given` of these rows, its columns named `column1` and so on; its parameters."""
    prepared = [
        [field.get_db_prep_save(value, connection) for value in column]
        for field, column in zip(fields, zip(*rows, strict=True), strict=True)
    ]
    if connection.vendor == "postgresql":
        arrays = ", ".join(f"%s::{_array_of(field)}" for field in fields)
        names = ", ".join(f"column{number}" for number in range(1, len(fields) + 1))
        return f"unnest({arrays}) AS given({names})", prepared
    row = f"({', '.join(['%s'] * len(fields))})"
    listed = f"(SELECT * FROM (VALUES {', '.join([row] * len(rows))})) AS given"  # noqa: S608
    return listed, [value for values in zip(*prepared, strict=True) for value in values]


def _array_of(field: models.Field[Any, Any]) -> str:
    """Without a length: a cast would cut off what is longer, where it is to be refused."""
    kind, _, _ = str(field.db_type(connection)).partition("(")
    return f"{kind}[]"


def _compiled(
    model: type[models.Model], field: models.Field[Any, Any], value: Any
) -> tuple[str, list[Any]]:
    if not hasattr(value, "resolve_expression"):
        return "%s", [field.get_db_prep_save(value, connection)]
    query = model._default_manager.all().query
    compiler = query.get_compiler(connection=connection)
    sql, values = compiler.compile(
        value.resolve_expression(query, allow_joins=False, for_save=True)
    )
    return sql, list(values)


def _quoted(name: str | None) -> str:
    return connection.ops.quote_name(name or "")
