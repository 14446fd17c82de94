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
from typing import Any, NoReturn

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
    try:
        with av.open(
            io.BytesIO(data), options=_OPTIONS, io_open=_deny, metadata_errors="replace"
        ) as file:
            container = _CONTAINERS[file.format.name.split(",")[0]]
            stream = _audio_stream(file)
            buffer = _collected(_packets(file, stream), max_seconds)
            samples = np.frombuffer(buffer, np.int16)
            if container == "m4a":
                samples = _trimmed(samples, stream)
    except _UNDECODABLE as error:
        raise AudioRejected("invalid_audio", "this is not audio that can be decoded") from error
    if len(samples) > max_seconds * SAMPLE_RATE:
        raise _too_long(max_seconds)
    if not len(samples) and container in _HEADERLESS:
        raise AudioRejected("invalid_audio", "no audio was found in this file")
    return samples, container


def to_flac(data: bytes, max_seconds: float) -> bytes:
    """See `asr.audio.to_flac`."""
    samples, _ = decode(data, max_seconds)
    target = io.BytesIO()
    with av.open(target, "w", format="flac") as file:
        stream = file.add_stream("flac", rate=SAMPLE_RATE, layout="mono", format="s16")
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        for packets in (stream.encode(frame), stream.encode(None)):
            file.mux(packets)
    return target.getvalue()


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


def _collected(packets: Iterable[list[Any]], max_seconds: float) -> bytearray:
    """All frames as 16 kHz mono int16; the buffer never holds much more than `max_seconds`."""
    buffer = bytearray()
    cap = (int(max_seconds * SAMPLE_RATE) + _MAX_PADDING) * 2
    for frame in _resampled(packets):
        buffer += memoryview(frame.planes[0])[: frame.samples * 2]  # what follows is padding
        if len(buffer) > cap:
            raise _too_long(max_seconds)
    return buffer


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
