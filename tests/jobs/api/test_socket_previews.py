"""`chunk.preview`: what is heard of a chunk so far, shown to those who watch its job."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings

from jobs import previews
from jobs.api.errors import Erased
from jobs.api.socket import Socket
from jobs.api.sockets import _follow
from jobs.models import Job
from jobs.previews import CHANNEL, Preview, Teller, _message
from jobs.redis_clients import impatient_client
from jobs.watching import JobChannel
from tests import factories
from tests.helpers import broker, wait_until
from tests.jobs.api.socket_clients import Service, service

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("redis_is_empty"),
]


@pytest.fixture
def web() -> Iterator[Service]:
    with service() as running:
        yield running


@pytest.fixture
def teller(monkeypatch: pytest.MonkeyPatch) -> Teller:
    monkeypatch.setattr(previews, "EVERY_SECONDS", 0.05)
    return Teller(impatient_client(settings.BROKER_URL))


def listeners() -> int:
    ((_, count),) = broker().client.pubsub_numsub(CHANNEL)
    return int(count)


def publish(job: Job, index: int, text: str) -> None:
    broker().client.publish(CHANNEL, _message(job.pk, index, text))


def test_it_comes_without_a_number_and_the_events_go_on(web: Service, teller: Teller) -> None:
    job = factories.make_job(2)
    with web.watch_job(job) as caller:
        assert caller.read()["sequence"] == 1
        wait_until(lambda: listeners() == 1)
        claimed = factories.claim(job, 1)
        assert caller.read()["type"] == "chunk.started"
        with teller.telling(job.pk, 1) as hear:
            for text in ("so", "so far"):
                hear(text)
                preview = caller.read()
                assert set(preview) == {"type", "jobId", "time", "data"}
                assert (preview["type"], preview["jobId"]) == ("chunk.preview", str(job.pk))
                assert preview["data"] == {"index": 1, "text": text}
        factories.complete(claimed, "so far so good")
        event = caller.read()
        assert (event["sequence"], event["type"]) == (3, "chunk.completed")


def test_who_watches_another_job_or_all_of_them_is_not_told(web: Service) -> None:
    job, other = factories.make_job(1), factories.make_job(1)
    with (
        web.watch_job(job) as caller,
        web.watch_job(other) as stranger,
        web.watch("/ws/transcripts", factories.make_token()) as overseer,
    ):
        assert {each.read()["type"] for each in (caller, stranger, overseer)} == {"snapshot"}
        wait_until(lambda: listeners() == 1)
        publish(job, 0, "so far")
        assert caller.read()["type"] == "chunk.preview"
        factories.claim(job)
        factories.claim(other)
        assert caller.read()["type"] == stranger.read()["type"] == "chunk.started"
        assert {overseer.read()["type"] for _ in range(2)} == {"chunk.started"}


def test_who_comes_later_gets_the_newest_of_what_is_still_heard(web: Service) -> None:
    job = factories.make_job(2)
    claims = [factories.claim(job, index) for index in (0, 1)]
    with web.watch_job(job) as caller:
        caller.read()
        wait_until(lambda: listeners() == 1)
        for index, text in ((0, "a"), (1, "b"), (0, "a b"), (0, "a b c")):
            publish(job, index, text)
            assert caller.read()["data"]["text"] == text
        factories.complete(claims[1], "beta")
        assert caller.read()["sequence"] == 4
        with web.watch_job(job) as newcomer, web.watch_job(job, first={"since": 3}) as back:
            assert newcomer.read()["sequence"] == back.read()["sequence"] == 4
            expected = {"index": 0, "text": "a b c"}
            assert newcomer.read()["data"] == back.read()["data"] == expected
            factories.complete(claims[0], "alpha")
            assert newcomer.read()["sequence"] == back.read()["sequence"] == 5


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"1", b'{"jobId": 1}', b'{"data": []}'])
def test_what_is_no_preview_is_passed_over(web: Service, data: bytes) -> None:
    job = factories.make_job(1)
    with web.watch_job(job) as caller:
        caller.read()
        wait_until(lambda: listeners() == 1)
        broker().client.publish(CHANNEL, data)
        publish(job, 0, "so far")
        assert caller.read()["type"] == "chunk.preview"


def test_a_connection_to_redis_that_is_cut_is_made_anew(
    web: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "AWAY_SECONDS", 0.05)
    job = factories.make_job(1)
    with web.watch_job(job) as caller:
        caller.read()
        wait_until(lambda: listeners() == 1)
        broker().client.client_kill_filter(_type="pubsub")
        wait_until(lambda: listeners() == 1)
        publish(job, 0, "so far")
        assert caller.read()["data"]["text"] == "so far"


def test_without_redis_the_events_come(web: Service, settings: Any) -> None:
    settings.BROKER_URL = "redis://127.0.0.1:1/0"
    job = factories.make_job(1)
    with web.watch_job(job) as caller:
        caller.read()
        factories.claim(job)
        assert caller.read()["sequence"] == 2
    wait_until(lambda: web.application._sockets._watch._listening is None)


def test_redis_is_listened_to_only_while_a_job_is_watched(web: Service) -> None:
    job, watch = factories.make_job(1), web.application._sockets._watch
    with web.watch("/ws/transcripts", factories.make_token()) as overseer:
        overseer.read()
        assert watch._listening is None
        for _ in range(3):
            with web.watch_job(job) as one, web.watch_job(job) as two:
                one.read()
                two.read()
                wait_until(lambda: listeners() == 1)
            wait_until(lambda: watch._listening is None)
        wait_until(lambda: listeners() == 0)


def test_a_server_that_stops_listens_no_more(web: Service) -> None:
    with web.watch_job(factories.make_job(1)) as caller:
        caller.read()
        wait_until(lambda: listeners() == 1)
        web.server.should_exit = True
        assert caller.end()[0] == 1012
        wait_until(lambda: listeners() == 0)


def test_a_slow_reader_gets_the_newest_of_each_chunk() -> None:
    said: list[str] = []

    async def run() -> None:
        ready, taken = asyncio.Event(), asyncio.Event()

        async def send(message: Any) -> None:
            said.append(message["text"])
            taken.set()
            await ready.wait()

        channel = JobChannel(0)
        socket = Socket(asyncio.Event().wait, send)
        reading = asyncio.create_task(_follow(socket, channel.page, {}, channel.previews))
        for number in range(100):
            for index in (0, 1):
                channel.show(Preview(uuid4(), index, f"{index}: {number}"))
            await taken.wait()
        ready.set()
        channel.end()
        with pytest.raises(Erased):
            await asyncio.wait_for(reading, 20)

    asyncio.run(run())
    assert said == ["0: 0", "1: 99", "0: 99"]
