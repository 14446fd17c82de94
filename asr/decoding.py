"""Decoding with PyAV (FFmpeg): from any accepted file to 16 kHz mono int16. For child processes.

FFmpeg opens whatever a file asks for: a text that names other files or addresses (ffconcat, HLS,
SDP) passes for audio and is followed. So a file is opened from memory without a name, with
whitelists for formats, codecs and protocols, and with every further opening denied; each of these
was found to let something through when used alone.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NoReturn

import av
import av.error
import numpy as np
import numpy.typing as npt

from asr.audio import SAMPLE_RATE
from asr.errors import AudioRejected
from asr.types import AudioInfo

Samples = npt.NDArray[np.int16]

# Names of FFmpeg's demuxers, and the file suffix that stands for each.
_CONTAINERS = {
    "wav": "wav",
    "mp3": "mp3",
    "flac": "flac",
    "ogg": "ogg",
    "mov": "m4a",
    "matroska": "webm",
    "aac": "aac",
}
_CODECS = (
    "pcm_s16le,pcm_s24le,pcm_s32le,pcm_u8,pcm_f32le,pcm_f64le,pcm_s16be,pcm_alaw,pcm_mulaw,"
    "mp3float,mp3,flac,vorbis,opus,aac,alac"
)
_OPTIONS = {
    "protocol_whitelist": "none",
    "format_whitelist": ",".join(_CONTAINERS),
    "codec_whitelist": _CODECS,
}
_HEADERLESS = {"mp3", "aac"}  # anything may pass for these: without samples they are no audio
_RATES = range(1_000, 384_001)
_CHANNELS = range(1, 9)
_MAX_DAMAGED_PACKETS = 50  # a transmission error damages a few; beyond that it is not audio
_MAX_PADDING = SAMPLE_RATE // 10  # what an encoder's frames add at the end: at most 85 ms (AAC)
_UNDECODABLE = (av.error.FFmpegError, ValueError, OverflowError, MemoryError)


def measure(data: bytes, max_seconds: float) -> AudioInfo:
    """See `asr.audio.measure`."""
    samples, container = decode(data, max_seconds)
    return AudioInfo(
        duration_seconds=len(samples) / SAMPLE_RATE,
        container=container,
        digest=hashlib.sha256(samples.tobytes()).hexdigest(),
    )


def decode(data: bytes, max_seconds: float) -> tuple[Samples, str]:
    """Samples and container (as in `AudioInfo`). A valid file without samples is no error.

    Raises AudioRejected: `audio_too_long` as soon as more than `max_seconds` are decoded (so that
    24 hours of silence in 300 kB cost no more than that), `invalid_audio` for all else.
    """
    buffer = bytearray()
    with _opened(io.BytesIO(data)) as (container, track, frames):
        for block in _bounded(frames, max_seconds):
            buffer += block
        samples = np.frombuffer(buffer, np.int16)
        if container == "m4a":
            samples = _trimmed(samples, track)
    if len(samples) > max_seconds * SAMPLE_RATE:
        raise _too_long(max_seconds)
    if not len(samples) and container in _HEADERLESS:
        raise AudioRejected("invalid_audio", "no audio was found in this file")
    return samples, container


def stream(file: BinaryIO, max_seconds: float) -> Iterator[bytes]:
    """All samples in pieces of some milliseconds; the encoder's padding is not cut off.

    Raises AudioRejected, as `decode`, on the way.
    """
    with _opened(file) as (_, _, frames):
        yield from _bounded(frames, max_seconds)


def to_flac(data: bytes, max_seconds: float) -> bytes:
    """See `asr.audio.to_flac`."""
    return encode_flac(decode(data, max_seconds)[0])


def encode_flac(samples: Samples) -> bytes:
    """16 kHz mono FLAC."""
    target = io.BytesIO()
    with av.open(target, "w", format="flac") as file:
        track = file.add_stream("flac", rate=SAMPLE_RATE, layout="mono", format="s16")
        for first in range(0, len(samples), SAMPLE_RATE):
            some = samples[first : first + SAMPLE_RATE].reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(some, format="s16", layout="mono")
            frame.sample_rate = SAMPLE_RATE
            frame.pts = first
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
    return target.getvalue()


@contextmanager
def _opened(file: BinaryIO) -> Iterator[tuple[str, Any, Iterator[Any]]]:
    """Container, sound track and its frames, resampled; what FFmpeg raises is refused."""
    try:
        with av.open(file, options=_OPTIONS, io_open=_deny, metadata_errors="replace") as opened:
            track = _audio_stream(opened)
            container = _CONTAINERS[opened.format.name.split(",")[0]]
            yield container, track, _resampled(_packets(opened, track))
    except _UNDECODABLE as error:
        raise AudioRejected("invalid_audio", "this is not audio that can be decoded") from error


def _deny(url: str, *_: Any) -> NoReturn:
    raise PermissionError(url)


def _audio_stream(file: Any) -> Any:
    if not file.streams.audio:
        raise AudioRejected("invalid_audio", "this file has no sound track")
    stream = file.streams.audio[0]
    codec = stream.codec_context
    if (codec.rate or 0) not in _RATES or codec.channels not in _CHANNELS:
        raise AudioRejected("invalid_audio", "the file's sample rate or channels are impossible")
    return stream


def _packets(file: Any, stream: Any) -> Iterator[list[Any]]:
    """The frames of each packet; a few damaged packets are left out."""
    damaged = decoded = 0
    for packet in file.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            damaged += 1
            if damaged > _MAX_DAMAGED_PACKETS:
                raise
            continue
        decoded += len(frames)
        yield frames
    if damaged and not decoded:
        raise AudioRejected("invalid_audio", "nothing in this file can be decoded")


def _bounded(frames: Iterable[Any], max_seconds: float) -> Iterator[bytes]:
    """The frames' samples as int16; the end comes soon after `max_seconds`."""
    cap = int(max_seconds * SAMPLE_RATE) + _MAX_PADDING
    count = 0
    for frame in frames:
        count += frame.samples
        if count > cap:
            raise _too_long(max_seconds)
        yield bytes(memoryview(frame.planes[0])[: frame.samples * 2])  # what follows is padding


def _resampled(packets: Iterable[list[Any]]) -> Iterator[Any]:
    resampler: Any = None
    source = None
    for frame in (frame for frames in packets for frame in frames):
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        if shape != source:  # a damaged or joined file changes it on the way
            if resampler:
                yield from resampler.resample(None)
            resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            source = shape
        yield from resampler.resample(frame)
    if resampler:
        yield from resampler.resample(None)


def _trimmed(samples: Samples, stream: Any) -> Samples:
    """Without the encoder's padding: this container's duration of a stream is exact (measured)."""
    if stream.duration is None:
        return samples
    exact = round(stream.duration * stream.time_base * SAMPLE_RATE)
    return samples[:exact] if 0 < len(samples) - exact < _MAX_PADDING else samples


def _too_long(max_seconds: float) -> AudioRejected:
    return AudioRejected("audio_too_long", f"the audio is longer than {max_seconds:g} seconds")
