"""The sweeper: finds whatever no message points at any more. Safe many times at once.

It is the code of `manage.py requeue_pending`, run at boot and every 5 seconds. A healthy system
never waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar
from uuid import UUID

from django.db import connection
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Now

from jobs import dead_letters, liveness, recordings, upload_removal, webhooks
from jobs.finishing import finish_job
from jobs.models import (
    CUT_PATIENCE,
    MAX_CRASHES,
    MESSAGE_PATIENCE,
    Chunk,
    ChunkStatus,
    EngineCall,
    EventType,
    IdempotencyKey,
    Job,
    JobChange,
    JobGoneError,
    Recording,
    WorkerProcess,
    changing,
    from_now,
)

BATCH: Final = 500
QUEUE_AWAY: Final = "queue_unavailable"

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DueChunk:
    """A chunk that needs a message, and the engine that decides on its queue."""

    pk: int
    job_id: UUID
    index: int
    engine: str
    dispatches: int


Send = Callable[[DueChunk], None]
"""Sends the message for one chunk; raises OSError when the broker is away."""

SendWebhook = Callable[[UUID], None]
"""The same for one delivery of a webhook."""

SendCut = Callable[[UUID], None]
"""The same for one recording that is to be cut."""


@dataclass(kw_only=True)
class SweepReport:
    """What one sweep found and did."""

    released: int = 0
    sent: int = 0
    finished: int = 0
    expired: int = 0
    redriven: int = 0
    webhooks: int = 0
    broker_away: bool = False

    @property
    def found_something(self) -> bool:
        return self != SweepReport()

    def __str__(self) -> str:
        away = "; the broker is away" if self.broker_away else ""
        return (
            f"{self.released} claims released, {self.sent} chunks sent, "
            f"{self.finished} jobs finished, {self.expired} past their deadline, "
            f"{self.redriven} retried by schedule, {self.webhooks} webhooks sent{away}"
        )


def sweep(
    send: Send | None,
    send_webhook: SendWebhook | None = None,
    send_cut: SendCut | None = None,
    *,
    everything: bool = False,
    silence: bool = True,
    files: bool = True,
) -> SweepReport:
    """Look at all that has not ended, once.

    Args:
        send: None to repair the rows and leave the messages to another sweeper.
        send_webhook, send_cut: likewise.
        everything: send a message for every due chunk, also where one was sent lately. At boot
            the broker may have lost them, and a second message does no harm.
        silence: whether a worker that was not heard of for 15 seconds is dead. Not when the
            database was away in that time: then nobody could be heard.
        files: whether to remove uploads that nobody uses; workers may only read.
    """
    report = SweepReport()
    liveness.bury_the_dead()
    over = Chunk.objects.claim_is_over(silence=silence)
    columns = ("job_id", "index", "lease_token", "crashes")
    report.released = _count(_release, over.only(*columns)[:BATCH])
    report.expired = _count(_expire, Job.objects.past_deadline()[:BATCH])
    all_ended = Job.objects.all_chunks_ended().values_list("pk", flat=True)
    report.finished = _count(finish_job, all_ended[:BATCH])
    report.redriven = _count(dead_letters.redrive_due, dead_letters.jobs_due())
    if send is not None:
        _send_due(send, report, everything=everything)
    if send_cut is not None and not report.broker_away:
        _send_cuts(send_cut, report, everything=everything)
    if send_webhook is not None and not report.broker_away:
        _send_webhooks(send_webhook, report, everything=everything)
    webhooks.prune()
    WorkerProcess.objects.long_gone().delete()
    IdempotencyKey.objects.expired().delete()
    if files:
        upload_removal.sweep()
    return report


def mark_delayed(*, broker_away: bool) -> int:
    """Say of jobs with chunks due that they wait for the broker, or no longer do; how many."""
    if broker_away:
        due = Chunk.objects.due().filter(job=OuterRef("pk"))
        jobs, to = Job.objects.in_progress().filter(Exists(due), delay_reason=""), QUEUE_AWAY
    else:
        jobs, to = Job.objects.in_progress().filter(delay_reason=QUEUE_AWAY), ""
    return _count(partial(_delay, to), jobs.values_list("pk", flat=True)[:BATCH])


def _delay(reason: str, job_id: UUID) -> bool:
    """Under the job's lock: its chunks may have been claimed since, or wait for an engine."""
    try:
        with changing(job_id) as change:
            holds = change.job.delay_reason == ("" if reason else QUEUE_AWAY)
            if holds and (not reason or change.job.chunks.due().exists()):
                change.delay(reason)
                return True
            return False
    except JobGoneError:
        return False


def _count(act: Callable[[T], bool], things: Iterable[T]) -> int:
    """On how many of the things the act took effect; one that cannot be dealt with stops nothing.

    Raises:
        OperationalError, InterfaceError: the database is away.
    """
    number = 0
    for thing in things:
        try:
            number += act(thing)
        except Exception:
            if not connection.is_usable():
                raise
            logger.exception("The sweeper could not deal with %r", thing)
    return number


def _release(chunk: Chunk) -> bool:
    """End a claim whose worker died: the chunk waits again, or has crashed too often."""
    still_so = Q(lease_token=chunk.lease_token)
    crashes = chunk.crashes + 1
    error = {
        "error_code": "worker_crashed",
        "error_detail": "the worker died or fell silent in the middle of this chunk",
        "error_recoverable": True,
    }
    try:
        with changing(chunk.job_id) as change:
            if crashes >= MAX_CRASHES:
                released = _fail(change, chunk.index, still_so, crashes=crashes, **error)
            else:
                released = change.move_chunk(
                    chunk.index,
                    ChunkStatus.PENDING,
                    EventType.CHUNK_PENDING,
                    {"error": {"code": error["error_code"], "detail": error["error_detail"]}},
                    where=still_so,
                    crashes=crashes,
                    not_before=Now(),
                    resend_time=Now(),
                    **error,
                )
            if released:
                EngineCall.objects.close_lost(chunk.job_id, chunk.index)
    except JobGoneError:
        return False
    return released


def _expire(job: Job) -> bool:
    """Fail what still waits when the job's deadline has passed; running chunks may end."""
    try:
        with changing(job.pk) as change:
            if not Job.objects.past_deadline().filter(pk=job.pk).exists():
                return False  # it was retried, or it ended, since it was looked at
            if Recording.objects.uncut().filter(pk=job.pk).exists():
                why = "the job's deadline passed before the recording was cut"
                recordings.fail_uncut(change, "deadline_exceeded", why, recoverable=True)
            waiting = change.job.chunks.filter(status=ChunkStatus.PENDING)
            for index in list(waiting.values_list("index", flat=True)):
                _fail(
                    change,
                    index,
                    Q(),
                    error_code="deadline_exceeded",
                    error_detail="the job's deadline passed before the chunk was recognised",
                    error_recoverable=True,
                )
    except JobGoneError:
        return False
    return True


def _fail(change: JobChange, index: int, where: Q, **columns: object) -> bool:
    error = {"code": columns["error_code"], "detail": columns["error_detail"]}
    return change.move_chunk(
        index,
        ChunkStatus.FAILED,
        EventType.CHUNK_FAILED,
        {"error": error},
        where=where,
        ended_time=Now(),
        **columns,
    )


def _send_due(send: Send, report: SweepReport, *, everything: bool) -> None:
    """Send in batches, in the order of the rows."""
    rows = Chunk.objects.due() if everything else Chunk.objects.lost()
    columns = ("pk", "job_id", "index", "job__engine", "dispatches")
    seen = 0
    while batch := list(rows.filter(pk__gt=seen).order_by("pk").values_list(*columns)[:BATCH]):
        for row in batch:
            chunk = DueChunk(**dict(zip(DueChunk.__dataclass_fields__, row, strict=True)))
            try:
                report.sent += _send_one(send, chunk)
            except OSError:
                report.broker_away = True
                return
        seen = batch[-1][0]


def _send_webhooks(send: SendWebhook, report: SweepReport, *, everything: bool) -> None:
    try:
        report.webhooks = webhooks.send_lost(send, everything=everything)
    except OSError:
        report.broker_away = True


def _send_cuts(send: SendCut, report: SweepReport, *, everything: bool) -> None:
    rows = Recording.objects.due() if everything else Recording.objects.lost()
    for job_id in list(rows.values_list("pk", flat=True)[:BATCH]):
        try:
            send(job_id)
        except OSError:
            report.broker_away = True
            return
        patience = from_now(CUT_PATIENCE)
        report.sent += Recording.objects.filter(pk=job_id).update(resend_time=patience)


def _send_one(send: Send, chunk: DueChunk) -> bool:
    """Mark, then send; False when another sweeper was first.

    The patience doubles with each message, so that a backlog of hours does not fill the broker
    with copies.
    """
    patience = MESSAGE_PATIENCE * 2 ** min(chunk.dispatches, 6)
    mine = Chunk.objects.filter(
        pk=chunk.pk, status=ChunkStatus.PENDING, dispatches=chunk.dispatches
    )
    marked = mine.update(resend_time=from_now(patience), dispatches=F("dispatches") + 1)
    if not marked:
        return False
    try:
        send(chunk)
    except OSError:
        unsent = Chunk.objects.filter(pk=chunk.pk, status=ChunkStatus.PENDING)
        unsent.update(resend_time=Now(), dispatches=chunk.dispatches)
        raise
    return True
