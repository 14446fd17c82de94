"""`manage.py requeue_pending`: safe at any time and many times at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import StringIO

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import OperationalError, connection

from jobs.management.commands import requeue_pending
from jobs.models import SWEEPER, Chunk, Job, JobEvent, WorkerProcess, from_now
from jobs.sweeper import SweepReport
from jobs.tasks import BrokerState
from tests import factories
from tests.helpers import broker, together, wait_until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("redis_is_empty", "script"),
]


def requeue() -> str:
    output = StringIO()
    call_command("requeue_pending", stdout=output)
    return output.getvalue()


def test_every_job_that_has_not_ended_is_put_back_to_work() -> None:
    waiting, crashed, done = factories.make_job(2), factories.make_job(), factories.make_job()
    Chunk.objects.filter(job=waiting).update(not_before=from_now(-timedelta(minutes=1)))
    factories.claim(crashed)
    Chunk.objects.filter(job=crashed).update(lease_expires_time=from_now(-timedelta(seconds=1)))
    factories.complete(factories.claim(done))
    ended = factories.make_completed_job("x")
    before = Job.objects.filter(pk=ended.pk).values().get()
    output = requeue()
    assert "1 claims released, 3 chunks sent, 1 jobs finished" in output
    assert broker().client.llen("dramatiq:chunks") == 3
    assert Job.objects.get(pk=done.pk).status == "completed"
    assert Job.objects.filter(pk=ended.pk).values().get() == before


def test_with_the_broker_away_it_says_so_and_repairs_what_it_can(
    redis_elsewhere: Callable[[str], None],
) -> None:
    lost, done = factories.make_job(), factories.make_job()
    factories.make_undispatched(lost.pk)
    factories.complete(factories.claim(done))
    redis_elsewhere("redis://127.0.0.1:1/0")
    assert "the broker is away" in requeue()
    assert Job.objects.get(pk=done.pk).status == "completed"


# --- the sweeper process ---


@pytest.fixture
def sweeper_process() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Run `--every` in this thread while another thread acts; SIGTERM ends it then."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    handlers = [signal.getsignal(number) for number in numbers]

    def run(act: Callable[[], None]) -> None:
        failures: list[BaseException] = []

        def act_and_end() -> None:
            try:
                act()
            except BaseException as failure:
                failures.append(failure)
            finally:
                connection.close()
                wait_until(lambda: signal.getsignal(signal.SIGTERM) is not handlers[0])
                os.kill(os.getpid(), signal.SIGTERM)

        other = threading.Thread(target=act_and_end)
        other.start()
        call_command("requeue_pending", every=0.02)
        other.join()
        assert failures == []

    yield run
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


def test_that_it_sweeps_is_seen_until_it_ends(
    sweeper_process: Callable[[Callable[[], None]], None],
) -> None:
    sweeper_process(lambda: wait_until(lambda: sweepers() == 1))
    assert sweepers() == 0


def sweepers() -> int:
    return WorkerProcess.objects.alive_per_queue()[SWEEPER]


def delay_of(job: Job) -> str:
    return Job.objects.values_list("delay_reason", flat=True).get(pk=job.pk)


def test_when_the_broker_goes_away_after_the_dispatch_jobs_say_that_they_wait_for_it(
    sweeper_process: Callable[[Callable[[], None]], None], redis_elsewhere: Callable[[str], None]
) -> None:
    here = settings.BROKER_URL
    waiting, running = factories.make_job(), factories.make_job()
    factories.claim(running)

    def act() -> None:
        wait_until(lambda: broker().client.llen("dramatiq:chunks") == 1)
        redis_elsewhere("redis://127.0.0.1:1/0")
        wait_until(lambda: delay_of(waiting) == "queue_unavailable")
        redis_elsewhere(here)
        factories.claim(waiting, 0)
        wait_until(lambda: delay_of(waiting) == "")

    sweeper_process(act)
    assert delay_of(running) == ""
    kinds = JobEvent.objects.filter(job=waiting).order_by("sequence").values_list("type", flat=True)
    assert list(kinds) == ["job.submitted", "job.delayed", "chunk.started", "job.resumed"]


def test_when_the_broker_was_emptied_everything_is_sent_again(
    sweeper_process: Callable[[Callable[[], None]], None],
) -> None:
    factories.make_job(3)

    def act() -> None:
        for _ in range(2):
            wait_until(lambda: broker().client.llen("dramatiq:chunks") == 3)
            broker().client.flushdb()
        wait_until(lambda: broker().client.llen("dramatiq:chunks") == 3)

    sweeper_process(act)


@pytest.mark.parametrize("trouble", ["database away", "broker away"])
def test_until_a_round_came_through_the_next_sends_everything(
    sweeper_process: Callable[[Callable[[], None]], None],
    monkeypatch: pytest.MonkeyPatch,
    trouble: str,
) -> None:
    sent_everything: list[bool] = []

    def sweep(*_: object, everything: bool, **__: object) -> SweepReport:
        sent_everything.append(everything)
        if trouble == "database away" and len(sent_everything) == 1:
            raise OperationalError
        return SweepReport()

    def look() -> BrokerState:
        away = trouble == "broker away" and not sent_everything
        return BrokerState.AWAY if away else BrokerState.READY

    monkeypatch.setattr(requeue_pending, "sweep", sweep)
    monkeypatch.setattr(requeue_pending, "look_at_broker", look)
    sweeper_process(lambda: wait_until(lambda: len(sent_everything) >= 3))
    assert sent_everything[:3] == [True, True, False]


def test_ten_at_once_do_no_harm() -> None:
    jobs = [factories.make_job(2) for _ in range(3)]
    done = factories.make_job()
    factories.complete(factories.claim(done))
    outputs = together(*[requeue] * 10)
    assert all(isinstance(output, str) for output in outputs)
    assert sum("1 jobs finished" in output for output in outputs) == 1
    for job in jobs:
        assert list(job.chunks.values_list("status", "attempts")) == [("pending", 0)] * 2
