"""A pool of child processes that can be killed.

Decoding and local engines run foreign C code on strangers' files. Such code may hang while it
holds Python's global lock, crash, or take all memory; in a child each of these is the error of one
call. `multiprocessing`, `concurrent.futures` and `pebble` were tried: one cannot kill a stuck
child, two are dead for good once an idle child has been killed, and all import the parent's main
module (Django, the web server) into every child.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
import weakref
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import Any, TypeVar, overload

from asr.child_process import Child, ChildOptions, Deadline, opened
from asr.errors import ChildBusy, EngineUnavailable

T = TypeVar("T")
Step = TypeVar("Step")


class ChildPool:
    """Runs functions in at most `size` child processes at once; used from any number of threads.

    Children start when they are needed.
    """

    def __init__(self, size: int, options: ChildOptions | None = None) -> None:
        self._size = size
        self._options = options or ChildOptions()
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
        deadline = Deadline(time.monotonic() + limit)
        ready = deadline if patience is None else deadline.earlier(patience)
        request = pickle.dumps((fn, args))
        child: Child | None = None
        kept: list[Child | None] = []
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
        return opened(answer)

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
        self._idle: list[Child | None] = [None] * self._size  # None: room for a child to start
        # Entered as a plain lock: a condition's own __enter__ is Python code, and an exception
        # that lands inside it would leave the lock held for ever.
        self._lock: threading.Lock = threading.Lock()
        self._returned = threading.Condition(self._lock)
        # PR_SET_PDEATHSIG fires when the thread that started a child ends, so one thread that
        # lives as long as the pool starts them all.
        self._starter: ThreadPoolExecutor = ThreadPoolExecutor(1, "child-starter")

    def _usable(self, child: Child | None, deadline: Deadline) -> Child:
        if child is not None:
            worn = self._closed or child.calls >= self._options.calls
            if not worn and (child.is_alive() or not child.is_ready):
                return child
            child.kill()
        try:
            started = self._starter.submit(Child, self._options)
        except RuntimeError:
            raise EngineUnavailable("engine_error", "the pool is closed") from None
        return _awaited(started, deadline)


def _awaited(started: Future[Child], deadline: Deadline) -> Child:
    try:
        while True:
            with suppress(FutureTimeout):
                return started.result(deadline.next_slice())
    except OSError as error:
        raise EngineUnavailable("engine_error", "no process could be started") from error
    except BaseException:
        started.add_done_callback(_kill_unwanted)
        raise


def _kill_unwanted(started: Future[Child]) -> None:
    if not started.exception():
        started.result().kill()
