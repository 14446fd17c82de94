"""Caps on spending: no call passes one, not even of many at once; its chunk waits."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from asr.errors import EngineUnavailable
from asr.types import AudioInfo
from jobs import pipeline, recognitions, spending
from jobs.attempts import Again, Attempt
from jobs.models import (
    EVERYBODY,
    Chunk,
    EngineCall,
    Job,
    JobEvent,
    SpendingMeter,
    UsageDay,
    UserLimits,
    from_now,
)
from tests import factories
from tests.helpers import together, together_in_a_group
from tests.scripted import ScriptedEngine

pytestmark = pytest.mark.django_db
A_CALL = Decimal("0.003")  # 0.3 s of sound at 0.6 USD a minute


@pytest.fixture(autouse=True)
def priced(script: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    able = replace(script.capabilities, price_per_minute=0.6)
    monkeypatch.setattr(script, "capabilities", able)
    return script


def job_with_audio(chunks: int = 1, **columns: Any) -> Job:
    job = factories.make_job(chunks, **columns)
    for chunk in job.chunks.all():
        path = f"{job.user_id}/{job.pk}/{chunk.index}.wav"
        Chunk.objects.filter(pk=chunk.pk).update(audio_path=factories.put_audio(path))
    return job


def spend(usd: str, user_id: str = "alice", **columns: Any) -> None:
    """What calls before cost, at the ledger's price."""
    values = {"user_id": user_id, "engine": "scripted", "index": 0, "audio_seconds": 60.0}
    job = {"job_id": factories.make_job(user_id=user_id).pk}
    with transaction.atomic():
        EngineCall.objects.open([EngineCall(**values, **job, price_usd=Decimal(usd), **columns)])


def spent() -> Decimal:
    return sum((call.price_usd or Decimal(0) for call in EngineCall.objects.all()), Decimal(0))


def test_a_call_that_would_pass_the_cap_is_not_made_and_its_chunk_waits_at_no_cost(
    priced: ScriptedEngine, settings: Any
) -> None:
    settings.SPENDING_CAP_USD_PER_MONTH = Decimal("0.01")
    spend("0.0075")
    job = job_with_audio()
    again = pipeline.transcribe(job.pk, 0)
    assert isinstance(again, Again)
    assert not again.counted
    assert (priced.calls, EngineCall.objects.count()) == ([], 1)
    chunk = job.chunks.get()
    assert (chunk.status, chunk.attempts, chunk.errors) == ("pending", 0, 0)
    assert not Chunk.objects.due().filter(pk=chunk.pk).exists()
    job.refresh_from_db()
    assert (job.status, job.delay_reason) == ("in_progress", "engine_unavailable")


def test_a_call_that_just_fits_is_made(priced: ScriptedEngine, settings: Any) -> None:
    settings.SPENDING_CAP_USD_PER_MONTH = Decimal("0.01")
    spend("0.007")
    assert pipeline.transcribe(job_with_audio().pk, 0) is None
    assert len(priced.calls) == 1
    assert spent() == Decimal("0.01")


def test_while_it_is_closed_a_chunk_waits_without_being_claimed(
    priced: ScriptedEngine, settings: Any
) -> None:
    settings.SPENDING_CAP_USD_PER_MONTH = Decimal("0.00")
    job = job_with_audio()
    for _ in range(3):
        assert pipeline.transcribe(job.pk, 0) is not None
        factories.make_due(job.pk)
    types = list(JobEvent.objects.filter(job=job).values_list("type", flat=True))
    assert types == ["job.submitted", "chunk.started", "chunk.pending", "job.delayed"]
    assert priced.calls == []


def test_a_cap_that_is_raised_is_open_again(priced: ScriptedEngine, settings: Any) -> None:
    settings.SPENDING_CAP_USD_PER_MONTH = Decimal("0.00")
    job = job_with_audio()
    assert pipeline.transcribe(job.pk, 0) is not None
    factories.make_due(job.pk)
    settings.SPENDING_CAP_USD_PER_MONTH = Decimal("0.01")
    assert pipeline.transcribe(job.pk, 0) is None
    job.refresh_from_db()
    assert (job.status, job.delay_reason) == ("completed", "")


def test_a_new_month_begins_with_nothing_spent(priced: ScriptedEngine, settings: Any) -> None:
    settings.SPENDING_CAP_USD_PER_MONTH = Decimal("0.01")
    last_month = from_now(-timedelta(days=32))
    spend("0.01", started_time=last_month)
    SpendingMeter.objects.create(
        scope=EVERYBODY,
        month="2020-01-01",
        warned_at_usd=Decimal("0.01"),
        closed_at_usd=Decimal("0.01"),
    )
    assert pipeline.transcribe(job_with_audio().pk, 0) is None
    assert len(priced.calls) == 1


def test_each_user_has_a_cap_and_one_may_have_another(
    priced: ScriptedEngine, settings: Any
) -> None:
    settings.SPENDING_CAP_USER_USD_PER_MONTH = Decimal("0.00")
    UserLimits.objects.create(user_id="bob", spending_per_month_usd=Decimal("0.01"))
    ours, bobs = job_with_audio(), job_with_audio(4, user_id="bob")
    assert pipeline.transcribe(ours.pk, 0) is not None
    made = [pipeline.transcribe(bobs.pk, index) is None for index in range(4)]
    assert made == [True, True, True, False]
    assert len(priced.calls) == 3


def test_a_cap_of_one_user_alone_needs_no_setting(priced: ScriptedEngine) -> None:
    UserLimits.objects.create(user_id="alice", spending_per_month_usd=Decimal(0))
    assert pipeline.transcribe(job_with_audio().pk, 0) is not None
    assert pipeline.transcribe(job_with_audio(user_id="bob").pk, 0) is None


def test_words_that_are_known_and_engines_that_are_free_go_on(
    priced: ScriptedEngine, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, same, other = job_with_audio(), job_with_audio(), job_with_audio()
    path = first.chunks.get().audio_path
    same.chunks.update(audio_path=path)
    assert pipeline.transcribe(first.pk, 0) is None
    settings.SPENDING_CAP_USD_PER_MONTH = Decimal("0.00")
    assert pipeline.transcribe(same.pk, 0) is None
    assert same.chunks.get().deduplicated
    free = replace(priced.capabilities, price_per_minute=0.0)
    monkeypatch.setattr(priced, "capabilities", free)
    assert pipeline.transcribe(other.pk, 0) is None
    used = UsageDay.objects.get()
    assert used.calls == 2
    assert used.deduplicated_seconds == pytest.approx(0.3)


def test_the_operators_price_goes_before_the_engines(priced: ScriptedEngine, settings: Any) -> None:
    settings.ENGINE_PRICES = {"scripted": 60.0}
    assert pipeline.transcribe(job_with_audio().pk, 0) is None
    assert EngineCall.objects.get().price_usd == Decimal("0.3")


def test_a_call_that_failed_at_no_cost_leaves_its_room_to_others(
    priced: ScriptedEngine, settings: Any
) -> None:
    settings.SPENDING_CAP_USD_PER_MONTH = A_CALL.quantize(Decimal("0.01"), "ROUND_UP")
    priced.steps = [EngineUnavailable("engine_error", "no")] * 3
    job = job_with_audio()
    while pipeline.transcribe(job.pk, 0) is not None:
        factories.make_due(job.pk)
    assert (len(priced.calls), UsageDay.objects.get().calls) == (4, 1)


# --- at the same moment ---


def attempt_of(user_id: str = "alice", seconds: float = 60.0) -> Attempt:
    """A claimed chunk whose sound nobody knows, its file opened."""
    job = factories.make_job(user_id=user_id)
    info = AudioInfo(duration_seconds=seconds, container="wav", digest=job.pk.hex * 2)
    engine = ScriptedEngine()
    return Attempt(claim=factories.claim(job), info=info, engine=engine)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "begun", [together, partial(together_in_a_group, recognitions._beginnings)]
)
def test_many_calls_at_once_pass_no_cap(settings: Any, begun: Any) -> None:
    settings.SPENDING_CAP_USD_PER_MONTH = Decimal("4.50")  # 7 calls of 0.6 USD
    settings.SPENDING_CAP_USER_USD_PER_MONTH = Decimal("3.00")  # 5
    attempts = [attempt_of(user) for user in ("alice", "bob") for _ in range(8)]
    found = begun(*[partial(recognitions.begin, attempt) for attempt in attempts])
    made = [attempt for attempt, again in zip(attempts, found, strict=True) if again is None]
    assert len(made) == 7
    assert {type(again) for again in found} == {Again, type(None)}
    assert spent() == Decimal("4.2")
    for user in ("alice", "bob"):
        assert sum(attempt.claim.user_id == user for attempt in made) <= 5
    waiting = Chunk.objects.pending().filter(attempts=0)
    assert waiting.count() == 16 - 7


@pytest.mark.django_db(transaction=True)
def test_processes_that_commit_one_by_one_pass_no_cap_either(settings: Any) -> None:
    """Each thread in a transaction of its own, as if it were another process's."""
    settings.SPENDING_CAP_USD_PER_MONTH = Decimal("3.00")
    attempts = [attempt_of() for _ in range(12)]

    def begin_alone(attempt: Attempt) -> None:
        wish = recognitions._Beginning(attempt=attempt, key=recognitions._key(attempt))
        recognitions._begin_all([wish])

    results = together(*[partial(begin_alone, attempt) for attempt in attempts])
    assert results == [None] * 12
    assert sum(attempt.call_id is not None for attempt in attempts) == 5
    assert spent() == Decimal(3)


# --- what is told ---


@pytest.mark.django_db(transaction=True)
def test_80_percent_are_told_once_for_each_month_and_cap_and_so_is_the_end(
    priced: ScriptedEngine, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.SPENDING_CAP_USD_PER_MONTH = Decimal("0.02")
    spend("0.009")
    caplog.set_level(logging.WARNING, "jobs.spending")
    told = []
    for _ in range(6):
        pipeline.transcribe(job_with_audio().pk, 0)
        told.append(len(caplog.messages))
    assert told == [0, 0, 1, 2, 2, 2]  # 0.012, 0.015, 0.018, and no more
    assert caplog.messages == [
        "The spending cap of 0.02 USD a month of everybody is used to 80 %",
        "The spending cap of 0.02 USD a month of everybody is reached: calls wait",
    ]
    settings.SPENDING_CAP_USD_PER_MONTH = Decimal("0.03")
    (standing,) = spending.standings({EVERYBODY: Decimal("0.03")})
    assert (standing.near, standing.closed, standing.percent) == (False, False, 60)
    assert spending.near() == []


# --- what it costs ---


@pytest.mark.django_db(transaction=True)
def test_without_caps_no_statement_is_made_for_them() -> None:
    def statements() -> list[str]:
        attempt = attempt_of()
        with CaptureQueriesContext(connection) as captured:
            assert recognitions.begin(attempt) is None
            assert spending.standings(spending.caps_of(["alice"])) == []
        return [query["sql"] for query in captured]

    made = statements()
    assert not [sql for sql in made if "meter" in sql or "userlimits" in sql]
    assert sum("jobs_usageday" in sql for sql in made) == 1


@pytest.mark.parametrize("users", [1, 5])
def test_however_many_calls_are_begun_they_are_compared_by_the_same_statements(
    settings: Any, users: int
) -> None:
    settings.SPENDING_CAP_USD_PER_MONTH = Decimal(100)
    settings.SPENDING_CAP_USER_USD_PER_MONTH = Decimal(100)
    values = {"job_id": factories.make_job().pk, "engine": "scripted", "index": 0}
    calls = [
        EngineCall(user_id=f"user{n % users}", audio_seconds=1.0, price_usd=A_CALL, **values)
        for n in range(20)
    ]
    spending.within_caps(calls)  # it makes the meters
    with CaptureQueriesContext(connection) as captured:
        assert spending.within_caps(calls) == set(range(20))
    assert len(captured) == 4  # meters, time, sums of users, sum of all


def test_a_stand_in_that_would_pass_the_cap_leaves_the_chunk_to_its_own_engine(
    priced: ScriptedEngine, settings: Any
) -> None:
    """Its own one may be back long before the month is over."""
    settings.SPENDING_CAP_USD_PER_MONTH = Decimal("0.00")
    job = job_with_audio()
    for _ in range(2):  # found when it is to be asked, and then before it is claimed
        again = pipeline.transcribe(job.pk, 0, "another")
        assert again is not None
        assert (again.engine, again.seconds < 60) == ("scripted", True)
        factories.make_due(job.pk)
    assert priced.calls == []
