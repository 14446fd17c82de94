"""`manage.py requeue_pending`: safe at any time and many times at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command

from jobs.models import Chunk, Job, from_now
from tests import factories
from tests.helpers import broker, together

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


def test_ten_at_once_do_no_harm() -> None:
    jobs = [factories.make_job(2) for _ in range(3)]
    done = factories.make_job()
    factories.complete(factories.claim(done))
    outputs = together(*[requeue] * 10)
    assert all(isinstance(output, str) for output in outputs)
    assert sum("1 jobs finished" in output for output in outputs) == 1
    for job in jobs:
        assert list(job.chunks.values_list("status", "attempts")) == [("pending", 0)] * 2
