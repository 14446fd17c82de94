"""A pool of child processes that can be killed.

Decoding and local engines run foreign C code on strangers' files. Such code may hang while it
holds Python's global lock, crash, or take all memory; in a child each of these is the error of one
call. `multiprocessing`, `concurrent.futures` and `pebble` were tried: one cannot kill a stuck
child, two are dead for good once an idle child has been killed, and all import the parent's main
module (Django, the web server) into every child.
"""

from __future__ import annotations

import io
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import Any, TypeVar

from asr.child import ANSWER_HEADER, CALL_HEADER
from asr.errors import AsrError, ChildCrashed, ChildTimeout, EngineUnavailable

T = TypeVar("T")

SLICE_SECONDS = 0.5  # the longest wait in one piece: an exception sent to the thread lands after it
CALLS_PER_CHILD = 200  # then a fresh child takes its place, should a C library leak memory
MEMORY_BYTES = 1 << 30  # PocketSphinx peaks at 453 MB virtual on a 120 s utterance (measured)
_ANSWER_MAX_BYTES = 64 << 20  # far more than five minutes of words or samples
_START = (
    "import sys; sys.path[:] = sys.argv[4:]; from asr.child import serve; "
    "serve(*map(int, sys.argv[1:4]))"
)


class ChildPool:
    """Runs functions in at most `size` child processes at once; used from any number of threads.

    Children start when they are needed. `memory_bytes` caps a child's address space.
    """

    def __init__(
        self,
        size: int,
        *,
        calls_per_child: int = CALLS_PER_CHILD,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._size = size
        self._calls_per_child = calls_per_child
        self._memory_bytes = memory_bytes
        self._reset()
        # In a forked process threads are gone and the children belong to somebody else.
        forked = weakref.WeakMethod(self._reset)
        os.register_at_fork(after_in_child=lambda: (reset := forked()) and reset())

    def run(self, fn: Callable[..., T], *args: Any, limit: float) -> T:
        """Call `fn(*args)` in a child and return its result, within `limit` seconds in all.

        `fn` is a function of an importable module; arguments are pickled, and so is the result,
        which may hold only plain values and the types of `asr.types`. An AsrError of the child is
        raised here as it is. Raises ChildTimeout, ChildCrashed, or EngineUnavailable
        (`engine_error`) for any other exception in the child. Whatever else interrupts the
        calling thread ends the child.
        """
        deadline = time.monotonic() + limit
        request = pickle.dumps((fn, args))
        child: _Child | None = None
        kept: list[_Child | None] = []
        try:
            with self._lock:
                while not self._idle:
                    self._returned.wait(_next_slice(deadline))
                # An exception sent by another thread lands only at calls and backward jumps:
                # the next three statements happen together, so that no place is ever lost.
                child = self._idle[-1]
                kept = [None]
                del self._idle[-1]
            child = self._usable(child, deadline)
            answer = child.call(request, deadline)
            kept = [child]
        except BaseException:
            if child is not None:
                child.kill()
            raise
        finally:
            self._idle += kept
            with self._lock:
                self._returned.notify()
        result: T = _opened(answer)
        return result

    def close(self) -> None:
        """End all children: calls in progress raise ChildCrashed, later ones EngineUnavailable."""
        self._starter.shutdown()  # the children's parent is this thread: they end with it
        self._calls_per_child = 0
        with self._lock:
            for child in filter(None, self._idle):
                child.kill()

    def _reset(self) -> None:
        self._idle: list[_Child | None] = [None] * self._size  # None: room for a child to start
        # Entered as a plain lock: a condition's own __enter__ is Python code, and an exception
        # that lands inside it would leave the lock held for ever.
        self._lock = threading.Lock()
        self._returned = threading.Condition(self._lock)
        # PR_SET_PDEATHSIG fires when the thread that started a child ends, so one thread that
        # lives as long as the pool starts them all.
        self._starter = ThreadPoolExecutor(1, "child-starter")

    def _usable(self, child: _Child | None, deadline: float) -> _Child:
        if child is not None:
            if child.is_alive() and child.calls < self._calls_per_child:
                return child
            child.kill()
        try:
            started = self._starter.submit(_Child, self._memory_bytes)
        except RuntimeError:
            raise EngineUnavailable("engine_error", "the pool is closed") from None
        return _awaited(started, deadline)


class _Child:
    """One process and the socket to it. A child that failed a call in any way is not used again."""

    def __init__(self, memory_bytes: int) -> None:
        self.calls = 0
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  (this interpreter, fixed arguments)
                [
                    *(sys.executable, "-c", _START),
                    *map(str, (theirs.fileno(), os.getpid(), memory_bytes)),
                    *sys.path,
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # OpenBLAS reserves memory for each core it sees, numpy's part in this needs one.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def call(self, request: bytes, deadline: float) -> bytes:
        """Send a pickled call and return the pickled answer."""
        self.calls += 1
        limit = max(0.0, deadline - time.monotonic())
        try:
            self._send(CALL_HEADER.pack(limit, len(request)) + request, deadline)
            (length,) = ANSWER_HEADER.unpack(self._receive(ANSWER_HEADER.size, deadline))
            if length > _ANSWER_MAX_BYTES:
                raise EngineUnavailable("engine_error", "the result is too large")
            return self._receive(length, deadline)
        except (EOFError, ConnectionError):
            raise ChildCrashed(self._epitaph()) from None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._socket.close()

    def _send(self, data: bytes, deadline: float) -> None:
        rest = memoryview(data)
        while rest:
            self._socket.settimeout(_next_slice(deadline))
            with suppress(TimeoutError):
                rest = rest[self._socket.send(rest) :]

    def _receive(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._socket.settimeout(_next_slice(deadline))
            with suppress(TimeoutError):
                piece = self._socket.recv(min(size - len(data), 1 << 20))
                if not piece:
                    raise EOFError
                data += piece
        return bytes(data)

    def _epitaph(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(1.0)
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


def _next_slice(deadline: float) -> float:
    """Seconds to wait in one piece before the deadline. Raises ChildTimeout past it."""
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise ChildTimeout
    return min(SLICE_SECONDS, remaining)


def _awaited(started: Future[_Child], deadline: float) -> _Child:
    try:
        while True:
            with suppress(FutureTimeout):
                return started.result(_next_slice(deadline))
    except OSError as error:
        raise EngineUnavailable("engine_error", "no process could be started") from error
    except BaseException:
        started.add_done_callback(_kill_unwanted)
        raise


def _kill_unwanted(started: Future[_Child]) -> None:
    if not started.exception():
        started.result().kill()
