"""The circuit breaker: when an engine fails again and again, nobody calls it for a while.

After the window one caller, over all processes, tries whether it is back (the probe); the others
wait on. The pattern is Nygard's (Release It!, 2007); what is ours is that the state lies in a store
that is passed in, so that all processes share it, and that no lock is held while a call runs.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Protocol, Self
from uuid import uuid4

logger = logging.getLogger(__name__)

FAILURES_TO_OPEN: Final = 5
"""In a row. One more than a chunk has attempts, so that one bad file alone opens nothing."""


@dataclass(frozen=True, kw_only=True)
class BreakerState:
    """What all processes know of an engine. Times are seconds by the store's clock."""

    failures: int = 0  # in a row, while closed
    open_until: float = 0.0  # 0: closed
    probe: str = ""  # names the call that tries the engine

    @property
    def closed(self) -> bool:
        return not self.open_until


CLOSED: Final = BreakerState()


class Health(StrEnum):
    """A breaker's state in words."""

    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


class Store(Protocol):
    """Where a breaker's state lies."""

    def read(self, name: str) -> tuple[BreakerState, float]:
        """The state of the engine of that name, and the time."""
        ...

    def swap(self, name: str, old: BreakerState, new: BreakerState) -> bool:
        """Write the new state if the old one still holds; False when somebody else was first."""
        ...


class LocalStore:
    """A store for one process."""

    def __init__(self) -> None:
        self._states: dict[str, BreakerState] = {}
        self._lock = threading.Lock()

    def read(self, name: str) -> tuple[BreakerState, float]:
        """See `Store.read`."""
        return self._states.get(name, CLOSED), time.time()

    def swap(self, name: str, old: BreakerState, new: BreakerState) -> bool:
        """See `Store.swap`."""
        with self._lock:
            if self._states.get(name, CLOSED) != old:
                return False
            self._states[name] = new
            return True

    def put(self, name: str, state: BreakerState) -> None:
        """Write the state, whatever it was."""
        with self._lock:
            self._states[name] = state


class Call:
    """Leave to call an engine, or to wait. A context: say how the call went before it ends."""

    def __init__(
        self, breaker: Breaker | None = None, *, wait_seconds: float = 0.0, probe: str = ""
    ) -> None:
        self.wait_seconds = wait_seconds
        self.probe = probe
        self._breaker = breaker
        self._outcome = ""

    @property
    def admitted(self) -> bool:
        return self.wait_seconds == 0

    @property
    def failed_as_probe(self) -> bool:
        """It found the engine still down."""
        return bool(self.probe) and self._outcome == "failed"

    def succeeded(self) -> None:
        """The engine works: it answered, be it to refuse."""
        self._tell("succeeded")

    def failed(self) -> None:
        """The engine did not answer, or with a failure of its own."""
        self._tell("failed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.probe and not self._outcome:
            self._tell("abandoned")

    def _tell(self, outcome: str) -> None:
        if self._breaker is not None and self.admitted:
            self._breaker.settle(self, outcome)
        self._outcome = outcome


class Breaker:
    """One engine's breaker.

    Args:
        window: seconds between a failure and the next probe.
        probe_limit: seconds after which a probe that said nothing is taken for dead.
    """

    def __init__(self, name: str, store: Store, *, window: float, probe_limit: float) -> None:
        self.name = name
        self._store = store
        self._window = window
        self._probe_limit = probe_limit

    def admit(self) -> Call:
        """Ask before a call; while the engine is down, only the probe is admitted."""
        while True:
            state, now = self._store.read(self.name)
            if state.closed:
                return Call(self)
            if now < state.open_until:
                # Not the whole limit of a probe: it is likely to end long before.
                return Call(self, wait_seconds=min(state.open_until - now, self._window))
            probe = uuid4().hex
            taken = BreakerState(open_until=now + self._probe_limit, probe=probe)
            if self._store.swap(self.name, state, taken):
                logger.info("Engine %s: one call tries whether it is back", self.name)
                return Call(self, probe=probe)

    def would_admit(self) -> bool:
        """Whether `admit` would let a caller through now."""
        state, now = self._store.read(self.name)
        return state.closed or now >= state.open_until

    def health(self) -> Health:
        """The state in words."""
        state, _ = self._store.read(self.name)
        if state.closed:
            return Health.CLOSED
        return Health.PROBING if state.probe else Health.OPEN

    def settle(self, call: Call, outcome: str) -> None:
        """Write down how an admitted call went."""
        while True:
            state, now = self._store.read(self.name)
            new = self._after(state, now, call, outcome)
            if new == state:
                return
            if self._store.swap(self.name, state, new):
                self._log(state, new)
                return

    def _log(self, state: BreakerState, new: BreakerState) -> None:
        if state.closed and not new.closed:
            logger.warning("Engine %s: down, it is left alone for %g s", self.name, self._window)
        elif new.closed and not state.closed:
            logger.warning("Engine %s: it is back", self.name)

    def _after(self, state: BreakerState, now: float, call: Call, outcome: str) -> BreakerState:
        if state.closed:
            return self._after_ordinary_call(state, now, outcome)
        if call.probe != state.probe or not call.probe:
            return state  # it began before the engine was given up: only the probe counts now
        if outcome == "succeeded":
            return CLOSED
        # An abandoned probe learnt nothing: the worker stopped, or the chunk needed no call.
        return BreakerState(open_until=now + (self._window if outcome == "failed" else 0.0))

    def _after_ordinary_call(self, state: BreakerState, now: float, outcome: str) -> BreakerState:
        if outcome == "succeeded":
            return CLOSED
        failures = state.failures + (outcome == "failed")
        if failures >= FAILURES_TO_OPEN:
            return BreakerState(open_until=now + self._window)
        return replace(state, failures=failures)
