"""Previews: told soon and seldom, and never at a recognition's cost."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
import redis
from django.conf import settings

from jobs import pipeline, previews
from jobs.previews import CHANNEL, Teller
from jobs.redis_clients import impatient_client
from tests import factories
from tests.helpers import wait_until
from tests.scripted import ScriptedEngine

JOB: Final = UUID("0199a8f0-0000-7000-8000-000000000001")
COST_SECONDS: Final = 0.3  # that a recognition may lose by all of its previews, whatever happens


class Subscriber:
    """Hears what is told, in order."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)
        self._channel = self._client.pubsub()
        self._channel.subscribe(CHANNEL)
        assert self._next()["type"] == "subscribe"

    def read(self) -> Any:
        return json.loads(self._next()["data"])

    def _next(self) -> Any:
        message = self._channel.get_message(timeout=20)
        assert message is not None, "nothing was told"
        return message

    def close(self) -> None:
        self._channel.close()
        self._client.close()


@pytest.fixture
def subscriber() -> Iterator[Subscriber]:
    subscriber = Subscriber(settings.BROKER_URL)
    yield subscriber
    subscriber.close()


@pytest.fixture
def teller() -> Teller:
    return Teller(impatient_client(settings.BROKER_URL))


def test_what_is_heard_is_told(teller: Teller, subscriber: Subscriber) -> None:
    with teller.telling(JOB, 3) as hear:
        hear('grüß "dich"')
        message = subscriber.read()
    told = datetime.fromisoformat(message.pop("time"))
    assert abs((datetime.now(UTC) - told).total_seconds()) < 20
    assert message == {
        "type": "chunk.preview",
        "jobId": str(JOB),
        "data": {"index": 3, "text": 'grüß "dich"'},
    }


@pytest.mark.parametrize("said", [object(), "x" * 20_001, b"bytes"])
def test_what_no_engine_would_say_is_not_told(
    teller: Teller, subscriber: Subscriber, said: Any
) -> None:
    with teller.telling(JOB, 0) as hear:
        hear(said)
        hear("words")
        assert subscriber.read()["data"]["text"] == "words"


def test_half_a_letter_does_not_end_the_telling(
    teller: Teller, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "SILENT_SECONDS", 0.1)
    with teller.telling(JOB, 0) as hear:
        hear("\ud800")
        wait_until(teller._news.empty)
        hear("words")
        assert subscriber.read()["data"]["text"] == "words"


def test_a_chunk_is_told_of_once_a_second_with_its_newest_text(
    teller: Teller, subscriber: Subscriber
) -> None:
    with teller.telling(JOB, 0) as hear, teller.telling(JOB, 1) as hear_other:
        hear("0")
        assert subscriber.read()["data"] == {"index": 0, "text": "0"}
        began = time.monotonic()
        for number in range(1, 100):
            hear(str(number))
        hear_other("other")
        assert subscriber.read()["data"] == {"index": 0, "text": "99"}
        assert subscriber.read()["data"] == {"index": 1, "text": "other"}
        assert time.monotonic() - began > 0.8 * previews.EVERY_SECONDS


def test_nothing_is_told_of_a_chunk_that_is_over(teller: Teller, subscriber: Subscriber) -> None:
    with teller.telling(JOB, 0) as hear:
        hear("first")
        assert subscriber.read()["data"]["text"] == "first"
        hear("too late")
    with teller.telling(JOB, 1) as hear:
        hear("next")
        assert subscriber.read()["data"]["text"] == "next"


def test_who_hears_nothing_needs_no_thread(teller: Teller) -> None:
    with teller.telling(JOB, 0):
        pass
    assert teller._thread is None
    assert teller._news.empty()


@pytest.mark.django_db
def test_an_engine_that_recognises_is_heard(
    script: ScriptedEngine, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch, teller: Teller
) -> None:
    monkeypatch.setattr(previews, "teller", lambda: teller)
    job = factories.make_job(1)
    factories.put_audio(job.chunks.get().audio_path)

    def say(request: Any) -> str:
        request.hear("so far")
        assert subscriber.read()["jobId"] == str(job.pk)
        return "so far and no further"

    script.steps = [say]
    assert pipeline.transcribe(job.pk, 0) is None
    assert job.chunks.get().text == "so far and no further"


# --- Redis away ---


def test_while_redis_refuses_it_is_asked_once_and_nobody_waits() -> None:
    asked: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                asked.append(connection)
                connection.close()

        refusing = threading.Thread(target=refuse)
        refusing.start()
        teller = Teller(impatient_client(f"redis://127.0.0.1:{server.getsockname()[1]}/0"))
        with teller.telling(JOB, 0) as hear:
            hear("lost")
            wait_until(lambda: asked)
            began, cost = time.monotonic(), 0.0
            while time.monotonic() < began + 2 * previews.EVERY_SECONDS:
                cost += seconds_of(lambda: hear("lost as well"))
                time.sleep(0.01)
        server.shutdown(socket.SHUT_RDWR)
        refusing.join(10)
    assert len(asked) == 1
    assert cost < COST_SECONDS


def test_while_redis_stalls_nobody_waits_and_later_it_is_told_again(
    stalling_redis: tuple[str, Callable[[int], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "SILENT_SECONDS", 0.1)
    monkeypatch.setattr(previews, "EVERY_SECONDS", 0.05)
    url, send_signal = stalling_redis
    subscriber, teller = Subscriber(url), Teller(impatient_client(url))
    with teller.telling(uuid4(), 0) as hear:
        send_signal(signal.SIGSTOP)
        assert seconds_of(lambda: [hear(f"lost {n}") for n in range(1000)]) < COST_SECONDS
        wait_until(teller._news.empty)
        send_signal(signal.SIGCONT)
        texts = ["lost"]
        while texts[-1].startswith("lost"):
            hear("back")
            texts.append(subscriber.read()["data"]["text"])
    assert texts[-1] == "back"
    subscriber.close()


def seconds_of(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began
