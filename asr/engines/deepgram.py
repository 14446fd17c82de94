"""Deepgram's API for recorded speech, or Deepgram's server on a machine of one's own."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from asr.child_pool import ChildPool
from asr.errors import EngineMisconfigured
from asr.remote import Remote, is_at, probability, reading_answer, times
from asr.service import TranscriptionService, primary_language
from asr.sniffing import MEDIA_TYPES
from asr.types import AudioRequest, Capabilities, Recognition, Segment, Usage, Word, join_text

VENDOR_URL = "https://api.deepgram.com"
# Tags that the vendor tells from their language; any other is sent as its language.
_REGIONAL = (
    *("de-CH", "en-AU", "en-GB", "en-IN", "en-NZ", "en-US", "es-419", "fr-CA", "ko-KR", "nl-BE"),
    *("pt-BR", "pt-PT", "zh-CN", "zh-HK", "zh-Hans", "zh-Hant", "zh-TW"),
)
_TAGS = {tag.lower(): tag for tag in _REGIONAL}
_MOST_TERMS = 100  # in one request, the vendor says; so too
_MOST_TOKENS = 500


class DeepgramEngine(TranscriptionService):
    """Sends each file to a server as it is.

    Needs `api_key`, or a `base_url` that is not the vendor's: one's own server may want no key.
    """

    name = "deepgram"

    def __init__(
        self,
        *,
        pool: ChildPool,
        api_key: str | None = None,
        base_url: str = VENDOR_URL,
        model: str = "nova-3",
    ) -> None:
        if not api_key and is_at(base_url, "deepgram.com"):
            raise EngineMisconfigured(
                "the engine deepgram needs DEEPGRAM_API_KEY, or your own DEEPGRAM_BASE_URL"
            )
        headers = {"Authorization": f"Token {api_key}"} if api_key else {}
        self._remote = Remote(self.name, base_url, headers)
        self._at_vendor = is_at(base_url, "deepgram.com")
        self.model = model
        self.variant = base_url.rstrip("/")
        self._terms = _name_of_terms(model)
        self.capabilities = Capabilities(
            languages=None,  # the vendor's list grows every month
            words=True,
            vocabulary=self._terms is not None,
            diarization=True,
            runs_locally=False,
            detects_language=True,
            max_bytes=2_000_000_000,  # "The maximum file size is limited to 2 GB"
            max_vocabulary_terms=_MOST_TERMS if self._terms else None,
            max_vocabulary_tokens=_MOST_TOKENS if self._terms else None,
        )

    def transcribe(self, request: AudioRequest) -> Recognition:
        """See `TranscriptionService.transcribe`."""
        answer = self._remote.post(
            "v1/listen",
            limit=request.deadline_seconds,
            params=self._parameters(request),
            headers={"Content-Type": MEDIA_TYPES[request.info.container]},
            content=request.data,
        )
        with reading_answer():
            return self._recognition(answer, request)

    def verify(self, limit: float) -> str | None:
        """See `TranscriptionService.verify`; asks what the key may do, which is free."""
        return self._remote.verify("v1/auth/token", limit=limit, may_lack=not self._at_vendor)

    def close(self) -> None:
        """See `TranscriptionService.close`."""
        self._remote.close()

    def _why_not(self, vocabulary: Collection[str]) -> str | None:
        # A colon would begin a weight.
        if self._terms == "keywords" and any(set(term) & set(" :") for term in vocabulary):
            return f"its model {self.model} takes single words, without a colon"
        return super()._why_not(vocabulary)

    def _parameters(self, request: AudioRequest) -> dict[str, Any]:
        """The query; a list is repeated."""
        parameters: dict[str, Any] = {
            "model": self.model,
            "smart_format": "true",  # punctuation, capitals, numbers
            "utterances": "true",  # our segments
        }
        if request.language:
            language = primary_language(request.language)
            parameters["language"] = _TAGS.get(request.language.lower(), language)
        else:
            # The vendor knows no hint here, only an order: `expected_language` is left out.
            parameters["detect_language"] = "true"
        if request.vocabulary and self._terms:
            parameters[self._terms] = list(request.vocabulary)
        if request.diarize:
            parameters["diarize_model"] = "latest"  # in place of `diarize=true`, now deprecated
        return parameters

    def _recognition(self, answer: Mapping[str, Any], request: AudioRequest) -> Recognition:
        channel = answer["results"]["channels"][0]
        language = channel.get("detected_language") or request.language or ""
        return Recognition(
            segments=tuple(_segments(answer["results"], request.info.duration_seconds)),
            engine=self.name,
            model=self.model,
            language=primary_language(language) or None,
            language_confidence=probability(channel.get("language_confidence")),
            usage=Usage(seconds=float(answer["metadata"]["duration"])),
        )


def _name_of_terms(model: str) -> str | None:
    """The parameter for a vocabulary, which changed with nova-3; None where there is none."""
    if model.startswith("nova-3"):
        return "keyterm"
    return "keywords" if model.startswith(("nova", "enhanced", "base")) else None


def _segments(results: Mapping[str, Any], duration: float) -> Iterator[Segment]:
    """The utterances; the whole as one where the server gives none."""
    best = results["channels"][0]["alternatives"][0]
    items = results.get("utterances") or ([{**best, **_extent(best)}] if best["words"] else [])
    for item in sorted(items, key=lambda item: float(item["start"])):
        words = sorted((_word(word, duration) for word in item["words"]), key=lambda w: w.start)
        start, end = times(item, duration)
        if text := join_text([item["transcript"]]):
            yield Segment(
                text=text,
                start=start,
                end=end,
                words=tuple(words),
                confidence=probability(item.get("confidence")),
                speaker=_speaker(item),
            )


def _extent(alternative: Mapping[str, Any]) -> dict[str, float]:
    words = alternative["words"]
    return {"start": words[0]["start"], "end": words[-1]["end"]}


def _word(item: Mapping[str, Any], duration: float) -> Word:
    start, end = times(item, duration)
    return Word(
        text=join_text([item.get("punctuated_word") or item["word"]]),
        start=start,
        end=end,
        confidence=probability(item.get("confidence")),
        speaker=_speaker(item),
    )


def _speaker(item: Mapping[str, Any]) -> str | None:
    """A label, unique within the file; the vendor counts from 0."""
    speaker = item.get("speaker")
    return None if speaker is None else str(speaker)
