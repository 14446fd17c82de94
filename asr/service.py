"""The interface that every engine fulfils."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import ClassVar

from asr.types import AudioRequest, Capabilities, Recognition

_ISO_639 = re.compile(r"[a-z]{2,3}")  # 639-1, and 639-3 for the few that have no short code (yue)


def primary_language(tag: str) -> str:
    """The language of a tag without region or script, in lower case: `en-US` gives `en`."""
    return re.split("[-_]", tag, maxsplit=1)[0].lower()


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
    def verify(self, limit: float) -> None:
        """Find out within `limit` seconds whether the engine would work, as cheaply as it goes.

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
    ) -> str | None:
        """The name of the first option that this engine cannot honour, None when it can all."""
        if language and not self._speaks(primary_language(language)):
            return "language"
        if vocabulary and not self.capabilities.vocabulary:
            return "vocabulary"
        if diarize and not self.capabilities.diarization:
            return "diarize"
        return None

    def close(self) -> None:  # noqa: B027  (most engines hold nothing)
        """Give back connections; the engine is not used afterwards."""

    def _speaks(self, language: str) -> bool:
        known = self.capabilities.languages
        return bool(_ISO_639.fullmatch(language)) if known is None else language in known
