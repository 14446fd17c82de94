"""Erasure and files: the service's own go, however they were left behind, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from jobs import actions, erasure, storage, upload_removal, uploads
from jobs.erasure import erase
from jobs.models import Job
from jobs.storage.local import LocalAudioStorage
from tests import factories
from tests.scripted import ScriptedEngine
from tests.uploads import files_below, paths_of, upload

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("redis_is_empty")]


def test_files_of_a_process_that_died_before_it_removed_them_are_found(
    monkeypatch: pytest.MonkeyPatch, audio_root: Path, script: ScriptedEngine
) -> None:
    job = upload(chunks=2)
    with monkeypatch.context() as patch:
        patch.setattr(upload_removal, "sweep", lambda paths: 0)
        actions.delete(job.pk)
    partial_file = audio_root / f"alice/uploads/{job.pk}" / f".01.wav.{'0' * 32}.part"
    partial_file.write_bytes(b"half")
    assert len(files_below(audio_root)) == 3
    assert erase("alice").removed["audioFiles"] == 2
    assert not files_below(audio_root)


def test_uploads_that_no_job_took_go_and_other_users_stay(audio_root: Path) -> None:
    uploads.store_all("alice", uuid4(), [SimpleUploadedFile("a.wav", b"sound")])
    (kept,) = uploads.store_all("bob", uuid4(), [SimpleUploadedFile("a.wav", b"sound")])
    assert erase("alice").removed["audioFiles"] == 1
    assert files_below(audio_root) == {kept}


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

    def refuse(*_: Any) -> int:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(LocalAudioStorage, "delete_all", refuse)
        with pytest.raises(erasure.ErasureIncomplete, match="audioFiles"):
            erase("alice")
    assert erase("alice").removed["audioFiles"] == 1
