"""Row 19: the disk of the audio root is full."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from tests.asr.sounds import wav
from tests.faults import recordings
from tests.faults.row import Row
from tests.faults.small_disk import TOLD_SO, small_disk
from tests.faults.world import USER, World
from tests.helpers import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]
LEFT_BYTES = 700_000  # enough for some of the files and not for all
PIECE_SECONDS = 5.0
WAV_HEADER = 44


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def assert_no_room(answer: httpx2.Response) -> None:
    assert answer.status_code == 507, answer.text
    assert [error["code"] for error in answer.json()["errors"]] == ["insufficient_storage"]


def by_form(world: World, contents: list[bytes]) -> httpx2.Response:
    files = [("audioChunks", ("a.wav", content, "audio/wav")) for content in contents]
    return world.client.post("/transcribe", data={"userId": USER}, files=files)


def announce(world: World, content: bytes) -> dict[str, Any]:
    """Say that a recording is to come; what the service says to that."""
    asked = {"fileName": "a.wav", "contentType": "audio/wav", "kind": "recording", "userId": USER}
    answer = world.client.post("/uploads", json=asked | {"sizeBytes": len(content)})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def put(upload: dict[str, Any], content: bytes) -> httpx2.Response:
    return httpx2.put(upload["uploadUrl"], content=content, headers=upload["headers"])


def waits(world: World, job_id: str) -> list[int]:
    """The attempts that its recording has cost, once somebody could not cut it."""
    columns = "job_id, attempts, lease_token, not_before"
    rows = world.database.read(f"SELECT {columns} FROM jobs_recording")
    mine = [row for row in rows if row["job_id"] == job_id and row["lease_token"] is None]
    return [row["attempts"] for row in mine if row["not_before"] > time.time()]


def test_row_19_the_disk_is_full(row: Row) -> None:
    world = row.fresh_world(AUDIO_MAX_SECONDS=str(PIECE_SECONDS), **TOLD_SO)
    sound = recordings.noise(9 * PIECE_SECONDS)
    large = wav(recordings.noise(9 * PIECE_SECONDS).tobytes())
    small = [wav(recordings.noise(PIECE_SECONDS).tobytes()) for _ in range(6)]
    with small_disk(world) as disk:
        row.note(f"the disk was {disk.what}")
        by_path, recording = row.audio(3), recordings.lay(world, sound)
        row.wait_for_end(row.submit(row.audio(2)))
        before = files_below(world.audio_root)

        row.fault("no room is left under the audio root")
        disk.fill(LEFT_BYTES)
        assert_no_room(by_form(world, small))
        upload = announce(world, large)
        for _ in range(2):
            assert_no_room(put(upload, large))
        job_id = recordings.submit(row, world, recording)
        wait_until(lambda: waits(world, job_id), 60)
        assert waits(world, job_id) == [0], "a full disk costs no attempt"
        assert (row.read(job_id)["jobStatus"], row.read(job_id)["chunks"]) == ("in_progress", [])
        row.wait_for_end(row.submit(by_path))  # who only reads needs no room
        disk.free()
        assert files_below(world.audio_root) == before, "no part of a file remains"
        freed = row.fault("there is room again")

        row.wait_for_end(job_id)
        row.recovered(time.monotonic() - freed)
        chunks = recordings.check_pieces(row, world, job_id, sound)
        assert len(chunks) == recordings.pieces_of_noise(9 * PIECE_SECONDS, PIECE_SECONDS)
        repeat_what_was_refused(row, world, small, upload, large)
        row.verify()


def repeat_what_was_refused(
    row: Row, world: World, small: list[bytes], upload: dict[str, Any], large: bytes
) -> None:
    """Now it is taken, whole."""
    by_files = row.taken(by_form(world, small))
    assert put(upload, large).status_code == 204
    by_upload = recordings.submit(row, world, upload["recordingPath"])
    row.wait_for_end(by_files)
    row.expect(by_files)
    paths = [chunk["audioChunkPath"] for chunk in row.read(by_files)["chunks"]]
    assert [(world.audio_root / path).read_bytes() for path in paths] == small
    row.wait_for_end(by_upload)
    recordings.check_pieces(row, world, by_upload, np.frombuffer(large[WAV_HEADER:], np.int16))
