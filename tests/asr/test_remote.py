"""What engines at the other end of a network make of whatever may happen to a call."""

from __future__ import annotations

import gzip
import threading
import time
import traceback
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest

from asr import registry
from asr.child_pool import ChildPool
from asr.errors import AsrError, EngineMisconfigured, EngineUnavailable
from asr.service import TranscriptionService
from tests.asr.cases import CASES, DEADLINE, Case, ask
from tests.asr.published import KEY
from tests.asr.sounds import request, sample
from tests.asr.vendor import Vendor

REMOTE = [case for case in CASES if str(case) in {"openai whisper-1", "deepgram nova-3", "acme"}]
pytestmark = pytest.mark.parametrize("case", REMOTE, ids=str, indirect=True)


def transcribe(engine: TranscriptionService, **options: Any) -> str:
    asked = request(sample(0), seconds=4.74, **{"deadline_seconds": DEADLINE, **options})
    return engine.transcribe(asked).text


def failure(engine: TranscriptionService, **options: Any) -> AsrError:
    with pytest.raises(AsrError) as caught:
        transcribe(engine, **options)
    return caught.value


def message_of(call: Callable[[], Any], kind: type[AsrError]) -> str:
    """All that could be shown or logged of a failure."""
    with pytest.raises(kind) as caught:
        call()
    return "".join(traceback.format_exception(caught.value)) + caught.value.detail


# --- what the server answers ---


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 415, 422, 301])
def test_a_refusal_is_never_tried_again(
    vendor: Vendor, engine: TranscriptionService, status: int
) -> None:
    vendor.says(status, {"error": {"message": "no"}}, Location=vendor.url)
    error = failure(engine)
    assert isinstance(error, EngineMisconfigured)
    assert (error.code, error.recoverable) == ("engine_refused", False)
    assert str(status) in error.detail
    assert len(vendor.received) == 1


@pytest.mark.parametrize("status", [409, 425, 500, 502, 503, 504])
def test_a_failing_server_is_unavailable(
    vendor: Vendor, engine: TranscriptionService, status: int
) -> None:
    vendor.says(status, b"<html>oops</html>")
    error = failure(engine)
    assert isinstance(error, EngineUnavailable)
    assert (error.code, error.recoverable, error.retry_after) == ("engine_error", True, None)
    assert len(vendor.received) == 1


def test_a_server_that_gives_up_waiting_is_a_timeout(
    vendor: Vendor, engine: TranscriptionService
) -> None:
    vendor.says(408, {})
    assert failure(engine).code == "engine_timeout"


@pytest.mark.parametrize(
    ("header", "least", "most"), [("7", 7, 7), ("0.5", 0.5, 0.5), ("-3", 0, 0), ("date", 30, 60)]
)
def test_a_rate_limit_says_when_to_come_back(
    vendor: Vendor, engine: TranscriptionService, header: str, least: float, most: float
) -> None:
    value = formatdate(time.time() + 60, usegmt=True) if header == "date" else header
    vendor.says(429, {"error": {"message": "slow down"}}, Retry_After=value)
    error = failure(engine)
    assert isinstance(error, EngineUnavailable)
    assert error.retry_after is not None
    assert least <= error.retry_after <= most


@pytest.mark.parametrize("value", ["", "soon", "nan"])
def test_a_server_that_is_busy_and_does_not_say_for_how_long_is_given_a_while(
    vendor: Vendor, engine: TranscriptionService, value: str
) -> None:
    vendor.says(429, {}, Retry_After=value)
    error = failure(engine)
    assert isinstance(error, EngineUnavailable)
    assert error.retry_after == 5.0


def test_an_account_without_money_is_refused_and_not_waited_for(
    vendor: Vendor, engine: TranscriptionService
) -> None:
    vendor.says(429, {"error": {"code": "insufficient_quota"}}, Retry_After="1")
    for call in (lambda: engine.verify(DEADLINE), lambda: transcribe(engine)):
        with pytest.raises(EngineMisconfigured):
            call()


def test_a_server_that_is_busy_has_not_refused_the_key(
    vendor: Vendor, engine: TranscriptionService
) -> None:
    vendor.says(429, {"error": {"message": "slow down"}}, Retry_After="7")
    remark = "the engine is busy (429, a rate limit); it did not refuse the key"
    assert engine.verify(DEADLINE) == remark
    assert len(vendor.received) == 1


@pytest.mark.parametrize("status", [408, 500, 503])
def test_a_server_that_fails_is_not_verified(
    vendor: Vendor, engine: TranscriptionService, status: int
) -> None:
    vendor.says(status, {})
    with pytest.raises(EngineUnavailable):
        engine.verify(DEADLINE)


@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b"\xff\xfe", b"[" * 100_000, b"[]", b"null", {}, {"text": 3}],
    ids=lambda body: repr(body)[:30],
)
def test_an_answer_of_another_shape_is_a_bad_response(
    vendor: Vendor, engine: TranscriptionService, body: Any
) -> None:
    vendor.says(200, body)
    assert failure(engine).code == "engine_bad_response"


def test_an_endless_answer_is_cut_off(vendor: Vendor, engine: TranscriptionService) -> None:
    def endless(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b" " * 100_000)

    vendor.answer = endless
    assert failure(engine).code == "engine_bad_response"


def test_a_compressed_answer_is_not_unpacked(vendor: Vendor, engine: TranscriptionService) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    for status in (200, 400):
        vendor.says(status, bomb, Content_Encoding="gzip")
        assert failure(engine).code == "engine_bad_response"


def test_a_server_that_hangs_up_is_unavailable(
    vendor: Vendor, engine: TranscriptionService
) -> None:
    vendor.answer = lambda handler: handler.hang_up()
    error = failure(engine)
    assert isinstance(error, EngineUnavailable)
    assert (error.code, error.answer_lost) == ("engine_error", True)


def test_a_server_that_is_not_there_is_unavailable(case: Case, pool: ChildPool) -> None:
    engine = case.build(pool, Vendor(url="http://127.0.0.1:1/v1"))
    for call in (lambda: engine.verify(DEADLINE), lambda: transcribe(engine)):
        with pytest.raises(EngineUnavailable) as caught:
            call()
        assert (caught.value.code, caught.value.answer_lost) == ("engine_error", False)
    engine.close()


# --- time ---


def hang(handler: Any) -> None:
    handler.vendor.stop.wait(30)


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
    vendor: Vendor, engine: TranscriptionService, case: Case, answer: Callable[[Any], None]
) -> None:
    transcribe(engine)  # the client is loaded
    for call in (
        lambda: transcribe(engine, deadline_seconds=0.7),
        lambda: engine.verify(0.7),
    ):
        vendor.answer = answer
        vendor.hung_up.clear()
        started = time.monotonic()
        with pytest.raises(EngineUnavailable) as caught:
            call()
        assert caught.value.code == "engine_timeout"
        assert 0.6 < time.monotonic() - started < 5  # a drip alone would take hours
        if answer is not hang:
            assert vendor.hung_up.wait(10)
        assert case.api is not None
        vendor.answer = case.api
        assert transcribe(engine)


# --- connections ---


def test_many_threads_share_one_client(
    vendor: Vendor, engine: TranscriptionService, case: Case
) -> None:
    transcribe(engine)
    together = threading.Barrier(60, timeout=60)

    def answer(handler: Any) -> None:
        together.wait()  # passes only when all sixty calls are under way at once
        assert case.api is not None
        case.api(handler)

    vendor.answer = answer
    texts: list[str] = []
    threads = [threading.Thread(target=lambda: texts.append(transcribe(engine))) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 60
    assert len(set(texts)) == 1


def test_one_connection_serves_call_after_call(
    vendor: Vendor, engine: TranscriptionService
) -> None:
    for _ in range(3):
        transcribe(engine)
    assert (len(vendor.received), vendor.connections) == (3, 1)


def test_the_proxy_of_the_environment_is_used(
    vendor: Vendor, case: Case, pool: ChildPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", vendor.url.removesuffix("/v1"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    vendor.says(500, {})
    engine = case.build(pool, Vendor(url="http://engine.invalid/v1"))
    assert failure(engine).code == "engine_error"
    assert vendor.received[0].path.startswith(f"http://engine.invalid{case.root}/")
    engine.close()


# --- keys ---


def test_a_wrong_key_is_refused_and_never_shown(
    case: Case, pool: ChildPool, vendor: Vendor
) -> None:
    engine = case.build(pool, vendor, api_key="another-secret")
    asked = ask(pool, sample(0))
    for call in (lambda: engine.verify(DEADLINE), lambda: engine.transcribe(asked)):
        assert "another-secret" not in message_of(call, EngineMisconfigured)
    assert "another-secret" not in repr(engine)
    engine.close()


@pytest.mark.parametrize("status", [400, 401, 402, 403, 408, 409, 429, 500, 504, 200])
def test_a_key_that_the_vendor_repeats_is_not_shown(
    engine: TranscriptionService, vendor: Vendor, status: int
) -> None:
    body = f"<p>{KEY} at {vendor.url}</p>".encode()
    vendor.answer = lambda handler: handler.json(status, body, {"X-Echo": KEY})
    messages = message_of(lambda: transcribe(engine), AsrError)
    if status in {200, 429}:
        messages += engine.verify(DEADLINE) or ""
    else:
        messages += message_of(lambda: engine.verify(DEADLINE), AsrError)
    assert KEY not in messages
    assert "127.0.0.1" not in messages


@pytest.mark.parametrize("key", ["schlüssel", "two\nlines", "ключ"])
def test_what_cannot_be_a_key_is_an_error_and_not_shown(
    case: Case, pool: ChildPool, vendor: Vendor, key: str
) -> None:
    engine = case.build(pool, vendor, api_key=key)
    message = message_of(lambda: engine.verify(DEADLINE), AsrError)
    assert not any(part in message for part in key.split())
    engine.close()


def test_without_a_key_the_vendor_itself_is_not_configured(case: Case, pool: ChildPool) -> None:
    with pytest.raises(EngineMisconfigured) as caught:
        registry.build(case.engine, pool=pool, options=case.options)
    assert f"{case.engine.upper()}_API_KEY" in caught.value.detail


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://"])
def test_an_address_that_is_none_is_not_configured(case: Case, pool: ChildPool, url: str) -> None:
    options = {**case.options, "api_key": KEY, "base_url": url}
    with pytest.raises(EngineMisconfigured, match=f"^{case.engine.upper()}_BASE_URL is no http"):
        registry.build(case.engine, pool=pool, options=options)
