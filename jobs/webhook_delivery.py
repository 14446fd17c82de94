"""Sending a webhook: one attempt, by one thread at a time, and what comes of it.

Headers and signature are those of Standard Webhooks 1.0.0. An attempt that dies on the way is
repeated: so something may be told twice, with the same id, and is never lost.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, cast
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from asr.remote import retry_after
from jobs import address_guard, webhooks
from jobs.address_guard import NameNotResolvedError, Resolver, UrlNotAllowedError
from jobs.crashpoints import crashpoint
from jobs.database import release_connection
from jobs.models import (
    MESSAGE_PATIENCE,
    DeliveryStatus,
    Job,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
    from_now,
    iso_time,
)
from jobs.models.webhook import CLAIM

MINUTE, HOUR = 60.0, 3600.0
# As Standard Webhooks advises; each up to a tenth longer or shorter, so that crowds part.
RETRY_SECONDS: Final = (
    *(5.0, 5 * MINUTE, 30 * MINUTE),
    *(2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR),
)
JITTER: Final = 0.1
LONGEST_WAIT_SECONDS: Final = 24 * HOUR  # whatever a receiver asks for
LIMIT_SECONDS: Final = 10.0  # for one attempt, from the name to the answer
ANSWER_BYTES: Final = 65_536
BUSY: Final = {429, 503}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """What one attempt sends, and where to."""

    attempt_id: UUID
    delivery_id: UUID
    number: int
    own_of_job: bool
    endpoint_id: UUID
    url: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it; `error` is empty when it was delivered."""

    error: str = ""
    status_code: int | None = None
    retry_after: float = 0.0


def deliver(
    delivery_id: UUID,
    *,
    limit: float | None = None,
    resolve: Resolver = address_guard.resolve_by_system,
) -> float | None:
    """Send a delivery, if it is due, nobody else has it, and endpoint and user have a free place.

    The others of a busy one are looked for by who ends one, see `webhooks.next_due`.

    Returns:
        Seconds until it is due again, if it is; None when there is nothing more to do.
    """
    parcel = _claim(delivery_id)
    if parcel is None:
        return None
    release_connection()
    began = time.monotonic()
    outcome = _send(parcel, limit=limit or LIMIT_SECONDS, resolve=resolve)
    crashpoint("after-webhook")
    return _record(parcel, outcome, seconds=time.monotonic() - began)


def _claim(delivery_id: UUID) -> Parcel | None:
    """Make an attempt ours, and write it down before anything is sent."""
    attempt_id = uuid4()
    with transaction.atomic():
        _hold_places(delivery_id)
        due = WebhookDelivery.objects.sendable().filter(pk=delivery_id)
        expires = from_now(CLAIM)
        if not due.update(
            claim=attempt_id, attempts=F("attempts") + 1, not_before=expires, resend_time=expires
        ):
            return None
        claimed = WebhookDelivery.objects.filter(pk=delivery_id)
        delivery = claimed.select_related("endpoint").annotate(now=Now()).first()
        title = Job.objects.filter(pk__in=claimed.values("job_id")).values_list("title", flat=True)
        titles = list(title)
        if delivery is None or not titles:
            claimed.delete()  # its endpoint or its job was deleted when this was being written
            return None
        if not delivery.endpoint.enabled:
            claimed.cancel("endpoint_disabled")
            return None
        WebhookAttempt.objects.create(pk=attempt_id, delivery_id=delivery_id)
    return _parcel(delivery, attempt_id, titles[0], cast("Any", delivery).now)


def _hold_places(delivery_id: UUID) -> None:
    """Let others who claim something of the same user wait: two would take the last place both.

    Endpoints come before deliveries, as wherever both are locked.
    """
    user = WebhookDelivery.objects.filter(pk=delivery_id).values("user_id")
    own = WebhookEndpoint.objects.filter(user_id__in=user).order_by("pk")
    list(own.select_for_update().values_list("pk"))


def _parcel(delivery: WebhookDelivery, attempt_id: UUID, title: str, now: datetime) -> Parcel:
    endpoint, body = delivery.endpoint, body_of(delivery, title)
    secrets = [endpoint.secret]
    expires = endpoint.previous_secret_expires_time
    if expires is not None and expires > now:
        secrets.append(endpoint.previous_secret)
    seconds = int(now.timestamp())
    return Parcel(
        attempt_id=attempt_id,
        delivery_id=delivery.pk,
        number=delivery.attempts,
        own_of_job=not endpoint.url,
        endpoint_id=endpoint.pk,
        url=delivery.target,
        body=body,
        headers={
            "Content-Type": "application/json",
            "User-Agent": "Verbatim",
            "webhook-id": delivery.event_id,
            "webhook-timestamp": str(seconds),
            "webhook-signature": " ".join(
                signature(secret, delivery.event_id, seconds, body) for secret in secrets
            ),
        },
    )


def body_of(delivery: WebhookDelivery, title: str) -> bytes:
    """The same for every attempt. It is thin: who wants the transcript asks for it."""
    event = WebhookEvent(delivery.type)
    data = {
        "jobId": str(delivery.job_id),
        "userId": delivery.user_id,
        "jobStatus": event.job_status.value,
        **({"title": title} if title else {}),
    }
    whole = {"type": event.value, "timestamp": iso_time(delivery.created_time), "data": data}
    return json.dumps(whole).encode()


def signature(secret: str, event_id: str, seconds: int, body: bytes) -> str:
    """One entry of the header `webhook-signature`."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{event_id}.{seconds}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


def _send(parcel: Parcel, *, limit: float, resolve: Resolver) -> Outcome:
    import httpx2  # noqa: PLC0415  (heavy, and most processes send nothing)

    from asr import deadline_http  # noqa: PLC0415

    deadline = time.monotonic() + limit
    try:
        found = address_guard.addresses_of(
            parcel.url, webhooks.rules(), limit=limit, resolve=resolve
        )
        status_code, headers = deadline_http.post_pinned(
            parcel.url,
            found,
            content=parcel.body,
            headers=parcel.headers,
            seconds=deadline - time.monotonic(),
            most_bytes=ANSWER_BYTES,
        )
    except (UrlNotAllowedError, httpx2.InvalidURL):
        return Outcome(error="url_not_allowed")
    except NameNotResolvedError:
        return Outcome(error="name_not_resolved")
    except httpx2.TimeoutException:
        return Outcome(error="timeout")
    except (httpx2.DecodingError, httpx2.RemoteProtocolError):
        return Outcome(error="bad_answer")
    except httpx2.HTTPError:
        return Outcome(error="connection_failed")
    return _judged(status_code, headers)


def _judged(status_code: int, headers: Mapping[str, str]) -> Outcome:
    if 200 <= status_code < 300:
        return Outcome(status_code=status_code)
    if 300 <= status_code < 400:
        return Outcome(error="redirect_not_followed", status_code=status_code)
    if status_code == 410:
        return Outcome(error="gone", status_code=status_code)
    asked = retry_after(headers) if status_code in BUSY else 0.0
    return Outcome(error="refused", status_code=status_code, retry_after=asked)


def _record(parcel: Parcel, outcome: Outcome, *, seconds: float) -> float | None:
    """Write what came of it; when the claim was over meanwhile, only into the log."""
    wait = _wait(parcel.number, outcome)
    answer: dict[str, Any] = {"status_code": outcome.status_code, "error": outcome.error}
    if wait is not None:
        next_step = _due_in(wait)
    else:
        ended = DeliveryStatus.FAILED if outcome.error else DeliveryStatus.DELIVERED
        next_step = {"status": ended, "ended_time": Now()}
    gone = outcome.error == "gone" and not parcel.own_of_job
    with webhooks.switching_off(parcel.endpoint_id, "gone") if gone else transaction.atomic():
        log = WebhookAttempt.objects.filter(pk=parcel.attempt_id)
        log.update(**answer, seconds=round(seconds, 3))
        mine = WebhookDelivery.objects.filter(pk=parcel.delivery_id, claim=parcel.attempt_id)
        written = mine.update(claim=None, **answer, **next_step)
    logger.info("Webhook %s: %s", parcel.delivery_id, outcome.error or "delivered")
    return wait if written else None


def _wait(number: int, outcome: Outcome) -> float | None:
    """Seconds until the next attempt after this one; None when there is to be none."""
    if not outcome.error or outcome.error == "gone" or number > len(RETRY_SECONDS):
        return None
    planned = RETRY_SECONDS[number - 1] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
    return max(planned, min(outcome.retry_after, LONGEST_WAIT_SECONDS))


def _due_in(wait: float) -> dict[str, Any]:
    """For a short wait there is a message; the sweeper sends those of the others when due."""
    until = timedelta(seconds=wait)
    patience = MESSAGE_PATIENCE if has_message(wait) else timedelta()
    return {"not_before": from_now(until), "resend_time": from_now(until + patience)}


def has_message(wait: float) -> bool:
    """Whether a delayed message is worth its while: Redis does not hold them for hours."""
    return wait <= MESSAGE_PATIENCE.total_seconds()
