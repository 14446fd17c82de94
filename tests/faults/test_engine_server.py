"""The scripted engine server and the audio files keep their word."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from asr.child_pool import ChildPool
from asr.decoding import measure
from asr.engines.openai import OpenAIEngine
from asr.errors import EngineMisconfigured, EngineUnavailable
from asr.types import AudioRequest
from tests.faults import engine_server as scripted
from tests.faults.audio import Audio, audio_of, make_audio, spoken_text
from tests.faults.engine_server import Answer, EngineServer, Hit, Plan, engine_server, failing


@pytest.fixture
def server() -> Iterator[EngineServer]:
    with engine_server() as server:
        yield server


@pytest.fixture
def engine(server: EngineServer) -> Iterator[OpenAIEngine]:
    engine = OpenAIEngine(pool=ChildPool(1), api_key=scripted.KEY, base_url=server.url)
    yield engine
    engine.close()


@pytest.fixture
def audio(tmp_path: Path) -> Audio:
    return make_audio(tmp_path, 1)[0]


def hear(engine: OpenAIEngine, audio: Audio, deadline: float = 20) -> str:
    data = audio.path.read_bytes()
    request = AudioRequest(data=data, info=measure(data, 60), deadline_seconds=deadline)
    return engine.transcribe(request).text


def fault(engine: OpenAIEngine, audio: Audio, deadline: float = 20) -> str:
    with pytest.raises((EngineUnavailable, EngineMisconfigured)) as caught:
        hear(engine, audio, deadline)
    return caught.value.code


def test_every_file_is_sound_and_has_a_digest_and_words_of_its_own(tmp_path: Path) -> None:
    files = make_audio(tmp_path / "a", 40) + make_audio(tmp_path / "b", 40)

    assert len({file.digest for file in files}) == len({file.text for file in files}) == 80
    assert files[0] == audio_of(files[0].path)
    for file in files:
        info = measure(file.path.read_bytes(), 60)
        assert (info.container, 0.19 < info.duration_seconds < 0.51) == ("wav", True)
        assert spoken_text(file.digest) == file.text
        assert len(file.text.split()) == 6


def test_by_default_it_says_the_words_of_the_file_and_logs_the_call(
    server: EngineServer, engine: OpenAIEngine, audio: Audio
) -> None:
    assert [hear(engine, audio), hear(engine, audio)] == [audio.text, server.says(audio.digest)]

    first, second = server.hits_of(audio.digest)
    assert (first.number, first.status, second.number, second.status) == (1, 200, 2, 200)
    assert first.ended is not None
    assert first.time < first.ended < second.time
    assert server.hits_since(first.time) == [second]
    assert (server.in_flight, server.most_in_flight) == (0, 1)


def test_a_plan_decides_on_every_call_by_its_number(
    server: EngineServer, engine: OpenAIEngine, audio: Audio
) -> None:
    script = [failing(500), failing(401), scripted.NONSENSE, scripted.TRUNCATED, scripted.CLOSE]

    def plan(hit: Hit) -> Answer:
        return script[hit.number - 1] if hit.number <= len(script) else Answer()

    server.plan = plan
    codes = [fault(engine, audio) for _ in script]

    bad = "engine_bad_response"
    assert codes == ["engine_error", "engine_refused", bad, bad, "engine_error"]
    assert hear(engine, audio) == audio.text
    statuses = [hit.status for hit in server.hits]
    assert statuses == [500, 401, 200, 200, None, 200]


def test_an_error_carries_its_headers(
    server: EngineServer, engine: OpenAIEngine, audio: Audio
) -> None:
    server.plan = lambda hit: failing(429, Retry_After="7")
    with pytest.raises(EngineUnavailable) as caught:
        hear(engine, audio)
    assert caught.value.retry_after == 7.0


@pytest.mark.parametrize("answer", [scripted.HANG, Answer(ending="drip", interval=0.1)])
def test_the_log_tells_when_a_client_gave_up(
    server: EngineServer, engine: OpenAIEngine, audio: Audio, answer: Answer
) -> None:
    server.plan = lambda hit: answer
    assert fault(engine, audio, deadline=1.0) == "engine_timeout"

    server.wait(lambda: server.in_flight == 0, 20)
    (hit,) = server.hits
    assert hit.ended is not None
    assert 0.8 < hit.ended - hit.time < 15
    assert hit.sent == 0 if answer is scripted.HANG else hit.sent > 1


def test_the_log_tells_how_much_of_a_huge_answer_was_taken(
    server: EngineServer, engine: OpenAIEngine, audio: Audio
) -> None:
    server.plan = lambda hit: scripted.HUGE
    assert fault(engine, audio) == "engine_bad_response"

    server.wait(lambda: server.in_flight == 0, 20)
    assert 10_000_000 < server.hits[0].sent < 25_000_000  # and what the sockets hold


def test_calls_wait_at_the_gate_and_are_answered_together(
    server: EngineServer, tmp_path: Path
) -> None:
    files = make_audio(tmp_path, 100) * 10
    form = {"model": scripted.MODEL, "response_format": "verbose_json"}
    headers = {"Authorization": f"Bearer {scripted.KEY}"}
    limits = httpx2.Limits(max_connections=None)
    server.hold()
    with (
        httpx2.Client(limits=limits, timeout=100, trust_env=False) as client,
        ThreadPoolExecutor(1000) as threads,
    ):

        def call(file: Audio) -> str:
            sent = {"file": ("audio.wav", file.path.read_bytes())}
            address = f"{server.url}/audio/transcriptions"
            answer = client.post(address, data=form, files=sent, headers=headers)
            return str(answer.json()["text"])

        texts = threads.map(call, files)
        server.wait_in_flight(1000, 100)
        assert [hit.ended for hit in server.hits] == [None] * 1000
        released = time.monotonic()
        server.release()
        assert list(texts) == [file.text for file in files]

    assert server.most_in_flight == 1000
    assert all(hit.ended is not None and hit.ended > released for hit in server.hits)


def test_it_goes_away_and_comes_back_at_the_same_address(
    server: EngineServer, engine: OpenAIEngine, audio: Audio
) -> None:
    assert hear(engine, audio) == audio.text
    for _ in range(3):
        server.go_away()
        assert fault(engine, audio) == "engine_error"
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(server.url, trust_env=False)
        server.come_back()
        assert hear(engine, audio) == audio.text
    assert len(server.hits) == 4


def test_a_call_that_the_vendor_would_refuse_fails_the_test(audio: Audio) -> None:
    with pytest.raises(AssertionError, match="another key"):
        call_once(audio, key="sk-wrong")


def test_a_plan_that_raises_fails_the_test(audio: Audio) -> None:
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        call_once(audio, plan=lambda hit: Answer(delay=1 / 0))


def call_once(audio: Audio, key: str = scripted.KEY, plan: Plan = lambda hit: Answer()) -> None:
    with engine_server() as server:
        server.plan = plan
        engine = OpenAIEngine(pool=ChildPool(1), api_key=key, base_url=server.url)
        with suppress(EngineUnavailable):
            hear(engine, audio)
        engine.close()
