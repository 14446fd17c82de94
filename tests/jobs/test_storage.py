"""Files under the audio root: no path leads out of it, and nothing hangs."""

from __future__ import annotations

import os
import socket
from pathlib import Path, PurePath
from typing import Any
from uuid import uuid4

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from asr.errors import AudioRejected
from jobs import storage
from jobs.storage import local
from tests import factories

OUTSIDE = [
    "/etc/passwd",
    "//etc/passwd",
    "..",
    "../x",
    "alice/../../x",
    "alice/..",
    "alice/../bob/x.wav",
    "alice/\0.wav",
    "alice\\x.wav",
    "..\\x",
    "alice/\ud800.wav",
    "alice/\udcff.wav",
    "",
    ".",
    "./",
    "x" * 1025,
]


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_malformed_path_is_refused_by_its_words(path: str) -> None:
    with pytest.raises(storage.InvalidPathError):
        storage.check_path(path)
    with pytest.raises(storage.InvalidPathError), storage.audio_files().open(path):
        pytest.fail("opened")


@pytest.mark.parametrize(
    "path", ["a", "alice/x.wav", "alice/..x", "alice/...", "alice/x y.wav", "alice/ü.wav", "a/~/b"]
)
def test_a_plain_path_is_taken(path: str) -> None:
    factories.put_audio(path, b"sound")
    with storage.audio_files().open(path) as file:
        assert file.read() == b"sound"


@pytest.fixture
def traps(audio_root: Path, tmp_path: Path) -> Path:
    """Everything under the root that is no regular file inside it."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.wav").write_bytes(b"secret")
    alice = audio_root / "alice"
    (alice / "folder").mkdir(parents=True)
    (alice / "out.wav").symlink_to(tmp_path / "outside" / "secret.wav")
    (alice / "out-nothing.wav").symlink_to(tmp_path / "outside" / "nothing.wav")
    (alice / "out").symlink_to(tmp_path / "outside")
    (alice / "relative.wav").symlink_to("../../outside/secret.wav")
    (alice / "zero").symlink_to("/dev/zero")
    (alice / "self").symlink_to("self")
    (alice / "root").symlink_to(audio_root)
    os.mkfifo(alice / "pipe")
    here = Path.cwd()
    os.chdir(alice)  # a socket's name is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    os.chdir(here)
    return alice


@pytest.mark.parametrize(
    "name",
    [
        "out.wav",
        "out-nothing.wav",
        "out/secret.wav",
        "out/nothing.wav",
        "relative.wav",
        "zero",
        "self",
        "root",
        "pipe",
        "socket",
        "folder",
    ],
)
@pytest.mark.timeout(10)
def test_what_leads_out_or_is_no_file_is_refused_and_not_waited_for(traps: Path, name: str) -> None:
    before = open_descriptors()
    with pytest.raises(storage.InvalidPathError), storage.audio_files().open(f"alice/{name}"):
        pytest.fail("opened")
    with pytest.raises(storage.InvalidPathError):
        storage.audio_files().size(f"alice/{name}")
    with pytest.raises(AudioRejected) as caught:
        storage.read_audio(f"alice/{name}")
    assert caught.value.code == "invalid_audio"
    assert open_descriptors() <= before, "a descriptor stays open"


@pytest.mark.parametrize("name", ["no.wav", "folder/no.wav", "no/no.wav", "x" * 300])
def test_what_is_not_there_is_not_found(traps: Path, name: str) -> None:
    with pytest.raises(storage.AudioNotFoundError):
        storage.audio_files().size(f"alice/{name}")
    with pytest.raises(storage.AudioUnavailable) as caught:
        storage.read_audio(f"alice/{name}")
    assert (caught.value.code, caught.value.recoverable) == ("audio_not_found", True)
    assert str(traps) not in caught.value.detail


def test_a_link_inside_the_root_is_followed(audio_root: Path) -> None:
    factories.put_audio("alice/real.wav", b"sound")
    (audio_root / "alice" / "link.wav").symlink_to("real.wav")
    assert storage.read_audio("alice/link.wav") == b"sound"


def test_a_root_that_is_a_link_itself_works(
    audio_root: Path, tmp_path: Path, settings: Any
) -> None:
    factories.put_audio("alice/real.wav", b"sound")
    (tmp_path / "link").symlink_to(audio_root)
    settings.AUDIO_ROOT = tmp_path / "link"
    assert storage.read_audio("alice/real.wav") == b"sound"


def test_a_link_swapped_in_after_the_check_is_not_followed(
    audio_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factories.put_audio("alice/a.wav", b"sound")
    (audio_root / "alice" / "link.wav").symlink_to("a.wav")
    (tmp_path / "secret.wav").write_bytes(b"secret")
    with storage.audio_files().open("alice/link.wav") as file:
        assert file.read() == b"sound"
    resolve = local._without_links

    def swapped(path: PurePath) -> PurePath:
        leads_to = resolve(path)
        (audio_root / "alice" / "a.wav").unlink()
        (audio_root / "alice" / "a.wav").symlink_to(tmp_path / "secret.wav")
        return leads_to

    monkeypatch.setattr(local, "_without_links", swapped)
    with pytest.raises(storage.InvalidPathError), storage.audio_files().open("alice/link.wav"):
        pytest.fail("opened")


def test_a_file_that_grew_since_is_refused(settings: Any) -> None:
    settings.AUDIO_MAX_BYTES, settings.AUDIO_MAX_SECONDS = 10, 0
    factories.put_audio("alice/a.wav", b"x" * 10)
    assert storage.read_audio("alice/a.wav") == b"x" * 10
    factories.put_audio("alice/a.wav", b"x" * 11)
    with pytest.raises(AudioRejected):
        storage.read_audio("alice/a.wav")


def test_storage_that_fails_is_unavailable_and_tells_no_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    factories.put_audio("alice/a.wav")

    def broken(path: PurePath) -> int:
        raise OSError(5, "Input/output error", f"/srv/audio/{path}")

    monkeypatch.setattr(local, "_open_beneath", broken)
    with pytest.raises(storage.AudioUnavailable) as caught:
        storage.read_audio("alice/a.wav")
    assert (caught.value.code, caught.value.recoverable) == ("storage_unavailable", True)
    assert "EIO" in caught.value.detail
    assert "/" not in caught.value.detail


# --- uploads ---


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("Talk.WAV", "03.wav"),
        ("talk", "03"),
        ("talk.wav.exe.toolong", "03"),
        ("../../etc/passwd", "03"),
        (".hidden", "03"),
        ("x.w/v", "03"),
    ],
)
def test_an_upload_gets_a_name_of_our_own(audio_root: Path, name: str, kept: str) -> None:
    upload = SimpleUploadedFile("x", b"sound")
    vars(upload)["_name"] = name  # as a parser other than Django's may set it
    job_id = uuid4()
    path = storage.upload_path("alice", str(job_id), "03", name=upload.name or "")
    storage.store(path, upload)
    assert path == f"alice/uploads/{job_id}/{kept}"
    assert (audio_root / path).read_bytes() == b"sound"
    assert [file.name for file in audio_root.rglob("*") if file.is_file()] == [kept]


def test_an_upload_does_not_follow_a_link_out(audio_root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (audio_root / "alice").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        storage.store("alice/uploads/x", SimpleUploadedFile("x", b"sound"))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_removing_does_not_follow_a_link_out(audio_root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "00.wav").write_bytes(b"x")
    (audio_root / "alice").symlink_to(tmp_path / "elsewhere")
    assert storage.audio_files().delete_all(["alice/00.wav"]) == 0
    assert (tmp_path / "elsewhere" / "00.wav").exists()


def test_a_root_that_is_away_is_told_from_a_file_that_is_gone(
    audio_root: Path, settings: Any
) -> None:
    settings.AUDIO_ROOT = audio_root / "unmounted"
    with pytest.raises(storage.StorageAwayError):
        storage.audio_files().size("alice/a.wav")
    with pytest.raises(storage.AudioUnavailable) as caught:
        storage.read_audio("alice/a.wav")
    assert (caught.value.code, caught.value.retry_after) == ("storage_unavailable", 10.0)
    upload = SimpleUploadedFile("a.wav", b"sound")
    with pytest.raises(storage.StorageAwayError):
        storage.store("alice/uploads/x", upload)
    assert not (audio_root / "unmounted").exists()


def test_a_file_that_is_gone_from_a_root_that_is_only_read_is_gone(
    audio_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access  # as root, nothing but a mount forbids to write
    monkeypatch.setattr(os, "access", lambda at, mode: not mode & os.W_OK and access(at, mode))
    assert not storage.audio_files().is_there()
    storage.audio_files().look(to_write=False)
    with pytest.raises(storage.StorageAwayError, match="nothing may be written"):
        storage.audio_files().look()
    with pytest.raises(storage.AudioUnavailable) as caught:
        storage.read_audio("alice/a.wav")
    assert (caught.value.code, caught.value.retry_after) == ("audio_not_found", None)


def test_the_root_is_there_or_not(audio_root: Path, settings: Any) -> None:
    assert storage.audio_files().is_there()
    settings.AUDIO_ROOT = audio_root / "nowhere"
    assert not storage.audio_files().is_there()
