"""Is it well? What there is to see of the whole system, and what of it needs a look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, cast

import dramatiq
from django.conf import settings

from asr.breaker import Health
from jobs import breakers, engines, figures, readiness, spending, tasks
from jobs.figures import Hour
from jobs.models import EVERYBODY, SWEEPER, Chunk, WorkerProcess, database_time

WAITS_TOO_LONG: Final = timedelta(minutes=10)
ERRORS_ARE_MANY: Final = 5  # failed calls of an engine within this hour and the one before …
ERRORS_ARE_OFTEN: Final = 0.1  # … which are that share of its calls

REASONS: Final = {
    "away": "does not answer",
    "stalled": "takes connections and says nothing",
    "loading": "is reading its data and not ready yet",
    "credentials_refused": "refuses the credentials",
    "broker_eviction_policy": "may drop messages: set its maxmemory-policy to noeviction",
    "broker_full": "is full and takes no message",
    "storage_unavailable": "cannot be reached",
    "disk_full": "has hardly any room left",
}
PARTS: Final = {
    "database": "The database",
    "broker": "The broker",
    "cache": "The cache",
    "storage": "The storage of audio",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing to look at."""

    part: str
    """As `/readyz` names it; or `waiting`, `errors`, `dead_letters`, of which it does not tell."""
    text: str
    subject: str = ""
    """The engine, the job or the user that it is about, where it is about one."""


@dataclass(frozen=True, kw_only=True)
class QueueNow:
    """One queue of the broker. `depth` counts messages that wait or are worked at, delayed ones
    too; None while the broker is away.
    """

    name: str
    depth: int | None
    workers: int


@dataclass(frozen=True, kw_only=True)
class System:
    """The whole at one moment. For the figures see the functions of the module of that name."""

    time: datetime
    parts: dict[str, readiness.Part]
    queues: list[QueueNow]
    breakers: dict[str, str]
    """How the breaker of each configured engine stands; empty while the broker is away."""
    jobs: list[Hour]
    waiting: dict[str, int]
    in_progress: int
    waits_longest: Chunk | None
    """With its `waited` time."""
    calls: dict[str, list[Hour]]
    new_dead_letters: list[Hour]
    dead_letters: dict[str, str]
    spent: list[tuple[date, Decimal]]
    caps_near: list[spending.Standing]
    """Of single users."""

    @property
    def longest_wait(self) -> timedelta:
        return cast("Any", self.waits_longest).waited if self.waits_longest else timedelta(0)


def look() -> System:
    """Look at everything: first at the rows, then at what may let us wait."""
    now = database_time()
    seen: dict[str, Any] = {
        "jobs": figures.jobs_by_hour(now),
        "waiting": figures.waiting_by_age(now),
        "in_progress": Chunk.objects.in_progress().count(),
        "waits_longest": Chunk.objects.longest_waiting().only("job_id", "index").first(),
        "calls": figures.calls_by_hour(now),
        "new_dead_letters": figures.dead_letters_by_hour(now),
        "dead_letters": figures.dead_letters(),
        "spent": figures.spending_by_day(now),
        "caps_near": [cap for cap in spending.near() if cap.scope != EVERYBODY],
    }
    workers = WorkerProcess.objects.alive_per_queue()
    parts = readiness.parts()
    broker_up = parts["broker"]["status"] == "up"
    depths = _depths() if broker_up else dict[str, int]()
    return System(
        time=now,
        parts=parts,
        queues=[
            QueueNow(name=name, depth=depths.get(name), workers=workers[name])
            for name in engines.QUEUES
        ],
        breakers={name: breakers.state(name) for name in engines.configured() if broker_up},
        **seen,
    )


def _depths() -> dict[str, int]:
    """Each queue's depth. After one failure nothing more is asked: the page is not to wait."""
    broker = cast("Any", dramatiq.get_broker())  # its commands are made up by __getattr__
    depths: dict[str, int] = {}
    try:
        with tasks.broker_errors():
            for queue in engines.QUEUES:
                depths[queue] = int(broker.do_qsize(queue))
    except ConnectionError:
        pass
    return depths


def findings(system: System) -> list[Finding]:
    """What needs a look, what concerns most first; nothing when all is well."""
    return [
        *_of_parts(system),
        *_of_workers(system),
        *_of_engines(system),
        *_of_waiting(system),
        *_of_dead_letters(system),
        *_of_spending(system),
    ]


def _of_parts(system: System) -> Iterator[Finding]:
    for part, name in PARTS.items():
        state = system.parts[part]
        if state["status"] != "up":
            says = REASONS.get(state["reason"], f"is not well: {state['reason']}")
            advice = f" ({state['detail']})" if "detail" in state else ""
            yield Finding(part=part, text=f"{name} {says}{advice}.")


def _of_workers(system: System) -> Iterator[Finding]:
    if without := [queue.name for queue in system.queues if not queue.workers]:
        named = ", ".join(without)
        yield Finding(part="workers", text=f"No worker serves {named}: what is sent there waits.")
    if not system.parts["workers"].get(SWEEPER, True):
        text = "No sweeper runs: what a dead worker or Redis loses is not found again."
        yield Finding(part="workers", text=text)


def _of_engines(system: System) -> Iterator[Finding]:
    default = system.parts["engine"]
    if default.get("reason") == "engine_misconfigured":
        text = f"The engine {default['name']}, which ASR_ENGINE names, is not configured."
        yield Finding(part="engine", text=text, subject=default["name"])
    for name in [name for name, health in system.breakers.items() if health != Health.CLOSED]:
        text = f"The engine {name} failed again and again: its chunks wait until a trial succeeds."
        yield Finding(part="engine", text=text, subject=name)
    for name, hours in system.calls.items():
        failed, share = failures(hours[-2:])
        if failed >= ERRORS_ARE_MANY and share >= ERRORS_ARE_OFTEN:
            text = f"{share:.0%} of the calls of {name} failed in this hour and the one before."
            yield Finding(part="errors", text=text, subject=name)


def failures(hours: list[Hour]) -> tuple[int, float]:
    """How many calls failed, and their share of all that ended."""
    failed = sum(hour.numbers["failed"] for hour in hours)
    ended = sum(hour.numbers.total() for hour in hours)
    return failed, failed / ended if ended else 0.0


def _of_waiting(system: System) -> Iterator[Finding]:
    if system.waits_longest and system.longest_wait >= WAITS_TOO_LONG:
        text = f"A chunk has been waiting for {spoken(system.longest_wait)}."
        yield Finding(part="waiting", text=text, subject=str(system.waits_longest.job_id))


def _of_dead_letters(system: System) -> Iterator[Finding]:
    """Files that nobody can read are their senders' to mend, and on a busy day there are some."""
    new = sum(h.numbers["recoverable"] + h.numbers["permanent"] for h in system.new_dead_letters)
    if new:
        text = f"{new} chunk{'s' * (new > 1)} failed for good within 24 hours, not for bad audio."
        yield Finding(part="dead_letters", text=text)


def _of_spending(system: System) -> Iterator[Finding]:
    cap = settings.SPENDING_CAP_USD_PER_MONTH
    spent = sum(price for _, price in system.spent)
    match system.parts["spending"].get("reason"):
        case "spending_cap_near":
            text = f"The month's cap on spending is near: {spent:.2f} of {cap} USD."
            yield Finding(part="spending", text=text)
        case "spending_cap_reached":
            text = f"The month's cap on spending, {cap} USD, is reached: calls with a price wait."
            yield Finding(part="spending", text=text)
    for near in system.caps_near:
        text = f"The cap of {near.scope} is near: {near.spent:.2f} of {near.cap} USD."
        if near.reached:
            text = f"The cap of {near.scope}, {near.cap} USD, is reached: calls with a price wait."
        yield Finding(part="spending", text=text, subject=near.scope)


def spoken(wait: timedelta) -> str:
    """A time to wait in its two largest units."""
    minutes, seconds = divmod(int(wait.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    while len(parts) > 1 and not parts[0][0]:
        del parts[0]
    return " ".join(f"{number} {unit}" for number, unit in parts[:2])
