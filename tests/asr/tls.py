"""A server that speaks TLS, with a certificate of its own."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trustme


@contextmanager
def tls_server(
    folder: Path, talk: Callable[[ssl.SSLSocket], object], name: str = "127.0.0.1"
) -> Iterator[int]:
    """The port of a server that has `talk` with each caller; `folder`/tls.pem is whom to trust.

    Its certificate is for `name`.
    """
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "tls.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(connection, server_side=True) as caller:
            talk(caller)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
