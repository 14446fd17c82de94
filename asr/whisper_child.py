"""The inside of a process that holds a Whisper model: load it, then recognise with it."""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from asr import whisper_model
from asr.audio import SAMPLE_RATE
from asr.errors import EngineMisconfigured
from asr.languages import from_whisper, to_whisper
from asr.types import Segment, Word, join_text

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from faster_whisper import WhisperModel
    from faster_whisper.transcribe import Segment as Heard
    from faster_whisper.transcribe import TranscriptionInfo

    Transcribed = tuple[Iterable[Heard], TranscriptionInfo]

# Of a window's 448 tokens Whisper leaves half to the text; near the end it is cut off silently, and
# beyond it raises. Longer prompts are cut by faster-whisper only at 223 of them, in mid-word.
PROMPT_TOKENS = 200
# A language that is less likely than all others together is not known: then what the recording was
# spoken in so far is the better guess.
DOUBTFUL = 0.5

Hearing = tuple[tuple[Segment, ...], str | None, float | None]
"""Segments, language, and how certain it is; None for a language that was given or not found."""

_model: WhisperModel | None = None  # one per process


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which model is loaded, and how; `model` is a folder or a name."""

    model: str
    device: str
    compute_type: str
    threads: int


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be recognised, and how; languages are ISO 639 codes.

    `batch_size` windows are recognised at a time. With 1, one after the other, a window whose text
    repeats itself or is too unlikely is tried again at higher temperatures.
    """

    language: str | None = None
    expected_language: str | None = None
    vocabulary: tuple[str, ...] = ()
    batch_size: int = 1
    vad: bool = True


def load(settings: ModelSettings) -> None:
    """Load the model, the only one of this process. Raises EngineMisconfigured."""
    global _model  # noqa: PLW0603
    os.environ["HF_HUB_OFFLINE"] = "1"  # whatever is missing is an error, never a download
    # Threads that spin while they wait for one another take the cores that the others would need:
    # beside other work that made it up to ten times slower (measured). Read when OpenMP is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    folder = whisper_model.folder_of(settings.model) or whisper_model.find(settings.model)
    _model = _loaded(folder, settings)


def _loaded(folder: Path, settings: ModelSettings) -> WhisperModel:
    from faster_whisper import WhisperModel  # noqa: PLC0415  (heavy)

    try:
        return WhisperModel(
            str(folder),
            device=settings.device,
            compute_type=settings.compute_type,
            cpu_threads=settings.threads,
        )
    except ValueError as error:
        wrong, value = "WHISPER_DEVICE", settings.device
        if "compute type" in str(error):
            wrong, value = "WHISPER_COMPUTE_TYPE", settings.compute_type
        raise EngineMisconfigured(f"{wrong}={value} does not work on this machine") from error
    except RuntimeError as error:
        if "CUDA" in str(error):
            detail = f"WHISPER_DEVICE={settings.device} does not work here: CUDA has no device"
            raise EngineMisconfigured(detail) from error
        raise EngineMisconfigured("the files of the Whisper model are damaged") from error
    except Exception as error:  # what the tokenizer raises has no type of its own
        raise EngineMisconfigured("tokenizer.json of the Whisper model is damaged") from error


def recognise(sound: bytes, task: Task) -> Generator[str, None, Hearing]:
    """What is said in samples (16 kHz mono int16), in seconds from their start.

    Yields the text so far whenever there is more of it: after each segment, but batch by batch.

    Raises EngineMisconfigured when the model does not speak the language of the task.
    """
    import numpy as np  # noqa: PLC0415  (heavy)

    assert _model is not None, "no model was loaded"  # noqa: S101
    samples = np.frombuffer(sound, np.int16).astype(np.float32) / np.float32(32_768)
    heard, language, certainty = _hear(_model, samples, task)
    segments: tuple[Segment, ...] = ()
    for segment in _segments(heard, len(samples) / SAMPLE_RATE):
        segments += (segment,)
        yield join_text(each.text for each in segments)
    if task.language is None and not segments:
        language = certainty = None  # what is detected in silence is no language
    return segments, language, certainty


def _hear(
    model: WhisperModel, samples: npt.NDArray[np.float32], task: Task
) -> tuple[Iterable[Heard], str | None, float | None]:
    """Segments (decoded only as they are read), the language, and how certain it is."""
    if task.language is not None:
        heard, _ = _transcribe(model, samples, task, _known(model, task.language))
        return heard, task.language, None
    heard, info = _transcribe(model, samples, task, None)
    if not info.all_language_probs:  # a model that knows but one
        return heard, info.language, None
    certainties = dict(info.all_language_probs)
    language = info.language
    expected = task.expected_language and to_whisper(task.expected_language)
    if certainties[language] < DOUBTFUL and expected in certainties and expected != language:
        language = expected
        heard, _ = _transcribe(model, samples, task, language)
    return heard, from_whisper(language), certainties[language]


def _known(model: WhisperModel, language: str) -> str:
    """Whisper's name of the language; left to itself it drops one without a token silently."""
    code = to_whisper(language)
    if model.model.is_multilingual:
        knows = model.hf_tokenizer.token_to_id(f"<|{code}|>") is not None
    else:
        knows = code == "en"
    if not knows:
        raise EngineMisconfigured(f"the Whisper model does not know the language {language!r}")
    return code


def _transcribe(
    model: WhisperModel, samples: npt.NDArray[np.float32], task: Task, language: str | None
) -> Transcribed:
    from faster_whisper import BatchedInferencePipeline  # noqa: PLC0415

    options: dict[str, Any] = {
        "language": language,
        "word_timestamps": True,
        # Placed before every window; an initial prompt would come from the same budget, and reach
        # the first window only.
        "hotwords": _hotwords(model, task.vocabulary),
        # The text so far would grow into the budget too, and carries one window's loop to the next.
        "condition_on_previous_text": False,
        "vad_filter": task.vad,
    }
    if task.batch_size == 1 or not task.vad:  # a batch is made of what the filter has found
        return cast("Transcribed", model.transcribe(samples, **options))
    # One for each call: it keeps where the last one's speech ended.
    pipeline = BatchedInferencePipeline(model)
    options |= {"batch_size": task.batch_size, "without_timestamps": False}
    return cast("Transcribed", pipeline.transcribe(samples, **options))


def _hotwords(model: WhisperModel, vocabulary: Iterable[str]) -> str | None:
    """As many words of the vocabulary as fit into the prompt."""
    kept, room = [], PROMPT_TOKENS
    for entry in vocabulary:
        word = " ".join(entry.replace("<|", " ").split())  # "<|endoftext|>" must stay mere text
        length = len(model.hf_tokenizer.encode(f" {word},", add_special_tokens=False).ids)
        if word and length <= room:
            kept.append(word)
            room -= length
    return ", ".join(kept) or None


def _segments(heard: Iterable[Heard], duration: float) -> Iterator[Segment]:
    """Whisper sometimes hears past the end of the sound: times are kept within."""
    for segment in heard:
        if text := join_text([segment.text]):
            start, end = _times(segment.start, segment.end, duration)
            yield Segment(
                text=text,
                start=start,
                end=end,
                words=tuple(_words(segment, duration)),
                confidence=_probability(math.exp(segment.avg_logprob)),
            )


def _words(segment: Heard, duration: float) -> Iterator[Word]:
    for word in segment.words or ():
        if text := join_text([word.word]):
            start, end = _times(word.start, word.end, duration)
            confidence = _probability(word.probability)
            yield Word(text=text, start=start, end=end, confidence=confidence)


def _times(start: float, end: float, duration: float) -> tuple[float, float]:
    start = min(max(0.0, float(start)), duration)
    return start, min(max(start, float(end)), duration)


def _probability(value: float) -> float | None:
    return min(1.0, max(0.0, float(value))) if math.isfinite(value) else None
