"""The embedded engine: PocketSphinx with the US English model of its package, on this machine."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import Any

from asr.audio import SAMPLE_RATE, decode
from asr.child_pool import ChildPool
from asr.service import TranscriptionService
from asr.types import AudioRequest, Capabilities, Recognition, Segment, Word, join_text

MODEL = "en-us"
# Of about fifty settings tried on 280 words these gave the fewest wrong ones (21 % against 24 %).
_SETTINGS = {"lponlybeam": 1e-40, "fwdflatefwid": 2, "fwdflatsfwin": 50}
_FRAMES_PER_SECOND = 100
_BYTES_PER_SECOND = 2 * SAMPLE_RATE
_PAUSE_SECONDS = 0.5  # between two words: a new segment begins, fit for a subtitle
_LENGTH_MARGIN_SECONDS = 1.0  # the file was measured before: this limit is never met
_NOT_A_WORD = re.compile(r"<.*>|\[.*\]|\+\+.*\+\+")  # silence, noise and breath
_VARIANT = re.compile(r"\(\d+\)$")  # "the(2)": the second pronunciation of "the"

_decoder: Any = None  # one per child process: loading takes 0.25 s and 100 MB


class PocketSphinxEngine(TranscriptionService):
    """Recognises English in a child process; needs neither network nor key."""

    name = "pocketsphinx"
    model = MODEL
    capabilities = Capabilities(
        languages=frozenset({"en"}),
        words=True,
        vocabulary=False,
        diarization=False,
        runs_locally=True,
        price_per_minute=0.0,
    )

    def __init__(self, *, pool: ChildPool) -> None:
        self._pool = pool

    def transcribe(self, request: AudioRequest) -> Recognition:
        """See `TranscriptionService.transcribe`."""
        segments = self._pool.run(
            recognise,
            request.data,
            request.info.duration_seconds + _LENGTH_MARGIN_SECONDS,
            limit=request.deadline_seconds,
            hear=request.hear,
        )
        return Recognition(segments=segments, engine=self.name, model=self.model, language="en")

    def verify(self, limit: float) -> None:
        """See `TranscriptionService.verify`; loads the model in a child process."""
        self._pool.run(load, limit=limit)


def load() -> None:
    """Load the model, if it is not loaded yet. For a child process."""
    _loaded_decoder()


def recognise(data: bytes, max_seconds: float) -> Generator[str, None, tuple[Segment, ...]]:
    """The segments of a file's sound. For a child process.

    Yields the text so far before each further stretch of speech, and never within one: a decoder
    that is asked for what it has so far would have to be fed in blocks.
    """
    from asr.speech_gate import speech_spans  # noqa: PLC0415  (heavy)

    samples = decode(data, max_seconds)
    segments: list[Segment] = []
    for start, end in speech_spans(samples):
        if segments:
            yield join_text(segment.text for segment in segments)
        segments += _segments(_words(samples[start:end].tobytes(), start / SAMPLE_RATE))
    return tuple(segments)


def _words(sound: bytes, offset: float) -> Iterator[Word]:
    decoder = _loaded_decoder()
    # Without this the words depend on what the decoder heard before.
    decoder.reinit_feat()
    decoder.start_utt()
    # In one go: fed in blocks, it estimates the loudness too late and twice as much goes wrong.
    decoder.process_raw(sound, full_utt=True)
    decoder.end_utt()
    end_of_sound = len(sound) / _BYTES_PER_SECOND
    for heard in decoder.seg() or ():
        if not _NOT_A_WORD.fullmatch(heard.word):
            yield Word(
                text=_VARIANT.sub("", heard.word),
                start=offset + heard.start_frame / _FRAMES_PER_SECOND,
                end=offset + min(end_of_sound, (heard.end_frame + 1) / _FRAMES_PER_SECOND),
                confidence=min(1.0, heard.prob),
            )


def _segments(words: Iterator[Word]) -> Iterator[Segment]:
    group: list[Word] = []
    for word in words:
        if group and word.start - group[-1].end >= _PAUSE_SECONDS:
            yield _segment(group)
            group = []
        group.append(word)
    if group:
        yield _segment(group)


def _segment(words: list[Word]) -> Segment:
    confidences = [word.confidence for word in words if word.confidence is not None]
    return Segment(
        text=" ".join(word.text for word in words),
        start=words[0].start,
        end=words[-1].end,
        words=tuple(words),
        confidence=sum(confidences) / len(confidences),
    )


def _loaded_decoder() -> Any:
    global _decoder  # noqa: PLW0603
    if _decoder is None:
        from pocketsphinx import Decoder  # noqa: PLC0415  (heavy)

        _decoder = Decoder(samprate=SAMPLE_RATE, loglevel="FATAL", **_SETTINGS)
    return _decoder
