"""`manage.py transcribe`: the main job from a terminal. Needs neither Redis nor workers."""

from __future__ import annotations

import getpass
import logging
import os
import re
import secrets
import signal
import stat
import sys
import threading
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.urls import reverse

from jobs import actions, engines, finishing, recordings, sweeper, upload_removal, uploads
from jobs.management.progress import PlainView, TerminalView
from jobs.management.workshop import Threads, workshop
from jobs.models import (
    ENDED_CHUNK,
    MAX_CHUNKS,
    Chunk,
    ChunkStatus,
    Job,
    JobGoneError,
    JobStatus,
    Transcript,
    validate_user_id,
)
from jobs.submission import Refusal, Submission, SubmissionRefused, submit

POLL_SECONDS: Final = 0.2
REPAIR_EVERY_SECONDS: Final = 15.0
NOBODY: Final = "terminal"
INTERRUPTED: Final = 130  # what a shell expects of a command that Ctrl-C ended
CUT_IT: Final = "One long recording is cut into parts with --recording."

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")


class Command(BaseCommand):
    help = (
        "Transcribes audio files, one job, in this process: the transcript goes to standard "
        "output or --output, progress to standard error. The files are copied under the audio "
        "root and stay with the job. Each file is a part of at most AUDIO_MAX_SECONDS (5 minutes); "
        "one that is longer is cut into such parts with --recording. Exit code 1 when a part could "
        "not be recognised."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="in spoken order")
        parser.add_argument(
            "--recording", action="store_true", help="FILE is one long recording, to be cut first"
        )
        parser.add_argument("--language", help="a tag such as en (default: the engine's choice)")
        parser.add_argument("--engine", help=f"default: {settings.ASR_ENGINE}")
        parser.add_argument("--user", help="whose job it is (default: your name on this machine)")
        parser.add_argument("--title", default="", help="up to 200 characters")
        parser.add_argument("--output", type=Path, metavar="FILE", help="write the text there")

    def handle(
        self, *, files: list[Path], output: Path | None, verbosity: int, **options: Any
    ) -> None:
        if options["recording"] and len(files) > 1:
            raise CommandError(f"--recording takes one file, not {len(files)}.")
        target = None if output is None else checked_output(output, files)
        with workshop() as threads, terminable(), quiet_log(verbosity):
            job_id = self._submit(files, options)
            files = files * recordings.MAX_PIECES if options["recording"] else files
            try:
                self._work(job_id, files, threads)
            except KeyboardInterrupt:
                self._leave(job_id)
            except DatabaseError as error:
                raise CommandError(
                    f"The database failed: {error}. A running system takes up job {job_id}."
                ) from None
            self._report(job_id, files, target)

    def _submit(self, files: list[Path], options: dict[str, Any]) -> UUID:
        user = options["user"]
        check_options(user, options["title"], options["language"])
        submission = Submission(
            user_id=user or own_name(),
            own_folder_only=False,
            title=options["title"],
            engine=options["engine"],
            language=options["language"],
        )
        with ExitStack() as stack:
            sent = tuple(opened(files, stack))
            try:
                if options["recording"]:
                    return submit_recording(submission, sent[0])
                return submit(replace(submission, uploads=sent), caller=submission.user_id).job_id
            except SubmissionRefused as refused:
                lines = [in_terminal_words(refusal, files) for refusal in refused.refusals]
                raise CommandError("\n".join(lines)) from None
            except DatabaseError as error:
                raise CommandError(
                    f"The database cannot be used: {error}. Has `manage.py migrate` been run?"
                ) from None
            except OSError as error:
                raise CommandError(f"The audio cannot be stored: {error.strerror}") from None

    def _work(self, job_id: UUID, files: list[Path], threads: Threads) -> None:
        """Return when the job has ended, whoever did the work."""
        view: PlainView | TerminalView
        view = TerminalView(files) if self.stderr.isatty() else PlainView(files, self.stderr)
        repaired = time.monotonic()
        with view:
            while True:
                chunks = list(Chunk.objects.without_words().filter(job_id=job_id).order_by("index"))
                view.show(chunks)
                status = Job.objects.filter(pk=job_id).values_list("status", flat=True).first()
                if status != JobStatus.IN_PROGRESS:
                    return
                if not chunks:
                    recordings.cut_recording(job_id)
                due = Chunk.objects.due().filter(job_id=job_id).order_by("index")
                room = number_of_threads(job_id, len(chunks))
                threads.take(job_id, due.values_list("index", flat=True), room)
                if chunks and all(chunk.status in ENDED_CHUNK for chunk in chunks):
                    finishing.finish_job(job_id)
                if time.monotonic() - repaired > REPAIR_EVERY_SECONDS:
                    # Workers of a running system may hold chunks of ours, and die.
                    sweeper.sweep(None)
                    repaired = time.monotonic()
                threads.wait(POLL_SECONDS)

    def _leave(self, job_id: UUID) -> None:
        """Cancel the job and end the command, unless the job has ended by itself."""
        try:
            actions.cancel(job_id)
        except (actions.AlreadyEndedError, JobGoneError):
            return
        where = reverse("admin:jobs_job_change", args=[job_id])
        self.stderr.write(
            f"\nInterrupted: job {job_id} is cancelled. What was recognised is kept: "
            f"GET {reverse('transcript', args=[job_id])}, or {where} in the browser."
        )
        sys.exit(INTERRUPTED)

    def _report(self, job_id: UUID, files: list[Path], target: Path | None) -> None:
        """The text, whole or partial; then what is missing.

        Raises:
            CommandError: the job did not complete.
        """
        job = Job.objects.filter(pk=job_id).first()
        if job is None:
            raise CommandError(f"Job {job_id} was deleted meanwhile.")
        text = Transcript.objects.values_list("text", flat=True).get(pk=job_id)
        if target is None:
            self.stdout.write(text)
        else:
            write_whole(target, f"{text}\n")
        missing = job.chunks.exclude(status=ChunkStatus.COMPLETED).defer("segments")
        for chunk in missing.order_by("index"):
            why = f"{chunk.error_code}: {chunk.error_detail}" if chunk.error_code else chunk.status
            self.stderr.write(f"missing: part {chunk.index + 1}, {files[chunk.index]}: {why}")
        if missing.filter(error_code="audio_too_long").exists():
            self.stderr.write(CUT_IT)
        if job.status != JobStatus.COMPLETED:
            raise CommandError(f"Job {job_id} ended as {job.status}: the text has gaps.")


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM does as Ctrl-C does: the job is cancelled and not left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def quiet_log(verbosity: int) -> Iterator[None]:
    """Only warnings disturb the progress bar, unless more was asked for."""
    root = logging.getLogger()
    before = root.level
    if verbosity < 2:
        root.setLevel(max(before, logging.WARNING))
    try:
        yield
    finally:
        root.setLevel(before)


def check_options(user: str | None, title: str, language: str | None) -> None:
    """What the API's serializer checks. Raises CommandError."""
    if user is not None:
        try:
            validate_user_id(user)
        except ValidationError as error:
            raise CommandError(f"--user: {error.messages[0]}") from None
    if len(title) > 200:
        raise CommandError("--title: at most 200 characters")
    if language is not None and (len(language) > 35 or not _LANGUAGE.fullmatch(language)):
        raise CommandError(f"--language: {language!r} is no language tag such as en or en-US")


def own_name() -> str:
    """The operating system's name of whoever runs this, if it may be a user's name here."""
    with suppress(OSError, KeyError, ValidationError):
        name = getpass.getuser()
        validate_user_id(name)
        return name
    return NOBODY


def submit_recording(submission: Submission, file: Any) -> UUID:
    """The job of one long file, which becomes an upload first, as callers of the API send it.

    Raises:
        SubmissionRefused, OSError: nothing was kept.
    """
    if file.size > settings.RECORDING_MAX_BYTES:  # before it is copied
        most = settings.RECORDING_MAX_BYTES
        detail = f"The file has {file.size} bytes; at most {most} are taken."
        raise SubmissionRefused(
            Refusal(code="audio_too_large", detail=detail, attr="recordingPath")
        )
    (path,) = uploads.store_all(submission.user_id, uuid4(), [file])
    try:
        whole = replace(submission, recording_path=path)
        return submit(whole, caller=submission.user_id).job_id
    except BaseException:
        upload_removal.abandon([path])
        raise


def opened(files: list[Path], stack: ExitStack) -> Iterator[Any]:
    """The files, open for reading until `stack` ends. Raises CommandError."""
    if len(files) > MAX_CHUNKS:
        raise CommandError(f"A job has 1 to {MAX_CHUNKS} audio files, not {len(files)}.")
    for path in files:
        try:
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                raise CommandError(f"{path}: is a directory, not a file")
            if not stat.S_ISREG(mode):
                raise CommandError(f"{path}: is no regular file")
            file = stack.enter_context(path.open("rb"))
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}") from None
        yield UploadedFile(file=file, name=path.name, size=os.fstat(file.fileno()).st_size)


def in_terminal_words(refusal: Refusal, files: list[Path]) -> str:
    """The refusal with the file or option that it is about, in place of the API's field."""
    field, _, position = (refusal.attr or "").partition(".")
    if field == "recordingPath":
        return f"{files[0]}: {refusal.detail}"
    if position.isdigit():
        advice = f" {CUT_IT}" if refusal.code == "audio_too_large" else ""
        return f"{files[int(position)]}: {refusal.detail}{advice}"
    return f"--{field}: {refusal.detail}" if field in {"engine", "language"} else refusal.detail


def number_of_threads(job_id: UUID, files: int) -> int:
    """As many as the engine can use at once."""
    engine = Job.objects.values_list("engine", flat=True).get(pk=job_id)
    local = engines.queue_of(engine) == engines.LOCAL_QUEUE
    return min(settings.LOCAL_THREADS, files) if local else files


def checked_output(output: Path, files: list[Path]) -> Path:
    """Where the text goes, looked at before an hour of work. Raises CommandError."""
    target = Path(os.path.realpath(output))  # a link stays, and what it names is replaced
    if target.is_dir():
        raise CommandError(f"--output: {output} is a directory")
    if target.exists() and not target.is_file():
        raise CommandError(f"--output: {output} is no regular file")
    if any(os.path.realpath(file) == str(target) for file in files):
        raise CommandError(f"--output: {output} is one of the audio files")
    if not target.parent.is_dir():
        raise CommandError(f"--output: there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise CommandError(f"--output: nothing can be written in {target.parent}")
    return target


def write_whole(target: Path, text: str) -> None:
    """The file appears under its name when it is whole; another's place is taken at once."""
    part = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(target)
    except OSError as error:
        raise CommandError(f"--output: {target} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
