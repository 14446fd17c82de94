"""OpenAI's transcription API, or any server that speaks it (speaches, LocalAI, vLLM …)."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from asr.audio import to_flac
from asr.child_pool import ChildPool
from asr.errors import EngineMisconfigured
from asr.languages import language_code
from asr.remote import Remote, is_at, probability, reading_answer, times
from asr.service import TranscriptionService, primary_language
from asr.types import AudioRequest, Capabilities, Recognition, Segment, Usage, Word, join_text

VENDOR_URL = "https://api.openai.com/v1"
_LENGTH_MARGIN_SECONDS = 1.0  # the file was measured before: this limit is never met
_WHISPER_PROMPT_TOKENS = 224  # of a longer prompt Whisper reads the end only
# US dollars a minute, as the vendor's model pages listed them on 2026-11-21. The gpt-4o models are
# paid by the token.
_PRICES = {"whisper-1": 0.006, "gpt-transcribe": 0.0045}
# From the words of the vendor's refusals; it documents none, nor for the other models.
_MAX_SECONDS = {"gpt-4o-transcribe-diarize": 1400.0, "gpt-4o-": 1500.0}


class OpenAIEngine(TranscriptionService):
    """Sends each file to a server; what that can do depends on the model.

    Needs `api_key`, or a `base_url` that is not the vendor's: one's own server may want no key.
    Models named `gpt-…` are the vendor's; of any other it is assumed that it is a Whisper.
    """

    name = "openai"

    def __init__(
        self,
        *,
        pool: ChildPool,
        api_key: str | None = None,
        base_url: str = VENDOR_URL,
        model: str = "whisper-1",
    ) -> None:
        if not api_key and is_at(base_url, "openai.com"):
            raise EngineMisconfigured(
                "the engine openai needs OPENAI_API_KEY, or your own OPENAI_BASE_URL"
            )
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._remote = Remote(self.name, base_url, headers)
        self._at_vendor = is_at(base_url, "openai.com")  # in whatever region
        self._pool = pool
        self.model = model
        self.variant = base_url.rstrip("/")
        self._is_whisper = not model.startswith("gpt-")
        self._diarizes = "-diarize" in model
        self._has_hints = model.startswith("gpt-transcribe")  # keywords and expected languages
        self.capabilities = Capabilities(
            languages=None,
            words=self._is_whisper,
            vocabulary=not self._diarizes,
            diarization=self._diarizes,
            runs_locally=False,
            detects_language=self._is_whisper or self._has_hints,
            max_seconds=next((s for m, s in _MAX_SECONDS.items() if model.startswith(m)), None),
            max_bytes=25_000_000,  # "Files can be up to 25 MB"
            max_vocabulary_tokens=_WHISPER_PROMPT_TOKENS if self._is_whisper else None,
            price_per_minute=_PRICES.get(model) if self.variant == VENDOR_URL else None,
        )

    def transcribe(self, request: AudioRequest) -> Recognition:
        """See `TranscriptionService.transcribe`."""
        deadline = time.monotonic() + request.deadline_seconds
        file = self._file(request)
        limit = deadline - time.monotonic()
        answer = self._remote.post(
            "audio/transcriptions", limit=limit, data=self._fields(request), files={"file": file}
        )
        with reading_answer():
            return self._recognition(answer, request)

    def verify(self, limit: float) -> str | None:
        """See `TranscriptionService.verify`; asks about the model, which is free."""
        path = f"models/{quote(self.model, safe='')}"
        return self._remote.verify(path, limit=limit, may_lack=not self._at_vendor)

    def close(self) -> None:
        """See `TranscriptionService.close`."""
        self._remote.close()

    def _why_not(self, vocabulary: Collection[str]) -> str | None:
        # The vendor refuses a whole request for one of these.
        if self._has_hints and any(set(term) & set("<>\r\n") for term in vocabulary):
            return f"its model {self.model} takes neither < nor > nor line breaks"
        return super()._why_not(vocabulary)

    def _file(self, request: AudioRequest) -> tuple[str, bytes]:
        if request.info.container != "aac":
            return f"audio.{request.info.container}", request.data
        # Raw AAC (ADTS) is the one format accepted here that the vendor refuses.
        seconds = request.info.duration_seconds + _LENGTH_MARGIN_SECONDS
        limit = request.deadline_seconds
        return "audio.flac", self._pool.run(to_flac, request.data, seconds, limit=limit)

    def _fields(self, request: AudioRequest) -> dict[str, Any]:
        """The form's fields besides the file; a list is repeated."""
        fields: dict[str, Any] = {"model": self.model, **self._format()}
        if self._has_hints:
            # This model knows no order, only languages to expect.
            language = request.language or request.expected_language
            fields["languages[]"] = [primary_language(language)] if language else []
            fields["keywords[]"] = list(request.vocabulary)
            return fields
        if request.language:
            fields["language"] = primary_language(request.language)
        if request.vocabulary:
            fields["prompt"] = ", ".join(request.vocabulary)
        return fields

    def _format(self) -> dict[str, Any]:
        """The shape of answer that tells most."""
        if self._is_whisper:
            granularities = ["word", "segment"]
            return {"response_format": "verbose_json", "timestamp_granularities[]": granularities}
        if self._diarizes:  # and refuses more than 30 seconds unless it may cut them itself
            return {"response_format": "diarized_json", "chunking_strategy": "auto"}
        if self.model.startswith("gpt-4o-"):
            return {"response_format": "json", "include[]": ["logprobs"]}
        return {"response_format": "json"}

    def _recognition(self, answer: Mapping[str, Any], request: AudioRequest) -> Recognition:
        if request.diarize and "segments" not in answer:
            raise LookupError("speakers were asked for, and there are none")
        return Recognition(
            segments=tuple(_segments(answer, request.info.duration_seconds)),
            engine=self.name,
            model=self.model,
            language=_language(answer) or primary_language(request.language or "") or None,
            usage=_usage(answer.get("usage") or {}),
        )


def _segments(answer: Mapping[str, Any], duration: float) -> Iterator[Segment]:
    """The answer's segments with their words; one over the whole duration when it has none."""
    words = sorted((_word(item, duration) for item in answer.get("words") or ()), key=_start)
    logprobs = [token["logprob"] for token in answer.get("logprobs") or ()]
    average = sum(logprobs) / len(logprobs) if logprobs else None
    whole = {"text": answer["text"], "start": 0.0, "end": duration, "avg_logprob": average}
    items = answer.get("segments") or [whole]
    bare = sorted((_segment(item, duration) for item in items), key=_start)
    for number, segment in enumerate(bare, start=1):
        count = len(words) if number == len(bare) else _count_before(words, segment.end)
        own, words = tuple(words[:count]), words[count:]
        if segment.text:
            yield replace(segment, words=own)


def _segment(item: Mapping[str, Any], duration: float) -> Segment:
    start, end = times(item, duration)
    logarithm = item.get("avg_logprob")
    speaker = item.get("speaker")
    return Segment(
        text=join_text([item["text"]]),
        start=start,
        end=end,
        confidence=None if logarithm is None else probability(math.exp(min(0.0, logarithm))),
        speaker=None if speaker is None else str(speaker),
    )


def _word(item: Mapping[str, Any], duration: float) -> Word:
    start, end = times(item, duration)
    return Word(text=join_text([item["word"]]), start=start, end=end)


def _start(item: Segment | Word) -> float:
    return item.start


def _count_before(words: list[Word], end: float) -> int:
    return next((i for i, word in enumerate(words) if word.start >= end), len(words))


def _language(answer: Mapping[str, Any]) -> str | None:
    """What was detected: Whisper names one language, gpt-transcribe lists codes."""
    detected = answer.get("language") or next(
        (language["code"] for language in answer.get("languages") or ()), ""
    )
    return language_code(detected)


def _usage(usage: Mapping[str, Any]) -> Usage | None:
    """What the vendor counted: seconds or tokens, as the model is paid."""
    seconds, tokens_in, tokens_out = map(usage.get, ("seconds", "input_tokens", "output_tokens"))
    counted = Usage(
        seconds=None if seconds is None else float(seconds),
        input_tokens=None if tokens_in is None else int(tokens_in),
        output_tokens=None if tokens_out is None else int(tokens_out),
    )
    return None if counted == Usage() else counted
