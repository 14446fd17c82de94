"""Plain text."""

from __future__ import annotations

from asr.formats.transcript import Transcript, marked, paragraphs
from asr.stitch import Gap


def to_txt(transcript: Transcript) -> str:
    """Paragraphs with an empty line between them; a speaker's name where the speaker changes."""
    blocks = []
    speaker = None
    for part in paragraphs(transcript):
        if isinstance(part, Gap):
            blocks.append(marked(part))
            continue
        is_new = part.speaker is not None and part.speaker != speaker
        blocks.append(f"{part.speaker}: {part.text}" if is_new else part.text)
        speaker = part.speaker
    return "\n\n".join(blocks) + "\n" if blocks else ""
