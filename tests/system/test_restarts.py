"""kill -9 in the middle of a job: it completes, and what was finished is not done again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.system.conftest import RunningSystem

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]
IN_FLIGHT = 2  # chunks of a local engine at once, on the two cores that the tests assume at least


def finished(result: dict[str, Any]) -> dict[int, int]:
    """The attempts of the completed chunks, by index."""
    return {c["index"]: c["attempts"] for c in result["chunks"] if c["status"] == "completed"}


def in_the_middle(number: int) -> Callable[[dict[str, Any]], bool]:
    """So many chunks are finished, and some are under way."""

    def so_far(result: dict[str, Any]) -> bool:
        under_way = any(chunk["status"] == "in_progress" for chunk in result["chunks"])
        return under_way and len(finished(result)) >= number

    return so_far


def test_a_job_survives_that_all_workers_are_killed_twice(
    system: RunningSystem,
) -> None:
    job_id = system.submit(system.put_samples("alice", 24), userId="alice")
    seen: dict[int, int] = {}
    for number in (4, 12):
        state = system.wait(job_id, in_the_middle(number))
        assert state["jobStatus"] == "in_progress"
        seen |= finished(state)
        assert system.kill("dramatiq") >= 3, "every queue's worker has a master and its processes"

    done = system.wait_for_end(job_id)

    assert done["jobStatus"] == "completed"
    attempts = finished(done)
    assert {index: attempts[index] for index in seen} == seen
    assert sum(attempts.values()) <= 24 + 2 * IN_FLIGHT


def test_a_job_survives_that_every_process_is_killed_at_once(system: RunningSystem) -> None:
    job_id = system.submit(system.put_samples("alice", 24), userId="alice")
    seen = finished(system.wait(job_id, in_the_middle(8)))
    assert system.kill("") >= 10

    system.start()
    done = system.wait_for_end(job_id)

    assert done["jobStatus"] == "completed"
    assert len(done["transcription"].split()) > 24 * 5
    attempts = finished(done)
    assert {index: attempts[index] for index in seen} == seen
    assert sum(attempts.values()) <= 24 + IN_FLIGHT
