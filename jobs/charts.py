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
    """One bar, or a part of one: its place in the picture's units, and the value that it shows."""

    label: str
    value: float
    kind: str = ""
    """Which part of a bar it is."""
    x: str
    y: str
    width: str
    height: str


Stack = Sequence[tuple[str, float]]
"""The parts of one bar from the ground up: the kind and the value of each."""


def columns(values: Sequence[tuple[str, float]], *, most: float | None = None) -> list[Bar]:
    """Upright bars side by side; see `stacks`."""
    return stacks([(label, [("", value)]) for label, value in values], most=most)


def stacks(values: Sequence[tuple[str, Stack]], *, most: float | None = None) -> list[Bar]:
    """Upright bars side by side, each of parts, in a picture of that WIDTH and HEIGHT.

    Args:
        most: the value that is as high as the picture; None for that of the highest bar.
    """
    if most is None:
        most = max((total(stack) for _, stack in values), default=0.0)
    place = WIDTH / max(len(values), 1)
    bars = []
    for n, (label, stack) in enumerate(values):
        ground = HEIGHT
        for kind, value in stack:
            height = HEIGHT * _share(value, most)
            ground -= height
            box = (n * place, ground, place * (1 - GAP), height)
            bars.append(_bar(label, value, *box, kind=kind))
    return bars


def total(stack: Stack) -> float:
    """The value of all parts together."""
    return sum(value for _, value in stack)


def level(value: float, *, most: float) -> str:
    """How far from the top a bar of that value ends, where `most` is as high as the picture."""
    return f"{HEIGHT * (1 - _share(value, most)):.2f}"


def rows(values: Sequence[tuple[str, float]]) -> list[Bar]:
    """Bars that lie one below the other, each in a ROW of its own, at most WIDTH long."""
    most = max((value for _, value in values), default=0.0)
    return [
        _bar(label, value, 0.0, n * ROW, WIDTH * _share(value, most), ROW * (1 - GAP))
        for n, (label, value) in enumerate(values)
    ]


def _share(value: float, most: float) -> float:
    return max(0.0, value / most) if most > 0 else 0.0


def _bar(label: str, value: float, *box: float, kind: str = "") -> Bar:
    # As text: a template would write numbers in the reader's language, with a comma perhaps.
    x, y, width, height = (f"{number:.2f}" for number in box)
    return Bar(label=label, value=value, kind=kind, x=x, y=y, width=width, height=height)
