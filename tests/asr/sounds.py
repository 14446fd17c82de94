"""Sound files for tests: the project's samples, and encoders for every format."""

from __future__ import annotations

import io
import json
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from asr.audio import decode
from asr.types import AudioInfo, AudioRequest

SAMPLES = Path(__file__).parents[2] / "samples"
MANIFEST: list[dict[str, Any]] = json.loads((SAMPLES / "manifest.json").read_text())
RATE = 16_000

# name: (PyAV's muxer, encoder, its sample format, its rate)
# FFmpeg's own Vorbis encoder is the only one in PyAV's wheels; it is stereo and "experimental".
ENCODINGS = {
    "wav": ("wav", "pcm_s16le", "s16", 16_000),
    "mp3": ("mp3", "libmp3lame", "s16p", 44_100),
    "flac": ("flac", "flac", "s16", 16_000),
    "ogg": ("ogg", "vorbis", "fltp", 44_100),
    "opus": ("ogg", "libopus", "s16", 48_000),
    "m4a": ("ipod", "aac", "fltp", 44_100),
    "mp4": ("mp4", "aac", "fltp", 16_000),
    "aac": ("adts", "aac", "fltp", 16_000),
    "webm": ("webm", "libopus", "s16", 48_000),
}


def sample(index: int) -> bytes:
    return SAMPLES.joinpath(MANIFEST[index]["file"]).read_bytes()


def samples_of(data: bytes) -> npt.NDArray[np.int16]:
    return decode(data, 600)


def encode(sound: npt.NDArray[np.int16], encoding: str) -> bytes:
    """16 kHz mono samples as a file."""
    muxer, codec, sample_format, rate = ENCODINGS[encoding]
    target = io.BytesIO()
    with av.open(target, "w", format=muxer) as file:
        layout = "stereo" if codec == "vorbis" else "mono"
        stream: Any = file.add_stream(
            codec, rate=rate, layout=layout, format=sample_format, options={"strict": "-2"}
        )
        file.start_encoding()
        size = stream.codec_context.frame_size or 4096
        resampler = av.AudioResampler(sample_format, layout, rate, frame_size=size)
        frames = []
        if len(sound):
            frame = av.AudioFrame.from_ndarray(sound.reshape(1, -1), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
            frames = [*resampler.resample(frame), *resampler.resample(None)]
        for piece in (*frames, None):
            file.mux(stream.encode(piece))
    return target.getvalue()


def wav(sound: bytes, *, claimed: int | None = None, rate: int = RATE, channels: int = 1) -> bytes:
    """A WAV file whose header may lie about length, rate and channels."""
    size = len(sound) if claimed is None else claimed
    shape = struct.pack("<HHIIHH", 1, channels, rate, 2 * RATE, 2, 16)
    riff = struct.pack("<I", min(size + 36, 0xFFFFFFFF))
    return (
        b"".join(
            (
                b"RIFF",
                riff,
                b"WAVEfmt ",
                struct.pack("<I", 16),
                shape,
                b"data",
                struct.pack("<I", size),
            )
        )
        + sound
    )


def tone(seconds: float, hertz: float = 440.0) -> npt.NDArray[np.int16]:
    times = np.arange(int(seconds * RATE)) / RATE
    return (8_000 * np.sin(2 * np.pi * hertz * times)).astype(np.int16)


def silence(seconds: float) -> npt.NDArray[np.int16]:
    return np.zeros(int(seconds * RATE), np.int16)


def noise(seconds: float) -> npt.NDArray[np.int16]:
    return np.random.default_rng(1).normal(0, 2_000, int(seconds * RATE)).astype(np.int16)


def silent_flac(hours: int) -> bytes:
    """Hours of silence in a few kilobytes."""
    target = io.BytesIO()
    with av.open(target, "w", format="flac") as file:
        stream: Any = file.add_stream("flac", rate=1_000, layout="mono", format="s16")
        stream.codec_context.options = {"frame_size": "65535"}
        block = np.zeros((1, 65_535), np.int16)
        for _ in range(hours * 3_600 * 1_000 // 65_535):
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate = 1_000
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return target.getvalue()


def request(
    data: bytes, *, seconds: float, container: str = "flac", **options: Any
) -> AudioRequest:
    info = AudioInfo(duration_seconds=seconds, container=container, digest="0" * 64)
    return AudioRequest(data=data, info=info, **options)
