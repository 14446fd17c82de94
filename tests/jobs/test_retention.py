"""Retention: what ended long enough ago goes, and what is still of use stays."""

from __future__ import annotations

import threading
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from jobs import actions, finishing, quotas, retention, storage, upload_removal
from jobs.models import Chunk, ErasedJob, Job, Upload, from_now
from jobs.retention import Retention, count, purge
from jobs.submission import SubmissionRefused
from jobs.sweeper import sweep
from tests import factories
from tests.helpers import is_somebody_waiting, together, wait_until
from tests.scripted import ScriptedEngine
from tests.uploads import files_below, paths_of, upload

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("redis_is_empty")]
DAY = timedelta(days=1)
AUDIO = Retention(audio=7 * DAY)
WHOLE = Retention(transcripts=30 * DAY)


@pytest.fixture(autouse=True)
def scripted(script: ScriptedEngine) -> None:
    """No engine is asked for more than what it can do."""


def end(job: Job, age: timedelta, *, failing: bool = False) -> Job:
    """Let a job end that long ago."""
    for chunk in job.chunks.order_by("index"):
        claimed = factories.claim(job, chunk.index)
        if failing:
            factories.fail(claimed, factories.permanent())
        else:
            factories.complete(claimed)
    assert finishing.finish_job(job.pk)
    Job.objects.filter(pk=job.pk).update(completed_time=from_now(-age))
    Chunk.objects.filter(job=job).update(ended_time=from_now(-age - timedelta(minutes=1)))
    job.refresh_from_db()
    return job


def test_uploads_of_jobs_that_ended_long_ago_go_and_the_jobs_stay(audio_root: Path) -> None:
    old, new = end(upload(chunks=3), 8 * DAY), end(upload(), 6 * DAY)
    running = upload()
    removed, is_all = purge(AUDIO)
    assert (dict(removed), is_all) == ({"audioFiles": 3}, True)
    assert files_below(audio_root) == {*paths_of(new), *paths_of(running)}
    old.refresh_from_db()
    assert old.status == "completed"
    assert old.transcript.text == "word word word"
    assert not (audio_root / paths_of(old)[0]).parent.exists()
    assert purge(AUDIO) == ({}, True)


def test_what_others_put_under_the_root_stays(audio_root: Path) -> None:
    path = factories.put_audio("alice/mtg/00.wav")
    end(upload(path), 100 * DAY)
    assert purge(Retention(audio=7 * DAY, transcripts=7 * DAY))[0]["audioFiles"] == 0
    assert files_below(audio_root) == {path}


def test_an_upload_stays_as_long_as_a_job_that_is_not_past_its_time_names_it(
    audio_root: Path,
) -> None:
    old = end(upload(), 8 * DAY)
    (path,) = paths_of(old)
    new = end(upload(path, user="bob"), 6 * DAY)
    running = upload(path)
    assert count(AUDIO)["audioFiles"] == 0
    purge(AUDIO)
    assert files_below(audio_root) == {path}
    actions.cancel(running.pk)
    for job in (new, running):
        Job.objects.filter(pk=job.pk).update(completed_time=from_now(-8 * DAY))
        Chunk.objects.filter(job=job).update(ended_time=from_now(-8 * DAY))
    assert count(AUDIO)["audioFiles"] == 1
    purge(AUDIO)
    assert files_below(audio_root) == set()


def test_a_retry_after_that_finds_no_audio() -> None:
    job = end(upload(), 8 * DAY, failing=True)
    purge(AUDIO)
    actions.retry(job.pk)
    with pytest.raises(storage.AudioUnavailable) as caught:
        storage.read_audio(paths_of(job)[0])
    assert caught.value.code == "audio_not_found"


def test_a_job_that_was_retried_since_is_not_past_its_time(audio_root: Path) -> None:
    job = end(upload(), 100 * DAY, failing=True)
    actions.retry(job.pk)
    assert purge(Retention(audio=DAY, transcripts=DAY)) == ({}, True)
    assert files_below(audio_root) == set(paths_of(job))


@pytest.mark.parametrize("how", ["named", "retried"])
def test_a_file_that_a_job_comes_to_need_just_then_stays(
    how: str, monkeypatch: pytest.MonkeyPatch, audio_root: Path
) -> None:
    old = end(upload(), 8 * DAY, failing=True)
    (path,) = paths_of(old)
    check = retention._check_storage

    def check_and_come_between() -> None:
        check()
        monkeypatch.setattr(retention, "_check_storage", check)
        if how == "named":
            upload(path)
        else:
            actions.retry(old.pk)

    monkeypatch.setattr(retention, "_check_storage", check_and_come_between)
    assert purge(AUDIO) == ({"audioFiles": 0}, True)
    assert files_below(audio_root) == {path}
    assert set(Chunk.objects.values_list("uploaded", flat=True)) == {True}
    assert not Upload.objects.exists()


def test_it_waits_for_a_job_that_is_taking_the_file(
    monkeypatch: pytest.MonkeyPatch, audio_root: Path
) -> None:
    (path,) = paths_of(end(upload(), 8 * DAY))
    inside, begun = threading.Event(), threading.Event()
    take_place, doom = quotas.take_place, retention._take_from_jobs

    def take_place_late(user_id: str) -> None:
        inside.set()
        assert begun.wait(30)
        wait_until(is_somebody_waiting)
        take_place(user_id)

    def doom_then(*arguments: Any) -> None:
        assert inside.wait(30)
        begun.set()
        doom(*arguments)

    monkeypatch.setattr(quotas, "take_place", take_place_late)
    monkeypatch.setattr(retention, "_take_from_jobs", doom_then)
    new, purged = together(partial(upload, path), partial(purge, AUDIO))
    assert purged == ({"audioFiles": 0}, True)
    assert new.chunks.get().uploaded
    assert files_below(audio_root) == {path}


def test_it_waits_for_a_retry_of_the_job_that_has_the_file(
    monkeypatch: pytest.MonkeyPatch, audio_root: Path
) -> None:
    old = end(upload(), 8 * DAY, failing=True)
    retried, doom = threading.Event(), retention._take_from_jobs

    def retry_slowly() -> None:
        with transaction.atomic():
            actions.retry(old.pk)
            retried.set()
            wait_until(is_somebody_waiting)

    def doom_then(*arguments: Any) -> None:
        assert retried.wait(30)
        doom(*arguments)

    monkeypatch.setattr(retention, "_take_from_jobs", doom_then)
    failed, purged = together(retry_slowly, partial(purge, AUDIO))
    assert (failed, purged) == (None, ({"audioFiles": 0}, True))
    assert old.chunks.get().uploaded
    assert files_below(audio_root) == set(paths_of(old))


def test_a_job_takes_no_file_that_goes_although_a_row_was_left_for_it(
    monkeypatch: pytest.MonkeyPatch, audio_root: Path
) -> None:
    (path,) = paths_of(end(upload(), 8 * DAY))
    # As by a process that died after it had deleted another job, before it removed files.
    Upload.objects.create(path=path, user_id="alice", expires_time=from_now(DAY))
    given_up, taken = threading.Event(), threading.Event()
    give_up, take_place = upload_removal.give_up, quotas.take_place

    def give_up_slowly(*arguments: Any, **options: Any) -> None:
        give_up(*arguments, **options)
        given_up.set()
        wait_until(lambda: taken.is_set() or is_somebody_waiting())

    def take_place_late(user_id: str) -> None:
        taken.set()
        wait_until(is_somebody_waiting)
        take_place(user_id)

    def submit() -> Job:
        assert given_up.wait(30)
        return upload(path)

    monkeypatch.setattr(upload_removal, "give_up", give_up_slowly)
    monkeypatch.setattr(quotas, "take_place", take_place_late)
    refused, purged = together(submit, partial(purge, AUDIO))
    assert isinstance(refused, SubmissionRefused), refused
    assert purged == ({"audioFiles": 1}, True)
    assert set(Chunk.objects.values_list("uploaded", flat=True)) == {False}
    assert files_below(audio_root) == set()
    assert not Upload.objects.exists()


def test_whole_jobs_that_ended_long_ago_go_and_leave_their_ids(audio_root: Path) -> None:
    old, new = end(upload(chunks=2), 31 * DAY), end(upload(), 29 * DAY)
    failed = end(upload(), 31 * DAY, failing=True)
    assert count(WHOLE) == {"jobs": 2, "audioFiles": 3}
    removed, _ = purge(WHOLE)
    assert removed.items() >= {"jobs": 2, "chunks": 3, "transcripts": 2, "audioFiles": 3}.items()
    assert set(Job.objects.values_list("pk", flat=True)) == {new.pk}
    assert set(ErasedJob.objects.values_list("pk", flat=True)) == {old.pk, failed.pk}
    assert files_below(audio_root) == set(paths_of(new))


def test_what_is_not_asked_for_is_kept_for_ever() -> None:
    end(upload(), 10_000 * DAY)
    for nothing in (Retention(), Retention.as_set(), Retention(user_id="alice")):
        assert count(nothing) == {"jobs": 0, "audioFiles": 0}
        assert purge(nothing) == ({}, True)


def test_the_environment_says_how_long(settings: object) -> None:
    settings.AUDIO_RETENTION_DAYS, settings.TRANSCRIPT_RETENTION_DAYS = 0.5, 90  # type: ignore[attr-defined]
    chosen = Retention.as_set("bob")
    assert (chosen.audio, chosen.transcripts) == (DAY / 2, 90 * DAY)
    assert chosen.user_id == "bob"


def test_only_one_users_things_go_if_so_asked() -> None:
    hers, his = end(upload(), 31 * DAY), end(upload(user="bob"), 31 * DAY)
    both = Retention(audio=7 * DAY, transcripts=30 * DAY, user_id="bob")
    assert count(both) == {"jobs": 1, "audioFiles": 1}
    assert purge(both)[0]["jobs"] == 1
    assert set(Job.objects.values_list("pk", flat=True)) == {hers.pk}
    assert his.pk != hers.pk


def test_it_stops_after_its_time_and_goes_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    jobs = [end(upload(), (40 - n) * DAY) for n in range(5)]
    removed, is_all = purge(WHOLE, seconds=0)
    assert (removed["jobs"], is_all) == (2, False)
    assert not Job.objects.filter(pk__in=[jobs[0].pk, jobs[1].pk]).exists()  # the oldest
    assert purge(WHOLE)[0]["jobs"] == 3


def test_while_the_storage_is_away_nothing_goes(audio_root: Path) -> None:
    job = end(upload(), 31 * DAY)
    audio_root.rename(audio_root.with_name("unmounted"))
    for which in (AUDIO, WHOLE):
        with pytest.raises(storage.StorageAwayError):
            purge(which)
    audio_root.with_name("unmounted").rename(audio_root)
    assert job.chunks.get().uploaded
    assert purge(AUDIO)[0]["audioFiles"] == 1


def test_what_was_cut_off_between_row_and_file_is_done_by_the_sweeper(
    monkeypatch: pytest.MonkeyPatch, audio_root: Path
) -> None:
    job = end(upload(), 8 * DAY)
    with monkeypatch.context() as patch:
        patch.setattr(upload_removal, "sweep", lambda paths: 0)
        purge(AUDIO)
    assert not job.chunks.get().uploaded
    assert files_below(audio_root)
    sweep(None)
    assert not files_below(audio_root)


def test_two_at_once_remove_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    for _ in range(6):
        end(upload(), 31 * DAY)
    results = together(*[partial(purge, Retention(audio=7 * DAY, transcripts=30 * DAY))] * 3)
    assert sum(removed["jobs"] for removed, _ in results) == 6
    assert sum(removed["audioFiles"] for removed, _ in results) == 6


def make_many_recent() -> None:
    """So many that a planner has reason to use an index."""
    times = {"submitted_time": Now(), "deadline": from_now(DAY), "completed_time": from_now(-DAY)}
    due = {"not_before": Now(), "resend_time": Now()}
    jobs = Job.objects.bulk_create(
        Job(user_id="bob", engine="scripted", status="cancelled", **times) for _ in range(1000)
    )
    Chunk.objects.bulk_create(
        Chunk(job=job, index=index, audio_path=f"{job.pk}/{index}.wav", **due)
        for job in jobs
        for index in range(4)
    )


def test_what_is_past_its_time_is_found_by_indexes() -> None:
    make_many_recent()
    end(upload(), 31 * DAY)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")  # or the plan is that of whatever the tables held before
    jobs = WHOLE.jobs().explain()
    files = AUDIO.uploads(AUDIO.audio).explain()
    assert "job_retention_by_end" in jobs
    assert "chunk_retention_of_audio" in files
    assert "chunk_by_audio_path" in files
    for plan in (jobs, files):
        assert "Seq Scan on jobs_job" not in plan
        assert "Seq Scan on jobs_chunk" not in plan
        assert "SCAN " not in plan.replace("SCAN CONSTANT", "")
