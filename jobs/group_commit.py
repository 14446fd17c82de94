"""Group commit: what many threads want to write at the same moment goes into one transaction.

With hundreds of threads the transactions are what a chunk costs. Who finds nobody writing writes at
once, for itself alone; those who come meanwhile wait together, and the first of them writes for
all. So an idle system is none the slower, and a busy one makes fewer and larger transactions.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from django.db import InterfaceError, OperationalError

Wish = TypeVar("Wish")
Answer = TypeVar("Answer")

MOST: Final = 64  # in one transaction: it holds locks for as long as it takes


class _Turn(Generic[Wish, Answer]):
    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.called = threading.Event()  # it is over, or ours to write
        self.answer: list[Answer] = []
        self.error: BaseException | None = None

    @property
    def over(self) -> bool:
        return bool(self.answer) or self.error is not None


class GroupCommit(Generic[Wish, Answer]):
    """Calls `write` with the wishes of all threads that wait; it answers each, in their order.

    `write` is one transaction. When it fails although the database is there, each wish is tried by
    itself, so that one that cannot be written spoils no other.
    """

    def __init__(self, write: Callable[[Sequence[Wish]], Sequence[Answer]]) -> None:
        self._write = write
        self._lock = threading.Lock()
        self._waiting: deque[_Turn[Wish, Answer]] = deque()
        self._is_led = False

    def __call__(self, wish: Wish) -> Answer:
        """The answer to one wish; raises what `write` raised."""
        turn: _Turn[Wish, Answer] = _Turn(wish)
        with self._lock:
            self._waiting.append(turn)
            leads, self._is_led = not self._is_led, True
        try:
            if not leads:
                turn.called.wait()
            if not turn.over:
                self._lead()
        except BaseException:  # the time limit may strike a thread anywhere, also while it waits
            self._leave(turn, leads=leads)
            raise
        if turn.error is not None:
            raise turn.error
        return turn.answer[0]

    def _lead(self) -> None:
        with self._lock:
            group = [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))]
        try:
            self._write_for(group)
        finally:
            # Some are not over only if this thread was struck: to the others it is an outage.
            _fail(group, OperationalError("the thread that wrote was interrupted"))
            with self._lock:
                self._pass_on()
            for turn in group:
                turn.called.set()

    def _leave(self, turn: _Turn[Wish, Answer], *, leads: bool) -> None:
        """Nobody waits for the answer any more; nor for who was to lead and will not."""
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
                if leads or turn.called.is_set():
                    self._pass_on()

    def _pass_on(self) -> None:
        """Let the next one lead, who is still among those that wait; the lock is held."""
        if self._waiting:
            self._waiting[0].called.set()
        else:
            self._is_led = False

    def _write_for(self, group: Sequence[_Turn[Wish, Answer]]) -> None:
        try:
            answers = self._write([turn.wish for turn in group])
        except (OperationalError, InterfaceError) as error:  # it is away: so it is for each
            _fail(group, error)
        except Exception as error:
            if len(group) == 1:
                _fail(group, error)
            for turn in group if len(group) > 1 else ():
                self._write_for([turn])
        else:
            for turn, answer in zip(group, answers, strict=True):
                turn.answer.append(answer)


def _fail(group: Sequence[_Turn[Wish, Answer]], error: BaseException) -> None:
    for turn in group:
        if not turn.over:
            turn.error = error
