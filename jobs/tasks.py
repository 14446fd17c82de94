"""The actors, and the sending of their messages. A message only says: look at this row now."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import Any, Final, cast
from uuid import UUID

import dramatiq
import redis
from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.db.models.functions import Now
from dramatiq.brokers.redis import RedisBroker

from jobs import (
    attempts,
    engines,
    finishing,
    pipeline,
    recordings,
    sweeper,
    turns,
    webhook_delivery,
    webhooks,
)
from jobs.crashpoints import crashpoint
from jobs.database import release_connection
from jobs.interruption import Stopping
from jobs.models import Chunk, ChunkStatus, JobGoneError, Recording, changing

MARKER: Final = "verbatim:not-emptied"
WEBHOOKS_AT_ONCE: Final = 8  # in one process

logger = logging.getLogger(__name__)

# Chunks of local engines wait in a queue of their own: as many at once as there are cores.
dramatiq.get_broker().declare_queue(engines.LOCAL_QUEUE)


@dramatiq.actor(
    queue_name=engines.REMOTE_QUEUE,
    # For what hangs in spite of every other limit. It must not strike a thread that waits for the
    # database with a result in its hands: a lease at most to write it, another to finish the job.
    # All that once more for the last turn that was lent, and a lease in which turns are lent.
    time_limit=int(settings.LEASE_SECONDS * 7 * 1000),
)
def transcribe_chunk(job_id: str, index: int, engine: str) -> None:
    """Transcribe one chunk by that engine, if it still needs it; before it those that go first."""
    own = place = (UUID(job_id), index)
    again = None
    try:
        with turns.threads.one_busy():
            for place in turns.given(*own, engine):
                again = pipeline.transcribe(*place, engine)
                if place != own:
                    _come_again(place, again)
    except Stopping:
        # The claim was given back; the row waits for the next worker.
        if place != own:
            _come_again(own, attempts.Again(seconds=0.0, engine=engine))
        return
    finally:
        release_connection()  # Dramatiq talks to Redis next, which may take its time
    if again is not None and again.counted and again.engine == engine:
        raise dramatiq.Retry(delay=int(again.seconds * 1000))  # this very message
    _come_again(own, again)


@dramatiq.actor(queue_name=engines.LOCAL_QUEUE, time_limit=int(recordings.CUT_SECONDS * 3 * 1000))
def cut_recording(job_id: str) -> None:
    """Cut a job's recording into chunks, and have these transcribed."""
    with turns.threads.one_busy():
        made = recordings.cut_recording(UUID(job_id))
    if made:
        dispatch(UUID(job_id))


@dramatiq.actor(queue_name=engines.CONTROL_QUEUE, time_limit=60_000)
def stitch_transcript(job_id: str) -> None:
    """The group's completion callback: finish the job, if nobody has yet."""
    finishing.finish_job_if_due(UUID(job_id))


_slots = threading.Semaphore(WEBHOOKS_AT_ONCE)


@dramatiq.actor(queue_name=engines.WEBHOOKS_QUEUE, time_limit=60_000, priority=10)
def deliver_webhook(delivery_id: str) -> None:
    """Deliver it, if it is due, and then have the next one delivered.

    Who finds no slot leaves it to those who have one: a slow receiver holds up no stitching, and
    no message goes round in circles.
    """
    if not _slots.acquire(blocking=False):
        return
    try:
        wait = webhook_delivery.deliver(UUID(delivery_id))
    finally:
        _slots.release()
    # Looked for without a slot: a message that found none meanwhile was for one that is seen here.
    following = webhooks.next_due()
    release_connection()
    with suppress(ConnectionError):  # the sweeper is the belt
        if wait is not None and webhook_delivery.has_message(wait):
            send_webhook(UUID(delivery_id), wait)
        if following is not None:
            send_webhook(following)


def send_webhook(delivery_id: UUID, wait: float = 0.0) -> None:
    """Send one delivery's message, to be looked at after so many seconds.

    Raises:
        ConnectionError: the broker is away.
    """
    message = deliver_webhook.message(str(delivery_id))
    with broker_errors():
        dramatiq.get_broker().enqueue(message, delay=int(wait * 1000) or None)


def send_webhooks(delivery_ids: Sequence[UUID]) -> None:
    """Send their messages; where the broker is away, the sweeper does it later."""
    release_connection()
    crashpoint("before-webhook")
    try:
        for delivery_id in delivery_ids:
            send_webhook(delivery_id)
    except ConnectionError:
        logger.warning("The broker is away; the sweeper sends %d webhooks", len(delivery_ids))


webhooks.send_with(send_webhooks)


def dispatch(job_id: UUID) -> bool:
    """Send the messages of a job's waiting chunks, as one group with its callback.

    False when the broker or the database is away: the job is stored, the sweeper sends later, and
    where it can be written the job is marked as delayed.
    """
    try:
        return _dispatch(job_id)
    except (OperationalError, InterfaceError):
        logger.warning("Job %s: the database is away; the sweeper sends its messages", job_id)
        return False


def _dispatch(job_id: UUID) -> bool:
    rows = Chunk.objects.filter(job_id=job_id, status=ChunkStatus.PENDING).order_by("index")
    waiting = list(rows.values_list("index", "job__engine"))
    if not waiting:
        return _dispatch_cut(job_id)
    release_connection()
    group = dramatiq.group([_message(job_id, index, engine) for index, engine in waiting])
    group.add_completion_callback(stitch_transcript.message(str(job_id)))
    try:
        with broker_errors(), cast("Any", dramatiq.get_broker()).together():
            group.run()
    except ConnectionError:
        logger.warning("Job %s: the broker is away; it starts when the broker is back", job_id)
        _mark_undispatched(job_id)
        return False
    return True


def _dispatch_cut(job_id: UUID) -> bool:
    """The same for a recording that has no chunks yet; True when there is none."""
    uncut = Recording.objects.due().filter(pk=job_id).exists()
    release_connection()
    if uncut:
        try:
            send_cut(job_id)
        except ConnectionError:
            logger.warning("Job %s: the broker is away; it starts when the broker is back", job_id)
            Recording.objects.filter(pk=job_id).update(resend_time=Now())
            return False
    return True


def send_cut(job_id: UUID) -> None:
    """Send the message that has a job's recording cut.

    Raises:
        ConnectionError: the broker is away.
    """
    with broker_errors():
        dramatiq.get_broker().enqueue(cut_recording.message(str(job_id)))


def send_chunk(chunk: sweeper.DueChunk) -> None:
    """Send one chunk's message.

    Raises:
        ConnectionError: the broker is away.
    """
    with broker_errors():
        dramatiq.get_broker().enqueue(_message(chunk.job_id, chunk.index, chunk.engine))


def sweep_at_boot() -> None:
    """Look at everything once; a worker that cannot (no database yet) boots all the same."""
    try:
        report = sweeper.sweep(send_chunk, send_webhook, send_cut, silence=False, files=False)
        logger.info("At boot: %s", report)
    except Exception:
        logger.exception("The sweep at boot failed; the sweeper will do it")


class BrokerState(StrEnum):
    """How the broker was found."""

    READY = "ready"
    EMPTIED = "emptied"  # since it was last looked at: all is to be sent, without more patience
    AWAY = "away"  # or it takes nothing


def look_at_broker() -> BrokerState:
    """Write a marker into the broker, and see whether it was still there."""
    try:
        client = cast("RedisBroker", dramatiq.get_broker()).client
        emptied = client.set(MARKER, "1", nx=True)
    except redis.RedisError:
        return BrokerState.AWAY
    return BrokerState.EMPTIED if emptied else BrokerState.READY


@contextmanager
def broker_errors() -> Iterator[None]:
    """Every way in which Redis can be away, as ConnectionError."""
    try:
        yield
    except (redis.RedisError, dramatiq.errors.BrokerConnectionError) as error:
        raise ConnectionError("the broker is away") from error


def _message(job_id: UUID, index: int, engine: str) -> dramatiq.Message[None]:
    message = transcribe_chunk.message(str(job_id), index, engine)
    return message.copy(queue_name=engines.queue_of(engine))


def _come_again(place: turns.Place, again: attempts.Again | None) -> None:
    """A new message: waiting uses up none of the retries. Long waits are the sweeper's."""
    release_connection()
    if again is not None and again.needs_message:
        _send_again(*place, again)


def _send_again(job_id: UUID, index: int, again: attempts.Again) -> None:
    """Send a chunk's message to the queue of the engine that is next; the sweeper is the belt."""
    delay = int(again.seconds * 1000) or None
    try:
        with broker_errors():
            dramatiq.get_broker().enqueue(_message(job_id, index, again.engine), delay=delay)
    except ConnectionError:
        logger.warning("Chunk %s[%d]: the broker is away; the sweeper sends it", job_id, index)


def _mark_undispatched(job_id: UUID) -> None:
    waiting = Chunk.objects.filter(job_id=job_id, status=ChunkStatus.PENDING)
    try:
        with changing(job_id) as change:
            if waiting.update(resend_time=Now()):
                change.delay(sweeper.QUEUE_AWAY)
    except JobGoneError:
        pass
