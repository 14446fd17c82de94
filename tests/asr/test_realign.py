"""Realigning: what was heard keeps its time, and what a person wrote finds one."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.formats.subtitles import to_srt, to_vtt
from asr.realign import common, realign
from asr.stitch import Part, speaker_keys, stitch
from asr.types import Segment, Word, segments_from_json
from tests.asr.transcripts import CHINESE, of_parts, part, spoken, untimed

LETTERS = st.text(st.sampled_from("abc"), max_size=12)
VOCABULARY = st.sampled_from(["the", "a", "Cat", "sat,", "mat.", "—", "é", "42"])
WRITTEN = st.lists(VOCABULARY, max_size=30).map(" ".join)


@st.composite
def heard(draw: st.DrawFn) -> tuple[Segment, ...]:
    """Segments in order, each with words in order and pauses between them."""
    time_, found = 0.0, []
    for texts in draw(st.lists(st.lists(VOCABULARY, min_size=1, max_size=6), max_size=5)):
        words = []
        for text in texts:
            time_ += draw(st.sampled_from([0.0, 0.1, 3.0]))
            words.append(Word(text=text, start=time_, end=time_ + 0.3, confidence=0.7))
            time_ += 0.3
        found.append(
            Segment(
                text=" ".join(texts), start=words[0].start, end=words[-1].end, words=tuple(words)
            )
        )
    return tuple(found)


def words_of(segments: tuple[Segment, ...]) -> list[Word]:
    return [word for segment in segments for word in segment.words]


def said(segments: tuple[Segment, ...]) -> str:
    return " ".join(segment.text for segment in segments)


def edited(*segments: Segment, text: str, seconds: float | None = 60.0) -> list[tuple[object, ...]]:
    words = words_of(realign(segments, text, seconds))
    return [(word.text, word.start, word.end, word.edited) for word in words]


@given(heard(), WRITTEN)
def test_the_words_are_those_of_the_text_and_their_times_never_go_back(
    segments: tuple[Segment, ...], text: str
) -> None:
    made = realign(segments, text, 100.0)
    assert said(made) == text
    assert [word.text for word in words_of(made)] == text.split()
    times = [moment for word in words_of(made) for moment in (word.start, word.end)]
    assert times == sorted(times)
    starts = [segment.start for segment in made]
    assert starts == sorted(starts)
    for segment in made:
        assert segment.start <= segment.words[0].start
        assert segment.words[-1].end <= segment.end


@given(heard(), WRITTEN)
def test_what_was_heard_keeps_its_times_and_confidence_and_the_rest_says_that_it_did_not(
    segments: tuple[Segment, ...], text: str
) -> None:
    as_heard = {(word.start, word.end) for word in words_of(segments)}
    for word in words_of(realign(segments, text, 100.0)):
        if word.edited:
            assert word.confidence is None
        else:
            assert (word.start, word.end) in as_heard
            assert word.confidence == 0.7


@given(heard())
def test_a_text_that_was_not_changed_changes_nothing(segments: tuple[Segment, ...]) -> None:
    assert realign(segments, said(segments), 100.0) == segments


@given(heard(), st.integers(0, 40), WRITTEN)
def test_all_words_around_a_change_are_kept(
    segments: tuple[Segment, ...], at: int, put_in: str
) -> None:
    before = words_of(segments)
    at = min(at, len(before))
    texts = [word.text for word in before]
    text = " ".join([*texts[:at], *put_in.split(), *texts[at:]])
    kept = [word for word in words_of(realign(segments, text, 100.0)) if not word.edited]
    assert len(kept) >= len(before)


@given(LETTERS, LETTERS)
def test_a_longest_common_subsequence_is_found(old: str, new: str) -> None:
    found = common(old, new)
    pairs = [(at, number) for number, at in enumerate(found) if at is not None]
    assert all(old[at] == new[number] for at, number in pairs)
    assert all(left < right for (left, _), (right, _) in itertools.pairwise(pairs))
    assert len(pairs) == longest(old, new)


def longest(old: str, new: str) -> int:
    """By the book."""
    row = [0] * (len(old) + 1)
    for letter in new:
        last = row
        row = [0]
        for position, other in enumerate(old):
            both = last[position] + 1 if other == letter else 0
            row.append(max(both, row[position], last[position + 1]))
    return row[-1]


def test_a_replaced_word_takes_the_time_of_what_was_heard_there() -> None:
    assert edited(spoken("we meat on monday", pace=1.0), text="we meet on Monday.") == [
        ("we", 0.0, 1.0, False),
        ("meet", 1.0, 2.0, True),
        ("on", 2.0, 3.0, False),
        ("Monday.", 3.0, 4.0, False),  # punctuation and capitals make no other word
    ]


def test_words_put_in_share_the_pause_as_far_as_they_need_it() -> None:
    before, after = spoken("one", pace=1.0), spoken("two", start=1.1, pace=1.0)
    assert edited(before, after, text="one and two") == [
        ("one", 0.0, 1.0, False),
        ("and", 1.0, 1.1, True),
        ("two", 1.1, 2.1, False),
    ]
    (_, start, end, _) = edited(spoken("one", pace=1.0), text="one and")[1]
    assert start == 1.0
    assert end == pytest.approx(1.21)
    (_, start, end, _) = edited(spoken("one", start=5.0, pace=1.0), text="well one")[0]
    assert (start, end) == (pytest.approx(4.72), 5.0)


def test_words_put_in_at_a_segments_end_do_not_reach_into_the_next() -> None:
    late = Word(text="two", start=3.0, end=4.0)
    after = Segment(text="two", start=1.1, end=4.0, words=(late,))
    made = realign((spoken("one", pace=1.0), after), "one and so on two", 60.0)
    assert [(segment.text, segment.end) for segment in made] == [
        ("one and so on", 1.1),
        ("two", 4.0),
    ]


def test_one_word_for_several_spans_them_and_several_for_one_share_its_time() -> None:
    made = edited(spoken("cap i tal letters", pace=1.0), text="capital letters")
    assert made == [("capital", 0.0, 3.0, True), ("letters", 3.0, 4.0, False)]
    made = edited(spoken("alot", pace=1.0), text="a lot")
    assert made == [("a", 0.0, 0.25, True), ("lot", 0.25, 1.0, True)]


def test_only_the_segment_that_was_changed_is_made_anew() -> None:
    kept = spoken("first one", confidence=0.6), untimed("a b", 9.0, 11.0)
    segments = (kept[0], spoken("second one", start=5.0), kept[1])
    made = realign(segments, "first one second two a b", 60.0)
    assert (made[0], made[2]) == kept
    assert made[1].text == "second two"


def test_a_segment_without_words_gets_some_when_it_is_changed() -> None:
    made = realign((untimed("aa bb cc", 0.0, 6.0, confidence=0.4, speaker="A"),), "aa xx cc", 6.0)
    (segment,) = made
    assert [(word.text, word.start, word.end) for word in segment.words] == [
        ("aa", 0.0, 2.0),
        ("xx", 2.0, 4.0),
        ("cc", 4.0, 6.0),
    ]
    assert [word.confidence for word in segment.words] == [0.4, None, 0.4]
    assert {word.speaker for word in segment.words} == {"A"}


def test_new_words_are_their_neighbours_speakers() -> None:
    segments = (spoken("how are you", speaker="A"), spoken("fine thanks", start=3.0, speaker="B"))
    made = realign(segments, "so how are you all very fine thanks", 10.0)
    assert [(word.text, word.speaker) for word in words_of(made) if word.edited] == [
        ("so", "A"),
        ("all", "A"),
        ("very", "A"),
    ]


@pytest.mark.parametrize(("seconds", "end"), [(None, 0.0), (0.1, 0.1), (60.0, 0.42)])
def test_what_is_written_where_nothing_was_heard_begins_at_the_start(
    seconds: float | None, end: float
) -> None:
    (first, second) = edited(text="said it", seconds=seconds)
    assert (first[1], second[2]) == (0.0, pytest.approx(end))


def test_a_script_without_spaces_is_aligned_by_its_characters() -> None:
    segment = Segment(text=CHINESE, start=0.0, end=24.0)
    (made,) = realign((segment,), CHINESE.replace("天气", "阳光"), 24.0)
    assert made.text == CHINESE.replace("天气", "阳光")
    assert "".join(word.text for word in made.words if word.edited) == "阳光"


def test_an_empty_text_leaves_nothing() -> None:
    assert realign((spoken("a b"),), "", 5.0) == ()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(heard(), WRITTEN), min_size=1, max_size=3))
def test_subtitles_of_an_edited_transcript_are_in_order(
    chunks: list[tuple[tuple[Segment, ...], str]],
) -> None:
    import srt
    import webvtt

    parts = [part(n, 70.0, *found, edited_text=text) for n, (found, text) in enumerate(chunks)]
    made = of_parts(parts)
    cues = list(srt.parse(to_srt(made)))
    moments = [moment for cue in cues for moment in (cue.start, cue.end)]
    assert moments == sorted(moments)
    assert len(webvtt.from_string(to_vtt(made))) == len(cues)


def test_a_person_may_write_what_a_missing_chunk_says() -> None:
    parts = [
        part(0, 2.0, spoken("one"), text="one"),
        Part(index=1, duration_seconds=None, gap_code="invalid_audio", edited_text="two"),
        Part(index=2, duration_seconds=None, gap_code="invalid_audio"),
        part(3, 2.0, spoken("three"), text="three"),
    ]
    stitched = stitch(parts)
    assert stitched.text == "one two three"
    assert [gap.index for gap in stitched.gaps] == [2]
    assert [segment["index"] for segment in stitched.segments] == [0, 1, 3]
    # Both begin where the third chunk does: the text is still before the gap.
    cues = to_srt(of_parts(parts))
    assert cues.index("two") < cues.index("missing: part 3") < cues.index("three")


def test_a_name_is_kept_when_another_chunk_comes_to_speak_and_shown_everywhere() -> None:
    first = part(0, 2.0, spoken("hello there", speaker="A"))
    second = part(1, 2.0, spoken("hi", speaker="A"))
    silent = Part(index=1, duration_seconds=2.0, gap_code="engine_error")
    assert speaker_keys([first, silent]) == {"A": "1-A"}
    assert speaker_keys([second, first]) == {"1-A": "1-A", "2-A": "2-A"}
    for parts, shown in (([first, silent], {"Anna"}), ([first, second], {"Anna", "2-A"})):
        found = segments_from_json(stitch(parts, {"1-A": "Anna"}).segments)
        assert {segment.speaker for segment in found} == shown


def test_labels_are_those_of_what_was_heard_whatever_was_taken_out() -> None:
    gone = part(1, 2.0, spoken("hi", speaker="A"), edited_text="")
    found = stitch([part(0, 2.0, spoken("hello", speaker="A")), gone]).segments
    assert [segment["speaker"] for segment in found] == ["1-A"]


def test_no_text_takes_long() -> None:
    segments = tuple(spoken(f"the w{n} " * 5, start=4.0 * n) for n in range(70))
    for text in ("the " * 25_000, " ".join(f"the w{n}" for n in range(9_000)), "w1 the " * 9_000):
        began = time.thread_time()
        realign(segments, text, 300.0)
        assert time.thread_time() - began < 3  # 0.1 s; difflib takes minutes
