"""The engines and the pool of child processes of this process, made from the settings."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Final, Literal

from django.conf import settings

from asr import registry
from asr.child_pool import ChildPool
from asr.errors import AsrError, EngineMisconfigured
from asr.service import TranscriptionService

LOCAL_QUEUE = "local"
REMOTE_QUEUE = "chunks"
CONTROL_QUEUE = "control"
WEBHOOKS_QUEUE = "webhooks"
# What each worker serves: `manage.py run_worker NAME`.
WORKERS: Final = {
    REMOTE_QUEUE: (REMOTE_QUEUE,),
    LOCAL_QUEUE: (LOCAL_QUEUE,),
    CONTROL_QUEUE: (CONTROL_QUEUE, WEBHOOKS_QUEUE),
}
QUEUES: Final = tuple(queue for queues in WORKERS.values() for queue in queues)

logger = logging.getLogger(__name__)

# What this process has made. Each is made once, whoever asks first: a second one would hold
# children, and perhaps a model, of its own.
_making = threading.RLock()
_pools: list[ChildPool] = []
_engines: dict[str, TranscriptionService] = {}


def child_pool() -> ChildPool:
    """Decodes audio and runs local engines; its children start with the first call."""
    with _making:
        if not _pools:
            _pools.append(ChildPool(settings.LOCAL_PROCESSES))
        return _pools[0]


def get(name: str) -> TranscriptionService:
    """The engine of that name.

    Raises:
        EngineMisconfigured: unknown here, or an option that it needs is missing.
    """
    with _making:
        if name not in _engines:
            if name not in settings.ENGINE_OPTIONS:
                raise EngineMisconfigured(f"the engine {name!r} is unknown")
            options = settings.ENGINE_OPTIONS[name]
            _engines[name] = registry.build(name, pool=child_pool(), options=options)
        return _engines[name]


def close() -> None:
    """End the child processes of this process; they start again with the next call."""
    with _making:
        for engine in _engines.values():
            engine.close()
        for pool in _pools:
            pool.close()
        _engines.clear()
        _pools.clear()


def queue_of(name: str) -> str:
    """The queue for chunks of that engine: few calls of local ones at once, many of remote ones."""
    try:
        return LOCAL_QUEUE if get(name).capabilities.runs_locally else REMOTE_QUEUE
    except EngineMisconfigured:
        return REMOTE_QUEUE  # the worker records the refusal


def price_of(name: str) -> float | None:
    """US dollars for a minute of sound: what the operator says, or the engine; None if unknown."""
    if name in settings.ENGINE_PRICES:
        return float(settings.ENGINE_PRICES[name])
    engine, _ = find(name)
    return None if engine is None else engine.capabilities.price_per_minute


def costs(name: str) -> bool:
    """Whether the engine is known to cost something: caps on spending are about no other."""
    return bool(price_of(name))


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
        remark = get(name).verify(limit)
    except EngineMisconfigured as error:
        return Verdict(name=name, result="refused", detail=error.detail)
    except AsrError as error:
        return Verdict(name=name, result="unreachable", detail=error.detail)
    return Verdict(name=name, result="valid", detail=remark)


def prepare() -> None:
    """Have every engine that a job may ask for fetch what its first call would wait for.

    One that jobs must name themselves must not take the others down: that it cannot work is logged.

    Raises:
        EngineMisconfigured: ASR_ENGINE or one of ASR_FALLBACK cannot be had; the message is for
            the terminal.
    """
    relied_on = dict.fromkeys((settings.ASR_ENGINE, *settings.ASR_FALLBACK))
    for name in relied_on:
        get(name).prepare()
    for name in configured():
        if name not in relied_on:
            _try_to_prepare(name)


def _try_to_prepare(name: str) -> None:
    try:
        get(name).prepare()
    except EngineMisconfigured as error:
        logger.warning(
            "The engine %s does not work: %s. Its chunks fail until this is mended and the local "
            "worker is started anew; without its variables no job may name it.",
            name,
            error.detail,
        )
