"""The engines and the pool of child processes of this process, made from the settings."""

from __future__ import annotations

from functools import cache
from typing import Final

from django.conf import settings

from asr import registry
from asr.child_pool import ChildPool
from asr.errors import EngineMisconfigured
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
    if child_pool.cache_info().currsize:
        child_pool().close()
    get.cache_clear()
    child_pool.cache_clear()


def queue_of(name: str) -> str:
    """The queue for chunks of that engine: as many local calls as cores, many remote ones."""
    try:
        return LOCAL_QUEUE if get(name).capabilities.runs_locally else REMOTE_QUEUE
    except EngineMisconfigured:
        return REMOTE_QUEUE  # the worker records the refusal


def configured() -> list[str]:
    """The names of the engines that jobs may ask for."""
    names = []
    for name in settings.ENGINE_OPTIONS:
        try:
            get(name)
        except EngineMisconfigured:
            continue
        names.append(name)
    return names
