"""The engine openai against a server of the test's own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from asr import registry
from asr.child_pool import ChildPool
from asr.engines.openai import OpenAIEngine
from asr.errors import AsrError, EngineMisconfigured, EngineUnavailable
from asr.types import Capabilities, Recognition, Usage
from tests.asr.cases import refused
from tests.asr.published import KEY, openai_api
from tests.asr.sounds import encode, request, sample, samples_of
from tests.asr.vendor import Vendor, serving

VERBOSE: dict[str, Any] = {
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


def test_the_length_of_the_sound_is_recorded_as_usage(vendor: Vendor, engine: OpenAIEngine) -> None:
    vendor.says(200, VERBOSE | {"usage": {"type": "duration", "seconds": 5}})
    assert transcribe(engine).usage == Usage(seconds=5.0)
    vendor.says(200, VERBOSE)
    assert transcribe(engine).usage is None


def test_segments_out_of_order_are_put_in_order(vendor: Vendor, engine: OpenAIEngine) -> None:
    reverse = {"segments": VERBOSE["segments"][::-1], "words": VERBOSE["words"][::-1]}
    vendor.says(200, VERBOSE | reverse)
    assert [segment.words[0].text for segment in transcribe(engine).segments] == ["The", "Three"]


# --- each model ---


def at(vendor: Vendor, pool: ChildPool, model: str) -> OpenAIEngine:
    return OpenAIEngine(pool=pool, api_key=KEY, base_url=vendor.url, model=model)


def test_a_gpt_4o_model_gives_one_segment_with_a_confidence(
    vendor: Vendor, pool: ChildPool
) -> None:
    engine = at(vendor, pool, "gpt-4o-transcribe")
    tokens = {"type": "tokens", "input_tokens": 14, "output_tokens": 101, "total_tokens": 115}
    logprobs = [{"token": "Hello", "logprob": -0.1}, {"token": " there.", "logprob": -0.3}]
    vendor.says(200, {"text": "Hello there.", "logprobs": logprobs, "usage": tokens})
    recognition = transcribe(engine, language="en", vocabulary=("Redis",))
    (received,) = vendor.received
    assert received.fields == {
        "model": ["gpt-4o-transcribe"],
        "response_format": ["json"],
        "include[]": ["logprobs"],
        "language": ["en"],
        "prompt": ["Redis"],
    }
    (segment,) = recognition.segments
    assert (segment.text, segment.start, segment.end) == ("Hello there.", 0.0, 4.74)
    assert segment.confidence == pytest.approx(math.exp(-0.2))
    assert (recognition.language, segment.words) == ("en", ())
    assert recognition.usage == Usage(input_tokens=14, output_tokens=101)
    engine.close()


def test_a_diarizing_model_tells_the_speakers(vendor: Vendor, pool: ChildPool) -> None:
    engine = at(vendor, pool, "gpt-4o-transcribe-diarize")
    vendor.says(
        200,
        {
            "text": "Hello. Hi.",
            "segments": [
                {"id": "1", "speaker": "A", "start": 0.1, "end": 1.0, "text": "Hello."},
                {"id": "2", "speaker": "B", "start": 1.0, "end": 7.0, "text": " Hi."},
            ],
            "usage": {"type": "duration", "seconds": 5},
        },
    )
    recognition = transcribe(engine, diarize=True)
    (received,) = vendor.received
    assert received.fields == {
        "model": ["gpt-4o-transcribe-diarize"],
        "response_format": ["diarized_json"],
        "chunking_strategy": ["auto"],
    }
    said = [(s.speaker, s.text, s.start, s.end) for s in recognition.segments]
    assert said == [("A", "Hello.", 0.1, 1.0), ("B", "Hi.", 1.0, 4.74)]
    assert recognition.usage == Usage(seconds=5.0)
    engine.close()


def test_an_answer_without_speakers_is_none_where_they_were_asked_for(
    vendor: Vendor, pool: ChildPool
) -> None:
    engine = at(vendor, pool, "gpt-4o-transcribe-diarize")
    vendor.says(200, {"text": "Hello."})
    with pytest.raises(EngineUnavailable) as caught:
        transcribe(engine, diarize=True)
    assert caught.value.code == "engine_bad_response"
    engine.close()


@pytest.mark.parametrize(
    ("asked", "fields"),
    [
        ({}, {}),
        ({"language": "en-US", "expected_language": "de"}, {"languages[]": ["en"]}),
        ({"expected_language": "de"}, {"languages[]": ["de"]}),
        ({"vocabulary": ("AC-42", "night shift")}, {"keywords[]": ["AC-42", "night shift"]}),
    ],
    ids=str,
)
def test_gpt_transcribe_is_given_keywords_and_languages_to_expect(
    vendor: Vendor, pool: ChildPool, asked: dict[str, Any], fields: dict[str, list[str]]
) -> None:
    engine = at(vendor, pool, "gpt-transcribe")
    vendor.says(200, {"text": "Salut.", "languages": [{"code": "fr"}, {"code": "en"}]})
    recognition = transcribe(engine, **asked)
    (received,) = vendor.received
    plain = {"model": ["gpt-transcribe"], "response_format": ["json"]}
    assert received.fields == plain | fields
    assert recognition.language == "fr"
    engine.close()


def test_a_language_that_gpt_transcribe_is_not_sure_of_is_unknown(
    vendor: Vendor, pool: ChildPool
) -> None:
    engine = at(vendor, pool, "gpt-transcribe")
    vendor.says(200, {"text": "Hm.", "languages": []})
    assert transcribe(engine, expected_language="de").language is None
    engine.close()


@pytest.mark.parametrize(
    ("model", "words", "vocabulary", "diarization", "detects", "seconds", "price"),
    [
        ("whisper-1", True, True, False, True, None, 0.006),
        ("gpt-transcribe", False, True, False, True, None, 0.0045),
        ("gpt-4o-transcribe", False, True, False, False, 1500.0, None),
        ("gpt-4o-mini-transcribe-2025-12-15", False, True, False, False, 1500.0, None),
        ("gpt-4o-transcribe-diarize", False, False, True, False, 1400.0, None),
        ("Systran/faster-whisper-small", True, True, False, True, None, None),
    ],
)
def test_what_it_can_do_depends_on_the_model(
    pool: ChildPool,
    model: str,
    words: bool,
    vocabulary: bool,
    diarization: bool,
    detects: bool,
    seconds: float | None,
    price: float | None,
) -> None:
    assert OpenAIEngine(pool=pool, api_key="k", model=model).capabilities == Capabilities(
        languages=None,
        words=words,
        vocabulary=vocabulary,
        diarization=diarization,
        runs_locally=False,
        detects_language=detects,
        max_seconds=seconds,
        max_bytes=25_000_000,
        max_vocabulary_tokens=224 if words else None,
        price_per_minute=price,
    )


def test_what_another_server_costs_is_not_known(vendor: Vendor, pool: ChildPool) -> None:
    assert at(vendor, pool, "whisper-1").capabilities.price_per_minute is None


@pytest.mark.parametrize(
    ("model", "vocabulary", "reason"),
    [
        ("whisper-1", ("x" * 98,) * 4 + ("y" * 46,), None),  # 448 bytes with two between terms
        ("whisper-1", ("x" * 98,) * 4 + ("y" * 47,), "takes 224 tokens, and these are about 225"),
        (
            "own",
            ("ш" * 111, "x"),
            "takes 224 tokens, and these are about 225",
        ),  # two bytes a letter
        ("whisper-1", ("QX7Z-9K2B",) * 22, None),  # capitals and digits: a token each
        ("whisper-1", ("QX7Z-9K2B",) * 40, "takes 224 tokens, and these are about 400"),
        ("own", ("ш" * 111,), None),  # two bytes a letter, and as many tokens
        ("own", ("አማርኛ" * 18, "ab" * 3), None),  # three bytes a letter, and as many tokens
        ("own", ("አማርኛ" * 18, "ab" * 3, "x" * 5), "takes 224 tokens, and these are about 225"),
        ("gpt-transcribe", ("x" * 98,) * 100, None),
        ("gpt-transcribe", ("a<b",), "takes neither < nor > nor line breaks"),
        ("gpt-transcribe", ("two\nlines",), "takes neither < nor > nor line breaks"),
        ("gpt-4o-transcribe", ("x" * 98,) * 100, None),
        ("gpt-4o-transcribe-diarize", ("x",), "takes none"),
    ],
)
def test_a_vocabulary_that_would_not_be_read_whole_is_refused(
    pool: ChildPool, model: str, vocabulary: tuple[str, ...], reason: str | None
) -> None:
    engine = OpenAIEngine(pool=pool, api_key="k", model=model)
    refusal = engine.refusal(language=None, vocabulary=vocabulary, diarize=False)
    assert (refusal is None) == (reason is None)
    if refusal is not None and reason is not None:
        assert refusal.reason.startswith(f"its model {model} {reason}")


# --- verifying ---


def test_verifying_asks_about_the_model(vendor: Vendor, pool: ChildPool) -> None:
    vendor.says(200, {"id": "org/model", "object": "model"})
    engine = at(vendor, pool, "org/model")
    engine.verify(60.0)
    (received,) = vendor.received
    assert (received.method, received.path) == ("GET", "/v1/models/org%2Fmodel")
    assert received.headers["authorization"] == f"Bearer {KEY}"
    engine.close()


def test_a_model_that_the_vendor_does_not_know_is_refused(
    vendor: Vendor, pool: ChildPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asr.engines.openai.is_at", lambda url, domain: domain == "openai.com")
    vendor.answer = openai_api
    at(vendor, pool, "whisper-1").verify(60.0)
    with pytest.raises(EngineMisconfigured):
        at(vendor, pool, "parrot-1").verify(60.0)


def test_an_own_server_may_lack_the_address_of_models(vendor: Vendor, pool: ChildPool) -> None:
    vendor.says(404, {"detail": "Not Found"})
    at(vendor, pool, "m").verify(60.0)


# --- answers and options ---


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


@pytest.mark.parametrize(
    "body",
    [
        {"text": "a", "segments": [{"text": "a"}]},
        {"text": "a", "segments": [{"text": "a", "start": "x", "end": 1}]},
        {"text": "a", "segments": "abc"},
        {"text": "a", "words": [{"word": "a", "start": 0, "end": float("nan")}]},
        {"text": "a", "language": 7},
        {"text": "a", "languages": ["en"]},
        {"text": "a", "logprobs": [{"token": "a"}]},
        {"text": "a", "usage": {"seconds": "long"}},
        {"text": "a", "usage": {"input_tokens": "many"}},
    ],
    ids=lambda body: repr(body)[:30],
)
def test_an_answer_of_another_shape_is_a_bad_response(
    vendor: Vendor, engine: OpenAIEngine, body: Any
) -> None:
    vendor.says(200, body)
    assert failure(engine).code == "engine_bad_response"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("openai", {}),
        ("openai", {"api_key": ""}),
        ("openai", {"base_url": "https://api.openai.com/v1/"}),
        ("openai", {"base_url": "https://eu.api.openai.com/v1"}),
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
    assert refused(engine, language="de-AT", vocabulary=("x",)) is None
    assert refused(engine, language="german") == "language"
    assert refused(engine, diarize=True) == "diarize"
