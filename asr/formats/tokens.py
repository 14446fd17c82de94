"""A segment's text in timed pieces, as it is shown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from asr.pieces import plain, timed_pieces
from asr.types import Segment, join_text

_CLOSING: Final = r"[\"'”’»›)\]」』）】]*$"
_SENTENCE_END = re.compile(r"[.!?…。．！？؟۔।॥]" + _CLOSING)
_CLAUSE_END = re.compile(r"[,;:–—،؛、，；：]" + _CLOSING)
# How vendors count; "3-A" is the third chunk's.
_BARE_SPEAKER = re.compile(r"(\d+-)?(\d+|[A-Za-z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A word with its punctuation; in scripts without spaces a character with its own.

    `spaced`: a space stands before it.
    """

    text: str
    start: float
    end: float
    speaker: str | None = None
    spaced: bool = True


def tokens_of(segment: Segment) -> list[Token]:
    """The segment's text with the times of its words, or spread over the segment without words."""
    return [
        Token(
            text=piece,
            start=start,
            end=end,
            speaker=_named(word.speaker or segment.speaker or ""),
            spaced=spaced,
        )
        for piece, spaced, start, end, word in timed_pieces(segment)
    ]


def _named(speaker: str) -> str | None:
    """A speaker as a reader wants it: a bare number or letter would not look like one."""
    label = plain(speaker)
    return f"Speaker {label}" if _BARE_SPEAKER.fullmatch(label) else label or None


def joined(tokens: Iterable[Token]) -> str:
    """The text that the tokens are of."""
    return join_text(
        ["".join(f" {token.text}" if token.spaced else token.text for token in tokens)]
    )


def ends_sentence(text: str) -> bool:
    """Whether a sentence ends with this token."""
    return bool(_SENTENCE_END.search(text))


def ends_clause(text: str) -> bool:
    """Whether a clause ends with this token, but no sentence."""
    return bool(_CLAUSE_END.search(text))
