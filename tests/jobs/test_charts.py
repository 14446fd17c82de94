"""Bars of charts: as long as their values are large."""

from __future__ import annotations

from jobs.charts import columns, rows


def test_columns_stand_side_by_side_on_the_ground() -> None:
    bars = columns([("a", 5.0), ("b", 10.0), ("c", 0.0)])
    assert [(bar.x, bar.y, bar.width, bar.height) for bar in bars] == [
        ("0.00", "80.00", "192.00", "80.00"),
        ("240.00", "0.00", "192.00", "160.00"),
        ("480.00", "160.00", "192.00", "0.00"),
    ]
    assert [(bar.label, bar.value) for bar in bars] == [("a", 5.0), ("b", 10.0), ("c", 0.0)]


def test_rows_lie_one_below_the_other() -> None:
    bars = rows([("a", 1.0), ("b", 4.0)])
    assert [(bar.x, bar.y, bar.width, bar.height) for bar in bars] == [
        ("0.00", "0.00", "180.00", "22.40"),
        ("0.00", "28.00", "720.00", "22.40"),
    ]


def test_nothing_is_drawn_of_nothing() -> None:
    assert columns([]) == rows([]) == []
    assert [bar.height for bar in columns([("a", 0.0)])] == ["0.00"]
    assert [bar.width for bar in rows([("a", 0.0)])] == ["0.00"]
