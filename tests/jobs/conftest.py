"""What every test of jobs gets, asked for or not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asr.breaker import LocalStore
from jobs import breakers, engines, liveness
from jobs.models import UserLimits


@pytest.fixture(autouse=True)
def audio_root(tmp_path: Path, settings: Any) -> Path:
    """An audio root that nobody else uses."""
    settings.AUDIO_ROOT = tmp_path / "audio"
    settings.AUDIO_ROOT.mkdir()
    return Path(settings.AUDIO_ROOT)


@pytest.fixture(autouse=True)
def breakers_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test's engine did is not held against the next one's."""
    store = LocalStore()
    monkeypatch.setattr(breakers, "store", lambda: store)


@pytest.fixture(autouse=True)
def nobody_has_own_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process knows it that looked just now; it looks again when a test saves some."""
    monkeypatch.setattr(UserLimits, "_looked", time.monotonic())
    monkeypatch.setattr(UserLimits, "_any", False)


@pytest.fixture(autouse=True)
def heartbeat_ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A heartbeat beats once, in the test's own transaction, and ends with the test."""
    monkeypatch.setattr(liveness, "RENEW_EVERY_SECONDS", 3600.0)
    yield
    heartbeat, liveness._heartbeat = liveness._heartbeat, None
    if heartbeat is not None:
        heartbeat._stopped.set()


@pytest.fixture(scope="session", autouse=True)
def children_end() -> Iterator[None]:
    """Decoding and PocketSphinx run in children, which end with the run."""
    yield
    engines.close()
