"""Whisper on this machine, by faster-whisper and CTranslate2 (the extra `[whisper]`)."""

from __future__ import annotations

import os
import time
from functools import partial
from importlib.util import find_spec

from asr import whisper_child, whisper_model
from asr.audio import SAMPLE_RATE, samples
from asr.child_pool import ChildPool
from asr.child_process import ChildOptions
from asr.errors import ChildBusy, EngineMisconfigured, EngineUnavailable
from asr.service import TranscriptionService, primary_language
from asr.types import AudioRequest, Capabilities, Recognition
from asr.whisper_child import ModelSettings, Task

# Samples go through this process from the decoder to the model: half an hour fits into an
# answer (ANSWER_MAX_BYTES).
MAX_SECONDS = 1800.0
CALLS_PER_CHILD = 1_000  # loading is dear: only so often for the sake of a leak
_MOST_THREADS = 8  # more per model bring nothing; more processes do
_PATIENCE = 0.25  # of a call's time, for a model that is free and loaded: the rest is its own
_LENGTH_MARGIN_SECONDS = 1.0  # the file was measured before: this limit is never met
_HALF_A_SECOND = bytes(SAMPLE_RATE)


class FasterWhisperEngine(TranscriptionService):
    """Recognises in `processes` children that hold the model, each from its first call on.

    Files are opened by the children of `pool`, which are under limits that a model could not live
    with; the model's children get mere samples. A child ends after `idle_seconds` without a call,
    the only way in which all of its memory comes back.
    """

    name = "faster-whisper"

    def __init__(
        self,
        *,
        pool: ChildPool,
        model: str | None = None,
        device: str = "auto",
        compute_type: str = "default",
        batch_size: int = 8,
        vad: bool = True,
        processes: int = 1,
        idle_seconds: float = 300.0,
    ) -> None:
        if find_spec("faster_whisper") is None:
            raise EngineMisconfigured("the engine faster-whisper is not installed: `make whisper`")
        if model is None:
            raise EngineMisconfigured("the engine faster-whisper needs WHISPER_MODEL")
        self._model = model
        folder = whisper_model.folder_of(model)
        languages = (
            whisper_model.languages_in(folder) if folder else whisper_model.languages_of(model)
        )
        self.model = folder.resolve().name if folder else model
        place = folder and folder.resolve()
        self.variant = f"{place} {compute_type} vad={vad} batched={batch_size > 1}"
        self.capabilities = Capabilities(
            languages=languages,
            words=True,
            vocabulary=True,
            diarization=False,
            runs_locally=True,
            detects_language=len(languages) > 1,
            max_seconds=MAX_SECONDS,
            max_vocabulary_tokens=whisper_child.PROMPT_TOKENS,
            price_per_minute=0.0,
        )
        self._task = partial(Task, batch_size=batch_size, vad=vad)
        self._pool = pool
        settings = ModelSettings(
            model=model,
            device=device,
            compute_type=compute_type,
            threads=max(1, min(_MOST_THREADS, len(os.sched_getaffinity(0)) // processes)),
        )
        options = ChildOptions(
            memory_bytes=None,
            calls=CALLS_PER_CHILD,
            idle_seconds=idle_seconds,
            warm_up=partial(whisper_child.load, settings),
        )
        self._models = ChildPool(processes, options)

    def transcribe(self, request: AudioRequest) -> Recognition:
        """See `TranscriptionService.transcribe`.

        While every model is busy or still loading, ChildBusy is raised: the chunk's turn comes
        later, at no cost, with all of its time.
        """
        deadline = time.monotonic() + request.deadline_seconds
        longest = request.info.duration_seconds + _LENGTH_MARGIN_SECONDS
        sound = self._pool.run(samples, request.data, longest, limit=request.deadline_seconds)
        task = self._task(
            language=request.language and primary_language(request.language),
            expected_language=request.expected_language
            and primary_language(request.expected_language),
            vocabulary=request.vocabulary,
        )
        remaining = deadline - time.monotonic()
        segments, language, certainty = self._models.run(
            whisper_child.recognise,
            sound,
            task,
            limit=remaining,
            patience=remaining * _PATIENCE,
            hear=request.hear,
        )
        return Recognition(
            segments=segments,
            engine=self.name,
            model=self.model,
            language=language,
            language_confidence=certainty,
        )

    def prepare(self) -> None:
        """See `TranscriptionService.prepare`: downloads the model, unless it is a folder."""
        if whisper_model.folder_of(self._model) is None:
            whisper_model.fetch(self._model)

    def verify(self, limit: float) -> None:
        """See `TranscriptionService.verify`: loads the model and lets it listen to silence.

        Nothing less shows that files, device and compute type go together. The memory is given
        back at once: who asks is seldom who recognises.
        """
        task = Task(vad=False)
        try:
            self._models.run(
                whisper_child.recognise, _HALF_A_SECOND, task, limit=limit, patience=limit
            )
        except ChildBusy:
            detail = "the model is busy or still being loaded: ask again"
            raise EngineUnavailable("engine_timeout", detail) from None
        self._models.end_idle()

    def close(self) -> None:
        """See `TranscriptionService.close`."""
        self._models.close()
