"""Webhooks by a real worker: told at once, told again, and nobody's stitching waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest

from jobs import tasks, webhook_delivery, webhooks
from jobs.models import Job, WebhookDelivery, from_now
from jobs.models.webhook import AT_ONCE_EACH, AT_ONCE_OF_USER
from jobs.sweeper import sweep
from tests import factories
from tests.asr.vendor import Vendor, serving
from tests.helpers import WorkerInTest, broker, wait_until
from tests.scripted import ScriptedEngine

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def loopback_is_allowed(settings: Any) -> None:
    settings.WEBHOOK_ALLOW_HTTP = True
    settings.WEBHOOK_ALLOWED_NETWORKS = (ip_network("127.0.0.0/8"),)


@pytest.fixture
def receiver() -> Iterator[Vendor]:
    with serving() as made:
        yield made


@pytest.fixture
def go_on(receiver: Vendor, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The receiver hangs until then, but at the address `fast`."""
    event = threading.Event()

    def hang(handler: Any) -> None:
        assert handler.path == "/v1/fast" or event.wait(60)
        handler.json(200, {})

    receiver.answer = hang
    monkeypatch.setattr(webhook_delivery, "LIMIT_SECONDS", 60.0)
    return event


def statuses() -> list[str]:
    return sorted(WebhookDelivery.objects.values_list("status", flat=True))


def test_a_job_that_ends_is_told_without_the_sweeper(
    worker: WorkerInTest, script: ScriptedEngine, receiver: Vendor
) -> None:
    factories.make_webhook(receiver.url)
    job = factories.make_job(3, webhook_url=f"{receiver.url}/own")
    for chunk in job.chunks.all():
        factories.put_audio(chunk.audio_path)
    tasks.dispatch(job.pk)
    worker.start()
    wait_until(lambda: statuses() == ["delivered"] * 2)
    assert sorted(request.path for request in receiver.received) == ["/v1", "/v1/own"]
    assert len({request.headers["webhook-id"] for request in receiver.received}) == 1
    assert Job.objects.get().status == "completed"


def test_what_was_committed_and_never_sent_is_found_by_the_sweeper(
    worker: WorkerInTest, receiver: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "_senders", [])  # as if the process had died in between
    worker.start()
    factories.make_delivery(receiver.url)
    assert broker().client.hlen("dramatiq:webhooks.msgs") == 0
    WebhookDelivery.objects.update(resend_time=from_now(-timedelta(seconds=1)))
    assert sweep(tasks.send_chunk, tasks.send_webhook).webhooks == 1
    wait_until(lambda: statuses() == ["delivered"])
    assert len(receiver.received) == 1


def test_a_short_wait_is_ended_by_a_message(
    worker: WorkerInTest, receiver: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_delivery, "RETRY_SECONDS", (0.2, 0.2, 3600.0))
    receiver.says(500, {})
    worker.start()
    delivery = factories.make_delivery(receiver.url)
    wait_until(lambda: delivery.log.exclude(error="interrupted").count() == 3)
    wait_until(lambda: broker().client.hlen("dramatiq:webhooks.msgs") == 0)
    assert broker().client.hlen("dramatiq:webhooks.DQ.msgs") == 0  # not for an hour
    receiver.says(200, {})
    factories.make_deliveries_due()
    assert sweep(None, tasks.send_webhook).webhooks == 0  # its resend time is its own
    WebhookDelivery.objects.update(resend_time=from_now(-timedelta(seconds=1)))
    assert sweep(None, tasks.send_webhook).webhooks == 1
    wait_until(lambda: statuses() == ["delivered"])


def test_slow_receivers_hold_up_no_stitching_and_no_message_is_lost(
    worker: WorkerInTest, receiver: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def slow(handler: Any) -> None:
        assert go_on.wait(60)
        handler.json(200, {})

    receiver.answer = slow
    monkeypatch.setattr(webhook_delivery, "LIMIT_SECONDS", 60.0)
    many = 2 * tasks.WEBHOOKS_AT_ONCE
    for number in range(many):
        factories.make_webhook(receiver.url, user_id=f"user{number}")
        factories.make_completed_job("word", user_id=f"user{number}")
    worker.start(tasks.WEBHOOKS_AT_ONCE + 2, {"control", "webhooks"})
    wait_until(lambda: len(receiver.received) == tasks.WEBHOOKS_AT_ONCE)
    job = factories.make_job(user_id="bob")
    factories.complete(factories.claim(job))
    tasks.stitch_transcript.send(str(job.pk))
    wait_until(lambda: Job.objects.get(pk=job.pk).status == "completed")
    wait_until(lambda: broker().client.llen("dramatiq:webhooks") == 0)
    assert len(receiver.received) == tasks.WEBHOOKS_AT_ONCE  # the others found no slot
    go_on.set()
    wait_until(lambda: statuses() == ["delivered"] * many)
    assert len(receiver.received) == many
    wait_until(lambda: broker().client.hlen("dramatiq:webhooks.msgs") == 0)


def test_a_receiver_that_hangs_holds_up_no_other_endpoint(
    worker: WorkerInTest, receiver: Vendor, go_on: threading.Event
) -> None:
    factories.make_webhook(receiver.url)
    jobs = [factories.make_completed_job("word") for _ in range(2 * tasks.WEBHOOKS_AT_ONCE)]
    worker.start(tasks.WEBHOOKS_AT_ONCE + 2, {"control", "webhooks"})
    wait_until(lambda: broker().client.llen("dramatiq:webhooks") == 0)
    wait_until(lambda: len(receiver.received) >= AT_ONCE_EACH)
    factories.make_webhook(f"{receiver.url}/fast", user_id="bob")
    told = factories.make_completed_job("word", user_id="bob")
    wait_until(lambda: WebhookDelivery.objects.get(job_id=told.pk).status == "delivered")
    assert statuses() == ["delivered"] + ["pending"] * len(jobs)
    assert sum(request.path == "/v1" for request in receiver.received) == AT_ONCE_EACH
    go_on.set()
    wait_until(lambda: statuses() == ["delivered"] * (1 + len(jobs)))
    assert len(receiver.received) == 1 + len(jobs)


def test_a_user_whose_receivers_all_hang_holds_up_no_other_user(
    worker: WorkerInTest, receiver: Vendor, go_on: threading.Event
) -> None:
    for number in range(5):
        factories.make_webhook(f"{receiver.url}/{number}")
    jobs = [factories.make_completed_job("word") for _ in range(3)]
    worker.start(tasks.WEBHOOKS_AT_ONCE + 2, {"control", "webhooks"})
    wait_until(lambda: len(receiver.received) == AT_ONCE_OF_USER)
    factories.make_webhook(f"{receiver.url}/fast", user_id="bob")
    told = factories.make_completed_job("word", user_id="bob")
    wait_until(lambda: WebhookDelivery.objects.get(job_id=told.pk).status == "delivered")
    assert len(receiver.received) == AT_ONCE_OF_USER + 1
    go_on.set()
    wait_until(lambda: statuses() == ["delivered"] * (1 + 5 * len(jobs)))


def test_with_the_broker_away_a_job_ends_and_is_told_later(
    worker: WorkerInTest, receiver: Vendor, redis_elsewhere: Callable[[str], None], settings: Any
) -> None:
    url = settings.BROKER_URL
    redis_elsewhere("redis://127.0.0.1:1/0")
    delivery = factories.make_delivery(receiver.url)
    assert Job.objects.get().status == "completed"
    forgotten = WebhookDelivery.objects.filter(pk=delivery.pk)
    forgotten.update(resend_time=from_now(-timedelta(seconds=1)))
    assert sweep(None, tasks.send_webhook).broker_away
    redis_elsewhere(url)
    assert sweep(None, tasks.send_webhook).webhooks == 1
    worker.start()
    wait_until(lambda: statuses() == ["delivered"])


def test_this_module_says_how_new_ones_are_sent() -> None:
    assert webhooks._senders == [tasks.send_webhooks]
