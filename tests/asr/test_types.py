"""What engines answer: texts joined, confidence over words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from asr.types import AudioInfo, AudioRequest, Segment, Word, mean_confidence, segments_to_json


def segment(text: str, confidence: float | None, *words: Word) -> Segment:
    return Segment(text=text, start=0.0, end=1.0, confidence=confidence, words=words)


def word(confidence: float | None) -> Word:
    return Word(text="x", start=0.0, end=1.0, confidence=confidence)


def test_every_word_counts_once_and_one_without_a_confidence_has_its_segments() -> None:
    of_words = segment("x x", 0.9, word(0.5), word(None))
    assert mean_confidence(segments_to_json([of_words])) == pytest.approx(0.7)


def test_a_segment_that_tells_no_words_apart_counts_for_each_word_of_its_text() -> None:
    parts = [segment("one two three", 0.8), segment("x", None, word(0.4))]
    assert mean_confidence(segments_to_json(parts)) == pytest.approx((3 * 0.8 + 0.4) / 4)


def test_nothing_known_is_no_confidence() -> None:
    assert mean_confidence([]) is None
    unknown = [segment("one", None), segment("x", None, word(None))]
    assert mean_confidence(segments_to_json(unknown)) is None


def test_who_hears_is_no_part_of_what_is_asked() -> None:
    info = AudioInfo(duration_seconds=1.0, container="wav", digest="")
    asked = AudioRequest(data=b"sound", info=info)
    heard = replace(asked, hear=lambda _: None)
    assert heard == asked
    assert repr(heard) == repr(asked)
