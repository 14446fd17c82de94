"""Engines by name. An engine's module is imported when the engine is first built."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from asr.child_pool import ChildPool
from asr.errors import EngineMisconfigured
from asr.service import TranscriptionService

ENGINES: dict[str, str] = {
    "openai": "asr.engines.openai.OpenAIEngine",
    "pocketsphinx": "asr.engines.pocketsphinx.PocketSphinxEngine",
}


def build(name: str, *, pool: ChildPool, options: Mapping[str, Any]) -> TranscriptionService:
    """The engine of that name, with `options` as its constructor's keywords.

    Raises EngineMisconfigured when there is no such engine, or when an option is missing.
    """
    if name not in ENGINES:
        raise EngineMisconfigured(f"there is no engine named {name!r}")
    module, _, attribute = ENGINES[name].rpartition(".")
    engine = getattr(import_module(module), attribute)
    return cast("TranscriptionService", engine(pool=pool, **options))
