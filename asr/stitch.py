"""Many chunks, one transcript. Pure: no input or output, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from asr.types import Segment, join_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One chunk's outcome, times relative to its own start. `gap_code` set: it is missing."""

    index: int
    duration_seconds: float | None
    text: str = ""
    segments: tuple[Segment, ...] = ()
    gap_code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A chunk that is missing; both times are None when it was never decoded."""

    index: int
    start_time: float | None
    duration_seconds: float | None
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stitched:
    """A whole transcript, times relative to the start of its first chunk."""

    text: str
    segments: tuple[Segment, ...]
    gaps: tuple[Gap, ...]
    duration_seconds: float


def stitch(parts: Iterable[Part]) -> Stitched:
    """Put chunks, which may come in any order, together by their index.

    A chunk's times are shifted by the measured durations before it; one that was never measured
    counts as 0. A missing chunk adds its duration and a gap, but no text. Engines name the speakers
    of one file: where several chunks have some, "A" of the third becomes "3-A", as nobody knows
    whether it is the "A" of the second.
    """
    ordered = [*_apart(sorted(parts, key=lambda part: part.index))]
    starts, total = _running_sum(part.duration_seconds for part in ordered)
    pairs = [
        (part, start) for part, start in zip(ordered, starts, strict=True) if part.gap_code is None
    ]
    return Stitched(
        text=join_text(part.text for part, _ in pairs),
        segments=tuple(
            _shifted(segment, start) for part, start in pairs for segment in part.segments
        ),
        gaps=tuple(_gaps(ordered, starts)),
        duration_seconds=total,
    )


def _apart(parts: list[Part]) -> Iterator[Part]:
    """The parts, with the speakers of each told from those of the others."""
    speaking = [part for part in parts if any(_speakers(segment) for segment in part.segments)]
    for part in parts:
        name = f"{part.index + 1}-" if len(speaking) > 1 else ""
        yield replace(part, segments=tuple(_named(segment, name) for segment in part.segments))


def _speakers(segment: Segment) -> set[str | None]:
    return {segment.speaker, *(word.speaker for word in segment.words)} - {None}


def _named(segment: Segment, name: str) -> Segment:
    if not name:
        return segment

    def full(speaker: str | None) -> str | None:
        return None if speaker is None else f"{name}{speaker}"

    words = tuple(replace(word, speaker=full(word.speaker)) for word in segment.words)
    return replace(segment, words=words, speaker=full(segment.speaker))


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
        if part.gap_code is not None:
            yield Gap(
                index=part.index,
                start_time=None if part.duration_seconds is None else start,
                duration_seconds=part.duration_seconds,
                code=part.gap_code,
            )


def _shifted(segment: Segment, offset: float) -> Segment:
    words = tuple(
        replace(word, start=word.start + offset, end=word.end + offset) for word in segment.words
    )
    return replace(segment, start=segment.start + offset, end=segment.end + offset, words=words)
