"""The interface that every engine fulfils."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import ceil
from string import ascii_lowercase
from typing import ClassVar

from asr.types import AudioRequest, Capabilities, Recognition

_ISO_639 = re.compile(r"[a-z]{2,3}")  # 639-1, and 639-3 for the few that have no short code (yue)
_IN_PAIRS = frozenset(f"{ascii_lowercase} ")  # two of these are about one token


def primary_language(tag: str) -> str:
    """The language of a tag without region or script, in lower case: `en-US` gives `en`."""
    return re.split("[-_]", tag, maxsplit=1)[0].lower()


def token_count(vocabulary: Iterable[str]) -> int:
    """About how many tokens a model takes for terms with a comma and a space between them.

    Only a model's own tokenizer can tell. Names in Latin letters take about one for two of them;
    in codes of capitals and digits, and in scripts that are rare in its training, each byte may be
    one.
    """
    halves = 0
    for term in vocabulary:
        in_pairs = sum(char in _IN_PAIRS for char in term)
        halves += 2 * len(term.encode()) - in_pairs + len(", ")
    return ceil(halves / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An option that an engine cannot honour, and why: the end of a sentence for the caller."""

    option: str
    reason: str


class TranscriptionService(ABC):
    """A speech engine.

    Constructors are cheap and raise EngineMisconfigured when an option is missing: a process that
    only checks options builds engines too. SDKs and models are loaded by the first `transcribe`.

    `model` names what recognises, as the configuration has it; `capabilities` may depend on it.
    `variant` is whatever else decides what is heard (the server's address, decoding settings): an
    answer is taken again only where it is the same.
    """

    name: ClassVar[str]
    model: str
    variant: str = ""
    capabilities: Capabilities

    @abstractmethod
    def transcribe(self, request: AudioRequest) -> Recognition:
        """Recognise one file; may be called by many threads at once. Raises AsrError only."""

    @abstractmethod
    def verify(self, limit: float) -> str | None:
        """Find out within `limit` seconds whether the engine would work, as cheaply as it goes.

        Returns a remark for the caller where that is not quite certain: it is busy.

        Raises:
            EngineMisconfigured: it refuses: the key, the model or the address is wrong.
            EngineUnavailable: it could not be asked.
        """

    def prepare(self) -> None:  # noqa: B027  (most engines need nothing)
        """Fetch what the first `transcribe` would have to wait for; called when a worker starts.

        Raises:
            EngineMisconfigured: it cannot be had; the message is for the terminal.
        """

    def refusal(
        self, *, language: str | None, vocabulary: Collection[str], diarize: bool
    ) -> Refusal | None:
        """The first option that this engine cannot honour as it is, None when it can all."""
        able = self.capabilities
        if language and not self._speaks(primary_language(language)):
            known = "any ISO 639 code, such as en or pt-BR"
            known = known if able.languages is None else ", ".join(sorted(able.languages))
            return Refusal(option="language", reason=f"its model {self.model} knows {known}")
        if vocabulary and (reason := self._why_not(vocabulary)):
            return Refusal(option="vocabulary", reason=reason)
        if diarize and not able.diarization:
            reason = f"its model {self.model} does not tell speakers apart"
            return Refusal(option="diarize", reason=reason)
        return None

    def close(self) -> None:  # noqa: B027  (most engines hold nothing)
        """Give back connections; the engine is not used afterwards."""

    def _why_not(self, vocabulary: Collection[str]) -> str | None:
        """Why the model would not take a vocabulary, and the whole of it; None when it would."""
        able, model = self.capabilities, f"its model {self.model}"
        if not able.vocabulary:
            return f"{model} takes none"
        most = able.max_vocabulary_terms
        if most is not None and len(vocabulary) > most:
            return f"{model} takes {most} terms, and these are {len(vocabulary)}"
        most, count = able.max_vocabulary_tokens, token_count(vocabulary)
        if most is not None and count > most:
            return (
                f"{model} takes {most} tokens, and these are about {count}: one for each two small"
                " ASCII letters or spaces, one for each byte of the rest, one between terms"
            )
        return None

    def _speaks(self, language: str) -> bool:
        known = self.capabilities.languages
        return bool(_ISO_639.fullmatch(language)) if known is None else language in known
