"""`manage.py purge`: counts first if asked, then removes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from jobs.management.commands import requeue_pending
from jobs.models import Chunk, Job, from_now
from tests import factories
from transcription_site.env import BASE_DIR

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("redis_is_empty")]


def old_job(days: float, user: str = "alice") -> Job:
    """A completed job of one upload that ended that many days ago."""
    job = factories.make_completed_job("x", user_id=user)
    path = factories.put_audio(f"{user}/uploads/{job.pk}/00.wav")
    ended = from_now(-timedelta(days=days))
    Job.objects.filter(pk=job.pk).update(completed_time=ended)
    Chunk.objects.filter(job=job).update(ended_time=ended, audio_path=path, uploaded=True)
    return job


LIMITS = "By AUDIO_RETENTION_DAYS=7, TRANSCRIPT_RETENTION_DAYS=30."


def run(*arguments: str) -> str:
    output = StringIO()
    call_command("purge", *arguments, stdout=output)
    return output.getvalue().strip()


@pytest.fixture
def kept_days(settings: Any) -> None:
    settings.AUDIO_RETENTION_DAYS, settings.TRANSCRIPT_RETENTION_DAYS = 7, 30


def test_without_a_limit_it_says_where_it_looked_for_one() -> None:
    old_job(10_000)
    said = run()
    assert said.startswith(
        "Nothing is removed: neither AUDIO_RETENTION_DAYS nor TRANSCRIPT_RETENTION_DAYS is set in "
        f"this shell's environment or in {BASE_DIR}/.env. A service that was started with other "
    )
    assert "docker compose exec sweeper python manage.py purge" in said
    assert Job.objects.count() == 1


@pytest.mark.usefixtures("kept_days")
def test_a_dry_run_counts_and_changes_nothing(audio_root: Path) -> None:
    for days in (31, 8, 1):
        old_job(days)
    line = f"1 jobs with their transcripts and 2 uploaded audio files would be removed.\n{LIMITS}"
    assert [run("--dry-run"), run("--dry-run")] == [line, line]
    assert Job.objects.count() == 3
    assert len(list(audio_root.rglob("*.wav"))) == 3


@pytest.mark.usefixtures("kept_days")
def test_it_removes_what_the_dry_run_counted(audio_root: Path) -> None:
    old, middle, new = (old_job(days) for days in (31, 8, 1))
    assert run() == f"1 jobs with their transcripts and 2 uploaded audio files removed.\n{LIMITS}"
    assert set(Job.objects.values_list("pk", flat=True)) == {middle.pk, new.pk}
    assert [path.parent.name for path in audio_root.rglob("*.wav")] == [str(new.pk)]
    assert run() == f"0 jobs with their transcripts and 0 uploaded audio files removed.\n{LIMITS}"
    assert old.pk != middle.pk


def test_it_says_which_of_the_two_is_not_set(settings: Any) -> None:
    settings.AUDIO_RETENTION_DAYS = 0.5
    assert run().endswith("By AUDIO_RETENTION_DAYS=0.5, TRANSCRIPT_RETENTION_DAYS=(not set).")


@pytest.mark.usefixtures("kept_days")
def test_it_keeps_to_one_user() -> None:
    hers, his = old_job(31), old_job(31, "bob")
    assert run("--user", "bob").startswith("1 jobs")
    assert set(Job.objects.values_list("pk", flat=True)) == {hers.pk}
    assert his.pk != hers.pk


@pytest.mark.usefixtures("kept_days")
def test_what_is_away_is_said_in_one_line(
    audio_root: Path, database_down: Callable[[], Any]
) -> None:
    old_job(31)
    audio_root.rename(audio_root.with_name("unmounted"))
    with pytest.raises(CommandError, match="the audio root is not there"):
        run()
    with database_down(), pytest.raises(CommandError, match="The database cannot be used"):
        run()


# --- by the sweeper ---


@pytest.mark.usefixtures("kept_days")
def test_the_sweeper_removes_it_too_and_then_rests_for_a_minute(audio_root: Path) -> None:
    first = old_job(31)
    sweeper = requeue_pending.Command()
    sweeper._purge()
    assert not Job.objects.filter(pk=first.pk).exists()
    second = old_job(31)
    sweeper._purge()
    assert Job.objects.filter(pk=second.pk).exists()
    sweeper._purge_due = 0.0
    sweeper._purge()
    assert not Job.objects.exists()


@pytest.mark.usefixtures("kept_days")
def test_a_backlog_is_removed_a_little_in_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requeue_pending, "PURGE_SECONDS", 0.0)
    monkeypatch.setattr("jobs.retention.BATCH", 1)
    for _ in range(3):
        old_job(31)
    sweeper = requeue_pending.Command()
    for left in (2, 1, 0):
        sweeper._purge()
        assert Job.objects.count() == left


@pytest.mark.usefixtures("kept_days")
def test_a_storage_that_is_away_does_not_stop_the_sweeper(
    audio_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old_job(31)
    audio_root.rename(audio_root.with_name("unmounted"))
    requeue_pending.Command()._purge()
    assert "could not be removed: the audio root is not there" in caplog.text
    assert Job.objects.count() == 1
