"""A server in a vendor's place: it keeps what it is sent and answers as a test tells it to."""

from __future__ import annotations

import email.policy
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs


@dataclass
class Received:
    """One request as it came in."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    fields: dict[str, list[str]]
    file_name: str | None
    file: bytes


def parsed(method: str, address: str, headers: Message, body: bytes) -> Received:
    """A request with its query and its form taken apart; without a form the body is the file."""
    path, _, query = address.partition("?")
    queried = parse_qs(query, keep_blank_values=True, strict_parsing=bool(query))
    named = {key.lower(): value for key, value in headers.items()}
    if not named.get("content-type", "").startswith("multipart/form-data"):
        return Received(method, path, queried, named, {}, None, body)
    head = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
    fields: dict[str, list[str]] = {}
    name: str | None = None
    file = b""
    for part in BytesParser(policy=email.policy.HTTP).parsebytes(head + body).iter_parts():
        key = str(part.get_param("name", header="content-disposition"))
        content: Any = part.get_payload(decode=True)
        if key == "file":
            name, file = part.get_filename(), content
        else:
            fields.setdefault(key, []).append(content.decode())
    return Received(method, path, queried, named, fields, name, file)


@dataclass
class Vendor:
    """What the server got, and what it is to do."""

    url: str = ""
    answer: Callable[[Any], None] = lambda handler: handler.json(200, {"text": ""})
    received: list[Received] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)  # of what the vendor publishes
    connections: int = 0
    hung_up: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)

    def says(self, status: int, body: Any, **headers: str) -> None:
        """Answer every request with this from now on."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answer = lambda handler: handler.json(status, body, named)


@contextmanager
def serving(host: str = "127.0.0.1", port: int = 0) -> Iterator[Vendor]:
    vendor = Vendor()
    handler = type("Handler", (_Handler,), {"vendor": vendor})
    with _Server((host, port), handler) as server:
        vendor.url = f"http://{host}:{server.server_address[1]}/v1"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield vendor
        vendor.stop.set()
        server.shutdown()


class _Server(ThreadingHTTPServer):
    # By default 5 callers may wait to be accepted; a crowd's others are reset on a busy machine.
    request_queue_size = 1024

    def handle_error(self, request: Any, client_address: Any) -> None:
        """That a client hung up is in order."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    vendor: Vendor

    def setup(self) -> None:
        super().setup()
        self.vendor.connections += 1

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.own = parsed(self.command, self.path, self.headers, body)
        self.vendor.received.append(self.own)
        with suppress(OSError):
            self.vendor.answer(self)

    def json(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def drip(self, data: bytes) -> None:
        """Send a byte every 50 ms, again and again, until the client hangs up."""
        while not self.vendor.stop.wait(0.05):
            try:
                self.wfile.write(data)
            except OSError:
                self.vendor.hung_up.set()
                raise

    def log_message(self, *_: Any) -> None:
        """Nothing."""
