"""Rows about the engine: it is busy, fails, hangs, talks nonsense, or is down for all."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest

from asr import registry
from asr.audio import measure
from asr.child_pool import ChildPool
from asr.types import AudioRequest
from tests.faults import engine_server as scripted
from tests.faults.audio import Audio, audio_of
from tests.faults.engine_server import WORDS_AT_ONCE, Answer, Hit, failing
from tests.faults.row import Row
from tests.faults.world import World
from tests.helpers import wait_until
from tests.system.conftest import SAMPLES

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]
Script = Callable[[Hit], Answer]
WINDOW = 4.0


def in_turn(*answers: Answer) -> Script:
    """The answers to a file's first call, its second …; the last one to all that follow."""
    return lambda hit: answers[min(hit.number, len(answers)) - 1]


def give(world: World, scripts: Mapping[str, Script]) -> None:
    """Let the engine answer by these scripts, and with the words to all other files."""
    world.engine.plan = lambda hit: scripts.get(hit.digest, lambda _: WORDS_AT_ONCE)(hit)


def reset_breaker(row: Row) -> None:
    """A call that succeeds: what counts for the breaker is failures in a row."""
    row.wait_for_end(row.submit(row.audio(1)))


def codes(job: Mapping[str, Any], index: int) -> list[str]:
    """The codes of the errors that a chunk met, in order."""
    met = [e["data"] for e in job["events"] if e["type"] in ("chunk.pending", "chunk.failed")]
    return [data["error"]["code"] for data in met if data["index"] == index and "error" in data]


@pytest.mark.postgres_only  # SQLite has one lock, and no queue for it: not for a thousand writers
def test_row_14_a_thousand_calls_fail_at_the_same_instant(row: Row) -> None:
    limits = {"ENGINE_DEADLINE_SECONDS": "240", "LEASE_SECONDS": "270", "LOCAL_PROCESSES": "2"}
    world = row.fresh_world(WORKER_PROCESSES="2", WORKER_THREADS="500", **limits)
    world.engine.plan = lambda hit: failing(503) if hit.number == 1 else WORDS_AT_ONCE
    world.engine.hold()
    audio = row.audio(1000)

    for start in range(0, 1000, 24):
        row.submit(audio[start : start + 24], hits=2)
    world.engine.wait_in_flight(1000, 240)
    failed = row.fault("1000 calls answered with 503")
    world.engine.release()

    row.await_recovery(failed, audio)
    jobs = row.verify(300)
    histogram = Counter(chunk["attempts"] for job in jobs for chunk in job["chunks"])
    row.note(f"attempts of 1000 chunks: {dict(histogram)}")
    assert histogram == {2: 1000}
    assert world.engine.most_in_flight == 1000


@pytest.mark.fast_fault
def test_row_20_the_engine_is_busy_and_says_for_how_long(row: Row) -> None:
    world = row.world()
    audio = row.audio(1)
    give(world, {audio[0].digest: in_turn(failing(429, Retry_After="7"), WORDS_AT_ONCE)})

    row.wait_for_end(row.submit(audio, hits=2))

    first, second = row.hits_of(audio)
    assert second.time - first.ended > 6.99
    (job,) = row.verify()
    assert (job["chunks"][0]["attempts"], job["chunks"][0]["errors"]) == (1, 0)


def test_row_21_the_engine_fails_three_times_and_then_works(row: Row) -> None:
    world = row.world()
    reset_breaker(row)
    audio = row.audio(1)
    give(world, {audio[0].digest: in_turn(*[failing(500)] * 3, WORDS_AT_ONCE)})

    row.wait_for_end(row.submit(audio, hits=4))

    waits = [after.time - before.ended for before, after in pairwise(row.hits_of(audio))]
    assert len(waits) == 3
    assert all(wait > least for wait, least in zip(waits, (1.99, 3.99, 7.99), strict=True))
    job = row.verify()[-1]
    assert job["chunks"][0]["attempts"] == 4


@pytest.mark.fast_fault
def test_row_21_the_engine_fails_one_file_for_ever(row: Row) -> None:
    world = row.world()
    reset_breaker(row)
    audio = row.audio(2)
    give(world, {audio[0].digest: in_turn(failing(500))})

    job_id = row.submit(audio, hits=[4, 1], expects="failed", gaps={0: "engine_error"})
    result = row.wait_for_end(job_id)

    assert len(row.hits_of(audio[:1])) == 4
    assert result["chunks"][0]["error"]["recoverable"] is True
    assert result["transcription"] == audio[1].text
    # One bad file does not make the engine bad for all.
    row.wait_for_end(row.submit(row.audio(1)))
    job = row.verify()[1]
    assert job["chunks"][0]["attempts"] == 4
    assert codes(job, 0) == ["engine_error"] * 4
    assert "job.delayed" not in [event["type"] for event in job["events"]]


def test_row_22_the_engine_hangs_and_drips(row: Row) -> None:
    deadline = 6.0
    world = row.fresh_world(ENGINE_DEADLINE_SECONDS=str(deadline), WORKER_THREADS="1")
    reset_breaker(row)  # and has the child that decodes started, which takes its time
    audio = row.audio(2)
    drips = Answer(ending="drip", interval=0.5)
    scripts = {audio[0].digest: in_turn(scripted.HANG)}
    give(world, {**scripts, audio[1].digest: in_turn(drips, WORDS_AT_ONCE)})

    job_id = row.submit(audio, hits=[4, 2], expects="failed", gaps={0: "engine_timeout"})
    row.wait_for_end(job_id)

    assert len(row.hits_of(audio[:1])) == 4
    cut = [hit for hit in row.hits_of(audio) if hit.status != 200 or hit.ended - hit.time > 1]
    assert len(cut) == 5
    for hit in cut:
        assert deadline / 3 < hit.ended - hit.time < deadline + 2
    # The one thread that there is has been freed each time.
    row.wait_for_end(row.submit(row.audio(3)))
    job = row.verify()[1]
    assert codes(job, 0) == ["engine_timeout"] * 4
    assert codes(job, 1) == ["engine_timeout"]


def test_row_23_the_engine_answers_with_garbage(row: Row) -> None:
    world = row.world()
    reset_breaker(row)
    audio = row.audio(2)
    answers = (scripted.NONSENSE, scripted.TRUNCATED, scripted.HUGE, scripted.NONSENSE)
    give(world, {audio[0].digest: in_turn(*answers)})

    job_id = row.submit(audio, hits=[4, 1], expects="failed", gaps={0: "engine_bad_response"})
    result = row.wait_for_end(job_id)

    assert result["transcription"] == audio[1].text
    hits = row.hits_of(audio[:1])
    assert len(hits) == 4
    assert 10_000_000 < hits[2].sent < 25_000_000, "reading is capped at 10 MB"
    job = row.verify()[1]
    assert codes(job, 0) == ["engine_bad_response"] * 4


@pytest.mark.fast_fault
def test_row_24_the_engine_refuses_the_credentials(row: Row) -> None:
    world = row.world()
    audio = row.audio(3)
    give(world, {audio[1].digest: in_turn(failing(401))})

    job_id = row.submit(audio, hits=1, expects="failed", gaps={1: "engine_refused"})
    result = row.wait_for_end(job_id)

    assert result["chunks"][1]["error"]["recoverable"] is False
    assert result["transcription"] == f"{audio[0].text} {audio[2].text}"
    (job,) = row.verify()
    assert job["chunks"][1]["attempts"] == 1
    assert len(row.hits) == 3


def open_breaker(row: Row, world: World) -> tuple[list[Audio], str]:
    """Let all of a job's 24 calls fail at once; the files, and the job."""
    world.engine.plan = lambda hit: failing(503)
    world.engine.hold()
    audio = row.audio(24)
    job_id = row.submit(audio, hits=12)  # one fails, one succeeds, and some are probes
    world.engine.wait_in_flight(24, 60)
    row.fault("every call is answered with 503")
    world.engine.release()
    return audio, job_id


def in_four_processes(row: Row) -> World:
    options = {"WORKER_PROCESSES": "4", "WORKER_THREADS": "8", "BREAKER_SECONDS": str(WINDOW)}
    return row.world(**options)


def assert_waits_for_the_engine(row: Row, world: World, job_id: str) -> None:
    """The caller and the operator are told, and nobody is turned away."""
    wait_until(lambda: row.read(job_id)["delayed"], 60)
    result = row.read(job_id)
    assert (result["jobStatus"], result["delayReason"]) == ("in_progress", "engine_unavailable")
    readiness = world.readiness()
    assert readiness["status"] == "degraded", readiness
    assert readiness["engine"]["reason"] == "engine_unavailable", readiness


@pytest.mark.fast_fault
def test_row_25_the_engine_fails_for_all_and_gets_one_probe_per_window(row: Row) -> None:
    world = in_four_processes(row)
    first, first_job = open_breaker(row, world)
    second = row.audio(24)
    second_job = row.submit(second, hits=12)

    assert_waits_for_the_engine(row, world, first_job)
    assert_waits_for_the_engine(row, world, second_job)
    row.await_hits(24 + 4, seconds=120)
    probes = row.hits[24:28]
    for before, after in pairwise([max(row.hits[:24], key=lambda hit: hit.ended), *probes]):
        assert after.time - before.ended > WINDOW - 0.05, "two within one window"
    world.engine.plan = lambda hit: WORDS_AT_ONCE
    back = row.fault("the engine works again")

    row.await_recovery(back, first + second)
    jobs = row.verify()
    assert [{c["attempts"] for c in job["chunks"]} for job in jobs] == [{2}, {1}]
    assert [{c["errors"] for c in job["chunks"]} for job in jobs] == [{1}, {0}]
    wait_until(lambda: world.readiness()["status"] == "ok")


def test_row_25_redis_is_emptied_while_the_engine_is_down(row: Row) -> None:
    world = in_four_processes(row)
    audio, job_id = open_breaker(row, world)
    assert_waits_for_the_engine(row, world, job_id)
    world.redis.client.flushall()
    emptied = row.fault("FLUSHALL: nobody knows any more that the engine is down")

    # The breaker opens anew, by calls that are spent as those before: at most one for each chunk.
    row.await_hits(24 + 5, seconds=120)
    assert_waits_for_the_engine(row, world, job_id)
    world.engine.plan = lambda hit: WORDS_AT_ONCE

    row.await_recovery(emptied, audio)
    (job,) = row.verify()
    assert {chunk["errors"] for chunk in job["chunks"]} <= {1, 2}
    assert all(chunk["attempts"] == chunk["errors"] + 1 for chunk in job["chunks"])


def test_row_25_the_engine_refuses_connections(row: Row) -> None:
    world = in_four_processes(row)
    audio = row.audio(24)
    world.engine.go_away()
    row.fault("connections to the engine are refused")
    job_id = row.submit(audio, hits=1)

    assert_waits_for_the_engine(row, world, job_id)
    world.engine.come_back()
    back = row.fault("the engine is back")

    row.await_recovery(back, audio)
    (job,) = row.verify()
    assert {chunk["errors"] for chunk in job["chunks"]} <= {0, 1}
    assert all(chunk["attempts"] == chunk["errors"] + 1 for chunk in job["chunks"])


def let_window_pass() -> None:
    """Until the next call is a probe, whenever the last one failed."""
    over = time.monotonic() + WINDOW
    wait_until(lambda: time.monotonic() > over)


def speech(row: Row, world: World, count: int) -> list[Audio]:
    """Copies of the samples, with what PocketSphinx hears in them when nothing is wrong."""
    folder = world.audio_root / "alice" / f"speech-{time.time_ns():x}"
    folder.mkdir(parents=True)
    pool = ChildPool(1)
    engine = registry.build("pocketsphinx", pool=pool, options={})
    spoken = []
    for index in range(count):
        data = SAMPLES[index].read_bytes()
        file = folder / f"{index}.flac"
        file.write_bytes(data)
        request = AudioRequest(data=data, info=measure(data, 60), deadline_seconds=60)
        text = engine.transcribe(request).text
        spoken.append(Audio(path=file, digest=audio_of(file).digest, text=text))
    pool.close()
    return spoken


def test_row_25_the_engine_is_down_and_another_stands_in(row: Row) -> None:
    window = str(WINDOW)
    world = row.fresh_world(ASR_FALLBACK="pocketsphinx", BREAKER_SECONDS=window)
    spoken = speech(row, world, 2)
    world.engine.go_away()
    row.fault("connections to the engine are refused")

    # The first calls spend an attempt to find out that it is down.
    first = row.wait_for_end(row.submit(spoken * 3, hits=0))
    assert {chunk["engine"] for chunk in first["chunks"]} == {"pocketsphinx"}
    for _ in range(2):
        # The window is over, so the next call is a probe: in vain, and at no cost.
        wait_until(lambda: world.readiness()["engine"]["breaker"] == "open")
        let_window_pass()
        alone = row.wait_for_end(row.submit(spoken[:1], hits=0))
        assert [(c["engine"], c["attempts"]) for c in alone["chunks"]] == [("pocketsphinx", 1)]

    world.engine.come_back()
    back = row.fault("the engine is back")
    let_window_pass()
    audio = row.audio(1)
    row.wait_for_end(row.submit(audio))
    row.recovered(row.hits[0].time - back)
    more = row.wait_for_end(row.submit(row.audio(3)))
    assert {chunk["engine"] for chunk in more["chunks"]} == {"openai"}
    assert world.readiness()["status"] == "ok"
    row.verify()
