"""Engines by name. An engine's module is imported when the engine is first built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import signature
from typing import Any, cast

from asr.child_pool import ChildPool
from asr.errors import EngineMisconfigured
from asr.service import TranscriptionService

ENGINES: dict[str, str] = {
    "deepgram": "asr.engines.deepgram.DeepgramEngine",
    "faster-whisper": "asr.engines.faster_whisper.FasterWhisperEngine",
    "openai": "asr.engines.openai.OpenAIEngine",
    "pocketsphinx": "asr.engines.pocketsphinx.PocketSphinxEngine",
}


def options_of(name: str) -> tuple[str, ...]:
    """What may be set of that engine: the keywords of its constructor."""
    return tuple(
        parameter for parameter in signature(_engine(name)).parameters if parameter != "pool"
    )


def build(name: str, *, pool: ChildPool, options: Mapping[str, Any]) -> TranscriptionService:
    """The engine of that name, with `options` as its constructor's keywords.

    Raises EngineMisconfigured when there is no such engine, or when an option is missing.
    """
    if name not in ENGINES:
        raise EngineMisconfigured(f"there is no engine named {name!r}")
    return _engine(name)(pool=pool, **options)


def _engine(name: str) -> Callable[..., TranscriptionService]:
    module, _, attribute = ENGINES[name].rpartition(".")
    return cast("Callable[..., TranscriptionService]", getattr(import_module(module), attribute))
