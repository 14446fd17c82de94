"""Children that hang, crash, overflow or are killed cost one call and nothing else."""

from __future__ import annotations

import ctypes
import operator
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asr.child_pool import ChildPool
from asr.child_process import ChildOptions, opened
from asr.errors import (
    AsrError,
    AudioRejected,
    ChildBusy,
    ChildCrashed,
    ChildTimeout,
    EngineMisconfigured,
    EngineUnavailable,
)
from asr.types import Segment, Word
from tests.asr import in_child


@pytest.fixture
def fresh_pool() -> Iterator[ChildPool]:
    pool = ChildPool(1)
    yield pool
    pool.close()


def pid_of(pool: ChildPool) -> int:
    return pool.run(os.getpid, limit=10)


def is_gone(pid: int) -> bool:
    """True when no such process runs; a zombie that nobody has waited for yet is gone too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_a_call_runs_in_another_process_which_is_kept(fresh_pool: ChildPool) -> None:
    pid = pid_of(fresh_pool)
    assert pid != os.getpid()
    assert pid_of(fresh_pool) == pid


def test_large_arguments_and_results_pass(pool: ChildPool) -> None:
    data = os.urandom(8_000_000)
    assert pool.run(bytes.upper, data, limit=10) == data.upper()


def test_segments_pass_as_they_are(pool: ChildPool) -> None:
    segment = Segment(text="a", start=0.0, end=1.0, words=(Word(text="a", start=0.0, end=1.0),))
    assert pool.run(in_child.echo, (segment,), limit=10) == (segment,)


@pytest.mark.parametrize(
    "error",
    [
        AudioRejected("invalid_audio", "not audio"),
        EngineMisconfigured("refused"),
        EngineUnavailable("engine_error", "busy", retry_after=3.0),
        ChildTimeout(),
        ChildBusy(),
        ChildCrashed("gone"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_ours_arrives_as_it_was_raised(pool: ChildPool, error: AsrError) -> None:
    with pytest.raises(type(error)) as caught:
        pool.run(in_child.fail, error, limit=10)
    assert vars(caught.value) == vars(error)
    assert str(caught.value) == str(error) == error.detail


@pytest.mark.parametrize("error", [ValueError("/secret/path"), SystemExit(3), KeyboardInterrupt()])
def test_any_other_error_arrives_by_its_type_alone(
    fresh_pool: ChildPool, error: BaseException
) -> None:
    pid = pid_of(fresh_pool)
    with pytest.raises(EngineUnavailable) as caught:
        fresh_pool.run(in_child.fail, error, limit=10)
    assert caught.value.code == "engine_error"
    assert caught.value.detail == f"the recogniser failed with {type(error).__name__}"
    assert pid_of(fresh_pool) == pid


def test_a_result_that_could_run_code_in_the_parent_is_refused(fresh_pool: ChildPool) -> None:
    with pytest.raises(EngineUnavailable) as caught:
        fresh_pool.run(in_child.harmful_result, limit=10)
    assert caught.value.code == "engine_error"
    assert "VERBATIM_HARMED" not in os.environ


@pytest.mark.parametrize("name", ["re.enum.bltns.eval", "re", "dataclass", "fields"])
def test_a_name_that_only_leads_through_our_modules_is_refused(name: str) -> None:
    """As protocol 4 resolves names: `asr.types` has imported what has imported everything."""

    def text(value: str) -> bytes:
        return pickle.SHORT_BINUNICODE + bytes([len(value)]) + value.encode()

    called = text("asr.types") + text(name) + pickle.STACK_GLOBAL
    called += text("1 + 1") + pickle.TUPLE1 + pickle.REDUCE
    answer = pickle.PROTO + b"\x04" + pickle.NEWTRUE + called + pickle.TUPLE2 + pickle.STOP
    with pytest.raises(EngineUnavailable, match="cannot be read"):
        opened(answer)


def test_what_a_generator_yields_is_heard_as_it_comes_and_it_returns_the_result(
    fresh_pool: ChildPool,
) -> None:
    heard: list[tuple[Any, float]] = []
    values = ["a", None, Word(text="b", start=0.0, end=1.0), "c" * 3_000_000]
    result = fresh_pool.run(
        in_child.steps,
        *(values, None, 0.2),
        limit=20,
        hear=lambda value: heard.append((value, time.monotonic())),
    )
    ended = time.monotonic()
    assert result == "done"
    assert [value for value, _ in heard] == values
    assert ended - heard[0][1] > 0.6  # the last comes 0.2 s before the end
    assert fresh_pool.run(operator.add, 1, 2, limit=10) == 3


def test_a_generator_that_nobody_hears_returns_its_result(fresh_pool: ChildPool) -> None:
    pid = pid_of(fresh_pool)
    assert fresh_pool.run(in_child.steps, ["a", "b"], limit=10) == "done"
    assert pid_of(fresh_pool) == pid


def test_an_error_after_some_steps_is_that_of_the_call(fresh_pool: ChildPool) -> None:
    pid, heard = pid_of(fresh_pool), list[Any]()
    for error, raised in ((AudioRejected("invalid_audio", "no"), AudioRejected), (OSError(), None)):
        with pytest.raises(raised or EngineUnavailable):
            fresh_pool.run(in_child.steps, ["a"], error, limit=10, hear=heard.append)
    assert heard == ["a", "a"]
    assert pid_of(fresh_pool) == pid


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_child_that_is_killed_between_two_steps_has_crashed(
    fresh_pool: ChildPool, number: int
) -> None:
    heard: list[str] = []
    with pytest.raises(ChildCrashed):
        fresh_pool.run(in_child.steps_to_an_end, number, limit=10, hear=heard.append)
    assert heard == ["half a"]
    assert fresh_pool.run(operator.add, 1, 2, limit=10) == 3


def test_steps_without_an_end_end_at_the_limit(fresh_pool: ChildPool) -> None:
    pid = pid_of(fresh_pool)
    heard: list[int] = []
    started = time.monotonic()
    with pytest.raises(ChildTimeout):
        fresh_pool.run(in_child.endless_steps, limit=0.6, hear=heard.append)
    assert time.monotonic() - started < 2
    assert set(heard) == {pid}
    assert is_gone(pid)
    assert fresh_pool.run(operator.add, 1, 2, limit=10) == 3


@pytest.mark.parametrize(
    "error", [ValueError("no"), ConnectionResetError(), EOFError(), ChildBusy()]
)
def test_who_hears_and_fails_costs_the_call_nothing(
    fresh_pool: ChildPool, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    pid = pid_of(fresh_pool)

    def hear(value: str) -> None:
        raise error

    assert fresh_pool.run(in_child.steps, ["a", "b"], limit=10, hear=hear) == "done"
    assert caplog.text.count("was not heard") == 2
    assert pid_of(fresh_pool) == pid


def test_an_interrupt_in_who_hears_ends_the_child(fresh_pool: ChildPool) -> None:
    pid = pid_of(fresh_pool)

    def hear(value: str) -> None:
        raise Interrupt

    with pytest.raises(Interrupt):
        fresh_pool.run(in_child.steps, ["a", "b"], limit=10, hear=hear)
    assert is_gone(pid)
    assert fresh_pool.run(operator.add, 1, 2, limit=10) == 3


def test_a_step_that_could_run_code_in_the_parent_is_not_heard(fresh_pool: ChildPool) -> None:
    heard: list[Any] = []
    assert fresh_pool.run(in_child.harmful_steps, limit=10, hear=heard.append) == "done"
    assert heard == []
    assert "VERBATIM_HARMED" not in os.environ


def test_a_child_stuck_in_c_code_is_killed_at_the_limit(fresh_pool: ChildPool) -> None:
    pid = pid_of(fresh_pool)
    started = time.monotonic()
    with pytest.raises(ChildTimeout) as caught:
        fresh_pool.run(pow, 3, 10**9, limit=0.6)
    assert time.monotonic() - started < 2
    assert (caught.value.code, caught.value.recoverable) == ("engine_timeout", True)
    assert is_gone(pid)
    assert fresh_pool.run(operator.add, 1, 2, limit=10) == 3


def test_waiting_for_a_place_counts_towards_the_limit(fresh_pool: ChildPool) -> None:
    pid_of(fresh_pool)
    busy = threading.Thread(target=lambda: fresh_pool.run(time.sleep, 1.5, limit=10))
    busy.start()
    assert eventually(lambda: not fresh_pool._idle)
    started = time.monotonic()
    with pytest.raises(ChildTimeout):
        fresh_pool.run(operator.add, 1, 2, limit=0.3)
    assert time.monotonic() - started < 1
    assert fresh_pool.run(operator.add, 1, 2, limit=10) == 3
    busy.join()


def test_a_frozen_child_that_reads_nothing_does_not_hold_the_caller(fresh_pool: ChildPool) -> None:
    os.kill(pid_of(fresh_pool), signal.SIGSTOP)
    with pytest.raises(ChildTimeout):
        fresh_pool.run(len, bytes(8_000_000), limit=0.6)
    assert fresh_pool.run(operator.add, 1, 2, limit=10) == 3


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_crash_is_an_error_of_that_call_alone(fresh_pool: ChildPool, number: int) -> None:
    with pytest.raises(ChildCrashed) as caught:
        fresh_pool.run(in_child.signal_self, number, limit=10)
    assert caught.value.code == "worker_crashed"
    assert fresh_pool.run(operator.add, 1, 2, limit=10) == 3


def test_idle_children_may_be_killed_again_and_again(fresh_pool: ChildPool) -> None:
    for _ in range(4):
        pid = pid_of(fresh_pool)
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda pid=pid: is_gone(pid))  # type: ignore[misc]
        assert fresh_pool.run(operator.add, 1, 2, limit=10) == 3


def test_too_much_memory_is_an_error_and_the_child_lives_on(fresh_pool: ChildPool) -> None:
    pid = pid_of(fresh_pool)
    with pytest.raises(EngineUnavailable) as caught:
        fresh_pool.run(bytes, 1 << 30, limit=10)
    assert caught.value.detail == "the recogniser failed with MemoryError"
    assert pid_of(fresh_pool) == pid


def test_a_child_writes_no_file_and_opens_few(fresh_pool: ChildPool, tmp_path: Any) -> None:
    for action in (in_child.write_file, in_child.open_many):
        with pytest.raises(EngineUnavailable) as caught:
            fresh_pool.run(action, str(tmp_path / "file"), limit=10)
        assert caught.value.detail == "the recogniser failed with OSError"


def test_a_child_is_replaced_after_its_share_of_calls() -> None:
    pool = ChildPool(1, ChildOptions(calls=3))
    pids = [pid_of(pool) for _ in range(7)]
    pool.close()
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]
    assert is_gone(pids[0])


def test_many_threads_share_the_children(pool: ChildPool) -> None:
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(pool.run(abs, -n, limit=20)))
        for n in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(40))


class Interrupt(BaseException):
    """As Dramatiq's Shutdown and TimeLimitExceeded: sent to a thread from another."""


def interrupted(call: Callable[[], Any], when: Callable[[], bool]) -> float:
    """Seconds from sending Interrupt into a thread that makes the call until the thread ends."""
    caught: list[BaseException] = []

    def target() -> None:
        try:
            call()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    assert eventually(when)
    sent = time.monotonic()
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Interrupt)
    )
    thread.join(10)
    assert [type(error) for error in caught] == [Interrupt]
    return time.monotonic() - sent


def test_an_interrupted_call_frees_its_place_and_ends_its_child(fresh_pool: ChildPool) -> None:
    pid = pid_of(fresh_pool)
    seconds = interrupted(
        lambda: fresh_pool.run(time.sleep, 30, limit=60), lambda: not fresh_pool._idle
    )
    assert seconds < 1
    assert is_gone(pid)
    assert fresh_pool.run(operator.add, 1, 2, limit=10) == 3


def test_an_interrupt_while_waiting_leaves_the_running_call_alone(fresh_pool: ChildPool) -> None:
    done: list[int] = []
    pid_of(fresh_pool)
    busy = threading.Thread(
        target=lambda: done.append(fresh_pool.run(in_child.slow_echo, 2.0, 7, limit=20))
    )
    busy.start()
    assert eventually(lambda: not fresh_pool._idle)
    assert interrupted(lambda: fresh_pool.run(abs, -1, limit=60), lambda: True) < 1
    busy.join()
    assert done == [7]
    assert fresh_pool.run(operator.add, 1, 2, limit=10) == 3


def test_interrupts_at_any_moment_lose_no_place() -> None:
    pool = ChildPool(2)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                pool.run(abs, -1, limit=20)
            except (Interrupt, ChildCrashed):
                continue

    pid_of(pool)  # now the pool's own thread exists, and no new one takes over a dead one's number
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for round_ in range(60):
        time.sleep(0.002 * (round_ % 7))
        # One that was struck outside its `try` has ended, and its number may be another's.
        if not threads[round_ % 4].is_alive():
            continue
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(threads[round_ % 4].ident or 0), ctypes.py_object(Interrupt)
        )
    stop.set()
    for thread in threads:
        thread.join(20)
    assert len(pool._idle) == 2
    assert pool.run(operator.add, 1, 2, limit=10) == 3
    pool.close()


def test_a_child_outlives_the_thread_that_first_called_it(fresh_pool: ChildPool) -> None:
    pids: list[int] = []
    thread = threading.Thread(target=lambda: pids.append(pid_of(fresh_pool)))
    thread.start()
    thread.join()
    assert pid_of(fresh_pool) == pids[0]


@pytest.mark.parametrize("fn", ["(pow, 3, 10**9)", "(time.sleep, 100)"], ids=["stuck", "asleep"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_child_outlives_its_parent(fn: str, number: int) -> None:
    code = (
        "import os, time, threading; from asr.child_pool import ChildPool\n"
        "pool = ChildPool(1); print(pool.run(os.getpid, limit=10), flush=True)\n"
        f"threading.Thread(target=pool.run, args={fn}, kwargs={{'limit': 60}}).start()\n"
        "while pool._idle: time.sleep(0.01)\n"
        "print('busy', flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert parent.stdout.readline() == "busy\n"
        parent.send_signal(number)
        parent.wait(10)
    assert eventually(lambda: is_gone(pid))


def test_the_alarm_ends_a_stuck_child_when_the_parent_is_frozen() -> None:
    code = (
        "import os, signal, time, threading; from asr.child_pool import ChildPool\n"
        "pool = ChildPool(1); print(pool.run(os.getpid, limit=10), flush=True)\n"
        "threading.Thread(target=pool.run, args=(pow, 3, 10**9), kwargs={'limit': 0.5}).start()\n"
        "while pool._idle: time.sleep(0.001)\n"
        "time.sleep(0.1)\n"
        "os.kill(os.getpid(), signal.SIGSTOP)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert eventually(lambda: is_gone(pid))
        parent.kill()


def test_a_forked_process_gets_children_of_its_own(fresh_pool: ChildPool) -> None:
    mine = pid_of(fresh_pool)
    reader, writer = os.pipe()
    if (forked := os.fork()) == 0:
        try:
            os.write(writer, str(pid_of(fresh_pool)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        theirs = int(answer.read())
    os.waitpid(forked, 0)
    assert theirs != mine == pid_of(fresh_pool)
    assert eventually(lambda: is_gone(theirs))


def test_a_child_never_loads_the_main_module_of_its_parent(tmp_path: Any) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import sys; from asr.child_pool import ChildPool\n"
        "print('main'); pool = ChildPool(1)\n"
        "from tests.asr import in_child\n"
        "print(pool.run(in_child.loaded, ['django', '__mp_main__', 'dramatiq'], limit=10))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    output = subprocess.run(
        [sys.executable, str(script)], capture_output=True, env=environment, text=True, check=True
    )
    assert output.stdout == "main\n[]\n"


def test_a_closed_pool_has_no_children_and_takes_no_calls(fresh_pool: ChildPool) -> None:
    pid = pid_of(fresh_pool)
    fresh_pool.close()
    assert is_gone(pid)
    with pytest.raises(EngineUnavailable):
        pid_of(fresh_pool)
