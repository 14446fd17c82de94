"""The checker, in the manner of Jepsen's total-queue: what goes in must come out, once.

It reads a history and says what was lost, what was duplicated and what is stuck. It trusts the
rows of the database and the engine server's own log; what the API said is one more witness.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.faults.history import Line, of_kind

OVERDUE_SECONDS: Final = 120.0  # a chunk that waits longer than that for nothing is forgotten
EXACTLY: Final = 1e-6
NOTHING: Final = [0.0] * 4
JOB_ENDS: Final = ("completed", "failed", "cancelled")
# What may follow what: written down here once more, so that the service is not its own judge.
CHUNK_MOVES: Final = {
    "chunk.started": {"pending": "in_progress"},
    "chunk.pending": {"in_progress": "pending", "failed": "pending"},
    "chunk.completed": {"in_progress": "completed"},
    "chunk.failed": {"pending": "failed", "in_progress": "failed"},
    "chunk.cancelled": {"pending": "cancelled", "in_progress": "cancelled"},
}


@dataclass
class Verdict:
    """The defects, each as a sentence."""

    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.duplicated or self.stuck)

    def __str__(self) -> str:
        kinds = {"lost": self.lost, "duplicated": self.duplicated, "stuck": self.stuck}
        return "\n".join(f"{kind}: {what}" for kind, found in kinds.items() for what in found)


def check(lines: Sequence[Line]) -> Verdict:
    """Judge a whole history, which ends with the rows as they were then."""
    verdict = Verdict()
    submits = {tuple(line["paths"]): line for line in of_kind(lines, "submit")}
    finals = {line["job"]: line for line in of_kind(lines, "final")}
    for line in of_kind(lines, "accepted"):
        if line["job"] not in finals:
            verdict.lost.append(f"{line['job']} was accepted and is not there")
    for line in of_kind(lines, "end"):
        final = finals.get(line["job"])
        if final is not None and final["status"] != line["status"]:
            verdict.duplicated.append(f"{line['job']} ended as {line['status']} and then again")
    for final in finals.values():
        submit = submits.get(tuple(chunk["audio_path"] for chunk in final["chunks"]))
        if submit is None:
            verdict.lost.append(f"{final['job']} is not what anybody submitted")
            continue
        _check_end(final, submit, verdict)
        _check_texts(final, submit, verdict)
        _check_events(final, verdict)
        _check_waiting(final, verdict)
    _check_told(lines, list(finals.values()), verdict)
    _check_hits(lines, list(finals.values()), submits, verdict)
    for line in of_kind(lines, "usage")[-1:]:
        _check_usage(line["ledger"], line["days"], verdict)
    for line in of_kind(lines, "queues")[-1:]:
        left = {name: number for name, number in line["left"].items() if number}
        verdict.stuck += [f"{number} messages in {name}" for name, number in left.items()]
    return verdict


def _check_end(final: Line, submit: Line, verdict: Verdict) -> None:
    """The job ended, and as the row expects."""
    if final["status"] not in JOB_ENDS:
        verdict.lost.append(f"{final['job']} has not ended: it is {final['status']}")
        return
    if final["status"] != submit["expects"]:
        verdict.lost.append(f"{final['job']} is {final['status']}, not {submit['expects']}")
    gaps = {c["index"]: c["error_code"] for c in final["chunks"] if c["status"] == "failed"}
    expected = {int(index): code for index, code in submit["gaps"].items()}
    if gaps != expected:
        verdict.lost.append(f"{final['job']} has the gaps {gaps}, not {expected}")


def _check_texts(final: Line, submit: Line, verdict: Verdict) -> None:
    """The transcript is the oracle's: every completed chunk's text, once, in order."""
    texts = dict(enumerate(submit["texts"]))
    completed = [chunk for chunk in final["chunks"] if chunk["status"] == "completed"]
    for chunk in completed:
        if chunk["text"] != texts[chunk["index"]]:
            verdict.lost.append(f"{_name(final, chunk)} says {chunk['text']!r}")
    if final["status"] not in JOB_ENDS:
        return
    said = final["transcript"]
    oracle = " ".join(filter(None, (texts[chunk["index"]] for chunk in completed)))
    if said == oracle:
        return
    twice = [text for text in texts.values() if text and (said or "").count(text) > 1]
    if twice:
        verdict.duplicated.append(f"the transcript of {final['job']} has {twice} more than once")
    else:
        verdict.lost.append(f"the transcript of {final['job']} is {said!r}, not {oracle!r}")


def _check_events(final: Line, verdict: Verdict) -> None:
    """One end for each beginning, no status goes back, numbers without a hole."""
    events = final["events"]
    if [event["sequence"] for event in events] != list(range(1, len(events) + 1)):
        verdict.lost.append(f"the events of {final['job']} have holes")
    kinds = Counter(event["type"] for event in events)
    ends = sum(kinds[f"job.{status}"] for status in JOB_ENDS)
    begun = kinds["job.submitted"] + kinds["job.retried"]
    if ends > begun:
        verdict.duplicated.append(f"{final['job']} ended {ends} times")
    elif ends < begun and final["status"] in JOB_ENDS:
        verdict.lost.append(f"{final['job']} ended and no event says so")
    states = dict.fromkeys((chunk["index"] for chunk in final["chunks"]), "pending")
    for event in events:
        if event["type"] in CHUNK_MOVES:
            index = event["data"]["index"]
            was = states[index]
            states[index] = CHUNK_MOVES[event["type"]].get(was, "")
            if not states[index]:
                verdict.duplicated.append(
                    f"{final['job']}[{index}]: {event['type']} when it was {was or 'nowhere'}"
                )
    for chunk in final["chunks"]:
        if states[chunk["index"]] not in (chunk["status"], ""):
            verdict.lost.append(
                f"{_name(final, chunk)} is {chunk['status']}, its events say "
                f"{states[chunk['index']]}"
            )


def _check_waiting(final: Line, verdict: Verdict) -> None:
    """Nothing is claimed by the dead or waits for nothing."""
    for chunk in final["chunks"]:
        if chunk["status"] == "in_progress" and chunk["lease_expires_time"] < final["time"]:
            verdict.stuck.append(f"{_name(final, chunk)} is claimed with a lease that ran out")
        due = chunk["not_before"] + OVERDUE_SECONDS
        if chunk["status"] == "pending" and due < final["time"]:
            verdict.stuck.append(f"{_name(final, chunk)} is long due")
    if final["status"] in JOB_ENDS and any(
        chunk["status"] not in JOB_ENDS for chunk in final["chunks"]
    ):
        verdict.stuck.append(f"{final['job']} has ended, and some of its chunks have not")


def _check_told(lines: Sequence[Line], finals: Sequence[Line], verdict: Verdict) -> None:
    """Each end was told to the receiver, under one id, with one body; and nothing else was."""
    listeners = {line["user"] for line in of_kind(lines, "listens")}
    ends = Counter(
        (final["job"], event["type"].replace("job.", "transcript."))
        for final in finals
        for event in final["events"]
        if final["user"] in listeners and event["type"].removeprefix("job.") in JOB_ENDS
    )
    ids: dict[tuple[str, str], set[str]] = {}
    bodies: dict[str, set[str]] = {}
    for line in of_kind(lines, "told"):
        ids.setdefault((line["job"], line["type"]), set()).add(line["id"])
        bodies.setdefault(line["id"], set()).add(line["digest"])
    for what in ends.keys() | ids.keys():
        number, found = ends[what], len(ids.get(what, ()))
        if found < number:
            verdict.lost.append(f"{what} happened {number} times and was told under {found} ids")
        elif found > number:
            verdict.duplicated.append(f"{what} was told under {found} ids, and happened {number}x")
    for told_id, digests in bodies.items():
        if len(digests) > 1:
            verdict.duplicated.append(f"{told_id} was told in {len(digests)} ways")


def _check_usage(
    ledger: dict[str, list[float]], days: dict[str, list[float]], verdict: Verdict
) -> None:
    """What is summed up is what the ledger comes to, to the millionth."""
    for key in sorted(ledger.keys() | days.keys()):
        spent, summed = ledger.get(key, NOTHING), days.get(key, NOTHING)
        pairs = list(zip(spent, summed, strict=True))
        what = f"the usage of {key} is summed up as {summed}, and comes to {spent}"
        if any(one > other + EXACTLY for one, other in pairs):
            verdict.lost.append(what)
        elif any(one < other - EXACTLY for one, other in pairs):
            verdict.duplicated.append(what)


def _check_hits(
    lines: Sequence[Line],
    finals: Sequence[Line],
    submits: dict[tuple[str, ...], Line],
    verdict: Verdict,
) -> None:
    """No file is sent to the engine more often than the row allows, nor when it was done."""
    hits: dict[str, list[float]] = {}
    for hit in of_kind(lines, "hit"):
        hits.setdefault(hit["digest"], []).append(hit["started"])
    allowed: Counter[str] = Counter()
    for line in submits.values():
        for digest, hits_at_most in zip(line["digests"], line["hits"], strict=True):
            allowed[digest] += hits_at_most
    for digest, times in hits.items():
        if len(times) > allowed[digest]:
            verdict.duplicated.append(
                f"{len(times)} calls for {digest[:12]}…, at most {allowed[digest]} expected"
            )
    for digest, done in _done_times(finals, submits):
        late = [started for started in hits.get(digest, []) if started > done]
        verdict.duplicated += [f"{digest[:12]}… was recognised again when it was done"] * len(late)


def _done_times(
    finals: Sequence[Line], submits: dict[tuple[str, ...], Line]
) -> Iterator[tuple[str, float]]:
    """When the last chunk of each file was completed."""
    done: dict[str, float] = {}
    for final in finals:
        submit = submits.get(tuple(chunk["audio_path"] for chunk in final["chunks"]))
        for event in final["events"]:
            if submit is not None and event["type"] == "chunk.completed":
                digest = submit["digests"][event["data"]["index"]]
                done[digest] = max(done.get(digest, 0.0), event["time"])
    yield from done.items()


def _name(final: Line, chunk: dict[str, Any]) -> str:
    return f"{final['job']}[{chunk['index']}]"
