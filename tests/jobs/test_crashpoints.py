"""Crash points: a process dies there once, and without the variable nothing happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from django.conf import settings

PASSES = """
import django; django.setup()
from jobs.crashpoints import crashpoint
for number in range(1, 6):
    crashpoint("elsewhere")
    crashpoint("before-job.completed")
    print(number, flush=True)
"""


STORES = """
import django; django.setup()
from jobs.crashpoints import full_disk
full_disk()
"""


def run(var: Path, point: str, script: str) -> subprocess.CompletedProcess[str]:
    environ = {
        **os.environ,
        "VAR_DIR": str(var),
        "CRASHPOINT": point,
        "DJANGO_SETTINGS_MODULE": "transcription_site.settings",
    }
    command = [sys.executable, "-c", script]
    return subprocess.run(
        command, cwd=settings.BASE_DIR, env=environ, capture_output=True, text=True, check=False
    )


def passes(var: Path, point: str) -> tuple[int, list[str]]:
    """The exit code of a process that passes five times, and the numbers that it came to."""
    done = run(var, point, PASSES)
    return done.returncode, done.stdout.split()


def test_a_process_dies_at_the_nth_time_and_its_successor_does_not(tmp_path: Path) -> None:
    assert passes(tmp_path, "before-job.completed:3") == (-signal.SIGKILL, ["1", "2"])
    assert passes(tmp_path, "before-job.completed:3") == (0, ["1", "2", "3", "4", "5"])


def test_without_the_variable_nothing_happens(tmp_path: Path) -> None:
    assert passes(tmp_path, "") == (0, ["1", "2", "3", "4", "5"])
    assert passes(tmp_path, "before-job.failed:1") == (0, ["1", "2", "3", "4", "5"])


def test_a_disk_is_full_while_it_is_marked_so_and_that_was_asked_for(tmp_path: Path) -> None:
    assert run(tmp_path, "full-disk:0", STORES).returncode == 0
    (tmp_path / "disk-is-full").touch()
    assert "No space left on device" in run(tmp_path, "full-disk:0", STORES).stderr
    assert run(tmp_path, "", STORES).returncode == 0
