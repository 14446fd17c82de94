"""The table of moves says what the contract says."""

from __future__ import annotations

import pytest

from jobs.models.states import (
    CHUNK_MOVES,
    JOB_MOVES,
    ChunkStatus,
    JobStatus,
    chunk_sources,
    job_sources,
)


def test_a_job_moves_only_to_its_end_and_back_from_failed() -> None:
    moves = {(str(a), str(b)) for a, targets in JOB_MOVES.items() for b in targets}
    assert moves == {
        ("in_progress", "completed"),
        ("in_progress", "failed"),
        ("in_progress", "cancelled"),
        ("failed", "in_progress"),
    }


def test_a_chunk_moves_as_the_architecture_says() -> None:
    moves = {(str(a), str(b)) for a, targets in CHUNK_MOVES.items() for b in targets}
    assert moves == {
        ("pending", "in_progress"),
        ("pending", "failed"),
        ("pending", "cancelled"),
        ("in_progress", "pending"),
        ("in_progress", "completed"),
        ("in_progress", "failed"),
        ("in_progress", "cancelled"),
        ("failed", "pending"),
    }


@pytest.mark.parametrize("status", ChunkStatus)
def test_the_sources_of_a_chunk_status_are_the_moves_read_backwards(status: ChunkStatus) -> None:
    assert set(chunk_sources(status)) == {a for a, b in CHUNK_MOVES.items() if status in b}


@pytest.mark.parametrize("status", JobStatus)
def test_the_sources_of_a_job_status_are_the_moves_read_backwards(status: JobStatus) -> None:
    assert set(job_sources(status)) == {a for a, b in JOB_MOVES.items() if status in b}


def test_every_status_has_a_row_in_the_table() -> None:
    assert set(JOB_MOVES) == set(JobStatus)
    assert set(CHUNK_MOVES) == set(ChunkStatus)
