"""The first page of a search at 10,000 and at 1,000,000 jobs of one busy user among many.

By user and status, and by words: one in every text, one in a text of ten thousand, and one that
half of all texts have, but none of the busy user's.
"""

from __future__ import annotations

import asyncio
import json

import psycopg

from benchmarks.clients import signed_in
from benchmarks.figures import Figures, percentile
from benchmarks.world import World, running

SEARCHES = 200
BUSY = "busy"
TEXTS = ("some words", "rare7", "theirs")


def measure(figures: Figures, *, quick: bool) -> None:
    """The busy user has half of all jobs; each job has 6 chunks."""
    few, many = (1_000, 20_000) if quick else (10_000, 1_000_000)
    with running(DEDUPLICATE="off") as world:
        world.control("stop", "verbatim:sweeper")  # COPY needs the disk, and nothing is due
        fill(world, few)
        small = asyncio.run(_search(world))
        small_texts = asyncio.run(_search_texts(world))
        fill(world, many - few)
        large = asyncio.run(_search(world))
        large_texts = asyncio.run(_search_texts(world))
        sequential = _sequential_scans(world)
    name = f"at {many:,} jobs against {few:,}"
    p50s = [1000 * percentile(taken, 0.5) for taken in (large, small)]
    beside = "p50 {:.1f} and {:.1f} ms".format(*p50s)
    figures.take("search", name, p50s[0] / p50s[1], at_most=1.5, unit=" times", beside=beside)
    for text in TEXTS:
        p50s = [1000 * percentile(taken[text], 0.5) for taken in (large_texts, small_texts)]
        value = "p50 {:.1f} and {:.1f} ms".format(*p50s)
        figures.tell("search", f'text "{text}" {name}', value)
    figures.take("search", "sequential scans, by EXPLAIN", len(sequential), at_most=0)


def fill(world: World, jobs: int) -> None:
    """Jobs that ended, spread over two years, half of them the busy user's."""
    with psycopg.connect(world.database_url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        for first in range(0, jobs, 50_000):
            connection.execute(_JOBS, [BUSY, min(50_000, jobs - first)])
        connection.execute("VACUUM ANALYZE")


async def _search(world: World) -> list[float]:
    """Every other search asks for a status; no page is read from the cache twice."""
    async with signed_in(world) as client:
        for number in range(SEARCHES):
            params = {"userId": BUSY, "limit": str(20 + number % 10)}
            if number % 2:
                params["jobStatus"] = "completed"
            world.execute("UPDATE jobs_userindexstamp SET stamp = gen_random_uuid()")
            await client.ask("search", "GET", "/transcript/search", status=200, params=params)
        return client.seconds["search"]


async def _search_texts(world: World) -> dict[str, list[float]]:
    async with signed_in(world) as client:
        for number in range(SEARCHES):
            text = TEXTS[number % len(TEXTS)]
            params = {"userId": BUSY, "text": text}
            await client.ask(text, "GET", "/transcript/search", status=200, params=params)
        return client.seconds


def _sequential_scans(world: World) -> list[str]:
    """The plans of the search's statements that read a whole table, whatever it costs."""
    page = "SELECT job_id FROM jobs_userjobindex WHERE {} ORDER BY job_id DESC LIMIT 101"
    some = f"SELECT job_id FROM jobs_userjobindex WHERE user_id = '{BUSY}' LIMIT 20"
    ids = world.sql(f"SELECT string_agg(quote_literal(job_id), ',') FROM ({some}) AS few")
    wanted = f"IN ({ids})"
    statements = [
        page.format(f"user_id = '{BUSY}'"),
        page.format(f"user_id = '{BUSY}' AND job_status = 'completed'"),
        page.format("job_status = 'completed'"),
        f"SELECT * FROM jobs_job WHERE id {wanted}",
        f"SELECT * FROM jobs_chunk WHERE job_id {wanted} ORDER BY job_id, index",
        f"SELECT * FROM jobs_transcript WHERE job_id {wanted}",
        f"SELECT job_id FROM jobs_searchtext WHERE words LIKE '% words %' AND job_id {wanted}",
    ]
    plans = [json.dumps(world.sql(f"EXPLAIN (FORMAT JSON) {text}")) for text in statements]
    with psycopg.connect(world.database_url) as connection:
        connection.execute("SET LOCAL enable_seqscan = off")  # as `jobs.text_search` does
        connection.execute("SET LOCAL enable_indexscan = off")
        for text in TEXTS:
            words = " & ".join(f"'{word}'" for word in (f"@{BUSY}", *text.split()))
            by_word = f"SELECT job_id FROM jobs_searchtext WHERE word_index @@ $${words}$$::tsquery"
            page = f"EXPLAIN (FORMAT JSON) {by_word} ORDER BY job_id DESC LIMIT 21"
            plans.append(json.dumps(connection.execute(page).fetchall()))
    return [plan for plan in plans if "Seq Scan" in plan]


_JOBS = """
WITH made AS (
  INSERT INTO jobs_job (id, user_id, status, title, engine, vocabulary, diarize, submitted_time,
                        completed_time, deadline, delay_reason, sequence)
  SELECT gen_random_uuid(), CASE WHEN n %% 2 = 0 THEN %s ELSE 'user' || n %% 5000 END,
         CASE WHEN n %% 50 = 0 THEN 'failed' ELSE 'completed' END, '', 'openai', '[]', false,
         time, time, time + interval '1 day', '', 14
  FROM generate_series(1, %s) AS n,
       LATERAL (SELECT now() - n %% 1000000 * interval '1 minute' AS time) AS moment
  RETURNING id, user_id, status, submitted_time
), listed AS (
  INSERT INTO jobs_userjobindex (job_id, user_id, job_status, submitted_time)
  SELECT id, user_id, status, submitted_time FROM made
), told AS (
  INSERT INTO jobs_transcript (job_id, text, segments, gaps, duration_seconds)
  SELECT id, repeat('some words ', 20), '[]', '[]', 24 FROM made
  RETURNING job_id
), searched AS (
  INSERT INTO jobs_searchtext (job_id, user_id, job_status, words)
  SELECT made.id, user_id, status, repeat(' some words', 20)
    || ' rare' || (random() * 10000)::int
    || CASE WHEN user_id LIKE 'user%%' THEN ' theirs ' ELSE ' ' END
  FROM made JOIN told ON told.job_id = made.id
)
INSERT INTO jobs_chunk (job_id, index, audio_path, uploaded, status, attempts, errors, crashes,
                        not_before, resend_time, dispatches, ended_time, duration_seconds, engine,
                        model, text, segments, error_code, error_detail, error_recoverable)
SELECT id, i, user_id || '/' || id || i, false, status, 1, 0, 0, submitted_time, submitted_time, 0,
       submitted_time, 4, 'openai', 'whisper-1', repeat('some words ', 3), '[]',
       CASE status WHEN 'failed' THEN 'engine_error' ELSE '' END, '',
       CASE status WHEN 'failed' THEN true END
FROM made, generate_series(0, 5) AS i
"""
