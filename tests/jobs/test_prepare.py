"""What a worker has its engines fetch before it works."""

from __future__ import annotations

from collections.abc import Iterator
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


@pytest.fixture
def whisper_without_a_model(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[None]:
    """The engine faster-whisper is configured, and the hub has nothing for it."""

    def fail(name: str) -> None:
        raise EngineMisconfigured(f"the Whisper model {name!r} cannot be downloaded")

    options = {"model": "tiny"}
    settings.ENGINE_OPTIONS = {**settings.ENGINE_OPTIONS, "faster-whisper": options}
    monkeypatch.setattr(whisper_model, "fetch", fail)
    engines.close()
    yield
    engines.close()


@pytest.mark.usefixtures("whisper_without_a_model")
def test_an_engine_that_is_merely_configured_stops_nothing_without_its_model(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engines.prepare()
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert warning.getMessage() == (
        "The engine faster-whisper does not work: the Whisper model 'tiny' cannot be downloaded. "
        "Its chunks fail until this is mended and the local worker is started anew; without its "
        "variables no job may name it."
    )


@pytest.mark.usefixtures("whisper_without_a_model")
@pytest.mark.parametrize(
    "relied_on",
    [
        {"ASR_ENGINE": "faster-whisper"},
        {"ASR_FALLBACK": ("pocketsphinx", "faster-whisper")},
    ],
    ids=str,
)
def test_an_engine_that_is_relied_on_stops_the_start_without_its_model(
    settings: Any, relied_on: dict[str, Any]
) -> None:
    for name, value in relied_on.items():
        setattr(settings, name, value)
    with pytest.raises(EngineMisconfigured, match="'tiny' cannot be downloaded"):
        engines.prepare()


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
