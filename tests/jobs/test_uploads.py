"""Uploads and jobs at the same moment: a file that a job names stays, and goes with the last."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection, transaction
from django.db.models.functions import Now

from jobs import actions, quotas, storage, upload_removal, uploads
from jobs.models import Chunk, Job, Upload, UploadKind, database_time
from jobs.submission import SubmissionRefused
from jobs.upload_removal import remove_all
from tests import factories
from tests.helpers import is_somebody_waiting, together, wait_until
from tests.uploads import files_below, paths_of, upload

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("redis_is_empty", "script"),
]


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What one thread waits for; open at the end, whatever happened."""
    event = threading.Event()
    yield event
    event.set()


def first_job() -> tuple[UUID, str]:
    """A job and its upload."""
    job = upload()
    return job.pk, paths_of(job)[0]


def held_up(function: Callable[..., Any], inside: threading.Event, gate: threading.Event) -> Any:
    """The function, but that it waits before it begins."""

    def wait(*arguments: Any, **options: Any) -> Any:
        inside.set()
        assert gate.wait(30)
        return function(*arguments, **options)

    return wait


def test_a_deletion_waits_for_the_job_that_is_taking_the_file(
    monkeypatch: pytest.MonkeyPatch, gate: threading.Event, audio_root: Path
) -> None:
    old, path = first_job()
    inside = threading.Event()
    monkeypatch.setattr(quotas, "take_place", held_up(quotas.take_place, inside, gate))

    def delete() -> None:
        assert inside.wait(30)
        actions.delete(old)

    def open_when_it_waits() -> None:
        assert inside.wait(30)
        try:
            wait_until(is_somebody_waiting)
        finally:
            gate.set()

    new, *others = together(partial(upload, path), delete, open_when_it_waits)
    assert others == [None, None]
    assert Chunk.objects.get().job_id == new.pk
    assert Chunk.objects.get().uploaded
    assert files_below(audio_root) == {path}
    actions.delete(new.pk)
    assert files_below(audio_root) == set()
    assert not Upload.objects.exists()


def test_a_job_waits_for_the_deletion_that_gives_the_file_up(
    monkeypatch: pytest.MonkeyPatch, audio_root: Path
) -> None:
    old, path = first_job()
    given_up, give_up = threading.Event(), upload_removal.give_up

    def slowly(*arguments: Any) -> None:
        give_up(*arguments)
        given_up.set()
        wait_until(is_somebody_waiting)

    def submit() -> Job:
        assert given_up.wait(30)
        return upload(path)

    monkeypatch.setattr(upload_removal, "give_up", slowly)
    new, deleted = together(submit, partial(actions.delete, old))
    assert deleted is None
    # Which of the two had the file first after that is open; but never neither.
    if isinstance(new, Job):
        assert Chunk.objects.get().uploaded
        assert files_below(audio_root) == {path}
    else:
        assert is_refused(new)
        assert files_below(audio_root) == set()


def is_refused(outcome: Any) -> bool:
    assert isinstance(outcome, SubmissionRefused), outcome
    codes = [(refusal.code, refusal.attr) for refusal in outcome.refusals]
    return codes == [("audio_not_found", "audioChunkPaths.0")]


def test_a_file_that_goes_after_it_was_looked_at_makes_no_job(
    monkeypatch: pytest.MonkeyPatch, audio_root: Path
) -> None:
    old, path = first_job()
    look = storage.sizes_of

    def look_and_lose(paths: Any) -> list[int | Exception]:
        sizes = look(paths)
        actions.delete(old)
        return sizes

    monkeypatch.setattr(storage, "sizes_of", look_and_lose)
    with pytest.raises(SubmissionRefused) as caught:
        upload(path)
    assert is_refused(caught.value)
    assert files_below(audio_root) == set()
    assert not Job.objects.exists()
    assert not Upload.objects.exists()


def test_what_others_put_among_the_uploads_may_be_named_and_stays(audio_root: Path) -> None:
    path = factories.put_audio("alice/uploads/by-hand.wav")
    job = upload(path)
    assert not job.chunks.get().uploaded
    assert not Upload.objects.exists()
    actions.delete(job.pk)
    assert files_below(audio_root) == {path}


def test_jobs_and_deletions_side_by_side_lose_no_file(audio_root: Path) -> None:
    last, path = first_job()
    for _ in range(10):
        deleted, *made = together(
            partial(actions.delete, last), partial(upload, path), partial(upload, path)
        )
        assert deleted is None
        jobs = [job for job in made if isinstance(job, Job)]
        assert all(is_refused(other) for other in made if other not in jobs)
        assert Chunk.objects.filter(uploaded=True).count() == len(jobs)
        assert files_below(audio_root) == ({path} if jobs else set())
        actions.delete_all([job.pk for job in jobs])
        assert files_below(audio_root) == set()
        last, path = first_job()


def test_a_path_outside_of_the_uploads_costs_no_statement(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert uploads.known(["alice/a.wav"]) == uploads.take(["alice/a.wav"]) == set()


def test_of_two_jobs_that_take_a_file_the_later_one_keeps_it_from_going(
    monkeypatch: pytest.MonkeyPatch, audio_root: Path
) -> None:
    (path,) = uploads.store_all("alice", uuid4(), [SimpleUploadedFile("a.wav", factories.wav())])
    first_in, second_in, deleted = threading.Event(), threading.Event(), threading.Event()
    take_place = quotas.take_place

    def name_slowly() -> Job:
        with transaction.atomic():
            assert Upload.objects.select_for_update().get(path=path)
            first_in.set()
            wait_until(is_somebody_waiting)  # for the row that goes with this job
            return upload(path)

    def take_place_late(user_id: str) -> None:
        if Job.objects.exists():
            second_in.set()
            wait_until(lambda: deleted.is_set() or is_somebody_waiting())
        take_place(user_id)

    def name_again() -> Job:
        assert first_in.wait(30)
        return upload(path)

    def delete_the_first() -> None:
        assert second_in.wait(30)
        actions.delete(Job.objects.earliest("pk").pk)
        deleted.set()

    monkeypatch.setattr(quotas, "take_place", take_place_late)
    first, second, failed = together(name_slowly, name_again, delete_the_first)
    assert (failed, isinstance(first, Job)) == (None, True)
    assert Chunk.objects.get().job_id == second.pk
    assert files_below(audio_root) == {path}
    assert not Upload.objects.exists()


def in_transaction(function: Callable[[list[str]], Any], paths: list[str]) -> None:
    with transaction.atomic():
        function(paths)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(partial(in_transaction, uploads.take), id="take"),
        pytest.param(
            partial(
                in_transaction, lambda paths: upload_removal.give_up(dict.fromkeys(paths, "alice"))
            ),
            id="give_up",
        ),
        pytest.param(upload_removal.abandon, id="abandon"),
        pytest.param(upload_removal.sweep, id="sweep"),
        pytest.param(lambda _: remove_all("alice", database_time()), id="remove_all"),
        pytest.param(upload_removal._remove, id="remove"),
    ],
)
@pytest.mark.parametrize("held", ["first", "last"])
def test_rows_are_locked_in_the_order_of_their_paths(
    change: Callable[[list[str]], Any], held: str
) -> None:
    paths = [f"alice/uploads/{n:02d}/a.wav" for n in range(24)]
    for path in reversed(paths):
        Upload.objects.create(
            path=path, user_id="alice", expires_time=Now(), doomed=change is upload_removal._remove
        )
    locked = threading.Event()
    one = paths[0] if held == "first" else paths[-1]

    def lock_one() -> set[str]:
        """The others of which somebody waits for that one."""
        rows = Upload.objects.select_for_update(skip_locked=True).exclude(path=one)
        with transaction.atomic():
            assert Upload.objects.select_for_update().get(path=one)
            locked.set()
            wait_until(is_somebody_waiting)
            return set(paths) - {one} - set(rows.values_list("path", flat=True))

    def change_all() -> None:
        assert locked.wait(30)
        change([*paths[1::2], *paths[::2]])

    others, failed = together(lock_one, change_all)
    assert failed is None
    if connection.vendor == "postgresql":  # the other locks no rows
        assert others == (set() if held == "first" else set(paths[:-1]))


# --- files that come in


@pytest.mark.parametrize("how", ["removed", "taken"])
def test_after_a_file_has_come_in_it_is_looked_at_again(
    how: str, monkeypatch: pytest.MonkeyPatch, audio_root: Path
) -> None:
    sound, store, announced = factories.wav(), storage.store, announce(len(factories.wav()))
    content = SimpleUploadedFile("a.wav", sound)

    def store_late(path: str, file: Any) -> None:
        monkeypatch.setattr(storage, "store", store)
        if how == "removed":
            upload_removal.remove_all("alice", database_time())
            store(path, file)
        else:
            store(path, file)
            upload(path)

    monkeypatch.setattr(storage, "store", store_late)
    if how == "removed":
        with pytest.raises(uploads.UploadRefused) as caught:
            uploads.receive(announced.upload_id, content, content_type="audio/wav")
        assert caught.value.code == "upload_expired"
        assert files_below(audio_root) == set()
    else:
        uploads.receive(announced.upload_id, content, content_type="audio/wav")
        assert files_below(audio_root) == {announced.path}


# --- how much may wait for a job


def announce(size: int, user_id: str = "alice") -> uploads.Announced:
    return uploads.announce(
        user_id, name="a.wav", size=size, content_type="audio/wav", kind=UploadKind.CHUNK
    )


def test_what_waits_for_a_job_is_bounded_for_each_user(settings: Any) -> None:
    settings.QUOTA_UPLOAD_BYTES = 100
    announce(60)
    with pytest.raises(quotas.QuotaExceeded) as caught:
        announce(41)
    assert "100 bytes" in caught.value.detail
    # Until the first of them is removed.
    assert uploads.UNUSED.total_seconds() - 60 < caught.value.retry_after
    assert caught.value.retry_after <= uploads.UNUSED.total_seconds() + 1
    announce(41, "bob")
    announce(40)
    assert Upload.objects.filter(user_id="alice").count() == 2


def test_what_a_job_has_taken_counts_no_more_and_what_may_come_back_does(settings: Any) -> None:
    settings.QUOTA_UPLOAD_BYTES = 100
    taken, removed = announce(50), announce(50)
    with transaction.atomic():
        uploads.take([taken.path])
    Upload.objects.filter(path=removed.path).update(doomed=True)
    announce(50)
    with pytest.raises(quotas.QuotaExceeded):
        announce(1)


def test_one_file_that_is_larger_than_all_may_be_is_refused_as_well(settings: Any) -> None:
    settings.QUOTA_UPLOAD_BYTES = 100
    with pytest.raises(quotas.QuotaExceeded) as caught:
        announce(101)
    assert caught.value.retry_after >= 1


def test_many_at_once_do_not_pass_it(settings: Any) -> None:
    settings.QUOTA_UPLOAD_BYTES = 100
    outcomes = together(*[partial(announce, 40)] * 6)
    assert [type(each) for each in outcomes].count(uploads.Announced) == 2
    assert [type(each) for each in outcomes].count(quotas.QuotaExceeded) == 4
    assert Upload.objects.count() == 2
