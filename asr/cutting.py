"""Long recordings, cut into pieces where nobody speaks. For child processes: see `asr.audio`.

A recording is decoded as a stream, with no more than one piece of it in memory. A cut lies in the
quietest moment of the piece's last seconds, so that it falls into a pause where there is one.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from asr.audio import SAMPLE_RATE
from asr.decoding import encode_flac, stream

Samples = npt.NDArray[np.int16]

WINDOW_SECONDS = 30.0  # before the longest end of a piece, in which a pause is looked for
PAUSE_SECONDS = 0.3  # of which the quietest are a pause; closures within a word last 0.1 s
_FRAME = SAMPLE_RATE // 100


def plan(path: str, max_seconds: float, piece_seconds: float) -> list[int]:
    """Where the pieces end, in samples at 16 kHz; none for a recording without any.

    Raises AudioRejected: `audio_too_long` past `max_seconds`, `invalid_audio`.
    """
    longest = int(piece_seconds * SAMPLE_RATE)
    ends: list[int] = []
    waiting = np.empty(0, np.int16)
    position = 0
    with Path(path).open("rb") as file:
        for samples in _blocks(stream(file, max_seconds)):
            waiting = np.concatenate([waiting, samples])
            while len(waiting) > longest:
                cut = quietest(waiting[:longest])
                position += cut
                ends.append(position)
                waiting = waiting[cut:]
    return [*ends, position + len(waiting)] if len(waiting) else ends


def pieces(path: str, max_seconds: float, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    """Each span (start and end in samples, one after the other) as FLAC, 16 kHz mono."""
    found: list[list[Samples]] = [[] for _ in spans]
    position = 0
    with Path(path).open("rb") as file:
        for samples in _blocks(stream(file, max_seconds)):
            for piece, (start, end) in zip(found, spans, strict=True):
                low, high = max(start - position, 0), min(end - position, len(samples))
                if low < high:
                    piece.append(samples[low:high])
            position += len(samples)
            if position >= spans[-1][1]:
                break
    return [encode_flac(np.concatenate(piece)) for piece in found]


def quietest(samples: Samples) -> int:
    """Where to cut: the middle of the quietest PAUSE_SECONDS in the last WINDOW_SECONDS.

    Of several that are equally quiet the last one, so that pieces are long.
    """
    window = samples[-int(WINDOW_SECONDS * SAMPLE_RATE) :]
    frames = window[: len(window) // _FRAME * _FRAME].reshape(-1, _FRAME)
    loudness = np.square(frames.astype(np.float32)).mean(axis=1)
    width = int(PAUSE_SECONDS * SAMPLE_RATE / _FRAME)
    if len(loudness) < width:
        return len(samples)
    sums = np.convolve(loudness, np.ones(width, np.float32), mode="valid")
    first = len(sums) - 1 - int(np.argmin(sums[::-1]))
    return len(samples) - len(window) + (first + width // 2) * _FRAME


def _blocks(frames: Iterator[bytes]) -> Iterator[Samples]:
    """About a second at a time: frames are of 20 ms."""
    buffer = io.BytesIO()
    for frame in frames:
        buffer.write(frame)
        if buffer.tell() >= SAMPLE_RATE * 2:
            yield np.frombuffer(buffer.getvalue(), np.int16)
            buffer = io.BytesIO()
    if buffer.tell():
        yield np.frombuffer(buffer.getvalue(), np.int16)
