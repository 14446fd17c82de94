"""The admin site: Django's, with the state of the system on its front page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import dramatiq
from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import unquote
from django.core.exceptions import ValidationError
from django.db.models import Count, Field, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from jobs import breakers, engines, spending, tasks
from jobs.admin_lists import COUNTED, DAY
from jobs.models import Chunk, Job, JobStatus, WorkerProcess
from jobs.sign_in import limited


class VerbatimAdminSite(AdminSite):
    """Takes the place of `admin.site`; every app registers its models here."""

    site_header = "Verbatim"
    site_title = "Verbatim"
    index_title = "Operations"
    site_url = "/docs"  # there is no page at "/"

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """The front page: how deep the queues are, what waits, who works."""
        return super().index(request, {**(extra_context or {}), "system": system_now()})

    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Django's, with bounded tries."""
        return cast("HttpResponse", limited(super().login)(request, extra_context))

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        """Django's, but an id that cannot be one is an address that does not exist."""
        page = getattr(view, "__self__", None)
        if isinstance(page, ModelAdmin):
            view = _for_possible_ids(page.opts.pk, view)
        return super().admin_view(view, cacheable)


def _for_possible_ids(key: Field[Any, Any], view: Callable[..., Any]) -> Callable[..., Any]:
    """The page's view; it would fail at an id, in the address or among the ticked, that is none."""

    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        named = request.POST.getlist(ACTION_CHECKBOX_NAME)
        if isinstance(object_id := kwargs.get("object_id"), str):
            named = [*named, unquote(object_id)]
        if not all(_may_be(key, text) for text in named):
            raise Http404
        return view(request, *args, **kwargs)

    return checked


def _may_be(key: Field[Any, Any], text: str) -> bool:
    try:
        key.run_validators(key.to_python(text))
    except ValidationError:
        return False
    return "\0" not in text  # which PostgreSQL does not take


@dataclass(frozen=True, kw_only=True)
class QueueNow:
    """One queue of the broker. `depth` counts messages that wait or are worked at, delayed ones
    too; None while the broker is away.
    """

    name: str
    depth: int | None
    workers: int


@dataclass(frozen=True, kw_only=True)
class SystemNow:
    """What an operator wants to know first."""

    queues: list[QueueNow]
    engines_down: dict[str, str]
    """Engines whose breaker is not closed, and how it stands; empty while the broker is away."""
    pending: int
    in_progress: int
    waits_longest: Chunk | None
    longest_wait: str
    jobs: list[tuple[str, str, int]]
    """Status, its label and the number of jobs submitted within the last 24 hours."""
    dead_letters: list[tuple[str, str]]
    """Class and number of the chunks that failed for good."""
    caps_near: list[spending.Standing]
    """Caps on spending of which 80 % or more are used."""

    @property
    def broker_away(self) -> bool:
        return any(queue.depth is None for queue in self.queues)


def system_now() -> SystemNow:
    """The state of the system, from indexed counts and one short look at the broker."""
    workers = WorkerProcess.objects.alive_per_queue()
    oldest = Chunk.objects.longest_waiting().only("job_id", "index").first()
    depths = list(_depths())
    return SystemNow(
        queues=[
            QueueNow(name=name, depth=depth, workers=workers[name])
            for name, depth in zip(engines.QUEUES, depths, strict=True)
        ],
        engines_down={} if None in depths else {**breakers.not_closed()},
        pending=Chunk.objects.pending().count(),
        in_progress=Chunk.objects.in_progress().count(),
        waits_longest=oldest,
        longest_wait=spoken(oldest.waited) if oldest else "",  # type: ignore[attr-defined]
        jobs=_jobs_of_a_day(),
        dead_letters=_dead_letters(),
        caps_near=spending.near(),
    )


def _depths() -> Iterator[int | None]:
    """Each queue's depth. After one failure nothing more is asked: the page is not to wait."""
    broker = cast("Any", dramatiq.get_broker())  # its commands are made up by __getattr__
    away = False
    for queue in engines.QUEUES:
        depth = None
        if not away:
            try:
                with tasks.broker_errors():
                    depth = int(broker.do_qsize(queue))
            except ConnectionError:
                away = True
        yield depth


def _jobs_of_a_day() -> list[tuple[str, str, int]]:
    counted = Job.objects.submitted_within(DAY).order_by().values_list("status")
    numbers = Counter(dict(counted.annotate(Count("pk"))))
    return [(status.value, str(status.label), numbers[status]) for status in JobStatus]


def _dead_letters() -> list[tuple[str, str]]:
    dead = Chunk.objects.dead_letters()
    classes = {"recoverable": dead.recoverable(), "permanent": dead.permanent()}
    return [(name, _number(chunks)) for name, chunks in classes.items()]


def _number(rows: QuerySet[Any]) -> str:
    """Counted no further than a list pages."""
    number = rows.order_by().values("pk")[:COUNTED].count()
    return f"{number}" if number < COUNTED else f"{COUNTED} or more"


def spoken(wait: timedelta) -> str:
    """A time to wait in its two largest units."""
    minutes, seconds = divmod(int(wait.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    while len(parts) > 1 and not parts[0][0]:
        del parts[0]
    return " ".join(f"{number} {unit}" for number, unit in parts[:2])
