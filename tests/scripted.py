"""An engine that says what a test tells it to; it stands at the edge that is not ours."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from asr.errors import AsrError
from asr.service import TranscriptionService
from asr.types import AudioRequest, Capabilities, Recognition
from tests.factories import recognition

Step = str | BaseException | Callable[[AudioRequest], Any]


class ScriptedEngine(TranscriptionService):
    """Works off its script, then says "word" for ever. It refuses requests that make no sense."""

    name = "scripted"
    model = "m"
    capabilities = Capabilities(
        languages=None,
        words=True,
        vocabulary=True,
        diarization=True,
        runs_locally=False,
        detects_language=True,
    )

    def __init__(self) -> None:
        self.calls: list[AudioRequest] = []
        self.steps: list[Step] = []
        self.otherwise: Step = "word"
        self.verified = 0
        self.refuses: AsrError | None = None
        self._lock = threading.Lock()

    def verify(self, limit: float) -> None:
        """Raises what `refuses` holds."""
        assert 0 < limit <= 120
        self.verified += 1
        if self.refuses is not None:
            raise self.refuses

    def transcribe(self, request: AudioRequest) -> Recognition:
        assert isinstance(request, AudioRequest)
        assert request.data
        assert request.info.duration_seconds >= 0.1
        assert request.info.container
        assert len(request.info.digest) == 64
        assert 0 < request.deadline_seconds <= 120
        with self._lock:
            self.calls.append(request)
            step = self.steps.pop(0) if self.steps else self.otherwise
        if callable(step):
            step = step(request)
        if isinstance(step, BaseException):
            raise step
        return step if isinstance(step, Recognition) else recognition(step)
