"""Erasure and files: the service's own go, however they were left behind, and no others."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone
from uuid6 import uuid7

from jobs import actions, erasure, storage
from jobs.erasure import erase
from jobs.models import Job
from tests import factories
from tests.scripted import ScriptedEngine
from tests.uploads import files_below, paths_of, upload

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("redis_is_empty")]


def test_files_of_a_process_that_died_before_it_removed_them_are_found(
    monkeypatch: pytest.MonkeyPatch, audio_root: Path, script: ScriptedEngine
) -> None:
    job = upload(chunks=2)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "remove_uploads", lambda paths: 0)
        actions.delete(job.pk)
    partial_file = audio_root / Path(paths := f"alice/uploads/{job.pk}") / ".02.wav.part"
    partial_file.write_bytes(b"half")
    assert len(files_below(audio_root)) == 3, paths
    assert erase("alice").removed["audioFiles"] == 3
    assert not files_below(audio_root)


def aged(job_id: UUID, age: timedelta) -> UUID:
    """The id of version 7 that would have been made then."""
    milliseconds = int((timezone.now() - age).timestamp() * 1000)
    return UUID(int=milliseconds << 80 | job_id.int & (1 << 80) - 1)


def test_uploads_of_submissions_that_died_go_and_those_under_way_stay(audio_root: Path) -> None:
    new = UUID(int=uuid7().int)
    old = aged(new, timedelta(days=1))
    for job_id in (old, new):
        factories.put_audio(f"alice/uploads/{job_id}/00.wav")
    assert erase("alice").removed["audioFiles"] == 1
    assert files_below(audio_root) == {f"alice/uploads/{new}/00.wav"}


def test_what_others_put_among_the_uploads_stays(audio_root: Path, script: ScriptedEngine) -> None:
    job = upload()
    kept = {
        factories.put_audio("alice/uploads/by-hand.wav"),
        factories.put_audio("alice/uploads/holiday/00.wav"),
        factories.put_audio(f"alice/uploads/{job.pk}/notes.wav"),
        factories.put_audio("alice/00.wav"),
    }
    erase("alice")
    assert files_below(audio_root) == kept


def test_nothing_is_removed_through_a_link(audio_root: Path) -> None:
    old = aged(UUID(int=uuid7().int), timedelta(days=1))
    elsewhere = factories.put_audio(f"archive/{old}/00.wav")
    (audio_root / "alice").mkdir()
    (audio_root / "alice" / "uploads").symlink_to(audio_root / "archive")
    assert erase("alice").removed["audioFiles"] == 0
    assert files_below(audio_root) >= {elsewhere}
    (audio_root / "alice" / "uploads").unlink()
    (audio_root / "alice" / "uploads").mkdir()
    (audio_root / "alice" / "uploads" / str(old)).symlink_to(audio_root / "archive" / str(old))
    assert erase("alice").removed["audioFiles"] == 0
    assert files_below(audio_root) >= {elsewhere}


def test_what_only_looks_like_an_upload_is_left_alone(audio_root: Path) -> None:
    old = aged(UUID(int=uuid7().int), timedelta(days=1))
    far = UUID(f"ffffffff-ffff-7{str(old)[15:]}")
    uploads = audio_root / "alice" / "uploads"
    (uploads / str(old) / "00.wav").mkdir(parents=True)
    (uploads / str(old) / "01.wav").symlink_to(audio_root / factories.put_audio("alice/a.wav"))
    (uploads / str(far)).mkdir()
    (uploads / str(far) / "00.wav").write_bytes(b"of a time to come")
    (uploads / str(aged(old, timedelta(days=2)))).write_bytes(b"no folder")
    before = files_below(audio_root)
    assert erase("alice").removed["audioFiles"] == 0
    assert files_below(audio_root) == before


def test_an_upload_that_another_user_s_job_names_stays_with_it(
    audio_root: Path, script: ScriptedEngine
) -> None:
    (path,) = paths_of(upload())
    other = upload(path, user="bob")
    receipt = erase("alice")
    assert receipt.remaining["audioFiles"] == 0
    assert (audio_root / path).is_file()
    actions.delete(other.pk)
    assert not (audio_root / path).exists()


def test_while_the_storage_is_away_nothing_goes(audio_root: Path, script: ScriptedEngine) -> None:
    upload()
    audio_root.rename(audio_root.with_name("unmounted"))
    with pytest.raises(storage.StorageAwayError):
        erase("alice")
    assert Job.objects.count() == 1
    audio_root.with_name("unmounted").rename(audio_root)
    assert erase("alice").removed["audioFiles"] == 1


def test_a_file_that_cannot_be_removed_makes_it_incomplete(
    monkeypatch: pytest.MonkeyPatch, audio_root: Path, script: ScriptedEngine
) -> None:
    upload()

    def refuse(paths: Any) -> int:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(storage, "remove_uploads", refuse)
        with pytest.raises(erasure.ErasureIncomplete, match="audioFiles"):
            erase("alice")
    assert erase("alice").removed["audioFiles"] == 1
