"""Words of a text, as they are looked for: the same for every database. Pure.

A text is folded: small letters without accents, everything else a space. Scripts that put no
spaces between words count each character as a word, so that any piece of such a text is found, as
a phrase. What is said of a match anywhere is said of folded texts.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

MAX_QUERY: Final = 200  # characters
HIT_CHARACTERS: Final = 200
MAX_CHARACTERS: Final = 250_000  # of one text; 1 MB at most, as a tsvector may have
_BEFORE: Final = 60  # characters that stand before the first match, about
_MAX_WORD: Final = 100  # characters; a longer one is cut
_MIN_PREFIX: Final = 2
_ACCENTS: Final = re.compile("[\u0300-\u036f]")  # of Latin, Greek and Cyrillic letters
_JOINERS: Final = "\u00ad\u200c\u200d"  # within a word, and not seen
# Thai, Lao, Myanmar, Khmer, kana, Chinese characters.
_UNSPACED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff]"
)
_TERM: Final = re.compile(r'(?P<minus>-?)(?:"(?P<phrase>[^"]*)"?|(?P<word>[^\s"]+))')


@dataclass(frozen=True, kw_only=True)
class Term:
    """Words that are to stand side by side, in this order."""

    words: tuple[str, ...]
    excluded: bool = False
    is_beginning: bool = False
    """Whether the last word may go on."""

    @property
    def part(self) -> str:
        """What stands in a folded text that has it."""
        return f" {' '.join(self.words)}{'' if self.is_beginning else ' '}"


class _Folding(dict[int, str]):
    """For `str.translate`, filled as characters are met."""

    def __missing__(self, code: int) -> str:
        folded = self[code] = _folded(chr(code))
        return folded


def _folded(character: str) -> str:
    if character in _JOINERS:
        return ""
    plain = unicodedata.normalize("NFKD", character).casefold()
    plain = unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFKD", plain)))
    plain = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in plain)
    return _UNSPACED.sub(r" \g<0> ", plain)


_FOLDING: Final = _Folding()


def fold(text: str) -> str:
    """The text's words, a space before and after each: " budget for marz "; " " without any."""
    words = [word[:_MAX_WORD] for word in text.translate(_FOLDING).split()]
    folded = " ".join(["", *words, ""]) if words else " "
    if len(folded) > MAX_CHARACTERS:
        folded = folded[: folded.rindex(" ", 0, MAX_CHARACTERS) + 1]
    return folded


def terms_of(query: str) -> list[Term]:
    """What a query asks for: words, "phrases", and -excluded ones; anything else is passed over.

    The last word stands also for longer ones that begin with it. Empty where nothing is to be
    found, as nothing is named that shall be.
    """
    found: list[Term] = []
    query = unicodedata.normalize("NFC", query)
    for match in _TERM.finditer(query):
        words = tuple(fold(match["phrase"] or match["word"] or "").split())
        if not words:
            continue
        excluded = bool(match["minus"])
        is_last_word = match["word"] is not None and match.end() == len(query)
        goes_on = is_last_word and not excluded and len(words[-1]) >= _MIN_PREFIX
        found.append(Term(words=words, excluded=excluded, is_beginning=goes_on))
    return found if any(not term.excluded for term in found) else []


def hit(text: str, terms: list[Term]) -> dict[str, Any]:
    """The first place where one of the terms stands, with what is around it.

    Returns:
        `text`, of at most 200 characters, and `spans`: where terms stand in it, each
        `[first, after the last]`, in order.
    """
    spans = list(_spans(text, terms))
    first, last = spans[0] if spans else (0, 0)
    start, end = _window(text, first, last)
    before, after = "… " if start else "", " …" if end < len(text) else ""
    shift = len(before) - start
    return {
        "text": before + re.sub(r"\s", " ", text[start:end]) + after,
        "spans": [
            [first + shift, min(last, end) + shift] for first, last in spans if start <= first < end
        ],
    }


def _window(text: str, first: int, last: int) -> tuple[int, int]:
    """A piece of the text that begins and ends between words, if there is room for it."""
    room = HIT_CHARACTERS - 4  # for dots
    if len(text) <= HIT_CHARACTERS:
        return 0, len(text)
    start = max(0, min(first - _BEFORE, len(text) - room))
    end = min(len(text), start + room)
    if start and (space := re.search(r"\s+", text[start:first])):
        start += space.end()
    if end < len(text) and (spaces := list(re.finditer(r"\s+", text[last:end]))):
        end = last + spaces[-1].start()
    return start, end


def _spans(text: str, terms: list[Term]) -> Iterator[tuple[int, int]]:
    """Where terms stand in the text, from the first of them to the end of what is shown."""
    wanted = [term for term in terms if not term.excluded]
    pattern = "|".join(
        rf"{' +'.join(term.words)}{'[^ ]*' if term.is_beginning else '(?![^ ])'}"
        for term in sorted(wanted, key=lambda term: -len(term.part))
    )
    if not pattern:
        return
    folded = text.translate(_FOLDING)
    ends: list[int] = []  # of each character of the text, in the folded one
    shown = len(text)
    for match in re.finditer(rf"(?<![^ ])(?:{pattern})", folded):
        if not ends:
            ends = list(accumulate(len(_FOLDING[ord(character)]) for character in text))
        first = bisect_right(ends, match.start())
        last = bisect_right(ends, match.end() - 1) + 1
        while last < len(text) and not _FOLDING[ord(text[last])]:
            last += 1  # an accent of its own
        shown = min(shown, first + HIT_CHARACTERS)
        if first > shown:
            return
        yield first, last
