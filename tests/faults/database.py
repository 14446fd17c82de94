"""A system's tables, read past the service: the API is not asked whether the API is right."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg import IsolationLevel
from psycopg.rows import dict_row

Record = dict[str, Any]
CHUNK_COLUMNS = (
    'job_id, "index", audio_path, status, attempts, errors, crashes, text, error_code,'
    " not_before, resend_time, lease_expires_time, worker_id, started_time, ended_time"
)
EVENT_COLUMNS = "job_id, sequence, type, time, data"
CALL_COLUMNS = "user_id, engine, started_time, outcome, error_code, audio_seconds, price_usd"
DAY_COLUMNS = "user_id, day, engine, calls, unpriced_calls, seconds, price_usd"
ID_COLUMNS = {"id", "job_id", "worker_id"}
TIME_COLUMNS = {
    "not_before",
    "resend_time",
    "lease_expires_time",
    "started_time",
    "ended_time",
    "time",
}


class Database:
    """The database of one system, PostgreSQL or SQLite."""

    def __init__(self, url: str, var: Path) -> None:
        self._url = url
        self._file = var / "verbatim.sqlite3"

    def read(self, statement: str) -> list[Record]:
        """The rows of a SELECT: ids as text, times as seconds since 1970."""
        with self._reader() as read:
            return read(statement)

    @contextmanager
    def _reader(self) -> Iterator[Callable[[str], list[Record]]]:
        """What reads, always the same moment, however many statements it takes."""
        if self._url:
            with psycopg.connect(self._url, row_factory=dict_row) as connection:
                connection.isolation_level = IsolationLevel.REPEATABLE_READ
                yield lambda statement: _plain(connection.execute(statement.encode()))
            return
        address = f"file:{self._file}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=20)) as opened:
            opened.row_factory = sqlite3.Row
            opened.execute("BEGIN")
            yield lambda statement: _plain(dict(row) for row in opened.execute(statement))

    def job_ids(self) -> set[str]:
        return {row["id"] for row in self.read("SELECT id FROM jobs_job")}

    def jobs(self) -> list[Record]:
        """Every job with its `chunks`, `events` and `transcript`, in the order of submission."""
        with self._reader() as read:
            jobs = read("SELECT id, status, user_id FROM jobs_job ORDER BY id")
            chunks = _by_job(read(f"SELECT {CHUNK_COLUMNS} FROM jobs_chunk"), "index")
            events = _by_job(read(f"SELECT {EVENT_COLUMNS} FROM jobs_jobevent"), "sequence")
            texts = read("SELECT job_id, text FROM jobs_transcript")
        transcripts = {row["job_id"]: row["text"] for row in texts}
        return [
            {
                "job": row["id"],
                "status": row["status"],
                "user": row["user_id"],
                "transcript": transcripts.get(row["id"]),
                "chunks": chunks[row["id"]],
                "events": events[row["id"]],
            }
            for row in jobs
        ]

    def pending_deliveries(self) -> int:
        """How many webhooks are still to be sent."""
        statement = "SELECT count(*) AS n FROM jobs_webhookdelivery WHERE status = 'pending'"
        return int(self.read(statement)[0]["n"])

    def usage(self) -> dict[str, dict[str, list[float]]]:
        """Calls, those without a price, seconds and dollars of each user, day and engine.

        `ledger` from each call that counts, `days` as the service has summed them up.
        """
        with self._reader() as read:
            calls = read(f"SELECT {CALL_COLUMNS} FROM jobs_enginecall")
            days = read(f"SELECT {DAY_COLUMNS} FROM jobs_usageday")
        ledger: dict[str, list[float]] = defaultdict(lambda: [0.0] * 4)
        for call in calls:
            free = call["outcome"] == "failed" and call["error_code"] != "engine_bad_response"
            if free or call["outcome"] == "refused":
                continue
            day = datetime.fromtimestamp(call["started_time"], UTC).date()
            price = call["price_usd"]
            counted = (1.0, float(price is None), call["audio_seconds"], float(price or 0))
            sums = ledger[f"{call['user_id']}, {day}, {call['engine']}"]
            sums[:] = [sum(pair) for pair in zip(sums, counted, strict=True)]
        summed = {
            f"{row['user_id']}, {row['day']}, {row['engine']}": [
                float(row[name]) for name in ("calls", "unpriced_calls", "seconds", "price_usd")
            ]
            for row in days
        }
        return {"ledger": dict(ledger), "days": summed}

    def ledger(self, job_id: str, index: int) -> list[tuple[str, bool]]:
        """The calls of the engine for this chunk, in order: outcome, and whether it has ended."""
        statement = 'SELECT job_id, "index", outcome, ended_time FROM jobs_enginecall ORDER BY id'
        return [
            (row["outcome"], row["ended_time"] is not None)
            for row in self.read(statement)
            if (row["job_id"], row["index"]) == (job_id, index)
        ]

    def connections(self) -> int:
        """How many PostgreSQL has to this database, this one too; 0 for SQLite."""
        if not self._url:
            return 0
        statement = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database()"
        return int(self.read(statement)[0]["n"])

    def pid_of_claim(self, job_id: str, index: int) -> int | None:
        """The process that holds the chunk just now."""
        rows = self.read(
            'SELECT job_id, "index", pid FROM jobs_chunk JOIN jobs_workerprocess'
            " ON worker_id = jobs_workerprocess.id WHERE status = 'in_progress'"
        )
        found = [row["pid"] for row in rows if (row["job_id"], row["index"]) == (job_id, index)]
        return found[0] if found else None


def _by_job(rows: list[Record], order: str) -> dict[str, list[Record]]:
    grouped = defaultdict(list)
    for row in sorted(rows, key=lambda row: row[order]):
        grouped[row.pop("job_id")].append(row)
    return grouped


def _plain(rows: Iterable[Record]) -> list[Record]:
    return [{name: _plain_value(name, value) for name, value in row.items()} for row in rows]


def _plain_value(name: str, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, datetime):
        return value.timestamp()
    if name in TIME_COLUMNS:
        return datetime.fromisoformat(value).replace(tzinfo=UTC).timestamp()
    if name in ID_COLUMNS:
        return str(UUID(str(value)))
    if name == "data" and isinstance(value, str):
        return json.loads(value)
    return value
