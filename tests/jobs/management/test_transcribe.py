"""`manage.py transcribe`: the main job from a terminal, without a broker and without workers."""

from __future__ import annotations

import getpass
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import wave
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import dramatiq
import pytest
from django.core.management import CommandError, call_command

from asr.errors import EngineUnavailable
from asr.types import AudioInfo, Recognition, Segment
from jobs import actions, attempts, claims, engines, pipeline, setbacks
from jobs.management.commands import transcribe
from jobs.models import Chunk, ChunkStatus, Job, JobEvent, JobStatus, Upload, WorkerProcess
from tests.asr.sounds import encode
from tests.asr.test_cutting import speech
from transcription_site.env import BASE_DIR

SAMPLES = BASE_DIR / "samples"
HARBOR = (
    "the harbor was quiet this morning three small boats came in before the sun was up",
    "an old woman asked the sailors what they had seen during the night",
)

in_database = pytest.mark.django_db(transaction=True)


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """A valid file of a tenth of a second: too short for any word."""
    path = tmp_path / "short.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(3200))
    return path


def heard(text: str) -> Recognition:
    segments = (Segment(text=text, start=0.0, end=1.0),)
    return Recognition(segments=segments, engine="pocketsphinx", model="en-us")


Recognise = Callable[[attempts.Attempt], Recognition]


@pytest.fixture
def recognised_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[Recognise], None]:
    """Puts a function in the place of file and engine."""

    def use(recognise: Recognise) -> None:
        def opened(attempt: attempts.Attempt) -> None:
            attempt.info = AudioInfo(duration_seconds=1.0, container="wav", digest="")
            attempt.recognition = recognise(attempt)

        monkeypatch.setattr(pipeline, "_open", opened)

    return use


def run(*arguments: object) -> tuple[str, str]:
    """Call the command; what it wrote to standard output and standard error."""
    out, err = StringIO(), StringIO()
    call_command("transcribe", *map(str, arguments), stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def queued() -> int:
    broker: Any = dramatiq.get_broker()
    return sum(broker.do_qsize(queue) for queue in ("chunks", "local", "control"))


# --- in this process ---


@in_database
def test_real_speech_becomes_the_transcript_on_standard_output(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A heart beats once in a test: on a loaded machine its own sweep would take it for dead.
    monkeypatch.setattr(transcribe, "REPAIR_EVERY_SECONDS", 3600.0)
    before = queued()

    out, err = run(SAMPLES / "00.flac", SAMPLES / "01.flac", "--user", "alice", "--title", "Harbor")

    assert out == f"{HARBOR[0]} {HARBOR[1]}\n"
    assert f"[0/2] part 1, {SAMPLES}/00.flac: " in err
    assert f"[2/2] part 2, {SAMPLES}/01.flac: completed" in err or "[2/2] part 1, " in err
    job = Job.objects.get()
    assert (job.status, job.user_id, job.title) == (JobStatus.COMPLETED, "alice", "Harbor")
    chunks = list(job.chunks.order_by("index").values_list("status", "attempts", "uploaded"))
    assert chunks == [(ChunkStatus.COMPLETED, 1, True)] * 2
    assert queued() == before, "messages were sent"
    assert not WorkerProcess.objects.exists(), "the process still counts as a worker"
    assert engines.child_pool().run(len, "abc", limit=30) == 3, "the next call finds a closed pool"


@in_database
def test_a_part_that_fails_is_named_and_the_others_are_printed(tmp_path: Path) -> None:
    broken = tmp_path / "broken.flac"
    broken.write_bytes(b"no sound at all")
    out, err = StringIO(), StringIO()

    with pytest.raises(CommandError, match=r"ended as failed: the text has gaps") as caught:
        call_command("transcribe", SAMPLES / "00.flac", broken, stdout=out, stderr=err)

    assert caught.value.returncode == 1
    assert out.getvalue() == f"{HARBOR[0]}\n"
    assert f"missing: part 2, {broken}: invalid_audio: " in err.getvalue()
    assert "missing: part 1" not in err.getvalue()


@in_database
def test_a_long_recording_is_cut_and_its_parts_become_one_transcript(
    settings: Any, tmp_path: Path, recognised_by: Callable[[Recognise], None]
) -> None:
    settings.AUDIO_MAX_SECONDS = 5.0
    long = tmp_path / "long.flac"
    long.write_bytes(encode(speech(12.5)[0], "flac"))
    recognised_by(lambda attempt: heard(f"part {attempt.claim.index + 1}"))

    out, err = run(long, "--recording", "--user", "alice")

    job = Job.objects.get()
    assert job.status == JobStatus.COMPLETED
    assert job.chunks.count() >= 3
    assert out == " ".join(f"part {n + 1}" for n in range(job.chunks.count())) + "\n"
    assert f"part 3, {long}: completed" in err
    assert job.recording.uploaded
    assert job.recording.attempts == 1
    assert long.exists()


@in_database
def test_a_recording_that_cannot_be_cut_is_told_as_its_one_part(tmp_path: Path) -> None:
    broken = tmp_path / "broken.flac"
    broken.write_bytes(b"no sound at all")
    err = StringIO()
    with pytest.raises(CommandError, match="ended as failed"):
        call_command("transcribe", broken, "--recording", stdout=StringIO(), stderr=err)
    assert f"missing: part 1, {broken}: invalid_audio: " in err.getvalue()


@in_database
def test_a_part_that_is_too_long_is_told_how_it_may_be_cut(settings: Any) -> None:
    settings.AUDIO_MAX_SECONDS = 1.0
    err = StringIO()
    with pytest.raises(CommandError, match="ended as failed"):
        call_command("transcribe", SAMPLES / "00.flac", stdout=StringIO(), stderr=err)
    assert "audio_too_long" in err.getvalue()
    assert "One long recording is cut into parts with --recording." in err.getvalue()


@in_database
def test_a_recording_that_is_too_large_is_refused_before_it_is_stored(
    audio: Path, settings: Any
) -> None:
    settings.RECORDING_MAX_BYTES = 100
    with pytest.raises(CommandError, match="at most 100 are taken"):
        run(audio, "--recording")
    assert not Job.objects.exists()
    assert not Upload.objects.exists()


@in_database
def test_a_recording_that_is_refused_is_not_kept(audio: Path, audio_root: Path) -> None:
    with pytest.raises(CommandError, match="cannot honour"):
        run(audio, "--recording", "--language", "fr")
    assert not list(audio_root.rglob("*.wav"))


@in_database
def test_an_attempt_that_fails_is_repeated_when_its_wait_is_over(
    audio: Path, recognised_by: Callable[[Recognise], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def recognise(attempt: attempts.Attempt) -> Recognition:
        calls.append(attempt)
        if len(calls) == 1:
            raise EngineUnavailable("engine_error", "a hiccup")
        return heard("second time")

    recognised_by(recognise)
    monkeypatch.setattr(setbacks, "RETRY_BASE_SECONDS", 0.3)

    out, err = run(audio)

    assert out == "second time\n"
    assert "pending (engine_error)" in err
    assert "completed, attempt 2" in err
    chunk = Chunk.objects.get()
    assert (chunk.attempts, chunk.errors) == (2, 1)
    started = list(JobEvent.objects.filter(type="chunk.started").values_list("time", flat=True))
    assert (started[1] - started[0]).total_seconds() >= 0.3


@in_database
def test_chunks_that_workers_take_are_not_done_twice(
    audio: Path, recognised_by: Callable[[Recognise], None], settings: Any
) -> None:
    settings.LOCAL_THREADS = 1
    calls: list[int] = []

    def recognise(attempt: attempts.Attempt) -> Recognition:
        index = attempt.claim.index
        calls.append(index)
        if index == 0:  # a worker takes the next one while this one is at work
            assert pipeline.transcribe(attempt.claim.job_id, 1) is None
        return heard(f"part {index}")

    recognised_by(recognise)

    out, _ = run(audio, audio)

    assert out == "part 0 part 1\n"
    assert sorted(calls) == [0, 1]


@in_database
def test_a_chunk_of_a_worker_that_died_is_done_here(
    audio: Path,
    recognised_by: Callable[[Recognise], None],
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.LOCAL_THREADS = 1
    monkeypatch.setattr(transcribe, "REPAIR_EVERY_SECONDS", 0.0)

    def recognise(attempt: attempts.Attempt) -> Recognition:
        job_id = attempt.claim.job_id
        if attempt.claim.index == 0:
            assert claims.claim_chunk(job_id, 1) is not None
            Chunk.objects.filter(job_id=job_id, index=1).update(worker_id=uuid4())
        return heard(f"part {attempt.claim.index}")

    recognised_by(recognise)

    out, _ = run(audio, audio)

    assert out == "part 0 part 1\n"
    chunk = Chunk.objects.get(index=1)
    assert (chunk.attempts, chunk.crashes) == (2, 1)


@in_database
@pytest.mark.parametrize(
    ("end", "said"),
    [(actions.delete, "was deleted meanwhile"), (actions.cancel, "ended as cancelled")],
)
def test_a_job_that_others_end_ends_the_command(
    audio: Path,
    recognised_by: Callable[[Recognise], None],
    end: Callable[[UUID], object],
    said: str,
) -> None:
    def recognise(attempt: attempts.Attempt) -> Recognition:
        end(attempt.claim.job_id)
        return heard("too late")

    recognised_by(recognise)

    with pytest.raises(CommandError, match=said):
        run(audio)

    assert not Job.objects.filter(status=JobStatus.IN_PROGRESS).exists()


@in_database
def test_a_fault_in_a_thread_ends_the_command_instead_of_waiting_for_ever(
    audio: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def burst(job_id: UUID, index: int) -> None:
        raise MemoryError

    monkeypatch.setattr(pipeline, "transcribe", burst)

    with pytest.raises(MemoryError):
        run(audio)


@in_database
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{tmp}/nothing.wav"], "{tmp}/nothing.wav: No such file or directory"),
        (["{tmp}"], "{tmp}: is a directory, not a file"),
        (["/dev/null"], "/dev/null: is no regular file"),
        (["{audio}", "{audio}", "--recording"], "--recording takes one file, not 2."),
        (["{audio}"] * 25, "A job has 1 to 24 audio files, not 25."),
        (["{audio}", "{tmp}/empty.wav"], "{tmp}/empty.wav: The file has 0 bytes."),
        (["{audio}", "{tmp}/large.wav"], "{tmp}/large.wav: The file has 5000001 bytes; at most"),
        (["{tmp}/large.wav"], "at most 5000000 are taken. One long recording is cut into parts"),
        (["{audio}", "--language", "fr"], "--language: The engine 'pocketsphinx' cannot honour"),
        (["{audio}", "--language", "en\0"], "--language: 'en\\x00' is no language tag"),
        (["{audio}", "--engine", "ear"], "--engine: The engine 'ear' is not configured here"),
        (["{audio}", "--user", "../alice"], "--user: 1 to 150 letters"),
        (["{audio}", "--title", "x" * 201], "--title: at most 200 characters"),
        (["{audio}", "--output", "{tmp}"], "--output: {tmp} is a directory"),
        (["{audio}", "--output", "{tmp}/no/out"], "--output: there is no folder {tmp}/no"),
        (["{audio}", "--output", "{audio}"], "--output: {audio} is one of the audio files"),
        (["{audio}", "--output", "/dev/null"], "--output: /dev/null is no regular file"),
    ],
)
def test_what_cannot_be_done_is_refused_in_plain_words_before_anything_is_stored(
    audio: Path, tmp_path: Path, settings: Any, arguments: list[str], said: str
) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "large.wav").write_bytes(bytes(settings.AUDIO_MAX_BYTES + 1))
    known = {"tmp": tmp_path, "audio": audio}
    before = audio.read_bytes()

    with pytest.raises(CommandError) as caught:
        run(*(argument.format(**known) for argument in arguments))

    assert said.format(**known) in str(caught.value)
    assert not Job.objects.exists()
    assert audio.read_bytes() == before


@in_database
@pytest.mark.parametrize(("name", "user"), [("bob.b", "bob.b"), ("DOMAIN\\bob", "terminal")])
def test_the_job_is_the_operating_systems_users_if_that_is_a_name(
    audio: Path, monkeypatch: pytest.MonkeyPatch, name: str, user: str
) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: name)

    assert run(audio)[0] == "\n"

    assert Job.objects.get().user_id == user


@in_database
def test_the_output_replaces_what_a_link_names_and_keeps_the_link(
    audio: Path, tmp_path: Path, recognised_by: Callable[[Recognise], None]
) -> None:
    recognised_by(lambda attempt: heard("grüß Gott"))
    (tmp_path / "texts").mkdir()
    target, link = tmp_path / "texts" / "real.txt", tmp_path / "link.txt"
    target.write_text("before")
    link.symlink_to(target)

    assert run(audio, "--output", link)[0] == ""

    assert link.is_symlink()
    assert target.read_text(encoding="utf-8") == "grüß Gott\n"
    assert [path.name for path in target.parent.iterdir()] == ["real.txt"]


# --- as a process of its own, with a database and nothing else ---


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a system with a migrated SQLite and no Redis."""
    folder = tmp_path_factory.mktemp("bare")
    environ = {
        **os.environ,
        "VAR_DIR": str(folder),
        "AUDIO_ROOT": "",
        "DATABASE_URL": "",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "DJANGO_SETTINGS_MODULE": "transcription_site.settings",
    }
    subprocess.run(command("migrate", "--verbosity", "0"), env=environ, check=True)
    return environ


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(BASE_DIR / "manage.py"), *map(str, arguments)]


def status_in(environ: dict[str, str], user: str) -> tuple[str, list[str]]:
    """The status of the user's one job, and of its chunks."""
    with sqlite3.connect(Path(environ["VAR_DIR"]) / "verbatim.sqlite3") as database:
        ((job_id, status),) = database.execute(
            "SELECT id, status FROM jobs_job WHERE user_id = ?", (user,)
        )
        chunks = database.execute("SELECT status FROM jobs_chunk WHERE job_id = ?", (job_id,))
        return status, [chunk for (chunk,) in chunks]


def test_it_needs_neither_redis_nor_workers(bare: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    output = tmp_path / "texts" / "harbor.txt"

    done = subprocess.run(
        command("transcribe", SAMPLES / "00.flac", "--user", "solo", "--output", output),
        env=bare,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert output.read_text() == f"{HARBOR[0]}\n"
    assert list(output.parent.iterdir()) == [output]
    assert status_in(bare, "solo") == ("completed", ["completed"])
    assert "Traceback" not in done.stderr


def test_an_audio_root_that_is_not_there_is_named_and_not_made(
    bare: dict[str, str], tmp_path: Path
) -> None:
    away = tmp_path / "unmounted"
    done = subprocess.run(
        command("transcribe", SAMPLES / "00.flac", "--user", "solo"),
        env={**bare, "AUDIO_ROOT": str(away)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1
    assert "the audio root is not there" in done.stderr
    assert not away.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_leaves_early_cancels_the_job_and_learns_where_it_is(
    bare: dict[str, str], number: signal.Signals
) -> None:
    user = f"left-{number.name}"
    files = [SAMPLES / f"0{n}.flac" for n in range(6)]
    process = subprocess.Popen(
        command("transcribe", *files, "--user", user),
        env={**bare, "LOCAL_PROCESSES": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "in progress" in line:
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 130, "".join(lines) + err
    assert out == ""
    assert "is cancelled" in err
    assert "GET /transcript/" in err
    assert "Traceback" not in err
    assert status_in(bare, user)[0] == "cancelled"
    assert set(status_in(bare, user)[1]) <= {"cancelled", "completed"}


def test_a_terminal_gets_a_bar_and_standard_output_only_the_text(
    bare: dict[str, str], audio: Path
) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command("transcribe", audio, "--user", "seated"),
        env={**bare, "TERM": "xterm", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    drawn = b""
    while True:
        try:
            drawn += os.read(ours, 4096)
        except OSError:  # the other side is closed
            break
    out, _ = process.communicate(timeout=60)
    os.close(ours)

    assert process.returncode == 0, drawn.decode()
    assert out == b"\n"
    assert b"1/1" in drawn
    assert b"short.wav  completed" in drawn
