"""Rows about many things at once: ends, sweepers, submissions."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.engine_server import Answer
from tests.faults.row import Row
from tests.faults.world import TWO_PROCESSES, World

pytestmark = [pytest.mark.faults, pytest.mark.timeout(500)]
JOBS = 1000
PROCESSES, THREADS = 2, 64
POOL = 16  # connections to PostgreSQL that one process may have


@pytest.mark.fast_fault
def test_row_09_all_chunks_finish_in_the_same_millisecond(row: Row) -> None:
    world = row.world(**TWO_PROCESSES)
    world.engine.hold()
    for number in (24, 24, 12, 3, 1):
        row.submit(row.audio(number), hits=1)
    world.engine.wait_in_flight(64)

    row.fault("64 answers at the same moment")
    world.engine.release()

    jobs = row.verify()
    assert len(row.hits) == 64
    assert len(jobs) == 5
    for job in jobs:
        assert [event["type"] for event in job["events"]].count("job.completed") == 1


def test_row_34_ten_sweepers_at_once_twice_beside_living_workers(row: Row) -> None:
    world = row.world(WORKER_PROCESSES=str(PROCESSES), WORKER_THREADS="8")
    world.engine.plan = lambda hit: Answer(delay=0.3)
    for _ in range(2):
        for _ in range(10):
            row.submit(row.audio(12), hits=1)
        row.fault("ten times requeue_pending")
        sweepers = [world.manage("requeue_pending") for _ in range(10)]
        for sweeper in sweepers:
            said, _ = sweeper.communicate(timeout=120)
            assert sweeper.returncode == 0, said

    jobs = row.verify()
    assert len(row.hits) == 240
    assert {chunk["attempts"] for job in jobs for chunk in job["chunks"]} == {1}


@pytest.mark.postgres_only  # SQLite lets one process write at a time, and not in turn
def test_row_38_a_thousand_files_come_in_ten_seconds(row: Row) -> None:
    world = row.fresh_world(WORKER_PROCESSES=str(PROCESSES), WORKER_THREADS=str(THREADS))
    world.engine.plan = lambda hit: Answer(delay=0.2)
    audio = row.audio(JOBS)
    seconds = [0.0] * JOBS
    refused: list[int] = []
    begun = time.monotonic()

    def submit(number: int) -> None:
        """As a client does: what was refused for want of a connection is sent again."""
        time.sleep(max(0.0, begun + number / 100 - time.monotonic()))
        for _ in range(10):
            since = time.monotonic()
            answer = row.try_to_submit(audio[number : number + 1], hits=1)
            seconds[number] = time.monotonic() - since
            assert answer is not None
            if answer.status_code == 202:
                return
            assert answer.status_code == 503, answer.text
            refused.append(number)
            time.sleep(float(answer.headers["Retry-After"]))
        raise AssertionError("refused ten times")

    row.fault("1000 submissions, 100 a second")
    with watching(world) as most, ThreadPoolExecutor(32) as pool:
        list(pool.map(submit, range(JOBS)))
        submitted = time.monotonic() - begun
        jobs = row.verify()
    ordered = sorted(seconds)

    row.note(f"all accepted in {submitted:.1f} s, ended after {time.monotonic() - begun:.1f} s")
    row.note(
        f"POST: p50 {ordered[JOBS // 2]:.2f} s, p99 {ordered[math.ceil(0.99 * JOBS) - 1]:.2f} s, "
        f"{len(refused)} answers 503; at most {world.engine.most_in_flight} calls at once"
    )
    row.note(f"at most {most}")
    assert len(jobs) == JOBS
    assert len(row.hits) == JOBS
    assert world.engine.most_in_flight <= PROCESSES * THREADS
    # web, sweeper, and a worker process for each of local and control
    assert most["connections to PostgreSQL"] <= POOL * (PROCESSES + 4)


@contextmanager
def watching(world: World) -> Iterator[dict[str, int]]:
    """Look again and again at what a system uses; the most of each."""
    most = {"connections to PostgreSQL": 0, "clients of Redis": 0, "MiB of a process": 0}
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.5):
            now = {
                "connections to PostgreSQL": world.database.connections(),
                "clients of Redis": int(world.redis.client.info("clients")["connected_clients"]),
                "MiB of a process": max(map(resident, world.processes.workers()), default=0),
            }
            for name, number in now.items():
                most[name] = max(most[name], number)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield most
    finally:
        over.set()
        watcher.join()


def resident(pid: int) -> int:
    """The memory that a process has, in MiB."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")]
    return int(found[0]) // 1024 if found else 0
