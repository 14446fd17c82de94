"""What engines at the other end of a network share: one call within a deadline, and its errors.

The vendors' SDKs were tried and left out: they repeat calls by themselves, count a time-out from
one read to the next, and load for up to a second (openai 3.52 takes ten times as long as httpx2;
deepgram-sdk 7.17 is 950 files and brings websockets) for what is one POST.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from asr.errors import AsrError, EngineMisconfigured, EngineUnavailable

if TYPE_CHECKING:
    import httpx2

    from asr import deadline_http

_USUAL_WAIT_SECONDS = 5.0  # when the server is busy and does not say for how long
_PASSING_STATUSES = {409, 425}  # besides 5xx: conflicts that a second attempt may not meet


class Remote:
    """One server, used by any number of threads.

    Its HTTP clients are made by the first call. `headers` go with every call; no error's detail
    ever holds any of them, the address, or anything that the server said.
    """

    def __init__(self, engine: str, base_url: str, headers: Mapping[str, str]) -> None:
        if not re.match(r"https?://[^/]", base_url):
            variable = f"{engine.replace('-', '_').upper()}_BASE_URL"
            raise EngineMisconfigured(f"{variable} is no http or https address")
        self._engine = engine
        self._base_url = base_url.rstrip("/")
        self._headers = {**headers, "Accept": "application/json"}
        self._lock = threading.Lock()
        self._clients: deadline_http.Clients | None = None

    def post(self, path: str, *, limit: float, **content: Any) -> Any:
        """The JSON that the server answers with, within `limit` seconds in all.

        `content` are keywords of `httpx2.Client.request`. Raises EngineMisconfigured or
        EngineUnavailable.
        """
        response = self._send("POST", path, limit=limit, **content)
        _raise_for_status(response)
        with reading_answer():
            return json.loads(response.content)

    def verify(self, path: str, *, limit: float, may_lack: bool) -> str | None:
        """See `TranscriptionService.verify`: GET an address that costs nothing.

        `may_lack`: a server of one's own need not have it. It answered, and refused no key: the
        rest shows with the first file. So with one that is busy, which the remark says: limits
        are counted by account, so that it knows the key.
        """
        response = self._send("GET", path, limit=limit)
        if may_lack and response.status_code == 404:
            return None
        try:
            _raise_for_status(response)
        except EngineUnavailable as error:
            if error.retry_after is None:
                raise
            return "the engine is busy (429, a rate limit); it did not refuse the key"
        return None

    def close(self) -> None:
        """Give back the connections."""
        if self._clients is not None:
            self._clients.close()

    def _send(self, method: str, path: str, *, limit: float, **content: Any) -> httpx2.Response:
        deadline = time.monotonic() + limit
        client = self._connected()
        import httpx2  # noqa: PLC0415  (loaded by the line above)

        try:
            timeout = max(0.0, deadline - time.monotonic())
            return client.request(method, f"{self._base_url}/{path}", timeout=timeout, **content)
        except httpx2.TimeoutException:
            raise EngineUnavailable("engine_timeout", "the engine did not answer in time") from None
        except httpx2.DecodingError:
            detail = "the engine's answer is too large or compressed"
            raise EngineUnavailable("engine_bad_response", detail) from None
        except httpx2.ConnectError:
            raise EngineUnavailable("engine_error", "the engine cannot be reached") from None
        except httpx2.HTTPError:
            detail = "the connection to the engine broke"
            raise EngineUnavailable("engine_error", detail, answer_lost=True) from None

    def _connected(self) -> httpx2.Client:
        with self._lock:
            if self._clients is None:
                try:
                    from asr import deadline_http  # noqa: PLC0415  (heavy)

                    self._clients = deadline_http.Clients(self._base_url, self._headers)
                except Exception:  # a key or a proxy's address in the environment may be anything
                    detail = f"the HTTP client of the engine {self._engine} cannot be set up"
                    raise EngineMisconfigured(detail) from None
            return self._clients.mine()


def is_at(base_url: str, domain: str) -> bool:
    """Whether an address is a vendor's own, in whatever region."""
    return f".{urlsplit(base_url).hostname}".endswith(f".{domain}")


@contextmanager
def reading_answer() -> Iterator[None]:
    """Whatever an answer of another shape than expected raises within is `engine_bad_response`."""
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise EngineUnavailable(
            "engine_bad_response", "the engine's answer cannot be read"
        ) from error


def times(item: Mapping[str, Any], duration: float) -> tuple[float, float]:
    """Start and end within the file: engines sometimes hear past its end."""
    start, end = float(item["start"]), float(item["end"])
    if not (math.isfinite(start) and math.isfinite(end)):
        raise ValueError("not a time")
    start = min(max(0.0, start), duration)
    return start, min(max(start, end), duration)


def probability(value: Any) -> float | None:
    """A confidence between 0 and 1; None stays None."""
    if value is None:
        return None
    if math.isnan(number := float(value)):
        raise ValueError("not a probability")
    return min(1.0, max(0.0, number))


def _raise_for_status(response: httpx2.Response) -> None:
    """Raises the error that a refusal means, and nothing for an answer."""
    if not response.is_success:
        raise _sorted(response)


def _sorted(response: httpx2.Response) -> AsrError:
    status = response.status_code
    # OpenAI's word for an account without money: its 402, where waiting does not help either.
    if status == 429 and b"insufficient_quota" not in response.content:
        delay = retry_after(response.headers)
        return EngineUnavailable("engine_error", "the engine is busy (429)", retry_after=delay)
    if status == 408:
        return EngineUnavailable("engine_timeout", "the engine gave up waiting (408)")
    if status >= 500 or status in _PASSING_STATUSES:
        return EngineUnavailable("engine_error", f"the engine failed ({status})")
    return EngineMisconfigured(f"the engine refused the request ({status})")


def retry_after(headers: Mapping[str, str]) -> float:
    """The header in seconds, whether it holds seconds or a date."""
    value = headers.get("Retry-After", "")
    try:
        delay = float(value)
    except ValueError:
        try:
            delay = parsedate_to_datetime(value).timestamp() - time.time()
        except (OverflowError, ValueError):
            return _USUAL_WAIT_SECONDS
    return max(0.0, delay) if math.isfinite(delay) else _USUAL_WAIT_SECONDS
