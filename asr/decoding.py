"""Decoding with PyAV (FFmpeg): from any accepted file to 16 kHz mono int16. For child processes.

FFmpeg opens whatever a file asks for: a text that names other files or addresses (ffconcat, HLS,
SDP) passes for audio and is followed. So a file is opened from memory without a name, with
whitelists for formats, codecs and protocols, and with every further opening denied; each of these
was found to let something through when used alone.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
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
_MAX_PADDING_SECONDS = 0.1  # what an encoder's frames add at the end: at most 85 ms (AAC)
_UNDECODABLE = (av.error.FFmpegError, ValueError, OverflowError, MemoryError)


def measure(data: bytes, max_seconds: float) -> AudioInfo:
    """See `asr.audio.measure`. Frames are taken as they are: resampling is 40 % of the work."""
    digest = hashlib.sha256()
    samples: Counter[int] = Counter()  # by sample rate: sums of seconds would not be exact
    seconds, shape = 0.0, None
    with _opened(data) as (container, file, stream):
        for frame in chain.from_iterable(_packets(file, stream)):
            if shape != (shape := _shape(frame)):
                digest.update(repr(shape).encode())
            for content in _planes(frame):
                digest.update(content)
            samples[frame.sample_rate] += frame.samples
            seconds = sum(count / rate for rate, count in samples.items())
            if seconds > max_seconds + _MAX_PADDING_SECONDS:
                raise _too_long(max_seconds)
        seconds -= _padding(seconds, container, stream)
    _check(seconds, max_seconds, container)
    return AudioInfo(duration_seconds=seconds, container=container, digest=digest.hexdigest())


def decode(data: bytes, max_seconds: float) -> Samples:
    """All samples, resampled. A valid file without samples is no error.

    Raises AudioRejected: `audio_too_long` as soon as more than `max_seconds` are decoded (so that
    24 hours of silence in 300 kB cost no more than that), `invalid_audio` for all else.
    """
    buffer = bytearray()
    cap = int((max_seconds + _MAX_PADDING_SECONDS) * SAMPLE_RATE) * 2
    with _opened(data) as (container, file, stream):
        for frame in _resampled(_packets(file, stream)):
            buffer += b"".join(_planes(frame))
            if len(buffer) > cap:
                raise _too_long(max_seconds)
        samples = np.frombuffer(buffer, np.int16)
        padding = _padding(len(samples) / SAMPLE_RATE, container, stream)
    samples = samples[: len(samples) - round(padding * SAMPLE_RATE)]
    _check(len(samples) / SAMPLE_RATE, max_seconds, container)
    return samples


def to_flac(data: bytes, max_seconds: float) -> bytes:
    """See `asr.audio.to_flac`."""
    samples = decode(data, max_seconds)
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


@contextmanager
def _opened(data: bytes) -> Iterator[tuple[str, Any, Any]]:
    """Container (as in `AudioInfo`), file and sound track; what FFmpeg raises is refused."""
    try:
        with av.open(
            io.BytesIO(data), options=_OPTIONS, io_open=_deny, metadata_errors="replace"
        ) as file:
            yield _CONTAINERS[file.format.name.split(",")[0]], file, _audio_stream(file)
    except _UNDECODABLE as error:
        raise AudioRejected("invalid_audio", "this is not audio that can be decoded") from error


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


def _resampled(packets: Iterable[list[Any]]) -> Iterator[Any]:
    resampler: Any = None
    source = None
    for frame in (frame for frames in packets for frame in frames):
        shape = frame.format.name, frame.layout.name, frame.sample_rate
        if shape != source:  # a damaged or joined file changes it on the way
            if resampler:
                yield from resampler.resample(None)
            resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            source = shape
        yield from resampler.resample(frame)
    if resampler:
        yield from resampler.resample(None)


def _shape(frame: Any) -> tuple[str, int, int]:
    # Not the layout's name, which not every container tells.
    return frame.format.packed.name, frame.layout.nb_channels, frame.sample_rate


def _planes(frame: Any) -> Iterator[memoryview]:
    """The samples of each channel, or of all when they are interleaved."""
    size = frame.samples * frame.format.bytes
    if not frame.format.is_planar:
        size *= frame.layout.nb_channels
    for plane in frame.planes:
        yield memoryview(plane)[:size]  # what follows is padding


def _padding(seconds: float, container: str, stream: Any) -> float:
    """What the encoder added: a stream's duration is exact in this container (measured)."""
    if container != "m4a" or stream.duration is None:
        return 0.0
    excess = seconds - float(stream.duration * stream.time_base)
    return excess if 0 < excess < _MAX_PADDING_SECONDS else 0.0


def _check(seconds: float, max_seconds: float, container: str) -> None:
    if seconds > max_seconds:
        raise _too_long(max_seconds)
    if not seconds and container in _HEADERLESS:
        raise AudioRejected("invalid_audio", "no audio was found in this file")


def _too_long(max_seconds: float) -> AudioRejected:
    return AudioRejected("audio_too_long", f"the audio is longer than {max_seconds:g} seconds")
