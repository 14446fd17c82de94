"""The engines and the pool of child processes of this process, made from the settings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from django.conf import settings

from asr import registry
from asr.child_pool import ChildPool
from asr.errors import AsrError, EngineMisconfigured
from asr.service import TranscriptionService

LOCAL_QUEUE = "local"
REMOTE_QUEUE = "chunks"
CONTROL_QUEUE = "control"
QUEUES: Final = (REMOTE_QUEUE, LOCAL_QUEUE, CONTROL_QUEUE)


@cache
def child_pool() -> ChildPool:
    """Decodes audio and runs local engines; its children start with the first call."""
    return ChildPool(settings.LOCAL_PROCESSES)


@cache
def get(name: str) -> TranscriptionService:
    """The engine of that name.

    Raises:
        EngineMisconfigured: unknown here, or an option that it needs is missing.
    """
    if name not in settings.ENGINE_OPTIONS:
        raise EngineMisconfigured(f"the engine {name!r} is unknown")
    return registry.build(name, pool=child_pool(), options=settings.ENGINE_OPTIONS[name])


def close() -> None:
    """End the child processes of this process; they start again with the next call."""
    if get.cache_info().currsize:
        for name in configured():
            get(name).close()
    if child_pool.cache_info().currsize:
        child_pool().close()
    get.cache_clear()
    child_pool.cache_clear()


def queue_of(name: str) -> str:
    """The queue for chunks of that engine: few calls of local ones at once, many of remote ones."""
    try:
        return LOCAL_QUEUE if get(name).capabilities.runs_locally else REMOTE_QUEUE
    except EngineMisconfigured:
        return REMOTE_QUEUE  # the worker records the refusal


def find(name: str) -> tuple[TranscriptionService | None, str | None]:
    """The engine of that name; or None, and why it cannot be had."""
    try:
        return get(name), None
    except EngineMisconfigured as error:
        return None, error.detail


def configured() -> list[str]:
    """The names of the engines that jobs may ask for."""
    return [name for name in settings.ENGINE_OPTIONS if find(name)[0] is not None]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of asking an engine whether it would work."""

    name: str
    result: Literal["valid", "refused", "unreachable"]
    detail: str | None = None


def verify(name: str, *, limit: float) -> Verdict:
    """Ask an engine, within `limit` seconds, whether it would work."""
    try:
        get(name).verify(limit)
    except EngineMisconfigured as error:
        return Verdict(name=name, result="refused", detail=error.detail)
    except AsrError as error:
        return Verdict(name=name, result="unreachable", detail=error.detail)
    return Verdict(name=name, result="valid")


def prepare() -> None:
    """Have the engines of this deployment fetch what their first calls would wait for.

    Raises:
        EngineMisconfigured: one cannot be had; the message is for the terminal.
    """
    for name in (settings.ASR_ENGINE, *settings.ASR_FALLBACK):
        get(name).prepare()
