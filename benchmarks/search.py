"""The first page of a search at 10,000 and at 1,000,000 jobs of one busy user among many."""

from __future__ import annotations

import asyncio
import json

import psycopg

from benchmarks.clients import signed_in
from benchmarks.figures import Figures, percentile
from benchmarks.world import World, running

SEARCHES = 200
BUSY = "busy"


def measure(figures: Figures, *, quick: bool) -> None:
    """The busy user has half of all jobs; each job has 6 chunks."""
    few, many = (1_000, 20_000) if quick else (10_000, 1_000_000)
    with running(DEDUPLICATE="off") as world:
        world.control("stop", "verbatim:sweeper")  # COPY needs the disk, and nothing is due
        fill(world, few)
        small = asyncio.run(_search(world))
        fill(world, many - few)
        large = asyncio.run(_search(world))
        sequential = _sequential_scans(world)
    name = f"at {many:,} jobs against {few:,}"
    p50s = [1000 * percentile(taken, 0.5) for taken in (large, small)]
    beside = "p50 {:.1f} and {:.1f} ms".format(*p50s)
    figures.take("search", name, p50s[0] / p50s[1], at_most=1.5, unit=" times", beside=beside)
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
    ]
    plans = [json.dumps(world.sql(f"EXPLAIN (FORMAT JSON) {text}")) for text in statements]
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
