"""Plain text, and the paragraphs that it shares with Word and PDF."""

from __future__ import annotations

import pytest

from asr.formats.text import to_txt
from asr.formats.transcript import Paragraph, clock, paragraphs
from asr.pieces import plain
from tests.asr.transcripts import (
    CHINESE,
    TRICKY,
    missing,
    of_parts,
    part,
    spoken,
    transcript,
    untimed,
)


def test_a_long_pause_begins_a_paragraph_and_a_short_one_does_not():
    text = to_txt(
        transcript(
            spoken("One thought."),
            spoken("Still the same.", start=2.0),
            spoken("Another.", start=9.0),
        )
    )
    assert text == "One thought. Still the same.\n\nAnother.\n"


def test_a_speaker_is_named_where_the_speaker_changes():
    text = to_txt(
        transcript(
            spoken("How are you?", speaker="Ann"),
            spoken("Well.", start=1.2, speaker="Ben"),
            spoken("And you?", start=9.0, speaker="Ben"),
        )
    )
    assert text == "Ann: How are you?\n\nBen: Well.\n\nAnd you?\n"


def test_a_long_monologue_is_broken_after_a_sentence():
    said = "This is a sentence of eight words, yes. " * 40
    found = to_txt(transcript(spoken(said))).split("\n\n")
    assert len(found) == 3
    assert all(590 <= len(part) < 650 and part.endswith("yes.") for part in found[:-1])
    assert " ".join(found).split() == said.split()


def test_gaps_stand_where_they_lie():
    parts = [
        missing(0, None, "audio_not_found"),
        part(1, 2.0, spoken("one")),
        missing(2, 61.0),
        part(3, 2.0, spoken("two")),
        missing(4, None, "engine_error"),
    ]
    assert to_txt(of_parts(parts)) == (
        "[missing: part 1, length unknown, audio_not_found]\n\none\n\n"
        "[missing: part 3, 0:02–1:03, invalid_audio]\n\ntwo\n\n"
        "[missing: part 5, length unknown, engine_error]\n"
    )


def test_chinese_segments_are_joined_without_a_space():
    text = to_txt(
        transcript(untimed("今天天气很好，", 0.0, 2.0), untimed("我们去公园。", 2.0, 4.0))
    )
    assert text == "今天天气很好，我们去公园。\n"


@pytest.mark.parametrize("text", [*TRICKY, CHINESE * 3])
def test_no_character_is_lost(text):
    assert to_txt(transcript(untimed(text, 0.0, 9.0))) == plain(text) + "\n"


def test_no_words_make_an_empty_text():
    assert to_txt(transcript()) == ""
    assert to_txt(transcript(untimed(" ", 0.0, 1.0))) == ""


def test_a_paragraph_knows_when_it_begins():
    assert list(paragraphs(transcript(spoken("later on", start=75.25)))) == [
        Paragraph(start=75.25, speaker=None, text="later on")
    ]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (62.9, "1:02"), (3599.99, "59:59"), (3723, "1:02:03")]
)
def test_times_are_written_as_a_clock_shows_them(seconds, shown):
    assert clock(seconds) == shown
