"""The table that the suite prints: what every row found, and the worst recovery of all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from tests.faults.checker import Verdict


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run of one row found."""

    test: str
    passed: bool
    verdict: Verdict
    recovery_seconds: float | None
    notes: tuple[str, ...] = ()

    @property
    def row(self) -> tuple[str, str]:
        """The row's number and what it is about, from the test's name without its parameters."""
        found = re.match(r"test_row_(\d+)_(\w+)", self.test)
        if found is None:
            return "-", self.test.removeprefix("test_").replace("_", " ")
        return str(int(found[1])), found[2].replace("_", " ")


def table(outcomes: Iterable[Outcome], database: str) -> Iterator[str]:
    """Its lines: one for each row, one for all."""
    ordered = sorted(outcomes, key=lambda outcome: (outcome.row[0].zfill(3), outcome.row[1]))
    yield _line("row", "what", "database", "runs", "lost / dup. / stuck", "recovery s")
    for (number, what), group in groupby(ordered, key=lambda outcome: outcome.row):
        runs = list(group)
        yield _line(number, what, database, str(len(runs)), _counts(runs), _worst(runs))
        for run in runs:
            yield from (f"       {note}" for note in run.notes)
            if not run.passed:
                yield f"       FAILED: its history is in var/faults/{run.test}"
    yield _line("", "all rows", database, str(len(ordered)), _counts(ordered), _worst(ordered))
    failed = sum(not outcome.passed for outcome in ordered)
    lost, duplicated, stuck = _numbers(ordered)
    yield (
        f"{len(ordered)} runs, {failed} failed: {lost} lost, {duplicated} duplicated, "
        f"{stuck} stuck; worst recovery {_worst(ordered)} s"
    )


def _numbers(runs: list[Outcome]) -> tuple[int, int, int]:
    verdicts = [run.verdict for run in runs]
    return (
        sum(len(verdict.lost) for verdict in verdicts),
        sum(len(verdict.duplicated) for verdict in verdicts),
        sum(len(verdict.stuck) for verdict in verdicts),
    )


def _counts(runs: list[Outcome]) -> str:
    return " / ".join(map(str, _numbers(runs)))


def _worst(runs: list[Outcome]) -> str:
    measured = [run.recovery_seconds for run in runs if run.recovery_seconds is not None]
    return f"{max(measured):.1f}" if measured else "-"


def _line(number: str, what: str, database: str, runs: str, counts: str, recovery: str) -> str:
    return f"{number:>3}  {what[:72]:72}  {database:8}  {runs:>4}  {counts:>19}  {recovery:>10}"
