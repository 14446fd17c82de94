"""Word documents. For a child process: python-docx stays out of the parent."""

from __future__ import annotations

import io
import zipfile
from datetime import UTC

import docx
from docx.document import Document
from docx.oxml import OxmlElement
from docx.shared import Pt, RGBColor
from docx.text.paragraph import Paragraph as DocxParagraph

from asr.formats.direction import is_right_to_left
from asr.formats.transcript import (
    Paragraph,
    Transcript,
    clock,
    headline,
    marked,
    paragraphs,
    summary,
)
from asr.pieces import plain
from asr.stitch import Gap

_GREY = RGBColor(0x59, 0x59, 0x59)
_PROPERTY_LENGTH = 255  # what OPC allows a core property
_OLDEST_IN_ZIP = (1980, 1, 1, 0, 0, 0)


def to_docx(transcript: Transcript) -> bytes:
    """Title, a line about the recording, and the paragraphs below their time and speaker."""
    document = docx.Document()
    _describe(document, transcript)
    _directed(document.add_heading(headline(transcript), level=1))
    _note(document.add_paragraph(), summary(transcript))
    for part in paragraphs(transcript):
        if isinstance(part, Gap):
            document.add_paragraph().add_run(marked(part)).italic = True
        else:
            _add(document, part)
    made = io.BytesIO()
    document.save(made)
    return _undated(made)


def _describe(document: Document, transcript: Transcript) -> None:
    properties = document.core_properties
    properties.title = headline(transcript)[:_PROPERTY_LENGTH]
    properties.author = "Verbatim"
    properties.comments = ""
    properties.language = plain(transcript.language or "")
    # The format knows no time zones: UTC, without saying so.
    moment = transcript.completed_time.astimezone(UTC).replace(tzinfo=None)
    properties.created = properties.modified = moment


def _add(document: Document, part: Paragraph) -> None:
    head = document.add_paragraph()
    head.paragraph_format.keep_with_next = True
    head.paragraph_format.space_after = Pt(0)
    _note(head, clock(part.start))
    if part.speaker is not None:
        head.add_run(f" {part.speaker}").bold = True
    _directed(document.add_paragraph(part.text))


def _note(paragraph: DocxParagraph, text: str) -> None:
    run = paragraph.add_run(text)
    run.font.size = Pt(9)
    run.font.color.rgb = _GREY


def _directed(paragraph: DocxParagraph) -> None:
    """Let right-to-left text run that way; python-docx has no word for it."""
    if is_right_to_left(paragraph.text):
        paragraph._p.get_or_add_pPr().insert_element_before(
            OxmlElement("w:bidi"), "w:spacing", "w:ind", "w:jc", "w:rPr"
        )
        for run in paragraph.runs:
            run.font.rtl = True


def _undated(made: io.BytesIO) -> bytes:
    """The same package, with the archive's oldest date on each part instead of now."""
    fixed = io.BytesIO()
    with zipfile.ZipFile(made) as parts, zipfile.ZipFile(fixed, "w") as archive:
        for name in parts.namelist():
            info = zipfile.ZipInfo(name, date_time=_OLDEST_IN_ZIP)
            archive.writestr(info, parts.read(name), zipfile.ZIP_DEFLATED)
    return fixed.getvalue()
