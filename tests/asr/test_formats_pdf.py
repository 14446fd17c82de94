"""PDF, read by another library."""

from __future__ import annotations

import io
import re

import pypdfium2
import pytest
from pypdf import PdfReader

from asr.child_pool import ChildPool
from asr.formats import make_pdf
from asr.formats.transcript import Transcript
from asr.pieces import plain
from tests.asr.transcripts import (
    CHINESE,
    EMOJI,
    HOSTILE,
    RTL,
    TRICKY,
    missing,
    of_parts,
    part,
    spoken,
    squeezed,
    transcript,
    untimed,
)

PANGRAMS = (
    "The quick brown fox jumps over the lazy dog. Zwölf Boxkämpfer jagen Viktor, français: œuvre.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. Ґанок, їжак.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "「いろはにほへと」、漢字とカタカナ。",
    "天地玄黃，宇宙洪荒。",
    "키스의 고유조건은 입술끼리 만나야 하고",
    "Tiếng Việt đậm đà, e\u0301te\u0301",
    "สวัสดีครับ ยินดีที่ได้รู้จัก",
    "नमस्ते दुनिया, हिन्दी में प्रकाशित",
    "ሰላም ለዓለም",
    "office fiancé ffl",
)


def read(made_from: Transcript) -> list[str]:
    """The lines of all pages, without the number at the foot of each."""
    pages = PdfReader(io.BytesIO(make_pdf(made_from))).pages
    lines = []
    for number, page in enumerate(pages, start=1):
        *body, foot = page.extract_text().splitlines()
        assert foot.strip() == str(number)
        lines += body
    return lines


def body(made_from: Transcript) -> str:
    """All but the title and the line below it."""
    return "\n".join(read(made_from)[2:])


def test_it_holds_title_times_speakers_and_gaps_in_order():
    parts = [
        part(0, 62.0, spoken("Good morning.", speaker="Ann")),
        missing(1, None, "audio_not_found"),
        part(2, 2.0, spoken("Bye.")),
    ]
    assert [line.strip() for line in read(of_parts(parts))] == [
        "Monday",
        "2026-03-01 · 1:04 · en",
        "0:00 Ann",
        "Good morning.",
        "[missing: part 2, length unknown, audio_not_found]",
        "1:02",
        "Bye.",
    ]


@pytest.mark.parametrize("text", PANGRAMS)
def test_text_that_runs_from_left_to_right_comes_back_exactly(text):
    found = body(transcript(spoken(text))).replace("\u2060", "")
    assert " ".join(found.split()) == f"0:00 {text}"


def test_a_page_long_text_comes_back_exactly():
    said = " ".join(f"number{n}" for n in range(3000))
    found = read(transcript(spoken(said)))[2:]
    words = [line for line in found if not re.fullmatch(r"\d+:\d\d ?", line)]
    assert " ".join(" ".join(words).split()) == said


@pytest.mark.parametrize(
    "text",
    ["שלום עולם זה ניסיון", "مرحبا بالعالم هذا نص", "שָׁלוֹם עוֹלָם", "مُحَمَّدٌ رَسُولٌ", RTL],
)
def test_text_that_runs_from_right_to_left_comes_back_word_by_word(text):
    found = body(transcript(spoken(text)))
    strip = str.maketrans("", "", ",.\u2060")
    assert sorted(found.translate(strip).split()) == sorted(
        ["0:00", *text.translate(strip).split()]
    )


@pytest.mark.parametrize(
    "text",
    ["שלום עולם, זה ניסיון 24 abc.", "مرحبا 24 بالعالم test نص.", "hello שלום world 12:30"],
)
def test_a_browser_finds_words_of_both_directions_in_the_order_in_which_they_were_said(text):
    with pypdfium2.PdfDocument(make_pdf(transcript(spoken(text)))) as document:
        shown = document[0].get_textpage().get_text_range()
    assert " ".join(shown.split()).endswith(f"0:00 {text} 1")


def test_chinese_lines_do_not_begin_with_a_comma():
    made_from = transcript(untimed(CHINESE * 20, 0.0, 200.0))
    lines = read(made_from)[3:]
    assert squeezed("".join(lines)) == CHINESE * 20
    assert not any(line[0] in "，。！」" for line in lines)


@pytest.mark.parametrize(
    ("language", "font"),
    [
        ("zh", "SC"),
        ("zh-TW", "TC"),
        ("zh-Hant-HK", "TC"),
        ("ja", "JP"),
        ("ko", "KR"),
        ("yue", "TC"),
    ],
)
def test_chinese_characters_have_the_forms_of_the_language(language, font):
    made = make_pdf(transcript(spoken("大 天"), language=language))
    fonts = PdfReader(io.BytesIO(made)).pages[0]["/Resources"]["/Font"]  # type: ignore[index]
    used = re.findall(
        "Sans(SC|TC|JP|KR)", " ".join(str(fonts[name]["/BaseFont"]) for name in fonts)
    )
    assert used == [font]


def test_a_character_without_a_glyph_is_spelled_out():
    found = " ".join(body(transcript(spoken(EMOJI))).split())
    assert found == f"0:00 {EMOJI.replace('😀', '[U+1F600]')}"


def test_letters_and_marks_of_a_script_without_a_font_are_spelled_out():
    found = " ".join(body(transcript(spoken("ខ្មែ"))).split())
    assert found == "0:00 [U+1781][U+17D2][U+1798][U+17C2]"


@pytest.mark.parametrize("text", [HOSTILE, "x" * 2000, "{nb} of {nb}", "**no** __markup__ [a](b)"])
def test_nothing_that_was_said_is_taken_for_an_instruction(text):
    assert squeezed(body(transcript(untimed(text, 0.0, 5.0)))) == f"0:00{squeezed(text)}"


@pytest.mark.parametrize("text", TRICKY)
def test_any_text_makes_a_pdf_with_its_title(text):
    made_from = transcript(untimed(text, 0.0, 5.0, speaker=text[:40]), title=text)
    reader = PdfReader(io.BytesIO(make_pdf(made_from)))
    assert reader.metadata is not None
    assert reader.metadata.title == plain(text)
    assert len(reader.pages) >= 1


@pytest.mark.parametrize("parts", [[], [missing(0, None)]])
def test_no_words_are_a_page_all_the_same(parts):
    assert len(read(of_parts(parts))) == 2 + len(parts)


def test_equal_transcripts_make_equal_files_dated_by_the_job():
    made = make_pdf(transcript(spoken(RTL), spoken(CHINESE, start=60.0)))
    assert make_pdf(transcript(spoken(RTL), spoken(CHINESE, start=60.0))) == made
    metadata = PdfReader(io.BytesIO(made)).metadata
    assert metadata is not None
    assert metadata.creation_date is not None
    assert metadata.creation_date.isoformat() == "2026-03-01T12:30:00+00:00"


def test_a_child_process_has_room_for_every_font():
    pool = ChildPool(1)
    try:
        made_from = transcript(spoken(" ".join((*PANGRAMS, *TRICKY))))
        assert pool.run(make_pdf, made_from, limit=90.0) == make_pdf(made_from)
    finally:
        pool.close()
