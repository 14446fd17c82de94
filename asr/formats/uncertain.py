"""Where the engine was in doubt: what a reader would check first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from asr.formats.transcript import Transcript
from asr.types import Word, join_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Consecutive doubtful words of one chunk; `confidence` is their mean."""

    index: int
    start: float
    end: float
    text: str
    confidence: float


def uncertain(transcript: Transcript, *, below: float) -> list[Span]:
    """The longest spans of words whose confidence is known and lies under `below`.

    A word without its own counts with its segment's; a segment without words is one word.
    """
    keyed = groupby(_words(transcript), key=lambda found: (found[0], _doubtful(found[1], below)))
    return [
        _span(index, [word for _, word in group]) for (index, doubtful), group in keyed if doubtful
    ]


def _doubtful(word: Word, below: float) -> bool:
    return word.confidence is not None and word.confidence < below


def _words(transcript: Transcript) -> Iterator[tuple[int, Word]]:
    """Every word with the index of its chunk and its confidence."""
    for segment in transcript.segments:
        index = transcript.chunk_of(segment)
        whole = Word(text=segment.text, start=segment.start, end=segment.end)
        for word in segment.words or (whole,):
            known = segment.confidence if word.confidence is None else word.confidence
            yield (
                index,
                Word(text=word.text, start=word.start, end=word.end, confidence=known),
            )


def _span(index: int, words: list[Word]) -> Span:
    known = [word.confidence for word in words if word.confidence is not None]
    return Span(
        index=index,
        start=words[0].start,
        end=words[-1].end,
        text=join_text(word.text for word in words),
        confidence=sum(known) / len(known),
    )
