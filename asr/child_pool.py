"""A pool of child processes that can be killed.

Decoding and local engines run foreign C code on strangers' files. Such code may hang while it
holds Python's global lock, crash, or take all memory; in a child each of these is the error of one
call. `multiprocessing`, `concurrent.futures` and `pebble` were tried: one cannot kill a stuck
child, two are dead for good once an idle child has been killed, and all import the parent's main
module (Django, the web server) into every child.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from asr.child import ANSWER_HEADER, CALL_HEADER, IDLE_STATUS
from asr.errors import AsrError, ChildBusy, ChildCrashed, ChildTimeout, EngineUnavailable

T = TypeVar("T")
Step = TypeVar("Step")

logger = logging.getLogger(__name__)

SLICE_SECONDS = 0.5  # the longest wait in one piece: an exception sent to the thread lands after it
CALLS_PER_CHILD = (
    2_000  # then a fresh child takes its place, should a C library leak; it costs 0.5 s
)
MEMORY_BYTES = 1 << 30  # PocketSphinx peaks at 453 MB virtual on a 120 s utterance (measured)
WARM_UP_SECONDS = 600.0  # a large model from a slow disk
ANSWER_MAX_BYTES = 64 << 20  # far more than five minutes of words or samples
_ANSWER_SECONDS = 10.0  # for a short answer to arrive once it has begun
_ENDING_SECONDS = 5.0  # between a child's last sign and its exit status
_START = (
    "import sys; sys.path[:] = sys.argv[5:]; from asr.child import serve; "
    "serve(*map(int, sys.argv[1:4]), float(sys.argv[4]))"
)


@dataclass(frozen=True, kw_only=True)
class ChildOptions:
    """How the children of a pool live.

    `memory_bytes` caps a child's address space, and strangers' files are opened only under a cap;
    None lifts it, and the one on open files: what models and CUDA reserve has no bound. A child
    takes `calls` calls, and ends itself after `idle_seconds` without one (None: never), which
    gives its memory back. `warm_up` is what it does first, within WARM_UP_SECONDS of its own.
    """

    memory_bytes: int | None = MEMORY_BYTES
    calls: int = CALLS_PER_CHILD
    idle_seconds: float | None = None
    warm_up: Callable[[], object] | None = None


@dataclass(frozen=True)
class _Deadline:
    """A moment of `time.monotonic()`, and what to raise past it."""

    at: float
    error: type[ChildTimeout] = ChildTimeout

    def earlier(self, patience: float) -> _Deadline:
        """The end of a caller's patience."""
        return _Deadline(min(self.at, time.monotonic() + patience), ChildBusy)

    def next_slice(self) -> float:
        """Seconds to wait in one piece. Raises past the deadline."""
        remaining = self.at - time.monotonic()
        if remaining <= 0:
            raise self.error
        return min(SLICE_SECONDS, remaining)


class ChildPool:
    """Runs functions in at most `size` child processes at once; used from any number of threads.

    Children start when they are needed.
    """

    def __init__(self, size: int, options: ChildOptions = ChildOptions()) -> None:
        self._size = size
        self._options = options
        self._reset()
        # In a forked process threads are gone and the children belong to somebody else.
        forked = weakref.WeakMethod(self._reset)
        os.register_at_fork(after_in_child=lambda: (reset := forked()) and reset())

    @overload
    def run(
        self,
        fn: Callable[..., Generator[Step, None, T]],
        *args: Any,
        limit: float,
        patience: float | None = None,
        hear: Callable[[Step], object] | None = None,
    ) -> T: ...

    @overload
    def run(
        self, fn: Callable[..., T], *args: Any, limit: float, patience: float | None = None
    ) -> T: ...

    def run(
        self,
        fn: Callable[..., Any],
        *args: Any,
        limit: float,
        patience: float | None = None,
        hear: Callable[[Any], object] | None = None,
    ) -> Any:
        """Call `fn(*args)` in a child and return its result, within `limit` seconds in all.

        `fn` is a function of an importable module; arguments are pickled, and so is the result,
        which may hold only plain values and the types of `asr.types`. An AsrError of the child is
        raised here as it is. Raises ChildTimeout, ChildCrashed, or EngineUnavailable
        (`engine_error`) for any other exception in the child. Whatever else interrupts the
        calling thread ends the child.

        `fn` may be a generator function: `hear` is called, in the calling thread, with each value
        that it yields as it comes, and the result is what it returns. What `hear` raises is
        logged and costs the call nothing.

        With `patience`, ChildBusy is raised when so many seconds go by before a child is free and
        warm, so that the rest of the limit is the call's own. A child that is still warming up
        goes on, for whoever comes next.
        """
        deadline = _Deadline(time.monotonic() + limit)
        ready = deadline if patience is None else deadline.earlier(patience)
        request = pickle.dumps((fn, args))
        child: _Child | None = None
        kept: list[_Child | None] = []
        try:
            with self._lock:
                while not self._idle:
                    self._returned.wait(ready.next_slice())
                # An exception sent by another thread lands only at calls and backward jumps:
                # the next three statements happen together, so that no place is ever lost.
                child = self._idle[-1]
                kept = [None]
                del self._idle[-1]
            answer = None
            while answer is None:
                child = self._usable(child, ready)
                child.get_ready(ready)
                answer = child.call(request, deadline, hear)
            kept = [child]
        except ChildBusy:
            kept = kept and [child]
            raise
        except BaseException:
            if child is not None:
                child.kill()
            raise
        finally:
            self._idle += kept
            with self._lock:
                self._returned.notify()
        return _opened(answer)

    def end_idle(self) -> None:
        """End the children that nobody uses; others start with the next calls."""
        with self._lock:
            for place, child in enumerate(self._idle):
                if child is not None and child.is_ready:
                    child.kill()
                    self._idle[place] = None

    def close(self) -> None:
        """End all children: calls in progress raise ChildCrashed, later ones EngineUnavailable."""
        self._starter.shutdown()  # the children's parent is this thread: they end with it
        self._closed = True
        with self._lock:
            for child in filter(None, self._idle):
                child.kill()

    def _reset(self) -> None:
        self._closed = False
        self._idle: list[_Child | None] = [None] * self._size  # None: room for a child to start
        # Entered as a plain lock: a condition's own __enter__ is Python code, and an exception
        # that lands inside it would leave the lock held for ever.
        self._lock: threading.Lock = threading.Lock()
        self._returned = threading.Condition(self._lock)
        # PR_SET_PDEATHSIG fires when the thread that started a child ends, so one thread that
        # lives as long as the pool starts them all.
        self._starter: ThreadPoolExecutor = ThreadPoolExecutor(1, "child-starter")

    def _usable(self, child: _Child | None, deadline: _Deadline) -> _Child:
        if child is not None:
            worn = self._closed or child.calls >= self._options.calls
            if not worn and (child.is_alive() or not child.is_ready):
                return child
            child.kill()
        try:
            started = self._starter.submit(_Child, self._options)
        except RuntimeError:
            raise EngineUnavailable("engine_error", "the pool is closed") from None
        return _awaited(started, deadline)


class _Child:
    """One process and the socket to it. A child that failed a call in any way is not used again."""

    def __init__(self, options: ChildOptions) -> None:
        self.calls = 0
        self.is_ready = options.warm_up is None
        self._warm_by = _Deadline(time.monotonic() + WARM_UP_SECONDS)
        self._socket, theirs = socket.socketpair()
        numbers = (os.getpid(), options.memory_bytes or 0, options.idle_seconds or 0.0)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  (this interpreter, fixed arguments)
                [
                    *(sys.executable, "-c", _START),
                    *map(str, (theirs.fileno(), *numbers)),
                    *sys.path,
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # OpenBLAS reserves memory for each core it sees, numpy's part in this needs one.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
        if not self.is_ready:
            request = pickle.dumps((options.warm_up, ()))
            self._socket.sendall(CALL_HEADER.pack(WARM_UP_SECONDS, len(request)) + request)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def get_ready(self, deadline: _Deadline) -> None:
        """Wait for the end of the warm-up.

        Raises what it raised; past the deadline what that raises: it may be waited for again.
        """
        while not self.is_ready:
            self._socket.settimeout(deadline.next_slice())
            try:
                begun = self._socket.recv(1, socket.MSG_PEEK)
            except TimeoutError:
                self._warm_by.next_slice()
                continue
            except ConnectionError:
                begun = b""
            if not begun:
                raise ChildCrashed(self._epitaph())
            _opened(self._receive_answer(_Deadline(time.monotonic() + _ANSWER_SECONDS)))
            self.is_ready = True

    def call(
        self, request: bytes, deadline: _Deadline, hear: Callable[[Any], object] | None
    ) -> bytes | None:
        """Send a pickled call and return the pickled answer; None if the child had just ended."""
        self.calls += 1
        limit = max(0.0, deadline.at - time.monotonic())
        try:
            self._send(CALL_HEADER.pack(limit, len(request)) + request, deadline)
            return self._receive_answer(deadline, hear)
        except (EOFError, ConnectionError):
            epitaph = self._epitaph()
            if self._process.poll() == IDLE_STATUS:
                return None
            raise ChildCrashed(epitaph) from None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._socket.close()

    def _send(self, data: bytes, deadline: _Deadline) -> None:
        rest = memoryview(data)
        while rest:
            self._socket.settimeout(deadline.next_slice())
            with suppress(TimeoutError):
                rest = rest[self._socket.send(rest) :]

    def _receive_answer(
        self, deadline: _Deadline, hear: Callable[[Any], object] | None = None
    ) -> bytes:
        """The last of what comes; what comes before it is for who hears."""
        while True:
            header = self._receive(ANSWER_HEADER.size, deadline)
            is_last, length = ANSWER_HEADER.unpack(header)
            if length > ANSWER_MAX_BYTES:
                raise EngineUnavailable("engine_error", "the result is too large")
            answer = self._receive(length, deadline)
            if is_last:
                return answer
            if hear is not None:
                _tell(hear, answer)

    def _receive(self, size: int, deadline: _Deadline) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._socket.settimeout(deadline.next_slice())
            with suppress(TimeoutError):
                piece = self._socket.recv(min(size - len(data), 1 << 20))
                if not piece:
                    raise EOFError
                data += piece
        return bytes(data)

    def _epitaph(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(_ENDING_SECONDS)
            how = f"by signal {-code}" if code < 0 else f"with status {code}"
            return f"the recogniser's process ended {how}"
        return "the recogniser's process hung up"


class _Answers(pickle.Unpickler):
    """Reads a child's answer: plain values and this package's own types, nothing that could run.

    A file that takes over a child through a hole in a codec must not reach the parent.
    """

    def find_class(self, module: str, name: str) -> Any:
        if module in {"asr.types", "asr.errors"}:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(module)


def _tell(hear: Callable[[Any], object], step: bytes) -> None:
    try:
        hear(_opened(step))
    except Exception:
        logger.exception("What a child said on the way was not heard")


def _opened(answer: bytes) -> Any:
    try:
        succeeded, value = _Answers(io.BytesIO(answer)).load()
    except Exception as error:
        raise EngineUnavailable("engine_error", "the result cannot be read") from error
    if succeeded:
        return value
    if isinstance(value, AsrError):
        raise value
    raise EngineUnavailable("engine_error", f"the recogniser failed with {value}")


def _awaited(started: Future[_Child], deadline: _Deadline) -> _Child:
    try:
        while True:
            with suppress(FutureTimeout):
                return started.result(deadline.next_slice())
    except OSError as error:
        raise EngineUnavailable("engine_error", "no process could be started") from error
    except BaseException:
        started.add_done_callback(_kill_unwanted)
        raise


def _kill_unwanted(started: Future[_Child]) -> None:
    if not started.exception():
        started.result().kill()
