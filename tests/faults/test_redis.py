"""Rows about the broker: killed, frozen, emptied, full, or filled with rubbish and duplicates."""

from __future__ import annotations

import json
import signal
import time
from typing import Any
from uuid import uuid4

import pytest

from tests.faults.audio import Audio
from tests.faults.engine_server import WORDS_AT_ONCE, Answer, Hit, failing
from tests.faults.row import Row
from tests.faults.world import TWO_PROCESSES, World
from tests.helpers import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(500)]
PROMISED_SECONDS = 2.0  # for the answer to a submission, whatever the broker does
SLOW_MACHINE = 2.0  # what a machine with other work may need more
QUEUE = "dramatiq:chunks"


def submit_in_time(row: Row, audio: list[Audio], **expected: Any) -> tuple[str, float]:
    """Submit while something is wrong with the broker; the job, and how long the answer took."""
    begun = time.monotonic()
    job_id = row.submit(audio, **expected)
    took = time.monotonic() - begun
    assert took < PROMISED_SECONDS * SLOW_MACHINE
    return job_id, took


def await_broker_down(world: World) -> dict[str, Any]:
    """The service says so itself, and serves on; what it says of the broker."""
    wait_until(lambda: world.readiness()["broker"]["status"] == "down")
    ready = world.readiness()
    assert ready["status"] == "degraded"
    return dict(ready["broker"])


@pytest.mark.fast_fault
def test_row_08_every_message_arrives_five_times_and_some_ids_twice(row: Row) -> None:
    world = row.world(**TWO_PROCESSES)
    world.engine.plan = lambda hit: Answer(delay=0.05)
    frozen = world.processes.workers()
    world.processes.kill(frozen, signal.SIGSTOP)
    row.submit(row.audio(24), hits=1)
    row.submit(row.audio(24), hits=1)

    row.fault("each message five times, every fourth id twice")
    copies = multiply(world, times=5)
    assert copies == 2 * 24 * 4 + 2 * 24 // 4
    world.processes.kill(frozen, signal.SIGCONT)

    jobs = row.verify()
    assert len(row.hits) == 48
    assert {chunk["attempts"] for job in jobs for chunk in job["chunks"]} == {1}


def multiply(world: World, times: int) -> int:
    """Put copies of all waiting messages behind them, and every fourth id again; their number."""
    waiting = world.redis.client.lrange(QUEUE, 0, -1)
    copies = list(waiting[::4])
    for message_id in waiting:
        text = world.redis.client.hget(f"{QUEUE}.msgs", message_id)
        assert text is not None
        for _ in range(times - 1):
            message = json.loads(text)
            message["options"]["redis_message_id"] = copy_id = str(uuid4())
            world.redis.client.hset(f"{QUEUE}.msgs", copy_id, json.dumps(message))
            copies.append(copy_id.encode())
    world.redis.client.rpush(QUEUE, *copies)
    return len(copies)


def test_row_10_redis_is_killed_and_away_for_30_seconds_while_retries_wait(row: Row) -> None:
    world = row.world(**TWO_PROCESSES)
    stumbling, waiting, late = row.audio(3), row.audio(20), row.audio(4)
    first = {item.digest for item in stumbling}

    def stumble(hit: Hit) -> Answer:
        if hit.digest in first:
            return failing(503) if hit.number == 1 else WORDS_AT_ONCE
        return Answer(delay=1.0)

    world.engine.plan = stumble
    retried = row.submit(stumbling, hits=3)
    row.submit(waiting, hits=2)
    wait_until(lambda: row.events(retried).count("chunk.pending") == 3)

    killed = row.fault("kill -9 of Redis")
    world.redis.kill()
    broker = await_broker_down(world)
    assert broker["reason"]
    job_id, took = submit_in_time(row, late, hits=2)
    assert row.read(job_id)["delayReason"] == "queue_unavailable"
    time.sleep(max(0.0, killed + row.random.uniform(28, 33) - time.monotonic()))
    back = row.fault("Redis is back, with its append-only file")
    world.redis.start()

    row.note(f"POST without a broker answered after {took:.2f} s")
    row.await_recovery(back, late)
    row.verify()
    wait_until(lambda: world.readiness()["status"] == "ok", 60)


@pytest.mark.fast_fault
def test_row_11_redis_is_flushed_with_50_jobs_queued(row: Row) -> None:
    world = row.world(**TWO_PROCESSES)
    busy = [row.audio(24), row.audio(24), row.audio(16)]
    queued = [row.audio(1) for _ in range(50)]
    world.engine.hold()
    for chunks in busy:
        row.submit(chunks, hits=1)
    world.engine.wait_in_flight(64)
    for chunks in queued:
        row.submit(chunks, hits=1)
    assert len(row.hits) == 64

    emptied = row.fault("FLUSHALL")
    world.redis.client.flushall()
    world.engine.release()
    row.await_recovery(emptied, [item for chunks in queued for item in chunks])

    row.verify()
    assert len(row.hits) == 64 + 50


def test_row_11_redis_comes_back_empty(row: Row) -> None:
    world = row.world(**TWO_PROCESSES)
    world.engine.hold()
    audio = [row.audio(24) for _ in range(5)]
    for chunks in audio:
        row.submit(chunks, hits=1)
    world.engine.wait_in_flight(64)
    held = {hit.digest for hit in row.hits}

    row.fault("kill -9 of Redis, and a start without its append-only file")
    world.redis.kill()
    world.redis.start(appendonly=False)
    emptied = time.monotonic()
    world.engine.release()
    queued = [item for chunks in audio for item in chunks if item.digest not in held]
    row.await_recovery(emptied, queued)

    row.verify()


@pytest.mark.fast_fault
def test_row_12_a_submission_is_answered_within_2_seconds_while_redis_stands_still(
    row: Row,
) -> None:
    stall(row, seconds=5)


def test_row_12_redis_stands_still_for_60_seconds(row: Row) -> None:
    stall(row, seconds=60)


def stall(row: Row, seconds: float) -> None:
    """Freeze Redis in the middle of work, call the API meanwhile, and let it go on."""
    world = row.world(**TWO_PROCESSES)
    world.engine.plan = lambda hit: Answer(delay=0.5)
    first = row.submit(row.audio(24), hits=2)
    row.await_hits(4)

    frozen = row.fault("SIGSTOP of Redis")
    world.redis.freeze()
    submissions, reads = [], []
    late = []
    while time.monotonic() < frozen + seconds:
        late.append(row.audio(2))
        submissions.append(submit_in_time(row, late[-1], hits=2)[1])
        begun = time.monotonic()
        row.read(first)
        reads.append(time.monotonic() - begun)
        time.sleep(0.5)
    assert await_broker_down(world)["reason"]
    thawed = row.fault("SIGCONT of Redis")
    world.redis.thaw()

    row.note(f"slowest POST {max(submissions):.2f} s, slowest GET {max(reads):.2f} s")
    assert max(reads) < PROMISED_SECONDS * SLOW_MACHINE
    row.await_recovery(thawed, [item for chunks in late for item in chunks])
    row.verify()


def test_row_13_redis_is_full(row: Row) -> None:
    world = row.world()
    late = row.audio(12)
    row.wait_for_end(row.submit(row.audio(2), hits=1))

    row.fault("CONFIG SET maxmemory 1")
    world.redis.client.config_set("maxmemory", "1")
    job_id, took = submit_in_time(row, late, hits=1)
    wait_until(lambda: row.read(job_id)["delayReason"] == "queue_unavailable")
    assert not row.hits_of(late)
    roomy = row.fault("there is room again")
    world.redis.client.config_set("maxmemory", "0")

    row.note(f"POST with a full broker answered after {took:.2f} s")
    row.await_recovery(roomy, late)
    row.verify()


def test_row_13_a_redis_that_may_evict_messages_is_called_unfit(row: Row) -> None:
    world = row.world()
    row.fault("CONFIG SET maxmemory-policy allkeys-lru")
    world.redis.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        broker = await_broker_down(world)
        assert broker["reason"] == "broker_eviction_policy"
        assert broker["policy"] == "allkeys-lru"
        row.submit(row.audio(2), hits=1)
        row.verify()
    finally:
        world.redis.client.config_set("maxmemory-policy", "noeviction")
    wait_until(lambda: world.readiness()["status"] == "ok")


def test_row_39_rubbish_in_the_queue_stops_nobody(row: Row) -> None:
    world = row.world()
    workers = world.processes.workers()
    row.submit(row.audio(2), hits=1)

    row.fault("ids without a message, messages that are none, actors and jobs that nobody knows")
    put_rubbish(world)
    row.submit(row.audio(6), hits=1)

    row.verify()
    assert world.processes.workers() == workers, "nobody died of it"


def put_rubbish(world: World) -> None:
    """Into the queue, in front and behind."""

    def message(**fields: Any) -> str:
        known = {
            "queue_name": "chunks",
            "actor_name": "transcribe_chunk",
            "args": [str(uuid4()), 0, "openai"],
            "kwargs": {},
            "options": {"redis_message_id": message_id},
            "message_id": str(uuid4()),
            "message_timestamp": 1,
        }
        return json.dumps(known | fields)

    for make in (
        message,  # of a job that nobody knows
        lambda: message(args=["no uuid", "no number", 7]),
        lambda: message(args=[]),
        lambda: message(actor_name="nobody"),
        lambda: json.dumps({"queue_name": "chunks"}),
        lambda: "[1, 2, 3]",
        lambda: "no json {",
        lambda: b"\xff\xfe\x00",
        lambda: "",
    ):
        message_id = str(uuid4())
        world.redis.client.hset(f"{QUEUE}.msgs", message_id, make())
        world.redis.client.lpush(QUEUE, message_id)
    world.redis.client.rpush(QUEUE, str(uuid4()), "", b"\xff")
