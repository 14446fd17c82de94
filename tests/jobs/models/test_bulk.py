"""Many rows at once: they are the very rows that Django's own ways would have made."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import F, Model
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from jobs.models import Chunk, EngineCall, Job, JobEvent, from_now
from jobs.models.bulk import insert_alike, update_each
from tests import factories

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)
AWKWARD = [
    "",
    "plain",
    'it\'s "quoted" and `so` on; DROP TABLE jobs_chunk; --',
    "100 % of %s, %(name)s and %%",
    "back\\slash, {brace}, ?1 :name $1",
    "Grüße, 日本語, 😀, \u202e, e\u0301",
    "two\nlines\tand a tab",
]


NAMED = Chunk.objects.filter(pk__gt=0)  # there is to be some condition


def row(instance: Model, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """All columns as the database holds them."""
    fields = [f.attname for f in type(instance)._meta.concrete_fields if f.attname not in without]
    return dict(type(instance)._default_manager.filter(pk=instance.pk).values(*fields).get())


def pair() -> tuple[Job, Job]:
    """Two jobs without chunks."""
    return factories.make_job(0), factories.make_job(0)


def chunks_of(job: Job) -> list[dict[str, Any]]:
    return [row(chunk, without=("id", "job_id")) for chunk in job.chunks.order_by("index")]


@pytest.fixture
def statements() -> Iterator[CaptureQueriesContext]:
    with CaptureQueriesContext(connection) as context:
        yield context


# --- insert_alike ---


def test_inserted_rows_are_those_that_django_would_have_made() -> None:
    ours, theirs = pair()
    with transaction.atomic():  # Now() is the transaction's on PostgreSQL
        moment = Job.objects.filter(pk=ours.pk).values_list(Now(), flat=True).get()
        insert_alike(
            Chunk,
            {"job_id": ours.pk, "not_before": moment, "resend_time": moment},
            ("index", "audio_path", "uploaded"),
            [(index, path, index % 2 == 0) for index, path in enumerate(AWKWARD)],
        )
        Chunk.objects.bulk_create(
            Chunk(
                job=theirs,
                index=index,
                audio_path=path,
                uploaded=index % 2 == 0,
                not_before=moment,
                resend_time=moment,
            )
            for index, path in enumerate(AWKWARD)
        )
    assert chunks_of(ours) == chunks_of(theirs)
    assert [chunk["audio_path"] for chunk in chunks_of(ours)] == AWKWARD
    assert [chunk["segments"] for chunk in chunks_of(ours)] == [[]] * len(AWKWARD)


def test_values_of_every_kind_are_inserted_as_django_would(transactional_db: None) -> None:
    ours, theirs = pair()
    values: dict[str, Any] = {
        "status": "in_progress",
        "attempts": 3,
        "lease_token": uuid4(),
        "worker_id": uuid4(),
        "language": None,
        "confidence": 0.1 + 0.2,
        "error_recoverable": None,
        "deduplicated": True,
        "segments": [{"text": text, "start": 0.5, "end": None} for text in AWKWARD],
        "text": "\n".join(AWKWARD),
    }
    moment = Job.objects.values_list(Now(), flat=True).first()
    times = dict.fromkeys(("not_before", "resend_time", "lease_expires_time"), moment)
    shared = {"job_id": ours.pk, "audio_path": "a.wav", **times}
    Chunk.objects.create(job=theirs, index=0, audio_path="a.wav", **times, **values)
    insert_alike(Chunk, {**shared, **values}, ("index",), [(0,)])
    expected = chunks_of(theirs)
    assert chunks_of(ours) == expected
    ours.chunks.all().delete()
    differing = {name: value for name, value in values.items() if value is not None}
    insert_alike(Chunk, shared, ("index", *differing), [(0, *differing.values())])
    assert chunks_of(ours) == expected


def test_the_databases_clock_is_asked_when_rows_are_inserted() -> None:
    job, _ = pair()
    insert_alike(
        Chunk,
        {"job_id": job.pk, "not_before": Now(), "resend_time": from_now(MINUTE)},
        ("index", "audio_path"),
        [(0, "a"), (1, "b")],
    )
    first, second = job.chunks.order_by("index")
    assert (first.not_before, first.resend_time) == (second.not_before, second.resend_time)
    assert first.resend_time - first.not_before == MINUTE
    assert job.chunks.filter(not_before__lte=Now(), not_before__gt=from_now(-MINUTE)).count() == 2


def test_all_rows_are_inserted_by_one_statement(statements: CaptureQueriesContext) -> None:
    job, _ = pair()
    before = len(statements)
    shared = {"job_id": job.pk, "not_before": Now(), "resend_time": Now()}
    insert_alike(Chunk, shared, ("index", "audio_path"), [(n, "a.wav") for n in range(24)])
    assert len(statements) == before + 1
    assert job.chunks.count() == 24


def test_what_a_constraint_forbids_is_not_inserted_either_way() -> None:
    job, _ = pair()
    shared = {"job_id": job.pk, "not_before": Now(), "resend_time": Now()}
    with pytest.raises(IntegrityError), transaction.atomic():
        insert_alike(Chunk, shared, ("index", "audio_path"), [(0, "a"), (1, "b"), (1, "c")])
    assert job.chunks.count() == 0


def test_a_default_that_is_called_and_one_of_the_database_are_given() -> None:
    shared = {"job_id": uuid4(), "user_id": "alice", "engine": "scripted", "started_time": Now()}
    insert_alike(EngineCall, shared, ("index", "audio_seconds"), [(0, 1.5), (1, 2.5)])
    calls = list(EngineCall.objects.order_by("index"))
    assert [(call.outcome, call.audio_seconds, call.price_usd) for call in calls] == [
        ("unknown", 1.5, None),
        ("unknown", 2.5, None),
    ]


# --- update_each ---


def pks(job: Job) -> list[int]:
    return list(job.chunks.order_by("index").values_list("pk", flat=True))


def test_updated_rows_are_those_that_django_would_have_saved() -> None:
    ours, theirs = factories.make_job(len(AWKWARD)), factories.make_job(len(AWKWARD))
    same = Job.objects.filter(pk=ours.pk).values_list(Now(), flat=True).get()
    for job in (ours, theirs):
        job.chunks.update(not_before=same, resend_time=same)
    given = [
        (text, [{"text": text, "words": []}], None if n % 2 else n / 3, n % 2 == 0, 0.25 * n)
        for n, text in enumerate(AWKWARD)
    ]
    columns = ("text", "segments", "confidence", "deduplicated", "duration_seconds")
    alike = {"status": "completed", "model": "100 %s", "lease_token": None, "ended_time": same}
    values = dict(zip(pks(ours), given, strict=True))
    assert update_each(NAMED, alike, columns, values) == len(AWKWARD)
    for pk, own in zip(pks(theirs), given, strict=True):
        chunk = Chunk.objects.get(pk=pk)
        for name, value in {**alike, **dict(zip(columns, own, strict=True))}.items():
            setattr(chunk, name, value)
        chunk.save()
    assert chunks_of(ours) == chunks_of(theirs)
    assert [chunk["text"] for chunk in chunks_of(ours)] == AWKWARD


def test_expressions_are_evaluated_for_each_row() -> None:
    job = factories.make_job(3)
    job.chunks.filter(index=1).update(attempts=5)
    alike = {"attempts": F("attempts") + 1, "started_time": Now(), "not_before": from_now(MINUTE)}
    given: dict[int, Any] = {pk: (f"text {pk}",) for pk in pks(job)}
    assert update_each(NAMED, alike, ("text",), given) == 3
    chunks = list(job.chunks.order_by("index"))
    assert [chunk.attempts for chunk in chunks] == [1, 6, 1]
    assert [chunk.text for chunk in chunks] == [f"text {chunk.pk}" for chunk in chunks]
    for chunk in chunks:
        assert chunk.started_time is not None
        assert chunk.not_before - chunk.started_time == pytest.approx(MINUTE, abs=MINUTE / 60)
    assert job.chunks.filter(started_time__gt=from_now(-MINUTE)).count() == 3


def test_only_rows_that_satisfy_the_conditions_are_changed_and_counted() -> None:
    job, other = factories.make_job(4), factories.make_job(2)
    token = factories.claim(job, 0).token
    factories.claim(job, 2)
    before = {chunk.pk: row(chunk) for chunk in Chunk.objects.all()}
    rows = Chunk.objects.in_progress().filter(lease_token=token, engine="", job_id=job.pk)
    given: dict[int, Any] = dict.fromkeys([*pks(job), pks(other)[0], 10**9], ("k" * 64,))
    assert update_each(rows, {"model": "m"}, ("recognition_key",), given) == 1
    mine = pks(job)[0]
    before[mine] |= {"recognition_key": "k" * 64, "model": "m"}
    assert {chunk.pk: row(chunk) for chunk in Chunk.objects.all()} == before


def test_rows_that_are_not_named_are_left_alone_though_they_satisfy_the_conditions() -> None:
    job = factories.make_job(3)
    first, second, third = pks(job)
    assert update_each(NAMED, {}, ("text",), {third: ("c",), first: ("a",)}) == 2
    assert list(job.chunks.order_by("index").values_list("text", flat=True)) == ["a", "", "c"]
    assert update_each(Chunk.objects.filter(status="failed"), {}, ("text",), {second: ("b",)}) == 0
    assert Chunk.objects.get(pk=second).text == ""


def test_what_a_constraint_forbids_changes_none_of_them() -> None:
    job = factories.make_job(2)
    for index in range(2):
        factories.claim(job, index)
    given: dict[int, Any] = dict.fromkeys(pks(job), ("k" * 64,))  # one at a time may have it
    with pytest.raises(IntegrityError), transaction.atomic():
        update_each(Chunk.objects.in_progress(), {}, ("recognition_key",), given)
    assert set(job.chunks.values_list("recognition_key", flat=True)) == {""}


def test_a_column_of_another_model_is_updated_by_its_own_name() -> None:
    job = factories.make_job(1)
    event = JobEvent.objects.get(job=job)
    update_each(JobEvent.objects.filter(sequence=1), {}, ("data",), {event.pk: ({"a": "100 %"},)})
    event.refresh_from_db()
    assert event.data == {"a": "100 %"}
