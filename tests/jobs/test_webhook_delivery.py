"""Sending webhooks: to a real receiver, verified by the library that receivers use."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from datetime import timedelta
from email.utils import format_datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from asr import deadline_http
from jobs import webhook_delivery, webhooks
from jobs.models import (
    Job,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    from_now,
)
from jobs.webhook_delivery import RETRY_SECONDS, deliver
from tests import factories
from tests.asr.tls import tls_server
from tests.asr.vendor import Vendor, serving
from tests.helpers import together, wait_until

pytestmark = pytest.mark.django_db
SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def loopback_is_allowed(settings: Any) -> None:
    settings.WEBHOOK_ALLOW_HTTP = True
    settings.WEBHOOK_ALLOWED_NETWORKS = (ip_network("127.0.0.0/8"),)


@pytest.fixture
def receiver() -> Iterator[Vendor]:
    with serving() as made:
        yield made


@pytest.fixture
def delivery(receiver: Vendor) -> WebhookDelivery:
    return factories.make_delivery(receiver.url)


def verified(secret: str, receiver: Vendor, index: int = -1) -> Any:
    """The body of a request, once the library has accepted it; raises where it does not."""
    request = receiver.received[index]
    return Webhook(secret).verify(request.file, request.headers)


def fresh(delivery: WebhookDelivery) -> WebhookDelivery:
    return WebhookDelivery.objects.get(pk=delivery.pk)


def log(delivery: WebhookDelivery) -> list[tuple[int | None, str]]:
    return list(delivery.log.values_list("status_code", "error"))


def seconds_until_due(delivery: WebhookDelivery) -> float:
    return (fresh(delivery).not_before - timezone.now()).total_seconds()


# --- what arrives


def test_the_receiver_can_verify_what_arrives_and_it_is_thin(
    receiver: Vendor, delivery: WebhookDelivery
) -> None:
    assert deliver(delivery.pk) is None
    body = verified(delivery.endpoint.secret, receiver)
    assert body.pop("timestamp").endswith("Z")
    assert body == {
        "type": "transcript.completed",
        "data": {
            "jobId": str(delivery.job_id),
            "userId": "alice",
            "jobStatus": "completed",
            "title": "Monday",
        },
    }
    (request,) = receiver.received
    assert request.method == "POST"
    assert request.headers["webhook-id"] == delivery.event_id
    assert request.headers["content-type"] == "application/json"
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60
    assert request.headers["host"] == receiver.url.split("/")[2]
    assert len(request.file) < 20_000
    done = fresh(delivery)
    assert (done.status, done.attempts, done.status_code, done.error) == ("delivered", 1, 200, "")
    assert done.ended_time is not None
    assert log(delivery) == [(200, "")]
    assert 0 <= delivery.log.get().seconds < 30  # type: ignore[operator]


def test_a_body_that_was_changed_or_another_s_secret_is_found_out(
    receiver: Vendor, delivery: WebhookDelivery
) -> None:
    deliver(delivery.pk)
    with pytest.raises(WebhookVerificationError):
        verified(factories.make_webhook("https://x.org").secret, receiver)
    receiver.received[0].file += b" "
    with pytest.raises(WebhookVerificationError):
        verified(delivery.endpoint.secret, receiver)


def test_a_job_without_title_has_none_and_any_title_arrives(receiver: Vendor) -> None:
    endpoint = factories.make_webhook(receiver.url)
    for title in ("", '"ä\\\n\u2028 ' * 25):
        job = factories.make_completed_job("word", title=title)
        deliver(WebhookDelivery.objects.get(job_id=job.pk).pk)
        assert verified(endpoint.secret, receiver)["data"].get("title", "") == title


def test_after_a_rotation_both_secrets_sign_for_a_day(
    receiver: Vendor, delivery: WebhookDelivery
) -> None:
    endpoint = delivery.endpoint
    oldest = endpoint.secret
    webhooks.rotate(endpoint)
    deliver(delivery.pk)
    assert endpoint.secret != oldest == endpoint.previous_secret
    assert len(receiver.received[0].headers["webhook-signature"].split(" ")) == 2
    for secret in (oldest, endpoint.secret):
        assert verified(secret, receiver)
    previous = endpoint.secret
    webhooks.rotate(endpoint)  # a second time: the oldest is not to be trusted any more
    webhooks.redeliver(fresh(delivery))
    deliver(delivery.pk)
    with pytest.raises(WebhookVerificationError):
        verified(oldest, receiver)
    WebhookEndpoint.objects.update(previous_secret_expires_time=from_now(-SECOND))
    webhooks.redeliver(fresh(delivery))
    deliver(delivery.pk)
    assert verified(endpoint.secret, receiver)
    with pytest.raises(WebhookVerificationError):
        verified(previous, receiver)


def test_what_goes_to_a_job_s_own_url_is_signed_by_the_row_without_url(receiver: Vendor) -> None:
    job = factories.make_completed_job("word", webhook_url=f"{receiver.url}/own")
    deliver(WebhookDelivery.objects.get(job_id=job.pk).pk)
    assert verified(webhooks.for_single_jobs("alice").secret, receiver)
    assert receiver.received[0].path == "/v1/own"


# --- what is answered


@pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
def test_any_2xx_is_delivered(receiver: Vendor, delivery: WebhookDelivery, code: int) -> None:
    receiver.says(code, b"", Content_Encoding="gzip")  # nobody looks at the body
    assert deliver(delivery.pk) is None
    assert fresh(delivery).status == "delivered"


def test_it_is_tried_again_on_schedule_with_the_same_id_and_body_and_then_failed(
    receiver: Vendor, delivery: WebhookDelivery
) -> None:
    receiver.says(500, {})
    for planned in RETRY_SECONDS:
        wait = deliver(delivery.pk)
        assert wait is not None
        assert 0.9 * planned <= wait <= 1.1 * planned
        assert abs(seconds_until_due(delivery) - wait) < 30
        assert deliver(delivery.pk) is None  # not before its time
        factories.make_deliveries_due()
    assert deliver(delivery.pk) is None
    done = fresh(delivery)
    assert (done.status, done.attempts, done.status_code, done.error) == (
        *("failed", 10, 500, "refused"),
    )
    assert log(delivery) == [(500, "refused")] * 10
    assert len(receiver.received) == 10
    assert {r.headers["webhook-id"] for r in receiver.received} == {delivery.event_id}
    assert len({r.file for r in receiver.received}) == 1
    assert Job.objects.get().status == "completed"
    factories.make_deliveries_due()
    assert deliver(delivery.pk) is None
    assert len(receiver.received) == 10


def test_the_schedule_is_that_of_the_standard() -> None:
    minutes = [5 / 60, 5, 30, 2 * 60, 5 * 60, 10 * 60, 14 * 60, 20 * 60, 24 * 60]
    assert [seconds / 60 for seconds in RETRY_SECONDS] == pytest.approx(minutes)


def test_waits_of_several_deliveries_differ(receiver: Vendor) -> None:
    receiver.says(500, {})
    waits = {deliver(factories.make_delivery(f"{receiver.url}/{n}").pk) for n in range(6)}
    assert len(waits) == 6


def test_another_event_to_another_endpoint_goes_on_meanwhile(receiver: Vendor) -> None:
    bad, good = (factories.make_webhook(f"{receiver.url}/{name}") for name in ("bad", "good"))
    receiver.answer = lambda handler: handler.json(500 if "bad" in handler.path else 200, {})
    factories.make_completed_job("word")
    for row in WebhookDelivery.objects.all():
        deliver(row.pk)
    assert (bad.deliveries.get().status, good.deliveries.get().status) == ("pending", "delivered")
    assert len({r.headers["webhook-id"] for r in receiver.received}) == 1


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [("100", 99, 101), ("1", 4.4, 5.6), ("9999999", 86_399, 86_401), ("nonsense", 4.4, 5.6)],
)
def test_a_busy_receiver_says_when_to_come_back_within_a_day(
    receiver: Vendor, delivery: WebhookDelivery, code: int, asked: str, least: float, most: float
) -> None:
    receiver.says(code, {}, Retry_After=asked)
    wait = deliver(delivery.pk)
    assert wait is not None
    assert least <= wait <= most
    assert log(delivery) == [(code, "refused")]


def test_it_may_say_so_by_a_date(receiver: Vendor, delivery: WebhookDelivery) -> None:
    receiver.says(503, {}, Retry_After=format_datetime(timezone.now() + 600 * SECOND, usegmt=True))
    wait = deliver(delivery.pk)
    assert wait is not None
    assert 560 < wait < 601


def test_others_cannot_put_it_off(receiver: Vendor, delivery: WebhookDelivery) -> None:
    receiver.says(500, {}, Retry_After="1000")
    wait = deliver(delivery.pk)
    assert wait is not None
    assert wait < 6


def test_410_switches_the_endpoint_off_and_cancels_what_else_is_pending(
    receiver: Vendor, delivery: WebhookDelivery
) -> None:
    factories.make_completed_job("another")
    receiver.says(410, {})
    assert deliver(delivery.pk) is None
    endpoint = WebhookEndpoint.objects.get()
    assert (endpoint.enabled, endpoint.disabled_reason) == (False, "gone")
    other = endpoint.deliveries.exclude(pk=delivery.pk).get()
    done = fresh(delivery)
    assert (done.status, done.error, done.status_code) == ("failed", "gone", 410)
    assert (other.status, other.error) == ("cancelled", "endpoint_disabled")
    assert deliver(other.pk) is None
    assert len(receiver.received) == 1


def test_410_of_a_job_s_own_url_ends_that_delivery_alone(receiver: Vendor) -> None:
    receiver.says(410, {})
    for _ in range(2):
        job = factories.make_completed_job("word", webhook_url=receiver.url)
    assert deliver(WebhookDelivery.objects.get(job_id=job.pk).pk) is None
    statuses = WebhookDelivery.objects.order_by("pk").values_list("status", flat=True)
    assert list(statuses) == ["pending", "failed"]
    assert WebhookEndpoint.objects.get().enabled


# --- what is not to be reached


def test_a_redirect_is_a_failure_and_is_not_followed(
    receiver: Vendor, delivery: WebhookDelivery
) -> None:
    with serving() as canary:
        for code in (301, 302, 303, 307, 308):
            receiver.says(code, {}, Location=f"{canary.url}/latest/meta-data/")
            assert deliver(delivery.pk) is not None
            assert log(delivery)[-1] == (code, "redirect_not_followed")
            factories.make_deliveries_due()
        assert canary.connections == 0
    assert len(receiver.received) == 5


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "0x7f000001", "2130706433", "localhost", "[::ffff:127.0.0.1]"),
        *("[::ffff:7f00:1]", "0.0.0.0", "0", "[::1]", "[::]", "[64:ff9b::7f00:1]"),
        *("[2002:7f00:1::]", "169.254.169.254", "[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]"),
    ],
)
def test_an_address_in_our_own_network_is_not_even_connected_to(
    receiver: Vendor, settings: Any, host: str
) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = ()
    port = receiver.url.split(":")[2].split("/")[0]
    delivery = factories.make_delivery(f"http://{host}:{port}/")
    assert deliver(delivery.pk) is not None
    assert log(delivery) == [(None, "url_not_allowed")]
    assert receiver.connections == 0


def test_a_name_that_leads_elsewhere_by_now_is_refused(receiver: Vendor, settings: Any) -> None:
    """Rebinding: public when it was registered, ours when it is called."""
    settings.WEBHOOK_ALLOWED_NETWORKS = ()
    port = receiver.url.split(":")[2].split("/")[0]
    delivery = factories.make_delivery(f"http://rebinding.example:{port}/")
    assert deliver(delivery.pk, resolve=lambda *_: ["93.184.215.14", "127.0.0.1"]) is not None
    assert log(delivery) == [(None, "url_not_allowed")]
    assert receiver.connections == 0


def test_the_connection_goes_to_the_address_that_was_checked(receiver: Vendor) -> None:
    """The name is looked up once: between the check and the connection nobody asks again."""
    port = receiver.url.split(":")[2].split("/")[0]
    delivery = factories.make_delivery(f"http://rebinding.example:{port}/hook")
    answers = [["127.0.0.1"]]  # a second question would find nothing, nor does the system's DNS
    assert deliver(delivery.pk, resolve=lambda *_: answers.pop()) is None
    assert log(delivery) == [(200, "")]
    assert receiver.received[0].headers["host"] == f"rebinding.example:{port}"


def test_of_several_addresses_the_next_is_tried_where_one_refuses(receiver: Vendor) -> None:
    port = receiver.url.split(":")[2].split("/")[0]
    delivery = factories.make_delivery(f"http://receiver.example:{port}/")
    assert deliver(delivery.pk, resolve=lambda *_: ["127.0.0.2", "127.0.0.1"]) is None
    assert log(delivery) == [(200, "")]
    other = factories.make_delivery(f"http://receiver.example:{port}/")
    assert deliver(other.pk, resolve=lambda *_: ["127.0.0.2", "127.0.0.3"]) is not None
    assert log(other) == [(None, "connection_failed")]


def test_no_proxy_of_the_environment_is_used(
    receiver: Vendor, delivery: WebhookDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "")
        assert deliver(delivery.pk) is None
        assert proxy.connections == 0
    assert len(receiver.received) == 1


def test_http_is_refused_unless_the_operator_allows_it(
    receiver: Vendor, delivery: WebhookDelivery, settings: Any
) -> None:
    settings.WEBHOOK_ALLOW_HTTP = False
    assert deliver(delivery.pk) is not None
    assert log(delivery) == [(None, "url_not_allowed")]
    assert receiver.connections == 0


def test_a_name_that_nobody_knows_is_tried_again(delivery: WebhookDelivery) -> None:
    def unknown(*_: Any) -> list[str]:
        raise OSError

    WebhookEndpoint.objects.update(url="https://receiver.example/")
    assert deliver(delivery.pk, resolve=unknown) is not None
    assert log(delivery) == [(None, "name_not_resolved")]


# --- TLS


@pytest.fixture
def tls_receiver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[int, list[str]]]:
    """A server that proves to be receiver.example: its port, and what it was sent."""
    heard: list[str] = []

    def talk(caller: ssl.SSLSocket) -> None:
        request = ""
        while not request.endswith("}"):
            request += caller.recv(65_536).decode()
        heard.append(request)
        caller.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with tls_server(tmp_path, talk, "receiver.example") as port:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls.pem"))
        deadline_http._trust.cache_clear()
        yield port, heard
    deadline_http._trust.cache_clear()


def test_over_tls_the_server_must_prove_to_be_the_name_and_not_the_address(
    tls_receiver: tuple[int, list[str]],
) -> None:
    port, heard = tls_receiver

    def here(*_: Any) -> list[str]:
        return ["127.0.0.1"]

    delivery = factories.make_delivery(f"https://receiver.example:{port}/hook")
    assert deliver(delivery.pk, resolve=here) is None
    assert log(delivery) == [(204, "")]
    assert heard[0].startswith("POST /hook HTTP/1.1\r\nHost: receiver.example")
    other = factories.make_delivery(f"https://impostor.example:{port}/hook")
    assert deliver(other.pk, resolve=here) is not None
    assert log(other) == [(None, "connection_failed")]
    assert len(heard) == 1


# --- what takes too long, or dies


@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 OK\r\nX: "])
def test_a_receiver_that_drips_is_cut_off(
    receiver: Vendor, delivery: WebhookDelivery, beginning: bytes
) -> None:
    def drip(handler: Any) -> None:
        handler.wfile.write(beginning)
        handler.drip(b"x")

    receiver.answer = drip
    began = time.monotonic()
    assert deliver(delivery.pk, limit=0.5) is not None
    assert 0.4 < time.monotonic() - began < 20
    assert log(delivery) == [(None, "timeout")]
    wait_until(receiver.hung_up.is_set)


def test_a_slow_resolver_is_part_of_the_limit(receiver: Vendor, delivery: WebhookDelivery) -> None:
    WebhookEndpoint.objects.update(url=receiver.url.replace("127.0.0.1", "receiver.example"))
    receiver.answer = lambda handler: handler.drip(b"x")

    def slow(*_: Any) -> list[str]:
        time.sleep(0.4)
        return ["127.0.0.1"]

    began = time.monotonic()
    assert deliver(delivery.pk, limit=0.8, resolve=slow) is not None
    assert 0.7 < time.monotonic() - began < 1.15 + 10
    assert log(delivery) == [(None, "timeout")]
    assert delivery.log.get().seconds == pytest.approx(0.8, abs=0.3)


def test_the_limit_is_ten_seconds_unless_a_test_says_otherwise() -> None:
    assert webhook_delivery.LIMIT_SECONDS == 10.0


def test_of_an_endless_answer_little_is_read(receiver: Vendor, delivery: WebhookDelivery) -> None:
    def endless(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            handler.wfile.write(b"X-Header: " + b"x" * 1000 + b"\r\n")

    receiver.answer = endless
    assert deliver(delivery.pk) is not None
    assert log(delivery) == [(None, "bad_answer")]


@pytest.mark.parametrize("nonsense", [b"SMTP ready\r\n\r\n", b"HTTP/1.1 2000 OK\r\n\r\n"])
def test_what_is_no_http_is_a_bad_answer(
    receiver: Vendor, delivery: WebhookDelivery, nonsense: bytes
) -> None:
    receiver.answer = lambda handler: handler.wfile.write(nonsense)
    assert deliver(delivery.pk) is not None
    assert log(delivery) == [(None, "bad_answer")]


def test_who_hangs_up_is_asked_again(receiver: Vendor, delivery: WebhookDelivery) -> None:
    receiver.answer = lambda handler: handler.hang_up()
    assert deliver(delivery.pk) is not None
    assert log(delivery)[0][1] in {"bad_answer", "connection_failed"}


def test_an_attempt_that_died_is_repeated_after_a_minute_with_the_same_id(
    receiver: Vendor, delivery: WebhookDelivery
) -> None:
    assert webhook_delivery._claim(delivery.pk) is not None  # and then the process was killed
    assert 30 < seconds_until_due(delivery) <= 60
    assert deliver(delivery.pk) is None
    assert receiver.received == []
    factories.make_deliveries_due()
    assert deliver(delivery.pk) is None
    assert fresh(delivery).status == "delivered"
    assert log(delivery) == [(None, "interrupted"), (200, "")]
    assert receiver.received[0].headers["webhook-id"] == delivery.event_id


def test_who_wakes_up_after_its_claim_writes_into_the_log_alone(
    receiver: Vendor, delivery: WebhookDelivery
) -> None:
    slept = webhook_delivery._claim(delivery.pk)
    assert slept is not None
    factories.make_deliveries_due()
    deliver(delivery.pk)
    late = webhook_delivery.Outcome(error="refused", status_code=500)
    assert webhook_delivery._record(slept, late, seconds=90.0) is None
    assert fresh(delivery).status == "delivered"
    assert log(delivery) == [(500, "refused"), (200, "")]


@pytest.mark.django_db(transaction=True)
def test_ten_threads_send_it_once(receiver: Vendor) -> None:
    delivery = factories.make_delivery(receiver.url)
    assert together(*[lambda: deliver(delivery.pk)] * 10) == [None] * 10
    assert len(receiver.received) == 1
    assert fresh(delivery).attempts == 1


# --- sending again


def test_what_was_delivered_can_be_sent_again_with_the_same_id(
    receiver: Vendor, delivery: WebhookDelivery
) -> None:
    deliver(delivery.pk)
    webhooks.redeliver(fresh(delivery))
    again = fresh(delivery)
    assert (again.status, again.ended_time, again.attempts) == ("pending", None, 0)
    deliver(delivery.pk)
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.file == second.file
    assert fresh(delivery).status == "delivered"
    assert log(delivery) == [(200, "")] * 2


def test_what_has_failed_begins_its_schedule_anew(
    receiver: Vendor, delivery: WebhookDelivery
) -> None:
    WebhookDelivery.objects.update(status="failed", attempts=10)
    receiver.says(500, {})
    webhooks.redeliver(fresh(delivery))
    wait = deliver(delivery.pk)
    assert wait is not None
    assert wait < 6


def test_what_waits_for_its_next_attempt_can_be_had_at_once(
    receiver: Vendor, delivery: WebhookDelivery
) -> None:
    WebhookDelivery.objects.update(not_before=from_now(3600 * SECOND), attempts=5)
    webhooks.redeliver(fresh(delivery))
    deliver(delivery.pk)
    assert fresh(delivery).status == "delivered"


def test_what_is_being_sent_is_not_sent_a_second_time_beside_it(delivery: WebhookDelivery) -> None:
    webhook_delivery._claim(delivery.pk)
    with pytest.raises(webhooks.UnderWayError):
        webhooks.redeliver(fresh(delivery))
    factories.make_deliveries_due()  # it died
    webhooks.redeliver(fresh(delivery))


# --- what is gone


def test_nothing_is_told_of_a_job_that_was_deleted_meanwhile(
    receiver: Vendor, delivery: WebhookDelivery
) -> None:
    Job.objects.all().delete()
    assert deliver(delivery.pk) is None
    assert not WebhookDelivery.objects.exists()
    assert receiver.connections == 0


def test_what_was_written_for_an_endpoint_that_was_being_deleted_goes_with_its_turn(
    receiver: Vendor, delivery: WebhookDelivery
) -> None:
    WebhookDelivery.objects.update(endpoint_id=uuid4())
    assert deliver(delivery.pk) is None
    assert not WebhookDelivery.objects.exists()


def test_what_was_written_for_an_endpoint_that_was_being_switched_off_is_cancelled(
    receiver: Vendor, delivery: WebhookDelivery
) -> None:
    WebhookEndpoint.objects.update(disabled_time=from_now(-SECOND))
    assert deliver(delivery.pk) is None
    assert fresh(delivery).status == "cancelled"
    assert receiver.connections == 0
    assert not WebhookAttempt.objects.exists()


def test_an_unknown_delivery_is_nothing(db: None) -> None:
    assert deliver(uuid4()) is None


def test_the_body_is_the_json_that_is_signed(delivery: WebhookDelivery) -> None:
    body = json.loads(webhook_delivery.body_of(delivery, ""))
    assert set(body) == {"type", "timestamp", "data"}
    assert "title" not in body["data"]
