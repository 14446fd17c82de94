"""What every test of jobs gets, asked for or not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from asr.breaker import LocalStore
from jobs import breakers, engines, liveness
from jobs.models import UserLimits
from tests.object_storage import ObjectStorage, start_object_storage


@pytest.fixture(autouse=True)
def audio_root(tmp_path: Path, settings: Any) -> Path:
    """An audio root that nobody else uses."""
    settings.AUDIO_ROOT = tmp_path / "audio"
    settings.AUDIO_ROOT.mkdir()
    return Path(settings.AUDIO_ROOT)


@pytest.fixture(scope="session")
def object_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStorage]:
    """A real server of S3's protocol; tests share it and have a bucket each."""
    with ExitStack() as stack:
        yield start_object_storage(stack, tmp_path_factory.mktemp("objects"))


@pytest.fixture
def bucket(object_storage: ObjectStorage, settings: Any) -> Path:
    """Audio lives in a bucket that nobody else uses; the folder in which its objects appear."""
    name = f"audio-{uuid4().hex}"
    backend = "jobs.storage.s3.S3AudioStorage"
    options = object_storage.options(name)
    settings.STORAGES = settings.STORAGES | {"audio": {"BACKEND": backend, "OPTIONS": options}}
    return object_storage.root / name


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
