"""Rows about workers, web and sweeper that die, freeze or are stopped."""

from __future__ import annotations

import pytest

from tests.faults.row import Row

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]


@pytest.mark.fast_fault
def test_row_01_a_worker_is_killed_in_the_middle_of_a_chunk(row: Row) -> None:
    world = row.world()
    audio, others = row.audio(4), row.audio(4)
    done = row.submit(others)
    row.wait_for_end(done)
    world.engine.hold()
    row.submit(audio, hits=2)
    row.await_hits(4, audio)

    killed = row.fault("kill -9 of the worker")
    world.processes.kill(world.processes.workers())
    row.await_recovery(killed, audio)
    world.engine.release()

    jobs = row.verify()
    assert [chunk["crashes"] for chunk in jobs[1]["chunks"]] == [1] * 4
