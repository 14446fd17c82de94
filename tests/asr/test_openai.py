"""The engine openai against a server of the test's own."""

from __future__ import annotations

import gzip
import math
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest

from asr import registry
from asr.child_pool import ChildPool
from asr.engines.openai import OpenAIEngine
from asr.errors import AsrError, EngineMisconfigured, EngineUnavailable
from asr.types import Recognition
from tests.asr.sounds import encode, request, sample, samples_of
from tests.asr.vendor import Vendor, serving

KEY = "sk-secret-of-the-test"
VERBOSE = {
    "task": "transcribe",
    "language": "english",
    "duration": 4.7,
    "text": " The harbor was quiet. Three boats.",
    "segments": [
        {"start": 0.0, "end": 2.0, "text": " The harbor was quiet.", "avg_logprob": -0.5},
        {"start": 2.0, "end": 9.0, "text": " Three boats.", "avg_logprob": -0.1},
    ],
    "words": [
        {"word": "The", "start": 0.0, "end": 0.2},
        {"word": "harbor", "start": 0.2, "end": 1.0},
        {"word": "Three", "start": 2.1, "end": 2.5},
        {"word": "boats", "start": 2.6, "end": 9.9},
    ],
}


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    with serving() as vendor:
        yield vendor


@pytest.fixture
def engine(vendor: Vendor, pool: ChildPool) -> Iterator[OpenAIEngine]:
    engine = OpenAIEngine(pool=pool, api_key=KEY, base_url=vendor.url)
    yield engine
    engine.close()


def transcribe(engine: OpenAIEngine, **options: Any) -> Recognition:
    return engine.transcribe(
        request(sample(0), seconds=4.74, **{"deadline_seconds": 20.0, **options})
    )


def failure(engine: OpenAIEngine, **options: Any) -> AsrError:
    with pytest.raises(AsrError) as caught:
        transcribe(engine, **options)
    assert KEY not in caught.value.detail
    assert "127.0.0.1" not in caught.value.detail
    return caught.value


def test_it_sends_what_the_vendor_expects(vendor: Vendor, engine: OpenAIEngine) -> None:
    vendor.says(200, VERBOSE)
    transcribe(engine, language="en-US", vocabulary=("Kubernetes", "Redis"))
    (received,) = vendor.received
    assert (received.method, received.path) == ("POST", "/v1/audio/transcriptions")
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert received.headers["accept-encoding"] == "identity"
    assert received.fields == {
        "model": ["whisper-1"],
        "response_format": ["verbose_json"],
        "timestamp_granularities[]": ["word", "segment"],
        "language": ["en"],
        "prompt": ["Kubernetes, Redis"],
    }
    assert (received.file_name, received.file) == ("audio.flac", sample(0))


def test_segments_words_and_language_are_read(vendor: Vendor, engine: OpenAIEngine) -> None:
    vendor.says(200, VERBOSE)
    recognition = transcribe(engine)
    assert (recognition.engine, recognition.model) == ("openai", "whisper-1")
    assert recognition.language == "en"
    assert recognition.text == "The harbor was quiet. Three boats."
    words = [[word.text for word in segment.words] for segment in recognition.segments]
    assert words == [["The", "harbor"], ["Three", "boats"]]
    assert recognition.segments[1].end == recognition.segments[1].words[1].end == 4.74
    assert recognition.confidence == pytest.approx((math.exp(-0.5) + math.exp(-0.1)) / 2)


def test_a_model_without_times_gives_one_segment(vendor: Vendor, pool: ChildPool) -> None:
    engine = OpenAIEngine(pool=pool, base_url=vendor.url, model="gpt-4o-transcribe")
    vendor.says(200, {"text": "Hello there."})
    recognition = transcribe(engine, language="en")
    (received,) = vendor.received
    assert received.fields == {
        "model": ["gpt-4o-transcribe"],
        "response_format": ["json"],
        "include[]": ["logprobs"],
        "language": ["en"],
    }
    (segment,) = recognition.segments
    assert (segment.text, segment.start, segment.end) == ("Hello there.", 0.0, 4.74)
    assert (recognition.language, recognition.confidence) == ("en", None)
    engine.close()


def test_silence_is_an_empty_recognition(vendor: Vendor, engine: OpenAIEngine) -> None:
    vendor.says(200, {"text": "", "language": "english", "segments": [], "words": []})
    assert transcribe(engine).segments == ()


def test_raw_aac_is_sent_as_flac(vendor: Vendor, engine: OpenAIEngine) -> None:
    vendor.says(200, VERBOSE)
    data = encode(samples_of(sample(0)), "aac")
    engine.transcribe(request(data, seconds=4.8, container="aac"))
    (received,) = vendor.received
    assert received.file_name == "audio.flac"
    assert (samples_of(received.file) == samples_of(data)).all()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 415, 422, 301])
def test_a_refusal_is_never_tried_again(vendor: Vendor, engine: OpenAIEngine, status: int) -> None:
    vendor.says(status, {"error": {"message": f"Incorrect API key provided: {KEY}"}})
    error = failure(engine)
    assert isinstance(error, EngineMisconfigured)
    assert (error.code, error.recoverable) == ("engine_refused", False)
    assert str(status) in error.detail
    assert len(vendor.received) == 1


@pytest.mark.parametrize("status", [409, 500, 502, 503])
def test_a_failing_server_is_unavailable(vendor: Vendor, engine: OpenAIEngine, status: int) -> None:
    vendor.says(status, b"<html>oops</html>")
    error = failure(engine)
    assert isinstance(error, EngineUnavailable)
    assert (error.code, error.recoverable, error.retry_after) == ("engine_error", True, None)
    assert len(vendor.received) == 1


@pytest.mark.parametrize(
    ("header", "least", "most"), [("7", 7, 7), ("0.5", 0.5, 0.5), ("-3", 0, 0), ("date", 50, 60)]
)
def test_a_rate_limit_says_when_to_come_back(
    vendor: Vendor, engine: OpenAIEngine, header: str, least: float, most: float
) -> None:
    value = formatdate(time.time() + 60, usegmt=True) if header == "date" else header
    vendor.says(429, {"error": {"message": "slow down"}}, Retry_After=value)
    error = failure(engine)
    assert isinstance(error, EngineUnavailable)
    assert error.retry_after is not None
    assert least <= error.retry_after <= most


@pytest.mark.parametrize("value", ["", "soon", "nan"])
def test_a_server_that_is_busy_and_does_not_say_for_how_long_is_given_a_while(
    vendor: Vendor, engine: OpenAIEngine, value: str
) -> None:
    vendor.says(429, {}, Retry_After=value)
    error = failure(engine)
    assert isinstance(error, EngineUnavailable)
    assert error.retry_after == 5.0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b"null",
        {},
        {"text": 3},
        {"text": "a", "segments": [{"text": "a"}]},
        {"text": "a", "segments": [{"text": "a", "start": "x", "end": 1}]},
        {"text": "a", "segments": "abc"},
        {"text": "a", "words": [{"word": "a", "start": 0, "end": float("nan")}]},
        {"text": "a", "language": 7},
    ],
    ids=lambda body: repr(body)[:30],
)
def test_an_answer_of_another_shape_is_a_bad_response(
    vendor: Vendor, engine: OpenAIEngine, body: Any
) -> None:
    vendor.says(200, body)
    assert failure(engine).code == "engine_bad_response"


def hang(handler: Any) -> None:
    handler.vendor.stop.wait(20)


def drip_headers(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    handler.drip(b"a")


def drip_body(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    handler.drip(b" ")


def drip_chunks(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.drip(b"1\r\n \r\n")


@pytest.mark.parametrize("answer", [hang, drip_headers, drip_body, drip_chunks])
def test_the_deadline_holds_however_the_server_delays(
    vendor: Vendor, engine: OpenAIEngine, answer: Callable[[Any], None]
) -> None:
    vendor.says(200, VERBOSE)
    transcribe(engine)  # the client is loaded
    vendor.answer = answer
    started = time.monotonic()
    assert failure(engine, deadline_seconds=0.7).code == "engine_timeout"
    assert 0.6 < time.monotonic() - started < 1.5
    if answer is not hang:
        assert vendor.hung_up.wait(5)
    vendor.says(200, VERBOSE)
    assert transcribe(engine).text


def test_an_endless_answer_is_cut_off(vendor: Vendor, engine: OpenAIEngine) -> None:
    def endless(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b" " * 100_000)

    vendor.answer = endless
    assert failure(engine).code == "engine_bad_response"


def test_a_compressed_answer_is_not_unpacked(vendor: Vendor, engine: OpenAIEngine) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    for status in (200, 400):
        vendor.says(status, bomb, Content_Encoding="gzip")
        assert failure(engine).code == "engine_bad_response"


def test_a_server_that_hangs_up_or_is_not_there_is_unavailable(
    vendor: Vendor, engine: OpenAIEngine, pool: ChildPool
) -> None:
    vendor.answer = lambda handler: handler.hang_up()
    assert failure(engine).code == "engine_error"
    nobody = OpenAIEngine(pool=pool, base_url="http://127.0.0.1:1/v1")
    assert failure(nobody).code == "engine_error"


def test_many_threads_share_one_client(vendor: Vendor, engine: OpenAIEngine) -> None:
    vendor.says(200, VERBOSE)
    transcribe(engine)
    together = threading.Barrier(60, timeout=20)

    def answer(handler: Any) -> None:
        together.wait()  # passes only when all sixty calls are under way at once
        handler.json(200, VERBOSE)

    vendor.answer = answer
    texts: list[str] = []
    threads = [
        threading.Thread(target=lambda: texts.append(transcribe(engine).text)) for _ in range(60)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 60


def test_one_connection_serves_call_after_call(vendor: Vendor, engine: OpenAIEngine) -> None:
    vendor.says(200, VERBOSE)
    for _ in range(3):
        transcribe(engine)
    assert (len(vendor.received), vendor.connections) == (3, 1)


def test_the_proxy_of_the_environment_is_used(
    vendor: Vendor, pool: ChildPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", vendor.url.removesuffix("/v1"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    vendor.says(200, VERBOSE)
    engine = OpenAIEngine(pool=pool, base_url="http://engine.invalid/v1")
    assert transcribe(engine).text
    assert vendor.received[0].path == "http://engine.invalid/v1/audio/transcriptions"
    engine.close()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("openai", {}),
        ("openai", {"api_key": ""}),
        ("openai", {"base_url": "https://api.openai.com/v1/"}),
        ("openai", {"base_url": "localhost:8000"}),
        ("nobody", {}),
    ],
)
def test_what_is_not_configured_says_so(
    pool: ChildPool, name: str, options: dict[str, Any]
) -> None:
    with pytest.raises(EngineMisconfigured) as caught:
        registry.build(name, pool=pool, options=options)
    assert caught.value.code == "engine_refused"


def test_an_own_server_needs_no_key(vendor: Vendor, pool: ChildPool) -> None:
    engine = registry.build("openai", pool=pool, options={"base_url": vendor.url})
    assert engine.refusal(language="de-AT", vocabulary=("x",), diarize=False) is None
    assert engine.refusal(language="german", vocabulary=(), diarize=False) == "language"
    assert engine.refusal(language=None, vocabulary=(), diarize=True) == "diarize"
