"""The HTTP client: one for each thread, and waits that outlast no call and hold no thread."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpcore2
import httpx2
import pytest
from dramatiq.middleware.threading import raise_thread_exception

from asr import deadline_http
from asr.deadline_http import Clients
from tests.asr.tls import tls_server
from tests.asr.vendor import Vendor, _Handler, _Server, serving
from tests.helpers import wait_until

LONG, SOON = 60.0, 20.0
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nword"


class Struck(BaseException):
    """What stops a thread."""


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    with serving() as vendor:
        yield vendor


@pytest.fixture
def clients(vendor: Vendor) -> Iterator[Clients]:
    made = Clients(vendor.url, {})
    yield made
    made.close()


class Speaker:
    """A server over TLS that does what the test says once it has been asked."""

    def __init__(self) -> None:
        self.url = ""
        self.port = 0
        self.asked = threading.Event()
        self.go_on = threading.Event()
        self.version: str | None = None
        self.answer = ANSWER

    def talk(self, caller: ssl.SSLSocket) -> None:
        self.version = caller.version()
        while caller.recv(65_536):
            self.asked.set()
            assert self.go_on.wait(LONG)
            caller.sendall(self.answer)


@pytest.fixture
def speaker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Speaker]:
    made = Speaker()
    with tls_server(tmp_path, made.talk) as port:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls.pem"))
        made.port, made.url = port, f"https://127.0.0.1:{port}"
        yield made
        made.go_on.set()


@pytest.fixture
def tls_clients(speaker: Speaker) -> Iterator[Clients]:
    made = Clients(speaker.url, {})
    yield made
    made.close()


# --- one for each thread ---


def test_a_thread_has_one_client_and_the_next_another_until_all_are_in_use(
    clients: Clients,
) -> None:
    found: list[tuple[httpx2.Client, bool]] = []

    def take() -> None:
        mine = clients.mine()
        found.append((mine, all(clients.mine() is mine for _ in range(3))))

    for _ in range(2 * deadline_http._POOLS):
        thread = threading.Thread(target=take)
        thread.start()
        thread.join(30)
    assert all(same for _, same in found)
    first = [client for client, _ in found[: deadline_http._POOLS]]
    assert len(set(first)) == deadline_http._POOLS
    assert [client for client, _ in found[deadline_http._POOLS :]] == first


def test_all_of_them_are_closed(clients: Clients) -> None:
    clients.close()
    assert all(client.is_closed for client in clients._all)
    with pytest.raises(RuntimeError, match="closed"):
        clients.mine().get("http://127.0.0.1:1/")


# --- waiting ---


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each wait for the network was to be; they are short here."""
    waits: list[float] = []
    look = deadline_http._DeadlineStream._readable

    def looked(self: Any, seconds: float) -> bool:
        waits.append(seconds)
        return look(self, seconds)

    monkeypatch.setattr(deadline_http, "_SLICE_SECONDS", 0.05)
    monkeypatch.setattr(deadline_http._DeadlineStream, "_readable", looked)
    return waits


def test_a_long_wait_is_made_of_short_ones_and_reads_once(
    vendor: Vendor, clients: Clients, looks: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[float | None] = []
    connect = httpcore2.SyncBackend.connect_tcp

    def connected(self: Any, *args: Any, **kwargs: Any) -> Any:
        stream = connect(self, *args, **kwargs)
        read = stream.read

        def noted(max_bytes: int, timeout: float | None = None) -> bytes:
            reads.append(timeout)
            return read(max_bytes, timeout)

        monkeypatch.setattr(stream, "read", noted)
        return stream

    monkeypatch.setattr(httpcore2.SyncBackend, "connect_tcp", connected)

    def answer(handler: Any) -> None:
        wait_until(lambda: len(looks) > 5)
        handler.wfile.write(ANSWER)

    vendor.answer = answer
    assert clients.mine().get(vendor.url, timeout=LONG).text == "word"
    assert len(looks) > 5
    assert max(looks) <= 0.05
    assert len(reads) == 1  # so none of the waits ended in an exception


def call_in_thread(clients: Clients, url: str) -> tuple[threading.Thread, list[BaseException]]:
    ended: list[BaseException] = []

    def call() -> None:
        try:
            clients.mine().get(url, timeout=LONG)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread, ended


def strike(thread: threading.Thread, ended: list[BaseException]) -> None:
    """It must land while the server says nothing: long before the call's own time is over."""
    assert thread.ident is not None
    raise_thread_exception(thread.ident, Struck)
    thread.join(SOON)
    assert [type(error) for error in ended] == [Struck]


def test_a_thread_that_waits_for_an_answer_can_be_struck(
    vendor: Vendor, clients: Clients, looks: list[float]
) -> None:
    vendor.answer = lambda handler: handler.vendor.stop.wait(LONG)
    thread, ended = call_in_thread(clients, vendor.url)
    wait_until(lambda: len(looks) > 5)  # it comes back from its wait, again and again
    strike(thread, ended)


def test_a_thread_that_waits_for_an_answer_over_tls_can_be_struck(
    speaker: Speaker, tls_clients: Clients, looks: list[float]
) -> None:
    """TLS 1.3 sends tickets after the handshake: something to read, and yet no answer."""
    thread, ended = call_in_thread(tls_clients, speaker.url)
    wait_until(lambda: len(looks) > 5)
    assert speaker.asked.is_set()
    assert speaker.version == "TLSv1.3"
    strike(thread, ended)


# --- over TLS ---


def test_calls_over_tls_are_answered(speaker: Speaker, tls_clients: Clients) -> None:
    speaker.go_on.set()
    for _ in range(3):
        assert tls_clients.mine().get(speaker.url, timeout=LONG).text == "word"


def test_a_server_that_nobody_vouches_for_is_not_spoken_to(
    speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    clients = Clients(speaker.url, {})
    with pytest.raises(httpx2.ConnectError, match=r"(?i)certificate"):
        clients.mine().get(speaker.url, timeout=LONG)
    assert not speaker.asked.is_set()
    clients.close()


def test_the_deadline_holds_over_tls(speaker: Speaker, tls_clients: Clients) -> None:
    began = time.monotonic()
    with pytest.raises(httpx2.ReadTimeout):
        tls_clients.mine().get(speaker.url, timeout=0.7)
    assert 0.6 < time.monotonic() - began < SOON


def test_what_waits_in_the_tls_layer_is_read_without_waiting_for_more(
    speaker: Speaker, tmp_path: Path
) -> None:
    """One record, of which a part was read: the socket itself has nothing more to say."""
    speaker.answer = b"0123456789" * 100
    speaker.go_on.set()
    deadline_http._call.begin(SOON)
    plain = deadline_http._DeadlineBackend().connect_tcp("127.0.0.1", speaker.port)
    trust = ssl.create_default_context(cafile=tmp_path / "tls.pem")
    stream = plain.start_tls(trust, "127.0.0.1")
    stream.write(b"say it")
    parts = [stream.read(10) for _ in range(100)]
    assert b"".join(parts) == speaker.answer
    stream.close()


# --- pinned to addresses ---


def post(port: int, *addresses: str, seconds: float = LONG, most_bytes: int = 65_536) -> int:
    status, _ = deadline_http.post_pinned(
        f"http://nobody.example:{port}/hook?a=b",
        addresses,
        content=b"{}",
        headers={"X-Mine": "yes"},
        seconds=seconds,
        most_bytes=most_bytes,
    )
    return status


def port_of(vendor: Vendor) -> int:
    return int(vendor.url.split(":")[2].split("/")[0])


@pytest.fixture
def deaf() -> Iterator[tuple[str, int]]:
    """An address and a port where nobody is let in or turned away."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.2", 0))
        listener.listen(0)
        for caller in (first, second):
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
        yield listener.getsockname()


def test_a_pinned_call_goes_to_the_address_and_asks_for_the_name(vendor: Vendor) -> None:
    vendor.says(418, {"any": "thing"})
    assert post(port_of(vendor), "127.0.0.1") == 418
    (request,) = vendor.received
    assert (request.method, request.path, request.query) == ("POST", "/hook", {"a": ["b"]})
    assert request.headers["host"] == f"nobody.example:{port_of(vendor)}"
    assert (request.headers["x-mine"], request.file) == ("yes", b"{}")


def test_a_pinned_call_tries_the_next_address_where_one_is_closed(vendor: Vendor) -> None:
    assert post(port_of(vendor), "127.0.0.3", "127.0.0.1") == 200
    with pytest.raises(httpx2.ConnectError):
        post(port_of(vendor), "127.0.0.3", "127.0.0.4")


def test_an_address_that_is_silent_leaves_time_for_the_next(deaf: tuple[str, int]) -> None:
    silent, port = deaf
    handler = type("Handler", (_Handler,), {"vendor": (vendor := Vendor())})
    with _Server(("127.0.0.1", port), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        assert post(port, silent, "127.0.0.1", seconds=4.0) == 200
        server.shutdown()
    assert len(vendor.received) == 1


def test_the_deadline_of_a_pinned_call_is_for_all_addresses(deaf: tuple[str, int]) -> None:
    silent, port = deaf
    began = time.monotonic()
    with pytest.raises(httpx2.ConnectTimeout):
        post(port, silent, silent, silent, seconds=0.6)
    assert 0.5 < time.monotonic() - began < SOON


def test_of_a_pinned_answer_no_more_is_read_than_allowed(vendor: Vendor) -> None:
    vendor.says(200, {}, X_Long="x" * 5000)
    assert post(port_of(vendor), "127.0.0.1") == 200
    with pytest.raises(httpx2.DecodingError):
        post(port_of(vendor), "127.0.0.1", most_bytes=1000)
