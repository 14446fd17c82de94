"""Fair turns: a message is a turn as well, and may be lent to a user who has fewer under way.

The queue is first in, first out, and one user's 480 messages may stand before another's one. So
before a message's own chunk is taken, its thread works on chunks of those who have less than their
share of what is in progress with the same engine. The message comes to its own chunk afterwards, so
that none is left without; the other chunk's own message finds it taken, and does nothing.

While a thread is free nobody waits, and no turn is lent. To look who waits takes a few statements,
of which a process spends a twentieth of its time at most. So one look plans the turns of the next
second, for as many messages as come.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db.models import Count

from jobs import quarantine
from jobs.database import release_connection
from jobs.models import Chunk, JobStatus, users_waiting

Place = tuple[UUID, int]  # a job and the index of its chunk

PAUSE: Final = 20.0  # times as long as the look before took
PLAN_SECONDS: Final = 1.0  # what was planned may have been taken by others since
USERS_AT_ONCE: Final = 16  # whose turns one look plans


class Threads:
    """How many of a process's threads have a message."""

    def __init__(self) -> None:
        self.all = 1  # until a worker says how many it has
        self._busy = 0
        self._counting = threading.Lock()

    @property
    def are_busy(self) -> bool:
        return self._busy >= self.all

    @contextmanager
    def one_busy(self) -> Iterator[None]:
        with self._counting:
            self._busy += 1
        try:
            yield
        finally:
            with self._counting:
                self._busy -= 1


threads = Threads()


class _Plan:
    """The turns that one process lends: who looks plans for those who come after."""

    def __init__(self) -> None:
        self._looking = threading.Lock()
        self._not_before = 0.0  # monotonic, seconds
        self._turns: dict[str, deque[Place]] = {}  # by engine
        self._until: dict[str, float] = {}
        self._ticks = count(1)
        # When each waiting user last got a turn here, by engine; replaced as a whole, so that it
        # never holds more than those who wait.
        self._served: dict[str, dict[str, int]] = {}

    def next(self, own: Place, engine: str) -> Place | None:
        """The chunk that goes before that one; None when it is its own turn, as far as seen."""
        if not self._has_turns(engine) and threads.are_busy:
            self._look(engine)
        if not self._has_turns(engine):
            return None
        try:
            place = self._turns[engine].popleft()
        except IndexError:  # another thread was faster
            return None
        return None if place == own else place

    def _has_turns(self, engine: str) -> bool:
        return bool(self._turns.get(engine)) and time.monotonic() < self._until[engine]

    def _look(self, engine: str) -> None:
        if not self._looking.acquire(blocking=False):
            return
        try:
            began = time.monotonic()
            if began < self._not_before:
                return
            planned = deque(self._planned(engine))
            ended = time.monotonic()
            self._until[engine] = ended + PLAN_SECONDS  # first, as others read both meanwhile
            self._turns[engine] = planned
            self._not_before = ended + PAUSE * (ended - began)
        finally:
            self._looking.release()
        release_connection()

    def _planned(self, engine: str) -> list[Place]:
        """Chunks of those below their share, each in the order in which the turns are theirs."""
        waiting = users_waiting(engine)
        before = self._served.get(engine, {})
        served = self._served[engine] = {user: before.get(user, 0) for user in waiting}
        if len(waiting) < 2:
            served.update(dict.fromkeys(waiting, next(self._ticks)))
            return []
        counted = _running(engine)
        running = {user: counted.get(user, 0) for user in waiting}
        share = -(-(sum(running.values()) + 1) // len(waiting))  # one thread is free, or soon

        def rank(user: str) -> tuple[int, int]:
            return running[user], served[user]

        least = sorted(waiting, key=rank)[:USERS_AT_ONCE]
        due = {user: _longest_waiting(engine, user, share - running[user]) for user in least}
        planned: list[Place] = []
        while below := [user for user in least if due[user]]:
            user = min(below, key=rank)
            planned.append(due[user].pop(0))
            running[user] += 1
            served[user] = next(self._ticks)
        return planned


def _running(engine: str) -> dict[str, int]:
    """How many chunks each user has in progress, of jobs for that engine."""
    running = Chunk.objects.in_progress().filter(asked_engine=engine).order_by()
    return dict(running.values_list("user_id").annotate(Count("pk")))


def _longest_waiting(engine: str, user: str, most: int) -> list[Place]:
    """What could be claimed at once; one in quarantine waits for its own message."""
    if most <= 0:
        return []
    due = Chunk.objects.due().not_being_recognised()
    due = due.filter(crashes__lt=quarantine.SUSPECT_CRASHES, job__status=JobStatus.IN_PROGRESS)
    of_user = due.filter(asked_engine=engine, user_id=user).order_by("not_before", "pk")
    return list(of_user.values_list("job_id", "index")[:most])


_plan = _Plan()


def given(job_id: UUID, index: int, engine: str) -> Iterator[Place]:
    """The chunks that a message's turn goes to, each looked for when the one before is over.

    The last is the message's own chunk. Turns are lent for no longer than a lease: then it is the
    own chunk's, whoever waits.
    """
    until = time.monotonic() + settings.LEASE_SECONDS
    own, seen = (job_id, index), set[Place]()
    while time.monotonic() < until and (place := _plan.next(own, engine)):
        if place in seen:
            break  # it could not be taken, whatever the reason
        seen.add(place)
        yield place
    yield own
