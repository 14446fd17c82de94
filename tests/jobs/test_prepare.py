"""What a worker has its engines fetch before it works."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from asr import whisper_model
from asr.errors import EngineMisconfigured
from jobs import engines


def test_a_local_worker_whose_engine_cannot_have_its_model_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise EngineMisconfigured("the model cannot be downloaded")

    monkeypatch.setattr(engines.get("pocketsphinx"), "prepare", fail)
    with pytest.raises(CommandError, match="the model cannot be downloaded"):
        call_command("run_worker", "local")


def test_a_model_is_fetched_for_every_engine_that_a_job_may_name(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    options = {"model": "tiny"}  # as WHISPER_MODEL names it; the default engine is another
    settings.ENGINE_OPTIONS = {**settings.ENGINE_OPTIONS, "faster-whisper": options}
    fetched: list[str] = []
    monkeypatch.setattr(whisper_model, "fetch", fetched.append)
    engines.close()
    engines.prepare()
    engines.close()
    assert fetched == ["tiny"]
