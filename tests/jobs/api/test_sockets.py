"""WS /ws/transcript/{jobId}: a snapshot or what was missed, then every event once."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.db import connection
from websockets.asyncio.client import connect as connect_async

from jobs import actions, finishing, watching
from jobs.api import socket as one_socket
from jobs.models import EventType, Job, JobEvent, changing
from tests import factories
from tests.helpers import wait_until
from tests.jobs.api.socket_clients import Service, service

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("redis_is_empty"),
]


@pytest.fixture
def web() -> Iterator[Service]:
    with service() as running:
        yield running


def finish(job: Job, *texts: str) -> None:
    for index, text in enumerate(texts):
        factories.complete(factories.claim(job, index), text)
    assert finishing.finish_job(job.pk)


def numbers(messages: list[Any]) -> list[int]:
    return [message["sequence"] for message in messages]


# --- what is told ---


def test_a_snapshot_comes_first_and_then_every_event_once(web: Service) -> None:
    job = factories.make_job(2, title="Monday")
    with web.watch_job(job) as caller:
        snapshot = caller.read()
        assert (snapshot["type"], snapshot["sequence"]) == ("snapshot", 1)
        transcript = snapshot["transcript"]
        assert (transcript["jobId"], transcript["jobStatus"]) == (str(job.pk), "in_progress")
        assert (transcript["title"], len(transcript["chunks"])) == ("Monday", 2)
        finish(job, "hello", "wörld")
        events = caller.read_until("job.completed")
    assert numbers(events) == [2, 3, 4, 5, 6]
    assert [event["type"] for event in events] == [
        *("chunk.started", "chunk.completed", "chunk.started", "chunk.completed", "job.completed"),
    ]
    assert {event["jobId"] for event in events} == {str(job.pk)}
    assert events[3]["data"] == {"index": 1, "text": "wörld"}
    stored = JobEvent.objects.get(job=job, sequence=3)
    assert events[1]["time"] == stored.time.isoformat().replace("+00:00", "Z")
    assert set(events[0]) == {"sequence", "type", "jobId", "time", "data"}


def test_who_comes_back_gets_exactly_what_was_missed(web: Service) -> None:
    job = factories.make_job(2)
    with web.watch_job(job) as caller:
        caller.read()
        factories.complete(factories.claim(job, 0), "one")
        assert numbers(caller.read_many(2)) == [2, 3]
    factories.complete(factories.claim(job, 1), "two")
    with web.watch_job(job, first={"since": 3}) as caller:
        assert numbers(caller.read_many(2)) == [4, 5]
        assert finishing.finish_job(job.pk)
        assert caller.read()["sequence"] == 6
    with web.watch_job(job, first={"since": 0}) as caller:
        assert numbers(caller.read_many(6)) == [1, 2, 3, 4, 5, 6]


def test_who_has_missed_nothing_gets_the_next_event_first(web: Service) -> None:
    job = factories.make_job(1)
    with web.watch_job(job, first={"since": 1, "unknown": True}) as caller:
        wait_until(lambda: web.open)
        factories.claim(job)
        event = caller.read()
    assert (event["sequence"], event["type"]) == (2, "chunk.started")


def test_what_happens_while_the_snapshot_is_made_comes_once(
    web: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_socket, "FIRST_MESSAGE_SECONDS", 20)
    job = factories.make_job(2)
    channels = web.application._sockets._watch._jobs
    with web.watch_job(job, first=None) as caller:
        wait_until(lambda: web.open == 1)
        factories.claim(job, 0)
        wait_until(lambda: channels[job.pk].sequence == 2)  # a look was sooner than the rows
        caller.say("")
        assert caller.read()["sequence"] == 2
        factories.claim(job, 1)
        assert caller.read()["sequence"] == 3


@pytest.mark.parametrize(
    "first",
    [
        *({"since": 2}, {"since": -1}, {"since": "1"}, {"since": True}, {"since": 1.0}),
        *({"since": None}, {"since": 10**30}, {}, [], "1", "", "{", b"\x01"),
    ],
)
def test_whatever_else_is_said_first_gives_the_snapshot(web: Service, first: object) -> None:
    job = factories.make_job(1)
    with web.watch_job(job, first=None) as caller:
        caller.socket.send(first if isinstance(first, str | bytes) else json.dumps(first))
        assert caller.read()["type"] == "snapshot"
        caller.say({"since": 0})  # later nothing is heard any more
        factories.claim(job)
        assert caller.read()["sequence"] == 2


def test_who_says_nothing_gets_the_snapshot_after_half_a_second(web: Service) -> None:
    with web.watch_job(factories.make_job(1), first=None) as caller:
        began = time.monotonic()
        assert caller.read()["type"] == "snapshot"
        assert time.monotonic() - began >= 0.4


def test_what_is_taken_back_is_not_told_and_leaves_no_hole(web: Service) -> None:
    job = factories.make_job(1)
    with web.watch_job(job) as caller:
        caller.read()
        for _ in range(3):
            with suppress(ZeroDivisionError), changing(job.pk) as change:
                change.record(EventType.JOB_DELAYED)
                raise ZeroDivisionError
            with changing(job.pk) as change:
                change.record(EventType.JOB_DELAYED)
                change.record(EventType.JOB_RESUMED)
        assert numbers(caller.read_many(6)) == [2, 3, 4, 5, 6, 7]


def test_a_retry_of_an_ended_job_is_told_to_those_who_stayed(web: Service) -> None:
    job = factories.make_failed_job("one", None)
    with web.watch_job(job) as caller:
        snapshot = caller.read()
        assert snapshot["transcript"]["jobStatus"] == "failed"
        actions.retry(job.pk)
        event = caller.read_until("job.retried")[0]
        assert event["sequence"] == snapshot["sequence"] + 1


def test_200_sockets_on_20_jobs_get_each_event_once(web: Service) -> None:
    jobs = [factories.make_job(3) for _ in range(20)]
    token = factories.make_token("robot", service=True)
    ready = []

    async def read(number: int, first: str, last: int) -> list[Any]:
        """Messages up to that number."""
        messages: list[Any] = []
        url = f"ws://localhost:{web.port}/ws/transcript/{jobs[number % 20].pk}"
        async with connect_async(url, subprotocols=["token", token], compression=None) as socket:  # type: ignore[list-item]
            await socket.send(first)
            while not messages or messages[-1]["sequence"] < last:
                messages.append(json.loads(await asyncio.wait_for(socket.recv(), 60)))
                ready.append(number)
        return messages

    async def watch(number: int) -> list[Any]:
        if number % 3:
            return await read(number, "now", 8)
        messages = await read(number, "now", 2 + number % 6)  # and comes back
        since = messages[-1]["sequence"]
        return messages + (await read(number, json.dumps({"since": since}), 8))

    async def run() -> list[list[Any]]:
        sockets = [asyncio.create_task(watch(number)) for number in range(200)]
        await asyncio.to_thread(wait_until, lambda: len(ready) == 200)
        await asyncio.to_thread(_finish_all, jobs)
        return await asyncio.gather(*sockets)

    for messages in asyncio.run(run()):
        assert numbers(messages) == [1, 2, 3, 4, 5, 6, 7, 8]
        assert messages[-1]["type"] == "job.completed"
    wait_until(lambda: web.open == 0)


def _finish_all(jobs: list[Job]) -> None:
    for job in jobs:
        finish(job, "a", "b", "c")
    connection.close()


# --- things that go wrong ---


def test_an_outage_of_the_database_closes_nothing_and_loses_nothing(
    web: Service,
    database_down: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(watching, "AWAY_SECONDS", 0.1)
    job = factories.make_job(1)
    token = factories.make_token("alice")
    with web.watch_job(job) as caller:
        caller.read()
        with database_down():
            wait_until(lambda: "hears of a job's events" in caplog.text)
            with web.watch(f"/ws/transcript/{job.pk}", token) as another:
                assert another.end() == (4503, "database_unavailable")
        finish(job, "hello")
        assert numbers(caller.read_until("job.completed")) == [2, 3, 4]


def test_who_does_not_read_is_dropped_and_keeps_up_nobody(
    web: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_socket, "SLOW_SECONDS", 0.5)
    job = factories.make_job(1)
    with web.watch_job(job) as reader, web.watch_job(job) as sleeper:
        assert reader.read()["type"] == sleeper.read()["type"] == "snapshot"
        count = 0
        while web.open == 2:  # the sleeper's own buffers are to be filled first
            assert count < 100
            with changing(job.pk) as change:
                change.record(EventType.JOB_DELAYED, filler="x" * 2_000_000)
            count += 1
            assert reader.read()["sequence"] == 1 + count
        with changing(job.pk) as change:
            change.record(EventType.JOB_RESUMED)
        assert reader.read()["sequence"] == 2 + count


def test_a_stop_of_the_server_closes_all_at_once(web: Service) -> None:
    job = factories.make_job(1)
    with web.watch_job(job) as one, web.watch("/ws/transcripts", factories.make_token()) as other:
        one.read()
        other.read()
        began = time.monotonic()
        web.server.should_exit = True
        assert (one.end()[0], other.end()[0]) == (1012, 1012)
        wait_until(lambda: web.open == 0)
        assert time.monotonic() - began < 5


def test_a_stop_does_not_wait_for_who_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_socket, "SLOW_SECONDS", 60)
    job = factories.make_job(1)
    with (
        service(timeout_graceful_shutdown=60) as web,
        web.watch_job(job, first={"since": 0}) as sleeper,
    ):
        for _ in range(40):  # more than all buffers hold
            with changing(job.pk) as change:
                change.record(EventType.JOB_DELAYED, filler="x" * 2_000_000)
        wait_until(lambda: is_stuck(web))
        began = time.monotonic()
        web.server.should_exit = True
        wait_until(lambda: not web.server.server_state.connections)
        assert time.monotonic() - began < 5
        assert sleeper.read()["sequence"] == 1


def is_stuck(web: Service) -> bool:
    connections: Any = web.server.server_state.connections
    return any(not connection.writable.is_set() for connection in connections)


def test_a_fault_of_our_own_has_a_code(
    web: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = factories.make_job(1)
    monkeypatch.setattr("jobs.api.sockets.load_snapshots", lambda _: 1 / 0)
    with caplog.at_level(logging.ERROR), web.watch_job(job) as caller:
        assert caller.end()[0] == 1011
    assert "ZeroDivisionError" in caplog.text


def test_a_job_that_is_deleted_meanwhile_ends_the_watch(web: Service) -> None:
    job = factories.make_job(1)
    with web.watch_job(job) as caller:
        caller.read()
        actions.delete(job.pk)
        assert caller.end() == (4410, "erased")
    wait_until(lambda: web.open == 0)
