"""Breakers in Redis, shared by processes; and what a chunk does while its engine is down."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings

from asr.breaker import CLOSED, FAILURES_TO_OPEN, Breaker, BreakerState, Call, Health
from asr.errors import (
    AudioRejected,
    ChildCrashed,
    ChildTimeout,
    EngineMisconfigured,
    EngineUnavailable,
)
from asr.service import TranscriptionService
from asr.types import Capabilities
from jobs import breakers, engines, interruption, pipeline
from jobs.attempts import Again, Attempt
from jobs.models import Chunk, Job, JobEvent, from_now
from jobs.redis_clients import impatient_client
from tests import factories
from tests.helpers import broker, together
from tests.scripted import ScriptedEngine

OPEN = BreakerState(open_until=9e12)
AWAY = "redis://127.0.0.1:1/0"


def job_with_audio(chunks: int = 1, **columns: Any) -> Job:
    job = factories.make_job(chunks, **columns)
    for chunk in job.chunks.all():
        factories.put_audio(chunk.audio_path)
    return job


def open_breaker(name: str = "scripted") -> None:
    for _ in range(FAILURES_TO_OPEN):
        with breakers.admit(name) as call:
            call.failed()
    assert breakers.state(name) == Health.OPEN


def let_window_pass() -> None:
    store = breakers.store()
    state, now = store.read("scripted")
    assert store.swap("scripted", state, BreakerState(open_until=now - 1))


# --- the store in Redis ---


@pytest.fixture
def shared() -> Iterator[breakers.SharedStore]:
    broker().client.delete("verbatim:breaker:x")
    yield breakers.SharedStore(impatient_client(settings.BROKER_URL))
    broker().client.delete("verbatim:breaker:x")


def test_a_state_is_kept_in_redis_and_swapped_only_from_what_it_was(
    shared: breakers.SharedStore,
) -> None:
    other = breakers.SharedStore(impatient_client(settings.BROKER_URL))
    assert shared.read("x")[0] == CLOSED
    assert shared.swap("x", CLOSED, OPEN)
    assert other.read("x")[0] == OPEN
    assert not other.swap("x", CLOSED, BreakerState(failures=1))
    probing = BreakerState(open_until=1e12, probe="me")
    assert other.swap("x", OPEN, probing)
    assert shared.read("x")[0] == probing
    assert 0 < broker().client.pttl("verbatim:breaker:x") <= 24 * 3600 * 1000
    assert shared.swap("x", probing, CLOSED)
    assert not broker().client.exists("verbatim:breaker:x")


def test_the_time_is_the_servers(shared: breakers.SharedStore) -> None:
    seconds, microseconds = broker().client.time()
    assert 0 <= shared.read("x")[1] - (seconds + microseconds / 1e6) < 5


def test_of_fifty_callers_at_the_same_moment_one_swap_wins(shared: breakers.SharedStore) -> None:
    states = [BreakerState(open_until=1e12, probe=str(n)) for n in range(50)]
    won = together(*[lambda state=state: shared.swap("x", CLOSED, state) for state in states])
    assert won.count(True) == 1
    assert shared.read("x")[0] == states[won.index(True)]


def test_without_redis_a_process_goes_on_with_what_it_knows(
    shared: breakers.SharedStore,
) -> None:
    assert shared.swap("x", CLOSED, OPEN)
    assert shared.read("x")[0] == OPEN
    away = breakers.SharedStore(impatient_client(AWAY))
    shared._read, shared._swap = away._read, away._swap
    assert shared.read("x")[0] == OPEN
    assert shared.swap("x", OPEN, CLOSED)
    assert shared.read("x")[0] == CLOSED
    assert not shared.swap("x", OPEN, CLOSED)


@pytest.mark.parametrize(
    "value", [b"nonsense", b"[1]", b'{"failures": 2}', b'{"no": "state"}', b"\xff"]
)
def test_a_value_that_is_no_state_of_ours_is_cleared_away(
    shared: breakers.SharedStore, value: bytes
) -> None:
    broker().client.set("verbatim:breaker:x", value)
    assert shared.read("x")[0] == CLOSED
    assert shared.swap("x", CLOSED, OPEN)


def test_when_redis_takes_nothing_a_process_goes_on_alone_for_a_while(
    shared: breakers.SharedStore,
) -> None:
    shared._swap = broker().client.register_script("return redis.error_reply('OOM it is full')")
    assert shared.swap("x", CLOSED, OPEN)
    assert shared.read("x")[0] == OPEN
    shared._alone_until = 0.0
    assert shared.read("x")[0] == CLOSED


PROBER = """
import django; django.setup()
from asr.breaker import Breaker
from jobs import breakers
breaker = Breaker("x", breakers.store(), window=60, probe_limit=60)
input()
print(sum(bool(breaker.admit().probe) for _ in range(20)))
"""


def test_of_four_processes_one_probes(shared: breakers.SharedStore) -> None:
    assert shared.swap("x", CLOSED, BreakerState(open_until=1.0))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROBER],
            cwd=settings.BASE_DIR,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "transcription_site.settings"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:  # all have started when the first line is read
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    probes = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sorted(probes) == [0, 0, 0, 1]


# --- a chunk whose engine is down ---


@pytest.mark.django_db
def test_failures_of_many_chunks_open_the_breaker_and_the_rest_waits_at_no_cost(
    script: ScriptedEngine,
) -> None:
    script.otherwise = EngineUnavailable("engine_error", "down")
    job = job_with_audio(FAILURES_TO_OPEN + 1)
    for index in range(FAILURES_TO_OPEN):
        again = pipeline.transcribe(job.pk, index)
        assert again is not None
        assert again.counted
    last = pipeline.transcribe(job.pk, FAILURES_TO_OPEN)
    assert last is not None
    assert not last.counted
    assert last.needs_message
    assert last.seconds <= settings.BREAKER_SECONDS * 1.25
    assert len(script.calls) == FAILURES_TO_OPEN
    chunk = Chunk.objects.get(job=job, index=FAILURES_TO_OPEN)
    assert (chunk.status, chunk.attempts, chunk.errors) == ("pending", 0, 0)
    early = from_now(timedelta(seconds=settings.BREAKER_SECONDS - 10))
    assert Chunk.objects.filter(pk=chunk.pk, not_before__gt=early).exists()
    job.refresh_from_db()
    assert job.delay_reason == "engine_unavailable"
    assert JobEvent.objects.filter(job=job, type="job.delayed").count() == 1


@pytest.mark.django_db
def test_a_probe_that_fails_costs_its_chunk_nothing_however_often(script: ScriptedEngine) -> None:
    job = job_with_audio()
    open_breaker()
    script.otherwise = EngineUnavailable("engine_timeout", "still down")
    for _ in range(6):
        let_window_pass()
        factories.make_due(job.pk)
        again = pipeline.transcribe(job.pk, 0)
        assert again is not None
        assert not again.counted
        assert breakers.state("scripted") == Health.OPEN
    assert len(script.calls) == 6
    chunk = Chunk.objects.get(job=job)
    assert (chunk.status, chunk.attempts, chunk.errors) == ("pending", 0, 0)
    assert chunk.error_code == "engine_timeout"


@pytest.mark.django_db
def test_a_probe_that_succeeds_closes_the_breaker_and_the_job_goes_on(
    script: ScriptedEngine,
) -> None:
    job = job_with_audio(2)
    open_breaker()
    assert pipeline.transcribe(job.pk, 0) is not None
    let_window_pass()
    factories.make_due(job.pk)
    assert pipeline.transcribe(job.pk, 0) is None
    assert breakers.state("scripted") == Health.CLOSED
    job.refresh_from_db()
    assert (job.status, job.delay_reason) == ("in_progress", "")
    assert pipeline.transcribe(job.pk, 1) is None
    job.refresh_from_db()
    assert (job.status, job.delay_reason) == ("completed", "")
    types = list(JobEvent.objects.filter(job=job).values_list("type", flat=True))
    assert types.count("job.delayed") == types.count("job.resumed") == 1


@pytest.mark.django_db
def test_a_probe_for_a_chunk_that_is_taken_is_left_to_the_next(script: ScriptedEngine) -> None:
    job = job_with_audio(2)
    factories.claim(job, 0)
    open_breaker()
    let_window_pass()
    assert pipeline.transcribe(job.pk, 0) is None
    assert breakers.would_admit("scripted")
    assert pipeline.transcribe(job.pk, 1) is None
    assert len(script.calls) == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    "answer",
    [
        EngineUnavailable("engine_error", "busy", retry_after=7.0),
        EngineMisconfigured("no such model"),
        AudioRejected("invalid_audio", "not for me"),
    ],
)
def test_an_engine_that_refuses_or_is_busy_is_not_down(
    script: ScriptedEngine, answer: Exception
) -> None:
    script.otherwise = answer
    job = job_with_audio(FAILURES_TO_OPEN * 2)
    for index in range(FAILURES_TO_OPEN * 2):
        pipeline.transcribe(job.pk, index)
    assert len(script.calls) == FAILURES_TO_OPEN * 2
    assert breakers.state("scripted") == Health.CLOSED


@pytest.mark.django_db
def test_files_that_are_no_audio_say_nothing_of_the_engine(script: ScriptedEngine) -> None:
    job = factories.make_job(FAILURES_TO_OPEN * 2)
    for chunk in job.chunks.all():
        factories.put_audio(chunk.audio_path, b"no audio" * 100)
    for index in range(FAILURES_TO_OPEN * 2):
        assert pipeline.transcribe(job.pk, index) is None
    assert breakers.state("scripted") == Health.CLOSED


@pytest.mark.django_db
@pytest.mark.parametrize("fault", [ChildTimeout(), ChildCrashed()])
def test_what_our_own_decoder_did_says_nothing_of_the_engine(
    script: ScriptedEngine, fault: Exception
) -> None:
    script.otherwise = fault
    job = job_with_audio(FAILURES_TO_OPEN)
    for index in range(FAILURES_TO_OPEN):
        assert pipeline.transcribe(job.pk, index) is not None
    assert breakers.state("scripted") == Health.CLOSED


@pytest.mark.django_db
@pytest.mark.parametrize(("granted", "state"), [(59.0, Health.CLOSED), (61.0, Health.OPEN)])
def test_a_time_out_counts_only_against_an_engine_that_was_given_time(
    script: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, granted: float, state: Health
) -> None:
    script.otherwise = EngineUnavailable("engine_timeout", "no answer")
    monkeypatch.setattr(Attempt, "remaining_seconds", property(lambda _: granted))
    job = job_with_audio(FAILURES_TO_OPEN)
    for index in range(FAILURES_TO_OPEN):
        assert pipeline.transcribe(job.pk, index) is not None
    assert breakers.state("scripted") == state


@pytest.mark.django_db
def test_an_engine_that_raises_what_nobody_expects_is_down(script: ScriptedEngine) -> None:
    script.otherwise = ValueError("a fault in the adapter")
    job = job_with_audio(FAILURES_TO_OPEN)
    for index in range(FAILURES_TO_OPEN):
        assert pipeline.transcribe(job.pk, index) is not None
    assert breakers.state("scripted") == Health.OPEN


@pytest.mark.django_db
def test_a_stop_while_the_breaker_is_told_drops_no_result(
    script: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_with_audio()
    open_breaker()
    let_window_pass()
    settle = Breaker.settle

    def stop_then_settle(breaker: Breaker, call: Call, outcome: str) -> None:
        interruption.interrupt()
        settle(breaker, call, outcome)

    monkeypatch.setattr(Breaker, "settle", stop_then_settle)
    try:
        assert pipeline.transcribe(job.pk, 0) is None
    finally:
        interruption.resume()
    assert Job.objects.get(pk=job.pk).status == "completed"
    assert breakers.state("scripted") == Health.CLOSED


@pytest.mark.django_db
def test_waiting_for_an_engine_gives_the_messages_their_patience_back(
    script: ScriptedEngine,
) -> None:
    job = job_with_audio()
    job.chunks.update(dispatches=6)
    open_breaker()
    assert pipeline.transcribe(job.pk, 0) is not None
    assert job.chunks.get().dispatches == 0


@pytest.mark.django_db
def test_a_chunk_that_is_gone_done_or_taken_does_not_wait_for_the_engine(
    script: ScriptedEngine, standing: ScriptedEngine
) -> None:
    done, gone, taken = factories.make_completed_job("x"), job_with_audio(), job_with_audio()
    gone_id = gone.pk
    gone.delete()
    factories.claim(taken)
    open_breaker()
    assert pipeline.transcribe(taken.pk, 0, "scripted") is None
    assert pipeline.transcribe(done.pk, 0, "scripted") is None
    assert pipeline.transcribe(gone_id, 0, "scripted") is None
    assert not JobEvent.objects.filter(type="job.delayed").exists()


def test_a_local_engine_has_no_breaker() -> None:
    for _ in range(FAILURES_TO_OPEN * 2):
        with breakers.admit("pocketsphinx") as call:
            assert call.admitted
            call.failed()
    assert breakers.state("pocketsphinx") == Health.CLOSED


# --- engines that stand in ---


class Standing(ScriptedEngine):
    """Another engine, with other abilities."""

    name = "standing"
    capabilities = Capabilities(
        languages=frozenset({"en"}),
        words=True,
        vocabulary=False,
        diarization=False,
        runs_locally=True,
    )


@pytest.fixture
def standing(
    script: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> ScriptedEngine:
    """An engine that stands in for the scripted one."""
    other = Standing()
    known: dict[str, TranscriptionService] = {"scripted": script, "standing": other}

    def get(name: str) -> TranscriptionService:
        if name not in known:
            raise EngineMisconfigured("unknown")
        return known[name]

    monkeypatch.setattr(engines, "get", get)
    settings.ASR_FALLBACK = ("unknown", "standing")
    return other


@pytest.mark.django_db
def test_while_an_engine_is_down_another_stands_in(
    script: ScriptedEngine, standing: ScriptedEngine
) -> None:
    job = job_with_audio()
    open_breaker()
    again = pipeline.transcribe(job.pk, 0)
    assert again == Again(seconds=0.0, engine="standing")
    assert pipeline.transcribe(job.pk, 0, again.engine) is None
    assert (len(script.calls), len(standing.calls)) == (0, 1)
    job.refresh_from_db()
    assert (job.status, job.delay_reason, job.engine) == ("completed", "", "scripted")


def stand_in_in_vain(job: Job) -> None:
    """The chunk goes to the stand-in, which fails, and after a window back to its own engine."""
    assert pipeline.transcribe(job.pk, 0) == Again(seconds=0.0, engine="standing")
    again = pipeline.transcribe(job.pk, 0, "standing")
    assert again == Again(seconds=settings.BREAKER_SECONDS, engine="scripted")
    factories.make_due(job.pk)


@pytest.mark.django_db
def test_a_file_that_crashes_our_decoder_is_counted_also_while_another_engine_stands_in(
    script: ScriptedEngine, standing: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise ChildCrashed

    monkeypatch.setattr(pipeline, "inspect", crash)
    job = job_with_audio()
    open_breaker()
    again = pipeline.transcribe(job.pk, 0, "standing")
    assert again is not None
    assert (again.counted, again.engine) == (True, "scripted")
    assert Chunk.objects.get(job=job).errors == 1


@pytest.mark.django_db
@pytest.mark.parametrize("code", ["engine_timeout", "engine_error", "worker_crashed"])
def test_what_a_stand_in_fails_in_costs_nothing_and_the_next_attempt_is_by_the_jobs_own_engine(
    script: ScriptedEngine, standing: ScriptedEngine, code: str
) -> None:
    standing.otherwise = EngineUnavailable(code, "it could not")
    job = job_with_audio()
    open_breaker()
    for _ in range(5):
        stand_in_in_vain(job)
    chunk = Chunk.objects.get(job=job)
    assert (chunk.status, chunk.attempts, chunk.errors) == ("pending", 0, 0)
    assert (chunk.engine, chunk.error_code) == ("standing", code)
    asked = JobEvent.objects.filter(job=job, type="chunk.started").order_by("sequence")
    assert [event.data["engine"] for event in asked] == ["standing"] * 5
    let_window_pass()
    assert pipeline.transcribe(job.pk, 0) is None
    assert Chunk.objects.get(job=job).engine == "scripted"


@pytest.mark.django_db
def test_a_chunk_whose_probe_failed_goes_on_like_all_others(
    script: ScriptedEngine, standing: ScriptedEngine, settings: Any
) -> None:
    script.otherwise = EngineUnavailable("engine_error", "still down")
    job = job_with_audio(2)
    open_breaker()
    let_window_pass()
    again = pipeline.transcribe(job.pk, 0)
    assert again == Again(seconds=0.0, engine="scripted")
    again = pipeline.transcribe(job.pk, 0)
    assert again == Again(seconds=0.0, engine="standing")
    assert pipeline.transcribe(job.pk, 0, again.engine) is None
    assert (len(script.calls), len(standing.calls)) == (1, 1)

    settings.ASR_FALLBACK = ()
    let_window_pass()
    assert pipeline.transcribe(job.pk, 1) == Again(seconds=0.0, engine="scripted")
    again = pipeline.transcribe(job.pk, 1)
    assert again is not None
    assert (again.engine, again.seconds > 0) == ("scripted", True)
    job.refresh_from_db()
    assert job.delay_reason == "engine_unavailable"
    assert len(script.calls) == 2


@pytest.mark.django_db
def test_without_need_nobody_stands_in(script: ScriptedEngine, standing: ScriptedEngine) -> None:
    job = job_with_audio()
    assert pipeline.transcribe(job.pk, 0) is None
    assert (len(script.calls), len(standing.calls)) == (1, 0)


@pytest.mark.django_db
@pytest.mark.parametrize("options", [{"language": "de"}, {"vocabulary": ["x"]}, {"diarize": True}])
def test_an_engine_that_cannot_do_what_was_asked_does_not_stand_in(
    script: ScriptedEngine, standing: ScriptedEngine, options: dict[str, Any]
) -> None:
    job = job_with_audio(**options)
    open_breaker()
    again = pipeline.transcribe(job.pk, 0)
    assert again is not None
    assert (again.engine, again.seconds > 0) == ("scripted", True)


@pytest.mark.django_db
@pytest.mark.parametrize("local", [True, False])
def test_what_a_stand_in_lacks_costs_the_chunk_nothing_and_it_is_not_asked_for_ever(
    script: ScriptedEngine, standing: ScriptedEngine, local: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        standing, "capabilities", replace(standing.capabilities, runs_locally=local)
    )
    standing.otherwise = EngineMisconfigured("no key")
    job = job_with_audio()
    open_breaker()
    for _ in range(FAILURES_TO_OPEN):
        stand_in_in_vain(job)
    chunk = Chunk.objects.get(job=job)
    assert (chunk.status, chunk.attempts, chunk.errors) == ("pending", 0, 0)
    assert chunk.error_code == "engine_error"
    assert breakers.state("standing") == (Health.CLOSED if local else Health.OPEN)
    let_window_pass()
    assert pipeline.transcribe(job.pk, 0) is None
    assert len(script.calls) == 1
