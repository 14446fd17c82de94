"""The endpoints under /webhooks, and `webhookUrl` of POST /transcribe."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from jobs import webhook_delivery, webhooks
from jobs.models import Job, WebhookDelivery, WebhookEndpoint
from jobs.models.webhook import new_secret
from tests import factories
from tests.helpers import broker

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_is_empty")]
URL = "https://8.8.8.8/hook"
ALL = ["transcript.completed", "transcript.failed", "transcript.cancelled"]


def codes(response: Any) -> list[tuple[str, str | None]]:
    return [(error["code"], error["attr"]) for error in response.json()["errors"]]


def made(client: APIClient, **fields: Any) -> dict[str, Any]:
    response = client.post("/webhooks", {"url": URL} | fields)
    assert response.status_code == 201, response.content
    return dict(response.json())


# --- making, reading, changing, deleting


def test_an_endpoint_is_made_with_its_secret_and_read_again(alice: APIClient) -> None:
    response = alice.post("/webhooks", {"url": URL})
    assert response.status_code == 201
    body = dict(response.json())
    assert body.pop("secret").startswith("whsec_")
    identity, created = body.pop("id"), body.pop("createdTime")
    assert created.endswith("Z")
    assert body == {
        "userId": "alice",
        "url": URL,
        "events": ALL,
        "enabled": True,
        "disabledReason": None,
        "previousSecretExpiresTime": None,
    }
    assert response["Location"] == f"/webhooks/{identity}"
    assert alice.get(response["Location"]).json() == response.json()


def test_the_list_has_the_newest_first_and_no_secrets(alice: APIClient, bob: APIClient) -> None:
    ids = [made(alice, url=f"{URL}/{n}")["id"] for n in range(3)]
    made(bob)
    body = alice.get("/webhooks").json()
    assert [row["id"] for row in body["results"]] == ids[::-1]
    assert "whsec_" not in str(body)
    assert set(body["results"][0]) == {
        *("id", "userId", "url", "events", "enabled", "disabledReason", "createdTime"),
    }
    page = alice.get("/webhooks", {"limit": 2}).json()
    assert [row["id"] for row in page["results"]] == [ids[2], ids[1]]
    assert [row["id"] for row in alice.get(page["next"]).json()["results"]] == [ids[0]]


def test_a_service_names_the_user_or_sees_all(
    alice: APIClient, bob: APIClient, service: APIClient
) -> None:
    made(alice)
    made(bob)
    assert made(service, userId="carol")["userId"] == "carol"
    assert made(service)["userId"] == "robot"
    users = [row["userId"] for row in service.get("/webhooks").json()["results"]]
    assert users == ["robot", "carol", "bob", "alice"]
    of_carol = service.get("/webhooks", {"userId": "carol"}).json()["results"]
    assert [row["userId"] for row in of_carol] == ["carol"]
    for response in (
        alice.post("/webhooks", {"url": URL, "userId": "bob"}),
        alice.get("/webhooks", {"userId": "bob"}),
    ):
        assert (response.status_code, codes(response)) == (403, [("permission_denied", "userId")])


def test_an_endpoint_is_changed_field_by_field(alice: APIClient) -> None:
    address = f"/webhooks/{made(alice)['id']}"
    changed = alice.patch(address, {"url": f"{URL}/2", "events": ["transcript.failed"]}).json()
    assert (changed["url"], changed["events"]) == (f"{URL}/2", ["transcript.failed"])
    off = alice.patch(address, {"enabled": False}).json()
    assert (off["enabled"], off["disabledReason"], off["url"]) == (False, "by_user", f"{URL}/2")
    on = alice.patch(address, {"enabled": True}).json()
    assert (on["enabled"], on["disabledReason"]) == (True, None)
    assert alice.patch(address, {}).json() == alice.get(address).json()


def test_a_deleted_endpoint_is_gone(alice: APIClient) -> None:
    address = f"/webhooks/{made(alice)['id']}"
    assert alice.delete(address).status_code == 204
    assert alice.get(address).status_code == alice.delete(address).status_code == 404


def test_a_rotation_keeps_the_previous_secret_for_a_day(alice: APIClient) -> None:
    first = made(alice)
    rotated = alice.post(f"/webhooks/{first['id']}/rotate").json()
    assert rotated["secret"] not in {first["secret"], None}
    assert rotated["previousSecretExpiresTime"] > rotated["createdTime"]
    assert WebhookEndpoint.objects.get().previous_secret == first["secret"]
    assert first["secret"] not in str(alice.get(f"/webhooks/{first['id']}").json())


def test_another_user_s_endpoint_answers_as_one_that_does_not_exist(
    alice: APIClient, bob: APIClient, service: APIClient
) -> None:
    identity = made(alice)["id"]
    factories.make_completed_job("word")
    delivery = WebhookDelivery.objects.get()

    def calls(client: APIClient, webhook: object) -> list[Any]:
        address = f"/webhooks/{webhook}"
        return [
            client.get(address),
            client.patch(address, {"enabled": False}),
            client.post(f"{address}/rotate"),
            client.get(f"{address}/deliveries"),
            client.post(f"{address}/deliveries/{delivery.pk}/redeliver"),
            client.delete(address),
        ]

    for response in calls(bob, identity) + calls(bob, uuid4()):
        assert (response.status_code, codes(response)) == (404, [("not_found", None)])
    assert WebhookEndpoint.objects.get().enabled
    other = made(alice)["id"]
    redeliver = f"/webhooks/{other}/deliveries/{delivery.pk}/redeliver"
    assert alice.post(redeliver).status_code == 404  # another endpoint's
    assert [r.status_code for r in calls(service, identity)][:4] == [200] * 4


def test_an_endpoint_that_is_deleted_in_the_middle_of_a_call_is_not_there(
    alice: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = made(alice)["id"]
    make = new_secret

    def delete_and_make() -> str:
        WebhookEndpoint.objects.all().delete()
        return make()

    monkeypatch.setattr(webhooks, "new_secret", delete_and_make)
    response = alice.post(f"/webhooks/{identity}/rotate")
    assert (response.status_code, codes(response)) == (404, [("not_found", None)])


def test_it_takes_a_sign_in(anybody: APIClient) -> None:
    for response in (anybody.get("/webhooks"), anybody.post("/webhooks", {"url": URL})):
        assert response.status_code == 401


# --- what is refused


@pytest.mark.parametrize(
    "url",
    [
        *("https://127.0.0.1/", "https://localhost/", "https://127.1/", "https://0x7f000001/"),
        *("https://[::ffff:a9fe:a9fe]/", "https://169.254.169.254/latest/meta-data/"),
        *("https://[64:ff9b::a9fe:a9fe]/", "https://10.0.0.1/", "http://8.8.8.8/", "ftp://8.8.8.8"),
        *("https://user:word@8.8.8.8/", "https://8.8.8.8:22/", "nonsense"),
    ],
)
def test_a_url_that_may_not_be_called_is_refused_everywhere(
    alice: APIClient, audio_root: Path, url: str
) -> None:
    address = f"/webhooks/{made(alice)['id']}"
    for response in (alice.post("/webhooks", {"url": url}), alice.patch(address, {"url": url})):
        assert (response.status_code, codes(response)) == (400, [("url_not_allowed", "url")])
    path = factories.put_audio("alice/a.wav")
    response = alice.post("/transcribe", {"audioChunkPaths": [path], "webhookUrl": url})
    assert (response.status_code, codes(response)) == (400, [("url_not_allowed", "webhookUrl")])
    assert not Job.objects.exists()
    assert WebhookEndpoint.objects.get().url == URL


def test_what_the_operator_allows_is_taken(alice: APIClient, settings: Any) -> None:
    settings.WEBHOOK_ALLOW_HTTP = True
    settings.WEBHOOK_ALLOWED_NETWORKS = (ip_network("10.0.0.0/8"),)
    made(alice, url="http://10.1.2.3:8080/hook")
    assert alice.post("/webhooks", {"url": "http://192.168.0.1/"}).status_code == 400


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("required", "url")),
        ({"url": 7}, ("invalid", "url")),
        ({"url": ""}, ("blank", "url")),
        ({"url": f"https://8.8.8.8/{'x' * 2048}"}, ("max_length", "url")),
        ({"url": URL, "events": []}, ("empty", "events")),
        ({"url": URL, "events": ["job.completed"]}, ("invalid_choice", "events.0")),
        ({"url": URL, "events": "x"}, ("not_a_list", "events")),
        ({"url": URL, "secret": "whsec_mine"}, ("unknown_field", "secret")),
        ({"url": URL, "userId": ".."}, ("invalid_user_id", "userId")),
    ],
)
def test_a_wrong_field_is_named(
    alice: APIClient, fields: dict[str, Any], expected: tuple[str, str]
) -> None:
    response = alice.post("/webhooks", fields)
    assert (response.status_code, codes(response)) == (400, [expected])
    assert not WebhookEndpoint.objects.exists()


def test_the_eleventh_is_a_conflict(alice: APIClient) -> None:
    for number in range(10):
        made(alice, url=f"{URL}/{number}")
    response = alice.post("/webhooks", {"url": URL})
    assert (response.status_code, codes(response)) == (409, [("too_many_webhooks", None)])


def test_of_the_one_without_an_address_there_is_one(alice: APIClient, bob: APIClient) -> None:
    first = alice.post("/webhooks", {"url": None})
    again = alice.post("/webhooks", {"url": None})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first["Location"] == again["Location"] == f"/webhooks/{first.json()['id']}"
    assert (first.json()["url"], first.json()["events"]) == (None, ALL)
    some = {"events": ["transcript.failed"]}
    changed = alice.post("/webhooks", {"url": None} | some)
    assert changed.json() == again.json() | some
    assert alice.post("/webhooks", {"url": None}).json() == changed.json()
    assert bob.post("/webhooks", {"url": None} | some).json()["events"] == some["events"]
    assert WebhookEndpoint.objects.filter(user_id="alice").count() == 1
    for number in range(10):  # it is none of the ten
        made(alice, url=f"{URL}/{number}")
    assert alice.post("/webhooks", {"url": None}).status_code == 200


# --- webhookUrl


def submit(client: APIClient, url: str | None, key: str | None = None, **kind: Any) -> Any:
    headers: Any = {} if key is None else {"HTTP_IDEMPOTENCY_KEY": key}
    fields = {"audioChunkPaths": [factories.put_audio("alice/a.wav")], "webhookUrl": url}
    return client.post("/transcribe", fields, **kind, **headers)


@pytest.mark.parametrize("kind", [{}, {"format": "multipart"}])
def test_a_job_may_have_a_url_of_its_own_whose_secret_is_listed(
    alice: APIClient, kind: dict[str, str]
) -> None:
    response = submit(alice, f"{URL}?key=s3cret", **kind)
    assert response.status_code == 202, response.content
    assert Job.objects.get().webhook_url == f"{URL}?key=s3cret"
    assert "s3cret" not in alice.get(response["Location"]).content.decode()
    (row,) = alice.get("/webhooks").json()["results"]
    assert (row["url"], row["events"], row["enabled"]) == (None, ALL, True)
    whole = alice.get(f"/webhooks/{row['id']}").json()
    assert whole["secret"] == webhooks.for_single_jobs("alice").secret
    assert alice.post("/webhooks", {"url": None}).json() == whole


def test_the_url_is_a_part_of_what_is_repeated(alice: APIClient) -> None:
    assert submit(alice, URL, key="k").status_code == 202
    assert submit(alice, URL, key="k").status_code == 200
    assert submit(alice, f"{URL}/2", key="k").status_code == 422


def test_no_url_is_no_webhook(alice: APIClient) -> None:
    assert submit(alice, None).status_code == 202
    assert not WebhookEndpoint.objects.exists()


def test_the_row_without_url_is_given_none(alice: APIClient) -> None:
    row = made(alice, url=None)
    response = alice.patch(f"/webhooks/{row['id']}", {"url": URL})
    assert (response.status_code, codes(response)) == (400, [("invalid", "url")])
    assert alice.patch(f"/webhooks/{row['id']}", {"events": ALL[:1]}).status_code == 200


# --- deliveries


def test_the_deliveries_are_listed_with_every_attempt(alice: APIClient, settings: Any) -> None:
    webhook = made(alice)
    factories.make_webhook(f"{URL}/other")
    jobs = [factories.make_completed_job("word") for _ in range(3)]
    first = WebhookDelivery.objects.get(job_id=jobs[0].pk, endpoint_id=webhook["id"])
    WebhookEndpoint.objects.update(url="https://127.0.0.1/")
    webhook_delivery.deliver(first.pk)
    address = f"/webhooks/{webhook['id']}/deliveries"
    rows = alice.get(address).json()["results"]
    assert [row["jobId"] for row in rows] == [str(job.pk) for job in jobs[::-1]]
    row = rows[-1]
    (attempt,) = row.pop("attempts")
    assert attempt.pop("time").endswith("Z")
    assert attempt.pop("seconds") >= 0
    assert attempt == {"statusCode": None, "error": "url_not_allowed"}
    assert row.pop("createdTime") < row.pop("nextAttemptTime")
    assert row == {
        "id": str(first.pk),
        "eventId": first.event_id,
        "type": "transcript.completed",
        "jobId": str(jobs[0].pk),
        "url": "https://127.0.0.1/",
        "status": "pending",
    }
    page = alice.get(address, {"limit": 2}).json()
    assert len(alice.get(page["next"]).json()["results"]) == 1


def test_a_page_costs_as_many_statements_with_one_delivery_as_with_twenty(
    alice: APIClient,
) -> None:
    webhook = made(alice)
    counts = []
    for number in (1, 19):
        for _ in range(number):
            factories.make_completed_job("word")
        with CaptureQueriesContext(connection) as queries:
            assert alice.get(f"/webhooks/{webhook['id']}/deliveries").status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_a_delivery_is_sent_again(alice: APIClient) -> None:
    webhook = made(alice)
    factories.make_completed_job("word")
    delivery = WebhookDelivery.objects.get()
    WebhookDelivery.objects.update(status="delivered")
    address = f"/webhooks/{webhook['id']}/deliveries/{delivery.pk}/redeliver"
    response = alice.post(address)
    assert response.status_code == 202
    assert (response.json()["status"], response.json()["eventId"]) == ("pending", delivery.event_id)
    assert broker().client.llen("dramatiq:webhooks") == 1
    webhook_delivery._claim(delivery.pk)
    response = alice.post(address)
    assert (response.status_code, codes(response)) == (409, [("being_delivered", None)])
    alice.patch(f"/webhooks/{webhook['id']}", {"enabled": False})
    response = alice.post(address)
    assert (response.status_code, codes(response)) == (409, [("webhook_disabled", None)])


def test_with_the_broker_away_it_is_left_to_the_sweeper(
    alice: APIClient, redis_elsewhere: Any
) -> None:
    webhook = made(alice)
    factories.make_completed_job("word")
    delivery = WebhookDelivery.objects.get()
    redis_elsewhere("redis://127.0.0.1:1/0")
    response = alice.post(f"/webhooks/{webhook['id']}/deliveries/{delivery.pk}/redeliver")
    assert response.status_code == 202
