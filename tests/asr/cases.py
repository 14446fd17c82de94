"""Every engine as the tests of all engines build it: one line each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asr import registry
from asr.audio import inspect
from asr.child_pool import ChildPool
from asr.service import TranscriptionService
from asr.types import AudioRequest
from tests.asr.published import API, KEY, acme_api, deepgram_api, openai_api
from tests.asr.tiny_whisper import shared_model
from tests.asr.vendor import Vendor

DEADLINE = 120.0  # seconds, for what takes one: models share two cores with other tests
GUIDE = Path(__file__).parents[2] / "docs" / "engines.md"


@dataclass(frozen=True)
class Case:
    """One engine as it is built for the tests; `api` and a path below its root for a vendor's.

    `make` gives the options that take work.
    """

    engine: str
    options: dict[str, Any] = field(default_factory=dict)
    api: API | None = None
    root: str = ""
    make: Callable[[], dict[str, Any]] = dict

    def build(self, pool: ChildPool, vendor: Vendor, **options: Any) -> TranscriptionService:
        if self.api is not None:
            url = vendor.url.removesuffix("/v1") + self.root
            options = {"api_key": KEY, "base_url": url, **options}
        options = {**self.options, **self.make(), **options}
        return registry.build(self.engine, pool=pool, options=options)

    def __str__(self) -> str:
        return " ".join([self.engine, *map(str, self.options.values())])


def at_openai(model: str) -> Case:
    return Case("openai", {"model": model}, openai_api, "/v1")


CASES = [
    Case("pocketsphinx"),
    Case("faster-whisper", make=lambda: {"model": shared_model()}),
    at_openai("whisper-1"),
    at_openai("gpt-transcribe"),
    at_openai("gpt-4o-transcribe"),
    at_openai("gpt-4o-mini-transcribe"),
    at_openai("gpt-4o-transcribe-diarize"),
    Case("deepgram", {"model": "nova-3"}, deepgram_api),
    Case("deepgram", {"model": "nova-2"}, deepgram_api),
    Case("acme", {}, acme_api),
]


def example_of_the_guide() -> str:
    """The engine that docs/engines.md shows: the first block of code with a class."""
    blocks: list[str] = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    return next(block for block in blocks if "(TranscriptionService)" in block)


def refused(engine: TranscriptionService, **asked: Any) -> str | None:
    """The option that the engine refuses, None when it honours all; there is always a reason."""
    refusal = engine.refusal(**{"language": None, "vocabulary": (), "diarize": False, **asked})
    assert refusal is None or refusal.reason
    return None if refusal is None else refusal.option


def ask(pool: ChildPool, data: bytes, **options: Any) -> AudioRequest:
    """A request as the pipeline makes it."""
    info = inspect(pool, data, max_seconds=600, limit=DEADLINE)
    return AudioRequest(data=data, info=info, **{"deadline_seconds": DEADLINE, **options})
