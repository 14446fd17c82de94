"""The engine deepgram against a server of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from asr.child_pool import ChildPool
from asr.engines.deepgram import DeepgramEngine
from asr.errors import AsrError, EngineMisconfigured
from asr.types import Recognition, Usage
from tests.asr.cases import refused
from tests.asr.published import KEY, deepgram_api
from tests.asr.sounds import ENCODINGS, encode, request, sample, samples_of
from tests.asr.vendor import Vendor, serving

WORDS: list[dict[str, Any]] = [
    {"word": "hello", "punctuated_word": "Hello.", "start": 0.5, "end": 0.9, "confidence": 0.8},
    {"word": "yes", "start": 2.0, "end": 9.0, "confidence": 0.6},
]
ANSWER: dict[str, Any] = {
    "metadata": {"request_id": "r", "duration": 4.74, "channels": 1},
    "results": {
        "channels": [
            {
                "alternatives": [{"transcript": "Hello. yes", "confidence": 0.7, "words": WORDS}],
                "detected_language": "de-CH",
                "language_confidence": 0.93,
            }
        ],
        "utterances": [
            {
                "start": 0.5,
                "end": 0.9,
                "confidence": 0.8,
                "transcript": "Hello.",
                "words": WORDS[:1],
            },
            {"start": 2.0, "end": 9.0, "confidence": 0.6, "transcript": "yes", "words": WORDS[1:]},
        ],
    },
}


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    with serving() as vendor:
        vendor.answer = deepgram_api
        yield vendor


@pytest.fixture
def engine(vendor: Vendor, pool: ChildPool) -> Iterator[DeepgramEngine]:
    engine = at(vendor, pool)
    yield engine
    engine.close()


def at(vendor: Vendor, pool: ChildPool, **options: Any) -> DeepgramEngine:
    url = vendor.url.removesuffix("/v1")
    return DeepgramEngine(pool=pool, **{"api_key": KEY, "base_url": url, **options})


def transcribe(engine: DeepgramEngine, **options: Any) -> Recognition:
    asked = request(sample(0), seconds=4.74, **{"deadline_seconds": 60.0, **options})
    return engine.transcribe(asked)


def test_it_sends_what_the_vendor_publishes(vendor: Vendor, engine: DeepgramEngine) -> None:
    transcribe(engine, language="en-us", vocabulary=("Kubernetes", "night shift"), diarize=True)
    (received,) = vendor.received
    assert (received.method, received.path) == ("POST", "/v1/listen")
    assert received.headers["authorization"] == f"Token {KEY}"
    assert received.headers["content-type"] == "audio/flac"
    assert received.headers["accept-encoding"] == "identity"
    assert received.query == {
        "model": ["nova-3"],
        "smart_format": ["true"],
        "utterances": ["true"],
        "language": ["en-US"],
        "keyterm": ["Kubernetes", "night shift"],
        "diarize_model": ["latest"],
    }
    assert received.file == sample(0)
    assert vendor.violations == []


@pytest.mark.parametrize(
    ("tag", "sent"), [("pt-br", "pt-BR"), ("de-AT", "de"), ("zh-Hant", "zh-Hant"), ("fr", "fr")]
)
def test_a_region_that_the_vendor_does_not_know_is_left_out(
    vendor: Vendor, engine: DeepgramEngine, tag: str, sent: str
) -> None:
    assert transcribe(engine, language=tag).language == sent.partition("-")[0].lower()
    assert vendor.received[0].query["language"] == [sent]


def test_a_language_that_nobody_gave_is_detected(vendor: Vendor, engine: DeepgramEngine) -> None:
    recognition = transcribe(engine, expected_language="fr")
    assert vendor.received[0].query["detect_language"] == ["true"]
    assert "language" not in vendor.received[0].query
    assert (recognition.language, recognition.language_confidence) == ("en", 0.97)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_file_is_sent_as_it_is_with_the_type_of_its_content(
    vendor: Vendor, engine: DeepgramEngine, encoding: str
) -> None:
    data = encode(samples_of(sample(0))[:16_000], encoding)
    container = {"opus": "ogg", "mp4": "m4a"}.get(encoding, encoding)
    engine.transcribe(request(data, seconds=1.0, container=container))
    kind = {"mp3": "mpeg", "m4a": "mp4"}.get(container, container)
    assert vendor.received[0].headers["content-type"] == f"audio/{kind}"
    assert vendor.received[0].file == data


def test_segments_words_language_and_usage_are_read(vendor: Vendor, engine: DeepgramEngine) -> None:
    vendor.says(200, ANSWER)
    recognition = transcribe(engine)
    assert (recognition.engine, recognition.model) == ("deepgram", "nova-3")
    assert (recognition.language, recognition.language_confidence) == ("de", 0.93)
    assert recognition.usage == Usage(seconds=4.74)
    first, second = recognition.segments
    assert (first.text, first.start, first.end, first.confidence) == ("Hello.", 0.5, 0.9, 0.8)
    assert [(word.text, word.confidence) for word in first.words] == [("Hello.", 0.8)]
    assert (second.words[0].text, second.words[0].end, second.end) == ("yes", 4.74, 4.74)
    assert recognition.confidence == pytest.approx(0.7)
    assert first.speaker is first.words[0].speaker is None


def test_speakers_are_those_of_segments_and_words(engine: DeepgramEngine) -> None:
    recognition = transcribe(engine, diarize=True)
    assert [segment.speaker for segment in recognition.segments] == ["0", "1"]
    for segment in recognition.segments:
        assert {word.speaker for word in segment.words} == {segment.speaker}


def test_an_answer_without_utterances_is_one_segment(
    vendor: Vendor, engine: DeepgramEngine
) -> None:
    vendor.says(200, ANSWER | {"results": {"channels": ANSWER["results"]["channels"]}})
    (segment,) = transcribe(engine).segments
    assert (segment.text, segment.start, segment.end) == ("Hello. yes", 0.5, 4.74)
    assert len(segment.words) == 2


def test_utterances_out_of_order_are_put_in_order(vendor: Vendor, engine: DeepgramEngine) -> None:
    results = ANSWER["results"] | {"utterances": ANSWER["results"]["utterances"][::-1]}
    vendor.says(200, ANSWER | {"results": results})
    assert [segment.start for segment in transcribe(engine).segments] == [0.5, 2.0]


@pytest.mark.parametrize(
    "results",
    [
        {},
        {"channels": []},
        {"channels": [{"alternatives": []}]},
        {"channels": [{"alternatives": [{"transcript": "a", "words": [{"word": "a"}]}]}]},
        {"channels": [{"alternatives": [{"words": []}], "language_confidence": "high"}]},
        {"channels": [{"alternatives": [{"words": []}]}], "utterances": "abc"},
        {"channels": [{"alternatives": [{"words": []}], "language_confidence": float("nan")}]},
    ],
    ids=lambda results: repr(results)[:60],
)
def test_results_of_another_shape_are_a_bad_response(
    vendor: Vendor, engine: DeepgramEngine, results: dict[str, Any]
) -> None:
    vendor.says(200, {"metadata": {"duration": 1.0}, "results": results})
    with pytest.raises(AsrError) as caught:
        transcribe(engine)
    assert caught.value.code == "engine_bad_response"


def test_audio_that_the_vendor_cannot_read_is_not_tried_again(engine: DeepgramEngine) -> None:
    with pytest.raises(EngineMisconfigured) as caught:
        engine.transcribe(request(b"no sound", seconds=1.0))
    assert not caught.value.recoverable


@pytest.mark.parametrize(
    ("model", "parameter"),
    [
        ("nova-3", "keyterm"),
        ("nova-3-medical", "keyterm"),
        ("nova-2", "keywords"),
        ("nova-2-meeting", "keywords"),
        ("enhanced", "keywords"),
        ("base-phonecall", "keywords"),
        ("whisper-medium", None),
    ],
)
def test_how_a_vocabulary_is_sent_depends_on_the_model(
    vendor: Vendor, pool: ChildPool, model: str, parameter: str | None
) -> None:
    engine = at(vendor, pool, model=model)
    assert refused(engine, vocabulary=("Redis",)) == (None if parameter else "vocabulary")
    if parameter:
        transcribe(engine, vocabulary=("Redis",))
        assert vendor.received[0].query[parameter] == ["Redis"]
    engine.close()


@pytest.mark.parametrize(
    ("model", "vocabulary", "reason"),
    [
        ("nova-3", ("x",) * 100, None),
        ("nova-3", ("x",) * 101, "takes 100 terms, and these are 101"),
        ("nova-3", ("x" * 98,) * 10, None),
        ("nova-3", ("x" * 98,) * 10 + ("y",), "takes 500 tokens, and these are about 502"),
        ("nova-3", ("night shift", "a:b"), None),
        ("nova-2", ("night shift",), "takes single words, without a colon"),
        ("nova-2", ("a:2",), "takes single words, without a colon"),
        ("whisper-medium", ("Redis",), "takes none"),
        ("nova-2", ("Redis",), None),
    ],
)
def test_a_vocabulary_that_would_not_be_taken_whole_is_refused(
    vendor: Vendor, pool: ChildPool, model: str, vocabulary: tuple[str, ...], reason: str | None
) -> None:
    refusal = at(vendor, pool, model=model).refusal(
        language=None, vocabulary=vocabulary, diarize=False
    )
    assert (refusal is None) == (reason is None)
    if refusal is not None and reason is not None:
        assert refusal.reason.startswith(f"its model {model} {reason}")


def test_verifying_asks_what_the_key_may_do(vendor: Vendor, engine: DeepgramEngine) -> None:
    engine.verify(60.0)
    (received,) = vendor.received
    assert (received.method, received.path) == ("GET", "/v1/auth/token")
    assert received.headers["authorization"] == f"Token {KEY}"


def test_an_own_server_needs_neither_key_nor_the_address_for_keys(
    vendor: Vendor, pool: ChildPool
) -> None:
    vendor.says(404, {"err_code": "NOT_FOUND"})
    engine = at(vendor, pool, api_key=None)
    engine.verify(60.0)
    assert "authorization" not in vendor.received[0].headers
    engine.close()


@pytest.mark.parametrize(
    "options",
    [{}, {"api_key": ""}, {"base_url": "https://api.eu.deepgram.com"}],
)
def test_the_vendor_and_its_regions_need_a_key(pool: ChildPool, options: dict[str, Any]) -> None:
    with pytest.raises(EngineMisconfigured) as caught:
        DeepgramEngine(pool=pool, **options)
    assert "DEEPGRAM_API_KEY" in caught.value.detail
