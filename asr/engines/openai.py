"""OpenAI's transcription API, or any server that speaks it (speaches, LocalAI, vLLM …)."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from asr.audio import to_flac
from asr.child_pool import ChildPool
from asr.errors import AsrError, EngineMisconfigured, EngineUnavailable
from asr.languages import language_code
from asr.service import TranscriptionService, primary_language
from asr.types import AudioRequest, Capabilities, Recognition, Segment, Word, join_text

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

VENDOR_URL = "https://api.openai.com/v1"
_USUAL_WAIT_SECONDS = 5.0  # when the server is busy and does not say for how long
_LENGTH_MARGIN_SECONDS = 1.0  # the file was measured before: this limit is never met
_PASSING_STATUSES = {409, 425}  # besides 5xx: conflicts that a second attempt may not meet


class OpenAIEngine(TranscriptionService):
    """Sends each file to a server.

    Needs `api_key`, or a `base_url` other than the vendor's: one's own server may want no key.
    """

    name = "openai"
    capabilities = Capabilities(
        languages=None,
        words=True,  # of whisper-1 and its kin; the gpt-4o models give text only
        vocabulary=True,
        diarization=False,
        runs_locally=False,
        max_bytes=25_000_000,  # "File uploads are currently limited to 25 MB"
    )

    def __init__(
        self,
        *,
        pool: ChildPool,
        api_key: str | None = None,
        base_url: str | None = None,
        model: str = "whisper-1",
    ) -> None:
        self._base_url = (base_url or VENDOR_URL).rstrip("/")
        if not api_key and self._base_url == VENDOR_URL:
            raise EngineMisconfigured("the engine openai needs an API key")
        if not re.match(r"https?://[^/]", self._base_url):
            raise EngineMisconfigured("the engine openai needs an http or https address")
        self._pool = pool
        self._api_key = api_key or "none"  # the SDK insists on one
        self.model = model
        self._lock = threading.Lock()
        self._client: OpenAI | None = None

    def transcribe(self, request: AudioRequest) -> Recognition:
        """See `TranscriptionService.transcribe`."""
        deadline = time.monotonic() + request.deadline_seconds
        file = self._file(request)
        answer = self._post(self._fields(request, file), deadline)
        try:
            return self._recognition(json.loads(answer), request)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise EngineUnavailable(
                "engine_bad_response", "the engine's answer cannot be read"
            ) from error

    def verify(self, limit: float) -> None:
        """See `TranscriptionService.verify`; asks about the model, which is free."""
        with self._told_apart():
            self._connected().models.with_raw_response.retrieve(self.model, timeout=limit)

    def close(self) -> None:
        """See `TranscriptionService.close`."""
        if self._client is not None:
            self._client.close()

    def _file(self, request: AudioRequest) -> tuple[str, bytes]:
        if request.info.container != "aac":
            return f"audio.{request.info.container}", request.data
        # Raw AAC (ADTS) is the one format accepted here that the vendor refuses.
        seconds = request.info.duration_seconds + _LENGTH_MARGIN_SECONDS
        limit = request.deadline_seconds
        return "audio.flac", self._pool.run(to_flac, request.data, seconds, limit=limit)

    def _fields(self, request: AudioRequest, file: tuple[str, bytes]) -> dict[str, Any]:
        fields: dict[str, Any] = {"file": file, "model": self.model, "response_format": "json"}
        if not self.model.startswith("gpt-"):  # these know "json" only
            fields["response_format"] = "verbose_json"
            fields["timestamp_granularities"] = ["word", "segment"]
        if request.language:
            fields["language"] = primary_language(request.language)
        if request.vocabulary:
            fields["prompt"] = ", ".join(request.vocabulary)
        return fields

    def _post(self, fields: dict[str, Any], deadline: float) -> bytes:
        timeout = max(0.0, deadline - time.monotonic())
        with self._told_apart():
            transcriptions = self._connected().audio.transcriptions
            return transcriptions.with_raw_response.create(**fields, timeout=timeout).content

    @contextmanager
    def _told_apart(self) -> Iterator[None]:
        """Turn the SDK's errors into ours."""
        self._connected()
        import openai  # noqa: PLC0415  (heavy; loaded by the line above)

        from asr import deadline_http  # noqa: PLC0415

        try:
            yield
        except openai.APITimeoutError:
            raise EngineUnavailable("engine_timeout", "the engine did not answer in time") from None
        except openai.APIStatusError as error:
            raise _sorted(error) from None
        except openai.OpenAIError as error:
            if deadline_http.refused_answer(error):
                detail = "the engine's answer is too large or compressed"
                raise EngineUnavailable("engine_bad_response", detail) from None
            raise EngineUnavailable("engine_error", "the engine cannot be reached") from None

    def _connected(self) -> OpenAI:
        """One client for all threads, made by the first: its SDK takes a second to load."""
        with self._lock:
            if self._client is None:
                try:
                    self._client = self._connect()
                except Exception as error:  # a proxy's address in the environment may be anything
                    detail = "the HTTP client of the engine openai cannot be set up"
                    raise EngineMisconfigured(detail) from error
            return self._client

    def _connect(self) -> OpenAI:
        from openai import OpenAI  # noqa: PLC0415  (heavy)

        from asr import deadline_http  # noqa: PLC0415  (heavy)

        return OpenAI(
            api_key=self._api_key,
            base_url=self._base_url,
            max_retries=0,  # the pipeline repeats attempts, and counts them
            http_client=deadline_http.client(self._base_url),
        )

    def _recognition(self, answer: Mapping[str, Any], request: AudioRequest) -> Recognition:
        duration = request.info.duration_seconds
        segments = tuple(_segments(answer, duration))
        return Recognition(
            segments=segments,
            engine=self.name,
            model=self.model,
            language=language_code(answer.get("language") or "") or request.language,
        )


def _segments(answer: Mapping[str, Any], duration: float) -> Iterator[Segment]:
    """The answer's segments with their words; one over the whole duration when it has none."""
    words = [_word(item, duration) for item in answer.get("words") or ()]
    whole = {"text": answer["text"], "start": 0.0, "end": duration}
    items = answer.get("segments") or [whole]
    for number, item in enumerate(items, start=1):
        start, end = _times(item, duration)
        count = len(words) if number == len(items) else _count_before(words, end)
        own, words = tuple(words[:count]), words[count:]
        if text := join_text([item["text"]]):
            yield Segment(text=text, start=start, end=end, words=own, confidence=_confidence(item))


def _word(item: Mapping[str, Any], duration: float) -> Word:
    start, end = _times(item, duration)
    return Word(text=join_text([item["word"]]), start=start, end=end)


def _count_before(words: list[Word], end: float) -> int:
    return next((i for i, word in enumerate(words) if word.start >= end), len(words))


def _times(item: Mapping[str, Any], duration: float) -> tuple[float, float]:
    """Start and end within the file: Whisper sometimes hears past its end."""
    start, end = float(item["start"]), float(item["end"])
    if not (math.isfinite(start) and math.isfinite(end)):
        raise ValueError("not a time")
    start = min(max(0.0, start), duration)
    return start, min(max(start, end), duration)


def _confidence(item: Mapping[str, Any]) -> float | None:
    logarithm = item.get("avg_logprob")
    return None if logarithm is None else math.exp(min(0.0, float(logarithm)))


def _sorted(error: APIStatusError) -> AsrError:
    status = error.status_code
    if status == 429:
        delay = _retry_after(error.response.headers)
        return EngineUnavailable("engine_error", "the engine is busy (429)", retry_after=delay)
    if status == 408:
        return EngineUnavailable("engine_timeout", "the engine gave up waiting (408)")
    if status >= 500 or status in _PASSING_STATUSES:
        return EngineUnavailable("engine_error", f"the engine failed ({status})")
    return EngineMisconfigured(f"the engine refused the request ({status})")


def _retry_after(headers: Mapping[str, str]) -> float:
    """The header in seconds, whether it holds seconds or a date."""
    value = headers.get("Retry-After", "")
    try:
        delay = float(value)
    except ValueError:
        try:
            delay = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return _USUAL_WAIT_SECONDS
    return max(0.0, delay) if math.isfinite(delay) else _USUAL_WAIT_SECONDS
