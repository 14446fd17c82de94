"""Rows about workers, web and sweeper that die, freeze or are stopped."""

from __future__ import annotations

import re
import signal
import threading
import time
from typing import Any

import pytest

from tests.faults.engine_server import HANG, WORDS_AT_ONCE, Answer, Hit
from tests.faults.row import Row
from tests.faults.world import ONE_BY_ONE, TWO_PROCESSES
from tests.helpers import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]
PROMISED_SECONDS = 20.0  # until a killed worker's chunk runs again
SLOW_MACHINE = 2.0  # what a machine with other work may need more


def column(job: dict[str, Any], name: str) -> list[Any]:
    return [chunk[name] for chunk in job["chunks"]]


@pytest.mark.fast_fault
def test_row_01_a_worker_is_killed_in_the_middle_of_a_chunk(row: Row) -> None:
    world = row.world(**TWO_PROCESSES)
    others, audio = row.audio(4), row.audio(4)
    row.wait_for_end(row.submit(others, hits=1))
    world.engine.hold()
    job_id = row.submit(audio, hits=2)
    row.await_hits(4, audio)

    killed = row.fault("kill -9 of the worker")
    world.processes.kill(world.processes.workers())
    recovery = row.await_recovery(killed, audio)
    world.engine.release()

    done, job = row.verify()
    assert recovery < PROMISED_SECONDS * SLOW_MACHINE
    assert column(job, "crashes") == [1] * 4
    assert column(job, "attempts") == [2] * 4
    assert column(done, "attempts") == [1] * 4
    lost, repeated = ("unknown", False), ("answered", True)
    ledger = [world.database.ledger(job_id, index) for index in range(4)]
    assert ledger == [[lost, repeated]] * 4, "a call whose answer died with its worker is counted"


@pytest.mark.fast_fault
def test_row_01_a_job_of_24_chunks_whose_worker_is_killed_after_12_costs_25_calls(row: Row) -> None:
    world = row.world(**ONE_BY_ONE)
    audio = row.audio(24)
    world.engine.plan = lambda hit: HANG if len(row.hits) == 13 else WORDS_AT_ONCE

    row.submit(audio, hits=2)
    row.await_hits(13, audio)
    killed = row.fault("kill -9 of the worker in its 13th call")
    world.processes.kill(world.processes.workers())
    recovery = row.await_recovery(killed, audio)

    (job,) = row.verify()
    assert recovery < PROMISED_SECONDS * SLOW_MACHINE
    assert len(row.hits) == 25
    assert sorted(column(job, "attempts")) == [1] * 23 + [2]


def test_row_01_dramatiq_s_master_is_killed_and_its_workers_do_not_live_on(row: Row) -> None:
    world = row.world(**TWO_PROCESSES)
    audio = row.audio(8)
    world.engine.hold()
    row.submit(audio, hits=2)
    row.await_hits(8, audio)
    orphans = set(world.processes.workers())
    assert len(orphans) == 2

    killed = row.fault("kill -9 of the worker's master process")
    world.processes.kill(world.processes.masters())
    wait_until(lambda: not orphans & set(world.processes.workers()), 60)
    row.note(f"its orphans ended after {time.monotonic() - killed:.1f} s")
    row.await_recovery(killed, audio)
    world.engine.release()

    row.verify()
    assert len(world.processes.workers()) == 2, "one set of workers, not two"


def test_row_01_every_process_is_killed_at_random_moments(row: Row) -> None:
    """Worker, master, web server, sweeper, control worker: whatever the seed says, six times."""
    world = row.world(WORKER_PROCESSES="2", WORKER_THREADS="4")
    pause = row.random.uniform
    world.engine.plan = lambda hit: Answer(delay=0.05 + 0.01 * (int(hit.digest[:2], 16) % 40))
    of_kind = {
        "a worker": lambda: world.processes.workers()[:1],
        "all workers": lambda: world.processes.workers() + world.processes.masters(),
        "the master": world.processes.masters,
        "the web server": world.processes.web,
        "the sweeper": world.processes.sweeper,
        "the control worker": lambda: world.processes.workers("control"),
    }
    crashes = 0
    for _ in range(6):
        for _ in range(3):
            row.try_to_submit(row.audio(12), hits=7)
        time.sleep(pause(0.0, 2.0))
        kind = row.random.choice(sorted(of_kind))
        wait_until(of_kind[kind], 60)
        row.fault(f"kill -9 of {kind}")
        world.processes.kill(of_kind[kind]())
        crashes += "worker" in kind or "master" in kind
        wait_until(world.serves, 60)

    jobs = row.verify()
    assert len(jobs) >= 12, "most submissions found a web server"
    assert max(crash for job in jobs for crash in column(job, "crashes")) <= crashes


def test_row_01_every_process_is_killed_at_once_and_started_again(row: Row) -> None:
    world = row.fresh_world()
    audio = row.audio(24)
    world.engine.hold()
    row.submit(audio, hits=2)
    row.await_hits(24, audio)

    row.fault("kill -9 of every process")
    world.die()
    world.engine.release()
    started = time.monotonic()
    world.start()
    row.await_recovery(started, audio)

    (job,) = row.verify()
    assert column(job, "crashes") == [1] * 24


def test_row_02_a_chunk_that_kills_its_worker_is_given_up_and_nothing_else_is(row: Row) -> None:
    world = row.world(WORKER_PROCESSES="2", WORKER_THREADS="8")
    poison, others, beside = row.audio(1), row.audio(3), row.audio(12)

    def kill_its_worker(hit: Hit) -> Answer:
        if hit.digest != poison[0].digest:
            return WORDS_AT_ONCE
        wait_until(lambda: world.database.pid_of_claim(job_id, 0))
        pid = world.database.pid_of_claim(job_id, 0)
        assert pid is not None
        row.fault("kill -9 of the poisoned worker", pid=pid)
        world.processes.kill([pid])
        return HANG

    world.engine.hold()
    world.engine.plan = kill_its_worker
    job_id = row.submit(poison + others, expects="failed", gaps={0: "worker_crashed"}, hits=4)
    well = row.submit(beside, hits=4)
    row.await_hits(1, poison)
    world.engine.release()

    failed = row.wait_for_end(job_id)
    row.wait_for_end(well)
    afterwards = row.audio(6)
    row.wait_for_end(row.submit(afterwards, hits=1))

    row.verify()
    assert len(row.hits_of(poison)) == 3
    error = failed["chunks"][0]["error"]
    assert (error["code"], error["recoverable"]) == ("worker_crashed", True)
    assert failed["chunks"][0]["attempts"] == 3


def test_row_17_a_frozen_worker_that_wakes_up_writes_nothing(row: Row) -> None:
    world = row.world(WORKER_PROCESSES="2", ENGINE_DEADLINE_SECONDS="100", LEASE_SECONDS="130")
    audio = row.audio(3)
    world.engine.hold()
    job_id = row.submit(audio, hits=2)
    row.await_hits(3, audio)
    pids = [world.database.pid_of_claim(job_id, index) for index in range(3)]
    frozen = pids[0]
    assert frozen is not None
    his = pids.count(frozen)

    since = row.fault("SIGSTOP of a worker", pid=frozen)
    world.processes.kill([frozen], signal.SIGSTOP)
    row.await_hits(3 + his, audio)
    row.await_recovery(since, audio)
    world.engine.release()
    assert row.wait_for_end(job_id)["jobStatus"] == "completed"
    before = world.database.jobs()
    row.fault("SIGCONT", pid=frozen)
    world.processes.kill([frozen], signal.SIGCONT)
    wait_until(lambda: fenced(world.log("worker-chunks"), job_id) == his, 60)

    (job,) = row.verify()
    assert world.database.jobs() == before
    assert sorted(column(job, "attempts")) == [1] * (3 - his) + [2] * his
    assert len(row.hits) == 3 + his


def fenced(log: str, job_id: str) -> int:
    """How many results of this job came too late."""
    return len(re.findall(rf"Chunk {job_id}\[\d+\]: the claim was over", log))


def test_row_18_a_deployment_with_200_calls_in_flight_costs_no_attempt(row: Row) -> None:
    world = row.world(WORKER_PROCESSES="2", WORKER_THREADS="128")
    world.engine.hold()
    audio = [row.audio(24) for _ in range(9)]
    for chunks in audio:
        row.submit(chunks, hits=2)
    row.await_hits(216)
    (master,) = world.processes.masters()

    told = row.fault("SIGTERM of the worker")
    world.processes.kill([master], signal.SIGTERM)
    wait_until(lambda: "exited: worker-chunks (exit status 0" in world.log("supervisord"), 90)
    row.note(f"the worker ended after {time.monotonic() - told:.1f} s")
    row.await_recovery(told, [item for chunks in audio for item in chunks])
    world.engine.release()

    jobs = row.verify()
    assert {n for job in jobs for n in column(job, "attempts")} == {1}
    assert {n for job in jobs for n in column(job, "crashes")} == {0}
    assert {n for job in jobs for n in column(job, "errors")} == {0}


@pytest.mark.fast_fault
def test_row_36_a_job_is_cancelled_in_the_middle_of_its_chunks(row: Row) -> None:
    world = row.world(**ONE_BY_ONE)
    audio, other = row.audio(6), row.audio(1)
    cancelled = threading.Event()

    def late(hit: Hit) -> Answer:
        return WORDS_AT_ONCE if hit is row.hits[0] or cancelled.wait(60) else HANG

    world.engine.plan = late
    job_id = row.submit(audio, expects="cancelled", hits=1)
    row.await_hits(2, audio)
    wait_until(lambda: "chunk.completed" in row.events(job_id))

    asked = row.fault("cancel")
    assert world.client.post(f"/transcript/{job_id}/cancel").status_code == 202
    assert row.wait_for_end(job_id)["jobStatus"] == "cancelled"
    row.note(f"cancelled after {time.monotonic() - asked:.2f} s")
    assert world.client.post(f"/transcript/{job_id}/cancel").status_code == 200
    cancelled.set()
    wait_until(lambda: fenced(world.log("worker-chunks"), job_id) == 1)
    done = row.submit(other, hits=1)
    row.wait_for_end(done)
    refused = world.client.post(f"/transcript/{done}/cancel")
    assert refused.status_code == 409
    assert refused.json()["errors"][0]["code"] == "already_ended"

    job, _ = row.verify()
    assert len(row.hits_of(audio)) == 2, "no call after the cancellation"
    assert sorted(column(job, "status")) == ["cancelled"] * 5 + ["completed"]
    assert [event["type"] for event in job["events"]].count("job.cancelled") == 1
