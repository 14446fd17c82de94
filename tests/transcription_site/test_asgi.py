"""The ASGI application: few threads, one for the whole of a request, and static files before it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from asgiref.testing import ApplicationCommunicator
from django.conf import settings as django_settings
from django.core.signals import request_started
from django.db import connection, connections
from django.http import HttpRequest, HttpResponse
from django.urls import path

from jobs.models import Job
from tests.helpers import wait_until
from transcription_site import asgi
from transcription_site.asgi import WEB_THREADS, Application
from transcription_site.static_files import with_static_files
from transcription_site.urls import handler400, handler403, handler404, handler500
from transcription_site.urls import urlpatterns as site_patterns

__all__ = ["handler400", "handler403", "handler404", "handler500", "urlpatterns"]  # as addresses
pytestmark = pytest.mark.urls(__name__)

Answer = httpx2.Response


class Seen:
    """What the views of one test met."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.connections: list[Any] = []
        self.inside = 0
        self.gate = threading.Event()


seen = Seen()


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    seen.__init__()  # type: ignore[misc]
    yield
    seen.gate.set()


def ask_database(request: HttpRequest) -> HttpResponse:
    Job.objects.exists()
    wrapper = connections["default"]
    assert wrapper.connection is not None
    seen.connections.append(wrapper)
    if request.GET.get("stumble"):
        raise ZeroDivisionError
    return HttpResponse("asked")


def wait_at_gate(request: HttpRequest) -> HttpResponse:
    Job.objects.exists()
    seen.connections.append(connections["default"])
    seen.inside += 1
    assert seen.gate.wait(30)
    seen.inside -= 1
    return HttpResponse(request.GET.get("number", ""))


def tell_thread(request: HttpRequest) -> HttpResponse:
    seen.threads.append(threading.current_thread())
    return HttpResponse("told")


def thread_middleware(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    def answer(request: HttpRequest) -> Any:
        seen.threads.append(threading.current_thread())
        response = get_response(request)
        seen.threads.append(threading.current_thread())
        return response

    return answer


urlpatterns = [
    path("test/database", ask_database),
    path("test/gate", wait_at_gate),
    path("test/thread", tell_thread),
    *site_patterns,
]


def client_of(application: Any) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=application, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://localhost", timeout=30)


def get(
    *addresses: str, application: Any = asgi.application, headers: dict[str, str] | None = None
) -> list[Answer]:
    """Ask for all of them at once."""

    async def ask() -> list[Answer]:
        async with client_of(application) as client:
            return await asyncio.gather(
                *[client.get(address, headers=headers) for address in addresses]
            )

    return asyncio.run(ask())


# --- threads ---


def test_the_whole_of_a_request_goes_through_one_thread(settings: Any) -> None:
    mine = f"{__name__}.thread_middleware"
    settings.MIDDLEWARE = [mine, *settings.MIDDLEWARE, mine]
    (answer,) = get("/test/thread", application=Application())
    assert (answer.status_code, answer.text) == (200, "told")
    assert len(seen.threads) == 5
    (thread,) = set(seen.threads)
    assert thread.name.startswith("request")
    assert thread is not threading.current_thread()


def test_no_more_requests_are_answered_at_once_than_there_are_threads(
    transactional_db: None,
) -> None:
    connection.close()  # each of the threads takes one of the pool
    crowd = WEB_THREADS + 8
    inner = Application()
    most = 0

    async def ask() -> list[Answer]:
        nonlocal most
        async with client_of(inner) as client:
            calls = [client.get(f"/test/gate?number={number}") for number in range(crowd)]
            tasks = [asyncio.create_task(call) for call in calls]
            await asyncio.to_thread(wait_until, all_are_there)
            most = seen.inside
            seen.gate.set()
            return await asyncio.gather(*tasks)

    def all_are_there() -> bool:
        return seen.inside + inner._threads._work_queue.qsize() == crowd

    answers = asyncio.run(ask())
    assert most == WEB_THREADS
    assert [answer.text for answer in answers] == [str(number) for number in range(crowd)]


def test_that_the_process_serves_is_told_while_all_threads_wait(transactional_db: None) -> None:
    connection.close()
    inner = Application()

    async def ask() -> Answer:
        async with client_of(inner) as client:
            calls = [client.get("/test/gate") for _ in range(WEB_THREADS + 4)]
            tasks = [asyncio.create_task(call) for call in calls]
            await asyncio.to_thread(wait_until, lambda: seen.inside == WEB_THREADS)
            answer = await asyncio.wait_for(client.get("/healthz"), 20)
            assert seen.inside == WEB_THREADS
            seen.gate.set()
            await asyncio.gather(*tasks)
            return answer

    assert asyncio.run(ask()).status_code == 200


def test_each_thread_finds_a_connection_in_the_pool() -> None:
    pool = django_settings.DATABASES["default"].get("OPTIONS", {}).get("pool")
    if connection.vendor == "postgresql":
        assert pool["max_size"] >= WEB_THREADS
    else:
        assert pool is None


def test_nothing_but_http_and_websockets_is_spoken() -> None:
    async def never(*_: Any) -> Any:
        raise AssertionError

    with pytest.raises(ValueError, match="lifespan"):
        asyncio.run(asgi.application({"type": "lifespan", "path": "/"}, never, never))


def test_the_process_may_have_as_many_connections_as_the_machine_lets_it() -> None:
    program = (
        "import resource as r; hard = r.getrlimit(r.RLIMIT_NOFILE)[1]"
        "; r.setrlimit(r.RLIMIT_NOFILE, (256, hard)); import transcription_site.asgi"
        "; print(*r.getrlimit(r.RLIMIT_NOFILE), hard)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    soft, hard, before = map(int, done.stdout.split())
    assert hard == before
    assert soft == (asgi.MAX_FILES if hard == -1 else min(hard, asgi.MAX_FILES))


# --- the database's connections ---


def is_given_back(wrapper: Any) -> bool:
    return wrapper.connection is None


def lent() -> int:
    """Connections of the pool that somebody has; without a pool none can be."""
    pool = getattr(connection, "pool", None)
    if pool is None:
        return 0
    stats = pool.get_stats()
    return int(stats["pool_size"] - stats["pool_available"])


@pytest.mark.parametrize(("query", "status"), [("", 200), ("?stumble=1", 500)])
def test_a_request_gives_its_connection_back(
    transactional_db: None, query: str, status: int
) -> None:
    connection.close()
    answers = get(*[f"/test/database{query}"] * (2 * WEB_THREADS))
    assert {answer.status_code for answer in answers} == {status}
    assert len(seen.connections) == 2 * WEB_THREADS
    assert all(is_given_back(wrapper) for wrapper in seen.connections)
    assert lent() == 0


def test_a_caller_who_hangs_up_leaves_no_connection_behind(transactional_db: None) -> None:
    connection.close()
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/test/gate",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }

    async def hang_up() -> None:
        caller = ApplicationCommunicator(asgi.application, scope)
        await caller.send_input({"type": "http.request", "body": b""})
        await asyncio.to_thread(wait_until, lambda: seen.inside)
        await caller.send_input({"type": "http.disconnect"})
        assert await caller.receive_nothing(0.2)
        assert seen.inside == 1  # a thread cannot be taken from its work, nor the body from it
        seen.gate.set()
        await caller.wait(30)

    asyncio.run(hang_up())
    wait_until(lambda: is_given_back(seen.connections[0]))
    assert lent() == 0
    assert get("/test/database")[0].status_code == 200


# --- static files ---


@pytest.fixture
def reached() -> Iterator[list[str]]:
    """The addresses that Django itself was asked for."""
    addresses: list[str] = []

    def note(sender: Any, scope: dict[str, Any], **_: Any) -> None:
        addresses.append(scope["path"])

    request_started.connect(note)
    yield addresses
    request_started.disconnect(note)


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("/static/admin/css/base.css", "text/css"),
        ("/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui.css", "text/css"),
    ],
)
def test_a_static_file_is_served_before_django_and_keeps_its_type(
    address: str, kind: str, reached: list[str]
) -> None:
    (answer,) = get(address)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith(kind)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'"
    assert "Strict-Transport-Security" not in answer.headers
    assert answer.text.strip()
    assert reached == []


def test_a_static_file_is_packed_for_who_takes_that() -> None:
    address = "/static/django_htmx/htmx-2.min.js"
    (packed,) = get(address, headers={"Accept-Encoding": "br;q=0.5, gzip"})
    (plain,) = get(address, headers={"Accept-Encoding": "identity"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert "Accept-Encoding" in packed.headers["Vary"]
    assert packed.content == plain.content
    sizes = [int(answer.headers["Content-Length"]) for answer in (packed, plain)]
    assert sizes[0] < 0.4 * sizes[1]
    assert packed.headers["Content-Security-Policy"] == plain.headers["Content-Security-Policy"]
    (known,) = get(address, headers={"If-None-Match": packed.headers["ETag"]})
    assert known.status_code == 304


def test_static_files_too_have_a_request_id_each_and_no_more_than_one() -> None:
    addresses = ["/static/admin/css/base.css", "/static/admin/css/base.css", "/static/nothing.css"]
    named = [answer.headers.get_list("X-Request-ID") for answer in get(*addresses)]
    assert [len(ids) for ids in named] == [1, 1, 1]
    assert len({ids[0] for ids in named}) == 3


def test_static_files_too_tell_browsers_to_stay_with_https(settings: Any) -> None:
    settings.SECURE_HSTS_SECONDS = 60
    (answer,) = get("/static/admin/css/base.css", application=with_static_files(Application()))
    assert answer.headers["Strict-Transport-Security"] == "max-age=60"


@pytest.mark.parametrize(
    "address",
    ["/static/nothing.css", "/static/admin/css/", "/static/..%2Fsettings.py", "/staticadmin"],
)
def test_what_is_no_static_file_is_djangos_to_answer(address: str, reached: list[str]) -> None:
    (answer,) = get(address)
    assert answer.status_code == 404
    assert answer.json()["errors"][0]["code"] == "not_found"
    assert len(reached) == 1


def test_of_two_files_of_one_name_that_counts_which_django_would_find(
    tmp_path: Path, settings: Any
) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        (folder / "admin" / "css").mkdir(parents=True)
        (folder / "own.txt").write_text(folder.name)
        (folder / "admin" / "css" / "base.css").write_text(folder.name)
    settings.STATICFILES_DIRS = folders
    application = with_static_files(Application())
    addresses = ("/static/own.txt", "/static/admin/css/base.css")
    assert [answer.text for answer in get(*addresses, application=application)] == ["first"] * 2


# --- as a whole ---


def test_what_a_server_asks_is_answered(db: None) -> None:
    healthy, pages, unknown = get("/healthz", "/docs", "/nothing")
    assert [each.status_code for each in (healthy, pages, unknown)] == [200, 200, 404]
    assert len({each.headers["X-Request-ID"] for each in (healthy, pages, unknown)}) == 3
