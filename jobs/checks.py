"""Checks at the start: is the chosen engine there? It stops every command, in one line."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from jobs import engines


@register
def check_engines(**_: Any) -> list[CheckMessage]:
    """The default engine, and those that stand in for it, can be built from their options."""
    names = dict.fromkeys((settings.ASR_ENGINE, *settings.ASR_FALLBACK))
    found = [(name, engines.find(name)[1]) for name in names]
    return [Error(f"{name}: {why}", id="verbatim.E001") for name, why in found if why is not None]
