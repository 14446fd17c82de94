"""Watching jobs by WebSocket: `/ws/transcript/{jobId}`, and `/ws/transcripts` for all of a user's.

A socket has no queue of its own. It has a place among the events that all readers of its job
share, and reads rows for what was before.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs
from uuid import UUID

from django.conf import settings
from django.db import Error as DatabaseError
from rest_framework import status
from rest_framework.exceptions import APIException, NotFound

from jobs.api.authentication import Caller
from jobs.api.errors import DatabaseUnavailable, Erased
from jobs.api.socket import Socket
from jobs.api.socket_entry import Credentials, enter_job, enter_user, refuse_plain, sign_in
from jobs.database import release_connection
from jobs.looks import compact_json, events_of, running_jobs
from jobs.previews import Preview
from jobs.results import load_snapshots
from jobs.watching import Page, Watch

THREADS: Final = 4  # that sign in and read rows
SHOWN_AT_FIRST: Final = 100  # of a user's jobs
CHECK_SECONDS: Final = 30.0  # between two looks whether those who watch are still signed in
MAX_NUMBER: Final = 2**31 - 1  # of an event, by its column
INTERNAL_ERROR: Final = 1011
ALL_JOBS: Final = "/ws/transcripts"
ONE_JOB: Final = "/ws/transcript/"

logger = logging.getLogger(__name__)
T = TypeVar("T")


class TooManySockets(APIException):
    """The user has as many open as one may."""

    status_code = status.HTTP_429_TOO_MANY_REQUESTS
    default_code = "too_many_sockets"


class Sockets:
    """All WebSockets of one event loop."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="sockets")
        self._of_user: Counter[str] = Counter()
        self._serving: dict[Credentials, dict[Socket, asyncio.Task[None]]] = {}
        self._checking: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return self._of_user.total()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one, until it is over."""
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        scope["query_string"] = b""  # the server logs it, and somebody may have put a token there
        socket = Socket(receive, send)
        await socket.accept(scope.get("subprotocols") or [])
        serving = asyncio.create_task(self._serve(socket, scope, query))
        try:
            await socket.listen()
        finally:
            serving.cancel()
            await asyncio.wait([serving])

    async def _serve(self, socket: Socket, scope: Any, query: Mapping[str, list[str]]) -> None:
        try:
            refuse_plain(scope)
            credentials, path = Credentials.of(scope), scope["path"]
            if path == ALL_JOBS:
                asked = query.get("userId", [None])[0]
                await self._show_user(socket, credentials, asked)
            else:
                await self._show_job(socket, credentials, _job_id(path))
        except APIException as refused:
            await socket.refuse(refused)
        except DatabaseError:
            await socket.refuse(DatabaseUnavailable())
        except OSError:
            pass  # hung up, or dropped
        except Exception:
            logger.exception("A WebSocket failed")
            await socket.close(INTERNAL_ERROR)

    async def _show_job(self, socket: Socket, credentials: Credentials, job_id: UUID) -> None:
        caller, stamp = await self._in_thread(enter_job, credentials, job_id)
        with (
            self._admitted(socket, credentials, caller),
            self._watch.job(job_id, stamp.sequence) as channel,
        ):
            page = channel.page  # before the rows are read: nothing falls between them
            since = _since(await socket.first_message())
            texts, number = await self._in_thread(_read_job, job_id, since)
            for text in texts:
                await socket.say(text)
            await _follow(socket, page, {job_id: number}, channel.previews)

    async def _show_user(self, socket: Socket, credentials: Credentials, asked: str | None) -> None:
        caller, user_id = await self._in_thread(enter_user, credentials, asked)
        with (
            self._admitted(socket, credentials, caller),
            self._watch.user(user_id) as channel,
        ):
            await channel.ready.wait()
            page = channel.page
            text, numbers = await self._in_thread(_read_user, user_id)
            await socket.say(text)
            await _follow(socket, page, numbers, previews={})

    @contextmanager
    def _admitted(self, socket: Socket, credentials: Credentials, caller: Caller) -> Iterator[None]:
        """Count it among those of its user, and have it looked after."""
        name, task = caller.username, asyncio.current_task()
        assert task is not None  # noqa: S101
        if not caller.is_service and self._of_user[name] >= settings.SOCKETS_PER_USER:
            raise TooManySockets
        self._of_user[name] += 1
        self._serving.setdefault(credentials, {})[socket] = task
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._check())
        try:
            yield
        finally:
            self._of_user[name] -= 1
            if not self._of_user[name]:
                del self._of_user[name]
            del self._serving[credentials][socket]
            if not self._serving[credentials]:
                del self._serving[credentials]

    async def _check(self) -> None:
        """End the sockets of tokens and sessions that are over, and of users who may not any more.

        One statement for each token, however many sockets it has opened.
        """
        while self._serving:
            await asyncio.sleep(CHECK_SECONDS)
            for credentials in list(self._serving):
                try:
                    await self._in_thread(sign_in, credentials)
                except APIException as refused:
                    for socket, task in list(self._serving.get(credentials, {}).items()):
                        task.cancel()
                        await socket.refuse(refused)
                except DatabaseError as error:
                    logger.warning("Who watches is not checked: %s", error)

    async def _in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _released, call, *arguments)


def _released(call: Callable[..., T], *arguments: Any) -> T:
    try:
        return call(*arguments)
    finally:
        release_connection()


async def _follow(
    socket: Socket,
    page: Page,
    shown: Mapping[UUID, int],
    previews: Mapping[int, Preview],
) -> None:
    """Tell what follows, for ever; by job, what was `shown` goes up to a number.

    Of `previews`, by chunk, whatever is there by then and was not told yet.
    """
    told: dict[int, Preview] = {}
    while not page.is_last:
        for index in list(previews):
            preview = previews.get(index)  # the newest, however long the one before it took
            if preview is not None and told.get(index) is not preview:
                told[index] = preview
                await socket.say(preview.text)
        page = await page.turn()
        for event in page.events:
            if event.sequence > shown.get(event.job_id, 0):
                await socket.say(event.text)
    raise Erased


def _job_id(path: str) -> UUID:
    try:
        job_id = UUID(path.removeprefix(ONE_JOB))
    except ValueError:
        raise NotFound from None
    if path != f"{ONE_JOB}{job_id}":
        raise NotFound
    return job_id


def _since(message: str) -> int | None:
    """The number that the caller knows; None for whom has none, or says something else."""
    try:
        said = json.loads(message)
    except ValueError:
        return None
    since = said.get("since") if isinstance(said, dict) else None
    return since if type(since) is int and 0 <= since <= MAX_NUMBER else None


def _read_job(job_id: UUID, since: int | None) -> tuple[list[str], int]:
    """What the caller does not know, and the number that it goes up to.

    A number that the job has not come to yet is none of this job's history: a snapshot then.
    """
    if since is not None:
        events = events_of(job_id, max(since - 1, 0))
        if since == 0 or (events and events[0].sequence == since):
            news = [event for event in events if event.sequence > since]
            return [event.text for event in news], news[-1].sequence if news else since
    snapshot = load_snapshots([job_id]).get(job_id)
    if snapshot is None:
        raise Erased
    number, result = snapshot
    return [compact_json({"type": "snapshot", "sequence": number, "transcript": result})], number


def _read_user(user_id: str) -> tuple[str, dict[UUID, int]]:
    """The snapshot of all jobs in progress, newest first, and by job the number it goes up to."""
    job_ids = running_jobs(user_id, SHOWN_AT_FIRST)
    snapshots = load_snapshots(job_ids)
    shown = {job_id: snapshots[job_id] for job_id in job_ids if job_id in snapshots}
    message = {
        "type": "snapshot",
        "transcripts": [result for _, result in shown.values()],
        "sequences": {str(job_id): number for job_id, (number, _) in shown.items()},
    }
    return compact_json(message), {job_id: number for job_id, (number, _) in shown.items()}
