"""The engines of a process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from asr import registry
from jobs import engines


class Meeting:
    """Where several threads that come at once wait for one another, and one alone but a while."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self.barrier = threading.Barrier(2)
        self.make = make
        self.made: list[Any] = []

    def __call__(self, *args: Any, **options: Any) -> Any:
        with suppress(threading.BrokenBarrierError):
            self.barrier.wait(1.0)
        self.made.append(self.make(*args, **options))
        return self.made[-1]


@pytest.mark.parametrize(
    ("module", "name", "get"),
    [
        (registry, "build", lambda: engines.get("pocketsphinx")),
        (engines, "ChildPool", engines.child_pool),
    ],
    ids=["engine", "pool"],
)
def test_two_threads_at_once_are_given_the_same(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, get: Callable[[], Any]
) -> None:
    engines.close()
    meeting = Meeting(getattr(module, name))
    monkeypatch.setattr(module, name, meeting)
    given: list[Any] = []
    threads = [threading.Thread(target=lambda: given.append(get())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert given == meeting.made * 2
    engines.close()


def test_a_closed_engine_is_made_anew() -> None:
    before, pool = engines.get("pocketsphinx"), engines.child_pool()
    engines.close()
    assert engines.get("pocketsphinx") is not before
    assert engines.child_pool() is not pool
