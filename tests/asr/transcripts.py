"""Transcripts that tests of the formats begin with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from asr.formats.transcript import Transcript
from asr.stitch import Part, stitch
from asr.types import Segment, Word, segments_from_json, segments_to_json

RTL = "שלום עולם, זה ניסיון. مرحبا بالعالم"
HOSTILE = "a --> b <script>alert(1)</script> & {\\an8} {nb} &amp; WEBVTT"
UNPRINTABLE = "bell\x07 esc\x1b[31m nul\x00 half\ud800 none\uffff next\x85line\u2028end"
MARKS = "e\u0301te\u0301 नमस्ते สวัสดี"
EMOJI = "fine 😀 family 👨\u200d👩\u200d👧 done"
CHINESE = "今天天气很好，我们去「公园」散步。这是一个测试！"
TRICKY = (RTL, HOSTILE, UNPRINTABLE, MARKS, EMOJI, CHINESE, "x" * 500, "한국어 문장입니다.")


def spoken(text: str, start: float = 0.0, pace: float = 0.4, **values: Any) -> Segment:
    """A segment that says one word each `pace` seconds, without a pause between them."""
    words = tuple(
        Word(text=word, start=start + n * pace, end=start + (n + 1) * pace, confidence=0.9)
        for n, word in enumerate(text.split())
    )
    end = words[-1].end if words else start
    return Segment(text=text, start=start, end=end, words=words, **values)


def untimed(text: str, start: float, end: float, **values: Any) -> Segment:
    """A segment of an engine that times no words."""
    return Segment(text=text, start=start, end=end, **values)


def transcript(*segments: Segment, **values: Any) -> Transcript:
    """A transcript of one chunk."""
    seconds = max((segment.end for segment in segments), default=0.0)
    return of_parts([part(0, seconds)], **{"segments": segments} | values)


def of_parts(parts: Sequence[Part], **values: Any) -> Transcript:
    """The parts as the service puts them together."""
    stitched = stitch(parts)
    starts, seconds = [], 0.0
    for part in parts:
        starts.append(seconds)
        seconds += part.duration_seconds or 0.0
    defaults: dict[str, Any] = {
        "title": "Monday",
        "language": "en",
        "completed_time": datetime(2026, 3, 1, 12, 30, tzinfo=UTC),
        "duration_seconds": stitched.duration_seconds,
        "segments": segments_from_json(stitched.segments),
        "gaps": stitched.gaps,
        "chunk_starts": tuple(starts),
    }
    return Transcript(**defaults | values)


def part(index: int, seconds: float | None, *segments: Segment, **values: Any) -> Part:
    """A chunk in which these segments were recognised."""
    heard = segments_to_json(segments)
    return Part(index=index, duration_seconds=seconds, segments=heard, **values)


def missing(index: int, seconds: float | None, code: str = "invalid_audio") -> Part:
    return Part(index=index, duration_seconds=seconds, gap_code=code)


def squeezed(text: str) -> str:
    """Without any space: what must come through however lines are broken."""
    return "".join(text.split())
