"""What a worker has its engines fetch before it works."""

from __future__ import annotations

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

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
