"""Group commit: what comes while somebody writes is written together, and nobody waits for ever."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError
from dramatiq.middleware.threading import raise_thread_exception

from jobs.group_commit import MOST, GroupCommit
from tests.helpers import together, wait_until


class Struck(BaseException):
    """What a time limit raises in a thread."""


class Writer:
    """Writes numbers down; a gate holds it up, and numbers may have something wrong with them."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.wrong: dict[int, BaseException] = {}
        self.commit: GroupCommit[int, str] = GroupCommit(self.write)

    def write(self, wishes: Sequence[int]) -> list[str]:
        self.groups.append(list(wishes))
        self.entered.release()
        assert self.gate.wait(30)
        for wish in wishes:
            if wish in self.wrong:
                raise self.wrong[wish]
        return [f"answer to {wish}" for wish in wishes]


class Caller(threading.Thread):
    """One thread with one wish."""

    def __init__(self, commit: Callable[[int], str], wish: int) -> None:
        super().__init__(daemon=True)
        self._commit, self._wish = commit, wish
        self.answer: object = "none yet"
        self.start()

    def run(self) -> None:
        try:
            self.answer = self._commit(self._wish)
        except BaseException as error:
            self.answer = error


@pytest.fixture
def writer() -> Writer:
    return Writer()


def crowd(writer: Writer, wishes: Sequence[int]) -> list[Caller]:
    """The first of them writes and is held up; the others wait behind it, in this order."""
    writer.gate.clear()
    callers = [Caller(writer.commit, wishes[0])]
    assert writer.entered.acquire(timeout=30)
    for count, wish in enumerate(wishes[1:], start=1):
        callers.append(Caller(writer.commit, wish))
        wait_until(partial(waiting_are, writer, count))
    return callers


def waiting_are(writer: Writer, count: int) -> bool:
    return len(writer.commit._waiting) == count


def answers(callers: Sequence[Caller]) -> list[object]:
    for caller in callers:
        caller.join(30)
        assert not caller.is_alive(), "it waits for ever"
    return [caller.answer for caller in callers]


def is_idle(writer: Writer) -> bool:
    """Whether the next caller is served, at once and alone."""
    before = len(writer.groups)
    caller = Caller(writer.commit, -1)
    return answers([caller]) == ["answer to -1"] and writer.groups[before:] == [[-1]]


# --- who writes ---


def test_a_lone_caller_writes_at_once_in_its_own_thread() -> None:
    threads: list[threading.Thread] = []

    def write(wishes: Sequence[int]) -> list[int]:
        threads.append(threading.current_thread())
        return [wish + 1 for wish in wishes]

    commit = GroupCommit(write)
    assert [commit(1), commit(5)] == [2, 6]
    assert threads == [threading.current_thread()] * 2


def test_who_comes_while_somebody_writes_is_written_together_with_the_others(
    writer: Writer,
) -> None:
    callers = crowd(writer, [7, 3, 9, 1])
    assert writer.groups == [[7]]
    writer.gate.set()
    assert answers(callers) == [f"answer to {wish}" for wish in (7, 3, 9, 1)]
    assert writer.groups == [[7], [3, 9, 1]]
    assert is_idle(writer)


def test_a_large_crowd_is_written_in_parts_in_the_order_of_arrival(writer: Writer) -> None:
    wishes = list(range(2 * MOST + 4))
    callers = crowd(writer, wishes)
    writer.gate.set()
    assert answers(callers) == [f"answer to {wish}" for wish in wishes]
    assert [len(group) for group in writer.groups] == [1, MOST, MOST, 3]
    assert [wish for group in writer.groups for wish in group] == wishes
    assert is_idle(writer)


def test_64_threads_with_many_wishes_are_all_answered_and_no_two_write_at_once() -> None:
    writing = threading.Lock()
    groups: list[int] = []

    def write(wishes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        assert writing.acquire(blocking=False), "two write at once"
        groups.append(len(wishes))
        writing.release()
        return list(wishes)

    commit = GroupCommit(write)

    def call(thread: int) -> bool:
        return all(commit((thread, n)) == (thread, n) for n in range(200))

    assert together(*[lambda n=n: call(n) for n in range(64)]) == [True] * 64
    assert sum(groups) == 64 * 200
    assert max(groups) <= MOST


# --- what goes wrong ---


@pytest.mark.parametrize("wrong", [0, 1, 2, 3])
def test_a_wish_that_cannot_be_written_spoils_no_other(writer: Writer, wrong: int) -> None:
    writer.wrong[wrong] = error = ValueError("no such letter")
    callers = crowd(writer, [0, 1, 2, 3])
    writer.gate.set()
    found = answers(callers)
    assert found.pop(wrong) is error
    assert found == [f"answer to {wish}" for wish in range(4) if wish != wrong]
    by_itself = [] if wrong == 0 else [[1], [2], [3]]
    assert writer.groups[:2] == [[0], [1, 2, 3]]
    assert sorted(writer.groups[2:]) == by_itself
    assert is_idle(writer)


@pytest.mark.parametrize("kind", [OperationalError, InterfaceError])
def test_that_the_database_is_away_is_told_to_all_without_asking_it_for_each(
    writer: Writer, kind: type[Exception]
) -> None:
    writer.wrong[2] = error = kind("it is away")
    callers = crowd(writer, [0, 1, 2, 3])
    writer.gate.set()
    assert answers(callers) == ["answer to 0", error, error, error]
    assert writer.groups == [[0], [1, 2, 3]]
    assert is_idle(writer)


class HeldUp(Exception):
    """As psycopg tells that a row's lock was waited for in vain."""

    sqlstate = "55P03"


def test_a_row_that_somebody_holds_holds_up_only_who_wants_it(writer: Writer) -> None:
    error = OperationalError("canceling statement due to lock timeout")
    error.__cause__ = HeldUp()
    writer.wrong[2] = error
    callers = crowd(writer, [0, 1, 2, 3])
    writer.gate.set()
    assert answers(callers) == ["answer to 0", "answer to 1", error, "answer to 3"]
    assert is_idle(writer)


def test_who_writes_by_itself_holds_up_nobody(writer: Writer) -> None:
    """A wish that waits for a row must not stand in front of the others."""
    writer.wrong[1] = ValueError("no")
    callers = crowd(writer, [0, 1, 2])
    slow, write = threading.Event(), writer.commit._write

    def held(wishes: Sequence[int]) -> Sequence[str]:
        if list(wishes) == [2]:
            assert slow.wait(30)
        return write(wishes)

    writer.commit._write = held
    writer.gate.set()
    wait_until(lambda: callers[1].answer is writer.wrong[1])
    assert writer.commit(7) == "answer to 7"
    slow.set()
    assert answers(callers)[2] == "answer to 2"


def test_when_the_database_goes_away_between_the_single_ones_the_rest_is_still_tried(
    writer: Writer,
) -> None:
    writer.wrong |= {1: ValueError("no"), 2: OperationalError("it is away")}
    callers = crowd(writer, [0, 1, 2, 3])
    writer.gate.set()
    assert answers(callers) == ["answer to 0", writer.wrong[1], writer.wrong[2], "answer to 3"]


def test_as_many_answers_as_wishes_are_asked_for() -> None:
    commit: GroupCommit[int, int] = GroupCommit(lambda wishes: [])
    with pytest.raises(ValueError, match="zip"):
        commit(1)


# --- a thread that is struck ---


def test_who_writes_and_is_struck_is_an_outage_to_the_others(writer: Writer) -> None:
    writer.wrong[2] = struck = Struck()
    callers = crowd(writer, [0, 1, 2, 3])
    writer.gate.set()
    first, leader, *others = answers(callers)
    assert (first, leader) == ("answer to 0", struck)
    assert [type(error) for error in others] == [OperationalError] * 2
    assert is_idle(writer)


def test_who_is_struck_while_each_writes_by_itself_keeps_none_of_them_waiting(
    writer: Writer,
) -> None:
    writer.wrong |= {1: ValueError("no"), 3: Struck()}
    callers = crowd(writer, [0, 1, 2, 3, 4])
    writer.gate.set()
    answered = [f"answer to {wish}" for wish in (0, 2, 4)]
    assert answers(callers)[::2] == answered
    assert [answers(callers)[wish] for wish in (1, 3)] == [writer.wrong[1], writer.wrong[3]]
    assert is_idle(writer)


def test_those_behind_a_group_whose_writer_was_struck_are_written(writer: Writer) -> None:
    writer.wrong[0] = struck = Struck()
    callers = crowd(writer, [0, 1, 2])
    writer.gate.set()
    assert answers(callers) == [struck, "answer to 1", "answer to 2"]
    assert writer.groups == [[0], [1, 2]]
    assert is_idle(writer)


@pytest.mark.parametrize("position", [1, 2, 3])
def test_who_is_struck_while_it_waits_is_left_out_or_passes_the_lead_on(
    writer: Writer, position: int
) -> None:
    """The exception lands when the wait is over: the first of those that wait is to lead then."""
    callers = crowd(writer, [0, 1, 2, 3])
    assert callers[position].ident is not None
    raise_thread_exception(callers[position].ident, Struck)
    writer.gate.set()
    found = answers(callers)
    assert isinstance(found.pop(position), Struck)
    assert found == [f"answer to {wish}" for wish in range(4) if wish != position]
    assert is_idle(writer)


class _StruckWhileTheyWait(deque[Any]):
    """All others leave the line the moment that a leader takes the first out of it."""

    def popleft(self) -> Any:
        first = super().popleft()
        self.clear()
        return first


def test_who_leaves_the_line_while_a_group_is_made_up_spoils_nobody_elses_wish(
    writer: Writer,
) -> None:
    writer.commit._waiting = _StruckWhileTheyWait()
    callers = crowd(writer, [7, 3, 9])
    writer.gate.set()
    first, second, third = answers(callers)
    assert (first, second) == ("answer to 7", "answer to 3")
    assert isinstance(third, OperationalError)
