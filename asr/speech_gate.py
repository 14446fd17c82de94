"""Where is there speech? The gate that keeps PocketSphinx from hearing words in noise.

Without it ten seconds of digital silence are the word "dog", with probability 1. The voice
detector rejects silence but takes tones and loud noise for speech; what it lets through must
also rise and fall as speech does. For child processes: numpy is imported.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from pocketsphinx import Segmenter

from asr.audio import SAMPLE_RATE

Samples = npt.NDArray[np.int16]
Span = tuple[int, int]  # first sample, and the one after the last

_FRAME = SAMPLE_RATE // 40  # 25 ms
_PADDING = int(0.3 * SAMPLE_RATE)  # the detector cuts words' edges off: 27.5 % wrong, 24.3 with it
_PAUSE = SAMPLE_RATE  # spans closer than this are joined
_LONGEST = 20 * SAMPLE_RATE
_WHOLE = 60 * SAMPLE_RATE  # up to here the whole clip gives the fewest wrong words (measured)
_DYNAMICS_DB = 6.0  # noise and tones stay below, speech had 11 and more (measured)


def speech_spans(samples: Samples) -> list[Span]:
    """The spans to recognise, in order: none without speech, the whole of a short clip."""
    spans = [
        span for span in _detected(samples) if _dynamics(samples[slice(*span)]) >= _DYNAMICS_DB
    ]
    if spans and len(samples) <= _WHOLE:
        return [(0, len(samples))]
    return [piece for span in spans for piece in _pieces(samples, *span)]


def _detected(samples: Samples) -> list[Span]:
    spans: list[Span] = []
    segmenter = Segmenter(sample_rate=SAMPLE_RATE)
    sound = samples.tobytes()
    if len(sound) % segmenter.frame_bytes == 0:
        # It closes the last segment only at a frame that is not full: without one, speech up to
        # the end of the file is never reported.
        sound += b"\0\0"
    for heard in segmenter.segment(io.BytesIO(sound)):
        start = max(0, int(heard.start_time * SAMPLE_RATE) - _PADDING)
        end = min(len(samples), int(heard.end_time * SAMPLE_RATE) + _PADDING)
        if spans and start - spans[-1][1] < _PAUSE and end - spans[-1][0] <= _LONGEST:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((max(start, spans[-1][1]) if spans else start, end))
    return spans


def _dynamics(samples: Samples) -> float:
    """How far loud frames stand above quiet ones, in dB."""
    levels = _levels(samples)
    if not len(levels):
        return 0.0
    return float(np.percentile(levels, 95) - np.percentile(levels, 10))


def _pieces(samples: Samples, start: int, end: int) -> Iterator[Span]:
    """Cut a span at its quietest frames until no piece is too long: the detector has no limit."""
    while end - start > _LONGEST:
        earliest = start + _LONGEST // 2
        quietest = int(np.argmin(_levels(samples[earliest : start + _LONGEST])))
        cut = earliest + quietest * _FRAME + _FRAME // 2
        yield start, cut
        start = cut
    yield start, end


def _levels(samples: Samples) -> npt.NDArray[np.float64]:
    """The level of each 25 ms frame in dB, 0 for digital silence."""
    whole = len(samples) // _FRAME * _FRAME
    frames = samples[:whole].reshape(-1, _FRAME).astype(np.float64)
    levels: npt.NDArray[np.float64] = 20 * np.log10(np.sqrt((frames**2).mean(axis=1)) + 1)
    return levels
