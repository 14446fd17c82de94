"""Stopping strikes a thread that recognises, and no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from django.db import connection

from asr.types import AudioRequest
from jobs import interruption, tasks
from jobs.interruption import Stopping, interrupt, interruptible
from jobs.models import Chunk, WorkerProcess
from tests import factories
from tests.helpers import WorkerInTest, wait_until
from tests.scripted import ScriptedEngine


@pytest.fixture(autouse=True)
def running_again() -> Iterator[None]:
    yield
    interruption.resume()


def test_a_thread_within_is_struck_and_one_outside_goes_on() -> None:
    inside, been_within, leave = threading.Event(), threading.Event(), threading.Event()
    story: list[str] = []

    def within() -> None:
        try:
            with interruptible():
                inside.set()
                while not leave.wait(0.01):
                    pass
        except Stopping:
            story.append("struck")

    def outside() -> None:
        with interruptible():
            pass
        been_within.set()
        while not leave.wait(0.01):
            pass
        story.append("went on")

    threads = [threading.Thread(target=outside), threading.Thread(target=within)]
    for thread in threads:
        thread.start()
    assert inside.wait(5)
    assert been_within.wait(5)
    interrupt()
    wait_until(lambda: "struck" in story)
    leave.set()
    for thread in threads:
        thread.join(5)
    assert story == ["struck", "went on"]


def test_nothing_is_begun_any_more_until_a_worker_boots_again() -> None:
    interrupt()
    with pytest.raises(Stopping), interruptible():
        pytest.fail("begun")
    interruption.resume()
    with interruptible():
        pass


def test_it_never_lands_behind_the_section() -> None:
    """Struck at every moment of a short section: always within it, or not at all."""
    for round_number in range(200):
        interruption.resume()
        ready = threading.Event()
        outcome: list[str] = []

        def work(ready: threading.Event = ready, outcome: list[str] = outcome) -> None:
            try:
                try:
                    ready.set()
                    with interruptible():
                        sum(range(200))
                except Stopping:
                    outcome.append("within")
                sum(range(20_000))
                outcome.append("done")
            except Stopping:
                outcome.append("behind")

        thread = threading.Thread(target=work)
        thread.start()
        ready.wait(5)
        time.sleep(round_number % 10 / 100_000)
        interrupt()
        thread.join(5)
        assert outcome in (["within", "done"], ["done"])


@pytest.mark.django_db(transaction=True)
def test_a_worker_with_many_threads_stops_and_every_claim_is_given_back(
    worker: WorkerInTest, script: ScriptedEngine
) -> None:
    stop = threading.Event()

    def hang(request: AudioRequest) -> str:
        while not stop.wait(0.05):
            pass
        return "too late"

    script.otherwise = hang
    jobs = [factories.make_job(24) for _ in range(2)]
    for chunk in Chunk.objects.all():
        factories.put_audio(chunk.audio_path)
    for job in jobs:
        tasks.dispatch(job.pk)
    worker.start(threads=32)
    wait_until(lambda: len(script.calls) >= 16, seconds=60)
    worker.stop()
    stop.set()
    assert not WorkerProcess.objects.exists()
    states = set(Chunk.objects.values_list("status", "attempts", "errors", "crashes"))
    assert states == {("pending", 0, 0, 0)}
    assert not connection.in_atomic_block
