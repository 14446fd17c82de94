"""Uploaded audio as the rest of the project sees it; the work is done in child processes.

PyAV and numpy are imported only there: `asr.decoding` is not for the parent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asr.child_pool import ChildPool
from asr.types import AudioInfo

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SAMPLE_RATE = 16_000  # what PocketSphinx' and Whisper's models were trained on
# OpenAI answers 400 "Audio file is too short. Minimum audio length is 0.1 seconds."
MIN_RECOGNISABLE_SECONDS = 0.1


def inspect(pool: ChildPool, data: bytes, *, max_seconds: float, limit: float) -> AudioInfo:
    """Measure a file in a child process, within `limit` seconds.

    Raises AudioRejected, or what `ChildPool.run` raises; ChildBusy when half of the time went by
    waiting for a child: in a crowd of long files the engine's time would be spent in the queue.
    """
    return pool.run(measure, data, max_seconds, limit=limit, patience=limit / 2)


def measure(data: bytes, max_seconds: float) -> AudioInfo:
    """Decode a file for what is to be known of it. For a child process; raises AudioRejected."""
    from asr import decoding  # noqa: PLC0415  (heavy, see above)

    return decoding.measure(data, max_seconds)


def decode(data: bytes, max_seconds: float) -> npt.NDArray[np.int16]:
    """A file's samples, 16 kHz mono. For a child process; raises AudioRejected."""
    from asr import decoding  # noqa: PLC0415

    return decoding.decode(data, max_seconds)[0]


def samples(data: bytes, max_seconds: float) -> bytes:
    """What `decode` returns, as bytes: so it leaves a child process. Raises AudioRejected."""
    return decode(data, max_seconds).tobytes()


def plan_cuts(path: str, max_seconds: float, piece_seconds: float) -> list[int]:
    """See `asr.cutting.plan`. For a child process; raises AudioRejected."""
    from asr import cutting  # noqa: PLC0415

    return cutting.plan(path, max_seconds, piece_seconds)


def cut(path: str, max_seconds: float, spans: list[tuple[int, int]]) -> list[bytes]:
    """See `asr.cutting.pieces`. For a child process."""
    from asr import cutting  # noqa: PLC0415

    return cutting.pieces(path, max_seconds, spans)


def to_flac(data: bytes, max_seconds: float) -> bytes:
    """A file as 16 kHz mono FLAC, for engines that refuse its container. For a child process."""
    from asr import decoding  # noqa: PLC0415

    return decoding.to_flac(data, max_seconds)
