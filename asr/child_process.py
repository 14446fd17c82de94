"""A child process as its parent has it: started, called within a deadline, killed."""

from __future__ import annotations

import io
import logging
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from asr.child import ANSWER_HEADER, CALL_HEADER, IDLE_STATUS
from asr.errors import AsrError, ChildBusy, ChildCrashed, ChildTimeout, EngineUnavailable

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

logger = logging.getLogger(__name__)


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
class Deadline:
    """A moment of `time.monotonic()`, and what to raise past it."""

    at: float
    error: type[ChildTimeout] = ChildTimeout

    def earlier(self, patience: float) -> Deadline:
        """The end of a caller's patience."""
        return Deadline(min(self.at, time.monotonic() + patience), ChildBusy)

    def next_slice(self) -> float:
        """Seconds to wait in one piece. Raises past the deadline."""
        remaining = self.at - time.monotonic()
        if remaining <= 0:
            raise self.error
        return min(SLICE_SECONDS, remaining)


class Child:
    """One process and the socket to it. A child that failed a call in any way is not used again."""

    def __init__(self, options: ChildOptions) -> None:
        self.calls = 0
        self.is_ready = options.warm_up is None
        self._warm_by = Deadline(time.monotonic() + WARM_UP_SECONDS)
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

    def get_ready(self, deadline: Deadline) -> None:
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
            opened(self._receive_answer(Deadline(time.monotonic() + _ANSWER_SECONDS)))
            self.is_ready = True

    def call(
        self, request: bytes, deadline: Deadline, hear: Callable[[Any], object] | None
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

    def _send(self, data: bytes, deadline: Deadline) -> None:
        rest = memoryview(data)
        while rest:
            self._socket.settimeout(deadline.next_slice())
            with suppress(TimeoutError):
                rest = rest[self._socket.send(rest) :]

    def _receive_answer(
        self, deadline: Deadline, hear: Callable[[Any], object] | None = None
    ) -> bytes:
        """The last of what comes; what comes before it is for who hears."""
        room = ANSWER_MAX_BYTES  # for all together
        while True:
            header = self._receive(ANSWER_HEADER.size, deadline)
            is_last, length = ANSWER_HEADER.unpack(header)
            room -= length
            if room < 0:
                raise EngineUnavailable("engine_error", "the result is too large")
            answer = self._receive(length, deadline)
            if is_last:
                return answer
            if hear is not None:
                _tell(hear, answer)

    def _receive(self, size: int, deadline: Deadline) -> bytes:
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


def opened(answer: bytes) -> Any:
    """What a child answered; raises what it raised, or EngineUnavailable."""
    try:
        succeeded, value = _Answers(io.BytesIO(answer)).load()
    except Exception as error:
        raise EngineUnavailable("engine_error", "the result cannot be read") from error
    if succeeded:
        return value
    if isinstance(value, AsrError):
        raise value
    raise EngineUnavailable("engine_error", f"the recogniser failed with {value}")


class _Answers(pickle.Unpickler):
    """Reads a child's answer: plain values and this package's own types, nothing that could run.

    A file that takes over a child through a hole in a codec must not reach the parent.
    """

    def find_class(self, module: str, name: str) -> Any:
        if module in {"asr.types", "asr.errors"} and "." not in name:
            found = super().find_class(module, name)
            # A dotted name leads on into whatever the module has imported, and so does a plain one.
            if getattr(found, "__module__", None) == module:
                return found
        raise pickle.UnpicklingError(module)


def _tell(hear: Callable[[Any], object], step: bytes) -> None:
    try:
        hear(opened(step))
    except Exception:
        logger.exception("What a child said on the way was not heard")
