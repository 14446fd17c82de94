"""The same sound is asked for once, and every call of an engine is in the ledger."""

from __future__ import annotations

import threading
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from asr.errors import (
    AsrError,
    AudioRejected,
    ChildBusy,
    EngineMisconfigured,
    EngineUnavailable,
)
from asr.types import AudioRequest, Usage
from jobs import actions, pipeline, recognitions, tasks
from jobs.interruption import Stopping
from jobs.models import Chunk, EngineCall, Job, JobEvent
from tests import factories
from tests.helpers import WorkerInTest, together, wait_until
from tests.scripted import ScriptedEngine

pytestmark = pytest.mark.django_db


def job_with(*sounds: bytes, **columns: Any) -> Job:
    """A job of one file for each sound, its files already there."""
    job = factories.make_job(len(sounds), **columns)
    for chunk, sound in zip(job.chunks.order_by("index"), sounds, strict=True):
        path = f"{job.user_id}/{job.pk}/{chunk.index}.wav"
        Chunk.objects.filter(pk=chunk.pk).update(audio_path=factories.put_audio(path, sound))
    return job


def transcribe(job: Job) -> None:
    for index in range(job.chunks.count()):
        assert pipeline.transcribe(job.pk, index) is None


SOUND, OTHER = factories.wav(fill=1), factories.wav(fill=2)


# --- once ---


def test_a_second_chunk_with_the_same_sound_takes_the_words_of_the_first(
    script: ScriptedEngine,
) -> None:
    first, second = job_with(SOUND, OTHER), job_with(SOUND, OTHER)
    script.steps = ["hello", "world"]
    transcribe(first)
    transcribe(second)
    assert len(script.calls) == 2
    assert [chunk.text for chunk in second.chunks.order_by("index")] == ["hello", "world"]
    assert set(first.chunks.values_list("deduplicated", flat=True)) == {False}
    assert set(second.chunks.values_list("deduplicated", flat=True)) == {True}
    for name in ("text", "segments", "engine", "model", "language", "confidence"):
        ours, theirs = (job.chunks.order_by("index").values_list(name) for job in (first, second))
        assert list(ours) == list(theirs)
    assert EngineCall.objects.filter(job_id=second.pk).count() == 0


def test_of_many_that_took_the_same_words_one_is_read(script: ScriptedEngine) -> None:
    for _ in range(6):
        transcribe(job_with(SOUND))
    (known,) = recognitions._completed(set(Chunk.objects.values_list("recognition_key", flat=True)))
    assert known.pk == min(Chunk.objects.values_list("pk", flat=True))
    assert not known.deduplicated


def test_the_same_sound_in_another_container_is_the_same_sound(script: ScriptedEngine) -> None:
    with_more_header = SOUND[:36] + b"note\x02\0\0\0hi" + SOUND[36:]
    transcribe(job_with(SOUND, with_more_header))
    assert len(script.calls) == 1


@pytest.mark.parametrize(
    "columns",
    [{"user_id": "bob"}, {"language": "de"}, {"vocabulary": ["Kubernetes"]}, {"diarize": True}],
)
def test_another_user_or_another_question_is_another_call(
    script: ScriptedEngine, columns: dict[str, Any]
) -> None:
    transcribe(job_with(SOUND))
    transcribe(job_with(SOUND, **columns))
    assert len(script.calls) == 2


@pytest.mark.parametrize("attribute", ["model", "variant"])
def test_another_model_or_server_is_another_call(
    script: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, attribute: str
) -> None:
    transcribe(job_with(SOUND))
    monkeypatch.setattr(script, attribute, "a newer one")
    transcribe(job_with(SOUND))
    assert len(script.calls) == 2


@pytest.mark.parametrize(("whose", "calls"), [("user", 2), ("everyone", 1), ("off", 4)])
def test_a_setting_says_whose_words_are_taken(
    script: ScriptedEngine, settings: Any, whose: str, calls: int
) -> None:
    settings.DEDUPLICATE = whose
    for user in ("alice", "alice", "bob", "bob"):
        transcribe(job_with(SOUND, user_id=user))
    assert len(script.calls) == calls


def test_what_was_deleted_is_forgotten(script: ScriptedEngine) -> None:
    first = job_with(SOUND)
    transcribe(first)
    actions.delete(first.pk)
    transcribe(job_with(SOUND))
    assert len(script.calls) == 2


def test_an_error_is_not_remembered(script: ScriptedEngine) -> None:
    script.steps = [AudioRejected("invalid_audio", "no"), "hello"]
    transcribe(job_with(SOUND, SOUND))
    assert len(script.calls) == 2
    assert sorted(Chunk.objects.values_list("status", flat=True)) == ["completed", "failed"]


def test_sound_that_is_too_short_to_be_heard_is_no_call(script: ScriptedEngine) -> None:
    transcribe(job_with(factories.wav(0.05)))
    assert (len(script.calls), EngineCall.objects.count()) == (0, 0)


# --- at the same moment ---


@pytest.mark.django_db(transaction=True)
def test_while_one_asks_the_other_waits_at_no_cost_and_then_takes_its_words(
    script: ScriptedEngine,
) -> None:
    first, second = job_with(SOUND), job_with(SOUND)
    asked, go_on = threading.Event(), threading.Event()

    def answer(_: AudioRequest) -> str:
        asked.set()
        assert go_on.wait(30)
        return "hello"

    script.otherwise = answer

    def ask() -> object:
        return pipeline.transcribe(first.pk, 0)

    def wait() -> list[object]:
        assert asked.wait(30)
        met: list[object] = []
        for _ in range(3):
            again = pipeline.transcribe(second.pk, 0)
            assert again is not None
            met.append((again.counted, again.engine, 1.0 <= again.seconds <= 2.0))
            factories.make_due(second.pk)
        chunk = second.chunks.get()
        met.append((chunk.status, chunk.attempts, chunk.errors))
        started = JobEvent.objects.filter(job=second, type="chunk.started").count()
        go_on.set()
        return [*met, started]

    none, met = together(ask, wait)
    assert none is None
    assert met == [(False, "scripted", True)] * 3 + [("pending", 0, 0), 1]
    assert pipeline.transcribe(second.pk, 0) is None
    assert len(script.calls) == 1
    assert second.chunks.get().text == "hello"
    assert Job.objects.get(pk=second.pk).status == "completed"


@pytest.mark.django_db(transaction=True)
def test_when_the_one_that_asked_fails_the_other_asks(script: ScriptedEngine) -> None:
    first, second = job_with(SOUND), job_with(SOUND)

    def fail(_: AudioRequest) -> EngineUnavailable:
        assert pipeline.transcribe(second.pk, 0) is not None  # it meets the first at work
        return EngineUnavailable("engine_error", "no")

    script.steps = [fail, "hello"]
    assert pipeline.transcribe(first.pk, 0) is not None
    factories.make_due(second.pk)
    assert pipeline.transcribe(second.pk, 0) is None
    assert second.chunks.get().text == "hello"
    factories.make_due(first.pk)
    assert pipeline.transcribe(first.pk, 0) is None
    assert len(script.calls) == 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("redis_is_empty")
def test_two_jobs_of_the_same_24_sounds_at_once_make_24_calls(
    script: ScriptedEngine, worker: WorkerInTest
) -> None:
    sounds = [factories.wav(0.2, fill=n + 1) for n in range(24)]
    jobs = [job_with(*sounds), job_with(*sounds)]
    script.otherwise = lambda request: f"part-{request.info.digest[:8]}"
    together(*[lambda job=job: tasks.dispatch(job.pk) for job in jobs])
    worker.start()
    wait_until(lambda: not Job.objects.exclude(status="completed").exists(), seconds=60)
    assert len(script.calls) == 24
    texts = [[chunk.text for chunk in job.chunks.order_by("index")] for job in jobs]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) == 24
    assert Chunk.objects.filter(deduplicated=True).count() == 24
    assert set(Chunk.objects.values_list("attempts", flat=True)) == {1}
    assert EngineCall.objects.filter(outcome="answered").count() == 24


def test_a_chunk_whose_claim_is_over_asks_nobody(
    script: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_with(SOUND)
    opened = pipeline._open

    def cancelled_meanwhile(attempt: Any) -> None:
        opened(attempt)
        actions.cancel(job.pk)

    monkeypatch.setattr(pipeline, "_open", cancelled_meanwhile)
    assert pipeline.transcribe(job.pk, 0) is None
    assert (len(script.calls), EngineCall.objects.count()) == (0, 0)


# --- the ledger ---


@pytest.fixture
def priced(script: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    able = replace(script.capabilities, price_per_minute=0.6)
    monkeypatch.setattr(script, "capabilities", able)
    return script


def test_a_call_is_in_the_ledger_before_it_is_made_and_completed_after_it(
    priced: ScriptedEngine,
) -> None:
    seen: list[Any] = []

    def look(_: AudioRequest) -> Any:
        seen.extend(EngineCall.objects.values_list("outcome", "ended_time"))
        usage = Usage(seconds=1.0, input_tokens=12, output_tokens=3)
        return replace(factories.recognition("word"), usage=usage)

    priced.otherwise = look
    job = job_with(SOUND)
    transcribe(job)
    assert seen == [("unknown", None)]
    call = EngineCall.objects.get()
    assert (call.job_id, call.index, call.user_id) == (job.pk, 0, "alice")
    assert (call.engine, call.model, call.outcome) == ("scripted", "m", "answered")
    assert call.audio_seconds == pytest.approx(0.3)
    assert call.price_usd == Decimal("0.003")
    assert (call.billed_seconds, call.input_tokens, call.output_tokens) == (1.0, 12, 3)
    assert call.ended_time is not None
    assert call.started_time <= call.ended_time


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (EngineUnavailable("engine_error", "no"), "failed"),
        (EngineUnavailable("engine_timeout", "no"), "unknown"),
        (EngineUnavailable("engine_error", "broke", answer_lost=True), "unknown"),
        (EngineMisconfigured("no"), "refused"),
        (AudioRejected("invalid_audio", "no"), "refused"),
    ],
)
def test_a_call_that_fails_says_how(script: ScriptedEngine, error: AsrError, outcome: str) -> None:
    script.otherwise = error
    pipeline.transcribe(job_with(SOUND).pk, 0)
    call = EngineCall.objects.get()
    assert (call.outcome, call.error_code, call.price_usd) == (outcome, error.code, None)


def test_a_call_that_a_busy_engine_did_not_take_is_none(script: ScriptedEngine) -> None:
    script.steps = [EngineUnavailable("engine_error", "busy", retry_after=3.0), ChildBusy()]
    job = job_with(SOUND)
    for _ in range(2):
        assert pipeline.transcribe(job.pk, 0) is not None
        assert EngineCall.objects.count() == 0
        factories.make_due(job.pk)
    transcribe(job)
    assert EngineCall.objects.get().outcome == "answered"


@pytest.mark.parametrize("nonsense", [-1, 10**20])
def test_nonsense_among_a_vendors_counts_does_not_cost_the_transcript(
    script: ScriptedEngine, nonsense: int
) -> None:
    usage = Usage(input_tokens=nonsense, output_tokens=5)
    script.otherwise = lambda _: replace(factories.recognition("word"), usage=usage)
    job = job_with(SOUND)
    transcribe(job)
    assert job.chunks.get().text == "word"
    call = EngineCall.objects.get()
    assert (call.outcome, call.input_tokens, call.output_tokens) == ("answered", None, 5)


def test_each_attempt_is_a_row(script: ScriptedEngine) -> None:
    script.steps = [EngineUnavailable("engine_error", "no")] * 2
    job = job_with(SOUND)
    while pipeline.transcribe(job.pk, 0) is not None:
        factories.make_due(job.pk)
    outcomes = EngineCall.objects.order_by("pk").values_list("outcome", flat=True)
    assert list(outcomes) == ["failed", "failed", "answered"]


def test_a_call_whose_answer_was_lost_stays_unknown(script: ScriptedEngine) -> None:
    script.steps = [Stopping()]
    job = job_with(SOUND)
    with pytest.raises(Stopping):
        pipeline.transcribe(job.pk, 0)
    assert list(EngineCall.objects.values_list("outcome", "ended_time")) == [("unknown", None)]
    transcribe(job)
    assert sorted(EngineCall.objects.values_list("outcome", flat=True)) == ["answered", "unknown"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("end", [actions.cancel, actions.delete])
def test_an_answer_that_comes_too_late_was_paid_all_the_same(
    script: ScriptedEngine, end: Any
) -> None:
    job = job_with(SOUND)

    def too_late(_: AudioRequest) -> str:
        end(job.pk)
        return "late"

    script.otherwise = too_late
    assert pipeline.transcribe(job.pk, 0) is None
    assert EngineCall.objects.get().outcome == "answered"


# --- an engine's limits ---


@pytest.mark.parametrize("limit", [{"max_seconds": 0.2}, {"max_bytes": 1000}])
def test_a_file_beyond_what_the_engine_takes_is_refused_before_it_is_asked(
    script: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, limit: dict[str, Any]
) -> None:
    monkeypatch.setattr(script, "capabilities", replace(script.capabilities, **limit))
    job = job_with(SOUND)
    assert pipeline.transcribe(job.pk, 0) is None
    assert job.chunks.get().error_code == "audio_too_long"
    assert (len(script.calls), EngineCall.objects.count()) == (0, 0)


# --- what was spoken before ---


def test_an_engine_learns_what_most_of_the_chunks_before_were_spoken_in(
    script: ScriptedEngine,
) -> None:
    job = job_with(*[factories.wav(fill=n + 1) for n in range(4)])
    languages = iter(["de", "fr", "de"])
    script.otherwise = lambda _: replace(factories.recognition("x"), language=next(languages, "it"))
    for index in (3, 0, 1, 2):
        assert pipeline.transcribe(job.pk, index) is None
    # The last one came first: what follows a chunk is not asked.
    assert [call.expected_language for call in script.calls] == [None, None, "fr", "fr"]
