"""Row 32: who is to be told of a job's end is down, fails, stalls or is gone; and crashes there."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.faults.row import Row
from tests.faults.test_crash_points import crash
from tests.faults.world import World
from tests.helpers import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]
LIMIT_SECONDS = 10.0
SCHEDULING_SECONDS = 5.0  # of a machine that has other things to do


def only_delivery(world: World, webhook: str) -> dict[str, Any]:
    (delivery,) = world.client.get(f"{webhook}/deliveries").json()["results"]
    return dict(delivery)


def attempts(world: World, webhook: str) -> list[tuple[int | None, str | None]]:
    """Those that are over: status code and error."""
    found = only_delivery(world, webhook)["attempts"]
    return [(a["statusCode"], a["error"]) for a in found if a["error"] != "interrupted"]


def redeliver(world: World, webhook: str) -> None:
    address = f"{webhook}/deliveries/{only_delivery(world, webhook)['id']}/redeliver"
    assert world.client.post(address).status_code == 202


def test_row_32_a_webhook_s_receiver_fails_drips_is_gone_and_comes_back(row: Row) -> None:
    world = row.fresh_world()
    webhook = world.webhook
    world.receiver.says(500, {})

    row.fault("the receiver answers 500")
    job_id = row.submit(row.audio(2), hits=1)
    assert row.wait_for_end(job_id)["jobStatus"] == "completed"
    began = time.monotonic()
    wait_until(lambda: len(attempts(world, webhook)) == 2, 60)
    row.note(f"told again after {time.monotonic() - began:.1f} s")

    row.fault("the receiver drips")
    world.receiver.answer = lambda handler: handler.drip(b"x")
    redeliver(world, webhook)
    wait_until(lambda: len(attempts(world, webhook)) == 3, 60)
    took = only_delivery(world, webhook)["attempts"][2]["seconds"]
    assert LIMIT_SECONDS - 0.5 <= took <= LIMIT_SECONDS + SCHEDULING_SECONDS

    row.fault("the receiver answers 410")
    world.receiver.says(410, {})
    wait_until(lambda: len(attempts(world, webhook)) == 4, 60)
    assert only_delivery(world, webhook)["status"] == "failed"
    assert world.client.get(webhook).json()["disabledReason"] == "gone"

    world.receiver.says(200, {})
    assert world.client.patch(webhook, json={"enabled": True}).status_code == 200
    redeliver(world, webhook)
    wait_until(lambda: only_delivery(world, webhook)["status"] == "delivered", 60)

    row.verify()
    failures = [(500, "refused")] * 2 + [(None, "timeout"), (410, "gone")]
    assert attempts(world, webhook) == [*failures, (200, None)]
    assert row.read(job_id)["jobStatus"] == "completed"


@pytest.mark.parametrize("point", ["before-webhook", "after-webhook"])
def test_row_32_a_process_dies_before_or_after_it_tells_of_an_end(row: Row, point: str) -> None:
    world = row.fresh_world(CRASHPOINT=f"{point}:1")
    webhook = world.webhook

    job_id = row.submit(row.audio(1), hits=1)
    row.fault(f"SIGKILL at {point}")
    died = crash(world, point)
    wait_until(lambda: only_delivery(world, webhook)["status"] == "delivered", 120)
    row.recovered(time.monotonic() - died)

    row.verify()
    assert len(world.receiver.received) == (2 if point == "after-webhook" else 1)
    assert row.read(job_id)["jobStatus"] == "completed"
