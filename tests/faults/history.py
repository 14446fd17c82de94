"""What happened in a row, as JSON lines with times: what was asked, done, broken and seen."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    - `be_told`: from now on the receiver is to be told of every end
    - `told`: `job`, `id`, `type`, `digest` of the body: what the receiver was sent
    - `final`: a job with its chunks, events and transcript, from the database
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
