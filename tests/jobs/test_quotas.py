"""Quotas: when a user may hand in nothing more, who is meant, and for how long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test.utils import CaptureQueriesContext

from jobs import actions, quotas
from jobs.models import EngineCall, Job, UserLimits, database_time
from jobs.quotas import QuotaExceeded
from jobs.submission import Refusal, Submission, SubmissionRefused, submit
from tests import factories
from tests.helpers import together
from tests.scripted import ScriptedEngine

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("script")]


def use(minutes: float, user_id: str = "alice", **columns: Any) -> EngineCall:
    values = {"user_id": user_id, "engine": "scripted", "index": 0, "audio_seconds": minutes * 60}
    job = factories.make_completed_job("word", user_id=user_id)
    (made,) = EngineCall.objects.open([EngineCall(job_id=job.pk, **(values | columns))])
    return made


def asked(user_id: str = "alice") -> Submission:
    return Submission(user_id=user_id, audio_paths=(factories.put_audio(f"{user_id}/a.wav"),))


def refusal(submission: Submission | None = None) -> Refusal | None:
    """Why it is refused; None when it is taken."""
    before = Job.objects.count()
    try:
        submit(submission or asked(), caller="robot")
    except SubmissionRefused as refused:
        assert Job.objects.count() == before
        (only,) = refused.refusals
        assert (only.code, only.attr) == ("quota_exceeded", None)
        return only
    return None


def seconds_until(moment: datetime) -> float:
    return (moment - database_time()).total_seconds()


def midnight() -> datetime:
    now = database_time()
    return datetime(now.year, now.month, now.day, tzinfo=UTC) + timedelta(days=1)


def test_a_day_that_is_used_up_ends_at_midnight(settings: Any) -> None:
    settings.QUOTA_MINUTES_PER_DAY = 10.0
    use(9.99)
    assert refusal() is None
    use(0.01)
    refused = refusal()
    assert refused is not None
    assert refused.detail == (
        "The quota of 10 minutes of sound a day is used up until the next day begins (UTC)."
    )
    assert refused.retry_after == pytest.approx(seconds_until(midnight()), abs=3)


def test_yesterday_does_not_count_for_the_day_but_for_the_month(settings: Any) -> None:
    settings.QUOTA_MINUTES_PER_DAY = 10.0
    settings.QUOTA_MINUTES_PER_MONTH = 30.0
    first = database_time().replace(day=1, hour=12)
    use(100, started_time=first - timedelta(days=1))
    assert refusal() is None
    use(30, started_time=first)
    refused = refusal()
    assert refused is not None
    assert "30 minutes of sound a month" in refused.detail
    assert refused.retry_after is not None
    assert refused.retry_after >= seconds_until(midnight()) - 3


def test_it_is_the_users_quota_whoever_hands_it_in_and_nobody_elses(settings: Any) -> None:
    settings.QUOTA_MINUTES_PER_DAY = 10.0
    use(10)
    assert refusal(asked("alice")) is not None
    assert refusal(asked("bob")) is None
    UserLimits.objects.create(user_id="alice", minutes_per_day=20.0)
    assert refusal(asked("alice")) is None


def test_a_users_own_quota_needs_no_setting() -> None:
    UserLimits.objects.create(user_id="alice", jobs_in_flight=0)
    assert refusal(asked("alice")) is not None
    assert refusal(asked("bob")) is None


def test_calls_that_failed_at_no_cost_use_up_nothing(settings: Any) -> None:
    settings.QUOTA_MINUTES_PER_DAY = 10.0
    EngineCall.objects.filter(pk=use(10).pk).close("failed", error_code="engine_error")  # type: ignore[arg-type]
    assert refusal() is None


def test_jobs_in_flight_are_counted_until_they_end(settings: Any) -> None:
    settings.QUOTA_JOBS_IN_FLIGHT = 2
    factories.make_completed_job("word")
    factories.make_job(user_id="bob")
    assert refusal() is None
    running = factories.make_job()
    refused = refusal()
    assert refused is not None
    assert "2 jobs in flight" in refused.detail
    assert refused.retry_after == 30
    actions.cancel(running.pk)
    assert refusal() is None


@pytest.mark.django_db(transaction=True)
def test_of_20_submissions_at_once_as_many_are_taken_as_there_is_room_for(settings: Any) -> None:
    settings.QUOTA_JOBS_IN_FLIGHT = 3
    submission = asked("alice")
    results = together(*[partial(submit, submission, caller=f"c{n}") for n in range(20)])
    refused = [result for result in results if isinstance(result, SubmissionRefused)]
    assert len(refused) == 17
    assert Job.objects.count() == 3


def test_a_refusal_keeps_no_upload_and_a_repeated_call_its_answer(
    settings: Any, audio_root: Path
) -> None:
    upload: Any = (SimpleUploadedFile("a.wav", factories.wav()),)
    submission = Submission(user_id="alice", uploads=upload)
    accepted = submit(submission, caller="alice", idempotency_key="k")
    settings.QUOTA_JOBS_IN_FLIGHT = 1
    files = sorted(audio_root.rglob("*"))
    again = submit(submission, caller="alice", idempotency_key="k")
    assert (again.job_id, again.created) == (accepted.job_id, False)
    with pytest.raises(SubmissionRefused):
        submit(submission, caller="alice", idempotency_key="other")
    assert sorted(audio_root.rglob("*")) == files
    actions.cancel(accepted.job_id)
    assert submit(submission, caller="alice", idempotency_key="other").created


def test_a_job_whose_calls_would_pass_a_cap_is_refused_and_a_free_one_is_not(
    settings: Any, script: ScriptedEngine
) -> None:
    settings.SPENDING_CAP_USD_PER_MONTH = Decimal(1)
    settings.ENGINE_PRICES = {"pocketsphinx": 0.1}  # the engine of jobs that name none
    use(10, "bob", price_usd=Decimal(1))
    refused = refusal()
    assert refused is not None
    assert refused.detail == (
        "The spending cap of the service is reached until the next month begins (UTC)."
    )
    assert refused.retry_after is not None
    settings.ENGINE_PRICES = {}
    assert refusal() is None
    settings.ENGINE_PRICES = {"pocketsphinx": 0.1}
    settings.SPENDING_CAP_USD_PER_MONTH = None
    settings.SPENDING_CAP_USER_USD_PER_MONTH = Decimal(1)
    assert refusal() is None
    refused = refusal(asked("bob"))
    assert refused is not None
    assert "of 1 USD is reached" in refused.detail


def test_what_is_not_limited_costs_no_statement(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        quotas.refuse_if_used_up("alice", costs=True)
        quotas.take_place("alice")


def test_jobs_in_flight_are_counted_no_further_than_the_quota(settings: Any) -> None:
    settings.QUOTA_JOBS_IN_FLIGHT = 2
    for _ in range(4):
        factories.make_job()
    with CaptureQueriesContext(connection) as captured, pytest.raises(QuotaExceeded):
        quotas.take_place("alice")
    assert "LIMIT 2" in captured[-1]["sql"]
