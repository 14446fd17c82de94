"""Long recordings are cut in pauses, and nothing of them is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from asr import audio, cutting
from asr.errors import AudioRejected
from tests.asr.sounds import encode, sample, samples_of

RATE = 16_000


def speech(seconds: float, pause: float = 0.5) -> tuple[npt.NDArray[np.int16], list[float]]:
    """Sentences with pauses between, and the middles of these pauses."""
    pieces, middles, length, number = [], [], 0, 0
    while length < seconds * RATE:
        sentence = samples_of(sample(number % 6))
        quiet = np.zeros(int(pause * RATE), np.int16)
        pieces += [sentence, quiet]
        middles.append((length + len(sentence) + len(quiet) / 2) / RATE)
        length += len(sentence) + len(quiet)
        number += 1
    return np.concatenate(pieces)[: int(seconds * RATE)], middles


def cut(tmp_path: Path, data: bytes, piece_seconds: float) -> list[float]:
    file = tmp_path / "recording"
    file.write_bytes(data)
    return [end / RATE for end in cutting.plan(str(file), 7200, piece_seconds)]


@pytest.mark.parametrize("encoding", ["wav", "flac", "mp3"])
def test_each_cut_lies_in_a_pause(tmp_path: Path, encoding: str) -> None:
    sound, pauses = speech(150)
    ends = cut(tmp_path, encode(sound, encoding), 40)
    assert ends[-1] == pytest.approx(150, abs=0.1)
    for end in ends[:-1]:
        assert min(abs(end - middle) for middle in pauses) < 0.2
    lengths = np.diff([0, *ends])
    assert max(lengths) <= 40
    assert min(lengths[:-1]) >= 40 - cutting.WINDOW_SECONDS


def test_without_a_pause_it_is_cut_all_the_same(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 3000, 100 * RATE).astype(np.int16)
    ends = cut(tmp_path, encode(noise, "flac"), 40)
    assert ends[-1] == 100
    assert max(np.diff([0, *ends])) <= 40


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_a_recording_of_exactly_some_pieces_has_no_empty_last_one(
    tmp_path: Path, extra: int
) -> None:
    length = 40 * RATE + extra * RATE // 1000
    ends = cut(tmp_path, encode(np.full(length, 9, np.int16), "flac"), 40)
    assert ends[-1] == length / RATE
    assert all(np.diff([0, *ends]) > 0)
    assert len(ends) == (1 if extra <= 0 else 2)


def test_the_pieces_are_the_recording(tmp_path: Path) -> None:
    sound, _ = speech(30)
    file = tmp_path / "recording"
    file.write_bytes(encode(sound, "flac"))
    ends = cutting.plan(str(file), 60, 8)
    spans = list(zip([0, *ends], ends, strict=False))
    made = [
        data
        for first in range(0, len(spans), 2)
        for data in cutting.pieces(str(file), 60, spans[first : first + 2])
    ]
    assert np.array_equal(np.concatenate([audio.decode(data, 60) for data in made]), sound)


def test_what_is_too_long_or_no_sound_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "recording"
    file.write_bytes(encode(np.zeros(20 * RATE, np.int16), "flac"))
    with pytest.raises(AudioRejected) as caught:
        cutting.plan(str(file), 10, 5)
    assert caught.value.code == "audio_too_long"
    file.write_bytes(b"#EXTM3U\nhttp://127.0.0.1/secret")
    with pytest.raises(AudioRejected) as caught:
        cutting.plan(str(file), 10, 5)
    assert caught.value.code == "invalid_audio"
    file.write_bytes(encode(np.empty(0, np.int16), "flac"))
    assert cutting.plan(str(file), 10, 5) == []
