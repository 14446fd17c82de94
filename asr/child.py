"""The inside of a child process: limits itself, then answers calls until its parent is gone."""

from __future__ import annotations

import ctypes
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from inspect import isgenerator
from io import BufferedRWPair
from typing import Any

from asr.errors import AsrError

CALL_HEADER = struct.Struct("!dQ")  # limit in seconds, length of the pickled call that follows
ANSWER_HEADER = struct.Struct("!?Q")  # whether it is the last, length of what follows, pickled
IDLE_STATUS = 75  # the exit status of a child that was idle for too long; no library's own
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_OPEN_FILES = 64  # PyAV, PocketSphinx and its model need fewer (measured)
_GRACE_SECONDS = 2.0  # the parent kills at the limit; the alarm is for when it cannot


def serve(fileno: int, parent: int, memory_bytes: int, idle_seconds: float) -> None:
    """Answer calls that come over the socket `fileno`, until its other end is closed.

    `memory_bytes` 0: no limit on memory and open files. `idle_seconds` 0: waits for ever.
    """
    die_with(parent)
    _restrict(memory_bytes)
    with socket.socket(fileno=fileno) as connection, connection.makefile("rwb") as stream:
        while _is_wanted(connection, idle_seconds) and (header := stream.read(CALL_HEADER.size)):
            limit, length = CALL_HEADER.unpack(header)
            # Left at its default action SIGALRM ends a child even while C code holds Python's
            # global lock, and even when the parent is frozen.
            signal.setitimer(signal.ITIMER_REAL, limit + _GRACE_SECONDS)
            _answer(stream, stream.read(length))
            signal.setitimer(signal.ITIMER_REAL, 0)


def _is_wanted(connection: socket.socket, idle_seconds: float) -> bool:
    """True once there is something to read; ends the process when nothing came for so long.

    It takes no leave: the parent tells by the exit status that a call which crossed with the end
    was never begun, and gives it to another child.
    """
    if not select.select([connection], [], [], idle_seconds or None)[0]:
        os._exit(IDLE_STATUS)
    return True


def die_with(parent: int) -> None:
    """Let the kernel kill this process when that one ends, however it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it went before the call above
        os._exit(1)


def _restrict(memory_bytes: int) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # a mask is inherited, Dramatiq sets one
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    sys.dont_write_bytecode = True
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _answer(stream: BufferedRWPair, request: bytes) -> None:
    try:
        fn, args = pickle.loads(request)  # noqa: S301  (from the parent)  # nosec B301
        result: Any = fn(*args)
        if isgenerator(result):
            result = _tell_steps(stream, result)
        answer = pickle.dumps((True, result))
    except AsrError as error:
        answer = pickle.dumps((False, error))
    except BaseException as error:  # a SystemExit of a library is no reason to end
        answer = pickle.dumps((False, type(error).__name__))
    _send(stream, answer, is_last=True)


def _tell_steps(stream: BufferedRWPair, steps: Iterator[Any]) -> Any:
    """Send whatever a generator yields as it comes, and return what it returns."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value
        _send(stream, pickle.dumps((True, step)), is_last=False)


def _send(stream: BufferedRWPair, answer: bytes, *, is_last: bool) -> None:
    stream.writelines((ANSWER_HEADER.pack(is_last, len(answer)), answer))
    stream.flush()
