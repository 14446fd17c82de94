"""Stitching: whatever the order of arrival, one and the same transcript."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.stitch import Gap, Part, start_times, stitch
from asr.types import Segment, Word, join_text, segments_from_json, segments_to_json

TEXTS = st.text(st.sampled_from("ab é\n\t字かカ한。"), max_size=12)
CODES = st.sampled_from([None, None, None, "engine_error", "invalid_audio"])


@st.composite
def parts(draw: st.DrawFn) -> list[Part]:
    return [draw(_part(index)) for index in range(draw(st.integers(0, 8)))]


@st.composite
def _part(draw: st.DrawFn, index: int) -> Part:
    duration = draw(st.none() | st.floats(0, 300))
    code = draw(CODES)
    if code or duration is None:
        return Part(index=index, duration_seconds=duration, gap_code=code or "engine_error")
    edges = sorted(draw(st.lists(st.floats(0, duration), min_size=2, max_size=8)))
    words = tuple(
        Word(text=draw(TEXTS), start=start, end=end, confidence=0.5)
        for start, end in itertools.pairwise(edges)
    )
    text = " ".join(word.text for word in words)
    segment = Segment(text=text, start=edges[0], end=edges[-1], words=words)
    return Part(
        index=index, duration_seconds=duration, text=text, segments=segments_to_json([segment])
    )


@given(parts(), st.randoms())
def test_the_order_of_arrival_makes_no_difference(given_parts: list[Part], random: object) -> None:
    shuffled = list(given_parts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert stitch(shuffled) == stitch(given_parts)


@given(parts())
def test_times_are_those_of_the_whole_recording(given_parts: list[Part]) -> None:
    stitched = stitch(given_parts)
    segments = segments_from_json(stitched.segments)
    times = [t for s in segments for w in s.words for t in (w.start, w.end)]
    assert times == sorted(times)
    offset, expected = 0.0, []
    for part in given_parts:
        expected += [offset + segment["words"][-1]["end"] for segment in part.segments]
        offset += part.duration_seconds or 0.0
    assert [segment.words[-1].end for segment in segments] == expected
    assert stitched.duration_seconds == offset


@given(parts())
def test_the_text_holds_every_part_in_order(given_parts: list[Part]) -> None:
    rest = stitch(given_parts).text
    assert rest == rest.strip()
    assert "  " not in rest
    for part in given_parts:
        own = join_text([part.text])
        assert own in rest
        rest = rest[rest.index(own) + len(own) :]


@given(parts())
def test_what_is_missing_is_listed(given_parts: list[Part]) -> None:
    missing = [part for part in given_parts if part.gap_code]
    gaps = stitch(given_parts).gaps
    assert [gap.index for gap in gaps] == [part.index for part in missing]
    assert [gap.code for gap in gaps] == [part.gap_code for part in missing]
    assert all((gap.start_time is None) == (gap.duration_seconds is None) for gap in gaps)


def test_a_gap_that_was_measured_keeps_its_place() -> None:
    stitched = stitch(
        [
            Part(index=2, duration_seconds=2.0, text="end"),
            Part(index=0, duration_seconds=1.5, text="start"),
            Part(index=1, duration_seconds=4.0, gap_code="engine_error"),
            Part(index=3, duration_seconds=None, gap_code="invalid_audio"),
        ]
    )
    assert stitched.text == "start end"
    assert stitched.duration_seconds == 7.5
    assert stitched.gaps == (
        Gap(index=1, start_time=1.5, duration_seconds=4.0, code="engine_error"),
        Gap(index=3, start_time=None, duration_seconds=None, code="invalid_audio"),
    )


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([" one ", "", "two\n\tthree "], "one two three"),
        (["今日は", "いい天気"], "今日はいい天気"),
        (["今日は。", "Verbatim", "です"], "今日は。 Verbatim です"),
        (["안녕", "하세요"], "안녕 하세요"),
        (["", "  "], ""),
    ],
)
def test_pieces_are_joined_as_their_script_is_written(pieces: list[str], text: str) -> None:
    assert join_text(pieces) == text


@pytest.mark.parametrize(
    ("durations", "ended", "starts"),
    [
        ([], [], []),
        ([2.0, 3.0, 1.0], [True, False, False], [0.0, 2.0, 5.0]),
        ([2.0, None, 1.0], [True, False, False], [0.0, None, None]),
        ([2.0, None, 1.0], [True, True, False], [0.0, None, 2.0]),
        ([None, 1.0], [False, True], [None, None]),
    ],
)
def test_a_start_is_known_once_nothing_before_it_can_change(
    durations: list[float | None], ended: list[bool], starts: list[float | None]
) -> None:
    assert start_times(durations, ended) == starts


@given(parts())
def test_segments_survive_json(given_parts: list[Part]) -> None:
    segments = tuple(s for part in given_parts for s in segments_from_json(part.segments))
    segments += tuple(replace(segment, speaker="A", confidence=0.25) for segment in segments)
    assert segments_from_json(json.loads(json.dumps(segments_to_json(segments)))) == segments


def test_speakers_of_several_chunks_are_told_apart_and_those_of_one_keep_their_names() -> None:
    def part(index: int, speaker: str | None) -> Part:
        word = Word(text="x", start=0.0, end=0.5, speaker=speaker)
        segment = Segment(text="x", start=0.0, end=0.5, words=(word,), speaker=speaker)
        return Part(
            index=index, duration_seconds=1.0, text="x", segments=segments_to_json([segment])
        )

    def heard(*parts: Part) -> list[str | None]:
        segments = segments_from_json(stitch(parts).segments)
        assert [s.speaker for s in segments] == [s.words[0].speaker for s in segments]
        return [segment.speaker for segment in segments]

    assert heard(part(1, "A"), part(0, "A"), part(2, None)) == ["1-A", "2-A", None]
    assert heard(part(0, None), part(1, "A")) == [None, "A"]
