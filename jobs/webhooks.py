"""Webhooks: a user's endpoints, and the outbox that is written when a job ends.

`webhook_delivery` sends what lies in the outbox.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from jobs import address_guard
from jobs.address_guard import NameNotResolvedError, Rules, UrlNotAllowedError
from jobs.database import release_connection
from jobs.models import (
    MAX_WEBHOOKS,
    MESSAGE_PATIENCE,
    DeliveryStatus,
    JobChange,
    JobStatus,
    UserIndexStamp,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
    after_commit,
    from_now,
)
from jobs.models.webhook import DELIVERIES_KEPT, ROTATION, all_events, new_secret

CHECK_SECONDS: Final = 1.5  # a caller waits for it
AT_ONCE: Final = 500  # deliveries that one sweep sends or forgets

Send = Callable[[Sequence[UUID]], None]
"""Sends the messages of new deliveries, or leaves them to the sweeper. Raises nothing."""


class TooManyWebhooksError(Exception):
    """The user has as many endpoints as one may have."""


class UnderWayError(Exception):
    """It is being sent at this very moment."""


class DisabledError(Exception):
    """The endpoint is switched off."""


_senders: list[Send] = []


def send_with(send: Send) -> None:
    """Have new deliveries sent after their commit: by `jobs.tasks`, in processes that load it.

    Where nobody said how, the sweeper of the running system sends them.
    """
    _senders[:] = [send]


def rules() -> Rules:
    """What the operator allows."""
    return Rules(
        allow_http=settings.WEBHOOK_ALLOW_HTTP, networks=tuple(settings.WEBHOOK_ALLOWED_NETWORKS)
    )


def check_url(url: str) -> None:
    """Refuse a URL that is never to be called, as far as that can be told now.

    It is checked again at each delivery. So one whose name cannot be resolved just now is let
    through, unless it is known that there is no such name.

    Raises:
        UrlNotAllowedError: the message is for the caller.
    """
    release_connection()
    try:
        address_guard.addresses_of(url, rules(), limit=CHECK_SECONDS)
    except NameNotResolvedError as error:
        if not error.passing:
            raise UrlNotAllowedError("There is no such host.") from None


# --- endpoints


def create(user_id: str, url: str, events: Sequence[str] | None = None) -> WebhookEndpoint:
    """A new endpoint for these events, by default for all.

    Raises:
        UrlNotAllowedError, TooManyWebhooksError
    """
    check_url(url)
    with transaction.atomic():
        UserIndexStamp.hold(user_id)
        if WebhookEndpoint.objects.filter(user_id=user_id).exclude(url="").count() >= MAX_WEBHOOKS:
            raise TooManyWebhooksError
        made = WebhookEndpoint.objects.create(
            user_id=user_id, url=url, events=list(events or all_events())
        )
    return WebhookEndpoint.objects.get(pk=made.pk)


def for_single_jobs(user_id: str) -> WebhookEndpoint:
    """The user's row whose secret signs for the `webhookUrl` of jobs; made when there is none."""
    return WebhookEndpoint.objects.get_or_create(user_id=user_id, url="")[0]


def set_up_single_jobs(
    user_id: str, events: Sequence[str] | None = None
) -> tuple[WebhookEndpoint, bool]:
    """The same row, from now on for these events where some are named; and whether it is new.

    It does not count as one of MAX_WEBHOOKS.
    """
    new = {"events": list(events or all_events())}
    row, made = WebhookEndpoint.objects.get_or_create(user_id=user_id, url="", defaults=new)
    if events and not made:
        change_endpoint(row, **new)
    else:
        row.refresh_from_db()
    return row, made


def change_endpoint(endpoint: WebhookEndpoint, **columns: Any) -> None:
    """Change its `url` or `events`, or switch it on (`enabled=True`) or off.

    What is pending goes to the new URL. What is pending when it is switched off is cancelled.

    Raises:
        UrlNotAllowedError
    """
    enabled = columns.pop("enabled", None)
    if "url" in columns:
        check_url(columns["url"])
    if enabled:
        columns |= {"disabled_time": None, "disabled_reason": ""}
    with transaction.atomic():
        if columns:
            WebhookEndpoint.objects.filter(pk=endpoint.pk).update(**columns)
        if enabled is False:
            with switching_off(endpoint.pk, "by_user"):
                pass
    endpoint.refresh_from_db()


@contextmanager
def switching_off(endpoint_id: UUID, reason: str) -> Iterator[None]:
    """Switch an endpoint off; what is still pending after the block is cancelled.

    One transaction that locks the endpoint before any of its deliveries: two of them that did it
    the other way round would wait for each other.
    """
    with transaction.atomic():
        on = WebhookEndpoint.objects.filter(pk=endpoint_id, disabled_time=None)
        on.update(disabled_time=Now(), disabled_reason=reason)
        yield
        WebhookDelivery.objects.filter(endpoint_id=endpoint_id).cancel("endpoint_disabled")


def forget(endpoint: WebhookEndpoint) -> None:
    """Delete an endpoint with its deliveries, sent or not; it is locked first, see above."""
    with transaction.atomic():
        list(WebhookEndpoint.objects.select_for_update().filter(pk=endpoint.pk).values_list("pk"))
        endpoint.delete()


def rotate(endpoint: WebhookEndpoint) -> None:
    """Give it a new secret; the one that it had signs as well for a day, an older one no more."""
    WebhookEndpoint.objects.filter(pk=endpoint.pk).update(
        previous_secret=F("secret"),
        previous_secret_expires_time=from_now(ROTATION),
        secret=new_secret(),
    )
    endpoint.refresh_from_db()


# --- the outbox


def announce(change: JobChange, status: JobStatus) -> None:
    """Write who is to be told of the end that the change has just moved its job to.

    In the change's transaction: whoever sees the job ended finds these rows. Without an endpoint
    it costs one statement.
    """
    job, event = change.job, WebhookEvent.of(status)
    targets = {row: "" for row in WebhookEndpoint.objects.filter(user_id=job.user_id) if row.url}
    if job.webhook_url:
        targets[for_single_jobs(job.user_id)] = job.webhook_url
    made = WebhookDelivery.objects.bulk_create(
        WebhookDelivery(
            event_id=f"msg_{job.pk.hex}_{change.latest}",
            type=event,
            job_id=job.pk,
            user_id=job.user_id,
            endpoint=endpoint,
            url=url,
            not_before=Now(),
            resend_time=from_now(MESSAGE_PATIENCE),
        )
        for endpoint, url in targets.items()
        if endpoint.enabled and event in endpoint.events
    )
    for send in _senders if made else ():
        ids = [delivery.pk for delivery in made]
        after_commit(send, ids)


def redeliver(delivery: WebhookDelivery) -> None:
    """Have it sent again at once, with the same event id and a fresh budget of retries.

    Its message is the caller's to send.

    Raises:
        DisabledError, UnderWayError
    """
    if not delivery.endpoint.enabled:
        raise DisabledError
    again = WebhookDelivery.objects.filter(pk=delivery.pk).not_under_way()
    renewed = again.update(
        status=DeliveryStatus.PENDING,
        attempts=0,
        claim=None,
        not_before=Now(),
        resend_time=from_now(MESSAGE_PATIENCE),
        ended_time=None,
    )
    if not renewed:
        raise UnderWayError
    delivery.refresh_from_db()


def send_lost(send: Callable[[UUID], None], *, everything: bool) -> int:
    """Send messages for due deliveries that no message points at; how many.

    Sent first, then noted: a message too many finds nothing to do. One by one, as many rows in one
    statement might wait in a circle for who cancels them.

    Raises:
        OSError: the broker is away.
    """
    due = WebhookDelivery.objects.due() if everything else WebhookDelivery.objects.lost()
    ids = list(due.order_by("not_before").values_list("pk", flat=True)[:AT_ONCE])
    for delivery_id in ids:
        send(delivery_id)
        sent = WebhookDelivery.objects.pending().filter(pk=delivery_id)
        sent.update(resend_time=from_now(MESSAGE_PATIENCE))
    return len(ids)


def next_due() -> UUID | None:
    """The delivery that has been due for longest, of those that have a free place."""
    due = WebhookDelivery.objects.sendable().order_by("not_before")
    return due.values_list("pk", flat=True).first()


def prune() -> None:
    """Forget deliveries that ended long ago, some at a time."""
    old = WebhookDelivery.objects.expired().values_list("pk", flat=True)[:AT_ONCE]
    if ids := list(old):
        WebhookDelivery.objects.filter(pk__in=ids).delete()
    forgotten = from_now(-DELIVERIES_KEPT - timedelta(days=7))
    WebhookAttempt.objects.filter(time__lt=forgotten).delete()
