"""What happened in a row, as JSON lines with times: what was asked, done, broken and seen."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.asr.vendor import Received
from tests.faults.engine_server import Hit

Line = dict[str, Any]


class History:
    """A file that only grows. Times are seconds since 1970, of this machine's clock.

    The kinds of lines, and what the checker reads in them:

    - `submit`: `paths`, `digests`, `texts`, `hits` (the most calls that each chunk may cost),
      `expects` (the job's status) and `gaps` (the codes of chunks that are to fail, by index)
    - `accepted`: `paths`, `job`;  `refused`: `paths`, `status` (0: there was no answer)
    - `fault`: `what`;  `recovered`: `seconds`
    - `hit`: `digest`, `started`, `ended`, `status`
    - `end`: `job`, `status`: what the API said
    - `listens`: `user`, of the ends of whose jobs the receiver is to be told
    - `told`: `job`, `id`, `type`, `digest` of the body: what the receiver was sent
    - `final`: a job with its chunks, events and transcript, from the database
    - `usage`: the `ledger`, and the `days` in which it is summed up: numbers by user, day, engine
    - `queues`: `left`, the number of messages in each
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def record(self, kind: str, **fields: Any) -> None:
        line = json.dumps({"time": time.time(), "kind": kind, **fields}, default=str)
        with self._lock, self.path.open("a") as file:
            file.write(f"{line}\n")

    def lines(self) -> list[Line]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]


def of_kind(lines: Sequence[Line], kind: str) -> list[Line]:
    return [line for line in lines if line["kind"] == kind]


def what_was_asked(hit: Hit) -> dict[str, Any]:
    """A call of the engine, for a line `hit`."""
    return {
        "digest": hit.digest,
        "started": _since_1970(hit.time),
        "ended": _since_1970(hit.ended),
        "status": hit.status,
    }


def what_was_told(request: Received) -> dict[str, Any]:
    """What the receiver of webhooks was sent, for a line `told`; also what nobody should send."""
    body = json.loads(request.file or b"{}")
    return {
        "job": body.get("data", {}).get("jobId", ""),
        "id": request.headers.get("webhook-id", ""),
        "type": body.get("type", request.method),
        "digest": hashlib.sha256(request.file).hexdigest(),
    }


def _since_1970(moment: float | None) -> float | None:
    """A moment of the monotonic clock, by the clock that the database has too."""
    return None if moment is None else time.time() - time.monotonic() + moment
