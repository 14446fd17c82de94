"""A text in the smallest pieces that a line or a paragraph may be broken into, timed."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import Final

from asr.types import CJK, Segment, Word, join_text

# What XML forbids and no reader shows: control characters, half characters, non-characters.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_IS_CJK = re.compile(f"[{CJK}]")
# Small kana begin no line; brackets and punctuation are told by their category.
_SMALL_KANA: Final = frozenset("ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶ")
_CLINGS_TO_WHAT_IS_BEFORE: Final = frozenset({"Pe", "Pf", "Po", "Mn", "Mc", "Me", "Lm", "Cf"})
_CLINGS_TO_WHAT_FOLLOWS: Final = frozenset({"Ps", "Pi"})


def plain(text: str) -> str:
    """A text with nothing in it that could not be shown, and single spaces."""
    return join_text([_UNPRINTABLE.sub(" ", text)])


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Each piece, and whether a space stands before it."""
    for word in text.split():
        begin = 0
        if not word.isascii():
            for position, (left, right) in enumerate(pairwise(word), start=1):
                if _may_part(left, right):
                    yield word[begin:position], begin == 0
                    begin = position
        yield word[begin:], begin == 0


def _may_part(left: str, right: str) -> bool:
    if not (_IS_CJK.match(left) or _IS_CJK.match(right)) or right in _SMALL_KANA:
        return False
    return (
        unicodedata.category(right) not in _CLINGS_TO_WHAT_IS_BEFORE
        and unicodedata.category(left) not in _CLINGS_TO_WHAT_FOLLOWS
    )


def timed_pieces(segment: Segment) -> Iterator[tuple[str, bool, float, float, Word]]:
    """Each piece of the text, whether a space stands before it, its times, its (first) word.

    Engines' words may lack the punctuation of the text, count numbers otherwise, or be cut
    elsewhere; so a piece's place is found by counting letters. That is exact where text and words
    have the same letters. A segment without words is one word.
    """
    words = segment.words or (Word(text=segment.text, start=segment.start, end=segment.end),)
    cut = pieces_of(segment)
    texts = [piece for piece, _ in cut]
    alike = texts == [word.text for word in words]
    times = [(w.start, w.end, w) for w in words] if alike else _times(texts, words)
    for (piece, spaced), (start, end, word) in zip(cut, times, strict=True):
        yield piece, spaced, start, max(start, end), word


def pieces_of(segment: Segment) -> list[tuple[str, bool]]:
    """The pieces of its text; of its words' where it has none."""
    return [*pieces(plain(segment.text) or plain(" ".join(word.text for word in segment.words)))]


def _times(texts: list[str], words: tuple[Word, ...]) -> Iterator[tuple[float, float, Word]]:
    """Start and end of each piece, and the word that it begins in."""
    lengths, word_lengths = _measured(texts, [word.text for word in words])
    ends = list(accumulate(word_lengths))
    scale = ends[-1] / (sum(lengths) or 1)
    done = 0
    for length in lengths:
        left, right = done * scale, (done + length) * scale
        first = min(bisect_right(ends, left), len(words) - 1)
        last = max(first, min(bisect_left(ends, right), len(words) - 1))
        yield (
            _time_in(words[first], word_lengths[first], ends[first] - left),
            _time_in(words[last], word_lengths[last], ends[last] - right),
            words[first],
        )
        done += length


def _measured(texts: list[str], words: list[str]) -> tuple[list[int], list[int]]:
    """How long pieces of text and words are: in letters, or counted where that fits better.

    "2" is written where "two" was heard: as long as there are as many of both, each piece is one
    word. A dash between words takes no time.
    """
    letters = _letters(texts), _letters(words)
    if sum(letters[0]) != sum(letters[1]):
        counts = [min(n, 1) for n in letters[0]], [min(n, 1) for n in letters[1]]
        if sum(counts[0]) == sum(counts[1]):
            return counts
    return letters


def _letters(texts: list[str]) -> list[int]:
    """The letters and digits of each; where there are none at all, each counts as one."""
    spoken = [sum(unicodedata.category(char)[0] in "LNM" for char in text) for text in texts]
    return spoken if any(spoken) else [1] * len(texts)


def _time_in(word: Word, length: int, ahead: float) -> float:
    """The time within a word of that length when so much of it is still ahead."""
    done = 1 - ahead / length if length else 1.0
    if done >= 1.0:
        return word.end  # exactly, whatever a sum of fractions comes to
    return word.start + (word.end - word.start) * max(0.0, done)
