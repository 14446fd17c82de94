"""Rows in which a process dies at a named point: just before or after a commit or a message.

The crash point leaves a mark under the world's folder, which is how a row knows that it has
really happened; a row whose process did not die fails.
"""

from __future__ import annotations

import time

import pytest

from jobs.models import EventType
from tests.faults.row import Row
from tests.faults.scenario import Scenario
from tests.faults.world import ONE_BY_ONE, World
from tests.helpers import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]
COMMITS = [f"{moment}-{event.value}" for event in EventType for moment in ("before", "after")]
SENDS = ["before-send", "after-send"]


def crash(world: World, point: str) -> float:
    """Wait until a process has died at the point; when it did, by the monotonic clock."""
    mark = world.var / f"crashed-at-{point}"
    wait_until(mark.exists, 60)
    return time.monotonic() - (time.time() - mark.stat().st_mtime)


@pytest.mark.fast_fault
def test_row_03_a_worker_dies_after_the_commit_of_a_result_and_before_the_ack(row: Row) -> None:
    world = row.fresh_world(CRASHPOINT="after-chunk.completed:2", **ONE_BY_ONE)
    audio = row.audio(3)

    row.submit(audio, hits=1)
    row.fault("SIGKILL after the commit of the second result")
    died = crash(world, "after-chunk.completed")

    row.await_recovery(died, audio)
    (job,) = row.verify()
    assert [chunk["attempts"] for chunk in job["chunks"]] == [1, 1, 1]
    assert [chunk["crashes"] for chunk in job["chunks"]] == [0, 0, 0]


@pytest.mark.fast_fault
def test_row_04_a_worker_dies_between_the_answer_and_its_commit(row: Row) -> None:
    world = row.fresh_world(CRASHPOINT="before-chunk.completed:2", **ONE_BY_ONE)
    audio = row.audio(3)

    row.submit(audio, hits=2)
    row.fault("SIGKILL before the commit of the second result")
    died = crash(world, "before-chunk.completed")

    row.await_recovery(died, audio)
    (job,) = row.verify()
    assert len(row.hits) == 4, "the one chunk whose answer was lost is asked for again"
    assert sorted(chunk["attempts"] for chunk in job["chunks"]) == [1, 1, 2]
    assert sorted(chunk["crashes"] for chunk in job["chunks"]) == [0, 0, 1]


def test_row_05_a_worker_dies_between_the_last_chunk_and_the_stitching(row: Row) -> None:
    world = row.fresh_world(CRASHPOINT="after-chunk.completed:3", **ONE_BY_ONE)

    job_id = row.submit(row.audio(3), hits=1)
    row.fault("SIGKILL after the commit of the last result")
    died = crash(world, "after-chunk.completed")

    row.wait_for_end(job_id)
    row.recovered(time.monotonic() - died)
    row.verify()


def test_row_06_a_worker_dies_in_the_middle_of_the_stitching(row: Row) -> None:
    world = row.fresh_world(CRASHPOINT="before-job.completed:1")

    job_id = row.submit(row.audio(6), hits=1)
    row.fault("SIGKILL before the commit of the transcript")
    died = crash(world, "before-job.completed")

    row.wait_for_end(job_id)
    row.recovered(time.monotonic() - died)
    row.verify()


def test_row_07_the_web_server_dies_before_it_sends_its_24_messages(row: Row) -> None:
    world = row.fresh_world(CRASHPOINT="before-send:7")
    audio = row.audio(24)

    row.fault("SIGKILL at the seventh message: they are sent together, so none was")
    assert row.try_to_submit(audio, hits=1) is None, "the web server did not die"
    died = crash(world, "before-send")
    row.await_hits(24, audio, 120)  # the patience with a message is a minute
    row.recovered(time.monotonic() - died)

    (job,) = row.verify()
    assert len(row.hits) == 24
    assert {chunk["attempts"] for chunk in job["chunks"]} == {1}


@pytest.mark.parametrize("point", COMMITS + SENDS)
def test_row_07_a_process_dies_at_each_commit_and_each_send(row: Row, point: str) -> None:
    scenario = Scenario(row)
    number = row.random.randint(1, 24) if point in SENDS else 1
    world = scenario.begin(CRASHPOINT=f"{point}:{number}")
    row.fault(f"SIGKILL at {point}:{number}")

    scenario.play()

    assert (world.var / f"crashed-at-{point}").exists(), "nobody died"
    row.verify()
