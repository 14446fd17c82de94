"""Erasing all that is kept of a user: in short transactions, restartable, safe twice at once.

What is erased stands in `PARTS`: a part has a function that removes, and one that counts what is
left. Nobody believes the first one: the receipt is given when everything was counted again.

Jobs that the user submits while it runs are taken and stay. The account and its tokens stay too.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import redis
from django.db import models, transaction
from django.db.models import Exists, OuterRef

from jobs import actions, cache, storage, upload_removal
from jobs.models import (
    Chunk,
    EngineCall,
    ErasedJob,
    IdempotencyKey,
    Job,
    JobEvent,
    MistakeReport,
    Rating,
    RevisedText,
    Revision,
    SearchText,
    Transcript,
    UsageDay,
    UserIndexStamp,
    UserJobIndex,
    WebhookDelivery,
    WebhookEndpoint,
    database_time,
)
from jobs.models.pseudonym import pseudonym
from jobs.models.usage_day import rename_user

BATCH: Final = 100  # jobs in one transaction
ROWS_AT_ONCE: Final = 1000
LOOKS: Final = 3  # what was being written just then is found by looking again

logger = logging.getLogger(__name__)


class ErasureIncomplete(Exception):
    """Something is left that could not be reached; the erasure is to be repeated."""

    def __init__(self, *left: str) -> None:
        super().__init__(", ".join(left))


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What was removed, and that nothing of it is left."""

    user_id: str
    requested_time: datetime
    completed_time: datetime
    removed: Mapping[str, int]
    remaining: Mapping[str, int]


@dataclass(kw_only=True)
class Erasure:
    """One user's data, as of the moment when they were to be erased."""

    user_id: str
    requested_time: datetime
    removed: Counter[str] = field(default_factory=Counter)

    @property
    def jobs(self) -> models.QuerySet[Job]:
        return Job.objects.filter(user_id=self.user_id, submitted_time__lte=self.requested_time)

    @property
    def erased_jobs(self) -> models.QuerySet[ErasedJob]:
        """The user's jobs that are gone, also by an earlier erasure."""
        return ErasedJob.objects.of(self.user_id)


@dataclass(frozen=True)
class Part:
    """One kind of thing that is kept of a user."""

    remove: Callable[[Erasure], None]
    """Adds what it removed to `erasure.removed`. May be called again at any time."""
    left: Callable[[Erasure], Mapping[str, int]]
    """How much there still is, by the same names."""


def erase(user_id: str) -> Receipt:
    """Remove everything that is kept of this user until now.

    Raises:
        StorageAwayError: the storage of audio is away; nothing more was removed since.
        ErasureIncomplete: something cannot be removed now; all else is.
        OperationalError: the database is away.
    """
    erasure = Erasure(user_id=user_id, requested_time=database_time())
    for _ in range(LOOKS):
        for part in PARTS:
            part.remove(erasure)
        remaining = Counter[str]()
        for part in PARTS:
            remaining.update(part.left(erasure))
        if not any(remaining.values()):
            break
    else:
        raise ErasureIncomplete(*sorted(name for name, number in remaining.items() if number))
    removed = {name: erasure.removed[name] for name in remaining}
    logger.info("Erased the data of %s: %s", pseudonym(user_id), removed)
    return Receipt(
        user_id=user_id,
        requested_time=erasure.requested_time,
        completed_time=database_time(),
        removed=removed,
        remaining=dict(remaining),
    )


# --- jobs, and what goes with them: chunks are also all that is remembered of recognitions ---


def _remove_jobs(erasure: Erasure) -> None:
    oldest = erasure.jobs.order_by("submitted_time").values_list("pk", flat=True)
    while batch := list(oldest[:BATCH]):
        storage.audio_files().look()  # or they would be half gone, with no receipt
        erasure.removed.update(actions.delete_all(batch))


def _jobs_left(erasure: Erasure) -> dict[str, int]:
    jobs = erasure.jobs
    index = UserJobIndex.objects.filter(
        user_id=erasure.user_id, submitted_time__lte=erasure.requested_time
    )
    return {
        "jobs": jobs.count(),
        "chunks": Chunk.objects.filter(job__in=jobs).count(),
        "transcripts": Transcript.objects.filter(job__in=jobs).count(),
        "searchTexts": SearchText.objects.filter(job__job__in=jobs).count(),
        "revisions": Revision.objects.filter(job__in=jobs).count(),
        "revisedTexts": RevisedText.objects.filter(job__in=jobs).count(),
        "ratings": Rating.objects.filter(job__in=jobs).count(),
        "mistakeReports": MistakeReport.objects.filter(job__in=jobs).count(),
        "events": JobEvent.objects.filter(job__in=jobs).count(),
        "indexEntries": index.count(),
    }


# --- files that no job has: sent for none, or of a job whose files could not be removed then ---


def _remove_files(erasure: Erasure) -> None:
    try:
        removed = upload_removal.remove_all(erasure.user_id, erasure.requested_time)
    except storage.StorageAwayError:
        raise
    except OSError as error:
        raise ErasureIncomplete("audioFiles") from error
    erasure.removed["audioFiles"] += removed


def _files_left(erasure: Erasure) -> dict[str, int]:
    return {"audioFiles": upload_removal.unused(erasure.user_id, erasure.requested_time).count()}


# --- other rows ---


def _remove_keys(erasure: Erasure) -> None:
    erasure.removed["idempotencyKeys"] += _keys(erasure).delete()[0]


def _keys(erasure: Erasure) -> models.QuerySet[IdempotencyKey]:
    before = {"created_time__lte": erasure.requested_time}
    return IdempotencyKey.objects.filter(user_id=erasure.user_id, **before)


def _rename_calls(erasure: Erasure) -> None:
    """The ledger is the operator's account and stays; whose calls they were goes."""
    erasure.removed["callsPseudonymised"] += _rename(_calls(erasure), erasure.user_id)


def _calls(erasure: Erasure) -> models.QuerySet[EngineCall]:
    jobs = Job.objects.filter(pk=OuterRef("job_id"))
    return EngineCall.objects.filter(~Exists(jobs), user_id=erasure.user_id)


def _rename_tombstones(erasure: Erasure) -> None:
    """They stay, so that the owner is answered 410."""
    erasure.removed["tombstonesPseudonymised"] += _rename(_tombstones(erasure), erasure.user_id)


def _tombstones(erasure: Erasure) -> models.QuerySet[ErasedJob]:
    return ErasedJob.objects.filter(user_id=erasure.user_id)


def _rename_editor(erasure: Erasure) -> None:
    """What they have written in others' transcripts is the others'."""
    renamed = _rename(_edits_of_others(erasure), erasure.user_id, column="editor")
    erasure.removed["revisionsPseudonymised"] += renamed


def _edits_of_others(erasure: Erasure) -> models.QuerySet[Revision]:
    before = {"time__lte": erasure.requested_time}
    mine = Revision.objects.filter(editor=erasure.user_id, **before)
    return mine.exclude(job__user_id=erasure.user_id)


def _rename_feedback(erasure: Erasure) -> None:
    """What they have said of others' transcripts is of use without their name."""
    for rows in _feedback_on_others(erasure):
        erasure.removed["feedbackPseudonymised"] += _rename(rows, erasure.user_id)


def _feedback_on_others(erasure: Erasure) -> list[models.QuerySet[Any]]:
    mine = {"user_id": erasure.user_id, "time__lte": erasure.requested_time}
    rows = (Rating.objects.filter(**mine), MistakeReport.objects.filter(**mine))
    return [some.exclude(job__user_id=erasure.user_id) for some in rows]


def _feedback_left(erasure: Erasure) -> dict[str, int]:
    return {"feedbackPseudonymised": sum(rows.count() for rows in _feedback_on_others(erasure))}


def _rename(rows: models.QuerySet[Any], user_id: str, column: str = "user_id") -> int:
    """In batches; how many rows there were."""
    renamed, other = 0, {column: pseudonym(user_id)}
    while some := list(rows.order_by().values_list("pk", flat=True)[:ROWS_AT_ONCE]):
        renamed += rows.model.objects.filter(pk__in=some).update(**other)
    return renamed


def _remove_stamp(erasure: Erasure) -> None:
    """Under its lock, as submissions take it last: one that has it by now has its job, too."""
    with transaction.atomic():
        stamp = UserIndexStamp.objects.select_for_update().filter(pk=erasure.user_id)
        if stamp.exists() and not _has_jobs(erasure):
            erasure.removed["indexStamps"] += stamp.delete()[0]


def _stamps_left(erasure: Erasure) -> dict[str, int]:
    stamps = UserIndexStamp.objects.filter(pk=erasure.user_id)
    return {"indexStamps": 0 if _has_jobs(erasure) else stamps.count()}


def _has_jobs(erasure: Erasure) -> bool:
    return Job.objects.filter(user_id=erasure.user_id).exists()


# --- usage; a user's own limits are the operator's and stay ---


def _rename_usage(erasure: Erasure) -> None:
    renamed = rename_user(erasure.user_id, pseudonym(erasure.user_id))
    erasure.removed["usageDaysPseudonymised"] += renamed


def _usage_left(erasure: Erasure) -> dict[str, int]:
    days = UsageDay.objects.filter(user_id=erasure.user_id)
    return {"usageDaysPseudonymised": 0 if _has_jobs(erasure) else days.count()}


# --- webhooks, with what was told and is to be told ---


def _remove_webhooks(erasure: Erasure) -> None:
    rows = _webhooks(erasure)
    with transaction.atomic():  # endpoints are locked first, as by whoever switches one off
        list(rows["webhooks"].select_for_update().order_by("pk").values_list("pk"))
        for name, some in rows.items():
            erasure.removed[name] += some.delete()[1].get(some.model._meta.label, 0)


def _webhooks(erasure: Erasure) -> dict[str, models.QuerySet[Any]]:
    """Endpoints last: a delivery without one would be nobody's."""
    mine = {"user_id": erasure.user_id, "created_time__lte": erasure.requested_time}
    return {
        "webhookDeliveries": WebhookDelivery.objects.filter(**mine),
        "webhooks": WebhookEndpoint.objects.filter(**mine),
    }


def _webhooks_left(erasure: Erasure) -> dict[str, int]:
    return {name: rows.count() for name, rows in _webhooks(erasure).items()}


# --- the cache ---


def _remove_entries(erasure: Erasure) -> None:
    try:
        for keys in cache.entries_of(erasure.user_id, erasure.erased_jobs):
            erasure.removed["cachedEntries"] += cache.forget(keys)
    except redis.RedisError as error:
        raise ErasureIncomplete("cachedEntries") from error


def _entries_left(erasure: Erasure) -> dict[str, int]:
    # Of a user with new jobs new pages are being made, which hold nothing else.
    pages_of = "" if _has_jobs(erasure) else erasure.user_id
    try:
        entries = cache.entries_of(pages_of, erasure.erased_jobs)
        return {"cachedEntries": sum(len(keys) for keys in entries)}
    except redis.RedisError as error:
        raise ErasureIncomplete("cachedEntries") from error


# In this order. What else is kept of a user is to be added here, and nowhere else.
PARTS: Final = (
    Part(_remove_jobs, _jobs_left),
    Part(_remove_files, _files_left),
    Part(_remove_keys, lambda erasure: {"idempotencyKeys": _keys(erasure).count()}),
    Part(_rename_calls, lambda erasure: {"callsPseudonymised": _calls(erasure).count()}),
    Part(
        _rename_tombstones,
        lambda erasure: {"tombstonesPseudonymised": _tombstones(erasure).count()},
    ),
    Part(
        _rename_editor,
        lambda erasure: {"revisionsPseudonymised": _edits_of_others(erasure).count()},
    ),
    Part(_rename_feedback, _feedback_left),
    Part(_remove_webhooks, _webhooks_left),
    Part(_rename_usage, _usage_left),
    Part(_remove_stamp, _stamps_left),
    Part(_remove_entries, _entries_left),
)
