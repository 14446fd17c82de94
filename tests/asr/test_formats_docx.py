"""Word documents, opened again."""

from __future__ import annotations

import io
import zipfile
from datetime import datetime

import docx
import pytest
from docx.document import Document

from asr.formats import make_docx
from asr.formats.transcript import Transcript
from asr.pieces import plain
from tests.asr.transcripts import RTL, TRICKY, missing, of_parts, part, spoken, transcript, untimed


def opened(made_from: Transcript) -> Document:
    return docx.Document(io.BytesIO(make_docx(made_from)))


def texts(made_from: Transcript) -> list[str]:
    return [paragraph.text for paragraph in opened(made_from).paragraphs]


def test_it_holds_title_times_speakers_and_gaps_in_order():
    parts = [
        part(0, 62.0, spoken("Good morning.", speaker="Ann")),
        missing(1, None, "audio_not_found"),
        part(2, 2.0, spoken("Bye.")),
    ]
    assert texts(of_parts(parts)) == [
        "Monday",
        "2026-03-01 · 1:04 · en",
        "0:00 Ann",
        "Good morning.",
        "[missing: part 2, length unknown, audio_not_found]",
        "1:02",
        "Bye.",
    ]


def test_its_properties_tell_of_the_recording_and_not_of_now():
    properties = opened(transcript(spoken("Hi."), title="T" * 300)).core_properties
    assert properties.title == "T" * 255
    assert properties.created == properties.modified
    assert properties.created is not None
    assert properties.created.replace(tzinfo=None) == datetime(2026, 3, 1, 12, 30)
    assert (properties.author, properties.language) == ("Verbatim", "en")


@pytest.mark.parametrize("text", TRICKY)
def test_any_text_comes_back_out_of_it(text):
    made_from = transcript(untimed(text, 0.0, 5.0, speaker=text[:40]), title=text)
    found = texts(made_from)
    assert found[0] == plain(text)
    assert found[2] == f"0:00 {plain(text[:40])}"
    assert found[3:] == [plain(text)]


def test_right_to_left_paragraphs_run_that_way_and_others_do_not():
    made_from = transcript(spoken(RTL), spoken("English", start=90.0))
    directed = {
        paragraph.text: paragraph._p.pPr is not None
        and bool(paragraph._p.pPr.xpath("./w:bidi"))
        and all(run.font.rtl for run in paragraph.runs)
        for paragraph in opened(made_from).paragraphs
    }
    assert (directed[RTL], directed["English"], directed["Monday"]) == (True, False, False)


@pytest.mark.parametrize("parts", [[], [missing(0, None)]])
def test_no_words_are_a_document_all_the_same(parts):
    assert texts(of_parts(parts))[0] == "Monday"
    assert len(texts(of_parts(parts))) == 2 + len(parts)


def test_equal_transcripts_make_equal_files_that_other_programs_open():
    made_from = transcript(spoken("Hello."))
    made = make_docx(made_from)
    assert make_docx(transcript(spoken("Hello."))) == made
    with zipfile.ZipFile(io.BytesIO(made)) as package:
        assert package.testzip() is None
        assert package.namelist()[0] == "[Content_Types].xml"
        assert {entry.date_time for entry in package.infolist()} == {(1980, 1, 1, 0, 0, 0)}
