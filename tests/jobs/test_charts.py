"""Bars of charts: as long as their values are large."""

from __future__ import annotations

from jobs.charts import columns, level, rows, stacks


def test_columns_stand_side_by_side_on_the_ground() -> None:
    bars = columns([("a", 5.0), ("b", 10.0), ("c", 0.0)])
    assert [(bar.x, bar.y, bar.width, bar.height) for bar in bars] == [
        ("0.00", "80.00", "192.00", "80.00"),
        ("240.00", "0.00", "192.00", "160.00"),
        ("480.00", "160.00", "192.00", "0.00"),
    ]
    assert [(bar.label, bar.value) for bar in bars] == [("a", 5.0), ("b", 10.0), ("c", 0.0)]


def test_the_parts_of_a_bar_stand_upon_each_other() -> None:
    bars = stacks([("a", [("good", 3), ("bad", 1)]), ("b", [("good", 0), ("bad", 2)])])
    assert [(bar.label, bar.kind, bar.x, bar.y, bar.height) for bar in bars] == [
        ("a", "good", "0.00", "40.00", "120.00"),
        ("a", "bad", "0.00", "0.00", "40.00"),
        ("b", "good", "360.00", "160.00", "0.00"),
        ("b", "bad", "360.00", "80.00", "80.00"),
    ]


def test_a_picture_may_be_higher_than_its_bars() -> None:
    assert [bar.y for bar in columns([("a", 1.0), ("b", 2.0)], most=4)] == ["120.00", "80.00"]
    assert (level(4, most=4), level(1, most=4), level(1, most=0)) == ("0.00", "120.00", "160.00")


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
