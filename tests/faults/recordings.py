"""Long recordings whose pieces are known: how many there are to be, and that nothing is missing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from asr.decoding import decode
from tests.asr.sounds import RATE, wav
from tests.faults.row import Row
from tests.faults.world import USER, World

Samples = npt.NDArray[np.int16]
LOUDNESS = 1000
PAUSE = 0.3  # of which the quietest is cut in its middle, of several the last


def noise(seconds: float) -> Samples:
    """As loud in each moment as in any other, and like no other: without a pause to cut in."""
    signs = np.random.default_rng().integers(0, 2, round(seconds * RATE), np.int16)
    return LOUDNESS * (2 * signs - 1)


def pieces_of_noise(seconds: float, longest: float) -> int:
    """Into how many chunks noise is to be cut: each ends in the last pause that there may be."""
    number, left = 1, seconds
    while left > longest:
        number, left = number + 1, left - (longest - PAUSE / 2)
    return number


def lay(world: World, sound: Samples) -> str:
    """A recording under the audio root; its path for the API."""
    folder = world.audio_root / USER
    folder.mkdir(exist_ok=True)
    file = folder / f"{time.time_ns():x}.wav"
    file.write_bytes(wav(sound.tobytes()))
    return f"{USER}/{file.name}"


def submit(row: Row, world: World, path: str) -> str:
    """Have it transcribed; the job."""
    body = {"recordingPath": path, "userId": USER}
    return row.taken(world.client.post("/transcribe", json=body))


def check_pieces(row: Row, world: World, job_id: str, sound: Samples) -> list[Mapping[str, Any]]:
    """The job is whole, to the sample, and its times are right; its chunks."""
    row.expect(job_id)
    result = row.read(job_id)
    assert result["jobStatus"] == "completed", result
    chunks: list[Mapping[str, Any]] = result["chunks"]
    files = [world.audio_root / chunk["audioChunkPath"] for chunk in chunks]
    found = [decode(file.read_bytes(), 7200)[0] for file in files]
    assert np.array_equal(np.concatenate(found), sound), "a sample is missing, or two are swapped"
    begins = np.cumsum([0, *map(len, found)]) / RATE
    for chunk, samples, begin in zip(chunks, found, begins[:-1], strict=True):
        assert abs(chunk["startTime"] - begin) < 0.001
        assert abs(chunk["durationSeconds"] - len(samples) / RATE) < 0.001
    assert abs(result["durationSeconds"] - len(sound) / RATE) < 0.05
    check_times(world, job_id, len(sound) / RATE)
    return chunks


def check_times(world: World, job_id: str, seconds: float) -> None:
    """Segments and words follow each other, and the last ends with the sound."""
    exported = world.client.get(f"/transcript/{job_id}/export/json").json()
    for parts in (exported["segments"], [w for s in exported["segments"] for w in s["words"]]):
        starts = [part["start"] for part in parts]
        assert starts == sorted(starts)
        assert all(part["start"] <= part["end"] for part in parts)
        assert abs(parts[-1]["end"] - seconds) < 0.05
