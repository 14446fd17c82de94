"""The breaker: it opens after failures in a row, lets one probe through, and closes again."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.breaker import FAILURES_TO_OPEN, Breaker, BreakerState, Health, LocalStore

WINDOW = 30.0
PROBE_LIMIT = 150.0


class ClockedStore(LocalStore):
    """A store whose clock the test turns."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def read(self, name: str) -> tuple[BreakerState, float]:
        return super().read(name)[0], self.now


@pytest.fixture
def store() -> ClockedStore:
    return ClockedStore()


@pytest.fixture
def breaker(store: ClockedStore) -> Breaker:
    return Breaker("openai", store, window=WINDOW, probe_limit=PROBE_LIMIT)


def test_it_says_when_an_engine_is_given_up_and_when_it_is_back(
    breaker: Breaker, store: ClockedStore, caplog: pytest.LogCaptureFixture
) -> None:
    fail(breaker, FAILURES_TO_OPEN)
    store.now += WINDOW + 1
    with caplog.at_level("INFO"), breaker.admit() as call:
        call.succeeded()
    assert [record.getMessage() for record in caplog.records] == [
        "Engine openai: down, it is left alone for 30 s",
        "Engine openai: one call tries whether it is back",
        "Engine openai: it is back",
    ]


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        with breaker.admit() as call:
            assert call.admitted
            call.failed()


def test_it_opens_after_failures_in_a_row_and_says_how_long_to_wait(
    breaker: Breaker, store: ClockedStore
) -> None:
    fail(breaker, FAILURES_TO_OPEN - 1)
    assert breaker.health() == Health.CLOSED
    fail(breaker)
    assert breaker.health() == Health.OPEN
    assert not breaker.would_admit()
    assert breaker.admit().wait_seconds == WINDOW
    store.now += 10
    assert breaker.admit().wait_seconds == WINDOW - 10


def test_a_success_in_between_begins_the_count_anew(breaker: Breaker) -> None:
    for _ in range(3):
        fail(breaker, FAILURES_TO_OPEN - 1)
        with breaker.admit() as call:
            call.succeeded()
    assert breaker.health() == Health.CLOSED


def test_what_is_neither_success_nor_failure_counts_as_neither(breaker: Breaker) -> None:
    fail(breaker, FAILURES_TO_OPEN - 1)
    with breaker.admit():
        pass
    assert breaker.health() == Health.CLOSED
    fail(breaker)
    assert breaker.health() == Health.OPEN


def test_one_probe_is_let_through_and_its_success_closes(
    breaker: Breaker, store: ClockedStore
) -> None:
    fail(breaker, FAILURES_TO_OPEN)
    store.now += WINDOW
    assert breaker.would_admit()
    with breaker.admit() as probe:
        assert probe.probe
        assert breaker.health() == Health.PROBING
        others = [breaker.admit() for _ in range(10)]
        assert [other.wait_seconds for other in others] == [WINDOW] * 10
        probe.succeeded()
    assert breaker.health() == Health.CLOSED
    assert breaker.admit().admitted


def test_a_probe_that_fails_opens_for_another_window(breaker: Breaker, store: ClockedStore) -> None:
    fail(breaker, FAILURES_TO_OPEN)
    for _ in range(5):
        store.now += WINDOW
        with breaker.admit() as probe:
            store.now += 7
            probe.failed()
            assert probe.failed_as_probe
        assert breaker.health() == Health.OPEN
        assert breaker.admit().wait_seconds == WINDOW


def test_an_abandoned_probe_leaves_its_place_to_the_next(
    breaker: Breaker, store: ClockedStore
) -> None:
    fail(breaker, FAILURES_TO_OPEN)
    store.now += WINDOW
    with breaker.admit() as first:
        assert first.probe
    with breaker.admit() as second:
        assert second.probe
        assert second.probe != first.probe


def test_a_probe_that_died_is_replaced_after_its_limit(
    breaker: Breaker, store: ClockedStore
) -> None:
    fail(breaker, FAILURES_TO_OPEN)
    store.now += WINDOW
    dead = breaker.admit()
    store.now += PROBE_LIMIT - 1
    assert not breaker.admit().admitted
    store.now += 1
    with breaker.admit() as successor:
        assert successor.probe
        dead.succeeded()  # it was only slow: its word counts no more
        assert breaker.health() == Health.PROBING
        successor.succeeded()
    assert breaker.health() == Health.CLOSED


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_calls_from_before_it_opened_change_nothing(
    breaker: Breaker, store: ClockedStore, outcome: str
) -> None:
    late = [breaker.admit() for _ in range(FAILURES_TO_OPEN)]
    fail(breaker, FAILURES_TO_OPEN)
    store.now += 10
    for call in late:
        getattr(call, outcome)()
    assert breaker.admit().wait_seconds == WINDOW - 10


def test_engines_do_not_share_a_breaker(store: ClockedStore) -> None:
    one, other = (Breaker(n, store, window=WINDOW, probe_limit=PROBE_LIMIT) for n in ("a", "b"))
    fail(one, FAILURES_TO_OPEN)
    assert (one.health(), other.health()) == (Health.OPEN, Health.CLOSED)


def test_of_many_threads_one_probes() -> None:
    store = ClockedStore()
    breaker = Breaker("openai", store, window=WINDOW, probe_limit=PROBE_LIMIT)
    fail(breaker, FAILURES_TO_OPEN)
    store.now += WINDOW
    barrier = threading.Barrier(50)
    calls: list[Any] = []

    def ask() -> None:
        barrier.wait(10)
        calls.append(breaker.admit())

    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [bool(call.probe) for call in calls].count(True) == 1
    assert sum(call.admitted for call in calls) == 1


@given(
    st.lists(st.tuples(st.floats(0, 20), st.sampled_from(["failed", "abandoned"])), max_size=200)
)
def test_a_dead_engine_is_called_at_most_once_a_window(steps: list[tuple[float, str]]) -> None:
    store = ClockedStore()
    breaker = Breaker("openai", store, window=WINDOW, probe_limit=PROBE_LIMIT)
    fail(breaker, FAILURES_TO_OPEN)
    called = [store.now]
    for seconds, outcome in steps:
        store.now += seconds
        with breaker.admit() as call:
            if call.admitted and outcome == "failed":
                called.append(store.now)
                call.failed()
    gaps = [later - earlier for earlier, later in itertools.pairwise(called)]
    assert all(gap >= WINDOW - 1e-6 for gap in gaps)
