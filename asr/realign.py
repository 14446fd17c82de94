"""A text that a person has edited, put back on the times of what was recognised. Pure."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Final

from asr.pieces import pieces, pieces_of, plain, timed_pieces
from asr.types import Segment, Word, join_text

SECONDS_PER_LETTER: Final = 0.07  # 150 English words a minute


class _Heard:
    """All pieces that were recognised; their words are timed only where somebody asks."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = segments
        cut = [pieces_of(segment) for segment in segments]
        self.sizes = [len(some) for some in cut]
        self.texts = [text for some in cut for text, _ in some]
        self._firsts = [0, *accumulate(self.sizes)]
        self._timed: dict[int, list[Word]] = {}

    def segment(self, at: int) -> int:
        """The position of the piece's segment."""
        return bisect_right(self._firsts, at) - 1

    def word(self, at: int) -> Word:
        """The piece as a word."""
        number = self.segment(at)
        if number not in self._timed:
            self._timed[number] = list(_words(self.segments[number]))
        return self._timed[number][at - self._firsts[number]]


@dataclass(frozen=True, slots=True)
class _Written:
    """A piece of the edited text, and the position of its segment.

    It was heard `at` that place, or else is this new `word`.
    """

    text: str
    spaced: bool
    segment: int
    at: int = -1
    word: Word | None = None


def realign(
    segments: Sequence[Segment], text: str, duration_seconds: float | None
) -> tuple[Segment, ...]:
    """The edited text of one chunk, in the segments that were recognised in it.

    A word that was heard keeps its times, confidence and speaker, whatever became of its
    punctuation and capitals. Any other is `edited`: it shares the time of the words that it
    replaces, or the pause between its neighbours, and has their speaker and no confidence.
    A segment in which nothing was changed stays as it is; one without words gets some.

    Args:
        segments: as recognised, in order.
        duration_seconds: of the chunk; None where it was never measured.
    """
    heard = _Heard(segments)
    cut = list(pieces(plain(text)))
    found = common([_key(piece) for piece in heard.texts], [_key(piece) for piece, _ in cut])
    limit = duration_seconds or 0.0
    written: list[_Written] = []
    changed: list[tuple[str, bool]] = []
    before = -1  # the last piece that was heard and is accounted for
    for (piece, spaced), at in zip(cut, found, strict=True):
        if at is None:
            changed.append((piece, spaced))
            continue
        written += _between(heard, before, at, changed, limit)
        written.append(_Written(piece, spaced, heard.segment(at), at))
        before, changed = at, []
    written += _between(heard, before, len(heard.texts), changed, limit)
    return tuple(_rebuilt(heard, written))


def common(old: Sequence[str], new: Sequence[str]) -> list[int | None]:
    """For each of `new` the position in `old` that it is, or None: a longest common subsequence.

    By rows of bits (Crochemore et al. 2001, Hyyrö 2004): a set bit says that the best match does
    not grow at that position. 700 words against as many take a millisecond, and no text takes
    more than its length squared by the width of a machine's word: difflib has texts for which it
    takes minutes, and whoever edits would choose them.
    """
    places: dict[str, int] = {}
    for position, key in enumerate(old):
        places[key] = places.get(key, 0) | 1 << position
    everything = (1 << len(old)) - 1
    rows = [everything]
    for key in new:
        row = rows[-1]
        here = row & places.get(key, 0)
        rows.append((row + here | row - here) & everything)
    found: list[int | None] = [None] * len(new)
    position, number = len(old), len(new)
    while position and number:
        if old[position - 1] == new[number - 1]:
            position, number = position - 1, number - 1
            found[number] = position
        elif rows[number] >> position - 1 & 1:
            position -= 1
        else:
            number -= 1
    return found


def _words(segment: Segment) -> Iterator[Word]:
    for piece, _, start, end, word in timed_pieces(segment):
        confidence = segment.confidence if word.confidence is None else word.confidence
        speaker = word.speaker or segment.speaker
        yield Word(text=piece, start=start, end=end, confidence=confidence, speaker=speaker)


def _key(piece: str) -> str:
    """What makes two pieces the same word: their letters, with their marks, and digits."""
    if piece.isalnum():
        return piece.casefold()
    spoken = [char for char in piece if unicodedata.category(char)[0] in "LNM"]
    return "".join(spoken).casefold() or piece


def _between(
    heard: _Heard, before: int, after: int, changed: list[tuple[str, bool]], limit: float
) -> Iterator[_Written]:
    """What was written between two pieces that were heard, or between one of them and an end."""
    if not changed:
        return
    ends = list(accumulate(max(1, len(piece)) for piece, _ in changed))
    start, end = _span(heard, before, after, ends[-1] * SECONDS_PER_LETTER, limit)
    pace = (end - start) / ends[-1]
    replaced = range(before + 1, after) or range(max(before, 0), min(after, before + 1))
    homes = list(replaced or range(min(1, len(heard.texts))))
    begins = [heard.word(at).start for at in homes]
    times = [start, *(start + pace * done for done in ends[:-1]), end]
    for (piece, spaced), left, right in zip(changed, times, times[1:], strict=False):
        home = homes[max(0, bisect_right(begins, left) - 1)] if homes else None
        speaker = None if home is None else heard.word(home).speaker
        word = Word(text=piece, start=left, end=right, speaker=speaker, edited=True)
        yield _Written(piece, spaced, 0 if home is None else heard.segment(home), word=word)


def _span(
    heard: _Heard, before: int, after: int, wanted: float, limit: float
) -> tuple[float, float]:
    """The time of what was replaced; of what was put in, as much of the pause as it needs."""
    if after > before + 1:
        start = heard.word(before + 1).start
        return start, max(start, heard.word(after - 1).end)
    if not heard.texts:
        return 0.0, min(limit, wanted)
    if before < 0:
        end = heard.word(0).start
        return max(0.0, end - wanted), end
    start = heard.word(before).end
    if after < len(heard.texts):
        limit = heard.word(after).start
        if heard.segment(after) != heard.segment(before):
            limit = min(limit, heard.segments[heard.segment(after)].start)
    return start, max(start, min(limit, start + wanted))


def _rebuilt(heard: _Heard, written: Sequence[_Written]) -> Iterator[Segment]:
    """The segments that the pieces make."""
    for number, group in groupby(written, key=lambda piece: piece.segment):
        mine = list(group)
        if heard.segments and len(mine) == heard.sizes[number] and _as_heard(heard, mine):
            yield heard.segments[number]
            continue
        words = [piece.word or replace(heard.word(piece.at), text=piece.text) for piece in mine]
        bare = Segment(text="", start=words[0].start, end=words[-1].end)
        old = heard.segments[number] if heard.segments else bare
        yield replace(
            old,
            text=join_text(["".join(" " * piece.spaced + piece.text for piece in mine)]),
            start=min(old.start, words[0].start),
            end=max(old.end, words[-1].end),
            words=tuple(words),
            confidence=None,  # what is known of it stands in the words that were heard
        )


def _as_heard(heard: _Heard, written: Sequence[_Written]) -> bool:
    return all(piece.word is None and piece.text == heard.texts[piece.at] for piece in written)
