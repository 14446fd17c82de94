"""What goes into an engine and what comes out of it. All times are seconds as float."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

# Han, kana, bopomofo, their punctuation and full-width forms: scripts written without spaces.
# Hangul is left out: Korean puts spaces between words.
CJK = "\u2e80-\u312f\u31a0-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff"
_SPACE_WITHIN_CJK = re.compile(f"(?<=[{CJK}]) (?=[{CJK}])")


def join_text(pieces: Iterable[str]) -> str:
    """Join pieces of a text by one space, and by none where two CJK characters meet.

    What no database takes is left out.
    """
    return _SPACE_WITHIN_CJK.sub("", " ".join(_storable(" ".join(pieces)).split()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One word as it was heard; `confidence` lies between 0 and 1, None where it is unknown.

    `edited`: a person wrote it, and its times are an estimate.
    """

    text: str
    start: float
    end: float
    confidence: float | None = None
    speaker: str | None = None
    edited: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of speech, as long as one would show it in a subtitle.

    `index` is that of its chunk, in a transcript of several.
    """

    text: str
    start: float
    end: float
    words: tuple[Word, ...] = ()
    confidence: float | None = None
    speaker: str | None = None
    index: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioInfo:
    """What decoding a file has shown.

    `duration_seconds` counts decoded samples and never repeats what the container claims.
    `container` is a file suffix: wav, mp3, flac, ogg, m4a (mov family), webm (matroska) or aac.
    `digest` is the SHA-256 (hex) of the samples as 16 kHz mono int16: equal sound, equal digest.
    """

    duration_seconds: float
    container: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioRequest:
    """One file to be recognised within `deadline_seconds`, with the options of its job.

    `expected_language` is what the chunks before it were spoken in, for an engine that detects the
    language and is in doubt: a hint and no order. Like `language` it is a language tag.

    `hear` takes the text so far, from an engine that has some before the end: in the thread that
    called, and as often as there is more. It must not raise. No part of what is asked.
    """

    data: bytes
    info: AudioInfo
    language: str | None = None
    expected_language: str | None = None
    vocabulary: tuple[str, ...] = ()
    diarize: bool = False
    deadline_seconds: float = 120.0
    hear: Callable[[str], object] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the vendor says that it counted; None where it does not say."""

    seconds: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognition:
    """What an engine heard; no segments when there was nothing to hear.

    `language_confidence` lies between 0 and 1; None where the language was given or the engine
    does not say.
    """

    segments: tuple[Segment, ...]
    engine: str
    model: str
    language: str | None = None
    language_confidence: float | None = None
    usage: Usage | None = None

    @property
    def text(self) -> str:
        """All segments' texts as one."""
        return join_text(segment.text for segment in self.segments)

    @property
    def confidence(self) -> float | None:
        """See `mean_confidence`."""
        return mean_confidence(segments_to_json(self.segments))


def mean_confidence(segments: Iterable[dict[str, Any]]) -> float | None:
    """The mean over all words; a word without its own counts with its segment's.

    None where no word's is known.

    Args:
        segments: as `segments_to_json` makes them.
    """
    known = [
        confidence
        for segment in segments
        for confidence in _confidences(segment)
        if confidence is not None
    ]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an engine can do.

    `languages` None: any language with an ISO 639-1 code. `max_seconds` and `max_bytes` are the
    most that it takes in one file, `max_vocabulary_terms` and `max_vocabulary_tokens` (as
    `asr.service.token_count` counts them) the most that it reads of a vocabulary; None: no limit is
    known. `price_per_minute` is the vendor's list price in US dollars for a minute of sound; 0
    where nobody is paid, None where it is not known.
    """

    languages: frozenset[str] | None
    words: bool
    vocabulary: bool
    diarization: bool
    runs_locally: bool
    detects_language: bool = False
    max_seconds: float | None = None
    max_bytes: int | None = None
    max_vocabulary_terms: int | None = None
    max_vocabulary_tokens: int | None = None
    price_per_minute: float | None = None


def segments_to_json(segments: Iterable[Segment]) -> list[dict[str, Any]]:
    """Segments as plain dictionaries and lists, fit for `json.dumps`.

    `index` and `edited` stand there only where they say something.
    """
    return [
        {name: getattr(segment, name) for name in _SEGMENT_FIELDS}
        | {"text": _storable(segment.text), "words": [_plain(word) for word in segment.words]}
        | ({} if segment.index is None else {"index": segment.index})
        for segment in segments
    ]


def segments_from_json(items: Iterable[dict[str, Any]]) -> tuple[Segment, ...]:
    """The inverse of `segments_to_json`."""
    return tuple(
        Segment(**{**item, "words": tuple(Word(**word) for word in item["words"])})
        for item in items
    )


# `dataclasses.asdict` copies whatever it meets: ten times as slow, 8 ms for a chunk of 700 words.
_SEGMENT_FIELDS = [field.name for field in fields(Segment) if field.name != "index"]


def _plain(word: Word) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "text": _storable(word.text),
        "start": word.start,
        "end": word.end,
        "confidence": word.confidence,
        "speaker": word.speaker,
    }
    if word.edited:
        plain["edited"] = True
    return plain


def _storable(text: str) -> str:
    """Without NUL and lone surrogates, which no database takes."""
    if text.isascii():
        return text.replace("\0", " ")
    return text.replace("\0", " ").encode(errors="replace").decode()


def _confidences(segment: dict[str, Any]) -> Iterator[float | None]:
    """One for each word, also where the engine tells no words apart."""
    of_all, words = segment["confidence"], segment["words"]
    if not words:
        yield from [of_all] * len(segment["text"].split())
    for word in words:
        yield of_all if word["confidence"] is None else word["confidence"]
