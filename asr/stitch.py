"""Many chunks, one transcript. Pure: no input or output, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from asr.realign import realign
from asr.types import join_text, segments_from_json, segments_to_json

Plain: TypeAlias = dict[str, Any]
NOBODY: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One chunk's outcome, times relative to its own start. `gap_code` set: it is missing.

    `text` and `segments` are what was recognised, the latter as `segments_to_json` makes them: of
    two hours with 20,000 words most pass through unread. `edited_text` is what a person made of
    it, or wrote in place of what is missing.
    """

    index: int
    duration_seconds: float | None
    text: str = ""
    segments: Sequence[Plain] = ()
    gap_code: str | None = None
    edited_text: str | None = None

    @property
    def is_missing(self) -> bool:
        return self.gap_code is not None and self.edited_text is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A chunk that is missing; both times are None when it was never decoded."""

    index: int
    start_time: float | None
    duration_seconds: float | None
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stitched:
    """A whole transcript, times relative to the start of its first chunk.

    `speakers` has the name of each label, or None.
    """

    text: str
    segments: list[Plain]
    speakers: dict[str, str | None]
    gaps: tuple[Gap, ...]
    duration_seconds: float


def stitch(parts: Iterable[Part], names: Mapping[str, str] = NOBODY) -> Stitched:
    """Put chunks, which may come in any order, together by their index.

    A chunk's times are shifted by the measured durations before it; one that was never measured
    counts as 0. A missing chunk adds its duration and a gap, but no text. Engines name the speakers
    of one file: where several chunks have some, "A" of the third becomes "3-A", as nobody knows
    whether it is the "A" of the second.

    Args:
        names: the names that people gave to speakers, by key (see `speaker_keys`).
    """
    ordered = sorted(parts, key=lambda part: part.index)
    starts, total = _running_sum(part.duration_seconds for part in ordered)
    keys = speaker_keys(ordered)
    shown = {key: names.get(key) or label for label, key in keys.items()}
    pairs = zip(ordered, starts, strict=True)
    spoken = [(part, start) for part, start in pairs if not part.is_missing]
    return Stitched(
        text=join_text(_text(part) for part, _ in spoken),
        segments=[
            _placed(segment, part.index, start, shown)
            for part, start in spoken
            for segment in _segments(part)
        ],
        speakers={label: names.get(key) for label, key in keys.items()},
        gaps=tuple(_gaps(ordered, starts)),
        duration_seconds=total,
    )


def speaker_keys(parts: Iterable[Part]) -> dict[str, str]:
    """All recognised speakers as a transcript labels them, in order, each with its key.

    The key is "3-A" throughout: it stays the same when another chunk turns out to have speakers,
    and the label "A" becomes "3-A".
    """
    ordered = sorted(parts, key=lambda part: part.index)
    found = [(part.index, dict.fromkeys(_speakers(part))) for part in ordered]
    several = sum(bool(speakers) for _, speakers in found) > 1
    keys = [(speaker, _key(index, speaker)) for index, some in found for speaker in some]
    return {key if several else speaker: key for speaker, key in keys}


def _key(index: int, speaker: str) -> str:
    return f"{index + 1}-{speaker}"


def _speakers(part: Part) -> Iterator[str]:
    for segment in part.segments:
        for spoken in (segment, *segment["words"]):
            if spoken["speaker"] is not None:
                yield spoken["speaker"]


def _text(part: Part) -> str:
    return part.text if part.edited_text is None else part.edited_text


def _segments(part: Part) -> Sequence[Plain]:
    if part.edited_text is None:
        return part.segments
    heard = segments_from_json(part.segments)
    return segments_to_json(realign(heard, part.edited_text, part.duration_seconds))


def _placed(segment: Plain, index: int, offset: float, shown: Mapping[str, str]) -> Plain:
    """The segment in the whole transcript, with its speakers as they are shown, by their keys."""

    def moved(spoken: Plain) -> Plain:
        speaker = spoken["speaker"]
        return {
            **spoken,
            "start": spoken["start"] + offset,
            "end": spoken["end"] + offset,
            "speaker": None if speaker is None else shown[_key(index, speaker)],
        }

    words = [moved(word) for word in segment["words"]]
    return {**moved(segment), "words": words, "index": index}


def start_times(durations: Sequence[float | None], ended: Sequence[bool]) -> list[float | None]:
    """The start of each chunk of a running job, as far as it can be known.

    None for a chunk that is not measured, and after one that is neither measured nor ended: it
    may yet be measured and move all that follow.
    """
    starts, _ = _running_sum(durations)
    known: list[float | None] = []
    settled = True
    for start, duration, has_ended in zip(starts, durations, ended, strict=True):
        known.append(start if settled and duration is not None else None)
        settled = settled and (duration is not None or has_ended)
    return known


def _running_sum(durations: Iterable[float | None]) -> tuple[list[float], float]:
    starts, total = [], 0.0
    for duration in durations:
        starts.append(total)
        total += duration or 0.0
    return starts, total


def _gaps(parts: list[Part], starts: list[float]) -> Iterator[Gap]:
    for part, start in zip(parts, starts, strict=True):
        if part.is_missing:
            yield Gap(
                index=part.index,
                start_time=None if part.duration_seconds is None else start,
                duration_seconds=part.duration_seconds,
                code=part.gap_code or "",
            )
