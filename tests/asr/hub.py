"""A Hugging Face hub on this machine: one repository, and a record of what was asked for."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves the files of `folder` as the repository `name`; anything else is not found."""

    daemon_threads = True

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name, self.folder = name, folder
        self.fetched: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        path, name = self.path.partition("?")[0], self.server.name
        files = {file.name: file.read_bytes() for file in self.server.folder.iterdir()}
        wanted = path.removeprefix(f"/{name}/resolve/{COMMIT}/")
        if path == f"/api/models/{name}/revision/main":
            self._send(200, json.dumps({"id": name, "sha": COMMIT}).encode(), with_body=with_body)
        elif path == f"/api/models/{name}/tree/{COMMIT}":
            tree = [_entry(file, content) for file, content in files.items()]
            self._send(200, json.dumps(tree).encode(), with_body=with_body)
        elif wanted in files:
            if with_body:
                self.server.fetched.append(wanted)
            self._send(200, files[wanted], with_body=with_body)
        else:
            self._send(404, b"", with_body=with_body)

    def _send(self, status: int, body: bytes, *, with_body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{_identity(body)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class's name)
        pass


def _identity(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def _entry(name: str, content: bytes) -> dict[str, Any]:
    identity = _identity(content)
    return {"type": "file", "path": name, "size": len(content), "oid": identity}


@contextmanager
def serving(name: str, folder: Path) -> Iterator[Hub]:
    with Hub(name, folder) as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
