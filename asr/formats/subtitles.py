"""SRT and WebVTT."""

from __future__ import annotations

from html import escape
from typing import Final

from asr.formats.cues import Cue, cues
from asr.formats.transcript import Transcript, headline, marked

# SRT has no way to escape: players read <…> and {\…} as markup, parsers look for "-->".
_SRT_LOOKALIKES: Final = str.maketrans({"<": "‹", ">": "›", "{": "(", "}": ")"})


def to_srt(transcript: Transcript) -> str:
    """SubRip: numbered cues; a speaker's name stands before the first words."""
    blocks = [
        f"{number}\n{_span(cue, ',')}\n{_text(cue)}\n"
        for number, cue in enumerate(cues(transcript, name_speakers=True), start=1)
    ]
    return "\n".join(blocks)


def _text(cue: Cue) -> str:
    return "\n".join(cue.notices + cue.lines).translate(_SRT_LOOKALIKES)


def to_vtt(transcript: Transcript) -> str:
    """WebVTT (W3C): speakers as voices, gaps also as notes at the top."""
    notes = [f"NOTE {marked(gap)}\n" for gap in transcript.gaps]
    blocks = [
        f"{_span(cue, '.')}\n{_voiced(cue)}\n" for cue in cues(transcript, name_speakers=False)
    ]
    return "\n".join([f"WEBVTT - {_header(transcript)}\n", *notes, *blocks])


def _header(transcript: Transcript) -> str:
    """What stands on the first line is a comment, but even there the arrow is forbidden."""
    return headline(transcript).replace("-->", "→")


def _voiced(cue: Cue) -> str:
    text = escape("\n".join(cue.lines), quote=False)
    if cue.speaker is not None:
        text = f"<v {escape(cue.speaker, quote=False)}>{text}"
    return "\n".join([*cue.notices, text])


def _span(cue: Cue, point: str) -> str:
    return f"{_stamp(cue.start, point)} --> {_stamp(cue.end, point)}"


def _stamp(seconds: float, point: str) -> str:
    """hh:mm:ss,mmm with that decimal point."""
    whole, thousandth = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02}:{minute:02}:{second:02}{point}{thousandth:03}"
