"""Spans of doubtful words."""

from __future__ import annotations

from typing import Any

import pytest

from asr.formats.uncertain import uncertain
from asr.types import Segment, Word
from tests.asr.transcripts import missing, of_parts, part, transcript, untimed


def said(*words: tuple[str, float | None], start: float = 0.0, **values: Any) -> Segment:
    timed = tuple(
        Word(text=text, start=start + n, end=start + n + 0.5, confidence=confidence)
        for n, (text, confidence) in enumerate(words)
    )
    text = " ".join(text for text, _ in words)
    return Segment(text=text, start=start, end=start + len(words), words=timed, **values)


def spans(*segments: Segment, below: float = 0.5) -> list[tuple[str, float, float]]:
    found = uncertain(transcript(*segments), below=below)
    return [(span.text, span.start, span.end) for span in found]


def test_neighbours_in_doubt_are_one_span_with_their_mean():
    (span,) = uncertain(
        transcript(said(("the", 0.9), ("quick", 0.1), ("fox", 0.3), ("ran", 0.9))), below=0.5
    )
    assert (span.text, span.start, span.end, span.index) == ("quick fox", 1.0, 2.5, 0)
    assert span.confidence == pytest.approx(0.2)


def test_the_threshold_itself_is_certain_enough():
    assert spans(said(("a", 0.5), ("b", 0.49))) == [("b", 1.0, 1.5)]
    assert spans(said(("a", 0.0)), below=0.0) == []
    assert spans(said(("a", 0.99), ("b", 1.0)), below=1.0) == [("a", 0.0, 0.5)]


def test_a_certain_word_parts_two_spans():
    assert spans(said(("a", 0.1), ("b", 0.8), ("c", 0.2))) == [("a", 0.0, 0.5), ("c", 2.0, 2.5)]


def test_a_span_goes_on_in_the_next_segment_but_not_in_the_next_chunk():
    parts = [
        part(0, 4.0, said(("a", 0.1)), said(("b", 0.1), start=1.0)),
        missing(1, None),
        part(2, 4.0, said(("c", 0.2))),
    ]
    found = uncertain(of_parts(parts), below=0.5)
    assert [(span.index, span.text, span.start) for span in found] == [
        (0, "a b", 0.0),
        (2, "c", 4.0),
    ]


def test_a_word_without_its_own_counts_with_its_segments():
    assert spans(said(("a", None), ("b", 0.9), confidence=0.2)) == [("a", 0.0, 0.5)]


def test_a_segment_without_words_is_one_span():
    assert spans(untimed("who knows", 2.0, 4.0, confidence=0.3)) == [("who knows", 2.0, 4.0)]


def test_what_is_not_known_is_not_doubted():
    assert spans(said(("a", None)), untimed("b", 1.0, 2.0)) == []
    assert spans() == []
