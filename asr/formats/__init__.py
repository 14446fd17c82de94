"""A transcript as a file. Pure: no clock, no settings; equal transcripts make equal files.

`docx` and `pdf` import large libraries and are for child processes; the others are for anywhere.
"""

from __future__ import annotations

from asr.formats.transcript import Transcript


def make_docx(transcript: Transcript) -> bytes:
    """A Word document. For a child process."""
    from asr.formats.docx import to_docx  # noqa: PLC0415  (heavy, see above)

    return to_docx(transcript)


def make_pdf(transcript: Transcript) -> bytes:
    """A PDF. For a child process."""
    from asr.formats.pdf import to_pdf  # noqa: PLC0415

    return to_pdf(transcript)
