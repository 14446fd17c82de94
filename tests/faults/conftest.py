"""Rows, repeated as often as REPEAT says, and the table at the end."""

from __future__ import annotations

import os
import random
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests.faults.history import History
from tests.faults.row import Row, Worlds
from tests.faults.table import Outcome, table
from transcription_site.env import BASE_DIR

REPEAT = int(os.environ.get("REPEAT") or 1)
SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(2**32))
PASSED = pytest.StashKey[bool]()
KEPT = BASE_DIR / "var" / "faults"  # the histories of rows that failed
OUTCOMES: list[Outcome] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each row REPEAT times."""
    if REPEAT > 1 and "row" in metafunc.fixturenames:
        metafunc.parametrize("repetition", range(REPEAT))


@pytest.fixture
def repetition() -> int:
    return 0


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds]:
    made = Worlds(lambda: tmp_path_factory.mktemp("world"))
    yield made
    made.end()


@pytest.fixture
def row(
    request: pytest.FixtureRequest, worlds: Worlds, repetition: int, tmp_path_factory: Any
) -> Iterator[Row]:
    """What a row works with; at the end its line of the table."""
    history = History(tmp_path_factory.mktemp("history") / f"{request.node.name}.jsonl")
    # Of the row's name as well, so that a row alone meets the moments that it met among others.
    made = Row(worlds, history, f"{SEED} {request.node.name}")
    history.record("seed", seed=SEED)
    try:
        yield made
    finally:
        passed = request.node.stash.get(PASSED, False) and made.verified
        if not passed:
            made.keep(KEPT / request.node.name)
        OUTCOMES.append(made.outcome(request.node.name, passed=passed))
        made.close(passed=passed)
    assert passed or not request.node.stash.get(PASSED, False), "the row does not verify"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """A row that fails shows its history."""
    report = yield
    if report.when == "call":
        item.stash[PASSED] = report.passed
        made = getattr(item, "funcargs", {}).get("row")
        if report.failed and made is not None:
            report.sections.append((f"history, seed {SEED}", made.history_text()))
    return report


def pytest_report_header() -> str:
    return f"faults: seed {SEED}, {REPEAT} run(s) of each row"


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if OUTCOMES:
        terminalreporter.section(f"faults on {config.getoption('database')}, seed {SEED}")
        for line in table(OUTCOMES, config.getoption("database")):
            terminalreporter.write_line(line)
