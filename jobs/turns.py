"""Fair turns: a message is a turn as well, and may be lent to a user who has fewer under way.

The queue is first in, first out, and one user's 480 messages may stand before another's one. So
before a message's own chunk is taken, its thread works on the chunks of those who have less in
progress with the same engine; of equals, of the one who was served longer ago. The message comes
to its own chunk afterwards, so that none is left without; the other chunk's own message finds it
taken, and does nothing.

While a thread is free nobody waits, and no turn is lent. To look who waits takes four statements. A
process spends a twentieth of its time on that at most: next to an engine's seconds nearly every
message looks, and with an engine that answers at once some do, and the others cost nothing.
"""

from __future__ import annotations

import threading
import time
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


class _Looks:
    """How a process looks who is next: one thread at a time, and now and then."""

    def __init__(self) -> None:
        self._looking = threading.Lock()
        self._not_before = 0.0  # monotonic, seconds
        self._ticks = count(1)
        # When each waiting user last got a turn here, by engine; replaced as a whole, so that it
        # never holds more than those who wait.
        self._served: dict[str, dict[str, int]] = {}

    def __call__(self, own: Place, engine: str) -> Place | None:
        """The chunk that goes before that one; None when it is its own turn, as far as seen."""
        if not threads.are_busy or not self._looking.acquire(blocking=False):
            return None
        try:
            began = time.monotonic()
            if began < self._not_before:
                return None
            place = self._next(own, engine)
            ended = time.monotonic()
            self._not_before = ended + PAUSE * (ended - began)
        finally:
            self._looking.release()
        release_connection()
        return place

    def _next(self, own: Place, engine: str) -> Place | None:
        waiting = users_waiting(engine)
        before = self._served.get(engine, {})
        served = self._served[engine] = {user: before.get(user, 0) for user in waiting}
        if len(waiting) < 2:
            served.update(dict.fromkeys(waiting, next(self._ticks)))
            return None
        owner = Chunk.objects.filter(job_id=own[0], index=own[1]).values_list("user_id", flat=True)
        running = _running(engine)

        def rank(user: str) -> tuple[int, int]:
            return running.get(user, 0), served.get(user, 0)

        user, place = owner.first() or "", None
        for other in sorted(waiting, key=rank):
            if rank(other) >= rank(user):
                break
            if place := _longest_waiting(engine, other):
                user = other
                break
        served[user] = next(self._ticks)
        return place


def _running(engine: str) -> dict[str, int]:
    """How many chunks each user has in progress, of jobs for that engine."""
    running = Chunk.objects.in_progress().filter(asked_engine=engine).order_by()
    return dict(running.values_list("user_id").annotate(Count("pk")))


def _longest_waiting(engine: str, user: str) -> Place | None:
    """What could be claimed at once; one in quarantine waits for its own message."""
    due = Chunk.objects.due().not_being_recognised()
    due = due.filter(crashes__lt=quarantine.SUSPECT_CRASHES, job__status=JobStatus.IN_PROGRESS)
    of_user = due.filter(asked_engine=engine, user_id=user).order_by("not_before", "pk")
    return of_user.values_list("job_id", "index").first()


_look = _Looks()


def given(job_id: UUID, index: int, engine: str) -> Iterator[Place]:
    """The chunks that a message's turn goes to, each looked for when the one before is over.

    The last is the message's own chunk. Turns are lent for no longer than a lease: then it is the
    own chunk's, whoever waits.
    """
    until = time.monotonic() + settings.LEASE_SECONDS
    own, seen = (job_id, index), set[Place]()
    while time.monotonic() < until and (place := _look(own, engine)):
        if place in seen:
            break  # it could not be taken, whatever the reason
        seen.add(place)
        yield place
    yield own
