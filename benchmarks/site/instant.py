"""An engine that answers at once: what a chunk takes with it, the service takes."""

from __future__ import annotations

from asr.child_pool import ChildPool
from asr.registry import ENGINES
from asr.service import TranscriptionService
from asr.types import AudioRequest, Capabilities, Recognition, Segment, Word


class InstantEngine(TranscriptionService):
    """Hears the same twelve words in everything."""

    name = "instant"
    model = "none"
    capabilities = Capabilities(
        languages=None, words=True, vocabulary=True, diarization=False, runs_locally=False
    )

    def __init__(self, *, pool: ChildPool) -> None:
        pass

    def transcribe(self, request: AudioRequest) -> Recognition:
        """See `TranscriptionService.transcribe`."""
        step = request.info.duration_seconds / 12
        heard = tuple(
            Word(text=f"word{n}", start=n * step, end=(n + 1) * step, confidence=0.9)
            for n in range(12)
        )
        text = " ".join(word.text for word in heard)
        segment = Segment(text=text, start=0.0, end=12 * step, words=heard, confidence=0.9)
        return Recognition(segments=(segment,), engine=self.name, model=self.model)

    def verify(self, limit: float) -> None:
        """See `TranscriptionService.verify`."""


ENGINES["instant"] = "benchmarks.site.instant.InstantEngine"
