"""Bars of a chart, measured for a template that draws them as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 720.0
HEIGHT: Final = 160.0
ROW: Final = 28.0
GAP: Final = 0.2  # of a bar's place


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar: its place in the picture's units, and the value that it shows."""

    label: str
    value: float
    x: str
    y: str
    width: str
    height: str


def columns(values: Sequence[tuple[str, float]]) -> list[Bar]:
    """Upright bars side by side, in a picture of that WIDTH and HEIGHT."""
    most = max((value for _, value in values), default=0.0)
    place = WIDTH / max(len(values), 1)
    bars = []
    for n, (label, value) in enumerate(values):
        height = HEIGHT * _share(value, most)
        bars.append(_bar(label, value, n * place, HEIGHT - height, place * (1 - GAP), height))
    return bars


def rows(values: Sequence[tuple[str, float]]) -> list[Bar]:
    """Bars that lie one below the other, each in a ROW of its own, at most WIDTH long."""
    most = max((value for _, value in values), default=0.0)
    return [
        _bar(label, value, 0.0, n * ROW, WIDTH * _share(value, most), ROW * (1 - GAP))
        for n, (label, value) in enumerate(values)
    ]


def _share(value: float, most: float) -> float:
    return max(0.0, value / most) if most > 0 else 0.0


def _bar(label: str, value: float, *box: float) -> Bar:
    # As text: a template would write numbers in the reader's language, with a comma perhaps.
    x, y, width, height = (f"{number:.2f}" for number in box)
    return Bar(label=label, value=value, x=x, y=y, width=width, height=height)
