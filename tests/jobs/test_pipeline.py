"""One chunk's way: claim, open, check, recognise, write; and the end of its job."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.db.models import Q
from django.db.utils import DataError, InterfaceError, OperationalError

from asr.errors import AsrError, AudioRejected, EngineMisconfigured, EngineUnavailable
from asr.types import AudioRequest
from jobs import actions, attempts, claims, database, finishing, pipeline, recognitions, storage
from jobs.attempts import Again
from jobs.interruption import Stopping
from jobs.models import Chunk, EngineCall, Job, JobEvent, Transcript, from_now, iso_time
from jobs.sweeper import sweep
from tests import factories
from tests.helpers import together
from tests.scripted import ScriptedEngine

pytestmark = pytest.mark.django_db


def job_with_audio(chunks: int = 1, **columns: Any) -> Job:
    job = factories.make_job(chunks, **columns)
    for chunk in job.chunks.all():
        factories.put_audio(chunk.audio_path)
    return job


def chunk_of(job: Job, index: int = 0) -> Chunk:
    return Chunk.objects.get(job=job, index=index)


def status_of(job: Job) -> str:
    return str(Job.objects.values_list("status", flat=True).get(pk=job.pk))


def types_of(job: Job) -> list[str]:
    return list(
        JobEvent.objects.filter(job=job).order_by("sequence").values_list("type", flat=True)
    )


# --- success ---


def test_a_chunk_is_recognised_with_its_jobs_options_and_the_job_ends(
    script: ScriptedEngine,
) -> None:
    job = job_with_audio(language="en-GB", vocabulary=["Kubernetes"], diarize=True)
    script.steps = ["hello world"]
    assert pipeline.transcribe(job.pk, 0) is None
    (request,) = script.calls
    assert request.data == storage.read_audio(job.chunks.get().audio_path)
    assert request.info.duration_seconds == pytest.approx(0.3)
    assert (request.language, request.vocabulary, request.diarize) == (
        "en-GB",
        ("Kubernetes",),
        True,
    )
    chunk = chunk_of(job)
    assert (chunk.status, chunk.text, chunk.attempts, chunk.errors) == (
        "completed",
        "hello world",
        1,
        0,
    )
    assert (chunk.engine, chunk.model, chunk.language) == ("scripted", "m", "en")
    assert chunk.duration_seconds == pytest.approx(0.3)
    assert chunk.processing_seconds is not None
    assert chunk.processing_seconds > 0
    assert chunk.confidence == pytest.approx(0.5)
    assert status_of(job) == "completed"
    assert Transcript.objects.get(job=job).text == "hello world"
    assert types_of(job) == ["job.submitted", "chunk.started", "chunk.completed", "job.completed"]
    assert job.events.get(type="chunk.completed").data == {"index": 0, "text": "hello world"}


def test_real_speech_is_recognised_and_stitched_in_spoken_order() -> None:
    job = factories.make_job(2, engine="pocketsphinx")
    for index in (0, 4):
        factories.put_audio(f"alice/{index // 4:02d}.wav", factories.sample(index))
    for index in (1, 0):
        pipeline.transcribe(job.pk, index)
    transcript = Transcript.objects.get(job=job)
    heard = transcript.text.split()
    assert heard[:2] == ["the", "harbor"]
    said = " ".join(factories.MANIFEST[n]["text"] for n in (0, 4)).lower().replace(".", "")
    wrong = sum(word not in said.split() for word in heard)
    assert wrong <= len(heard) / 4
    assert 0.8 < len(heard) / len(said.split()) < 1.2
    assert transcript.duration_seconds == pytest.approx(4.74 + 3.54, abs=0.02)
    starts = [segment["start"] for segment in transcript.segments]
    assert starts == sorted(starts)
    assert starts[-1] > 4.74


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.099])
def test_hardly_any_samples_are_a_success_with_an_empty_text_and_no_engine_call(
    script: ScriptedEngine, seconds: float
) -> None:
    job = factories.make_job()
    factories.put_audio("alice/00.wav", factories.wav(seconds))
    assert pipeline.transcribe(job.pk, 0) is None
    assert script.calls == []
    chunk = chunk_of(job)
    assert (chunk.status, chunk.text, chunk.error_code) == ("completed", "", "")
    assert chunk.duration_seconds == pytest.approx(seconds, abs=0.001)
    assert status_of(job) == "completed"
    transcript = Transcript.objects.get(job=job)
    assert (transcript.text, transcript.gaps, transcript.segments) == ("", [], [])


def test_silence_is_a_success_with_an_empty_text() -> None:
    job = factories.make_job(engine="pocketsphinx")
    factories.put_audio("alice/00.wav", factories.wav(2.0))
    assert pipeline.transcribe(job.pk, 0) is None
    assert (status_of(job), Transcript.objects.get(job=job).text) == ("completed", "")


def test_an_engine_that_hears_nothing_completes_the_chunk(script: ScriptedEngine) -> None:
    job = job_with_audio()
    script.steps = [""]
    assert pipeline.transcribe(job.pk, 0) is None
    assert len(script.calls) == 1
    assert (chunk_of(job).status, chunk_of(job).confidence) == ("completed", None)
    assert status_of(job) == "completed"


def test_a_completed_attempt_after_an_error_leaves_no_error_behind(script: ScriptedEngine) -> None:
    job = job_with_audio()
    script.steps = [factories.passing(), "word"]
    assert pipeline.transcribe(job.pk, 0) is not None
    assert chunk_of(job).error_code == "engine_error"
    factories.make_due(job.pk)
    assert pipeline.transcribe(job.pk, 0) is None
    chunk = chunk_of(job)
    assert (chunk.error_code, chunk.error_detail, chunk.error_recoverable) == ("", "", None)
    assert (chunk.attempts, chunk.errors) == (2, 1)


def test_a_message_for_a_chunk_that_needs_nothing_does_nothing(script: ScriptedEngine) -> None:
    job = job_with_audio(2)
    pipeline.transcribe(job.pk, 0)
    before = list(Chunk.objects.filter(job=job).values())
    assert pipeline.transcribe(job.pk, 0) is None
    assert pipeline.transcribe(job.pk, 9) is None
    assert pipeline.transcribe(uuid4(), 0) is None
    assert list(Chunk.objects.filter(job=job).values()) == before
    assert len(script.calls) == 1
    assert status_of(job) == "in_progress"


# --- errors ---


def test_four_errors_fail_a_chunk_after_waits_that_double(script: ScriptedEngine) -> None:
    job = job_with_audio()
    script.otherwise = EngineUnavailable("engine_timeout", "too slow")
    waits = []
    for attempt in range(1, 5):
        factories.make_due(job.pk)
        waits.append(pipeline.transcribe(job.pk, 0))
        chunk = chunk_of(job)
        assert (chunk.attempts, chunk.errors, chunk.crashes) == (attempt, attempt, 0)
        assert (chunk.error_code, chunk.error_recoverable) == ("engine_timeout", True)
    assert waits[3] is None
    for wait, base in zip(waits[:3], (2, 4, 8), strict=True):
        assert wait is not None
        assert base <= wait.seconds <= base * 1.25
        assert wait.counted
    assert len(script.calls) == 4
    assert (chunk_of(job).status, status_of(job)) == ("failed", "failed")
    gap = {"index": 0, "startTime": 0.0, "durationSeconds": 0.3, "code": "engine_timeout"}
    assert Transcript.objects.get(job=job).gaps == [gap]
    factories.make_due(job.pk)
    assert pipeline.transcribe(job.pk, 0) is None
    assert len(script.calls) == 4


def test_the_row_waits_as_long_as_the_message(script: ScriptedEngine) -> None:
    job = job_with_audio()
    script.steps = [factories.passing()]
    wait = pipeline.transcribe(job.pk, 0)
    assert wait is not None
    rows = Chunk.objects.filter(job=job)
    assert not rows.filter(not_before__lte=from_now(timedelta(seconds=1))).exists()
    assert rows.filter(not_before__lte=from_now(timedelta(seconds=wait.seconds))).exists()
    assert pipeline.transcribe(job.pk, 0) is None
    assert len(script.calls) == 1
    data = job.events.get(type="chunk.pending").data
    assert data["error"] == {"code": "engine_error", "detail": "the engine stumbled"}
    assert data["notBefore"] == iso_time(rows.get().not_before), "by the clock that decides"
    assert not rows.lost().exists()


def test_a_wait_that_the_engine_asked_for_costs_nothing_however_often(
    script: ScriptedEngine,
) -> None:
    job = job_with_audio()
    script.steps = [
        EngineUnavailable("engine_error", "too many requests", retry_after=7.0) for _ in range(9)
    ]
    for _ in range(9):
        assert pipeline.transcribe(job.pk, 0) == Again(seconds=7.0, engine="scripted")
        chunk = chunk_of(job)
        assert (chunk.status, chunk.errors, chunk.crashes) == ("pending", 0, 0)
        early = Chunk.objects.filter(job=job, not_before__lte=from_now(timedelta(seconds=6)))
        assert not early.exists()
        factories.make_due(job.pk)
    assert pipeline.transcribe(job.pk, 0) is None
    assert (status_of(job), len(script.calls)) == ("completed", 10)


def test_the_engine_cannot_ask_for_no_wait_at_all(script: ScriptedEngine) -> None:
    job = job_with_audio()
    script.steps = [EngineUnavailable("engine_error", "busy", retry_after=0.0)]
    assert pipeline.transcribe(job.pk, 0) == Again(seconds=2.0, engine="scripted")


@pytest.mark.parametrize(
    "error",
    [
        AudioRejected("invalid_audio", "not audio"),
        AudioRejected("audio_too_long", "too long"),
        EngineMisconfigured("the key was refused"),
    ],
)
def test_a_permanent_refusal_is_one_call_and_a_failed_chunk(
    script: ScriptedEngine, error: AsrError
) -> None:
    job = job_with_audio(2)
    script.steps = [error]
    assert pipeline.transcribe(job.pk, 0) is None
    chunk = chunk_of(job)
    assert (chunk.status, chunk.attempts, chunk.errors) == ("failed", 1, 1)
    assert (chunk.error_code, chunk.error_recoverable) == (error.code, False)
    assert status_of(job) == "in_progress"
    factories.make_due(job.pk)
    assert pipeline.transcribe(job.pk, 0) is None
    assert len(script.calls) == 1


@pytest.mark.parametrize(
    "fault", [ValueError("secret /etc/passwd"), KeyError("x"), RuntimeError(), MemoryError()]
)
def test_an_unexpected_exception_is_an_engine_error_that_tells_no_secret(
    script: ScriptedEngine, fault: Exception
) -> None:
    job = job_with_audio()
    script.steps = [fault]
    assert pipeline.transcribe(job.pk, 0) is not None
    chunk = chunk_of(job)
    assert (chunk.status, chunk.error_code, chunk.errors) == ("pending", "engine_error", 1)
    assert chunk.error_recoverable is True
    assert "passwd" not in chunk.error_detail
    assert "Error" not in chunk.error_detail


def test_a_long_error_detail_is_cut(script: ScriptedEngine) -> None:
    job = job_with_audio()
    script.steps = [EngineUnavailable("engine_error", "x" * 5000)]
    pipeline.transcribe(job.pk, 0)
    assert chunk_of(job).error_detail == "x" * 500


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "invalid_audio"),
        (b"\x00" * 4000, "invalid_audio"),
        (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "invalid_audio"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "invalid_audio"),
        (factories.wav()[:44], None),
    ],
)
def test_what_is_no_audio_fails_once_and_reaches_no_engine(
    script: ScriptedEngine, data: bytes, code: str | None
) -> None:
    job = factories.make_job()
    factories.put_audio("alice/00.wav", data)
    assert pipeline.transcribe(job.pk, 0) is None
    assert script.calls == []
    chunk = chunk_of(job)
    assert (chunk.status, chunk.error_code) == (("failed", code) if code else ("completed", ""))
    assert chunk.attempts == 1


def test_time_that_the_database_took_before_the_call_costs_no_attempt(
    script: ScriptedEngine, settings: Any
) -> None:
    job, begin = job_with_audio(), recognitions.begin

    def begin_late(attempt: attempts.Attempt) -> Again | None:
        settings.ENGINE_DEADLINE_SECONDS = 0
        return begin(attempt)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recognitions, "begin", begin_late)
        assert pipeline.transcribe(job.pk, 0) is not None
    assert (script.calls, EngineCall.objects.count()) == ([], 0)
    chunk = chunk_of(job)
    assert (chunk.status, chunk.errors, chunk.attempts) == ("pending", 0, 0)
    settings.ENGINE_DEADLINE_SECONDS = 60
    factories.make_due(job.pk)
    pipeline.transcribe(job.pk, 0)
    assert status_of(job) == "completed"


def test_audio_over_the_longest_time_fails_once(script: ScriptedEngine, settings: Any) -> None:
    settings.AUDIO_MAX_SECONDS = 0.2
    job = job_with_audio()
    assert pipeline.transcribe(job.pk, 0) is None
    assert (chunk_of(job).error_code, chunk_of(job).error_recoverable) == ("audio_too_long", False)
    assert script.calls == []


def test_while_the_audio_root_is_away_chunks_wait_at_no_cost(
    script: ScriptedEngine, settings: Any
) -> None:
    job, root = job_with_audio(), settings.AUDIO_ROOT
    settings.AUDIO_ROOT = root / "unmounted"
    for _ in range(6):
        again = pipeline.transcribe(job.pk, 0)
        assert again is not None
        assert (again.counted, again.seconds) == (False, 10.0)
        factories.make_due(job.pk)
    chunk = chunk_of(job)
    assert (chunk.status, chunk.attempts, chunk.errors) == ("pending", 0, 0)
    assert chunk.error_code == "storage_unavailable"
    settings.AUDIO_ROOT = root
    assert pipeline.transcribe(job.pk, 0) is None
    assert status_of(job) == "completed"


def test_a_file_that_is_gone_is_tried_again(script: ScriptedEngine) -> None:
    job = factories.make_job()
    assert pipeline.transcribe(job.pk, 0) is not None
    chunk = chunk_of(job)
    assert (chunk.status, chunk.error_code, chunk.error_recoverable) == (
        "pending",
        "audio_not_found",
        True,
    )
    factories.put_audio("alice/00.wav")
    factories.make_due(job.pk)
    assert pipeline.transcribe(job.pk, 0) is None
    assert status_of(job) == "completed"


def test_an_engine_that_is_not_configured_any_more_refuses(settings: Any) -> None:
    job = job_with_audio(engine="forgotten")
    assert pipeline.transcribe(job.pk, 0) is None
    assert (chunk_of(job).status, chunk_of(job).error_code) == ("failed", "engine_refused")


# --- interruption ---


def test_an_interrupted_attempt_is_given_back_as_if_it_had_not_been(script: ScriptedEngine) -> None:
    job = job_with_audio()
    script.steps = [Stopping()]
    with pytest.raises(Stopping):
        pipeline.transcribe(job.pk, 0)
    chunk = chunk_of(job)
    assert (chunk.status, chunk.attempts, chunk.errors, chunk.crashes) == ("pending", 0, 0, 0)
    assert chunk.lease_token is None
    assert Chunk.objects.lost().filter(job=job).exists()
    assert pipeline.transcribe(job.pk, 0) is None
    assert (chunk_of(job).attempts, status_of(job)) == (1, "completed")


def test_a_result_that_is_there_when_the_process_stops_is_kept(
    script: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_with_audio()

    @contextmanager
    def struck_at_the_end() -> Iterator[None]:
        yield
        if script.calls:
            raise Stopping

    monkeypatch.setattr(pipeline, "interruptible", struck_at_the_end)
    with pytest.raises(Stopping):
        pipeline.transcribe(job.pk, 0)
    chunk = chunk_of(job)
    assert (chunk.status, chunk.attempts, chunk.errors, chunk.crashes) == ("completed", 1, 0, 0)
    assert len(script.calls) == 1


# --- answers that cannot be stored ---


@pytest.mark.parametrize(
    ("said", "kept"), [("half a \ud800 character", "half a ? character"), ("a \0 byte", "a byte")]
)
def test_words_that_no_database_takes_are_an_answer_like_any_other(
    script: ScriptedEngine, said: str, kept: str
) -> None:
    job = job_with_audio()
    script.steps = [said]
    assert pipeline.transcribe(job.pk, 0) is None
    assert (chunk_of(job).status, chunk_of(job).text, status_of(job)) == (
        "completed",
        kept,
        "completed",
    )


def test_a_result_that_cannot_be_stored_is_an_error_of_the_engine(
    script: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_with_audio()

    def refused(*args: Any) -> bool:
        raise DataError("too long for its column")

    monkeypatch.setattr(pipeline, "record_result", refused)
    assert pipeline.transcribe(job.pk, 0) is not None
    chunk = chunk_of(job)
    assert (chunk.status, chunk.errors, chunk.error_code) == ("pending", 1, "engine_bad_response")


def test_an_engine_cannot_ask_for_more_than_an_hour(script: ScriptedEngine) -> None:
    job = job_with_audio()
    script.steps = [EngineUnavailable("engine_error", "busy", retry_after=3e11)]
    again = pipeline.transcribe(job.pk, 0)
    assert again == Again(seconds=3600.0, engine="scripted")
    # Not by a message: it would lie in a worker's memory all the while. The sweeper sends it.
    assert not again.needs_message
    chunk = chunk_of(job)
    assert chunk.resend_time == chunk.not_before


# --- the database goes away ---


def outside_of_a_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's own transaction counts for none, and the waits take no time."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    free = SimpleNamespace(in_atomic_block=False, close=lambda: None)
    monkeypatch.setattr(database, "connection", free)


@pytest.mark.parametrize("fault", [OperationalError, InterfaceError])
def test_a_result_is_written_again_until_the_database_is_back(
    script: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
) -> None:
    outside_of_a_transaction(monkeypatch)
    job = job_with_audio()
    tries = []
    record = claims.record_result

    def away_thrice(*args: Any) -> bool:
        tries.append(1)
        if len(tries) <= 3:
            raise fault
        return record(*args)

    monkeypatch.setattr(pipeline, "record_result", away_thrice)
    assert pipeline.transcribe(job.pk, 0) is None
    assert (len(tries), len(script.calls)) == (4, 1)
    assert (chunk_of(job).status, status_of(job)) == ("completed", "completed")


def test_insisting_ends_when_the_claim_has_run_out(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.LEASE_SECONDS = 1.0
    outside_of_a_transaction(monkeypatch)

    def away() -> None:
        raise OperationalError

    with pytest.raises(OperationalError):
        database.insist(away)


@pytest.mark.django_db(transaction=True)
def test_a_result_survives_a_database_that_is_away_while_the_engine_works(
    script: ScriptedEngine, database_down: Callable[[], Any]
) -> None:
    job = job_with_audio()
    back = threading.Event()
    down = database_down()

    def come_back() -> None:
        down.__exit__(None, None, None)
        back.set()

    def goes_away(request: AudioRequest) -> str:
        assert connection.connection is None, "a connection is held across the engine's call"
        down.__enter__()
        threading.Timer(0.5, come_back).start()
        return "kept"

    script.steps = [goes_away]
    assert pipeline.transcribe(job.pk, 0) is None
    assert back.is_set()
    assert (chunk_of(job).text, chunk_of(job).attempts) == ("kept", 1)
    assert status_of(job) == "completed"
    assert len(script.calls) == 1


# --- races, on real transactions ---


@pytest.mark.django_db(transaction=True)
def test_of_ten_claims_at_the_same_moment_one_wins() -> None:
    job = factories.make_job(2)
    taken = together(*[lambda: claims.claim_chunk(job.pk, 0)] * 10)
    winners = [claim for claim in taken if claim is not None]
    assert len(winners) == 1
    assert isinstance(winners[0], attempts.Claim)
    assert (chunk_of(job).lease_token, chunk_of(job).attempts) == (winners[0].token, 1)
    assert types_of(job) == ["job.submitted", "chunk.started"]
    assert chunk_of(job, 1).status == "pending"


@pytest.mark.django_db(transaction=True)
def test_24_chunks_that_end_at_the_same_moment_finish_the_job_once() -> None:
    job = factories.make_job(24)
    taken = [factories.claim(job, index) for index in range(24)]

    def end(claim: attempts.Claim) -> bool:
        factories.complete(claim, f"w{claim.index}")
        return finishing.finish_job(job.pk)

    results = together(*[lambda claim=claim: end(claim) for claim in taken])
    assert results.count(True) == 1
    assert results.count(False) == 23
    assert status_of(job) == "completed"
    assert Transcript.objects.filter(job=job).count() == 1
    assert Transcript.objects.get(job=job).text == " ".join(f"w{n}" for n in range(24))
    assert types_of(job).count("job.completed") == 1
    assert types_of(job)[-1] == "job.completed"
    numbers = job.events.order_by("sequence").values_list("sequence", flat=True)
    assert list(numbers) == list(range(1, 1 + 24 + 24 + 1 + 1))


@pytest.mark.django_db(transaction=True)
def test_cancel_and_result_at_the_same_moment_leave_one_story() -> None:
    for _ in range(5):
        job = factories.make_job(1)
        claim = factories.claim(job)

        def result(claim: attempts.Claim = claim, job: Job = job) -> bool:
            written = factories.complete(claim)
            finishing.finish_job(job.pk)
            return written

        written, cancelled = together(result, partial(actions.cancel, job.pk))
        ends = [kind for kind in types_of(job) if kind.startswith("job.")][1:]
        assert len(ends) == 1
        if written is True and ends == ["job.completed"]:
            assert isinstance(cancelled, actions.AlreadyEndedError)
            assert chunk_of(job).status == "completed"
        else:
            assert (ends, cancelled, status_of(job)) == (["job.cancelled"], True, "cancelled")
            assert chunk_of(job).status == ("completed" if written else "cancelled")


@pytest.mark.django_db(transaction=True)
def test_a_frozen_worker_that_wakes_writes_nothing(script: ScriptedEngine) -> None:
    job = job_with_audio()
    asked, released = threading.Event(), threading.Event()

    def freeze(request: AudioRequest) -> str:
        asked.set()
        assert released.wait(30)
        return "from the grave"

    script.steps = [freeze, "alive"]

    def frozen() -> Again | None:
        return pipeline.transcribe(job.pk, 0)

    def second_owner() -> Again | None:
        assert asked.wait(30)
        Chunk.objects.filter(Q(job=job)).update(lease_expires_time=from_now(-timedelta(seconds=1)))
        assert sweep(lambda chunk: None).released == 1
        ended = pipeline.transcribe(job.pk, 0)
        released.set()
        return ended

    assert together(frozen, second_owner) == [None, None]
    chunk = chunk_of(job)
    assert (chunk.text, chunk.attempts, chunk.crashes) == ("alive", 2, 1)
    assert Transcript.objects.get(job=job).text == "alive"
    assert types_of(job).count("job.completed") == 1
    assert types_of(job).count("chunk.completed") == 1


@pytest.mark.django_db(transaction=True)
def test_a_job_deleted_in_the_middle_of_its_chunk_stays_deleted(script: ScriptedEngine) -> None:
    job = job_with_audio()

    def delete(request: AudioRequest) -> str:
        actions.delete(job.pk)
        return "too late"

    script.steps = [delete]
    assert pipeline.transcribe(job.pk, 0) is None
    assert not Job.objects.exists()
    assert not Chunk.objects.exists()
    assert not Transcript.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_finishing_ten_times_at_once_finishes_once() -> None:
    job = factories.make_job(3)
    for index in range(3):
        factories.complete(factories.claim(job, index))
    results = together(*[lambda: finishing.finish_job(job.pk)] * 10)
    assert sorted(results) == [False] * 9 + [True]
    assert types_of(job).count("job.completed") == 1


# --- part of a job fails ---


def test_five_texts_and_one_named_gap_when_one_of_six_is_corrupt_and_retry_runs_that_one(
    script: ScriptedEngine, audio_root: Path
) -> None:
    job = job_with_audio(6)
    factories.put_audio("alice/03.wav", b"this is no sound")
    script.otherwise = lambda request: f"said {len(script.calls)}"
    for index in (5, 3, 1, 0, 2, 4):
        assert pipeline.transcribe(job.pk, index) is None
    assert status_of(job) == "failed"
    transcript = Transcript.objects.get(job=job)
    assert transcript.text == "said 3 said 2 said 4 said 5 said 1"
    assert transcript.gaps == [
        {"index": 3, "startTime": None, "durationSeconds": None, "code": "invalid_audio"}
    ]
    assert transcript.duration_seconds == pytest.approx(5 * 0.3)
    assert len(script.calls) == 5
    kept = {c.index: (c.text, c.attempts, c.ended_time) for c in job.chunks.exclude(index=3)}

    factories.put_audio("alice/03.wav")
    actions.retry(job.pk)
    for index in range(6):
        assert pipeline.transcribe(job.pk, index) is None
    assert len(script.calls) == 6
    assert status_of(job) == "completed"
    transcript.refresh_from_db()
    assert transcript.text == "said 3 said 2 said 4 said 6 said 5 said 1"
    assert transcript.gaps == []
    assert transcript.duration_seconds == pytest.approx(6 * 0.3)
    assert chunk_of(job, 3).attempts == 2
    assert kept == {
        c.index: (c.text, c.attempts, c.ended_time) for c in job.chunks.exclude(index=3)
    }


def test_a_gap_that_was_measured_keeps_its_place(script: ScriptedEngine) -> None:
    job = job_with_audio(3)
    script.steps = ["one", EngineMisconfigured("refused"), "three"]
    for index in range(3):
        pipeline.transcribe(job.pk, index)
    transcript = Transcript.objects.get(job=job)
    assert transcript.text == "one three"
    gap = {"index": 1, "startTime": 0.3, "durationSeconds": 0.3, "code": "engine_refused"}
    assert transcript.gaps == [gap]
    assert transcript.duration_seconds == pytest.approx(0.9)


def test_the_language_of_most_of_the_time_is_the_jobs() -> None:
    job = factories.make_job(3)
    for index, (language, seconds) in enumerate([("de", 5.0), ("en", 3.0), ("en", 3.0)]):
        factories.complete(factories.claim(job, index), seconds=seconds)
        Chunk.objects.filter(job=job, index=index).update(language=language)
    finishing.finish_job(job.pk)
    assert Transcript.objects.get(job=job).language == "en"


def test_a_job_is_not_finished_while_a_chunk_waits_or_runs() -> None:
    job = factories.make_job(3)
    factories.complete(factories.claim(job, 0))
    factories.claim(job, 1)
    assert not finishing.finish_job(job.pk)
    assert not finishing.finish_job(uuid4())
    assert status_of(job) == "in_progress"
    assert not Transcript.objects.exists()
