"""The rules of subtitles, whatever is said."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.formats.cues import (
    COLUMNS_PER_SECOND,
    LEAST_SECONDS,
    LINE_COLUMNS,
    LINES,
    MOST_SECONDS,
    SPACING_SECONDS,
    Cue,
    _drafts,
    _starts,
    columns,
    cues,
)
from asr.formats.tokens import plain
from asr.formats.transcript import Transcript, marked
from asr.stitch import Part
from asr.types import Segment, Word
from tests.asr.transcripts import (
    CHINESE,
    TRICKY,
    missing,
    of_parts,
    spoken,
    squeezed,
    transcript,
    untimed,
)

TWO_SENTENCES = (
    "One sentence of some length stands here. "
    "And then another one follows at once, which is longer."
)
A_MILLISECOND = 0.001 + 1e-9  # times are rounded to it


def shown(found: list[Cue]) -> str:
    return squeezed("".join("".join(cue.notices + cue.lines) for cue in found))


def check_limits(found: list[Cue], made_from: Transcript) -> None:
    for cue in found:
        assert 1 <= len(cue.lines) <= LINES
        assert all(line and columns(line) <= LINE_COLUMNS for line in cue.lines), cue
        assert cue.start < cue.end <= cue.start + MOST_SECONDS + A_MILLISECOND
    for cue, following in pairwise(found):
        assert cue.end <= following.start
        seconds = cue.end - cue.start
        no_room = following.start - cue.end <= SPACING_SECONDS + A_MILLISECOND
        assert seconds >= LEAST_SECONDS - A_MILLISECOND or following.start == cue.end
        readable = columns(" ".join(cue.lines)) / COLUMNS_PER_SECOND
        assert seconds >= min(readable, MOST_SECONDS) - 0.06 or no_room, cue
    if found:
        last = found[-1]
        at_end = last.end >= made_from.duration_seconds - A_MILLISECOND
        assert last.end - last.start >= LEAST_SECONDS - A_MILLISECOND or at_end


def spoken_starts(found: list[Cue]) -> list[float]:
    return [cue.start for cue in found if not cue.lines[0].startswith("[missing:")]


def starts_without_gaps(made_from: Transcript) -> list[float]:
    drafts = _drafts(made_from, name_speakers=False)
    return _starts([draft for draft in drafts if not draft.is_gap])


def alone(text: str, **values: float) -> list[Cue]:
    return cues(transcript(spoken(text, **values)), name_speakers=True)


def test_a_short_sentence_is_one_line_for_as_long_as_it_takes_to_read():
    made_from = transcript(spoken("Hello, world!", start=1.0, pace=0.2), duration_seconds=9.0)
    (cue,) = cues(made_from, name_speakers=True)
    assert (cue.start, cue.end, cue.lines) == (1.0, 1.833, ("Hello, world!",))


def test_a_cue_ends_with_the_sentence_rather_than_full():
    text = "We came home late that day. Nobody had been there since the spring of the year before."
    assert [cue.lines[-1][-1] for cue in alone(text)] == [".", "."]
    assert " ".join(alone(text)[0].lines) == "We came home late that day."


def test_a_line_breaks_after_the_clause():
    (cue,) = alone("When it had stopped raining, the children went outside.")
    assert cue.lines == ("When it had stopped raining,", "the children went outside.")


def test_a_cue_begins_with_its_first_word_to_the_millisecond():
    first, second = alone(TWO_SENTENCES, start=3.3337, pace=0.31)
    assert (first.start, second.start) == (3.334, round(3.3337 + 7 * 0.31, 3))


def test_two_frames_are_left_between_cues_that_follow_each_other():
    first, second = alone(TWO_SENTENCES)
    assert second.start - first.end == pytest.approx(SPACING_SECONDS, abs=0.001)


def test_a_long_pause_is_left_empty():
    made_from = transcript(spoken("Yes indeed."), spoken("No.", start=20.0))
    first, second = cues(made_from, name_speakers=True)
    assert first.end < 2.0
    assert second.start == 20.0


def test_chinese_has_half_as_many_characters_to_a_line_and_none_begins_with_a_comma():
    found = cues(transcript(untimed(CHINESE * 8, 0.0, 60.0)), name_speakers=True)
    lines = [line for cue in found for line in cue.lines]
    assert shown(found) == CHINESE * 8
    assert max(map(len, lines)) <= 21
    assert not any(line[0] in "，。！」" or line[-1] == "「" for line in lines)


def test_letters_keep_their_marks_when_a_long_word_is_broken():
    found = alone("e\u0301" * 100)
    lines = [line for cue in found for line in cue.lines]
    assert [len(line) for line in lines] == [84, 84, 32]
    assert all(line[0] == "e" for line in lines)


def test_another_speaker_begins_a_cue_and_is_named_once():
    made_from = transcript(
        spoken("How are you?", speaker="Ann"),
        spoken("I was ill.", start=1.2, speaker="Ben"),
        spoken("But now I am well.", start=4.0, speaker="Ben"),
    )
    named = cues(made_from, name_speakers=True)
    assert [cue.lines for cue in named] == [
        ("Ann: How are you?",),
        ("Ben: I was ill.",),
        ("But now I am well.",),
    ]
    plain_ones = cues(made_from, name_speakers=False)
    assert [cue.lines[0].partition(":")[1] for cue in plain_ones] == ["", "", ""]
    assert [cue.speaker for cue in plain_ones] == ["Ann", "Ben", "Ben"]


def test_a_gap_is_shown_where_it_lies():
    made_from = of_parts(
        [
            Part(index=0, duration_seconds=10.0, segments=(spoken("before"),)),
            missing(1, 12.0),
            Part(index=2, duration_seconds=5.0, segments=(spoken("after"),)),
        ]
    )
    found = cues(made_from, name_speakers=True)
    assert [(cue.start, " ".join(cue.lines)) for cue in found] == [
        (0.0, "before"),
        (10.0, "[missing: part 2, 0:10–0:22, invalid_audio]"),
        (22.0, "after"),
    ]
    assert found[1].end == 17.0


UNKNOWN = "[missing: part {}, length unknown, audio_not_found]"


@pytest.mark.parametrize("seconds", [None, 0.0, 0.3])
def test_a_gap_without_time_for_it_stands_above_the_words_that_follow_and_moves_none(seconds):
    made_from = of_parts(
        [
            Part(index=0, duration_seconds=4.0, segments=(spoken("it was as I had said"),)),
            missing(1, seconds, "audio_not_found"),
            missing(2, seconds, "audio_not_found"),
            Part(index=3, duration_seconds=5.0, segments=(spoken("after it all", start=0.2),)),
        ]
    )
    before, after = cues(made_from, name_speakers=True)
    assert (before.start, before.lines, before.notices) == (0.0, ("it was as I had said",), ())
    assert before.end >= 2.4
    assert (after.start, after.lines) == (4.2 + 2 * (seconds or 0.0), ("after it all",))
    assert " ".join(after.notices) == " ".join(map(marked, made_from.gaps))
    assert all(columns(line) <= LINE_COLUMNS for line in after.notices)
    alone_it_took = cues(transcript(spoken("after it all")), name_speakers=True)[0]
    assert after.end - after.start > alone_it_took.end - alone_it_took.start + 1.0


def test_a_gap_of_unknown_length_is_shown_in_the_silence_that_follows():
    made_from = of_parts(
        [
            missing(0, None, "audio_not_found"),
            missing(1, None, "audio_not_found"),
            Part(index=2, duration_seconds=5.0, segments=(spoken("late", start=2.0),)),
        ]
    )
    found = cues(made_from, name_speakers=True)
    assert [(cue.start, " ".join(cue.lines), cue.notices) for cue in found] == [
        (0.0, UNKNOWN.format(1), ()),
        (0.833, UNKNOWN.format(2), ()),
        (2.0, "late", ()),
    ]


def test_a_gap_at_the_end_is_shown_for_as_long_as_it_takes_to_read():
    made_from = of_parts(
        [
            Part(index=0, duration_seconds=4.0, segments=(spoken("before"),)),
            missing(1, None, "audio_not_found"),
        ]
    )
    last = cues(made_from, name_speakers=True)[-1]
    assert last.start == 4.0
    readable = columns(" ".join(last.lines)) / COLUMNS_PER_SECOND
    assert last.end - last.start == pytest.approx(readable, abs=0.001)


def test_a_job_of_gaps_alone_shows_them_one_after_the_other():
    made_from = of_parts([missing(index, None) for index in range(24)])
    found = cues(made_from, name_speakers=True)
    check_limits(found, made_from)
    assert shown(found) == squeezed("".join(map(marked, made_from.gaps)))


@pytest.mark.parametrize("segments", [(), (untimed("", 0.0, 3.0),)])
def test_no_words_make_no_cues(segments):
    assert cues(transcript(*segments), name_speakers=True) == []


def test_speakers_who_interrupt_each_other_take_turns():
    made_from = transcript(
        spoken("I wanted to say that this is not how it was at all.", speaker="A"),
        spoken("Let me finish first, please.", start=1.0, speaker="B"),
    )
    found = cues(made_from, name_speakers=False)
    check_limits(found, made_from)
    assert [cue.speaker for cue in found] == ["Speaker A", "Speaker B"]


def test_a_very_long_run_of_marks_stays_with_its_letter_and_takes_little_time():
    marks = "\u0301" * 100_000
    started = time.monotonic()
    (cue,) = cues(transcript(untimed("a" * 43 + marks + "b" * 10, 0.0, 3.0)), name_speakers=True)
    assert time.monotonic() - started < 20.0, "with time as the square it took minutes"
    assert cue.lines == ("a" * 42, "a" + marks + "b" * 10)


TEXTS = st.one_of(
    st.sampled_from(TRICKY),
    st.lists(
        st.sampled_from(["a", "word,", "of", "some.", "lengths", "and", "then:", "more?"]),
        max_size=60,
    ).map(" ".join),
    st.text(max_size=60),
)
TIMES = st.floats(0.0, 30.0)


@st.composite
def any_segment(draw: st.DrawFn) -> Segment:
    """Also what no engine should answer: times that go back, overlap, or take no time."""
    text = draw(TEXTS)
    heard = draw(st.sampled_from([[], text.split(), text.lower().replace(",", "").split()]))
    pace = draw(st.sampled_from([0.0, 0.05, 0.4, 9.0]))
    start = draw(TIMES)
    words = tuple(
        Word(text=word, start=start + n * pace, end=start + (n + 0.9) * pace)
        for n, word in enumerate(heard)
    )
    speaker = draw(st.sampled_from([None, "Ann", "a name of sixty letters " * 3]))
    return Segment(text=text, start=start, end=draw(TIMES), words=words, speaker=speaker)


@st.composite
def any_part(draw: st.DrawFn, index: int) -> Part:
    if draw(st.booleans()):
        return missing(index, draw(st.none() | TIMES))
    found = draw(st.lists(any_segment(), max_size=3))
    # An engine's times lie within the chunk, but for what it rounds.
    seconds = max([1.0, *(segment.start + 0.01 for segment in found)])
    return Part(index=index, duration_seconds=seconds, segments=tuple(found))


PARTS = st.integers(1, 5).flatmap(
    lambda count: st.tuples(*(any_part(index) for index in range(count)))
)


@settings(max_examples=150, deadline=None, database=None)
@given(parts=PARTS)
def test_cues_keep_order_limits_and_every_word(parts):
    made_from = of_parts(parts)
    found = cues(made_from, name_speakers=False)
    check_limits(found, made_from)
    assert spoken_starts(found) == starts_without_gaps(made_from)
    gaps = {gap.index: marked(gap) for gap in made_from.gaps}
    expected = [gaps.get(part.index, "".join(plain(s.text) for s in part.segments))
                for part in parts]  # fmt: skip
    assert shown(found) == squeezed("".join(expected))
    named = cues(made_from, name_speakers=True)
    check_limits(named, made_from)
