"""Row: what a test of the suite is given: a world, a history, and the last word on both."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2

from tests.faults.audio import Audio, audio_of, make_audio
from tests.faults.checker import JOB_ENDS, Verdict, check
from tests.faults.history import History, what_was_asked, what_was_told
from tests.faults.table import Outcome
from tests.faults.world import USER, World
from tests.helpers import wait_until

END_SECONDS = 180.0  # for every job of a row, whatever happens to it
QUIET_SECONDS = 30.0  # for messages of ended jobs to be looked at and dropped


class Worlds:
    """One world at a time, kept for the next row when it wants the same and nothing is broken."""

    def __init__(self, make_folder: Callable[[], Path]) -> None:
        self._make_folder = make_folder
        self._world: World | None = None
        self._wanted: dict[str, Any] = {}

    def get(self, wanted: dict[str, Any]) -> World:
        if self._world is not None and wanted == self._wanted and self._world.is_well():
            return self._world
        self.end()
        self._world, self._wanted = World(self._make_folder(), **wanted), wanted
        return self._world

    def end(self) -> None:
        """The world is over; the next row gets a new one."""
        if self._world is not None:
            self._world.close()
        self._world = None


class Row:
    """One run of one row.

    A row asks for a `world`, lays `audio`, submits, breaks something with a `fault`, and ends
    with `verify`, which waits for every job and has the history checked.
    """

    def __init__(self, worlds: Worlds, history: History, seed: str) -> None:
        self.random = random.Random(seed)
        self.verdict = Verdict()
        self.verified = self.judged = False
        self.recoveries: list[float] = []
        self.notes: list[str] = []
        self._worlds = worlds
        self._world: World | None = None
        self._history = history
        self._spoiled = False
        self._left: set[tuple[str, Any]] = set()

    # --- the world

    def world(self, **wanted: Any) -> World:
        """A running system: `own_postgres` and variables of the environment may be given."""
        self._world = self._worlds.get(wanted)
        self._world.calm()
        self._hits_before = len(self._world.engine.hits)
        self._told_before = len(self._world.receiver.received)
        self._jobs_before = self._world.database.job_ids()
        self._history.record("listens", user=USER)
        return self._world

    def fresh_world(self, **wanted: Any) -> World:
        """One that no other row has used or will use."""
        self._worlds.end()
        self._spoiled = True
        return self.world(**wanted)

    @property
    def hits(self) -> list[Any]:
        """The engine's hits in this row."""
        assert self._world is not None
        return list(self._world.engine.hits[self._hits_before :])

    # --- what goes in

    def audio(self, count: int) -> list[Audio]:
        """New files under the audio root, each with its own bytes and its own text."""
        assert self._world is not None
        folder = self._world.audio_root / USER / f"{time.time_ns():x}"
        folder.mkdir(parents=True)
        return make_audio(folder, count)

    def submit(self, audio: Sequence[Audio], **expected: Any) -> str:
        """Submit a job that must be accepted; its id."""
        answer = self.try_to_submit(audio, **expected)
        assert answer is not None, "there was no answer"
        assert answer.status_code == 202, answer.text
        return str(answer.json()["jobId"])

    def try_to_submit(
        self,
        audio: Sequence[Audio],
        *,
        expects: str = "completed",
        hits: int | Sequence[int] = 1,
        gaps: Mapping[int, str] | None = None,
        **options: Any,
    ) -> httpx2.Response | None:
        """Submit a job that may be refused; None when there is no answer.

        Args:
            audio: the chunks.
            expects: the status that it is to end in.
            hits: how many calls of the engine each chunk may cost at most.
            gaps: the codes of the chunks that are to fail.
            options: further fields of the request.
        """
        assert self._world is not None
        paths = [str(item.path.relative_to(self._world.audio_root)) for item in audio]
        self._expect(paths, audio, expects=expects, hits=hits, gaps=gaps)
        body = {"audioChunkPaths": paths, "userId": USER, **options}
        try:
            answer = self._world.client.post("/transcribe", json=body)
        except httpx2.HTTPError as error:
            self._history.record("refused", paths=paths, status=0, why=repr(error))
            return None
        if answer.status_code in (200, 202):
            self._history.record("accepted", paths=paths, job=answer.json()["jobId"])
        else:
            self._history.record("refused", paths=paths, status=answer.status_code)
        return answer

    def taken(self, answer: httpx2.Response) -> str:
        """Note a submission of the row's own making, which must be accepted; the job's id.

        Its files are named by the service; `expect` says of them what is to come out.
        """
        assert answer.status_code == 202, answer.text
        job_id = str(answer.json()["jobId"])
        self._history.record("accepted", paths=[], job=job_id)
        return job_id

    def expect(self, job_id: str, **expected: Any) -> list[Audio]:
        """Say what a job is to come to; its files, as they lie in the storage now."""
        assert self._world is not None
        paths = [chunk["audioChunkPath"] for chunk in self.read(job_id)["chunks"]]
        audio = [audio_of(self._world.audio_root / path) for path in paths]
        self._expect(paths, audio, **expected)
        return audio

    def _expect(
        self,
        paths: Sequence[str],
        audio: Sequence[Audio],
        *,
        expects: str = "completed",
        hits: int | Sequence[int] = 1,
        gaps: Mapping[int, str] | None = None,
    ) -> None:
        self._history.record(
            "submit",
            paths=paths,
            digests=[item.digest for item in audio],
            texts=[item.text for item in audio],
            expects=expects,
            hits=[hits] * len(audio) if isinstance(hits, int) else list(hits),
            gaps=gaps or {},
        )

    # --- what happens

    def fault(self, what: str, **fields: Any) -> float:
        """Note that something is being broken now; the moment, of the monotonic clock."""
        self._history.record("fault", what=what, **fields)
        return time.monotonic()

    def hits_of(self, audio: Sequence[Audio], since: float = 0.0) -> list[Any]:
        digests = {item.digest for item in audio}
        return [hit for hit in self.hits if hit.digest in digests and hit.time > since]

    def await_hits(
        self, number: int, audio: Sequence[Audio] | None = None, seconds: float = 60
    ) -> None:
        """Wait until the engine has been called so often in this row (for these files)."""
        wait_until(
            lambda: len(self.hits if audio is None else self.hits_of(audio)) >= number, seconds
        )

    def await_recovery(
        self, since: float, audio: Sequence[Audio], seconds: float = END_SECONDS
    ) -> float:
        """Wait until one of these files is called for again; the seconds that it took."""
        wait_until(lambda: self.hits_of(audio, since), seconds)
        return self.recovered(min(hit.time for hit in self.hits_of(audio, since)) - since)

    def recovered(self, seconds: float) -> float:
        """Note how long it took until work went on."""
        self.recoveries.append(seconds)
        self._history.record("recovered", seconds=round(seconds, 3))
        return seconds

    def note(self, what: str) -> None:
        """Something measured, for the history and for the table."""
        self.notes.append(what)
        self._history.record("note", what=what)

    # --- what comes out

    def read(self, job_id: str) -> dict[str, Any]:
        assert self._world is not None
        answer = self._world.client.get(f"/transcript/{job_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def wait_for_end(self, job_id: str, seconds: float = END_SECONDS) -> dict[str, Any]:
        """Poll until the job has ended; the TranscriptResult."""
        wait_until(lambda: self.read(job_id)["jobStatus"] != "in_progress", seconds)
        result = self.read(job_id)
        self._history.record("end", job=job_id, status=result["jobStatus"])
        return result

    def events(self, job_id: str) -> list[str]:
        """The types of the job's events so far, from the database."""
        return [e["type"] for job in self.jobs() if job["job"] == job_id for e in job["events"]]

    def verify(self, seconds: float = END_SECONDS) -> list[dict[str, Any]]:
        """Wait until everything has ended, then check the history; the rows of this row's jobs."""
        assert self._world is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not (self._all_ended() and self._all_told()):
            time.sleep(0.2)
        self._await_quiet()
        jobs = self.judge()
        assert self.verdict.is_clean, f"\n{self.verdict}"
        self.verified = True
        return jobs

    def judge(self) -> list[dict[str, Any]]:
        """Write down how everything stands, and have the history checked."""
        assert self._world is not None
        jobs = self.jobs()
        for hit in self.hits:
            self._history.record("hit", **what_was_asked(hit))
        for request in self._world.receiver.received[self._told_before :]:
            self._history.record("told", **what_was_told(request))
        for job in jobs:
            self._history.record("final", **job)
        self._history.record("usage", **self._world.database.usage())
        self._history.record("queues", left=Counter(queue for queue, _ in self._left))
        self.verdict, self.judged = check(self._history.lines()), True
        return jobs

    def outcome(self, test: str, *, passed: bool) -> Outcome:
        """This run's part of the table."""
        return Outcome(
            test=test,
            passed=passed,
            verdict=self.verdict,
            recovery_seconds=max(self.recoveries, default=None),
            notes=tuple(self.notes),
        )

    def history_text(self) -> str:
        """The history of a row that failed, with how things stand now."""
        if not self.judged and self._world is not None:
            self.judge()
        return f"{self._history.path.read_text()}\n{self.verdict}"

    def keep(self, folder: Path) -> None:
        """Lay the history, and what the processes said, where no later run deletes them."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(self._history.path, folder)
        if self._world is not None:
            shutil.copytree(self._world.var / "log", folder / "log")

    def close(self, *, passed: bool) -> None:
        """Leave the world to the next row, or end it."""
        if self._spoiled or not passed:
            self._worlds.end()

    def _await_quiet(self) -> None:
        """Whatever message waits now is to be looked at; new ones may come meanwhile."""
        assert self._world is not None
        waiting = self._world.redis.waiting
        self._left = waiting()
        deadline = time.monotonic() + QUIET_SECONDS
        while time.monotonic() < deadline and self._left:
            self._left &= waiting()
            time.sleep(0.2)

    def _all_ended(self) -> bool:
        return all(job["status"] in JOB_ENDS for job in self.jobs())

    def _all_told(self) -> bool:
        assert self._world is not None
        return not self._world.database.pending_deliveries()

    def jobs(self) -> list[dict[str, Any]]:
        """This row's jobs, also those whose submission got no answer."""
        assert self._world is not None
        jobs = self._world.database.jobs()
        return [job for job in jobs if job["job"] not in self._jobs_before]
