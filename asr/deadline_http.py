"""An HTTP client whose timeout means the whole call.

The usual timeouts count from one read to the next: a server that sends a byte every few seconds
holds a thread for ever. Here each wait on the network gets what is left of the call's time.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore2
import httpx2

MAX_CALLS = 1024  # at once; 128 threads a process by default
_KEPT_CONNECTIONS = 128
_ANSWER_MAX_BYTES = 10_000_000  # five minutes of words with times are far below 1 MB
_SLICE_SECONDS = (
    1.0  # the longest wait in one piece: an exception sent to the thread lands after it
)
_WRITE_BYTES = 16_384  # as much as a socket takes at once, so that each write meets the clock


def client(base_url: str, headers: Mapping[str, str]) -> httpx2.Client:
    """A client for many threads. A request's timeout in seconds bounds it from start to end.

    The environment's proxy for `base_url` is honoured. Answers over 10 MB, and compressed ones
    (which may hide any size), are refused with `httpx2.DecodingError`.
    """
    return httpx2.Client(
        transport=_DeadlineTransport(
            limits=httpx2.Limits(
                max_connections=MAX_CALLS, max_keepalive_connections=_KEPT_CONNECTIONS
            ),
            proxy=_proxy(base_url),
        ),
        headers={**headers, "Accept-Encoding": "identity"},
    )


class _Call(threading.local):
    """What is left to the call that this thread is making."""

    deadline = float("inf")
    bytes_left = 0

    def begin(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self.bytes_left = _ANSWER_MAX_BYTES

    def remaining(self, kind: type[httpcore2.TimeoutException]) -> float:
        """Seconds left. Raises `kind` when there are none."""
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise kind
        return seconds


_call = _Call()


class _DeadlineTransport(httpx2.HTTPTransport):
    def __init__(self, *, limits: httpx2.Limits, proxy: str | None) -> None:
        super().__init__(limits=limits, proxy=proxy)
        # The transport has no parameter for it. `tests/asr` would notice if it moved.
        self._pool._network_backend = _DeadlineBackend()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        _call.begin(request.extensions["timeout"]["read"])
        response = super().handle_request(request)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            response.close()
            raise httpx2.DecodingError("a compressed answer was not asked for", request=request)
        return response


class _DeadlineBackend(httpcore2.SyncBackend):
    def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> _DeadlineStream:
        kwargs["timeout"] = _call.remaining(httpcore2.ConnectTimeout)
        return _DeadlineStream(super().connect_tcp(host, port, *args, **kwargs))


class _DeadlineStream(httpcore2.NetworkStream):
    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        while True:
            remaining = _call.remaining(httpcore2.ReadTimeout)
            with suppress(httpcore2.ReadTimeout):
                data = self._stream.read(max_bytes, min(remaining, _SLICE_SECONDS))
                _call.bytes_left -= len(data)
                if _call.bytes_left < 0:
                    raise httpx2.DecodingError("the answer is too large")
                return data

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
