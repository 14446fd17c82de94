"""GET /transcript/{jobId}?wait=: the answer comes with the job's end, and waiting costs nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from asgiref.testing import ApplicationCommunicator
from django.db import connection

from jobs import actions, finishing, waits, watching
from jobs.looks import Asked, look
from jobs.models import Job
from tests import factories
from tests.helpers import wait_until
from transcription_site.asgi import WEB_THREADS, Application

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("redis_is_empty"),
]

Ask = Callable[..., Awaitable[httpx2.Response]]


@pytest.fixture
def application() -> Application:
    return Application()


def with_client(
    application: Application,
    what: Callable[[Ask], Awaitable[Any]],
    user: str = "alice",
    *,
    service: bool = False,
) -> Any:
    """Run `what`, which may ask as that user and is given the answers."""
    token = factories.make_token(user, service=service)
    headers = {"Authorization": f"Token {token}"}

    async def run() -> Any:
        transport = httpx2.ASGITransport(application)
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://localhost", headers=headers, timeout=60
        ) as client:

            async def ask(job: Job, wait: object = 30) -> httpx2.Response:
                return await client.get(f"/transcript/{job.pk}?wait={wait}")

            return await what(ask)

    return asyncio.run(run())


def ask_once(application: Application, job: Job, wait: object = 30) -> httpx2.Response:
    return with_client(application, lambda ask: ask(job, wait))  # type: ignore[no-any-return]


def once_one_waits(application: Application, change: Callable[[], object]) -> threading.Thread:
    """Change something, from elsewhere, as soon as somebody waits."""

    def run() -> None:
        wait_until(lambda: len(application._waits) > 0)
        change()
        connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def finish(job: Job) -> None:
    for index in range(job.chunks.count()):
        factories.complete(factories.claim(job, index), "hello")
    assert finishing.finish_job(job.pk)


def test_the_answer_comes_when_the_job_ends(application: Application) -> None:
    job = factories.make_job(2)
    began = time.monotonic()
    thread = once_one_waits(application, lambda: finish(job))
    answer = ask_once(application, job)
    thread.join()
    assert time.monotonic() - began < 15
    assert answer.json()["jobStatus"] == "completed"
    assert answer.json()["transcription"] == "hello hello"
    assert len(application._waits) == 0


def test_after_the_time_the_present_state_is_answered(application: Application) -> None:
    began = time.monotonic()
    answer = ask_once(application, factories.make_job(2), 1)
    assert time.monotonic() - began >= 1
    assert (answer.status_code, answer.json()["jobStatus"]) == (200, "in_progress")


def test_nobody_waits_for_what_has_ended_or_without_being_asked_to(
    application: Application,
) -> None:
    began = time.monotonic()
    assert ask_once(application, factories.make_completed_job("a")).status_code == 200
    assert ask_once(application, factories.make_job(1), 0).json()["jobStatus"] == "in_progress"
    assert time.monotonic() - began < 20


def test_a_job_that_is_erased_meanwhile_is_gone(application: Application) -> None:
    job = factories.make_job(1)
    thread = once_one_waits(application, lambda: actions.delete(job.pk))
    assert ask_once(application, job).status_code == 410
    thread.join()


@pytest.mark.parametrize("wait", ["31", "-1", "soon", "1.5", ""])
def test_what_is_no_time_to_wait_is_refused(application: Application, wait: str) -> None:
    answer = ask_once(application, factories.make_job(1), wait)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["attr"] == "wait"


def test_nobody_waits_for_another_users_job(application: Application) -> None:
    began = time.monotonic()
    assert ask_once(application, factories.make_job(1, user_id="bob")).status_code == 404
    assert time.monotonic() - began < 20


def test_500_wait_at_once_and_the_process_answers_others(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "MOST_OF_ONE", 500)
    jobs = [factories.make_job(1) for _ in range(50)]

    async def crowd(ask: Ask) -> tuple[list[httpx2.Response], int, set[str]]:
        waiting = [asyncio.ensure_future(ask(job)) for job in jobs for _ in range(10)]
        await asyncio.to_thread(wait_until, lambda: len(application._waits) == len(waiting))
        other = await ask(jobs[0], 0)
        names = {thread.name for thread in threading.enumerate()}
        await asyncio.to_thread(_finish_all, jobs)
        return await asyncio.gather(*waiting), other.status_code, names

    answers, other, names = with_client(application, crowd)
    assert other == 200
    assert sum(name.startswith("request") for name in names) <= WEB_THREADS
    assert sum(name.startswith("watch") for name in names) == 1
    assert [answer.json()["jobStatus"] for answer in answers] == ["completed"] * 500


def _finish_all(jobs: list[Job]) -> None:
    for job in jobs:
        finish(job)
    connection.close()


@pytest.mark.parametrize(
    ("bound", "service"), [("MOST_OF_ONE", False), ("MOST", False), ("MOST", True)]
)
def test_beyond_the_bound_one_more_waits_for_a_while_and_puts_nobody_out(
    application: Application, monkeypatch: pytest.MonkeyPatch, bound: str, service: bool
) -> None:
    monkeypatch.setattr(waits, bound, 2)
    monkeypatch.setattr(waits, "CROWDED_SECONDS", 0.5)
    jobs = [factories.make_job(1) for _ in range(3)]

    async def crowd(ask: Ask) -> tuple[httpx2.Response, float, list[httpx2.Response]]:
        waiting = []
        for number, job in enumerate(jobs[:2], start=1):
            waiting.append(asyncio.ensure_future(ask(job)))
            here = partial(_are_here, application, number)
            await asyncio.to_thread(wait_until, here)
        began = time.monotonic()
        one_more = await ask(jobs[2])
        took = time.monotonic() - began
        assert not any(future.done() for future in waiting)
        await asyncio.to_thread(_finish_all, jobs)
        return one_more, took, await asyncio.gather(*waiting)

    one_more, took, stayed = with_client(application, crowd, service=service)
    assert one_more.json()["jobStatus"] == "in_progress"
    assert 0.5 <= took < 20
    assert [answer.json()["jobStatus"] for answer in stayed] == ["completed"] * 2
    assert len(application._waits) == 0


def _are_here(application: Application, count: int) -> bool:
    return len(application._waits) == count


@pytest.mark.parametrize("others", [("alice", "bob"), (None, None)])
def test_the_bound_of_one_user_is_nobody_elses(
    monkeypatch: pytest.MonkeyPatch, others: tuple[str | None, str | None]
) -> None:
    monkeypatch.setattr(waits, "MOST_OF_ONE", 1)

    async def wait_side_by_side() -> int:
        room, job_id = waits.Waits(watching.Watch()), uuid4()
        tasks = [asyncio.create_task(room.until_ended(job_id, 30, caller)) for caller in others]
        await asyncio.sleep(0)
        waiting = len(room)
        room.close()
        await asyncio.gather(*tasks)
        return waiting

    assert asyncio.run(wait_side_by_side()) == 2


def test_who_hangs_up_waits_no_more(application: Application) -> None:
    token = factories.make_token("alice").encode()
    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/transcript/{factories.make_job(1).pk}",
        "query_string": b"wait=30",
        "headers": [
            (b"host", b"localhost"),
            (b"authorization", b"Token " + token),
        ],
    }

    async def hang_up() -> None:
        caller = ApplicationCommunicator(application, scope)
        await caller.send_input({"type": "http.request", "body": b""})
        await asyncio.to_thread(wait_until, lambda: len(application._waits) == 1)
        await caller.send_input({"type": "http.disconnect"})
        await asyncio.to_thread(wait_until, lambda: len(application._waits) == 0)
        await caller.wait(10)

    asyncio.run(hang_up())


def test_one_call_that_waits_counts_once_for_the_rate(
    application: Application, settings: Any
) -> None:
    settings.RATE_LIMIT = (5, 60)
    answer = ask_once(application, factories.make_job(1), 1)
    assert (answer.headers["RateLimit-Limit"], answer.headers["RateLimit-Remaining"]) == ("5", "4")


def test_an_outage_of_the_database_ends_no_wait(
    application: Application,
    database_down: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(watching, "AWAY_SECONDS", 0.1)
    job = factories.make_job(1)

    def outage() -> None:
        with database_down():
            wait_until(lambda: "or of its end" in caplog.text)
        finish(job)

    thread = once_one_waits(application, outage)
    assert ask_once(application, job).json()["jobStatus"] == "completed"
    thread.join()


def test_at_a_stop_of_the_server_all_are_answered(application: Application) -> None:
    told: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    try:
        began = time.monotonic()
        thread = once_one_waits(application, lambda: os.kill(os.getpid(), signal.SIGTERM))
        answer = ask_once(application, factories.make_job(1))
        thread.join()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert answer.json()["jobStatus"] == "in_progress"
    assert time.monotonic() - began < 20
    assert told == [signal.SIGTERM]
    began = time.monotonic()
    ask_once(application, factories.make_job(1))  # who comes now is not kept either
    assert time.monotonic() - began < 20


def test_who_looks_for_ends_gives_the_connection_back_after_each_look() -> None:
    job, held = factories.make_job(), list[Any]()

    def look_once() -> None:
        held.append(look(Asked(jobs={job.pk: None}, users={}, looked_time=None)).jobs)
        held.append(connection.connection)

    thread = threading.Thread(target=look_once)
    thread.start()
    thread.join(30)
    assert held == [{job.pk: (1, "in_progress")}, None]
