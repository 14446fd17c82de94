"""The actors on a real Redis with a real worker: messages may be doubled, lost or late."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import dramatiq
import pytest
from django.conf import settings

from asr.errors import EngineUnavailable
from asr.types import AudioRequest
from jobs import actions, attempts, finishing, pipeline, setbacks, tasks
from jobs.interruption import Stopping
from jobs.models import Chunk, Job, JobEvent, Transcript, WorkerProcess
from jobs.sweeper import sweep
from jobs.tasks import BrokerState
from tests import factories
from tests.helpers import WorkerInTest, broker, wait_until
from tests.scripted import ScriptedEngine

pytestmark = pytest.mark.django_db(transaction=True)


def job_with_audio(chunks: int = 1) -> Job:
    job = factories.make_job(chunks)
    for chunk in job.chunks.all():
        factories.put_audio(chunk.audio_path)
    return job


def ended(*jobs: Job) -> bool:
    ids = [job.pk for job in jobs]
    return not Job.objects.filter(pk__in=ids, status="in_progress").exists()


def events(job: Job, kind: str) -> int:
    return JobEvent.objects.filter(job=job, type=kind).count()


def test_a_dispatched_job_is_recognised_and_finished(
    worker: WorkerInTest, script: ScriptedEngine
) -> None:
    job = job_with_audio(6)
    script.otherwise = "hello"
    assert tasks.dispatch(job.pk)
    worker.start()
    wait_until(lambda: ended(job))
    assert Transcript.objects.get(job=job).text == " ".join(["hello"] * 6)
    assert len(script.calls) == 6
    assert events(job, "job.completed") == 1


def test_real_speech_goes_through_the_worker(worker: WorkerInTest) -> None:
    job = factories.make_job(1, engine="pocketsphinx")
    factories.put_audio("alice/00.wav", factories.sample(4))
    assert tasks.dispatch(job.pk)
    assert broker().client.llen("dramatiq:local") == 1
    worker.start(2)
    wait_until(lambda: ended(job))
    assert "many hours" in Transcript.objects.get(job=job).text


def test_the_groups_callback_finishes_a_job_by_itself(
    worker: WorkerInTest, script: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_with_audio(3)
    finish, callers = finishing.finish_job, []

    def only_from_the_callback(job_id: UUID) -> bool:
        import inspect

        caller = inspect.stack()[1].function
        callers.append(caller)
        return finish(job_id) if caller == "finish_job_if_due" else False

    for module in (finishing, pipeline):
        monkeypatch.setattr(module, "finish_job", only_from_the_callback)
    tasks.dispatch(job.pk)
    worker.start()
    wait_until(lambda: ended(job))
    assert callers.count("finish_job_if_due") == 1  # which only the callback calls
    assert Job.objects.get(pk=job.pk).status == "completed"


def test_messages_delivered_five_times_recognise_each_chunk_once(
    worker: WorkerInTest, script: ScriptedEngine
) -> None:
    job = job_with_audio(6)
    for _ in range(5):
        tasks.dispatch(job.pk)
    worker.start(8)
    wait_until(lambda: ended(job))
    wait_until(lambda: broker().client.hlen("dramatiq:chunks.msgs") == 0)
    wait_until(lambda: broker().client.hlen("dramatiq:control.msgs") == 0)
    assert len(script.calls) == 6
    assert list(job.chunks.values_list("attempts", flat=True)) == [1] * 6
    assert events(job, "job.completed") == 1
    assert Transcript.objects.filter(job=job).count() == 1


def test_the_same_message_twice_on_the_queue_is_harmless(
    worker: WorkerInTest, script: ScriptedEngine
) -> None:
    job = job_with_audio(3)
    tasks.dispatch(job.pk)
    client = broker().client
    for message_id in client.lrange("dramatiq:chunks", 0, -1):
        client.rpush("dramatiq:chunks", message_id)
    worker.start()
    wait_until(lambda: ended(job))
    assert len(script.calls) == 3
    assert events(job, "job.completed") == 1


def test_messages_that_redis_lost_are_sent_again_by_the_sweeper(
    worker: WorkerInTest, script: ScriptedEngine
) -> None:
    job = job_with_audio(4)
    tasks.dispatch(job.pk)
    broker().client.flushall()
    assert sweep(tasks.send_chunk).sent == 0
    factories.make_undispatched(job.pk)
    assert sweep(tasks.send_chunk).sent == 4
    worker.start()
    wait_until(lambda: ended(job))
    assert len(script.calls) == 4
    assert events(job, "job.completed") == 1


def test_a_barrier_that_redis_lost_ends_no_job_early(
    worker: WorkerInTest, script: ScriptedEngine
) -> None:
    """Dramatiq calls back at once then: the rows know better."""
    job = job_with_audio(3)
    gate = threading.Event()
    script.steps = ["first", lambda request: (gate.wait(30), "x")[1], "third"]
    tasks.dispatch(job.pk)
    for key in broker().client.keys("*"):
        if b"msgs" not in key and key not in {b"dramatiq:chunks", b"dramatiq:local"}:
            broker().client.delete(key)
    worker.start()
    wait_until(lambda: job.chunks.filter(status="completed").count() == 2)
    assert Job.objects.get(pk=job.pk).status == "in_progress"
    gate.set()
    wait_until(lambda: ended(job))
    assert events(job, "job.completed") == 1


def test_an_attempt_that_failed_comes_back_by_itself(
    worker: WorkerInTest, script: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setbacks, "RETRY_BASE_SECONDS", 0.1)
    job = job_with_audio()
    script.steps = [factories.passing(), factories.passing(), "word"]
    tasks.dispatch(job.pk)
    worker.start()
    wait_until(lambda: ended(job))
    chunk = job.chunks.get()
    assert (chunk.status, chunk.attempts, chunk.errors) == ("completed", 3, 2)


def test_an_engine_that_fails_for_ever_is_called_four_times(
    worker: WorkerInTest, script: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setbacks, "RETRY_BASE_SECONDS", 0.05)
    job = job_with_audio()
    script.otherwise = EngineUnavailable("engine_error", "no")
    tasks.dispatch(job.pk)
    worker.start()
    wait_until(lambda: ended(job))
    assert len(script.calls) == 4
    assert Job.objects.get(pk=job.pk).status == "failed"


def test_a_worker_that_stops_gives_its_chunks_back_for_nothing(
    worker: WorkerInTest, script: ScriptedEngine
) -> None:
    job = job_with_audio(2)
    calling = threading.Semaphore(0)

    def slow(request: AudioRequest) -> str:
        calling.release()
        for _ in range(3000):  # in Python, where the notice can land
            time.sleep(0.01)
        return "never"

    script.otherwise = slow
    tasks.dispatch(job.pk)
    worker.start()
    assert calling.acquire(timeout=20)
    assert calling.acquire(timeout=20)
    worker.stop()
    rows = list(
        Chunk.objects.filter(job=job).values_list("status", "attempts", "errors", "crashes")
    )
    assert rows == [("pending", 0, 0, 0)] * 2
    script.otherwise = "word"
    assert sweep(tasks.send_chunk).sent == 2
    worker.start()
    wait_until(lambda: ended(job))
    assert list(job.chunks.values_list("attempts", flat=True)) == [1, 1]


@pytest.mark.parametrize(("engine", "queue"), [("pocketsphinx", "local"), ("openai", "chunks")])
def test_a_chunk_goes_to_the_queue_of_the_engine_that_is_next(engine: str, queue: str) -> None:
    job = job_with_audio()
    tasks._send_again(job.pk, 0, attempts.Again(seconds=0.0, engine=engine))
    assert broker().client.llen(f"dramatiq:{queue}") == 1
    tasks._send_again(job.pk, 0, attempts.Again(seconds=5.0, engine=engine))
    assert broker().client.llen(f"dramatiq:{queue}.DQ") == 1


def test_a_wait_while_the_broker_is_away_is_left_to_the_sweeper(
    redis_elsewhere: Callable[[str], None],
) -> None:
    redis_elsewhere("redis://127.0.0.1:1/0")
    tasks._send_again(uuid4(), 0, attempts.Again(seconds=0.0, engine="openai"))


# --- the actors, called as functions ---


def test_the_actor_asks_for_the_message_back_when_the_row_says_so(script: ScriptedEngine) -> None:
    job = job_with_audio()
    script.steps = [EngineUnavailable("engine_error", "no")]
    with pytest.raises(dramatiq.Retry) as caught:
        tasks.transcribe_chunk(str(job.pk), 0, "scripted")
    assert caught.value.delay in range(2000, 2501)


def test_after_a_counted_error_of_a_stand_in_a_message_for_the_jobs_own_engine_is_sent(
    script: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[attempts.Again] = []
    monkeypatch.setattr(tasks, "_send_again", lambda _, __, again: sent.append(again))
    job = factories.make_job()  # its file is not there: that is counted, whoever stands in
    tasks.transcribe_chunk(str(job.pk), 0, "openai")
    assert [(again.engine, again.counted) for again in sent] == [("scripted", True)]


def test_waits_that_the_engine_asks_for_use_up_none_of_the_retries(
    worker: WorkerInTest, script: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setbacks, "RETRY_BASE_SECONDS", 0.05)
    job = job_with_audio()
    script.steps = [EngineUnavailable("engine_error", "busy", retry_after=0.05)] * 9
    tasks.dispatch(job.pk)
    worker.start()
    wait_until(lambda: ended(job))
    assert len(script.calls) == 10


def test_the_actor_ends_quietly_on_shutdown(script: ScriptedEngine) -> None:
    job = job_with_audio()
    script.steps = [Stopping()]
    assert tasks.transcribe_chunk(str(job.pk), 0, "openai") is None
    assert (job.chunks.get().status, job.chunks.get().attempts) == ("pending", 0)


def test_actors_ignore_what_is_gone_or_done(script: ScriptedEngine) -> None:
    cancelled = job_with_audio()
    actions.cancel(cancelled.pk)
    for job_id in (uuid4(), cancelled.pk, factories.make_completed_job("x").pk):
        assert tasks.transcribe_chunk(str(job_id), 0, "openai") is None
        assert tasks.stitch_transcript(str(job_id)) is None
        assert tasks.dispatch(job_id)
    assert script.calls == []


def test_a_broken_message_does_not_stop_the_worker(
    worker: WorkerInTest, script: ScriptedEngine
) -> None:
    client, job = broker().client, job_with_audio()
    client.hset("dramatiq:chunks.msgs", "garbage", b"\x00not json")
    client.rpush("dramatiq:chunks", "garbage")
    unknown: dict[str, Any] = {
        "queue_name": "chunks", "actor_name": "nobody", "args": [], "kwargs": {}, "options": {},
        "message_id": "unknown", "message_timestamp": 1,
    }  # fmt: skip
    client.hset("dramatiq:chunks.msgs", "unknown", dramatiq.get_encoder().encode(unknown))
    client.rpush("dramatiq:chunks", "unknown")
    tasks.dispatch(job.pk)
    worker.start(2)
    wait_until(lambda: client.llen("dramatiq:chunks") == 0)
    # Dramatiq may have lost what it fetched together with the garbage: the rows have not.
    factories.make_undispatched(job.pk)
    sweep(tasks.send_chunk)
    wait_until(lambda: ended(job))
    assert Job.objects.get(pk=job.pk).status == "completed"


def test_a_worker_that_boots_with_a_backlog_says_which_queues_it_serves(
    worker: WorkerInTest, script: ScriptedEngine
) -> None:
    job = job_with_audio(6)
    assert tasks.dispatch(job.pk)
    worker.start(queues={"chunks"})
    wait_until(lambda: Job.objects.get(pk=job.pk).ended)
    assert [row.queues for row in WorkerProcess.objects.all()] == ["chunks"]


def test_a_broker_that_was_emptied_is_noticed_once(redis_is_empty: None) -> None:
    assert tasks.look_at_broker() == BrokerState.EMPTIED
    assert tasks.look_at_broker() == BrokerState.READY
    broker().client.flushdb()
    assert tasks.look_at_broker() == BrokerState.EMPTIED


def test_a_broker_that_is_full_is_as_good_as_away(redis_is_empty: None) -> None:
    client = broker().client
    client.config_set("maxmemory", 1)
    try:
        assert tasks.look_at_broker() == BrokerState.AWAY
    finally:
        client.config_set("maxmemory", 0)
    assert tasks.look_at_broker() == BrokerState.EMPTIED


def test_a_broker_that_is_away_is_not_taken_for_emptied(
    redis_is_empty: None, redis_elsewhere: Callable[[str], None]
) -> None:
    here = settings.BROKER_URL
    tasks.look_at_broker()
    redis_elsewhere("redis://127.0.0.1:1/0")
    assert tasks.look_at_broker() == BrokerState.AWAY
    redis_elsewhere(here)
    assert tasks.look_at_broker() == BrokerState.READY
