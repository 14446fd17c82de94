"""What is said of transcripts: whose engine it was, and that it goes with its job."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from jobs import actions, feedback
from jobs.models import Job, MistakeKind, MistakeReport, Rating, from_now
from jobs.retention import Retention, purge
from tests import factories

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_is_empty")]


def heard(job: Job, index: int, engine: str, model: str, seconds: float | None = 1.0) -> None:
    said = {"engine": engine, "model": model, "duration_seconds": seconds}
    job.chunks.filter(index=index).update(**said)


def report(job: Job, index: int | None = None) -> MistakeReport:
    return feedback.report(
        job.pk,
        user_id="alice",
        kind=MistakeKind.OTHER,
        index=index,
        start_seconds=None,
        heard="",
        meant="",
        comment="",
    )


def test_the_engine_is_that_of_the_chunk_or_of_most_of_the_time() -> None:
    job = factories.make_completed_job("a", "b", "c")
    heard(job, 0, "openai", "one", 30.0)
    heard(job, 1, "openai", "two", 20.0)
    heard(job, 2, "openai", "two", 11.0)
    assert report(job, 0).model == "one"
    assert report(job).model == "two"
    rating = feedback.rate(job.pk, user_id="alice", stars=3, comment="")
    assert (rating.engine, rating.model) == ("openai", "two")
    heard(job, 0, "deepgram", "new", 300.0)
    again = feedback.rate(job.pk, user_id="bob", stars=4, comment="")
    assert (again.pk, again.engine, again.user_id) == (rating.pk, "deepgram", "bob")


def test_what_nobody_has_heard_is_no_engines_fault() -> None:
    job = factories.make_failed_job(None, "b")
    job.chunks.filter(index=0).update(engine="", model="")
    assert (report(job, 0).engine, report(job).engine) == ("", "scripted")


def test_it_goes_with_its_job_and_with_retention() -> None:
    first, second = factories.make_completed_job("x"), factories.make_completed_job("y")
    for job in (first, second):
        feedback.rate(job.pk, user_id="alice", stars=5, comment="")
        report(job)
        report(job)
    removed = actions.delete_all([first.pk])
    assert (removed["ratings"], removed["mistakeReports"]) == (1, 2)
    Job.objects.filter(pk=second.pk).update(completed_time=from_now(-timedelta(days=31)))
    removed, _ = purge(Retention(transcripts=timedelta(days=30)))
    assert (removed["ratings"], removed["mistakeReports"]) == (1, 2)
    assert not Rating.objects.exists()
    assert not MistakeReport.objects.exists()


def test_what_was_said_is_summed_by_engine_and_model_within_90_days() -> None:
    def said(stars: int | None, **columns: Any) -> None:
        job = factories.make_completed_job("x")
        if stars:
            factories.make_rating(job, stars, **columns)
        else:
            factories.make_mistake(job, **columns)

    old = {"time": from_now(-timedelta(days=91))}
    for stars in (5, 2, None):
        said(stars, engine="openai", model="a")
    said(1, engine="openai", model="a", **old)
    said(None, engine="openai", model="b")
    said(None, engine="openai", model="b", **old)
    said(4, engine="deepgram")
    assert feedback.by_engine() == [
        {"engine": "deepgram", "model": "m", "ratings": 1, "mean_stars": 4.0, "reports": 0},
        {"engine": "openai", "model": "a", "ratings": 2, "mean_stars": 3.5, "reports": 1},
        {"engine": "openai", "model": "b", "ratings": 0, "mean_stars": None, "reports": 1},
    ]


def test_no_sum_reads_a_whole_table() -> None:
    recent = {"time__gte": from_now(-feedback.SUMMED)}
    sums = {
        "rating_summed_by_time": Rating.objects.filter(**recent).by_engine(),
        "mistake_summed_by_time": MistakeReport.objects.filter(**recent).by_engine(),
    }
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")
        plans = {name: rows.explain() for name, rows in sums.items()}
    for name, plan in plans.items():
        assert name in plan
        assert "SCAN" not in plan.replace("SCAN CONSTANT", "")
        assert "Seq Scan" not in plan


@pytest.mark.parametrize("stars", [0, 6])
def test_the_database_keeps_no_other_stars(stars: int) -> None:
    job = factories.make_completed_job("x")
    with pytest.raises(IntegrityError), transaction.atomic():
        factories.make_rating(job, stars)
