"""Caps on spending: a call that would pass one is not made.

Asked before each call that has a price, under the lock of a meter, so that calls of many processes
at once pass no cap either: what is compared is the ledger's sum with every call that is open. The
first call that a cap keeps from being made closes the meter for the rest of the month; whatever
waits looks at the closed meter alone. It is open again when the month is over or the cap is raised.

The order of locks is: jobs by id, the keys of their chunks, meters by name, days of usage by key.
Nobody who holds a meter goes back to wait for a job.
"""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import partial
from typing import Final

from django.conf import settings
from django.db import transaction
from django.db.models import Sum

from jobs.limits import first_of_month, limits_of, seconds_left_of_month
from jobs.models import EVERYBODY, EngineCall, SpendingMeter, UsageDay, UserLimits, database_time
from jobs.models.pseudonym import pseudonym

CHECK_AGAIN_SECONDS: Final = 600.0
WARN_AT: Final = Decimal("0.8")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How much of a cap is used in this month; `scope` is a user's name, or "" for everybody."""

    scope: str
    cap: Decimal
    spent: Decimal
    closed: bool
    """Whether a call was refused."""

    @property
    def near(self) -> bool:
        return self.spent >= self.cap * WARN_AT

    @property
    def reached(self) -> bool:
        return self.closed or self.spent >= self.cap

    @property
    def percent(self) -> int:
        return int(100 * self.spent / self.cap) if self.cap else 100


def is_capped() -> bool:
    """Whether there are caps at all."""
    everybodys = (settings.SPENDING_CAP_USD_PER_MONTH, settings.SPENDING_CAP_USER_USD_PER_MONTH)
    return any(cap is not None for cap in everybodys) or UserLimits.anybody_has()


def caps_of(users: Collection[str]) -> dict[str, Decimal]:
    """The caps that a call of one of these users falls under, by their scope."""
    caps = {user: limits_of(user).spending_per_month_usd for user in users}
    caps[EVERYBODY] = settings.SPENDING_CAP_USD_PER_MONTH
    return {scope: cap for scope, cap in caps.items() if cap is not None}


def standings(caps: dict[str, Decimal]) -> list[Standing]:
    """How these caps stand now; no statement where there is none."""
    if not caps:
        return []
    month = first_of_month(database_time())
    meters = SpendingMeter.objects.in_bulk(list(caps))
    return _standings(caps, meters, month)


def near(most: int = 20) -> list[Standing]:
    """Caps of which 80 % or more are used; `most` of them at most."""
    if not is_capped():
        return []
    month = first_of_month(database_time())
    warned = SpendingMeter.objects.warned(month).order_by("pk").values_list("pk", flat=True)
    caps = caps_of(list(warned[:most]))
    return [standing for standing in standings(caps) if standing.near or standing.closed]


def seconds_to_wait(user_id: str) -> float | None:
    """How long a call of the user has to wait while a cap is closed; None when none is."""
    caps = caps_of([user_id])
    if not caps:
        return None
    now = database_time()
    meters = SpendingMeter.objects.filter(pk__in=caps)
    if any(meter.is_closed(first_of_month(now), caps[meter.pk]) for meter in meters):
        return _wait(seconds_left_of_month(now))
    return None


def after_refusal() -> float:
    """How long a call that was refused just now has to wait."""
    return _wait(seconds_left_of_month(database_time()))


def within_caps(calls: Sequence[EngineCall]) -> set[int]:
    """The positions of those calls that may be made, in the caller's transaction.

    It keeps the meters locked until the calls are in the ledger, and must lock nothing after that
    but the rows of `UsageDay`.
    """
    priced = {call.user_id for call in calls if call.price_usd}
    caps = caps_of(priced) if priced else {}
    if not caps:
        return set(range(len(calls)))
    meters = SpendingMeter.objects.lock(caps)
    month = first_of_month(database_time())
    room = {each.scope: _room(each) for each in _standings(caps, meters, month)}
    refused: set[str] = set()
    admitted = set()
    for position, call in enumerate(calls):
        full = _full(room, call)
        if not full:
            admitted.add(position)
        refused |= full
    _write(meters, caps, room, refused, month)
    return admitted


def _room(standing: Standing) -> Decimal:
    return Decimal(0) if standing.closed else standing.cap - standing.spent


def _full(room: dict[str, Decimal], call: EngineCall) -> set[str]:
    """The scopes in which there is no room for the call; otherwise it takes its room."""
    price = call.price_usd or Decimal(0)
    scopes = room.keys() & {call.user_id, EVERYBODY} if price else set()
    full = {scope for scope in scopes if price > room[scope]}
    if not full:
        for scope in scopes:
            room[scope] -= price
    return full


def _standings(
    caps: dict[str, Decimal], meters: dict[str, SpendingMeter], month: date
) -> list[Standing]:
    users = caps.keys() - {EVERYBODY}
    days = UsageDay.objects.filter(day__gte=month)
    spent: dict[str, Decimal] = defaultdict(Decimal)
    if users:
        names = {name: user for user in users for name in (user, pseudonym(user))}
        by_user = days.filter(user_id__in=names).order_by().values_list("user_id")
        for name, price in by_user.annotate(Sum("price_usd")):
            spent[names[name]] += price
    if EVERYBODY in caps:
        spent[EVERYBODY] = days.sums()["sum_price_usd"]
    return [
        Standing(
            scope=scope,
            cap=cap,
            spent=Decimal(spent[scope]).quantize(Decimal("0.000001")),
            closed=scope in meters and meters[scope].is_closed(month, cap),
        )
        for scope, cap in caps.items()
    ]


def _write(
    meters: dict[str, SpendingMeter],
    caps: dict[str, Decimal],
    room: dict[str, Decimal],
    refused: set[str],
    month: date,
) -> None:
    """Say once for each month and cap that it is near, and once that it is reached."""
    for scope, cap in caps.items():
        meter, closed = meters[scope], scope in refused
        near = closed or cap - room[scope] >= cap * WARN_AT
        if not near or meter.is_closed(month, cap):
            continue
        warned = meter.month == month and meter.warned_at_usd == cap
        if warned and not closed:
            continue
        meter.month, meter.warned_at_usd = month, cap
        meter.closed_at_usd = cap if closed else None
        meter.save()
        word = "is reached: calls wait" if closed else "is used to 80 %"
        told = "The spending cap of %s USD a month of %s %s"
        transaction.on_commit(partial(logger.warning, told, cap, meter, word), robust=True)


def _wait(until_next_month: float) -> float:
    """Each chunk at a time of its own; a cap that is raised is noticed after minutes."""
    jitter = random.uniform(1.0, 1.25)  # noqa: S311
    return min(CHECK_AGAIN_SECONDS, until_next_month) * jitter
