"""Children that warm up, that end when idle, and that are under no limit of memory."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from asr.child_pool import ChildPool
from asr.child_process import ChildOptions
from asr.errors import (
    ChildBusy,
    ChildCrashed,
    ChildTimeout,
    EngineMisconfigured,
    EngineUnavailable,
)
from tests.asr import in_child
from tests.asr.test_child_pool import eventually, is_gone, pid_of


@pytest.fixture
def fresh_pool() -> Iterator[ChildPool]:
    pool = ChildPool(1)
    yield pool
    pool.close()


def pool_of(warm_up: Callable[[], object] | None = None, **options: Any) -> ChildPool:
    return ChildPool(1, ChildOptions(warm_up=warm_up, **options))


def test_a_child_warms_up_once_before_its_first_call() -> None:
    pool = pool_of(partial(in_child.warm_up, 0.0))
    assert pool.run(os.getenv, "VERBATIM_WARM", limit=30) == "yes"
    pid = pid_of(pool)
    assert pid_of(pool) == pid
    pool.close()


def test_a_warm_up_goes_on_when_a_caller_loses_patience() -> None:
    pool = pool_of(partial(in_child.warm_up, 4.0))
    with pytest.raises(ChildBusy) as caught:
        pid_of_within(pool, patience=2.0)
    assert caught.value.retry_after
    (waiting,) = pool._idle
    assert waiting is not None
    assert waiting.is_alive()
    pid = pid_of_within(pool, patience=60)
    assert pid == waiting._process.pid
    pool.close()


def test_idle_children_are_ended_and_a_busy_one_is_not(tmp_path: Path) -> None:
    pool, pipe, read = ChildPool(2), tmp_path / "pipe", []
    os.mkfifo(pipe)
    busy = threading.Thread(target=lambda: read.append(pool.run(Path.read_text, pipe, limit=60)))
    busy.start()
    with pipe.open("w") as other_end:  # opens once the child does
        idle = pid_of(pool)
        pool.end_idle()
        assert is_gone(idle)
        assert pid_of(pool) != idle
        other_end.write("still there")
    busy.join(60)
    assert read == ["still there"]
    pool.close()


def pid_of_within(pool: ChildPool, *, patience: float) -> int:
    return pool.run(os.getpid, limit=60, patience=patience)


def test_an_error_of_the_warm_up_is_the_caller_s_and_the_next_tries_anew() -> None:
    pool = pool_of(partial(in_child.warm_up, 0.0, EngineMisconfigured("no such model")))
    for _ in range(2):
        with pytest.raises(EngineMisconfigured, match="no such model"):
            pid_of_within(pool, patience=30)
    assert pool._idle == [None]
    pool.close()


def test_a_child_that_dies_warming_up_is_a_crash_even_when_nobody_waits() -> None:
    pool = pool_of(partial(in_child.warm_up, 60.0))
    with pytest.raises(ChildBusy):
        pid_of_within(pool, patience=2.0)
    (waiting,) = pool._idle
    assert waiting is not None
    waiting._process.kill()
    with pytest.raises(ChildCrashed):
        pid_of_within(pool, patience=30)
    assert pool._idle == [None]
    pool.close()


def test_a_warm_up_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.child_process.WARM_UP_SECONDS", 0.2)
    pool = pool_of(partial(in_child.warm_up, 60.0))
    with pytest.raises(ChildTimeout) as caught:
        pid_of_within(pool, patience=30)
    assert not isinstance(caught.value, ChildBusy)
    assert pool._idle == [None]
    pool.close()


def test_closing_ends_a_child_that_is_warming_up() -> None:
    pool = pool_of(partial(in_child.warm_up, 60.0))
    with pytest.raises(ChildBusy):
        pid_of_within(pool, patience=2.0)
    (waiting,) = pool._idle
    assert waiting is not None
    pool.close()
    assert is_gone(waiting._process.pid)


def test_patience_is_for_waiting_and_not_for_the_call(fresh_pool: ChildPool) -> None:
    pid_of(fresh_pool)
    done: list[int] = []
    busy = threading.Thread(
        target=lambda: done.append(fresh_pool.run(in_child.slow_echo, 2.0, 7, limit=60))
    )
    busy.start()
    assert eventually(lambda: not fresh_pool._idle)
    with pytest.raises(ChildBusy):
        pid_of_within(fresh_pool, patience=0.1)
    busy.join()
    assert done == [7]
    assert fresh_pool.run(in_child.slow_echo, 1.0, 8, limit=60, patience=0.5) == 8


def test_an_idle_child_ends_itself_and_the_next_call_gets_another() -> None:
    pool = pool_of(idle_seconds=0.2)
    for _ in range(2):
        pid = pid_of(pool)
        assert eventually(lambda pid=pid: is_gone(pid))  # type: ignore[misc]
    assert pid_of(pool) != pid
    pool.close()


def test_a_long_call_is_not_idleness() -> None:
    pool = pool_of(idle_seconds=0.2)
    assert pool.run(in_child.slow_echo, 1.0, 7, limit=30) == 7
    pool.close()


def test_calls_that_cross_with_the_end_of_an_idle_child_are_not_lost() -> None:
    pool = pool_of(idle_seconds=0.02)
    pids = set()
    for step in range(20):
        pids.add(pid_of(pool))
        time.sleep(0.015 + step * 0.002)  # just as it ends, a little before or after
    assert len(pids) > 1
    pool.close()


def test_a_call_that_reaches_a_child_as_it_ends_is_given_to_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = pool_of(idle_seconds=0.1)
    pid = pid_of(pool)
    assert eventually(lambda: is_gone(pid))
    # As if it had ended just after it was looked at.
    monkeypatch.setattr(type(pool._idle[-1]), "is_alive", lambda child: child.calls <= 1)
    assert pid_of(pool) != pid
    pool.close()


def test_a_child_that_exits_in_the_middle_of_a_call_is_a_crash(fresh_pool: ChildPool) -> None:
    with pytest.raises(ChildCrashed, match="status 3"):
        fresh_pool.run(in_child.end, 3, limit=30)


def test_without_a_limit_on_memory_a_child_may_take_much_but_writes_no_file(tmp_path: Any) -> None:
    pool = pool_of(memory_bytes=None)
    assert pool.run(in_child.size_of_bytes, 2 << 30, limit=60) == 2 << 30
    pool.run(in_child.open_many, str(tmp_path / "file"), limit=30)
    with pytest.raises(EngineUnavailable):
        pool.run(in_child.write_file, str(tmp_path / "file"), limit=30)
    pool.close()
