"""What is kept to search texts: complete, in step with the transcripts, and fast among many."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.db import connection
from django.test.utils import CaptureQueriesContext

from jobs import actions, erasure, text_search
from jobs.models import JobStatus, SearchText, Transcript
from jobs.search_words import terms_of
from jobs.text_search import Found
from tests import factories

migration = import_module("jobs.migrations.0011_text_search")
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_is_empty")]


def found(text: str, user_id: str | None = "alice", *statuses: str) -> list[Any]:
    return [row.job_id for row in Found(terms_of(text), user_id, statuses)[0:21]]


def by_index(text: str) -> list[Any]:
    return Found(terms_of(text), "alice", ())._by_index(21)


def test_the_texts_that_were_there_before_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [factories.make_completed_job(f"the word{n}") for n in range(5)]
    factories.make_job()
    SearchText.objects.all().delete()
    assert by_index("the") == []
    monkeypatch.setattr(migration, "BATCH", 2)
    migration.fill(apps, None)
    assert by_index("the") == [job.pk for job in reversed(jobs)]
    assert found("word3") == [jobs[3].pk]


def test_a_text_of_more_words_than_an_index_takes_is_kept() -> None:
    job = factories.make_completed_job("first words")
    transcript = Transcript.objects.get(pk=job.pk)
    transcript.text += "".join(f" {chr(0x10400 + n % 40)}{n:x}" for n in range(200_000))
    text_search.keep(job, transcript)
    assert by_index("first words") == found("first words") == [job.pk]


def test_an_erased_user_leaves_no_words() -> None:
    for _ in range(3):
        factories.make_completed_job("the word")
    other = factories.make_completed_job("the word", user_id="bob")
    erasure.erase("alice")
    assert list(SearchText.objects.values_list("user_id", flat=True)) == ["bob"]
    assert found("word", None) == [other.pk]


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL's index is a column")
def test_the_index_is_in_step_with_the_rows_also_after_a_vacuum(transactional_db: None) -> None:
    jobs = [factories.make_failed_job(f"the word{n}", None) for n in range(5)]
    actions.delete(jobs[0].pk)
    actions.retry(jobs[1].pk)
    text_search.keep(jobs[2], Transcript(job=jobs[2], text="another text"))
    with connection.cursor() as cursor:
        cursor.execute("VACUUM")
        cursor.execute(
            "INSERT INTO jobs_wordindex(jobs_wordindex, rank) VALUES('integrity-check', 1)"
        )
    assert by_index("word4") == [jobs[4].pk]
    assert by_index("word2") == []
    assert by_index("another") == [jobs[2].pk]


# --- among many ---

MANY = 10_000


@pytest.fixture
def many(db: None) -> None:
    """Texts of a busy user, half of them all, with words of every rarity."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no such plans")
    with connection.cursor() as cursor:
        cursor.execute(
            """
WITH made AS (
  INSERT INTO jobs_job (id, user_id, status, title, engine, vocabulary, diarize, submitted_time,
                        completed_time, deadline, delay_reason, sequence)
  SELECT ('01900000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid,
         CASE WHEN n %% 2 = 0 THEN 'alice' ELSE 'user' || n %% 500 END, 'completed', '', 'openai',
         '[]', false, now(), now(), now() + interval '1 day', '', 1
  FROM generate_series(1, %s) AS n RETURNING id, user_id, status, submitted_time
), listed AS (
  INSERT INTO jobs_userjobindex (job_id, user_id, job_status, submitted_time)
  SELECT id, user_id, status, submitted_time FROM made
), told AS (
  INSERT INTO jobs_transcript (job_id, text, segments, gaps, duration_seconds)
  SELECT id, 'words', '[]', '[]', 24 FROM made RETURNING job_id
)
INSERT INTO jobs_searchtext (job_id, user_id, job_status, words)
SELECT made.id, user_id, status, ' common words of job ' || right(made.id::text, 12)
  || CASE WHEN user_id <> 'alice' THEN ' theirs' WHEN right(made.id::text, 12)::int < 1000
     THEN ' old' ELSE '' END || repeat(' filling', 30) || ' '
FROM made""",
            [MANY],
        )
        cursor.execute("ANALYZE")


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("common words", 21),  # in every text
        ("theirs", 0),  # in none of this user's, but in half of all
        ("old", 21),  # in some of the oldest
        ("000000004000", 1),
        ('"words common"', 0),
        ("old -words", 0),
    ],
)
def test_among_many_no_table_is_read_whole(text: str, count: int) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert len(found(text)) == count
        assert len(found(text, "alice", JobStatus.COMPLETED)) == count
    asked = [query["sql"] for query in queries if query["sql"].startswith(("SELECT", "SET"))]
    assert len([sql for sql in asked if sql.startswith("SELECT")]) in {4, 6}
    with connection.cursor() as cursor:
        for statement in asked:
            if statement.startswith("SET"):
                cursor.execute(statement)  # as it was when the next one was asked
                continue
            cursor.execute(f"EXPLAIN (FORMAT JSON) {statement}")
            plan = json.dumps(cursor.fetchone())
            assert "Seq Scan" not in plan, plan
            assert ("search_text_by_word" in plan) == ("word_index" in statement)
            cursor.execute("SET LOCAL enable_seqscan = on")
            cursor.execute("SET LOCAL enable_indexscan = on")
