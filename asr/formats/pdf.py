"""PDF. For a child process: fpdf2 and its fonts stay out of the parent.

The fonts are the Kurinto family (SIL Open Font License) of the package weblate-fonts: one file for
about a hundred scripts, and one each for Chinese, simplified and traditional, Japanese and Korean.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from fontTools.ttLib import TTFont
from fpdf import FPDF
from fpdf.fonts import TTFFont

from asr.formats.direction import is_right_to_left, needs_shaping
from asr.formats.transcript import Transcript, clock, headline, marked, paragraphs, summary
from asr.pieces import pieces
from asr.stitch import Gap
from asr.types import CJK

_FONT: Final = ""  # the suffix of the file for all scripts but those of East Asia
_EAST_ASIAN: Final = ("SC", "TC", "JP", "KR")
_WORD_JOINER: Final = 0x2060  # neither seen nor breaking the word
_MARGIN: Final = 20  # millimetres
_TITLE_SIZE, _TEXT_SIZE, _NOTE_SIZE = 16, 11, 9  # points
_LEADING: Final = 1.45
_MILLIMETRES: Final = 25.4 / 72  # of one point
_IS_CJK = re.compile(f"[{CJK}]")
# Joiners and selectors of variants have no look of their own: left out, not spelled out.
_IS_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe00-\ufe0f\ufeff]")


def to_pdf(transcript: Transcript) -> bytes:
    """Title, a line about the recording, and the paragraphs below their time and speaker.

    A character that no font has, such as many an emoji and all of Khmer, is spelled out: [U+1F600].
    """
    blocks = list(_blocks(transcript))
    page = _Page(transcript, "".join(text for _, text in blocks))
    for size, text in blocks:
        page.put(text, size)
    page.name_glyphs()
    return bytes(page.output())


def _blocks(transcript: Transcript) -> list[tuple[int, str]]:
    """All texts in order, each with its size."""
    blocks = [(_TITLE_SIZE, headline(transcript)), (_NOTE_SIZE, summary(transcript))]
    for part in paragraphs(transcript):
        if isinstance(part, Gap):
            blocks.append((_NOTE_SIZE, marked(part)))
        else:
            head = (clock(part.start), part.speaker)
            blocks.append((_NOTE_SIZE, " ".join(filter(None, head))))
            blocks.append((_TEXT_SIZE, part.text))
    return blocks


class _Page(FPDF):
    """A4 sheets with the fonts that one transcript needs."""

    def __init__(self, transcript: Transcript, text: str) -> None:
        super().__init__()
        self.str_alias_nb_pages = ""  # or "{nb}" in a text would become a number
        self._fonts, self._missing = _fonts_for(text, transcript.language or "")
        for suffix in self._fonts:
            self.add_font(_family(suffix), fname=_path(suffix))
        self.set_fallback_fonts([_family(suffix) for suffix in self._fonts if suffix != _FONT])
        self.set_title(headline(transcript))
        self.set_creator("Verbatim")
        self.set_creation_date(transcript.completed_time)
        if transcript.language:
            self.set_lang(transcript.language)
        self.set_margin(_MARGIN)
        self.set_auto_page_break(True, _MARGIN)
        self.set_font(_family(_FONT))
        self.add_page()

    def footer(self) -> None:
        self.set_y(-_MARGIN + _TEXT_SIZE * _MILLIMETRES)
        self.set_text_shaping(use_shaping_engine=False)
        self.set_font_size(_NOTE_SIZE)
        self.cell(0, text=str(self.page_no()), align="C")

    def put(self, text: str, size: int) -> None:
        """Set a text of any length; a note stays with the text below it."""
        height = size * _LEADING * _MILLIMETRES
        if size == _NOTE_SIZE and self.will_page_break(3 * height):
            self.add_page()
        text = "".join(map(self._shown, text))
        self.set_text_shaping(use_shaping_engine=needs_shaping(text))
        self.set_font_size(size)
        self.set_text_color(0x59 if size == _NOTE_SIZE else 0)
        self.multi_cell(
            0,
            height,
            self._broken(text) if _is_mostly_cjk(text) else text,
            align="R" if is_right_to_left(text) else "L",
            new_x="LMARGIN",
            new_y="NEXT",
        )
        if size != _NOTE_SIZE:
            self.ln(height / 3)

    def name_glyphs(self) -> None:
        """Say of every glyph which text it stands for, once all are set.

        Where one letter takes two glyphs, fpdf2 leaves the second without a text, and programs
        that read the file would make one up.
        """
        for font in self.fonts.values():
            if isinstance(font, TTFFont):
                for glyph in dict(font.subset.items()):
                    if glyph is not None and glyph.unicode == ():
                        glyph.unicode = (_WORD_JOINER,)

    def _broken(self, text: str) -> str:
        """A text without spaces, broken into lines: fpdf2 would let them begin with a comma."""
        lines, room = [""], 0.0
        for piece, spaced in pieces(text):
            glued = f" {piece}" if spaced and lines[-1] else piece
            width = self.get_string_width(glued)
            if width > room:
                lines.append(piece)
                room = self.epw - 2 * self.c_margin - self.get_string_width(piece)
            else:
                lines[-1] += glued
                room -= width
        return "\n".join(lines[1:])

    def _shown(self, char: str) -> str:
        if ord(char) not in self._missing:
            return char
        return "" if _IS_INVISIBLE.match(char) else f"[U+{ord(char):04X}]"


def _fonts_for(text: str, language: str) -> tuple[list[str], set[int]]:
    """The fonts that the text needs, the first for all that it has, and what none of them has."""
    missing = {ord(char) for char in text} - _characters(_FONT)
    fonts = [_FONT]
    for suffix in sorted(_EAST_ASIAN, key=lambda suffix: suffix != _east_asian(language)):
        found = missing & _characters(suffix) if missing else None
        if found:
            fonts.append(suffix)
            missing -= found
    return fonts, missing


def _east_asian(tag: str) -> str:
    """The font whose forms of Chinese characters the readers of a language expect."""
    language, *subtags = re.split("[-_]", tag.lower())
    if language == "zh" and {"hant", "tw", "hk", "mo"} & set(subtags):
        return "TC"
    return {"ja": "JP", "ko": "KR", "yue": "TC"}.get(language, "SC")


def _is_mostly_cjk(text: str) -> bool:
    return 2 * len(_IS_CJK.findall(text)) > len(text)


@cache
def _characters(suffix: str) -> frozenset[int]:
    with TTFont(_path(suffix), lazy=True) as font:
        return frozenset(font.getBestCmap())


def _family(suffix: str) -> str:
    return f"kurinto{suffix.lower()}"


def _path(suffix: str) -> Path:
    fonts = files("weblate_fonts") / "static" / "weblate_fonts" / "kurinto" / "ttf"
    return Path(str(fonts / f"KurintoSans{suffix}-Rg.ttf"))
