"""Texts cut into timed pieces."""

from __future__ import annotations

import pytest

from asr.formats.tokens import joined, tokens_of
from asr.pieces import plain
from asr.types import Segment, Word
from tests.asr.transcripts import TRICKY, spoken, squeezed, untimed


def words(text: str) -> tuple[Word, ...]:
    return tuple(
        Word(text=word, start=float(n), end=n + 0.5) for n, word in enumerate(text.split())
    )


def cut(text: str, heard: str) -> list[tuple[str, float, float]]:
    segment = Segment(text=text, start=0.0, end=9.0, words=words(heard))
    return [(token.text, token.start, token.end) for token in tokens_of(segment)]


def test_punctuation_that_the_words_lack_stays_with_its_word():
    assert cut("Hello, world! It's me.", "hello world its me") == [
        ("Hello,", 0.0, 0.5),
        ("world!", 1.0, 1.5),
        ("It's", 2.0, 2.5),
        ("me.", 3.0, 3.5),
    ]


def test_a_number_written_otherwise_than_it_was_heard_moves_no_other_word():
    assert cut("I have 2 dogs — yes.", "i have two dogs yes") == [
        ("I", 0.0, 0.5),
        ("have", 1.0, 1.5),
        ("2", 2.0, 2.5),
        ("dogs", 3.0, 3.5),
        ("—", 4.0, 4.0),
        ("yes.", 4.0, 4.5),
    ]


def test_one_written_word_spans_all_that_were_heard_for_it():
    assert cut("icecream now", "ice cream now") == [("icecream", 0.0, 1.5), ("now", 2.0, 2.5)]


def test_chinese_is_cut_into_characters_within_the_times_of_its_words():
    found = cut("今天很好，「去」吧。", "今天 很好 去 吧")
    assert [text for text, _, _ in found] == ["今", "天", "很", "好，", "「去」", "吧。"]
    assert [start for _, start, _ in found] == [0.0, 0.25, 1.0, 1.25, 2.0, 3.0]
    assert found[-1][2] == 3.5


def test_a_segment_without_words_is_shared_out_by_letters():
    tokens = tokens_of(untimed("ab cd, efgh", 10.0, 18.0))
    assert [(token.start, token.end) for token in tokens] == [(10, 12), (12, 14), (14, 18)]


def test_words_without_a_text_are_the_text():
    tokens = tokens_of(Segment(text="", start=0.0, end=2.0, words=words("all right")))
    assert [token.text for token in tokens] == ["all", "right"]


@pytest.mark.parametrize("text", ["", " ", "\x00\x07"])
def test_a_segment_without_a_text_has_no_tokens(text):
    assert tokens_of(untimed(text, 0.0, 1.0)) == []


def test_a_segment_of_symbols_is_shown_all_the_same():
    tokens = tokens_of(untimed("♪ ♪", 0.0, 4.0))
    assert [(token.text, token.start, token.end) for token in tokens] == [("♪", 0, 2), ("♪", 2, 4)]


def test_a_word_keeps_its_own_speaker_before_its_segments():
    pair = (
        Word(text="yes", start=0.0, end=0.5, speaker="B"),
        Word(text="no", start=0.5, end=1.0),
    )
    tokens = tokens_of(Segment(text="Yes. No.", start=0.0, end=1.0, words=pair, speaker="A"))
    assert [token.speaker for token in tokens] == ["Speaker B", "Speaker A"]


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("0", "Speaker 0"),
        ("12", "Speaker 12"),
        ("A", "Speaker A"),
        ("3-A", "Speaker 3-A"),
        ("2-10", "Speaker 2-10"),
        ("Ann", "Ann"),
        ("3-Ann", "3-Ann"),
        ("speaker_0", "speaker_0"),
        (" \x07", None),
    ],
)
def test_a_label_that_is_a_bare_number_or_letter_is_shown_as_a_speaker(label, shown):
    (token,) = tokens_of(Segment(text="Yes.", start=0.0, end=1.0, speaker=label))
    assert token.speaker == shown


@pytest.mark.parametrize("text", TRICKY)
def test_no_character_is_lost_and_what_cannot_be_shown_is_gone(text):
    for segment in (spoken(text), untimed(text, 0.0, 5.0)):
        assert joined(tokens_of(segment)) == plain(text)
    shown = plain(text)
    assert all(char.isprintable() or char == "\u200d" for char in shown)
    assert squeezed(shown).startswith(squeezed(text)[:4])
