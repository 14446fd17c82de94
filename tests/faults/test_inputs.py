"""Rows about what callers send: files that are no audio, bombs, traps, and everything twice."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.asr.sounds import encode, silent_flac, tone, wav
from tests.faults.audio import Audio, audio_of, write_noise
from tests.faults.row import Row
from tests.faults.world import World
from tests.helpers import together

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]
AT_ONCE_SECONDS = 30.0  # for what must not take long, on a machine that has other things to do
IN_OPEN = 0x20


def put(world: World, name: str, data: bytes) -> Audio:
    """Lay a file under the audio root."""
    folder = world.audio_root / "alice" / f"{time.time_ns():x}"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(data)
    return audio_of(folder / name)


def silent(audio: Audio) -> Audio:
    """The same file, of which no words are expected."""
    return Audio(path=audio.path, digest=audio.digest, text="")


def refusal(answer: httpx2.Response | None, status: int) -> tuple[str, str]:
    """The one error of an answer: its code and its field."""
    assert answer is not None
    assert answer.status_code == status, answer.text
    (error,) = answer.json()["errors"]
    return error["code"], error["attr"]


class Watch:
    """Whether anybody opens one of the files from now on; the kernel tells (inotify)."""

    def __init__(self, *paths: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = libc.inotify_init1(os.O_NONBLOCK)
        for path in paths:
            assert libc.inotify_add_watch(self._descriptor, bytes(path), IN_OPEN) >= 0

    def saw_an_open(self) -> bool:
        try:
            return bool(os.read(self._descriptor, 4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        os.close(self._descriptor)


def test_the_watch_sees_an_open(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    watch = Watch(tmp_path / "secret")
    assert not watch.saw_an_open()
    (tmp_path / "secret").read_bytes()
    assert watch.saw_an_open()
    watch.close()


@pytest.mark.fast_fault
def test_row_26_files_that_are_no_audio_or_hardly(row: Row) -> None:
    world = row.world()
    empty = put(world, "empty.wav", b"")
    assert refusal(row.try_to_submit([empty]), 400) == ("audio_empty", "audioChunkPaths.0")
    mp3 = encode(tone(2.0), "mp3")
    files = [
        put(world, "random.wav", os.urandom(100_000)),
        put(world, "riff.wav", wav(b"")[:12]),
        silent(put(world, "no-samples.wav", wav(b""))),
        put(world, "claims-4-gb.wav", wav(os.urandom(32_000), claimed=0xFFFFFFFF)),
        put(world, "half.mp3", mp3[: len(mp3) // 2]),
    ]
    gaps = {0: "invalid_audio", 1: "invalid_audio"}

    submitted = time.monotonic()
    job_id = row.submit(files, hits=[0, 0, 0, 1, 1], expects="failed", gaps=gaps)
    result = row.wait_for_end(job_id)

    assert time.monotonic() - submitted < AT_ONCE_SECONDS
    assert [chunk["attempts"] for chunk in result["chunks"]] == [1] * 5
    assert result["chunks"][0]["error"]["recoverable"] is False
    durations = [chunk["durationSeconds"] for chunk in result["chunks"]]
    assert durations == [None, None, 0.0, 1.0, pytest.approx(1.0, abs=0.2)]
    row.verify()


def test_row_28_a_day_of_silence_in_a_few_kilobytes(row: Row) -> None:
    world = row.world()
    bomb = put(world, "bomb.flac", silent_flac(24))
    assert bomb.path.stat().st_size < 500_000
    good = row.audio(1)

    submitted = time.monotonic()
    job_id = row.submit([bomb, *good], hits=[0, 1], expects="failed", gaps={0: "audio_too_long"})
    result = row.wait_for_end(job_id)

    assert time.monotonic() - submitted < AT_ONCE_SECONDS
    assert result["chunks"][0]["processingSeconds"] < 10
    assert result["chunks"][0]["error"]["recoverable"] is False
    assert result["transcription"] == good[0].text
    megabytes = peak_memory_of_children(world)
    row.note(f"the child that decodes took up to {megabytes} MB; the sound would take 2760 MB")
    assert megabytes < 500
    row.verify()


def peak_memory_of_children(world: World) -> int:
    """In MB, of the greediest child of a worker's pool."""
    workers, peaks = world.processes.workers(), []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except OSError:
            continue
        if int(lines["PPid"]) in workers:
            peaks.append(int(lines["VmHWM"].split()[0]) // 1000)
    assert peaks, "the workers have no children"
    return max(peaks)


@pytest.mark.fast_fault
def test_row_29_playlists_in_disguise_read_nothing(row: Row) -> None:
    world = row.world()
    with socket.create_server(("127.0.0.1", 0)) as canary:
        canary.setblocking(False)
        address = f"http://127.0.0.1:{canary.getsockname()[1]}/a.ts"
        head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n"
        secret = write_noise(world.audio_root / "secret.wav", 1.0)
        texts = (
            "ffconcat version 1.0\nfile secret.wav\n",
            f"ffconcat version 1.0\nfile {secret.path}\n",
            f"ffconcat version 1.0\nfile {address}\n",
            f"{head}{secret.path}\n#EXT-X-ENDLIST\n",
            f"{head}file://{secret.path}\n#EXT-X-ENDLIST\n",
            f"{head}{address}\n#EXT-X-ENDLIST\n",
        )
        files = [put(world, "song.mp3", text.encode()) for text in texts]
        (files[0].path.parent / "secret.wav").symlink_to(secret.path)
        watch = Watch(secret.path)

        gaps = dict.fromkeys(range(len(files)), "invalid_audio")
        job_id = row.submit(files, hits=0, expects="failed", gaps=gaps)
        result = row.wait_for_end(job_id)

        assert [chunk["durationSeconds"] for chunk in result["chunks"]] == [None] * len(files)
        assert [chunk["attempts"] for chunk in result["chunks"]] == [1] * len(files)
        assert not watch.saw_an_open()
        watch.close()
        with pytest.raises(BlockingIOError):
            canary.accept()
    assert row.hits == []
    row.verify()


def lay_traps(world: World) -> tuple[Path, list[str]]:
    """A file outside of the audio root, and paths of which none may lead to it, or to anything."""
    outside = world.var / f"outside-{time.time_ns():x}"
    outside.mkdir()
    secret = write_noise(outside / "secret.wav", 0.3).path
    folder = world.audio_root / "alice" / outside.name
    folder.mkdir(parents=True)
    (folder / "out.wav").symlink_to(secret)
    (folder / "out-nothing.wav").symlink_to(outside / "nothing.wav")
    (folder / "out").symlink_to(outside)
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    inside = f"alice/{outside.name}"
    return secret, [
        *(f"{inside}/{name}" for name in ("out.wav", "out-nothing.wav", "zero", "pipe", "folder")),
        *(f"{inside}/out/{name}" for name in ("secret.wav", "nothing.wav")),
        *(str(secret), str(outside / "nothing.wav"), "/etc/passwd", "/etc/nothing"),
        *(f"../{outside.name}/secret.wav", f"../{outside.name}/nothing.wav"),
        *("../../etc/passwd", f"{inside}/../../../{outside.name}/secret.wav"),
        *(f"{inside}/\0.wav", f"{inside}\\out.wav", "..", "."),
    ]


def test_row_30_paths_that_lead_elsewhere_are_refused_alike_and_never_opened(row: Row) -> None:
    world = row.world()
    secret, paths = lay_traps(world)
    watch = Watch(secret)
    before = world.database.job_ids()

    answers = set()
    for path in paths:
        asked = time.monotonic()
        answer = world.client.post("/transcribe", json={"audioChunkPaths": [path]})
        assert time.monotonic() - asked < AT_ONCE_SECONDS, path
        assert refusal(answer, 400) == ("invalid_path", "audioChunkPaths.0"), path
        answers.add(answer.content)
    assert len(answers) == 1, "the same words whether or not the target exists"
    for path in ("..%2f..%2fetc%2fpasswd", "-i x", "alice/-i", "alice/nothing.wav"):
        answer = world.client.post("/transcribe", json={"audioChunkPaths": [path]})
        assert refusal(answer, 400) == ("audio_not_found", "audioChunkPaths.0"), path
    assert world.database.job_ids() == before

    audio = row.audio(2)
    workers = world.processes.workers()
    world.processes.kill(workers, signal.SIGSTOP)
    row.fault("a file is swapped for a link between the check and the use")
    job_id = row.submit(audio, hits=[0, 1], expects="failed", gaps={0: "invalid_audio"})
    audio[0].path.unlink()
    audio[0].path.symlink_to(secret)
    world.processes.kill(workers, signal.SIGCONT)
    row.wait_for_end(job_id)

    assert not watch.saw_an_open()
    watch.close()
    row.verify()


def other_service(world: World) -> str:
    """The token of another user who may name any userId."""
    command = world.manage("issue_token", "robot", "--service")
    output, _ = command.communicate(timeout=60)
    assert command.returncode == 0, output
    return output.split()[-1]


def test_row_33_the_same_submission_20_times_at_once(row: Row) -> None:
    world = row.world()
    token = other_service(world)
    audio = row.audio(3)
    key = f"key-{time.time_ns()}"
    world.client.headers["Idempotency-Key"] = key
    # One call for the one caller, and later one for another.
    submit: Any = partial(row.try_to_submit, audio, hits=2)

    answers: list[Any] = together(*[submit] * 20)

    statuses = Counter(answer.status_code for answer in answers)
    assert statuses[202] == 1, statuses
    assert statuses[200] + statuses[409] == 19, statuses
    for answer in answers:
        if answer.status_code == 409:
            assert answer.json()["errors"][0]["code"] == "idempotency_conflict"
    (job_id,) = {answer.json()["jobId"] for answer in answers if answer.status_code != 409}
    row.wait_for_end(job_id)
    assert Counter(hit.digest for hit in row.hits) == {item.digest: 1 for item in audio}
    assert submit().json()["jobId"] == job_id

    other_body = row.try_to_submit(row.audio(3))
    assert other_body is not None
    assert other_body.status_code == 422
    assert other_body.json()["errors"][0]["code"] == "idempotency_key_reused"

    own = world.client.headers["Authorization"]
    world.client.headers["Authorization"] = f"Token {token}"
    others = submit()
    world.client.headers["Authorization"] = own
    del world.client.headers["Idempotency-Key"]
    assert others.status_code == 202
    assert others.json()["jobId"] != job_id
    row.wait_for_end(others.json()["jobId"])
    assert len(row.verify()) == 2
