"""What the vendors publish of their APIs: requests are checked against it, and answered so.

Each `…_api` is an `answer` of `tests.asr.vendor.Vendor`. What is heard are the words of SCRIPT,
spread over the file's real duration, by two speakers in turn; nothing in a silent file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from asr.audio import decode
from asr.errors import AudioRejected
from tests.asr.sounds import RATE
from tests.asr.vendor import Received

KEY = "key-of-the-test-7f3a"
SCRIPT = ("The", "harbor", "was", "quiet.", "Three", "boats", "came", "in.")
_FILE_NAMES = ("flac", "mp3", "mp4", "mpeg", "mpga", "m4a", "ogg", "wav", "webm")
_WHISPER = {"model", "response_format", "language", "prompt", "timestamp_granularities[]"}
_DIARIZE = {"model", "response_format", "language", "chunking_strategy"}
_GPT_4O = {"model", "response_format", "language", "prompt", "include[]"}
_GPT = {"model", "response_format", "prompt", "languages[]", "keywords[]"}
_LISTEN = {
    *("model", "smart_format", "punctuate", "utterances", "diarize_model"),
    *("language", "detect_language", "keyterm", "keywords"),
}

Heard = list[tuple[str, float, float, int]]  # word, start, end, speaker


def openai_api(handler: Any) -> None:
    """https://developers.openai.com/api/reference: audio/transcriptions and models."""
    received: Received = handler.own
    model = received.fields.get("model", ["?"])[0]
    if received.headers.get("authorization") != f"Bearer {KEY}":
        handler.json(401, _openai_error(f"Incorrect API key provided: {KEY}", "invalid_api_key"))
    elif received.method == "GET" and received.path.startswith("/v1/models/"):
        name = received.path.removeprefix("/v1/models/")
        known = name.startswith(("whisper", "gpt-"))
        body: Any = {"id": name, "object": "model", "created": 1, "owned_by": "openai"}
        missing = _openai_error(f"The model '{name}' does not exist", "model_not_found")
        handler.json(200 if known else 404, body if known else missing)
    elif violations := list(_openai_violations(received, model)):
        handler.vendor.violations += violations
        handler.json(400, _openai_error("; ".join(violations), "invalid_value"))
    elif (heard := _heard(received.file)) is None:
        handler.json(400, _openai_error("Invalid file format.", "invalid_value"))
    else:
        handler.json(200, _openai_answer(received, *heard))


def deepgram_api(handler: Any) -> None:
    """https://developers.deepgram.com/reference: v1/listen and v1/auth/token."""
    received: Received = handler.own
    if received.headers.get("authorization") != f"Token {KEY}":
        handler.json(401, {"err_code": "INVALID_AUTH", "err_msg": f"Invalid credentials: {KEY}."})
    elif (received.method, received.path) == ("GET", "/v1/auth/token"):
        handler.json(200, {"api_key_id": "1", "scopes": ["usage:write"], "created": "2026-01-01"})
    elif violations := list(_deepgram_violations(received)):
        handler.vendor.violations += violations
        handler.json(400, {"err_code": "Bad Request", "err_msg": "; ".join(violations)})
    elif (heard := _heard(received.file)) is None:
        message = "Bad Request: failed to process audio: corrupt or unsupported data"
        handler.json(400, {"err_code": "Bad Request", "err_msg": message})
    else:
        handler.json(200, _deepgram_answer(received.query, *heard))


def _heard(file: bytes) -> tuple[Heard, float] | None:
    """The words of a file and its duration; None when it is no audio."""
    try:
        samples = decode(file, 600)
    except AudioRejected:
        return None
    duration = len(samples) / RATE
    if not len(samples) or np.abs(samples).max() < 100:
        return [], duration
    step = duration / len(SCRIPT)
    return [
        (word, round(n * step, 3), round((n + 0.9) * step, 3), n // 4)
        for n, word in enumerate(SCRIPT)
    ], duration


def _turns(heard: Heard) -> Iterator[Heard]:
    for speaker in (0, 1):
        if turn := [item for item in heard if item[3] == speaker]:
            yield turn


def _text(heard: Heard) -> str:
    return " ".join(word for word, *_ in heard)


def _openai_error(message: str, code: str) -> dict[str, Any]:
    return {
        "error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    }


def _openai_violations(received: Received, model: str) -> Iterator[str]:
    fields = received.fields
    if (received.method, received.path) != ("POST", "/v1/audio/transcriptions"):
        yield f"{received.method} {received.path}"
    if not (received.file_name or "").endswith(_FILE_NAMES):
        yield f"file name {received.file_name}"
    known, formats = {
        "gpt-transcribe": (_GPT, {"json"}),
        "gpt-4o-transcribe-diarize": (_DIARIZE, {"json", "text", "diarized_json"}),
        "gpt-4o-transcribe": (_GPT_4O, {"json"}),
        "gpt-4o-mini-transcribe": (_GPT_4O, {"json"}),
    }.get(model, (_WHISPER, {"json", "text", "srt", "verbose_json", "vtt"}))
    if unknown := set(fields) - known:
        yield f"{model} does not know {sorted(unknown)}"
    if fields.get("response_format", ["json"])[0] not in formats:
        yield f"response_format {fields['response_format']}"
    if not set(fields.get("timestamp_granularities[]", ())) <= {"word", "segment"}:
        yield "timestamp_granularities"
    for language in fields.get("language", []) + fields.get("languages[]", []):
        if not (len(language) in {2, 3} and language.islower()):
            yield f"language {language}"
    if any(set(keyword) & set("<>\r\n") for keyword in fields.get("keywords[]", ())):
        yield "keywords"


def _openai_answer(received: Received, heard: Heard, duration: float) -> dict[str, Any]:
    fields = received.fields
    answer: dict[str, Any] = {"text": _text(heard)}
    if fields["response_format"] == ["diarized_json"]:
        return answer | {
            "task": "transcribe",
            "duration": duration,
            "segments": [
                {"type": "transcript.text.segment", "id": f"seg_{n}", "speaker": "AB"[n]} | span
                for n, span in enumerate(map(_span, _turns(heard)))
            ],
            "usage": {"type": "duration", "seconds": duration},
        }
    if fields["response_format"] == ["verbose_json"]:
        return answer | {
            "task": "transcribe",
            "language": "english",
            "duration": duration,
            "segments": [
                {"id": n, "seek": 0, "avg_logprob": -0.2, "no_speech_prob": 0.01} | span
                for n, span in enumerate(map(_span, _turns(heard)))
            ],
            "words": [{"word": word, "start": start, "end": end} for word, start, end, _ in heard],
            "usage": {"type": "duration", "seconds": duration},
        }
    if "include[]" in fields:
        answer["logprobs"] = [{"token": w, "logprob": -0.1, "bytes": []} for w, *_ in heard]
    if fields["model"] == ["gpt-transcribe"]:
        answer["languages"] = [{"code": "en"}] if heard else []
    tokens = {"input_tokens": 14, "output_tokens": len(heard), "total_tokens": 14 + len(heard)}
    return answer | {"usage": {"type": "tokens", **tokens}}


def _span(turn: Heard) -> dict[str, Any]:
    return {"text": f" {_text(turn)}", "start": turn[0][1], "end": turn[-1][2]}


def _deepgram_violations(received: Received) -> Iterator[str]:
    query = received.query
    if (received.method, received.path) != ("POST", "/v1/listen"):
        yield f"{received.method} {received.path}"
    if not received.headers.get("content-type", "").startswith("audio/"):
        yield f"content type {received.headers.get('content-type')}"
    if unknown := set(query) - _LISTEN:
        yield f"unknown parameters {sorted(unknown)}"
    if ("language" in query) == ("detect_language" in query):
        yield "either language or detect_language"
    for name in set(query) & {"smart_format", "punctuate", "utterances", "detect_language"}:
        if query[name] not in (["true"], ["false"]):
            yield f"{name} {query[name]}"
    if "keyterm" in query and not query["model"][0].startswith("nova-3"):
        yield "keyterm is for nova-3"
    if "keywords" in query and query["model"][0].startswith("nova-3"):
        yield "keywords is not for nova-3"
    if query.get("diarize_model", ["latest"])[0] not in {"latest", "v1", "v2"}:
        yield f"diarize_model {query['diarize_model']}"


def _deepgram_answer(query: dict[str, list[str]], heard: Heard, duration: float) -> dict[str, Any]:
    speakers = "diarize_model" in query

    def word(item: tuple[str, float, float, int]) -> dict[str, Any]:
        spoken, start, end, speaker = item
        plain = {"word": spoken.lower().strip("."), "start": start, "end": end, "confidence": 0.9}
        told = {"speaker": speaker, "speaker_confidence": 0.7} if speakers else {}
        return plain | told | {"punctuated_word": spoken}

    def utterance(turn: Heard) -> dict[str, Any]:
        span: dict[str, Any] = {"start": turn[0][1], "end": turn[-1][2], "confidence": 0.9}
        told = {"speaker": turn[0][3]} if speakers else {}
        said = {"transcript": _text(turn), "words": list(map(word, turn))}
        return span | told | said | {"channel": 0, "id": "u"}

    channel: dict[str, Any] = {
        "alternatives": [
            {"transcript": _text(heard), "confidence": 0.9, "words": list(map(word, heard))}
        ]
    }
    if "detect_language" in query:
        channel |= {"detected_language": "en", "language_confidence": 0.97}
    return {
        "metadata": {"request_id": "r", "duration": duration, "channels": 1, "models": ["m"]},
        "results": {"channels": [channel], "utterances": list(map(utterance, _turns(heard)))},
    }


def acme_api(handler: Any) -> None:
    """The imaginary vendor of docs/engines.md."""
    received: Received = handler.own
    if received.headers.get("authorization") != f"Bearer {KEY}":
        handler.json(401, {"error": f"{KEY} is not a key"})
    elif (received.method, received.path) == ("GET", "/account"):
        handler.json(200, {"minutes": 100})
    elif (received.method, received.path) != ("POST", "/recognize"):
        handler.json(404, {"error": "no such address"})
    elif (heard := _heard(received.file)) is None:
        handler.json(400, {"error": "no audio"})
    else:
        phrases = [
            {"text": _text(turn), "start": turn[0][1], "end": turn[-1][2], "certainty": 0.8}
            for turn in _turns(heard[0])
        ]
        handler.json(
            200, {"language": received.query.get("language", ["en"])[0], "phrases": phrases}
        )


API = Callable[[Any], None]
