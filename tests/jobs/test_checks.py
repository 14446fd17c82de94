"""What a start refuses, and what it has the engines fetch."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError, SystemCheckError

from asr.errors import EngineMisconfigured
from jobs import engines


def test_a_default_engine_that_cannot_be_built_stops_every_command(settings: Any) -> None:
    call_command("check")
    settings.ASR_ENGINE = "parrot"
    with pytest.raises(SystemCheckError, match="parrot"):
        call_command("check")


def test_so_does_one_that_is_to_stand_in(settings: Any) -> None:
    settings.ASR_FALLBACK = ("pocketsphinx", "parrot")
    with pytest.raises(SystemCheckError, match="parrot"):
        call_command("check")


@pytest.mark.parametrize("queue", ["chunks", "local"])
def test_a_worker_whose_engine_cannot_have_its_model_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, queue: str
) -> None:
    def fail() -> None:
        raise EngineMisconfigured("the model cannot be downloaded")

    monkeypatch.setattr(engines.get("pocketsphinx"), "prepare", fail)
    with pytest.raises(CommandError, match="the model cannot be downloaded"):
        call_command("run_worker", queue)
