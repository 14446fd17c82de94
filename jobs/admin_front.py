"""The admin's front page: what needs a look, and the figures of the system as charts."""

from __future__ import annotations

from calendar import monthrange
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate
from typing import Any, Final

from django.conf import settings
from django.urls import reverse

from jobs import charts, wellbeing
from jobs.figures import Hour
from jobs.models import JobStatus
from jobs.wellbeing import Finding, System

JOB_KINDS: Final = {status.value: str(status.label) for status in JobStatus}
CALL_KINDS: Final = {"answered": "Answered", "failed": "Failed"}
DEAD_KINDS: Final = {
    "recoverable": "Recoverable",
    "permanent": "Permanent",
    "audio": "Permanent: bad audio",
}
READYZ_TELLS: Final = {*wellbeing.PARTS, "engine", "workers"}
RATES_SCALE: Final = 0.1  # at least: one call of a thousand is not to fill the picture


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A picture, what it shows in one sentence, and all its figures as a table."""

    name: str
    bars: list[charts.Bar]
    summary: str
    columns: list[str]
    rows: list[list[str]]
    level: str = ""
    """Where a line is drawn across, from the top."""


@dataclass(frozen=True, kw_only=True)
class EngineCard:
    """An engine's last 24 hours. `breaker` is "" where it is not known."""

    name: str
    breaker: str
    share: str
    """Of the calls that failed."""
    ended: int
    address: str
    """Of the list of those that failed."""
    chart: Chart


def front(user: Any) -> dict[str, Any]:
    """What the page is made of; the template shows each card to who may see what it is about."""
    system = wellbeing.look()
    found = wellbeing.findings(system)
    shown = [(finding, link(user, finding)) for finding in found if may_see(user, finding)]
    depths = charts.rows([(queue.name, float(queue.depth or 0)) for queue in system.queues])
    return {
        "system": system,
        "findings": shown,
        "hidden": len(found) - len(shown),
        "jobs": _sums(system.jobs, JOB_KINDS),
        "jobs_chart": by_hour("Jobs", system.jobs, JOB_KINDS),
        "queues": list(zip(system.queues, depths, strict=True)),
        "waiting": charts.rows([(wait, float(n)) for wait, n in system.waiting.items()]),
        "longest_wait": wellbeing.spoken(system.longest_wait),
        "engines": list(_engines(system)),
        "dead_letters": _sums(system.new_dead_letters, DEAD_KINDS),
        "dead_letters_chart": by_hour("Dead letters", system.new_dead_letters, DEAD_KINDS),
        "spent": sum(price for _, price in system.spent),
        "cap": settings.SPENDING_CAP_USD_PER_MONTH,
        "spending_chart": spending(system.spent, settings.SPENDING_CAP_USD_PER_MONTH),
    }


def may_see(user: Any, finding: Finding) -> bool:
    """Whether the user may know of it: `/readyz` tells everybody of its parts."""
    permission, _ = _page(finding)
    return finding.part in READYZ_TELLS or user.has_perm(permission)


def link(user: Any, finding: Finding) -> str:
    """The address of the page to look at; "" where the user may not."""
    permission, address = _page(finding)
    return address if not permission or user.has_perm(permission) else ""


def _page(finding: Finding) -> tuple[str, str]:
    """The permission that a finding's page asks for, and its address."""
    subject = finding.subject
    if finding.part == "waiting":
        return "jobs.view_job", reverse("admin:jobs_job_change", args=[subject])
    failed = ("jobs.view_enginecall", "enginecall", failed_calls(subject))
    lists: dict[str, tuple[str, str, dict[str, str]]] = {
        "workers": ("jobs.view_workerprocess", "workerprocess", {}),
        "engine": failed,
        "errors": failed,
        "dead_letters": ("jobs.view_chunk", "deadletter", {"age": "day"}),
        "spending": ("jobs.view_usageday", "usageday", {"q": subject} if subject else {}),
    }
    if finding.part not in lists:
        return "", reverse("readyz")
    permission, model, query = lists[finding.part]
    return permission, reverse(f"admin:jobs_{model}_changelist", query=query)


def failed_calls(engine: str) -> dict[str, str]:
    """The query of the ledger's list that shows those of the last 24 hours."""
    return {"engine": engine, "outcome__in": "failed,refused", "period": "day"}


def _sums(hours: list[Hour], kinds: Mapping[str, str]) -> list[tuple[str, str, int]]:
    """Each kind, its name, and its number in all hours."""
    return [(kind, name, sum(hour.numbers[kind] for hour in hours)) for kind, name in kinds.items()]


def by_hour(what: str, hours: list[Hour], kinds: Mapping[str, str]) -> Chart:
    """What was counted, a stack for each hour."""
    stacks = [(_clock(hour), [(kind, hour.numbers[kind]) for kind in kinds]) for hour in hours]
    most = max(hour.numbers.total() for hour in hours)
    return Chart(
        name=f"{what} by hour",
        bars=charts.stacks(stacks),
        summary=f"{what} by hour, {_ends(hours)}; at most {most} in an hour.",
        columns=["Hour (UTC)", *kinds.values()],
        rows=[[hour, *(str(number) for _, number in stack)] for hour, stack in stacks],
    )


def _engines(system: System) -> Iterator[EngineCard]:
    """The engines that are configured, and others that were called."""
    idle = [Hour(start=hour.start, numbers=Counter()) for hour in system.jobs]
    for name in sorted({*system.breakers, *system.calls}):
        hours = system.calls.get(name, idle)
        yield EngineCard(
            name=name,
            breaker=system.breakers.get(name, ""),
            share=percent(wellbeing.failures(hours)[1]),
            ended=sum(hour.numbers.total() for hour in hours),
            address=reverse("admin:jobs_enginecall_changelist", query=failed_calls(name)),
            chart=errors(name, hours),
        )


def errors(engine: str, hours: list[Hour]) -> Chart:
    """The share of an engine's calls that failed, hour by hour."""
    rates = [wellbeing.failures([hour])[1] for hour in hours]
    top = max(RATES_SCALE, *rates)
    each = list(zip(hours, rates, strict=True))
    return Chart(
        name=f"Failed calls of {engine} by hour",
        bars=charts.columns(
            [(f"{_clock(h)}: {percent(rate)}", rate) for h, rate in each], most=top
        ),
        summary=f"Share of failed calls by hour, {_ends(hours)}; at most {percent(max(rates))}, "
        f"the picture ends at {percent(top)}.",
        columns=["Hour (UTC)", *CALL_KINDS.values(), "Share"],
        rows=[
            [_clock(hour), *(str(hour.numbers[kind]) for kind in CALL_KINDS), percent(rate)]
            for hour, rate in each
        ],
    )


def spending(days: list[tuple[Any, Decimal]], cap: Decimal | None) -> Chart:
    """What was spent until the end of each day, against the cap; days to come have their places."""
    sums = list(accumulate(price for _, price in days))
    each = [
        (day.isoformat(), price, so_far) for (day, price), so_far in zip(days, sums, strict=True)
    ]
    first = days[0][0]
    to_come = monthrange(first.year, first.month)[1] - len(days)
    top = float(max(sums[-1], cap or 0))
    bars = [(f"{day}: {so_far:.2f} USD", float(so_far)) for day, _, so_far in each]
    return Chart(
        name="Spending by day",
        bars=charts.columns([*bars, *[("", 0.0)] * to_come], most=top),
        summary=f"Spent in {first:%B} until the end of each day (UTC), at list prices."
        + (f" The line is the cap of {cap} USD." if cap else ""),
        columns=["Day (UTC)", "USD", "USD until then"],
        rows=[[day, f"{price:.4f}", f"{so_far:.4f}"] for day, price, so_far in each],
        level=charts.level(float(cap), most=top) if cap else "",
    )


def percent(share: float) -> str:
    """A share in words, finely where it is small."""
    return f"{share:.1%}" if 0 < share < RATES_SCALE else f"{share:.0%}"


def _clock(hour: Hour) -> str:
    return f"{hour.start:%Y-%m-%d %H:%M}"


def _ends(hours: list[Hour]) -> str:
    return f"from {hours[0].start:%H:%M} of yesterday (UTC) until now"
