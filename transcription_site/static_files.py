"""Static files of all apps, served where they lie and before Django."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from typing import IO, Any, Final
from uuid import uuid4
from wsgiref.headers import Headers

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from servestatic import ServeStaticASGI
from servestatic.responders import StaticFile

PACKED: Final = {".css", ".js", ".svg"}
WORTH_PACKING: Final = 1000  # bytes


class StaticFiles(ServeStaticASGI):  # type: ignore[misc]  # it has no types
    """Files by their addresses, packed by gzip for whoever takes that; then the application."""

    def __init__(self, *args: Any, **options: Any) -> None:
        # Files without a name: nothing is left behind, however the process ends.
        self._packed: list[IO[bytes]] = []
        super().__init__(*args, **options)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """With an X-Request-ID, as every answer has one."""

        async def send_named(message: Any) -> None:
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message["headers"]}
                if b"x-request-id" not in names:
                    own = (b"x-request-id", uuid4().hex.encode())
                    message = {**message, "headers": [*message["headers"], own]}
            await send(message)

        is_static = scope.get("path", "").startswith(settings.STATIC_URL)
        await super().__call__(scope, receive, send_named if is_static else send)

    def get_static_file(self, path: str, url: str, stat_cache: Any = None) -> Any:
        """The file and its packed form, which is made now."""
        packed = _pack(Path(path))
        if packed is None:
            return super().get_static_file(path, url, stat_cache)
        self._packed.append(packed)
        headers = Headers([])
        self.add_mime_headers(headers, path, url)
        self.add_cache_headers(headers, path, url)
        _add_headers(headers, path, url)
        return StaticFile(
            path, headers.items(), encodings={"gzip": f"/proc/self/fd/{packed.fileno()}"}
        )


def _pack(path: Path) -> IO[bytes] | None:
    """None where it is not worth it."""
    if path.suffix not in PACKED or path.stat().st_size < WORTH_PACKING:
        return None
    packed = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as the process lives)
    packed.write(gzip.compress(path.read_bytes(), 6, mtime=0))
    packed.flush()
    return packed


def with_static_files(served: Any) -> StaticFiles:
    """The application, with the static files of all apps before it."""
    outer = StaticFiles(served, add_headers_function=_add_headers)
    found = [each for finder in get_finders() for each in finder.list(None)]
    for path, storage in reversed(found):  # of two equal names the first counts, as with Django
        outer.add_file_to_dictionary(f"{settings.STATIC_URL}{path}", storage.path(path))
    return outer


def _add_headers(headers: Headers, path: str, url: str) -> None:
    """What Django's middleware adds to its own answers."""
    headers["X-Content-Type-Options"] = "nosniff"
    headers["X-Frame-Options"] = settings.X_FRAME_OPTIONS
    headers["Referrer-Policy"] = settings.SECURE_REFERRER_POLICY
    headers["Content-Security-Policy"] = "default-src 'none'"  # for a picture opened as a page
    if settings.SECURE_HSTS_SECONDS:
        headers["Strict-Transport-Security"] = f"max-age={settings.SECURE_HSTS_SECONDS}"
