"""The checker finds ends that were told wrongly, and usage that was summed up wrongly."""

from __future__ import annotations

import pytest

from tests.faults.checker import check
from tests.faults.history import Line
from tests.faults.test_checker import a_history, final


def tells(lines: list[Line], *told: tuple[str, str, str]) -> list[Line]:
    """The receiver is to be told of alice's ends, and was told: type, id, the body's digest."""
    said = [{"kind": "told", "job": "j", "type": t, "id": i, "digest": d} for t, i, d in told]
    return [{"kind": "listens", "user": "alice"}, *lines, *said]


END = ("transcript.completed", "msg_j_8", "body")


@pytest.mark.parametrize("times", [1, 3])
def test_an_end_that_is_told_under_one_id_is_clean_however_often(times: int) -> None:
    assert str(check(tells(a_history(), *[END] * times))) == ""


def test_an_end_that_was_not_told_is_lost() -> None:
    verdict = check(tells(a_history()))

    assert len(verdict.lost) == 1
    assert not verdict.duplicated


def test_an_end_is_told_to_nobody_but_who_listens() -> None:
    lines = a_history()
    final(lines)["user"] = "bob"

    assert str(check(tells(lines))) == ""
    assert len(check(tells(lines, END)).duplicated) == 1


@pytest.mark.parametrize(
    "second",
    [
        ("transcript.completed", "msg_j_9", "body"),
        ("transcript.completed", "msg_j_8", "another body"),
        ("transcript.failed", "msg_j_7", "body"),
    ],
)
def test_an_end_is_duplicated_when_it_was_told_in_another_way_too(
    second: tuple[str, str, str],
) -> None:
    verdict = check(tells(a_history(), END, second))

    assert len(verdict.duplicated) == 1
    assert not verdict.lost


SPENT = {"alice, 2026-01-31, openai": [3.0, 0.0, 4.5, 0.00045]}


def uses(lines: list[Line], **days: list[float]) -> list[Line]:
    """The ledger comes to what is SPENT, and the days to that with these changes."""
    return [*lines, {"kind": "usage", "ledger": SPENT, "days": {**SPENT, **days}}]


def test_a_usage_that_is_what_the_ledger_comes_to_is_clean() -> None:
    rounded = {name: [n + 1e-9 for n in numbers] for name, numbers in SPENT.items()}

    assert str(check(uses(a_history(), **rounded))) == ""
    assert str(check(uses(a_history(), **{"bob, 2026-01-31, openai": [0.0] * 4}))) == ""


def test_usage_that_was_not_summed_up_is_lost() -> None:
    for numbers in ([2.0, 0.0, 4.5, 0.00045], [3.0, 0.0, 4.5, 0.00044]):
        verdict = check(uses(a_history(), **dict.fromkeys(SPENT, numbers)))
        assert len(verdict.lost) == 1
    lines = a_history()
    lines.append({"kind": "usage", "ledger": SPENT, "days": {}})
    assert len(check(lines).lost) == 1


def test_usage_that_nobody_spent_is_duplicated() -> None:
    verdict = check(uses(a_history(), **{"bob, 2026-01-31, openai": [1.0, 1.0, 0.2, 0.0]}))

    assert len(verdict.duplicated) == 1
    assert not verdict.lost
