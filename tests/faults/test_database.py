"""Rows about PostgreSQL: it is stopped, it is full, and its clock is the one that counts."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from tests.faults.audio import Audio
from tests.faults.engine_server import WORDS_AT_ONCE, Answer, Hit, failing
from tests.faults.row import Row
from tests.faults.servers import OwnPostgres
from tests.faults.world import World
from tests.helpers import wait_until
from transcription_site.env import BASE_DIR

pytestmark = [pytest.mark.faults, pytest.mark.postgres_only, pytest.mark.timeout(400)]
LONGER_THAN_A_HEARTBEAT = 20.0
SILENCE_SECONDS = 15.0  # after which a worker is taken for dead, if it was not the database


def own_postgres(world: World) -> OwnPostgres:
    assert world.postgres is not None
    return world.postgres


@contextmanager
def stopped(world: World) -> Iterator[None]:
    """While PostgreSQL is away; it comes back in any case, for the history to be read."""
    own_postgres(world).stop()
    try:
        yield
    finally:
        own_postgres(world).start()


def assert_unavailable(answer: httpx2.Response) -> None:
    """503 in the one shape of errors, and when to come back."""
    assert answer.status_code == 503, answer.text
    assert answer.headers["Content-Type"].startswith("application/json")
    assert int(answer.headers["Retry-After"]) > 0
    assert [error["code"] for error in answer.json()["errors"]] == ["database_unavailable"]


def assert_away_for_callers(row: Row, world: World, audio: list[Audio], job_id: str) -> None:
    """What every caller sees while the database is away."""
    refused = row.try_to_submit(audio)
    assert refused is not None
    assert_unavailable(refused)
    for address in (f"/transcript/{job_id}", "/transcript/search"):
        assert_unavailable(world.client.get(address))
    ready = world.client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (503, "down")
    assert ready.json()["database"] == {"status": "down", "reason": "database_unavailable"}
    assert world.client.get("/healthz").status_code == 200


def processes(world: World) -> dict[str, list[int]]:
    """All that runs; a thread that dies takes its process with it (the watchdog)."""
    all_of_them = world.processes
    workers = {queue: all_of_them.workers(queue) for queue in ("chunks", "local", "control")}
    return {"web": all_of_them.web(), "sweeper": all_of_them.sweeper(), **workers}


def test_row_15_postgresql_is_stopped_in_the_middle_of_a_job(row: Row) -> None:
    world = row.fresh_world(own_postgres=True, WORKER_THREADS="8")
    world.engine.plan = lambda hit: Answer(delay=2.0)
    running = processes(world)
    audio = row.audio(24)
    job_id = row.submit(audio, hits=2)
    row.await_hits(12)

    with stopped(world):
        since = row.fault("PostgreSQL: immediate stop, with 8 calls under way")
        rejected = row.audio(1)
        while time.monotonic() < since + LONGER_THAN_A_HEARTBEAT:
            assert_away_for_callers(row, world, rejected, job_id)
    back = row.fault("PostgreSQL is back")

    row.await_recovery(back, audio)
    (job,) = row.verify()
    calls = Counter(hit.digest for hit in row.hits)
    row.note(f"{calls.total()} calls for 24 chunks")
    assert processes(world) == running, "nobody died of it"
    wait_until(lambda: world.readiness()["status"] == "ok")
    assert {chunk["errors"] for chunk in job["chunks"]} == {0}


@contextmanager
def all_connections(url: str) -> Iterator[None]:
    """Every connection that the server grants is ours; those of others are cut."""
    with ExitStack() as held:
        first = held.enter_context(psycopg.connect(url, autocommit=True))
        own = {first.info.backend_pid}
        while True:
            try:
                taken = held.enter_context(psycopg.connect(url, autocommit=True))
                own.add(taken.info.backend_pid)
            except psycopg.OperationalError:
                if not _cut_others(first, own):
                    break
        yield


def _cut_others(connection: psycopg.Connection[Any], own: set[int]) -> bool:
    """Whether there was still somebody else."""
    backends = connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
    ).fetchall()
    others = [pid for (pid,) in backends if pid not in own]
    connection.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) pid", [others])
    return bool(others)


def test_row_16_postgresql_has_no_connection_left(row: Row) -> None:
    # Nobody holds a connection for longer than the claims may live: nothing is called for twice.
    world = row.fresh_world(own_postgres=True, WORKER_THREADS="8", LEASE_SECONDS="150")
    running = processes(world)
    world.engine.hold()
    audio = row.audio(24)
    job_id = row.submit(audio, hits=1)
    world.engine.wait_in_flight(8)

    with all_connections(own_postgres(world).url):
        row.fault("every connection of PostgreSQL is taken")
        world.engine.release()  # with nowhere to write the results
        assert_away_for_callers(row, world, row.audio(1), job_id)
        assert len(row.hits) == 8, "no new call while its result could not be stored"
    freed = row.fault("the connections are free")

    row.await_recovery(freed, audio)
    row.wait_for_end(row.submit(row.audio(2)))
    row.verify()
    assert processes(world) == running, "nobody died of it"


@contextmanager
def with_wrong_clock(world: World, shift: str, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """`manage.py <command>` in a process, and its children, whose clock is wrong by that much."""
    spec = importlib.util.find_spec("libfaketime")
    assert spec is not None
    assert spec.origin is not None
    library = Path(spec.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"
    wrong = {"LD_PRELOAD": str(library), "FAKETIME": shift, "DONT_FAKE_MONOTONIC": "1"}
    process = subprocess.Popen(
        [sys.executable, "manage.py", *command],
        cwd=BASE_DIR,
        env=environment_of(world.processes.masters()[0]) | wrong,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def environment_of(pid: int) -> dict[str, str]:
    """What a process was started with."""
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair)


def holders(world: World) -> Counter[int]:
    """How many claims each worker process holds."""
    claims = "SELECT pid FROM jobs_chunk JOIN jobs_workerprocess w ON worker_id = w.id"
    return Counter(row["pid"] for row in world.database.read(claims))


def fails_once(audio: list[Audio]) -> Callable[[Hit], Answer]:
    """The engine fails the first call for each of these files."""
    digests = {item.digest for item in audio}
    return lambda hit: failing(500) if hit.number == 1 and hit.digest in digests else WORDS_AT_ONCE


def test_row_35_the_clocks_of_some_workers_are_wrong_by_hours(row: Row) -> None:
    world = row.fresh_world(WORKER_PROCESSES="1", WORKER_THREADS="4")
    audio = row.audio(12)
    world.engine.plan = fails_once(audio[:4])
    world.engine.hold()
    with (
        with_wrong_clock(world, "+2h", "run_worker", "chunks"),
        with_wrong_clock(world, "-2h", "run_worker", "chunks"),
        with_wrong_clock(world, "+2h", "requeue_pending", "--every", "1"),
        with_wrong_clock(world, "-2h", "requeue_pending", "--every", "1"),
    ):
        wait_until(lambda: world.readiness()["workers"]["chunks"] == 3, 60)
        submitted = row.fault("two of three workers, and two of three sweepers, have wrong clocks")
        job_id = row.submit(audio, hits=[2] * 4 + [1] * 8)
        world.engine.wait_in_flight(12)
        claims = holders(world)
        assert sorted(claims.values()) == [4, 4, 4], "every worker has its share"
        # Longer than a silent worker is waited for: no claim of these may be taken for over.
        wait_until(lambda: time.monotonic() > submitted + SILENCE_SECONDS + 5)
        assert holders(world) == claims
        assert len(row.hits) == 12
        world.engine.release()
        result = row.wait_for_end(job_id)
    (job,) = row.verify()

    for before, after in (row.hits_of([item]) for item in audio[:4]):
        assert after.time - before.ended > 1.99, "the wait of 2 s is the database's too"
    assert result["jobStatus"] == "completed"
    assert {chunk["crashes"] for chunk in job["chunks"]} == {0}
    times = [event["time"] for event in job["events"]]
    assert all(after >= before for before, after in pairwise(times))
    waits = [event for event in job["events"] if "notBefore" in event["data"]]
    assert len(waits) == 4
    for event in waits:
        due = datetime.fromisoformat(event["data"]["notBefore"]).timestamp()
        assert 1.5 < due - event["time"] < 5, "what callers are told is the database's time as well"
