"""Sounds to send: each another, made of the samples, so that no two are taken for the same."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from asr.audio import SAMPLE_RATE
from asr.decoding import decode
from transcription_site.env import BASE_DIR


def put(root: Path, user: str, count: int, *, first: int = 0) -> list[str]:
    """Lay `count` files of 4 to 5 s (about 90 kB of FLAC) under a root; their paths in it."""
    folder = root / user
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(first, first + count):
        (folder / f"{number:06d}.flac").write_bytes(sound(number))
        paths.append(f"{user}/{number:06d}.flac")
    return paths


def sound(number: int) -> bytes:
    """The number-th sound as FLAC: a sample with a mark of 20 ms at its start."""
    samples = _samples()[number % len(_samples())].copy()
    samples[:32] = [1000 if number >> bit & 1 else -1000 for bit in range(32)]
    target = io.BytesIO()
    with av.open(target, "w", format="flac") as file:
        stream = file.add_stream("flac", rate=SAMPLE_RATE, layout="mono", format="s16")
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        file.mux([packet for piece in (frame, None) for packet in stream.encode(piece)])
    return target.getvalue()


def short(number: int) -> bytes:
    """A WAV of half a second, of which the decoder makes little work."""
    samples = _samples()[number % len(_samples())][: SAMPLE_RATE // 2]
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.tobytes())
    return target.getvalue()


@cache
def _samples() -> list[npt.NDArray[np.int16]]:
    return list(_decoded())


def _decoded() -> Iterator[npt.NDArray[np.int16]]:
    for path in sorted((BASE_DIR / "samples").glob("*.flac")):
        yield decode(path.read_bytes(), 60)[0]
