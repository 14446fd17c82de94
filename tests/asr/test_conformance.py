"""What every engine has in common, whoever made it: the rules of `TranscriptionService`.

An engine comes in by its line in `tests.asr.cases`. A vendor's stands before a local server that
knows what the vendor publishes (`tests.asr.published`).
"""

from __future__ import annotations

import json
import re
import threading
import time
from typing import Any

import pytest

from asr import registry
from asr.child_pool import ChildPool
from asr.errors import AsrError, EngineUnavailable
from asr.service import TranscriptionService
from asr.types import AudioRequest, Recognition, segments_from_json, segments_to_json
from tests.asr import sounds
from tests.asr.cases import CASES, DEADLINE, Case, ask, refused
from tests.asr.vendor import Vendor

pytestmark = pytest.mark.timeout(600)


def check_shape(engine: TranscriptionService, heard: Recognition, request: AudioRequest) -> None:
    assert (heard.engine, heard.model) == (engine.name, engine.model)
    assert heard.text.strip()
    able, duration = engine.capabilities, request.info.duration_seconds
    starts = [segment.start for segment in heard.segments]
    assert starts == sorted(starts)
    for segment in heard.segments:
        assert 0 <= segment.start <= segment.end <= duration
        assert segment.confidence is None or 0 <= segment.confidence <= 1
        assert bool(segment.words) == able.words
        assert (segment.speaker is not None) <= able.diarization
        assert (segment.speaker is not None) >= request.diarize
        times = [time for word in segment.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert all(0 <= time <= duration for time in times)
        assert all(word.text for word in segment.words)
        assert all(0 <= (word.confidence or 0) <= 1 for word in segment.words)
    if heard.language is not None:
        assert re.fullmatch(r"[a-z]{2,3}", heard.language)
        assert able.languages is None or heard.language in able.languages
    if heard.language_confidence is not None:
        assert able.detects_language
        assert 0 <= heard.language_confidence <= 1
    if heard.usage is not None and heard.usage.seconds is not None:
        assert heard.usage.seconds == pytest.approx(duration, abs=0.1)
    told = json.loads(json.dumps(segments_to_json(heard.segments)))
    assert segments_from_json(told) == heard.segments


def test_every_registered_engine_is_among_the_cases() -> None:
    assert {case.engine for case in CASES} - {"acme"} == set(registry.ENGINES)


def test_every_sample_becomes_a_recognition_of_the_same_shape(
    engine: TranscriptionService, pool: ChildPool
) -> None:
    for index in range(len(sounds.MANIFEST)):
        request = ask(pool, sounds.sample(index))
        check_shape(engine, engine.transcribe(request), request)


def test_every_container_is_taken(
    engine: TranscriptionService, vendor: Vendor, case: Case, pool: ChildPool
) -> None:
    speech = sounds.samples_of(sounds.sample(0))[: 3 * sounds.RATE]
    for encoding in sounds.ENCODINGS:
        data = sounds.encode(speech, encoding)
        request = ask(pool, data)
        check_shape(engine, engine.transcribe(request), request)
        if case.api is not None and request.info.container != "aac":
            assert vendor.received[-1].file == data


@pytest.mark.parametrize("seconds", [0.1, 2.0])
def test_silence_has_no_segments(
    engine: TranscriptionService, pool: ChildPool, seconds: float
) -> None:
    heard = engine.transcribe(ask(pool, sounds.encode(sounds.silence(seconds), "flac")))
    assert (heard.segments, heard.text, heard.confidence) == ((), "", None)
    assert (heard.engine, heard.model) == (engine.name, engine.model)


@pytest.mark.parametrize(
    "option",
    [
        {"language": "en"},
        {"language": "en-US"},
        {"vocabulary": ("Kubernetes", "Redis")},
        {"diarize": True},
    ],
    ids=str,
)
def test_an_option_is_honoured_or_refused_by_name(
    engine: TranscriptionService, pool: ChildPool, option: dict[str, Any]
) -> None:
    (name,) = option
    able = engine.capabilities
    can = {"language": True, "vocabulary": able.vocabulary, "diarize": able.diarization}[name]
    assert refused(engine, **option) == (None if can else name)
    if can:
        request = ask(pool, sounds.sample(0), **option)
        heard = engine.transcribe(request)
        check_shape(engine, heard, request)
        if name == "language":
            assert heard.language == "en"


def test_what_is_no_language_is_refused(engine: TranscriptionService) -> None:
    for language in ("english", "e", "12"):
        assert refused(engine, language=language) == "language"


def test_a_vocabulary_beyond_a_limit_is_refused_with_the_limit(
    engine: TranscriptionService,
) -> None:
    able = engine.capabilities
    terms, tokens = able.max_vocabulary_terms, able.max_vocabulary_tokens
    for most, vocabulary in ((terms, ("x",) * 999), (tokens, ("語" * 999,))):
        if most is not None:
            assert able.vocabulary
            refusal = engine.refusal(language=None, vocabulary=vocabulary, diarize=False)
            assert refusal is not None
            assert (refusal.option, str(most) in refusal.reason) == ("vocabulary", True)


def test_an_expected_language_is_a_hint_and_no_order(
    engine: TranscriptionService, pool: ChildPool
) -> None:
    request = ask(pool, sounds.sample(0), expected_language="en")
    check_shape(engine, engine.transcribe(request), request)


def test_what_is_no_audio_is_an_error_that_names_no_secret(
    engine: TranscriptionService,
) -> None:
    with pytest.raises(AsrError) as caught:
        engine.transcribe(sounds.request(b"no sound", seconds=1.0, deadline_seconds=DEADLINE))
    assert not caught.value.recoverable


def test_the_deadline_is_kept(
    engine: TranscriptionService, vendor: Vendor, pool: ChildPool
) -> None:
    request = ask(pool, sounds.sample(0), deadline_seconds=0.05)
    vendor.answer = lambda handler: handler.vendor.stop.wait(30)
    began = time.monotonic()
    with pytest.raises(EngineUnavailable) as caught:
        engine.transcribe(request)
    assert caught.value.code == "engine_timeout"
    assert time.monotonic() - began < 10


def served(engine: TranscriptionService, request: AudioRequest) -> str:
    """What was heard; an engine that is busy is asked again, as the pipeline does it."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            return engine.transcribe(request).text
        except EngineUnavailable as error:
            if error.retry_after is None or time.monotonic() > end:
                raise


def test_many_threads_are_served_at_once(engine: TranscriptionService, pool: ChildPool) -> None:
    request = ask(pool, sounds.sample(1))
    expected = served(engine, request)
    heard: list[Any] = []

    def call() -> None:
        try:
            heard.append(served(engine, request))
        except Exception as error:
            heard.append(error)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == [expected] * 8


def test_an_engine_that_works_verifies(engine: TranscriptionService) -> None:
    assert engine.verify(DEADLINE) is None


def test_verifying_within_no_time_is_unavailable(engine: TranscriptionService) -> None:
    with pytest.raises(EngineUnavailable) as caught:
        engine.verify(0.0)
    assert caught.value.code == "engine_timeout"


def test_what_it_can_do_is_declared_soundly(engine: TranscriptionService, case: Case) -> None:
    able = engine.capabilities
    assert engine.name == case.engine
    assert engine.model
    assert able.runs_locally == (case.api is None)
    assert able.price_per_minute == (0.0 if able.runs_locally else None)  # no list price here
    assert able.max_seconds is None or able.max_seconds > 300
    assert able.max_bytes is None or able.max_bytes >= 5_000_000


@pytest.mark.parametrize("name", ["openai", "deepgram"])
def test_another_server_is_another_variant(name: str, pool: ChildPool) -> None:
    urls = ["http://a.example/v1", "http://a.example/v1/", "http://b.example/v1"]
    one, same, other = (
        registry.build(name, pool=pool, options={"base_url": url}).variant for url in urls
    )
    assert one == same != other
