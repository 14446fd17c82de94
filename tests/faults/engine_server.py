"""An engine to script: a server that speaks OpenAI's transcription API, and fails on demand.

It runs in the test's process, a thread for each connection, and logs every call. What it hears
follows from the file's bytes (`spoken_text`), so that a transcript can be checked word for word.
"""

from __future__ import annotations

import hashlib
import json
import resource
import select
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from tests.asr.vendor import Received, parsed
from tests.faults.audio import spoken_text

KEY = "sk-of-the-fault-suite"
MODEL = "whisper-1"
LEAVE_SECONDS = 20
_OPEN_FILES = 8192
_PIECE = 65_536


@dataclass(kw_only=True)
class Hit:
    """One call, as the server saw it; times are of the monotonic clock."""

    digest: str
    number: int  # of the calls with this file, from 1 on
    port: int  # of the client
    time: float
    ended: float | None = None  # when all was answered, or the client had hung up
    status: int | None = None  # None while there is no answer, and if there was none
    sent: int = 0  # bytes of the body that the client took, or that were on their way to it


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is to become of a call: by default, the file's words at once."""

    status: int = 200
    body: bytes | None = None  # None: the words, or an error's description
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    # "hang": no answer, until the client hangs up. "drip": a byte every `interval` seconds, without
    # end. "close": the connection ends without an answer.
    ending: Literal["answer", "hang", "drip", "close"] = "answer"
    interval: float = 0.5


Plan = Callable[[Hit], Answer]

WORDS_AT_ONCE = Answer()
HANG = Answer(ending="hang")
CLOSE = Answer(ending="close")
NONSENSE = Answer(body=b"<html>Welcome to the captive portal</html>")
TRUNCATED = Answer(body=b'{"text": "The first half of a sentence, and th')
HUGE = Answer(body=b'{"text": "' + b"x" * 50_000_000 + b'"}')


def failing(status: int, **headers: str) -> Answer:
    """An error; `Retry_After="7"` is a header."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, headers=named)


class EngineServer:
    """The server's log and its levers; to be had from `engine_server()`."""

    def __init__(self) -> None:
        self.plan: Plan = lambda hit: WORDS_AT_ONCE
        self.hits: list[Hit] = []
        self.violations: list[str] = []  # of the protocol, by the client
        self.in_flight = 0
        self.most_in_flight = 0
        self._changed = threading.Condition()  # guards all of the above
        self._gate = threading.Event()
        self._gate.set()
        self._calls: Counter[str] = Counter()
        self._connections: set[socket.socket] = set()
        self._http: _Http | None = None
        # Bound and never listening, so that nobody takes the port while the server is away.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.port = int(self._reserved.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}/v1"

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a system whose engine this is."""
        return {
            "ASR_ENGINE": "openai",
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": self.url,
            "OPENAI_MODEL": MODEL,
        }

    def says(self, digest: str) -> str:
        """The words that this server hears in the file with this SHA-256."""
        return spoken_text(digest)

    def hits_of(self, digest: str) -> list[Hit]:
        """The calls with one file, in order."""
        with self._changed:
            return [hit for hit in self.hits if hit.digest == digest]

    def hits_since(self, moment: float) -> list[Hit]:
        """The calls that began after a moment of the monotonic clock."""
        with self._changed:
            return [hit for hit in self.hits if hit.time > moment]

    def hold(self) -> None:
        """Shut the gate: calls come in and wait, as if the engine was thinking."""
        self._gate.clear()

    def release(self) -> None:
        """Open the gate: all that wait are answered now, each by the plan of this moment."""
        self._gate.set()

    def wait_in_flight(self, count: int, seconds: float = 60) -> None:
        """Wait until at least so many calls are under way; one whose client died counts too."""
        self.wait(lambda: self.in_flight >= count, seconds)

    def wait_for_hits(self, count: int, seconds: float = 60) -> None:
        """Wait until there were at least so many calls in all."""
        self.wait(lambda: len(self.hits) >= count, seconds)

    def wait(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait until something holds of the log; the test fails when the time is over."""
        with self._changed:
            met = self._changed.wait_for(condition, seconds)
            assert met, f"{len(self.hits)} calls, {self.in_flight} in flight after {seconds} s"

    def go_away(self) -> None:
        """Cut all connections, and refuse new ones until `come_back`."""
        assert self._http is not None
        self._http.shutdown()
        self._http.server_close()
        self._http = None
        self._cut_all()

    def come_back(self) -> None:
        """Serve, at the same address."""
        self._http = _Http(self)
        loop = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        loop.start()

    def close(self) -> None:
        """End every thread; a second time does nothing."""
        if self._http is not None:
            self.go_away()
        self._reserved.close()
        self.release()
        with self._changed:
            left = self._changed.wait_for(lambda: not self._connections, LEAVE_SECONDS)
            assert left, f"{len(self._connections)} connections of the engine server do not end"

    # Called by the connections' threads.

    def opened(self, connection: socket.socket) -> None:
        with self._changed:
            self._connections.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._changed:
            self._connections.discard(connection)
            self._changed.notify_all()

    def begin(self, received: Received, port: int) -> Hit:
        """Log a call, complain of what is wrong with it, and wait at the gate."""
        digest = hashlib.sha256(received.file).hexdigest()
        with self._changed:
            self.violations += _violations(received)
            self._calls[digest] += 1
            number = self._calls[digest]
            hit = Hit(digest=digest, number=number, port=port, time=time.monotonic())
            self.hits.append(hit)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            self._changed.notify_all()
        self._gate.wait()
        return hit

    def end(self, hit: Hit) -> None:
        with self._changed:
            if hit.ended is not None:
                return
            hit.ended = time.monotonic()
            self.in_flight -= 1
            self._changed.notify_all()

    def _cut_all(self) -> None:
        with self._changed:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def engine_server() -> Iterator[EngineServer]:
    """A server that runs; at the end it must have been spoken to as the API's reference says."""
    _allow_open_files()
    server = EngineServer()
    server.come_back()
    try:
        yield server
    finally:
        server.close()
    assert not server.violations, "\n".join(server.violations)


def _violations(received: Received) -> list[str]:
    """What OpenAI would refuse, or what a test could not account for."""
    wrong = []
    if received.path != "/v1/audio/transcriptions":
        wrong.append(f"path {received.path}")
    if received.headers.get("authorization") != f"Bearer {KEY}":
        wrong.append("another key, or none")
    if received.fields.get("model") != [MODEL]:
        wrong.append(f"model {received.fields.get('model')}")
    if received.fields.get("response_format") != ["verbose_json"]:
        wrong.append(f"response_format {received.fields.get('response_format')}")
    if not received.file or not received.file_name or "." not in received.file_name:
        wrong.append(f"file {received.file_name!r} of {len(received.file)} bytes")
    return wrong


class _Http(ThreadingHTTPServer):
    request_queue_size = 2048
    allow_reuse_port = True  # with the socket that reserves the port
    daemon_threads = True

    def __init__(self, engine: EngineServer) -> None:
        self.engine = engine
        super().__init__(("127.0.0.1", engine.port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.engine.opened(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.engine.closed(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed in the middle of a call are in order; a faulty plan is not."""
        if not isinstance(sys.exc_info()[1], OSError):
            self.engine.violations.append(traceback.format_exc())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:
            return  # the client died half-way: nothing was asked
        engine = self.server.engine
        hit = engine.begin(parsed("POST", self.path, self.headers, body), self.client_address[1])
        try:
            self._act(hit, engine.plan(hit))
        except OSError:
            self.close_connection = True
        finally:
            engine.end(hit)

    def _act(self, hit: Hit, answer: Answer) -> None:
        if answer.delay and self._hung_up_within(answer.delay):
            return
        if answer.ending == "hang":
            self._hung_up_within(None)
        elif answer.ending == "close":
            self.close_connection = True
        elif answer.ending == "drip":
            self._send_head(hit, answer, 1_000_000)
            while not self._hung_up_within(answer.interval):
                self.wfile.write(b" ")
                hit.sent += 1
        else:
            body = answer.body if answer.body is not None else _body(hit.digest, answer.status)
            self._send_head(hit, answer, len(body))
            for start in range(0, len(body), _PIECE):
                piece = body[start : start + _PIECE]
                hit.sent += len(piece)
                if hit.sent == len(body):  # before the client can know, and ask for the log
                    self.server.engine.end(hit)
                self.wfile.write(piece)

    def _send_head(self, hit: Hit, answer: Answer, length: int) -> None:
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        hit.status = answer.status

    def _hung_up_within(self, seconds: float | None) -> bool:
        """Whether the client hangs up in this time; if so, the connection is over."""
        poll = select.poll()  # select() ends at file number 1023
        poll.register(self.connection, select.POLLIN)
        self.close_connection = bool(poll.poll(None if seconds is None else seconds * 1000))
        return self.close_connection

    def log_message(self, *_: Any) -> None:
        """The log is `EngineServer.hits`."""


def _body(digest: str, status: int) -> bytes:
    if status != 200:
        return json.dumps({"error": {"message": f"scripted {status}", "type": "scripted"}}).encode()
    text = spoken_text(digest)
    times = {"start": 0.0, "end": 300.0}  # Whisper too hears past the end of short files
    segment = {"text": f" {text}", "avg_logprob": -0.2, **times}
    words = [{"word": word, **times} for word in text.split()]
    answer = {"text": text, "language": "english", "segments": [segment], "words": words}
    return json.dumps(answer).encode()


def _allow_open_files() -> None:
    """A thousand connections need more descriptors than a login shell gives."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
