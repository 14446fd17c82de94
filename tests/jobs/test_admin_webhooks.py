"""Webhooks in the admin: everything but the secrets is seen, and deliveries are sent again."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from jobs import webhook_delivery, webhooks
from jobs.models import WebhookDelivery
from tests import factories
from tests.helpers import broker

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_is_empty")]
ENDPOINTS = reverse("admin:jobs_webhookendpoint_changelist")
DELIVERIES = reverse("admin:jobs_webhookdelivery_changelist")
URL = "https://receiver.example/hook?key=s3cret"


def shown(client: Client, model: str, pk: object) -> str:
    page = client.get(reverse(f"admin:jobs_{model}_change", args=[pk]))
    assert page.status_code == 200
    return page.content.decode()


def act(client: Client, *deliveries: WebhookDelivery) -> Any:
    chosen = {"action": "redeliver", "_selected_action": [row.pk for row in deliveries]}
    return client.post(DELIVERIES, chosen, follow=True)


def test_endpoints_are_shown_without_secrets(admin_client: Client) -> None:
    endpoint = factories.make_webhook(URL)
    old = endpoint.secret
    webhooks.rotate(endpoint)
    own = webhooks.for_single_jobs("alice")
    pages = [
        admin_client.get(ENDPOINTS).content.decode(),
        shown(admin_client, "webhookendpoint", endpoint.pk),
        shown(admin_client, "webhookendpoint", own.pk),
    ]
    for page in pages:
        assert "alice" in page
        for secret in (old, endpoint.secret, own.secret, "whsec_", "s3cret"):
            assert secret not in page
    assert "https://receiver.example/hook?…" in pages[0]
    assert "(that of each job)" in pages[2]


def test_deliveries_are_shown_with_every_attempt_and_lead_to_their_job(
    admin_client: Client,
) -> None:
    delivery = factories.make_delivery("https://127.0.0.1/hook?key=s3cret")
    webhook_delivery.deliver(delivery.pk)
    listed = admin_client.get(DELIVERIES).content.decode()
    one = shown(admin_client, "webhookdelivery", delivery.pk)
    for page in (listed, one):
        assert "url_not_allowed" in page
        assert reverse("admin:jobs_job_change", args=[delivery.job_id]) in page
        assert "s3cret" not in page
    assert delivery.event_id in one


def test_deliveries_are_found_by_user_and_by_job(admin_client: Client) -> None:
    delivery = factories.make_delivery(URL)

    def found(term: str) -> list[Any]:
        rows = admin_client.get(DELIVERIES, {"q": term}).context["cl"].result_list
        return [row.pk for row in rows]

    assert found("") == found("ali") == found(str(delivery.job_id)) == [delivery.pk]
    assert found("bob") == []


def test_deliveries_are_sent_again_unless_they_cannot_be(admin_client: Client) -> None:
    done, running, off = (factories.make_delivery(f"{URL}{n}") for n in range(3))
    WebhookDelivery.objects.exclude(pk__in=[done.pk, running.pk, off.pk]).delete()
    WebhookDelivery.objects.filter(pk=done.pk).update(status="delivered", attempts=4)
    webhook_delivery._claim(running.pk)
    webhooks.change_endpoint(off.endpoint, enabled=False)
    text = act(admin_client, done, running, off).content.decode()
    assert "1 to be delivered again; skipped:" in text
    assert "1 of an endpoint that is switched off" in text
    assert "1 being sent just now" in text
    done.refresh_from_db()
    assert (done.status, done.attempts) == ("pending", 0)
    assert broker().client.llen("dramatiq:webhooks") == 1


def test_nothing_is_changed_or_deleted_here(admin_client: Client) -> None:
    delivery = factories.make_delivery(URL)
    for model, pk in (("webhookdelivery", delivery.pk), ("webhookendpoint", delivery.endpoint_id)):
        address = reverse(f"admin:jobs_{model}_change", args=[pk])
        assert admin_client.post(address, {"url": "https://x.org"}).status_code == 403
        assert admin_client.get(reverse(f"admin:jobs_{model}_add")).status_code == 403
        delete = reverse(f"admin:jobs_{model}_delete", args=[pk])
        assert admin_client.post(delete, {"post": "yes"}).status_code == 403


def test_who_may_only_look_may_not_send(client: Client) -> None:
    user = factories.make_user("watcher", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_webhookdelivery"))
    client.force_login(user)
    delivery = factories.make_delivery(URL)
    WebhookDelivery.objects.update(status="delivered")
    act(client, delivery)
    delivery.refresh_from_db()
    assert delivery.status == "delivered"
