"""kill -9 in the middle of a job: it completes, and what was finished is not done again."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx2
import pytest

from tests.helpers import wait_until
from tests.system.conftest import RunningSystem, StartSystem

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


def freeze_with_claims(system: RunningSystem, job_id: str) -> int:
    """Stop the workers while they hold claims, which die with them; the number of claims.

    Without it the kill may fall between two chunks, and nothing would be lost.
    """
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert system.kill("dramatiq", number=signal.SIGSTOP) >= 3
        time.sleep(0.5)  # a commit that was under way to the database is over by then
        chunks = system.read(job_id)["chunks"]
        if held := [chunk for chunk in chunks if chunk["status"] == "in_progress"]:
            return len(held)
        system.kill("dramatiq", number=signal.SIGCONT)
    raise AssertionError("the workers never hold a claim")


@pytest.fixture
def system(start_system: StartSystem) -> RunningSystem:
    """Each chunk is work of its own: the samples come four times."""
    return start_system(DEDUPLICATE="off")


def test_a_job_survives_that_all_workers_are_killed_twice(
    system: RunningSystem,
) -> None:
    job_id = system.submit(system.put_samples("alice", 24), userId="alice")
    seen: dict[int, int] = {}
    lost = 0
    for number in (4, 12):
        state = system.wait(job_id, in_the_middle(number))
        assert state["jobStatus"] == "in_progress"
        lost += freeze_with_claims(system, job_id)
        seen |= finished(system.read(job_id))
        assert system.kill("dramatiq") >= 3, "every queue's worker has a master and its processes"

    done = system.wait_for_end(job_id)

    assert done["jobStatus"] == "completed"
    attempts = finished(done)
    assert {index: attempts[index] for index in seen} == seen
    assert 2 <= lost <= 2 * IN_FLIGHT
    assert sum(attempts.values()) == 24 + lost


def test_a_job_survives_that_every_process_is_killed_at_once(system: RunningSystem) -> None:
    job_id = system.submit(system.put_samples("alice", 24), userId="alice")
    system.wait(job_id, in_the_middle(8))
    lost = freeze_with_claims(system, job_id)
    seen = finished(system.read(job_id))
    assert system.kill("") >= 10

    system.start()
    done = system.wait_for_end(job_id)

    assert done["jobStatus"] == "completed"
    assert len(done["transcription"].split()) > 24 * 5
    attempts = finished(done)
    assert {index: attempts[index] for index in seen} == seen
    assert 1 <= lost <= IN_FLIGHT
    assert sum(attempts.values()) == 24 + lost


@pytest.mark.parametrize("killed", ["spawn_main", "uvicorn"])
def test_web_processes_that_are_killed_come_again(start_system: StartSystem, killed: str) -> None:
    """The first only looks after the others, which would hold the port when it has gone."""
    system = start_system(WEB_PROCESSES="2")
    before = set(system.processes("spawn_main"))
    assert len(before) == 2
    assert system.kill(killed) in {1, 2}

    def come_again() -> bool:
        others = set(system.processes("spawn_main"))
        return len(others) == 2 and not before & others

    wait_until(come_again)
    wait_until(lambda: answers(system))
    assert all(answers(system) for _ in range(20))  # over a new connection each


def answers(system: RunningSystem) -> bool:
    with suppress(httpx2.TransportError):
        return httpx2.get(f"{system.url}/healthz", trust_env=False).is_success
    return False
