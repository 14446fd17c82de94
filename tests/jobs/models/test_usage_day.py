"""The sums of usage are those of the ledger, whatever becomes of the calls."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.db.models import Count, Q, Sum

from jobs.models import CallOutcome, EngineCall, UsageDay, count_deduplicated, database_time
from tests.helpers import together

pytestmark = pytest.mark.django_db

A_CALL = {"user_id": "alice", "engine": "openai", "index": 0, "audio_seconds": 30.0}


def call(**columns: Any) -> EngineCall:
    return EngineCall(job_id=uuid4(), **(A_CALL | {"price_usd": Decimal("0.003")} | columns))


def rows() -> list[tuple[Any, ...]]:
    """Every day that is not empty: user, engine, calls, unpriced calls, seconds, price."""
    days = UsageDay.objects.exclude(calls=0).order_by("user_id", "engine", "day")
    columns = ("user_id", "engine", "calls", "unpriced_calls", "seconds", "price_usd")
    return list(days.values_list(*columns))


def from_the_ledger() -> list[tuple[Any, ...]]:
    sums: Any = EngineCall.objects.counted().order_by("user_id", "engine")
    sums = sums.values_list("user_id", "engine").annotate(
        made=Count("pk"),
        unpriced=Count("pk", filter=Q(price_usd=None)),
        sound=Sum("audio_seconds"),
        price=Sum("price_usd", default=Decimal(0)),
    )
    return list(sums)


def test_calls_count_by_user_engine_and_day_from_the_moment_they_are_opened() -> None:
    EngineCall.objects.open([call(), call(audio_seconds=12.0), call(user_id="bob", price_usd=None)])
    EngineCall.objects.open([call(), call(engine="deepgram")])
    assert rows() == [
        ("alice", "deepgram", 1, 0, 30.0, Decimal("0.003")),
        ("alice", "openai", 3, 0, 72.0, Decimal("0.009")),
        ("bob", "openai", 1, 1, 30.0, Decimal(0)),
    ]
    assert rows() == from_the_ledger()
    assert set(UsageDay.objects.values_list("day", flat=True)) == {database_time().date()}


@pytest.mark.parametrize(
    ("outcome", "code", "counts"),
    [
        (CallOutcome.ANSWERED, "", True),
        (CallOutcome.UNKNOWN, "engine_timeout", True),
        (CallOutcome.FAILED, "engine_bad_response", True),
        (CallOutcome.FAILED, "engine_error", False),
        (CallOutcome.REFUSED, "engine_refused", False),
    ],
)
def test_a_call_that_cost_nothing_counts_no_more_however_often_it_is_closed(
    outcome: CallOutcome, code: str, counts: bool
) -> None:
    closed, _ = EngineCall.objects.open([call(), call()])
    for _ in range(2):
        EngineCall.objects.filter(pk=closed.pk).close(outcome, error_code=code)
    assert rows()[0][2] == 1 + counts
    assert rows() == from_the_ledger()
    assert EngineCall.objects.get(pk=closed.pk).outcome == outcome


@pytest.mark.parametrize(
    ("price", "counts"), [(Decimal(0), False), (Decimal("0.003"), True), (None, True)]
)
def test_without_an_answer_only_what_may_be_billed_goes_on_counting(
    price: Decimal | None, counts: bool
) -> None:
    late, running = EngineCall.objects.open([call(price_usd=price), call(price_usd=price)])
    for _ in range(2):
        mine = EngineCall.objects.filter(pk=late.pk)
        mine.close(CallOutcome.UNKNOWN, error_code="engine_timeout")
    assert rows()[0][2] == 1 + counts
    assert rows() == from_the_ledger()
    EngineCall.objects.close_lost(running.job_id, running.index)
    EngineCall.objects.close_lost(running.job_id, running.index)
    assert sum(row[2] for row in rows()) == 2 * counts
    assert rows() == from_the_ledger()


def test_an_answer_of_a_worker_that_was_given_up_counts_no_more() -> None:
    (made,) = EngineCall.objects.open([call(price_usd=Decimal(0))])
    EngineCall.objects.close_lost(made.job_id, made.index)
    EngineCall.objects.filter(pk=made.pk).close(CallOutcome.ANSWERED)
    made.refresh_from_db()
    assert (made.outcome, made.error_code) == ("failed", "worker_crashed")
    assert rows() == from_the_ledger() == []


def test_a_call_that_was_not_made_is_taken_out_once() -> None:
    forgotten, _ = EngineCall.objects.open([call(), call()])
    for _ in range(2):
        EngineCall.objects.filter(pk=forgotten.pk).forget()
    assert rows() == from_the_ledger()
    assert rows()[0][2] == 1


def test_a_call_is_taken_out_of_the_day_on_which_it_was_made() -> None:
    late = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)
    early = late + timedelta(seconds=1)
    yesterdays, _ = EngineCall.objects.open([call(started_time=late), call(started_time=early)])
    EngineCall.objects.filter(pk=yesterdays.pk).close(CallOutcome.REFUSED)
    left = UsageDay.objects.order_by("day").values_list("day", "calls")
    assert [(f"{day}", calls) for day, calls in left] == [("2026-01-31", 0), ("2026-02-01", 1)]


def test_what_was_known_is_counted_beside_and_costs_nothing() -> None:
    EngineCall.objects.open([call()])
    count_deduplicated([("alice", "openai", 5.0), ("bob", "openai", 1.0), ("alice", "openai", 6.0)])
    count_deduplicated([])
    found = UsageDay.objects.order_by("user_id").values_list(
        "user_id", "calls", "seconds", "deduplicated_seconds", "price_usd"
    )
    assert list(found) == [
        ("alice", 1, 30.0, 11.0, Decimal("0.003")),
        ("bob", 0, 0.0, 1.0, Decimal(0)),
    ]


def test_what_is_rolled_back_does_not_count() -> None:
    with transaction.atomic():
        EngineCall.objects.open([call()])
        transaction.set_rollback(True)
    assert rows() == []


@pytest.mark.django_db(transaction=True)
def test_many_at_once_lose_nothing_and_do_not_wait_for_each_other_in_a_circle() -> None:
    def open_and_close(number: int) -> None:
        users = ["alice", "bob", "carol"]
        if number % 2:
            users.reverse()
        for _ in range(5):
            with transaction.atomic():
                made = EngineCall.objects.open([call(user_id=user) for user in users])
            EngineCall.objects.filter(pk=made[0].pk).close(CallOutcome.FAILED)
            count_deduplicated([(user, "openai", 1.0) for user in users])

    assert together(*[lambda n=n: open_and_close(n) for n in range(10)]) == [None] * 10
    assert rows() == from_the_ledger()
    assert sum(row[2] for row in rows()) == 10 * 5 * 2


def test_the_migration_counts_what_the_ledger_held_before() -> None:
    EngineCall.objects.open([call(), call(price_usd=None), call(user_id="bob")])
    for outcome, code in [("failed", "engine_error"), ("failed", "engine_bad_response")]:
        (closed,) = EngineCall.objects.open([call()])
        EngineCall.objects.filter(pk=closed.pk).close(CallOutcome(outcome), error_code=code)
    counted = rows()
    UsageDay.objects.all().delete()
    migration = importlib.import_module("jobs.migrations.0004_limits_and_usage")
    migration.sum_up_the_ledger(None, SimpleNamespace(connection=connection))
    assert rows() == counted == from_the_ledger()
