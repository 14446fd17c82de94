"""What is shown when: a transcript as subtitle cues, by the rules of the trade.

The numbers are those of the Netflix Timed Text Style Guide (general requirements, and English for
adults), which the BBC's and the EBU's guides come near to. Nothing is ever left out to keep them:
where people talk faster than one can read, a cue is as short as the speech.

What is missing never moves what was said: a gap has a cue of its own where there is time to read
it, and otherwise stands above the words that follow.
"""

from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise, zip_longest
from math import inf
from typing import Final

from asr.formats.tokens import Token, ends_clause, ends_sentence, joined
from asr.formats.transcript import Transcript, marked, stretches
from asr.stitch import Gap

LINES: Final = 2
LINE_COLUMNS: Final = 42  # a full-width character takes two: 21 of Chinese, Japanese, Korean
COLUMNS_PER_SECOND: Final = 20.0  # what an adult reads
LEAST_SECONDS: Final = 5 / 6
MOST_SECONDS: Final = 7.0
SPACING_SECONDS: Final = 2 / 24  # two frames, so that the eye sees that the text has changed
CLOSED_SECONDS: Final = 0.5  # a shorter pause between two cues would only flicker
RUN_PAUSE: Final = 1.0  # silence that no cue spans; ours
STEP_SECONDS: Final = 0.04  # one frame: between two starts where an engine left no time; ours
_WITHOUT_WIDTH: Final = frozenset({"Mn", "Mc", "Me", "Cf"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cue:
    """One or two lines; times are whole milliseconds, in seconds.

    `notices` are lines above them, about gaps just before that leave no time for their own cue.
    """

    start: float
    end: float
    lines: tuple[str, ...]
    speaker: str | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A cue that is not scheduled yet."""

    tokens: Sequence[Token]
    is_gap: bool = False
    notices: tuple[str, ...] = ()


def cues(transcript: Transcript, *, name_speakers: bool) -> list[Cue]:
    """The cues in order; none overlaps the next.

    `name_speakers` puts a speaker's name before the first words.
    """
    placed = _placed(list(_drafts(transcript, name_speakers=name_speakers)))
    starts = [start for _, start in placed]
    return [
        Cue(
            start=start,
            end=_end(draft, start, following, transcript.duration_seconds),
            lines=_lines(draft.tokens),
            speaker=draft.tokens[0].speaker,
            notices=draft.notices,
        )
        for (draft, start), following in zip_longest(placed, starts[1:])
    ]


def _placed(drafts: Sequence[_Draft]) -> list[tuple[_Draft, float]]:
    """Each draft with its start. A gap that cannot be read before the next words goes with them."""
    spoken = deque(_starts([draft for draft in drafts if not draft.is_gap]))
    placed: list[tuple[_Draft, float]] = []
    waiting: tuple[str, ...] = ()
    for draft in drafts:
        if not draft.is_gap:
            placed.append((replace(draft, notices=waiting), spoken.popleft()))
            waiting = ()
            continue
        free = placed[-1][1] + LEAST_SECONDS if placed else 0.0
        start = round(max(draft.tokens[0].start, free), 3)
        if not spoken or start + LEAST_SECONDS <= spoken[0]:
            placed.append((draft, start))
        else:
            waiting += _lines(draft.tokens)
    return placed


def _starts(drafts: Sequence[_Draft]) -> list[float]:
    """When words are shown: as they are spoken, each cue a step after the one before at least."""
    starts: list[float] = []
    for draft in drafts:
        free = starts[-1] + STEP_SECONDS if starts else 0.0
        starts.append(round(max(draft.tokens[0].start, free), 3))
    return starts


def columns(text: str) -> int:
    """The width of a text as it is shown, in columns of a Latin letter."""
    if text.isascii():
        return len(text)
    return sum(
        2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
        if unicodedata.category(char) not in _WITHOUT_WIDTH
    )


def _end(draft: _Draft, start: float, following: float | None, duration: float) -> float:
    """When the cue goes: long enough to read it, never into the next one."""
    to_read = columns(joined(draft.tokens)) + sum(map(columns, draft.notices))
    readable = to_read / COLUMNS_PER_SECOND
    wanted = start + min(MOST_SECONDS, max(LEAST_SECONDS, readable))
    spoken = min(max(token.end for token in draft.tokens), start + MOST_SECONDS)
    end = max(spoken, wanted)
    if following is None and draft.is_gap:
        return round(end, 3)  # nobody knows how much sound there is
    if following is None:
        return round(max(spoken, min(end, duration), start + STEP_SECONDS), 3)
    if end > following - CLOSED_SECONDS and following - start <= MOST_SECONDS:
        end = following - SPACING_SECONDS
    if end - start < LEAST_SECONDS:
        end = min(start + LEAST_SECONDS, following)
    return round(min(end, following), 3)


def _drafts(transcript: Transcript, *, name_speakers: bool) -> Iterator[_Draft]:
    speaker = None
    for stretch in stretches(transcript):
        if isinstance(stretch, Gap):
            yield _notice(stretch, transcript)
            continue
        for run in _runs(_in_order(stretch)):
            tokens = run
            if name_speakers and run[0].speaker not in {None, speaker}:
                tokens = _name(run[0]) + run
            speaker = run[0].speaker
            for part in _cut(_short(tokens)):
                yield _Draft(tokens=part)


def _notice(gap: Gap, transcript: Transcript) -> _Draft:
    """What is shown for a gap, for as long as it lasts; it always fits two lines."""
    start = transcript.chunk_starts[gap.index]
    end = start + min(gap.duration_seconds or 0.0, MOST_SECONDS)
    words = marked(gap).split()
    return _Draft(tokens=[Token(text=word, start=start, end=end) for word in words], is_gap=True)


def _name(token: Token) -> list[Token]:
    """The speaker's name as tokens, spoken in no time."""
    words = f"{token.speaker}:".split()
    return [replace(token, text=word, end=token.start, spaced=True) for word in words]


def _in_order(tokens: list[Token]) -> Iterator[Token]:
    """Tokens whose times never go back; where speakers overlap, the second one waits."""
    time = 0.0
    for token in tokens:
        start = max(time, token.start)
        time = start
        yield replace(token, start=start, end=max(start, token.end))


def _runs(tokens: Iterator[Token]) -> Iterator[list[Token]]:
    """Tokens of one speaker without a long pause."""
    run: list[Token] = []
    for token in tokens:
        if run and (token.speaker != run[-1].speaker or token.start - run[-1].end >= RUN_PAUSE):
            yield run
            run = []
        run.append(token)
    if run:
        yield run


def _short(tokens: Sequence[Token]) -> list[Token]:
    """Tokens that fit a line: a longer one is broken, but not between a letter and its marks."""
    short = []
    for token in tokens:
        parts = _parts(token.text)
        times = [
            token.start + (token.end - token.start) * part / len(parts)
            for part in range(len(parts) + 1)
        ]
        short += [
            replace(token, text=part, start=start, end=end, spaced=token.spaced and not number)
            for number, (part, (start, end)) in enumerate(zip(parts, pairwise(times), strict=True))
        ]
    return short


def _parts(text: str) -> list[str]:
    """The text in pieces of a line's width at most; what has no width stays with what is before."""
    begins, width = [0], 0
    for position, char in enumerate(text):
        width += columns(char)
        if width > LINE_COLUMNS:
            begins.append(position)
            width = columns(char)
    return [text[begin:end] for begin, end in pairwise([*begins, len(text)])]


def _cut(tokens: Sequence[Token]) -> Iterator[Sequence[Token]]:
    """A run of tokens as the least costly row of cues, of those that keep to the limits."""
    reach = _line_ends(tokens)
    best = [0.0] + [inf] * len(tokens)
    begins = [0] * (len(tokens) + 1)
    for end in range(1, len(tokens) + 1):
        for begin in range(end - 1, -1, -1):
            seconds = tokens[end - 1].end - tokens[begin].start
            if end > begin + 1 and (end > reach[reach[begin]] or seconds > MOST_SECONDS):
                break
            cost = best[begin] + _cost(tokens, begin, end)
            if cost < best[end]:
                best[end], begins[end] = cost, begin
    ends = [len(tokens)]
    while ends[-1]:
        ends.append(begins[ends[-1]])
    for end, begin in reversed(list(pairwise(ends))):
        yield tokens[begin:end]


def _cost(tokens: Sequence[Token], begin: int, end: int) -> float:
    """What speaks against a cue of these tokens: each costs, most of all a bad place to break."""
    brief = tokens[end - 1].end - tokens[begin].start < LEAST_SECONDS
    return 1.0 + _break_cost(tokens, end) + brief


def _break_cost(tokens: Sequence[Token], end: int) -> float:
    """How bad it is to break there: between sentences it is best, and at pauses."""
    if end == len(tokens) or ends_sentence(tokens[end - 1].text):
        return 0.0
    if ends_clause(tokens[end - 1].text):
        return 0.5
    return 1.0 if tokens[end].start - tokens[end - 1].end >= 0.3 else 2.0


def _line_ends(tokens: Sequence[Token]) -> list[int]:
    """For each token, and for the end, where a line that begins with it ends at the latest."""
    widths = [columns(token.text) for token in tokens]
    whole = [width + token.spaced for width, token in zip(widths, tokens, strict=True)]
    totals = list(accumulate(whole, initial=0))
    ends, end = [], 0
    for begin, token in enumerate(tokens):
        while end < len(tokens) and totals[end + 1] - totals[begin] - token.spaced <= LINE_COLUMNS:
            end += 1
        ends.append(end)
    return [*ends, len(tokens)]


def _lines(tokens: Sequence[Token]) -> tuple[str, ...]:
    """One line, or two of about the same length, broken where it disturbs least."""
    if columns(joined(tokens)) <= LINE_COLUMNS:
        return (joined(tokens),)
    ways = [(joined(tokens[:middle]), joined(tokens[middle:])) for middle in range(1, len(tokens))]
    fitting = [
        (_break_cost(tokens, middle) + abs(columns(first) - columns(second)) / LINE_COLUMNS, middle)
        for middle, (first, second) in enumerate(ways, start=1)
        if max(columns(first), columns(second)) <= LINE_COLUMNS
    ]
    return ways[min(fitting)[1] - 1]
