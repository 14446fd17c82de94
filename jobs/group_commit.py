"""Group commit: what many threads want to write at the same moment goes into one transaction.

With hundreds of threads the transactions are what a chunk costs. Who finds nobody writing writes at
once, for itself alone; those who come meanwhile wait together, and the first of them writes for
all. So an idle system is none the slower, and a busy one makes fewer and larger transactions.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Generic, TypeVar

from django.db import InterfaceError, OperationalError

Wish = TypeVar("Wish")
Answer = TypeVar("Answer")

MOST: Final = 64  # in one transaction: it holds locks for as long as it takes
# PostgreSQL's words for one row that somebody holds: a lock that was waited for too long, a
# deadlock, a statement that took too long. The database is there, and the other rows are free.
_HELD_UP: Final = {"55P03", "40P01", "57014"}


class _Turn(Generic[Wish, Answer]):
    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.answer: list[Answer] = []
        self.error: BaseException | None = None
        self.alone = False  # it is to be written by its own thread, outside of the line

    @property
    def over(self) -> bool:
        return bool(self.answer) or self.error is not None or self.alone


class GroupCommit(Generic[Wish, Answer]):
    """Calls `write` with the wishes of all threads that wait; it answers each, in their order.

    `write` is one transaction. When a group's fails although the database is there, each thread
    writes its own wish by itself: one that cannot be written, or has to wait for a row, spoils and
    holds up no other.
    """

    def __init__(self, write: Callable[[Sequence[Wish]], Sequence[Answer]]) -> None:
        self._write = write
        self._waiting: deque[_Turn[Wish, Answer]] = deque()
        # A lock, and nothing that has to be passed on: a thread may be struck by an exception
        # anywhere (the time limit), and however it ends, another goes on.
        self._writing = threading.Lock()

    def __call__(self, wish: Wish) -> Answer:
        """The answer to one wish; raises what `write` raised."""
        turn: _Turn[Wish, Answer] = _Turn(wish)
        self._waiting.append(turn)
        try:
            while not turn.over:
                with self._writing:
                    if not turn.over:
                        self._lead(turn)
        except BaseException:
            with suppress(ValueError):  # nobody waits for it any more
                self._waiting.remove(turn)
            raise
        if turn.alone:
            return self._write([wish])[0]
        if turn.error is not None:
            raise turn.error
        return turn.answer[0]

    def _lead(self, turn: _Turn[Wish, Answer]) -> None:
        """Write for those who wait; whoever took this turn out and did not write was struck."""
        if turn not in self._waiting:
            turn.error = OperationalError("the thread that wrote was interrupted")
            return
        group: list[_Turn[Wish, Answer]] = []
        with suppress(IndexError):  # one that is struck just now may take its turn out of the line
            while len(group) < MOST:
                group.append(self._waiting.popleft())
        try:
            answers = self._write([each.wish for each in group])
        except Exception as error:
            _failed(group, error)
        else:
            for each, answer in zip(group, answers, strict=True):
                each.answer.append(answer)


def _failed(group: Sequence[_Turn[Wish, Answer]], error: Exception) -> None:
    is_away = isinstance(error, OperationalError | InterfaceError)
    held_up = getattr(error.__cause__, "sqlstate", None) in _HELD_UP
    for turn in group:
        if len(group) == 1 or (is_away and not held_up):
            turn.error = error
        else:
            turn.alone = True
