"""The checker finds each defect in a history that has it, and none in one that has none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.checker import Verdict, check
from tests.faults.history import History, Line

NOW = 1_000_000.0
PATHS = ["alice/0.wav", "alice/1.wav"]


def an_event(sequence: int, kind: str, index: int | None = None, time: float = NOW) -> Line:
    data = {} if index is None else {"index": index}
    return {"sequence": sequence, "type": kind, "time": time, "data": data}


def a_chunk(index: int, **columns: Any) -> Line:
    return {
        "index": index,
        "audio_path": PATHS[index],
        "status": "completed",
        "text": ["One.", "Two."][index],
        "error_code": "",
        "not_before": NOW - 10,
        "lease_expires_time": None,
        **columns,
    }


def a_history() -> list[Line]:
    """Two chunks of one job, of which the second crashed once; all went well."""
    submit = {
        "kind": "submit",
        "paths": PATHS,
        "digests": ["d0", "d1"],
        "texts": ["One.", "Two."],
        "expects": "completed",
        "hits": [1, 2],
        "gaps": {},
    }
    hits = [("d0", NOW - 9), ("d1", NOW - 9), ("d1", NOW - 5)]
    events = [
        an_event(1, "job.submitted"),
        an_event(2, "chunk.started", 0),
        an_event(3, "chunk.started", 1),
        an_event(4, "chunk.completed", 0, NOW - 8),
        an_event(5, "chunk.pending", 1),
        an_event(6, "chunk.started", 1),
        an_event(7, "chunk.completed", 1, NOW - 4),
        an_event(8, "job.completed"),
    ]
    final = {
        "kind": "final",
        "time": NOW,
        "job": "j",
        "user": "alice",
        "status": "completed",
        "transcript": "One. Two.",
        "chunks": [a_chunk(0), a_chunk(1)],
        "events": events,
    }
    return [
        submit,
        {"kind": "accepted", "paths": PATHS, "job": "j"},
        {"kind": "fault", "what": "kill -9"},
        *({"kind": "hit", "digest": digest, "started": started} for digest, started in hits),
        {"kind": "end", "job": "j", "status": "completed"},
        final,
        {"kind": "queues", "left": {"chunks": 0}},
    ]


def of(lines: list[Line], kind: str) -> Line:
    return next(line for line in lines if line["kind"] == kind)


def final(lines: list[Line]) -> Line:
    return of(lines, "final")


def add_events(lines: list[Line], *added: tuple[str, int | None]) -> None:
    events = final(lines)["events"]
    for kind, index in added:
        events.append(an_event(len(events) + 1, kind, index))


def waits(lines: list[Line], **columns: Any) -> None:
    """The job is not ended, and its second chunk is as given."""
    lines.remove(of(lines, "end"))
    del final(lines)["events"][6:]
    if columns["status"] == "pending":
        del final(lines)["events"][5:]
    final(lines)["chunks"][1] |= columns
    final(lines).update(status="in_progress", transcript=None)


def test_a_sound_history_is_clean() -> None:
    verdict = check(a_history())

    assert verdict.is_clean
    assert str(verdict) == ""


def vanishes(lines: list[Line]) -> None:
    lines.remove(final(lines))


def has_not_ended(lines: list[Line]) -> None:
    waits(lines, status="in_progress", lease_expires_time=NOW + 50)


def ends_otherwise(lines: list[Line]) -> None:
    of(lines, "submit")["expects"] = "failed"


def lacks_a_chunk(lines: list[Line]) -> None:
    final(lines)["chunks"][1] |= {"status": "failed", "error_code": "worker_crashed"}
    final(lines)["events"][6] = an_event(7, "chunk.failed", 1)
    final(lines)["transcript"] = "One."


def lacks_an_expected_gap(lines: list[Line]) -> None:
    of(lines, "submit")["gaps"] = {"1": "worker_crashed"}


def says_something_else(lines: list[Line]) -> None:
    final(lines)["chunks"][1]["text"] = "Three."


def has_a_wrong_order(lines: list[Line]) -> None:
    final(lines)["transcript"] = "Two. One."


def has_no_transcript(lines: list[Line]) -> None:
    final(lines)["transcript"] = None


def has_a_hole_in_its_events(lines: list[Line]) -> None:
    del final(lines)["events"][4]


def has_no_event_of_its_end(lines: list[Line]) -> None:
    final(lines)["events"].pop()


def has_a_status_without_its_event(lines: list[Line]) -> None:
    final(lines)["events"][6] = an_event(7, "job.delayed")


def is_nobodys(lines: list[Line]) -> None:
    of(lines, "submit")["paths"] = PATHS[:1]


@pytest.mark.parametrize(
    "defect",
    [
        vanishes,
        has_not_ended,
        ends_otherwise,
        lacks_a_chunk,
        lacks_an_expected_gap,
        says_something_else,
        has_a_wrong_order,
        has_no_transcript,
        has_a_hole_in_its_events,
        has_no_event_of_its_end,
        has_a_status_without_its_event,
        is_nobodys,
    ],
)
def test_a_job_is_lost_when_it(defect: Callable[[list[Line]], None]) -> None:
    verdict = judged(defect)

    assert verdict.lost


def ends_twice(lines: list[Line]) -> None:
    add_events(lines, ("job.completed", None))


def ends_in_two_ways(lines: list[Line]) -> None:
    add_events(lines, ("job.cancelled", None))


def was_seen_to_end_otherwise(lines: list[Line]) -> None:
    of(lines, "end")["status"] = "failed"


def is_started_when_it_was_done(lines: list[Line]) -> None:
    add_events(lines, ("chunk.started", 0))


def completes_a_chunk_twice(lines: list[Line]) -> None:
    add_events(lines, ("chunk.completed", 1))


def calls_the_engine_too_often(lines: list[Line]) -> None:
    lines.append({"kind": "hit", "digest": "d0", "started": NOW - 9})


def calls_the_engine_for_what_is_done(lines: list[Line]) -> None:
    of(lines, "submit")["hits"] = [2, 2]
    lines.append({"kind": "hit", "digest": "d0", "started": NOW - 1})


def calls_the_engine_with_what_nobody_sent(lines: list[Line]) -> None:
    lines.append({"kind": "hit", "digest": "d9", "started": NOW - 1})


def has_a_text_twice(lines: list[Line]) -> None:
    final(lines)["transcript"] = "One. Two. Two."


@pytest.mark.parametrize(
    "defect",
    [
        ends_twice,
        ends_in_two_ways,
        was_seen_to_end_otherwise,
        is_started_when_it_was_done,
        completes_a_chunk_twice,
        calls_the_engine_too_often,
        calls_the_engine_for_what_is_done,
        calls_the_engine_with_what_nobody_sent,
        has_a_text_twice,
    ],
)
def test_work_is_duplicated_when_a_job(defect: Callable[[list[Line]], None]) -> None:
    verdict = judged(defect)

    assert verdict.duplicated
    assert not verdict.lost
    assert not verdict.stuck


def has_a_claim_whose_lease_ran_out(lines: list[Line]) -> None:
    waits(lines, status="in_progress", lease_expires_time=NOW - 1)


def has_a_chunk_that_waits_for_ever(lines: list[Line]) -> None:
    waits(lines, status="pending", not_before=NOW - 200)


def ends_before_its_chunks(lines: list[Line]) -> None:
    waits(lines, status="pending", not_before=NOW)
    final(lines)["status"] = "completed"


def leaves_messages(lines: list[Line]) -> None:
    of(lines, "queues")["left"] = {"chunks": 0, "local.DQ": 3}


@pytest.mark.parametrize(
    "defect",
    [
        has_a_claim_whose_lease_ran_out,
        has_a_chunk_that_waits_for_ever,
        ends_before_its_chunks,
        leaves_messages,
    ],
)
def test_something_is_stuck_when_a_job(defect: Callable[[list[Line]], None]) -> None:
    verdict = judged(defect)

    assert verdict.stuck
    assert not verdict.duplicated


def test_a_chunk_that_waits_its_turn_is_not_stuck() -> None:
    lines = a_history()
    waits(lines, status="pending", not_before=NOW - 5)

    verdict = check(lines)

    assert not verdict.stuck
    assert len(verdict.lost) == 1, "the job has not ended, and that is all"


def test_an_expected_failure_is_clean() -> None:
    lines = a_history()
    lacks_a_chunk(lines)
    of(lines, "submit").update(expects="failed", gaps={"1": "worker_crashed"})
    final(lines).update(status="failed")
    final(lines)["events"][7] = an_event(8, "job.failed")
    of(lines, "end")["status"] = "failed"

    assert str(check(lines)) == ""


def test_a_retried_job_ends_twice_and_is_clean() -> None:
    lines = a_history()
    final(lines)["events"][6] = an_event(7, "chunk.failed", 1)
    final(lines)["events"][7] = an_event(8, "job.failed")
    add_events(
        lines,
        ("job.retried", None),
        ("chunk.pending", 1),
        ("chunk.started", 1),
        ("chunk.completed", 1),
        ("job.completed", None),
    )

    assert str(check(lines)) == ""


def test_a_submission_without_an_answer_must_end_as_well() -> None:
    lines = a_history()
    lines.remove(of(lines, "accepted"))
    of(lines, "submit")["expects"] = "failed"

    assert check(lines).lost


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    for line in a_history():
        history.record(**{name: value for name, value in line.items() if name != "time"})

    assert check(history.lines()).is_clean
    assert [line["kind"] for line in history.lines()] == [line["kind"] for line in a_history()]


def judged(defect: Callable[[list[Line]], None]) -> Verdict:
    lines = a_history()
    defect(lines)
    return check(lines)
