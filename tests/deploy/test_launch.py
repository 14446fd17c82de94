"""`make run` and `make demo` as a user has them: real processes, real signals."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from deploy.system import MARK
from tests.object_storage import KEY, SECRET, start_object_storage
from tests.servers import fresh_database
from transcription_site.env import BASE_DIR

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]


class Launch:
    """A launcher in a process of its own, and what it has printed."""

    def __init__(self, mode: str, var: Path, **variables: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deploy.launch", mode],
            cwd=BASE_DIR,
            env={**os.environ, "VAR_DIR": str(var), **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line

    def wait_for(self, words: str, seconds: float = 150) -> str:
        deadline = time.monotonic() + seconds
        while words not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.05)
        return self.output

    def ends(self, seconds: float = 120) -> int:
        code = self.process.wait(seconds)
        self._reader.join(5)
        return code


def family(var: Path) -> dict[int, str]:
    """The living processes that carry the mark of this folder, with their command lines."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={var}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return found


def found(pattern: str, output: str) -> str:
    match = re.search(pattern, output, re.DOTALL)
    assert match, output
    return match[1]


def processes_of(var: Path, words: str) -> set[int]:
    return {pid for pid, line in family(var).items() if words in line}


def eventually(is_so: Callable[[], bool], seconds: float = 90) -> bool:
    deadline = time.monotonic() + seconds
    while not (so := is_so()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return so


@pytest.fixture
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("DATABASE_URL", fresh_database())
    monkeypatch.setenv("WORKER_PROCESSES", "1")
    for name in ("REDIS_URL", "AUDIO_ROOT"):
        monkeypatch.setenv(name, "")
    yield tmp_path
    for folder in (tmp_path, tmp_path / "demo"):
        for pid in family(folder):
            os.kill(pid, signal.SIGKILL)


def test_run_stays_until_it_is_told_to_stop_and_leaves_nothing(var):
    first = Launch("run", var)
    output = first.wait_for("Ready.")
    url = found(r"URL +(http://\S+)/ ", output)
    token = found(r"token +(\S+)", output)
    signed_in = {"Authorization": f"Token {token}"}
    assert httpx2.get(f"{url}/readyz").json()["status"] == "ok"
    assert httpx2.get(f"{url}/transcript/search", headers=signed_in).status_code == 200
    for kept in ("credentials.json", "run/redis.url", "run/redis.conf"):
        assert stat.S_IMODE((var / kept).stat().st_mode) == 0o600

    second = Launch("run", var)
    assert second.ends() == 1
    assert f"already running here: {url} (process {first.process.pid})" in second.output
    assert httpx2.get(f"{url}/healthz").status_code == 200

    killed = processes_of(var, "--queues control")
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: len(processes_of(var, "--queues control") - killed) >= len(killed))

    first.process.send_signal(signal.SIGTERM)
    assert first.ends() == 0
    assert family(var) == {}

    third = Launch("run", var)
    again = third.wait_for("Ready.")
    assert token in again
    assert found(r"password (\S+)", again) == found(r"password (\S+)", output)
    os.kill(min(processes_of(var, "supervisord")), signal.SIGKILL)
    assert third.ends() == 1
    assert "supervisord ended" in third.output
    assert family(var) == {}


def test_audio_in_a_bucket_is_named_or_its_refusal_told_at_once(var, tmp_path):
    with ExitStack() as stack:
        folder = tmp_path / "objects"
        folder.mkdir()
        server = start_object_storage(stack, folder)
        variables = {
            "AUDIO_STORAGE_URL": f"s3://audio/verbatim?endpoint={server.url}",
            "AUDIO_STORAGE_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": KEY,
        }
        began = time.monotonic()
        refused = Launch("run", var, **variables, AWS_SECRET_ACCESS_KEY="not-the-secret")
        assert refused.ends() == 1
        assert time.monotonic() - began < 30  # most of it to migrate a new database
        line = refused.output.splitlines()[-1]
        assert line.startswith("verbatim: the object storage refuses the credentials (403): see")
        assert "AWS_SECRET_ACCESS_KEY" in line
        assert KEY not in refused.output
        assert "not-the-secret" not in refused.output

        launch = Launch("run", var, **variables, AWS_SECRET_ACCESS_KEY=SECRET)
        output = launch.wait_for("Ready.")
        assert found(r"audio +(\S+)", output) == "s3://audio/verbatim"
        launch.process.send_signal(signal.SIGTERM)
        assert launch.ends() == 0


def test_demo_prints_what_was_said_and_leaves_nothing(var):
    launch = Launch("demo", var)
    assert launch.ends(300) == 0, launch.output
    recognised = found(r"Transcript\n(.*)What was said", launch.output)
    assert "they had seen a terrible storm" in " ".join(recognised.split())
    assert family(var / "demo") == {}


def test_a_demo_that_is_interrupted_fails_and_leaves_nothing(var):
    launch = Launch("demo", var)
    launch.wait_for("sending")
    launch.process.send_signal(signal.SIGINT)
    assert launch.ends() == 130
    assert family(var / "demo") == {}


def test_when_the_launcher_is_killed_the_others_end_of_themselves(var):
    launch = Launch("demo", var)
    launch.wait_for("sending")
    launch.process.kill()
    assert eventually(lambda: not family(var / "demo"))


def test_a_port_that_is_set_and_taken_is_one_clear_line(var):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        launch = Launch("run", var, WEB_PORT=str(port))
        assert launch.ends() == 1
    assert launch.output.splitlines()[-1] == f"verbatim: WEB_PORT {port} is taken on 127.0.0.1"


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"WEB_PORT": "http"}, "verbatim: WEB_PORT is 'http'"),
        ({"AUDIO_ROOT": "/nowhere/at/all"}, "verbatim: AUDIO_ROOT is no folder"),
        ({"REDIS_URL": "redis://127.0.0.1:1/0"}, "verbatim: the server at REDIS_URL does not"),
        ({"DATABASE_URL": "postgres://u:p@127.0.0.1:1/n"}, "verbatim: the database does not"),
    ],
)
def test_what_cannot_work_stops_the_start_with_one_clear_line(var, variables, line):
    launch = Launch("run", var, **variables)
    assert launch.ends() == 1
    assert launch.output.splitlines()[-1].startswith(line), launch.output
    assert family(var) == {}
