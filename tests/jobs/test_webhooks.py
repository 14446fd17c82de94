"""Webhooks: what is written into the outbox when a job ends, and what becomes of it otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from jobs import actions, finishing, webhooks
from jobs.address_guard import UrlNotAllowedError
from jobs.models import (
    MAX_WEBHOOKS,
    EventType,
    Job,
    JobStatus,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    changing,
    from_now,
)
from jobs.sweeper import sweep
from tests import factories
from tests.helpers import together

pytestmark = pytest.mark.django_db
URL = "https://receiver.example/hook"
SECOND = timedelta(seconds=1)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """The deliveries that are sent after their commit."""
    ids: list[UUID] = []
    monkeypatch.setattr(webhooks, "_senders", [])

    def send(delivery_ids: Sequence[UUID]) -> None:
        ids.extend(delivery_ids)

    webhooks.send_with(send)
    return ids


def told(job: Job) -> list[tuple[str, str, str]]:
    """What is to be told of a job: event, type, and where to."""
    rows = WebhookDelivery.objects.filter(job_id=job.pk).order_by("created_time", "pk")
    return [(row.event_id, row.type, row.target) for row in rows]


def ends() -> dict[str, Job]:
    cancelled = factories.make_job(2)
    actions.cancel(cancelled.pk)
    return {
        "completed": factories.make_completed_job("word"),
        "failed": factories.make_failed_job("word", None),
        "cancelled": cancelled,
    }


# --- the outbox


def test_each_end_is_told_to_each_endpoint_once_under_one_id() -> None:
    urls = [URL, f"{URL}/2"]
    for url in urls:
        factories.make_webhook(url)
    for status, job in ends().items():
        sequence = job.events.get(type=f"job.{status}").sequence
        event = f"msg_{job.pk.hex}_{sequence}"
        assert sorted(told(job)) == [(event, f"transcript.{status}", url) for url in urls]
    assert set(WebhookDelivery.objects.values_list("status", "attempts")) == {("pending", 0)}


def test_only_what_is_wanted_is_told_and_only_to_those_who_are_on_and_whose_job_it_is() -> None:
    factories.make_webhook(URL, events=["transcript.failed"])
    factories.make_webhook(f"{URL}/off", disabled_time=from_now(-SECOND), disabled_reason="gone")
    factories.make_webhook(f"{URL}/bob", user_id="bob")
    jobs = ends()
    assert [target for *_, target in told(jobs["failed"])] == [URL]
    assert told(jobs["completed"]) == told(jobs["cancelled"]) == []


def test_a_job_s_own_url_is_told_besides_and_signed_by_the_row_without_url() -> None:
    endpoint = factories.make_webhook(URL)
    job = factories.make_completed_job("word", webhook_url=f"{URL}/own")
    assert sorted(target for *_, target in told(job)) == [URL, f"{URL}/own"]
    assert len({event for event, *_ in told(job)}) == 1
    own = WebhookEndpoint.objects.get(user_id="alice", url="")
    assert own.secret != endpoint.secret
    assert WebhookDelivery.objects.get(endpoint=own).url == f"{URL}/own"
    factories.make_completed_job("word", webhook_url=f"{URL}/own")
    assert WebhookEndpoint.objects.filter(url="").count() == 1


def test_a_job_s_own_url_is_not_told_while_its_row_is_off() -> None:
    webhooks.change_endpoint(webhooks.for_single_jobs("alice"), enabled=False)
    assert told(factories.make_completed_job("word", webhook_url=URL)) == []


def test_a_retried_job_that_ends_again_is_another_event() -> None:
    factories.make_webhook(URL)
    job = factories.make_failed_job("word", None)
    actions.retry(job.pk)
    factories.make_due(job.pk)
    factories.complete(factories.claim(job, 1))
    assert finishing.finish_job(job.pk)
    (first, failed, _), (second, completed, _) = told(job)
    assert (failed, completed) == ("transcript.failed", "transcript.completed")
    assert first != second


def test_an_end_that_is_not_committed_is_not_told(sent: list[UUID]) -> None:
    factories.make_webhook(URL)
    job = factories.make_job()
    factories.complete(factories.claim(job))
    with suppress(ZeroDivisionError), changing(job.pk) as change:
        ended = (JobStatus.COMPLETED, EventType.JOB_COMPLETED)
        finishing.end_job(change, *ended, job.chunks.all())
        written = len(told(job))
        raise ZeroDivisionError
    assert written == 1
    assert told(job) == sent == []


def test_without_an_endpoint_an_end_costs_one_statement_more() -> None:
    job = factories.make_job()
    factories.complete(factories.claim(job))
    with CaptureQueriesContext(connection) as queries:
        assert finishing.finish_job(job.pk)
    asked = [query["sql"] for query in queries if "webhook" in query["sql"].partition("FROM")[2]]
    assert len(asked) == 1
    assert asked[0].startswith("SELECT")
    assert not any('INTO "jobs_webhook' in query["sql"] for query in queries)


def test_however_many_endpoints_there_are_one_statement_writes_for_all() -> None:
    for number in range(10):
        factories.make_webhook(f"{URL}/{number}")
    with CaptureQueriesContext(connection) as queries:
        factories.make_completed_job("word")
    assert sum('INTO "jobs_webhookdelivery"' in query["sql"] for query in queries) == 1
    assert WebhookDelivery.objects.count() == 10


def test_messages_are_sent_after_the_commit(
    sent: list[UUID], django_capture_on_commit_callbacks: Any
) -> None:
    factories.make_webhook(URL)
    with django_capture_on_commit_callbacks(execute=True):
        factories.make_completed_job("word")
        assert sent == []
    assert sent == [WebhookDelivery.objects.get().pk]


def test_where_nobody_said_how_to_send_it_is_left_to_the_sweeper(
    monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    monkeypatch.setattr(webhooks, "_senders", [])
    factories.make_webhook(URL)
    with django_capture_on_commit_callbacks(execute=True):
        factories.make_completed_job("word")
    found: list[UUID] = []
    assert sweep(None, found.append).webhooks == 0  # its message may still come
    WebhookDelivery.objects.update(resend_time=from_now(-SECOND))
    assert sweep(None, found.append).webhooks == 1
    assert found == [WebhookDelivery.objects.get().pk]


# --- the sweeper


def test_the_sweeper_sends_what_is_due_and_no_message_points_at() -> None:
    lost, sent, later, ended = (factories.make_delivery(f"{URL}/{n}") for n in range(4))
    rows = WebhookDelivery.objects
    rows.filter(pk=lost.pk).update(resend_time=from_now(-SECOND))
    rows.filter(pk=later.pk).update(resend_time=from_now(-SECOND), not_before=from_now(SECOND * 60))
    rows.filter(pk=ended.pk).update(resend_time=from_now(-SECOND), status="delivered")
    rows.exclude(pk__in=[lost.pk, sent.pk, later.pk, ended.pk]).delete()
    found: list[UUID] = []
    assert sweep(None, found.append).webhooks == 1
    assert found == [lost.pk]
    assert sweep(None, found.append).webhooks == 0  # it was sent just now
    assert sweep(None, found.append, everything=True).webhooks == 2
    assert set(found) == {lost.pk, sent.pk}


def test_with_the_broker_away_the_sweeper_tries_again() -> None:
    delivery = factories.make_delivery(URL)
    WebhookDelivery.objects.update(resend_time=from_now(-SECOND))

    def away(delivery_id: UUID) -> None:
        raise ConnectionError

    report = sweep(None, away)
    assert (report.webhooks, report.broker_away) == (0, True)
    found: list[UUID] = []
    sweep(None, found.append)
    assert found == [delivery.pk]


def test_the_sweeper_forgets_what_ended_long_ago() -> None:
    old, pending, young = (factories.make_delivery(f"{URL}/{n}") for n in range(3))
    rows = WebhookDelivery.objects
    rows.exclude(pk__in=[old.pk, pending.pk, young.pk]).delete()
    long_ago = from_now(-timedelta(days=31))
    rows.filter(pk=old.pk).update(created_time=long_ago, status="failed")
    rows.filter(pk=pending.pk).update(created_time=long_ago)
    rows.filter(pk=young.pk).update(status="failed")
    WebhookAttempt.objects.create(delivery=old)
    WebhookAttempt.objects.create(delivery_id=uuid4(), time=from_now(-timedelta(days=40)))
    kept = WebhookAttempt.objects.create(delivery=young)
    sweep(None)
    assert set(rows.values_list("pk", flat=True)) == {pending.pk, young.pk}
    assert list(WebhookAttempt.objects.all()) == [kept]


# --- endpoints


def test_a_user_has_at_most_ten_endpoints_beside_the_one_without_url() -> None:
    webhooks.for_single_jobs("alice")
    for number in range(10):
        webhooks.create("alice", f"https://8.8.8.8/{number}")
    with pytest.raises(webhooks.TooManyWebhooksError):
        webhooks.create("alice", "https://8.8.8.8/10")
    webhooks.create("bob", "https://8.8.8.8/")


@pytest.mark.django_db(transaction=True)
def test_nor_do_many_at_once_make_more() -> None:
    for number in range(MAX_WEBHOOKS - 1):
        factories.make_webhook(f"{URL}/{number}")
    outcomes = together(*[lambda: webhooks.create("alice", "https://8.8.8.8/")] * 4)
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds.count(WebhookEndpoint) == 1, outcomes
    assert kinds.count(webhooks.TooManyWebhooksError) == 3, outcomes
    assert WebhookEndpoint.objects.count() == MAX_WEBHOOKS


def test_secrets_are_32_random_bytes_each_another() -> None:
    import base64

    secrets = {factories.make_webhook(f"{URL}/{n}").secret for n in range(3)}
    assert len(secrets) == 3
    for secret in secrets:
        assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32


def test_an_endpoint_that_is_switched_off_is_told_nothing_more() -> None:
    delivery = factories.make_delivery(URL)
    webhooks.change_endpoint(delivery.endpoint, enabled=False)
    delivery.refresh_from_db()
    assert (delivery.status, delivery.error) == ("cancelled", "endpoint_disabled")
    with pytest.raises(webhooks.DisabledError):
        webhooks.redeliver(delivery)
    webhooks.change_endpoint(delivery.endpoint, enabled=True)
    delivery.refresh_from_db()
    assert delivery.status == "cancelled"  # what was cancelled stays so
    assert len(told(factories.make_completed_job("word"))) == 1


def test_what_is_pending_goes_to_the_new_address() -> None:
    delivery = factories.make_delivery(URL)
    webhooks.change_endpoint(delivery.endpoint, url="https://8.8.8.8/new")
    assert WebhookDelivery.objects.get(pk=delivery.pk).target == "https://8.8.8.8/new"
    with pytest.raises(UrlNotAllowedError):
        webhooks.change_endpoint(delivery.endpoint, url="https://127.0.0.1/")


def test_with_a_job_or_an_endpoint_its_deliveries_go() -> None:
    endpoint = factories.make_webhook(URL)
    other = factories.make_webhook(f"{URL}/other")
    job = factories.make_completed_job("word")
    for delivery in WebhookDelivery.objects.all():
        WebhookAttempt.objects.create(delivery=delivery)
    endpoint.delete()
    assert [target for *_, target in told(job)] == [other.url]
    assert WebhookAttempt.objects.count() == 1
    actions.delete(job.pk)
    assert not WebhookDelivery.objects.exists()
    assert not WebhookAttempt.objects.exists()
