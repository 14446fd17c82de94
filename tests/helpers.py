"""What tests do again and again: call over HTTP, call at the same moment, run a worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dramatiq
import uvicorn
from django.db import connection
from dramatiq.middleware import GroupCallbacks
from rest_framework.test import APIClient


def broker() -> Any:
    return dramatiq.get_broker()


def group_backend() -> Any:
    found = next(m for m in broker().middleware if isinstance(m, GroupCallbacks))
    return found.rate_limiter_backend


def client_of(token: str | None = None, **options: Any) -> APIClient:
    client = APIClient(raise_request_exception=False, **options)
    if token is not None:
        client.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    return client


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Call all at the same moment, each in a thread; their results, or what they raised."""
    barrier = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)

    def run(position: int, call: Callable[[], Any]) -> None:
        try:
            barrier.wait(30)
            results[position] = call()
        except Exception as error:
            results[position] = error
        finally:
            connection.close()

    threads = [
        threading.Thread(target=run, args=(position, call)) for position, call in enumerate(calls)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return results


def together_in_a_group(commit: Any, *calls: Callable[[], Any]) -> list[Any]:
    """The same for calls that write by a GroupCommit: the first by itself, the others as one."""
    write, sizes = commit._write, list[int]()

    def held_up(wishes: Sequence[Any]) -> Any:
        if not sizes:
            wait_until(lambda: len(commit._waiting) == len(calls) - 1)
        sizes.append(len(wishes))
        return write(wishes)

    commit._write = held_up
    try:
        results = together(*calls)
    finally:
        commit._write = write
    assert sizes[:2] == [1, len(calls) - 1]
    return results


def wait_until(condition: Callable[[], Any], seconds: float = 30) -> None:
    """Look again and again; the test fails when the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@contextmanager
def served(application: Any, **options: Any) -> Iterator[tuple[int, uvicorn.Server]]:
    """Serve over a real socket, from a thread; the port, and the server."""
    config = uvicorn.Config(
        application,
        port=0,
        lifespan="off",
        log_config=None,
        **{"timeout_graceful_shutdown": 1, **options},
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield int(server.servers[0].sockets[0].getsockname()[1]), server
    finally:
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


def is_somebody_waiting() -> bool:
    """Whether one connection waits for another's lock."""
    if connection.vendor == "sqlite":
        return True  # it has one writer at a time
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])


class WorkerInTest:
    """A real Dramatiq worker in this process."""

    def __init__(self) -> None:
        self._worker: dramatiq.Worker | None = None
        self._middleware: list[Any] = []

    def start(self, threads: int = 4, queues: set[str] | None = None) -> None:
        self._middleware = list(broker().middleware)
        self._worker = dramatiq.Worker(
            broker(), queues=queues, worker_threads=threads, worker_timeout=20
        )
        self._worker.start()

    def stop(self) -> None:
        if self._worker is not None:
            self._worker.stop(timeout=30_000)
            self._worker = None
            broker().middleware[:] = self._middleware  # a worker adds one of its own
