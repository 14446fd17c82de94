"""SRT and WebVTT, as parsers of others read them."""

from __future__ import annotations

import io
import re
from html import unescape

import pytest
import srt
import webvtt

from asr.formats.cues import cues
from asr.formats.subtitles import to_srt, to_vtt
from asr.formats.transcript import Transcript
from tests.asr.transcripts import HOSTILE, TRICKY, missing, of_parts, part, spoken, transcript


def srt_of(made_from: Transcript) -> list[srt.Subtitle]:
    return list(srt.parse(to_srt(made_from), ignore_errors=False))


def vtt_of(made_from: Transcript) -> webvtt.WebVTT:
    return webvtt.from_buffer(io.StringIO(to_vtt(made_from)))


def two_parts_and_a_gap() -> Transcript:
    return of_parts(
        [
            part(0, 3.5, spoken("How are you?", speaker="Ann")),
            missing(1, None, "audio_not_found"),
            missing(2, 10.0),
            part(3, 4.0, spoken("I am well.", speaker="Ben")),
        ],
        title="Monday --> & <Tuesday>",
    )


def test_srt_to_the_letter():
    assert to_srt(two_parts_and_a_gap()) == (
        "1\n00:00:00,000 --> 00:00:01,200\n1-Ann: How are you?\n\n"
        "2\n00:00:03,500 --> 00:00:04,333\n"
        "[missing: part 2,\nlength unknown, audio_not_found]\n\n"
        "3\n00:00:04,333 --> 00:00:10,500\n[missing: part 3,\n0:03–0:13, invalid_audio]\n\n"
        "4\n00:00:13,500 --> 00:00:14,700\n4-Ben: I am well.\n"
    )


def test_vtt_to_the_letter():
    assert to_vtt(two_parts_and_a_gap()) == (
        "WEBVTT - Monday → & <Tuesday>\n\n"
        "NOTE [missing: part 2, length unknown, audio_not_found]\n\n"
        "NOTE [missing: part 3, 0:03–0:13, invalid_audio]\n\n"
        "00:00:00.000 --> 00:00:01.200\n<v 1-Ann>How are you?\n\n"
        "00:00:03.500 --> 00:00:04.333\n[missing: part 2,\nlength unknown, audio_not_found]\n\n"
        "00:00:04.333 --> 00:00:10.500\n[missing: part 3,\n0:03–0:13, invalid_audio]\n\n"
        "00:00:13.500 --> 00:00:14.700\n<v 4-Ben>I am well.\n"
    )


@pytest.mark.parametrize("text", TRICKY)
def test_another_parser_reads_the_srt_as_it_was_meant(text):
    made_from = transcript(spoken(text, speaker="Ann <b>"), spoken("The end.", start=300.0))
    expected = cues(made_from, name_speakers=True)
    found = srt_of(made_from)
    assert [(cue.start.total_seconds(), cue.end.total_seconds()) for cue in found] == [
        (cue.start, cue.end) for cue in expected
    ]
    lookalikes = str.maketrans("<>{}", "‹›()")
    assert [cue.content for cue in found] == [
        "\n".join(cue.lines).translate(lookalikes) for cue in expected
    ]
    assert [cue.index for cue in found] == list(range(1, len(expected) + 1))


@pytest.mark.parametrize("text", TRICKY)
def test_another_parser_reads_the_vtt_as_it_was_meant(text):
    made_from = transcript(
        spoken(text, speaker="Ann <b> & Co"), spoken("The end.", start=300.0), title=text
    )
    expected = cues(made_from, name_speakers=False)
    found = vtt_of(made_from)
    assert [(cue.start_in_seconds, cue.end_in_seconds) for cue in found.captions] == [
        (int(cue.start), int(cue.end)) for cue in expected
    ]
    shown = [re.fullmatch(r"(?:<v ([^>]*)>)?([^<>]*)", cue.raw_text) for cue in found.captions]
    assert [unescape(match[2]) for match in shown if match] == [
        "\n".join(cue.lines) for cue in expected
    ]
    assert [match[1] and unescape(match[1]) for match in shown if match] == [
        cue.speaker for cue in expected
    ]


def test_nothing_that_was_said_becomes_markup_or_a_time():
    lines = to_srt(transcript(spoken(HOSTILE))).splitlines()
    assert sum("-->" in line for line in lines) == 1
    assert not set("<>{}") & set("".join(line for line in lines if " --> " not in line))
    body = to_vtt(transcript(spoken(HOSTILE))).partition("\n\n")[2]
    assert body.count("-->") == 1
    assert "<" not in body


def test_no_words_are_a_valid_file_without_cues():
    assert (to_srt(transcript()), srt_of(transcript())) == ("", [])
    assert to_vtt(transcript(title="")) == "WEBVTT - Transcript\n"
    assert len(vtt_of(transcript())) == 0


def test_times_of_more_than_an_hour_are_written_in_full():
    late = transcript(spoken("late", start=36_061.5))
    assert "10:01:01,500 --> 10:01:01,900" in to_srt(late)
    assert vtt_of(late)[0].start == "10:01:01.500"
