"""Scenario: a day of a system in half a minute, in which everything happens that can happen."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import httpx2

from tests.faults.audio import Audio
from tests.faults.engine_server import HANG, WORDS_AT_ONCE, Answer, Hit, failing
from tests.faults.row import Row
from tests.faults.world import World
from tests.helpers import wait_until

ONE_CRASH = 1  # costs each chunk that is just being recognised one call more


class Scenario:
    """Jobs that complete and are edited, stumble, fail and are retried, are cancelled, and wait for
    the broker.

    Together they write every type of event. A process may die at any moment: the client then does
    what a client does, and asks again.
    """

    def __init__(self, row: Row) -> None:
        self._row = row
        self._answers: dict[str, Callable[[Hit], Answer]] = {}

    def begin(self, **variables: str) -> World:
        self._world = self._row.fresh_world(WORKER_THREADS="4", **variables)
        self._world.engine.plan = self._plan
        return self._world

    def play(self) -> None:
        self._completes_and_is_edited()
        self._stumbles()
        self._fails_and_is_retried()
        self._is_cancelled()
        self._waits_for_the_broker()

    def _completes_and_is_edited(self) -> None:
        """24 chunks, in one group of messages; a person corrects one, and takes that back."""
        job_id = self._submit(self._row.audio(24), hits=1 + ONE_CRASH)
        if job_id is not None:
            self._end(job_id)
            self._save(job_id, "What a person wrote.")
            self._save(job_id, None)

    def _stumbles(self) -> None:
        """An attempt fails and is repeated."""
        audio = self._script(1, lambda hit: failing(503) if hit.number == 1 else WORDS_AT_ONCE)
        self._end(self._submit(audio, hits=2 + ONE_CRASH))

    def _fails_and_is_retried(self) -> None:
        refusing = True
        audio = self._script(2, lambda hit: failing(401) if refusing else WORDS_AT_ONCE)
        job_id = self._submit(audio, hits=2 + ONE_CRASH)
        if job_id is None:
            refusing = False
            return
        wait_until(lambda: self._status(job_id) == "failed", 120)
        refusing = False
        self._act(job_id, "retry", done=409)
        self._end(job_id)

    def _is_cancelled(self) -> None:
        audio = self._script(2, lambda hit: HANG)
        job_id = self._submit(audio, expects="cancelled", hits=1 + ONE_CRASH)
        if job_id is not None:
            self._row.await_hits(1, audio)
            self._act(job_id, "cancel", done=200)
            self._end(job_id)

    def _waits_for_the_broker(self) -> None:
        """Redis is away: the job is stored, is said to be delayed, and goes on."""
        self._world.redis.kill()
        job_id = self._submit(self._row.audio(2), hits=1 + ONE_CRASH)
        self._world.redis.start()
        self._end(job_id)

    def _submit(
        self, audio: Sequence[Audio], *, expects: str = "completed", hits: int
    ) -> str | None:
        """None when the web server died of it: the job is there or not, but never half."""
        answer = self._row.try_to_submit(audio, expects=expects, hits=hits)
        self._await_web()
        return None if answer is None else str(answer.json()["jobId"])

    def _script(self, count: int, answer: Callable[[Hit], Answer]) -> list[Audio]:
        audio = self._row.audio(count)
        self._answers |= dict.fromkeys((item.digest for item in audio), answer)
        return audio

    def _plan(self, hit: Hit) -> Answer:
        scripted = self._answers.get(hit.digest)
        return WORDS_AT_ONCE if scripted is None else scripted(hit)

    def _act(self, job_id: str, action: str, *, done: int) -> None:
        """Ask until there is an answer; `done` says that it was done when there was none."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                answer = self._world.client.post(f"/transcript/{job_id}/{action}")
            except httpx2.HTTPError:
                self._await_web()
                continue
            assert answer.status_code in (202, done), answer.text
            return
        raise AssertionError(f"no answer to {action}")

    def _save(self, job_id: str, text: str | None) -> None:
        """Save the first chunk's text until it is there; None is what was recognised."""
        url, client = f"/transcript/{job_id}/text", self._world.client
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                read = client.get(url)
                if read.json()["chunks"][0]["edited"] == (text is not None):
                    return
                seen = {"If-Match": read.headers["ETag"]}
                saved = client.patch(
                    url, headers=seen, json={"chunks": [{"index": 0, "text": text}]}
                )
            except httpx2.HTTPError:
                self._await_web()
                continue
            assert saved.status_code == 200, saved.text
        raise AssertionError("the text was not saved")

    def _end(self, job_id: str | None) -> None:
        if job_id is not None:
            self._row.wait_for_end(job_id)

    def _status(self, job_id: str) -> str:
        return str(self._row.read(job_id)["jobStatus"])

    def _await_web(self) -> None:
        wait_until(self._world.serves, 60)
