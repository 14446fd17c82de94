"""Taking a job in: what is stored, what is refused, and what a repeated call makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test.utils import CaptureQueriesContext

from jobs import storage
from jobs.models import (
    Chunk,
    IdempotencyKey,
    Job,
    JobEvent,
    UserIndexStamp,
    UserJobIndex,
    from_now,
)
from jobs.submission import Accepted, Submission, SubmissionRefused, submit
from tests import factories
from tests.helpers import together
from tests.scripted import ScriptedEngine

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("script")]


def files(count: int = 1, data: bytes | None = None) -> tuple[SimpleUploadedFile, ...]:
    content = factories.wav() if data is None else data
    return tuple(SimpleUploadedFile(f"{n}.wav", content) for n in range(count))


def asked(*paths: str, **values: Any) -> Submission:
    for path in paths:
        factories.put_audio(path)
    return Submission(user_id="alice", audio_paths=paths, **values)


def refusals(submission: Submission, **options: Any) -> list[tuple[str, str | None]]:
    with pytest.raises(SubmissionRefused) as caught:
        submit(submission, caller="alice", **options)
    assert not Job.objects.exists()
    return [(refusal.code, refusal.attr) for refusal in caught.value.refusals]


def test_a_file_larger_than_the_engine_takes_is_refused(
    script: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "capabilities", replace(script.capabilities, max_bytes=1000))
    assert refusals(asked("alice/a.wav")) == [("audio_too_large", "audioChunkPaths.0")]


def test_a_job_is_stored_whole() -> None:
    submission = asked(
        "alice/b.wav",
        "alice/a.wav",
        "alice/b.wav",
        title="Monday",
        language="en",
        vocabulary=("Kubernetes",),
        diarize=True,
    )
    accepted = submit(submission, caller="alice")
    assert accepted.created
    job = Job.objects.get()
    assert job.pk == accepted.job_id
    assert job.pk.version == 7
    assert (job.user_id, job.status, job.title, job.engine) == (
        "alice",
        "in_progress",
        "Monday",
        "pocketsphinx",
    )
    assert (job.language, job.vocabulary, job.diarize) == ("en", ["Kubernetes"], True)
    assert (job.deadline - job.submitted_time) == timedelta(hours=24)
    chunks = list(job.chunks.order_by("index"))
    assert [chunk.audio_path for chunk in chunks] == ["alice/b.wav", "alice/a.wav", "alice/b.wav"]
    assert {(c.status, c.attempts, c.uploaded) for c in chunks} == {("pending", 0, False)}
    assert UserJobIndex.objects.get().job_status == "in_progress"
    assert UserIndexStamp.of("alice") is not None
    event = JobEvent.objects.get()
    assert (event.sequence, event.type, job.sequence) == (1, "job.submitted", 1)


def test_ids_sort_by_the_time_of_submission() -> None:
    ids = [submit(asked("alice/a.wav"), caller="alice").job_id for _ in range(20)]
    assert ids == sorted(ids)


def statements(count: int) -> int:
    submission = asked(*[f"alice/{n}.wav" for n in range(count)])
    with CaptureQueriesContext(connection) as queries:
        submit(submission, caller="alice")
    return len(queries)


def test_the_number_of_statements_does_not_depend_on_the_number_of_chunks() -> None:
    one, all_of_them = statements(1), statements(24)
    assert (one, all_of_them) == (7, 7)


# --- refusals ---


@pytest.mark.parametrize("count", [0, 25, 100])
def test_1_to_24_files(count: int) -> None:
    assert refusals(asked(*[f"alice/{n}.wav" for n in range(count)])) == [
        ("audio_chunk_count", "audioChunkPaths")
    ]


@pytest.mark.parametrize("count", [1, 24])
def test_the_first_and_the_last_count_that_are_taken(count: int) -> None:
    submit(asked(*[f"alice/{n}.wav" for n in range(count)]), caller="alice")
    assert Chunk.objects.count() == count


def test_every_reason_is_told_with_its_position(settings: Any) -> None:
    settings.AUDIO_MAX_BYTES = 20_000
    factories.put_audio("alice/empty.wav", b"")
    factories.put_audio("alice/large.wav", b"x" * 20_001)
    factories.put_audio("alice/fits.wav", b"x" * 20_000)
    paths = ("alice/fits.wav", "alice/empty.wav", "alice/no.wav", "alice/large.wav")
    assert refusals(Submission(user_id="alice", audio_paths=paths)) == [
        ("audio_empty", "audioChunkPaths.1"),
        ("audio_not_found", "audioChunkPaths.2"),
        ("audio_too_large", "audioChunkPaths.3"),
    ]


def test_uploads_are_judged_like_paths_and_none_is_kept(audio_root: Path, settings: Any) -> None:
    settings.AUDIO_MAX_BYTES = 20_000
    uploads = (*files(), *files(1, b""), *files(1, b"x" * 20_001))
    assert refusals(Submission(user_id="alice", uploads=uploads)) == [
        ("audio_empty", "audioChunks.1"),
        ("audio_too_large", "audioChunks.2"),
    ]
    assert list(audio_root.rglob("*")) == []


def test_whose_folder_it_is_is_judged_before_what_lies_there() -> None:
    factories.put_audio("bob/there.wav")
    for path in ("bob/there.wav", "bob/not-there.wav", "bob", "alicex/a.wav", "./bob/x"):
        assert refusals(Submission(user_id="alice", audio_paths=(path,))) == [
            ("permission_denied", "audioChunkPaths.0")
        ]


def test_the_users_folder_itself_is_no_file() -> None:
    factories.put_audio("alice", b"a file in the place of the folder")
    assert refusals(Submission(user_id="alice", audio_paths=("alice",))) == [
        ("invalid_path", "audioChunkPaths.0")
    ]


def test_a_service_may_name_any_folder() -> None:
    factories.put_audio("bob/there.wav")
    factories.put_audio("top.wav")
    paths = ("bob/there.wav", "top.wav")
    submission = Submission(user_id="alice", audio_paths=paths, own_folder_only=False)
    submit(submission, caller="robot")
    assert [chunk.audio_path for chunk in Chunk.objects.order_by("index")] == list(paths)


@pytest.mark.parametrize("user_id", ["..", ".", "", "a/b", "a\0b", "x" * 151])
def test_a_user_whose_name_is_no_folder_of_its_own_cannot_upload(
    audio_root: Path, user_id: str
) -> None:
    submission = Submission(user_id=user_id, uploads=files())
    assert refusals(submission) == [("invalid_user_id", "userId")]
    assert list(audio_root.parent.rglob("*.wav")) == []


def test_an_engine_that_is_not_configured_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    assert refusals(asked("alice/a.wav", engine="openai")) == [("unsupported_option", "engine")]
    assert refusals(asked("alice/a.wav", engine="nobody")) == [("unsupported_option", "engine")]
    # Its model was asked for by nobody, so that no worker has it.
    whisper = asked("alice/a.wav", engine="faster-whisper")
    assert refusals(whisper) == [("unsupported_option", "engine")]


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        ("openai", "the engine openai needs OPENAI_API_KEY, or your own OPENAI_BASE_URL"),
        ("faster-whisper", "the engine faster-whisper needs WHISPER_MODEL"),
        ("nobody", "the engine 'nobody' is unknown"),
    ],
)
def test_an_engine_that_is_not_configured_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, engine: str, reason: str
) -> None:
    monkeypatch.undo()
    with pytest.raises(SubmissionRefused) as caught:
        submit(asked("alice/a.wav", engine=engine), caller="alice")
    (refusal,) = caught.value.refusals
    assert refusal.detail == (
        f"The engine {engine!r} is not configured here ({reason}); there is: pocketsphinx."
    )


def test_an_option_that_the_engine_cannot_honour_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    for option in ({"language": "de"}, {"vocabulary": ("x",)}, {"diarize": True}):
        assert refusals(asked("alice/a.wav", **option)) == [("unsupported_option", *option)]


def test_a_refused_option_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(SubmissionRefused) as caught:
        submit(asked("alice/a.wav", language="de"), caller="alice")
    (refusal,) = caught.value.refusals
    assert refusal.detail == (
        "The engine 'pocketsphinx' cannot honour language: its model en-us knows en."
    )


# --- uploads ---


def test_uploads_are_kept_under_the_users_folder(audio_root: Path) -> None:
    job_id = submit(Submission(user_id="alice", uploads=files(3)), caller="alice").job_id
    chunks = list(Chunk.objects.order_by("index"))
    assert [chunk.audio_path for chunk in chunks] == [
        f"alice/uploads/{job_id}/{n:02d}.wav" for n in range(3)
    ]
    assert all(chunk.uploaded for chunk in chunks)
    assert all((audio_root / c.audio_path).read_bytes() == factories.wav() for c in chunks)
    assert not list(audio_root.rglob("*.part"))


def test_a_submission_that_cannot_be_stored_leaves_no_file_and_no_row(
    audio_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(user_id: str) -> None:
        raise RuntimeError

    monkeypatch.setattr(UserIndexStamp, "renew", broken)
    with pytest.raises(RuntimeError):
        submit(
            Submission(user_id="alice", uploads=files(3)), caller="alice", idempotency_key="again"
        )
    assert not [path for path in audio_root.rglob("*") if path.is_file()]
    assert not list(audio_root.glob("alice/uploads/*"))
    for model in (Job, Chunk, JobEvent, UserJobIndex, IdempotencyKey):
        assert not model.objects.exists()


def test_a_full_disk_in_the_middle_of_the_uploads_leaves_no_file_and_no_row(
    audio_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = storage.store
    kept: list[str] = []

    def full(path: str, content: Any) -> None:
        if len(kept) == 2:
            raise OSError(28, "No space left on device")
        keep(path, content)
        kept.append(path)

    monkeypatch.setattr(storage, "store", full)
    with pytest.raises(OSError, match="No space"):
        submit(Submission(user_id="alice", uploads=files(3)), caller="alice")
    assert not [path for path in audio_root.rglob("*") if path.is_file()]
    assert not Job.objects.exists()


def test_a_path_is_stored_in_its_one_spelling(audio_root: Path) -> None:
    first = submit(Submission(user_id="alice", uploads=files()), caller="alice")
    (path,) = Chunk.objects.filter(job_id=first.job_id).values_list("audio_path", flat=True)
    other = path.replace("alice/uploads", "alice//./uploads")
    second = submit(Submission(user_id="alice", audio_paths=(other,)), caller="alice")
    chunk = Chunk.objects.get(job_id=second.job_id)
    assert (chunk.audio_path, chunk.uploaded) == (path, True)


# --- idempotency ---


def keyed(submission: Submission, key: str = "k", caller: str = "alice") -> Accepted:
    return submit(submission, caller=caller, idempotency_key=key)


def test_the_same_key_and_body_make_one_job() -> None:
    first = keyed(asked("alice/a.wav"))
    again = keyed(asked("alice/a.wav"))
    assert (again.job_id, first.created, again.created) == (first.job_id, True, False)
    assert Job.objects.count() == 1
    assert keyed(asked("alice/a.wav"), key="other").created


@pytest.mark.parametrize(
    "change",
    [
        {"title": "x"},
        {"language": "de"},
        {"vocabulary": ("x",)},
        {"diarize": True},
        {"engine": "scripted"},
        {"audio_paths": ("alice/b.wav",)},
        {"audio_paths": ("alice/a.wav", "alice/a.wav")},
        {"audio_paths": (), "uploads": True},
    ],
)
def test_the_same_key_with_another_body_is_refused(change: dict[str, Any]) -> None:
    factories.put_audio("alice/b.wav")
    keyed(asked("alice/a.wav"))
    if "uploads" in change:
        change = change | {"uploads": files()}
    body = {"user_id": "alice", "audio_paths": ("alice/a.wav",)} | change
    with pytest.raises(SubmissionRefused) as caught:
        keyed(Submission(**body))
    assert [refusal.code for refusal in caught.value.refusals] == ["idempotency_key_reused"]
    assert Job.objects.count() == 1


def test_uploads_are_compared_by_content() -> None:
    first = keyed(Submission(user_id="alice", uploads=files(2)))
    again = keyed(Submission(user_id="alice", uploads=files(2)))
    assert again.job_id == first.job_id
    with pytest.raises(SubmissionRefused):
        keyed(Submission(user_id="alice", uploads=(*files(1), *files(1, factories.wav(0.2)))))
    assert Job.objects.count() == 1


def test_a_key_belongs_to_its_user() -> None:
    first = keyed(asked("alice/a.wav"))
    other = keyed(asked("alice/a.wav", own_folder_only=False), caller="robot")
    assert other.created
    assert other.job_id != first.job_id


def test_a_key_is_forgotten_after_24_hours() -> None:
    first = keyed(asked("alice/a.wav"))
    for age, created in ((timedelta(hours=23, minutes=59), False), (timedelta(hours=24.1), True)):
        IdempotencyKey.objects.update(created_time=from_now(-age))
        again = keyed(asked("alice/a.wav"))
        assert again.created is created
        assert (again.job_id == first.job_id) is not created


def test_a_repeated_call_is_answered_though_the_audio_is_gone_by_now(audio_root: Path) -> None:
    first = keyed(asked("alice/a.wav"))
    (audio_root / "alice/a.wav").unlink()
    again = keyed(Submission(user_id="alice", audio_paths=("alice/a.wav",)))
    assert (again.job_id, again.created) == (first.job_id, False)


def test_a_refused_submission_does_not_use_its_key_up() -> None:
    missing = Submission(user_id="alice", audio_paths=("alice/a.wav",))
    assert refusals(missing, idempotency_key="k") == [("audio_not_found", "audioChunkPaths.0")]
    assert not IdempotencyKey.objects.exists()
    assert keyed(asked("alice/a.wav")).created


def test_a_call_that_is_still_running_holds_its_key_and_a_dead_one_does_not() -> None:
    first = keyed(asked("alice/a.wav"))
    Job.objects.all().delete()
    IdempotencyKey.objects.update(job_id=None)
    with pytest.raises(SubmissionRefused) as caught:
        keyed(asked("alice/a.wav"))
    assert [refusal.code for refusal in caught.value.refusals] == ["idempotency_conflict"]
    assert not Job.objects.exists()
    IdempotencyKey.objects.update(created_time=from_now(-timedelta(seconds=61)))
    again = keyed(asked("alice/a.wav"))
    assert again.created
    assert again.job_id != first.job_id


def test_a_call_whose_key_was_taken_over_makes_no_second_job(
    audio_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = storage.store
    winners: list[Any] = []

    def slow(*args: Any) -> None:
        if not winners:
            winners.append(None)
            IdempotencyKey.objects.update(created_time=from_now(-timedelta(seconds=61)))
            winners[0] = keyed(Submission(user_id="alice", uploads=files()))
        keep(*args)

    monkeypatch.setattr(storage, "store", slow)
    with pytest.raises(SubmissionRefused) as caught:
        keyed(Submission(user_id="alice", uploads=files()))
    assert [refusal.code for refusal in caught.value.refusals] == ["idempotency_conflict"]
    assert Job.objects.get().pk == winners[0].job_id
    assert len([path for path in audio_root.rglob("*") if path.is_file()]) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("make", [asked, lambda path: Submission(user_id="alice", uploads=files())])
def test_20_calls_at_once_make_one_job(make: Callable[[str], Submission], audio_root: Path) -> None:
    submission = make("alice/a.wav")
    copies = [make("alice/a.wav") for _ in range(20)]
    results = together(*[lambda copy=copy: keyed(copy) for copy in copies])
    made: list[UUID] = []
    for result in results:
        if isinstance(result, SubmissionRefused):
            assert [refusal.code for refusal in result.refusals] == ["idempotency_conflict"]
        else:
            assert isinstance(result, Accepted), result
            made.append(result.job_id)
    assert Job.objects.count() == 1
    assert set(made) == {Job.objects.get().pk}
    assert sum(isinstance(result, Accepted) and result.created for result in results) == 1
    assert keyed(submission).job_id == made[0]
    assert len([path for path in audio_root.rglob("*") if path.is_file()]) == 1
