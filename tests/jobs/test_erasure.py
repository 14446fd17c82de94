"""Erasure: everything of a user goes, nothing of others does, and it may be cut off anywhere."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.exceptions import ValidationError
from django.db import connection
from django.utils import timezone
from uuid6 import uuid7

from jobs import actions, cache, editing, erasure
from jobs.erasure import PARTS, Erasure, erase
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
    UserLimits,
    database_time,
    validate_user_id,
)
from jobs.models.pseudonym import pseudonym
from tests import factories
from tests.helpers import together
from tests.scripted import ScriptedEngine
from tests.uploads import files_below, paths_of, upload

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("redis_is_empty")]


def record_call(job: Job) -> EngineCall:
    return EngineCall.objects.create(
        job_id=job.pk, index=0, user_id=job.user_id, engine="e", audio_seconds=60
    )


def everything_stored() -> str:
    """All rows of the tables that hold something of users, as one text."""
    models: list[Any] = [Job, Chunk, Transcript, SearchText, JobEvent, UserJobIndex, UserIndexStamp]
    models += [IdempotencyKey, EngineCall, ErasedJob, Revision, RevisedText]
    models += [Rating, MistakeReport]
    return "\n".join(str(row) for model in models for row in model.objects.values())


def keys(raw: redis.Redis) -> str:
    return "\n".join(key.decode() for key in raw.scan_iter())


def test_everything_of_a_user_goes_and_the_receipt_counts_it(
    audio_root: Path, script: ScriptedEngine, raw_cache: redis.Redis
) -> None:
    by_hand = factories.put_audio("alice/mtg/00.wav")
    uploaded, named = upload(chunks=3, key="alice-1"), upload(by_hand)
    completed = factories.make_completed_job("some words", "spoken")
    cache.read_results({completed.pk: completed.sequence})
    cache.first_page("alice", [], UserIndexStamp.of("alice"))  # type: ignore[arg-type]
    call = record_call(completed)
    editing.save(completed.pk, editor="alice", seen=0, texts={0: "private edit"}, speakers={})
    theirs = factories.make_completed_job("stays", user_id="bob")
    editing.save(theirs.pk, editor="alice", seen=0, texts={0: "stays so"}, speakers={})
    for job in (completed, theirs):
        factories.make_rating(job, user_id="alice")
        factories.make_mistake(job, user_id="alice", heard="some words" if job == completed else "")
    assert "alice" in keys(raw_cache)
    assert str(completed.pk) in keys(raw_cache)

    receipt = erase("alice")

    assert receipt.removed == {
        "jobs": 3,
        "chunks": 6,
        "transcripts": 1,
        "searchTexts": 1,
        "revisions": 1,
        "revisedTexts": 1,
        "ratings": 1,
        "mistakeReports": 1,
        "feedbackPseudonymised": 2,
        "revisionsPseudonymised": 1,
        "events": 3 + 6,
        "indexEntries": 3,
        "audioFiles": 3,
        "idempotencyKeys": 1,
        "callsPseudonymised": 1,
        "tombstonesPseudonymised": 3,
        "webhookDeliveries": 0,
        "webhooks": 0,
        "usageDaysPseudonymised": 0,
        "indexStamps": 1,
        "cachedEntries": receipt.removed["cachedEntries"],
    }
    assert receipt.removed["cachedEntries"] > 0
    assert set(receipt.remaining) == set(receipt.removed)
    assert not any(receipt.remaining.values())
    assert receipt.requested_time <= receipt.completed_time
    assert "alice" not in everything_stored()
    assert "private" not in everything_stored()
    assert "some words" not in everything_stored()
    left = keys(raw_cache)
    assert "alice" not in left
    assert str(completed.pk) not in left
    assert files_below(audio_root) == {by_hand}
    ids = set(ErasedJob.objects.values_list("pk", flat=True))
    assert ids == {uploaded.pk, named.pk, completed.pk}
    call.refresh_from_db()
    assert (call.user_id, call.job_id) == (pseudonym("alice"), completed.pk)
    assert Revision.objects.get().editor == pseudonym("alice")
    assert [Rating.objects.get().user_id, MistakeReport.objects.get().user_id] == (
        [pseudonym("alice")] * 2
    )
    assert editing.read(theirs.pk)["chunks"][0]["text"] == "stays so"


def test_what_others_have_stays(audio_root: Path, script: ScriptedEngine) -> None:
    upload(user="alice")
    theirs = upload(user="bob", key="bob-1")
    theirs_done = factories.make_completed_job("stays", user_id="bob")
    record_call(theirs_done)
    names_the_same = upload(user="alicea")
    before = everything_stored()
    files = files_below(audio_root)
    erase("alice")
    assert {theirs.pk, theirs_done.pk, names_the_same.pk} == set(
        Job.objects.values_list("pk", flat=True)
    )
    kept = set(everything_stored().splitlines())
    assert {line for line in before.splitlines() if "bob" in line} <= kept
    assert files_below(audio_root) == {file for file in files if not file.startswith("alice/")}
    assert UserIndexStamp.of("bob")


@pytest.mark.parametrize("state", ["waiting", "running", "completed", "failed", "cancelled"])
def test_jobs_in_every_state_go(state: str) -> None:
    job = factories.make_job(2)
    if state == "running":
        factories.claim(job)
    elif state == "completed":
        job = factories.make_completed_job("x")
    elif state == "failed":
        job = factories.make_failed_job("x", None)
    elif state == "cancelled":
        actions.cancel(job.pk)
    erase("alice")
    assert not Job.objects.exists()
    assert ErasedJob.objects.filter(pk=job.pk).exists()


def test_a_result_that_comes_too_late_is_refused() -> None:
    job = factories.make_job()
    running = factories.claim(job)
    erase("alice")
    assert not factories.complete(running, "too late")
    assert factories.fail(running) is None
    assert "too late" not in everything_stored()
    assert not Chunk.objects.exists()


def test_a_user_of_whom_nothing_is_kept_gets_a_receipt_of_zeros() -> None:
    first, second = erase("alice"), erase("alice")
    assert not any(first.removed.values())
    assert second.removed == first.removed


def test_more_jobs_than_go_at_once_go_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "BATCH", 2)
    monkeypatch.setattr(erasure, "ROWS_AT_ONCE", 2)
    for _ in range(5):
        record_call(factories.make_job(2))
    removed = erase("alice").removed
    assert (removed["jobs"], removed["chunks"]) == (5, 10)
    assert (removed["callsPseudonymised"], removed["tombstonesPseudonymised"]) == (5, 5)
    assert "alice" not in everything_stored()


# --- cut off, and repeated ---


class PowerFailure(BaseException):
    """Nothing catches it."""


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_an_erasure_that_was_cut_off_is_completed_by_the_next(
    monkeypatch: pytest.MonkeyPatch, audio_root: Path, script: ScriptedEngine, batches: int
) -> None:
    monkeypatch.setattr(erasure, "BATCH", 1)
    for _ in range(3):
        upload(chunks=2, key=str(uuid7()))
    delete_all = actions.delete_all
    done: list[Any] = []

    def fail_after(job_ids: Any) -> Any:
        if len(done) == batches:
            raise PowerFailure
        done.append(job_ids)
        return delete_all(job_ids)

    with monkeypatch.context() as patch:
        patch.setattr(actions, "delete_all", fail_after)
        with pytest.raises(PowerFailure):
            erase("alice")
    assert Job.objects.count() == 3 - batches
    assert erase("alice").removed["jobs"] == 3 - batches
    assert "alice" not in everything_stored()
    assert not files_below(audio_root)


def test_while_redis_is_away_all_else_goes_and_it_is_incomplete(
    redis_elsewhere: Callable[[str], None], settings: Any
) -> None:
    here = settings.CACHES["default"]["LOCATION"]
    factories.make_completed_job("x")
    redis_elsewhere("redis://127.0.0.1:1/0")
    with pytest.raises(erasure.ErasureIncomplete, match="cachedEntries"):
        erase("alice")
    assert "alice" not in everything_stored()
    redis_elsewhere(here)
    assert erase("alice").removed["cachedEntries"] > 0


# --- at the same moment ---


def test_ten_erasures_at_once_erase_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "BATCH", 2)
    for _ in range(6):
        factories.make_job(2)
    receipts = together(*[partial(erase, "alice")] * 4)
    assert sum(receipt.removed["jobs"] for receipt in receipts) == 6
    assert sum(receipt.removed["chunks"] for receipt in receipts) == 12
    assert "alice" not in everything_stored()


def test_what_is_submitted_meanwhile_is_taken_and_stays(
    monkeypatch: pytest.MonkeyPatch, audio_root: Path, script: ScriptedEngine
) -> None:
    upload()
    delete_all = actions.delete_all
    made: list[Job] = []

    def submit_then_delete(job_ids: Any) -> Any:
        if not made:
            made.append(upload(key="new"))
        return delete_all(job_ids)

    monkeypatch.setattr(actions, "delete_all", submit_then_delete)
    receipt = erase("alice")
    assert receipt.removed["jobs"] == 1
    (new,) = Job.objects.all()
    assert [new] == made
    assert (audio_root / paths_of(new)[0]).is_file()
    assert IdempotencyKey.objects.get().job_id == new.pk
    stamp = UserIndexStamp.of("alice")
    assert stamp is not None, "without it the search would find nothing"
    assert cache.first_page("alice", [], stamp) == [new.pk]


def test_the_calls_of_new_jobs_keep_their_user() -> None:
    moment = database_time()
    before, after = factories.make_job(), factories.make_job()
    Job.objects.filter(pk=before.pk).update(submitted_time=moment)
    old, new = record_call(before), record_call(after)
    erased = Erasure(user_id="alice", requested_time=moment)
    for part in PARTS:
        part.remove(erased)
    old.refresh_from_db()
    new.refresh_from_db()
    assert (old.user_id, new.user_id) == (pseudonym("alice"), "alice")
    assert set(Job.objects.all()) == {after}


def test_sums_over_the_ledger_are_what_they_were() -> None:
    for user in ("alice", "bob"):
        record_call(factories.make_completed_job("x", user_id=user))
    before = list(EngineCall.objects.all().sums())
    erase("alice")
    assert list(EngineCall.objects.all().sums()) == before


# --- the pseudonym ---


def test_a_pseudonym_is_always_the_same_tells_no_name_and_is_no_users(settings: Any) -> None:
    assert pseudonym("alice") == pseudonym("alice") != pseudonym("bob")
    assert "alice" not in pseudonym("alice")
    assert len(pseudonym("a" * 150)) <= 150
    with pytest.raises(ValidationError):
        validate_user_id(pseudonym("alice"))
    known = pseudonym("alice")
    settings.SECRET_KEY = "another"
    assert pseudonym("alice") != known


def test_the_time_is_the_databases() -> None:
    earlier, later = database_time(), database_time()
    assert earlier <= later
    assert earlier.tzinfo is not None
    assert abs(earlier - timezone.now()) < timedelta(seconds=60)


# --- without reading whole tables ---


def test_no_step_reads_a_whole_table() -> None:
    factories.make_completed_job("x")
    erased = Erasure(user_id="alice", requested_time=database_time())
    steps: dict[str, Any] = {
        "jobs": erased.jobs.order_by("submitted_time"),
        "calls": EngineCall.objects.filter(user_id="alice"),
        "tombstones": erasure._tombstones(erased),
        "keys": erasure._keys(erased),
    }
    steps |= {rows.model.__name__: rows for rows in erasure._feedback_on_others(erased)}
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET enable_seqscan = off")
        plans = {name: rows.explain() for name, rows in steps.items()}
        if connection.vendor == "postgresql":
            cursor.execute("RESET enable_seqscan")
    for name, plan in plans.items():
        assert "Seq Scan" not in plan, name
        assert "SCAN" not in plan, name


def test_usage_limits_and_webhooks_go_and_the_sums_hold() -> None:
    factories.make_delivery("https://8.8.8.8/")
    UserLimits.objects.create(user_id="alice", jobs_in_flight=3)
    for name in ("alice", pseudonym("alice")):  # who was erased before on this day
        UsageDay.objects.create(
            user_id=name, day="2026-11-01", engine="openai", calls=2, seconds=60.0
        )
    removed = erase("alice").removed
    assert (removed["webhookDeliveries"], removed["webhooks"]) == (1, 1)
    assert UserLimits.objects.exists()  # the operator's: nobody gets room by an erasure
    assert removed["usageDaysPseudonymised"] == 1
    (day,) = UsageDay.objects.all()
    assert (day.user_id, day.calls, day.seconds) == (pseudonym("alice"), 4, 120.0)
