"""An HTTP client whose timeout means the whole call.

The usual timeouts count from one read to the next: a server that sends a byte every few seconds
holds a thread for ever. Here each wait on the network gets what is left of the call's time.
"""

from __future__ import annotations

import itertools
import select
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore2
import httpx2

MAX_CALLS = 1024  # at once; 128 threads a process by default
_KEPT_CONNECTIONS = 128
# A pool looks through all of its connections at the start and at the end of each call: with 512 of
# them that took a third of the call's processor time. So the threads are spread over several.
_POOLS = 16
_ANSWER_MAX_BYTES = 10_000_000  # five minutes of words with times are far below 1 MB
_SLICE_SECONDS = (
    1.0  # the longest wait in one piece: an exception sent to the thread lands after it
)
_WRITE_BYTES = 16_384  # as much as a socket takes at once, so that each write meets the clock


class Clients:
    """HTTP clients for many threads. A request's timeout in seconds bounds it from start to end.

    The environment's proxy for `base_url` is honoured. Answers over 10 MB, and compressed ones
    (which may hide any size), are refused with `httpx2.DecodingError`.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        tls, proxy = httpx2.create_ssl_context(), _proxy(base_url)
        headers = {**headers, "Accept-Encoding": "identity"}
        self._all = [
            httpx2.Client(transport=_PlainTransport(tls, proxy), headers=headers)
            for _ in range(_POOLS)
        ]
        self._next = itertools.cycle(self._all)
        self._own = threading.local()

    def mine(self) -> httpx2.Client:
        """The one for the calls of this thread."""
        if not hasattr(self._own, "client"):
            self._own.client = next(self._next)
        return cast("httpx2.Client", self._own.client)

    def close(self) -> None:
        """Give back the connections."""
        for client in self._all:
            client.close()


def post_pinned(
    url: str,
    addresses: Sequence[str],
    *,
    content: bytes,
    headers: Mapping[str, str],
    seconds: float,
    most_bytes: int,
) -> tuple[int, Mapping[str, str]]:
    """POST to one of these IP addresses, whatever the URL's host resolves to: status and headers.

    The host is still what the server is asked for and must prove to be. There is no proxy, no
    redirect is followed, of the answer's body nothing is kept, and the connection is not kept.

    Args:
        seconds: for all of it, with every address that has to be tried.
        most_bytes: of the answer that are read.

    Raises:
        httpx2.HTTPError: there was no answer, or not in time, or a malformed or larger one.
    """
    transport = _DeadlineTransport(_trust(), None, _PinnedBackend(addresses), most_bytes)
    headers = {**headers, "Accept-Encoding": "identity", "Connection": "close"}
    with (
        httpx2.Client(transport=transport, trust_env=False, follow_redirects=False) as client,
        client.stream("POST", url, content=content, headers=headers, timeout=seconds) as answer,
    ):
        return answer.status_code, answer.headers


@lru_cache(maxsize=1)
def _trust() -> ssl.SSLContext:
    """To read all authorities takes longer than a call."""
    return httpx2.create_ssl_context()


class _Call(threading.local):
    """What is left to the call that this thread is making."""

    deadline = float("inf")
    bytes_left = 0

    def begin(self, seconds: float, most_bytes: int = _ANSWER_MAX_BYTES) -> None:
        self.deadline = time.monotonic() + seconds
        self.bytes_left = most_bytes

    def remaining(self, kind: type[httpcore2.TimeoutException]) -> float:
        """Seconds left. Raises `kind` when there are none."""
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise kind
        return seconds


_call = _Call()


class _DeadlineTransport(httpx2.HTTPTransport):
    def __init__(
        self,
        tls: ssl.SSLContext,
        proxy: str | None,
        backend: _DeadlineBackend | None = None,
        most_bytes: int = _ANSWER_MAX_BYTES,
    ) -> None:
        limits = httpx2.Limits(
            max_connections=MAX_CALLS, max_keepalive_connections=_KEPT_CONNECTIONS // _POOLS
        )
        super().__init__(verify=tls, limits=limits, proxy=proxy)
        # The transport has no parameter for it. `tests/asr` would notice if it moved.
        self._pool._network_backend = backend or _DeadlineBackend()
        self._most_bytes = most_bytes

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        _call.begin(request.extensions["timeout"]["read"], self._most_bytes)
        return super().handle_request(request)


class _PlainTransport(_DeadlineTransport):
    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = super().handle_request(request)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            response.close()
            raise httpx2.DecodingError("a compressed answer was not asked for", request=request)
        return response


class _DeadlineBackend(httpcore2.SyncBackend):
    def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> _DeadlineStream:
        kwargs["timeout"] = _call.remaining(httpcore2.ConnectTimeout)
        return self._connect(host, port, *args, **kwargs)

    def _connect(self, *args: Any, **kwargs: Any) -> _DeadlineStream:
        return _DeadlineStream(super().connect_tcp(*args, **kwargs))


class _PinnedBackend(_DeadlineBackend):
    """Connects to the first of its addresses that answers, each with its share of the time."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> _DeadlineStream:
        *others, last = self._addresses
        for left, address in enumerate(others):
            share = _call.remaining(httpcore2.ConnectTimeout) / (len(self._addresses) - left)
            with suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                return self._connect(address, port, *args, **kwargs | {"timeout": share})
        return super().connect_tcp(last, port, *args, **kwargs)


class _DeadlineStream(httpcore2.NetworkStream):
    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        while True:
            seconds = min(_call.remaining(httpcore2.ReadTimeout), _SLICE_SECONDS)
            # By hand, as a time-out raised and caught every second cost more than the call.
            if not self._readable(seconds):
                continue
            with suppress(httpcore2.ReadTimeout):  # what came was for the TLS layer itself
                data = self._stream.read(max_bytes, seconds)
                _call.bytes_left -= len(data)
                if _call.bytes_left < 0:
                    raise httpx2.DecodingError("the answer is too large")
                return data

    def _readable(self, seconds: float) -> bool:
        tls = self._stream.get_extra_info("ssl_object")
        if isinstance(tls, ssl.SSLObject):
            return True  # TLS within a proxy's TLS, which holds what it has read: only a read tells
        if tls is not None and tls.pending():
            return True  # it was read already, and waits in the TLS layer
        waiting = select.poll()
        waiting.register(self._stream.get_extra_info("socket"), select.POLLIN)
        return bool(waiting.poll(seconds * 1000))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _WRITE_BYTES):
            remaining = _call.remaining(httpcore2.WriteTimeout)
            self._stream.write(buffer[start : start + _WRITE_BYTES], remaining)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        remaining = _call.remaining(httpcore2.ConnectTimeout)
        return _DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, remaining))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _proxy(url: str) -> str | None:
    """The environment's proxy for a URL; a client with a transport of its own does not look."""
    parts = urlsplit(url)
    if proxy_bypass(parts.hostname or ""):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")
