"""A chunk that crashed twice is worked on alone: whoever was beside the guilty one survives."""

from __future__ import annotations

import threading
from uuid import UUID

import pytest
from django.db import connection

from asr.types import AudioRequest
from jobs import pipeline, quarantine
from jobs.models import Chunk, Job
from tests import factories
from tests.helpers import together, wait_until
from tests.scripted import ScriptedEngine

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("redis_is_empty"),
]


class Hall:
    """Holds every call of the engine, and knows how many are under way."""

    def __init__(self, script: ScriptedEngine) -> None:
        self.inside, self.most = 0, 0
        self.doors = threading.Event()
        self._lock = threading.Lock()
        script.otherwise = self.stay

    def stay(self, request: AudioRequest) -> str:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        assert self.doors.wait(30)
        with self._lock:
            self.inside -= 1
        return "word"


@pytest.fixture
def hall(script: ScriptedEngine) -> Hall:
    return Hall(script)


def job_with(*crashes: int) -> Job:
    job = factories.make_job(len(crashes))
    for chunk in job.chunks.all():
        factories.put_audio(chunk.audio_path)
        job.chunks.filter(pk=chunk.pk).update(crashes=crashes[chunk.index])
    return job


def start(job: Job, index: int) -> threading.Thread:
    """Have a chunk transcribed by a thread that keeps no connection."""

    def work() -> None:
        try:
            pipeline.transcribe(job.pk, index)
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_of_two_suspects_one_waits_and_the_others_do_not(hall: Hall) -> None:
    job = job_with(2, 2, 1, 0)
    first = start(job, 0)
    wait_until(lambda: hall.inside == 1)
    again = pipeline.transcribe(job.pk, 1)
    assert again is not None
    assert (0 < again.seconds < 2, again.counted) == (True, False)
    row = job.chunks.get(index=1)
    assert (row.status, row.attempts, row.crashes) == ("pending", 0, 2)

    others = [start(job, index) for index in (2, 3)]
    wait_until(lambda: hall.inside == 3)
    hall.doors.set()
    for thread in [first, *others]:
        thread.join(30)
    factories.make_due(job.pk)
    assert pipeline.transcribe(job.pk, 1) is None
    assert set(job.chunks.values_list("status", flat=True)) == {"completed"}


def test_suspects_that_come_at_once_go_one_by_one(hall: Hall) -> None:
    job = job_with(*[2] * 6)
    hall.doors.set()

    def work(index: int) -> None:
        while pipeline.transcribe(job.pk, index) is not None:
            Chunk.objects.filter(job=job, index=index, status="pending").update(
                not_before=job.submitted_time
            )

    together(*[lambda index=index: work(index) for index in range(6)])
    assert hall.most == 1
    assert set(job.chunks.values_list("status", "attempts")) == {("completed", 1)}


def test_the_door_opens_again_whatever_happens_inside(script: ScriptedEngine) -> None:
    job = job_with(2)
    script.steps = [factories.permanent()]
    pipeline.transcribe(job.pk, 0)
    with pytest.raises(KeyboardInterrupt), quarantine.entered(2):
        raise KeyboardInterrupt
    assert not quarantine.is_occupied()


def test_a_message_for_a_chunk_that_is_gone_waits_for_nobody() -> None:
    with quarantine.entered(2):
        assert pipeline.transcribe(UUID(int=7), 0, "scripted") is None
