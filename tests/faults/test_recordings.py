"""Row 27: long recordings, cut into chunks that end in any order."""

from __future__ import annotations

import threading
from collections import defaultdict
from functools import partial

import pytest

from tests.asr.sounds import RATE
from tests.faults import recordings
from tests.faults.engine_server import WORDS_AT_ONCE, Answer, Hit
from tests.faults.recordings import Samples, check_pieces, lay, noise, pieces_of_noise, submit
from tests.faults.row import Row
from tests.faults.world import World
from tests.helpers import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]
SHORT = 5.0
SHORT_PIECES = {"AUDIO_MAX_SECONDS": str(SHORT)}
MILLISECOND = 0.001


def check_all(row: Row, world: World, sounds: list[Samples], longest: float) -> None:
    """Each is transcribed whole, in as many calls as it has pieces, none of them next to empty."""
    jobs = [submit(row, world, lay(world, sound)) for sound in sounds]
    for job_id, sound in zip(jobs, sounds, strict=True):
        row.wait_for_end(job_id)
        chunks = check_pieces(row, world, job_id, sound)
        assert len(chunks) == pieces_of_noise(len(sound) / RATE, longest)
        assert min(chunk["durationSeconds"] for chunk in chunks) > recordings.PAUSE / 3
    row.verify()
    assert len(row.hits) == sum(len(row.read(job_id)["chunks"]) for job_id in jobs)


def test_row_27_six_minutes(row: Row) -> None:
    check_all(row, row.world(), [noise(360.0)], 300.0)


def test_row_27_six_minutes_are_cut_in_a_pause(row: Row) -> None:
    world, sound = row.world(), noise(360.0)
    sound[290 * RATE : 290 * RATE + RATE // 2] = 0
    job_id = submit(row, world, lay(world, sound))
    row.wait_for_end(job_id)
    first, second = check_pieces(row, world, job_id, sound)
    assert first["startTime"] == 0.0
    assert 290.0 < second["startTime"] < 290.5
    row.verify()


def test_row_27_one_and_three_times_a_chunk_to_the_millisecond(row: Row) -> None:
    """Of three times what a chunk may last, less than half a second is left for the last."""
    world = row.world(**SHORT_PIECES)
    lengths = [times * SHORT + more * MILLISECOND for times in (1, 3) for more in (-1, 0, 1)]
    assert [pieces_of_noise(length, SHORT) for length in lengths] == [1, 1, 2, 4, 4, 4]

    check_all(row, world, [noise(length) for length in lengths], SHORT)


def test_row_27_26_chunks_end_in_reverse(row: Row) -> None:
    world, sound = row.world(**SHORT_PIECES), noise(125.0)
    number = pieces_of_noise(125.0, SHORT)
    assert number == 26
    its_turn: dict[str, threading.Event] = defaultdict(threading.Event)

    def in_turn(hit: Hit) -> Answer:
        assert its_turn[hit.digest].wait(120)
        return WORDS_AT_ONCE

    world.engine.plan = in_turn
    job_id = submit(row, world, lay(world, sound))
    row.await_hits(number)
    for index, piece in reversed(list(enumerate(row.expect(job_id)))):
        its_turn[piece.digest].set()
        wait_until(partial(is_completed, row, job_id, index))
    row.wait_for_end(job_id)

    assert completed(row, job_id) == list(reversed(range(number)))
    assert len(check_pieces(row, world, job_id, sound)) == number
    row.verify()
    assert len(row.hits) == number


def completed(row: Row, job_id: str) -> list[int]:
    """The chunks that have been completed, in the order in which they were."""
    (job,) = [job for job in row.jobs() if job["job"] == job_id]
    return [e["data"]["index"] for e in job["events"] if e["type"] == "chunk.completed"]


def is_completed(row: Row, job_id: str, index: int) -> bool:
    return index in completed(row, job_id)
