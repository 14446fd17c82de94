"""What every file is made from: one transcript, as tokens, stretches and paragraphs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from asr.formats.tokens import Token, ends_sentence, joined, tokens_of
from asr.pieces import plain
from asr.stitch import Gap
from asr.types import Segment

PARAGRAPH_PAUSE: Final = 2.0  # seconds of silence that part two thoughts, also of one speaker
PARAGRAPH_LENGTH: Final = 600  # characters, about 100 words: from then on a sentence's end will do


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """A job's transcript. All times are seconds from the start of its first chunk.

    Gaps are in order of their index. `chunk_starts` says where each chunk begins; one that was
    never measured counts as 0 seconds. `completed_time` is the only date in a file, so that equal
    transcripts make equal files.
    """

    title: str
    language: str | None
    completed_time: datetime
    duration_seconds: float
    segments: tuple[Segment, ...]
    gaps: tuple[Gap, ...]
    chunk_starts: tuple[float, ...]

    def chunk_at(self, seconds: float) -> int:
        """The index of the chunk that is heard at that time."""
        return max(0, bisect_right(self.chunk_starts, seconds) - 1)

    def chunk_of(self, segment: Segment) -> int:
        """The index of the segment's chunk; by its time where it does not say so itself."""
        return self.chunk_at(segment.start) if segment.index is None else segment.index


@dataclass(frozen=True, slots=True, kw_only=True)
class Paragraph:
    """What one speaker says without a long pause."""

    start: float
    speaker: str | None
    text: str


def stretches(transcript: Transcript) -> Iterator[list[Token] | Gap]:
    """The whole transcript in order: what was said between two gaps, and the gaps."""
    rest = list(transcript.segments)
    for gap in transcript.gaps:
        before = 0
        while before < len(rest) and transcript.chunk_of(rest[before]) < gap.index:
            before += 1
        yield [token for segment in rest[:before] for token in tokens_of(segment)]
        yield gap
        del rest[:before]
    yield [token for segment in rest for token in tokens_of(segment)]


def paragraphs(transcript: Transcript) -> Iterator[Paragraph | Gap]:
    """The transcript as it is read: a paragraph ends at a pause, a gap and another speaker."""
    for stretch in stretches(transcript):
        if isinstance(stretch, Gap):
            yield stretch
            continue
        begin = length = 0
        for position, token in enumerate(stretch):
            if position > begin and _parts(stretch[position - 1], token, length):
                yield _paragraph(stretch[begin:position])
                begin, length = position, 0
            length += len(token.text) + token.spaced
        if stretch:
            yield _paragraph(stretch[begin:])


def clock(seconds: float) -> str:
    """A time as a reader wants it: 1:02, and 1:02:03 from an hour on."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def marked(gap: Gap) -> str:
    """The words that stand where something is missing."""
    when = "length unknown"
    if gap.start_time is not None and gap.duration_seconds is not None:
        when = f"{clock(gap.start_time)}–{clock(gap.start_time + gap.duration_seconds)}"
    return f"[missing: part {gap.index + 1}, {when}, {gap.code}]"


def headline(transcript: Transcript) -> str:
    """The title, or a word for it."""
    return plain(transcript.title) or "Transcript"


def summary(transcript: Transcript) -> str:
    """The line below the title: when, how long, in which language."""
    parts = [f"{transcript.completed_time:%Y-%m-%d}", clock(transcript.duration_seconds)]
    if transcript.language:
        parts.append(plain(transcript.language))
    return " · ".join(parts)


def _parts(last: Token, token: Token, length: int) -> bool:
    """Whether a new paragraph begins between two tokens, after `length` characters of this one."""
    if token.speaker != last.speaker or token.start - last.end >= PARAGRAPH_PAUSE:
        return True
    return length >= PARAGRAPH_LENGTH and ends_sentence(last.text)


def _paragraph(tokens: list[Token]) -> Paragraph:
    return Paragraph(start=tokens[0].start, speaker=tokens[0].speaker, text=joined(tokens))
