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


def passes(var: Path, point: str) -> tuple[int, list[str]]:
    """The exit code of a process that passes five times, and the numbers that it came to."""
    environ = {
        **os.environ,
        "VAR_DIR": str(var),
        "CRASHPOINT": point,
        "DJANGO_SETTINGS_MODULE": "transcription_site.settings",
    }
    command = [sys.executable, "-c", PASSES]
    done = subprocess.run(
        command, cwd=settings.BASE_DIR, env=environ, stdout=subprocess.PIPE, text=True, check=False
    )
    return done.returncode, done.stdout.split()


def test_a_process_dies_at_the_nth_time_and_its_successor_does_not(tmp_path: Path) -> None:
    assert passes(tmp_path, "before-job.completed:3") == (-signal.SIGKILL, ["1", "2"])
    assert passes(tmp_path, "before-job.completed:3") == (0, ["1", "2", "3", "4", "5"])


def test_without_the_variable_nothing_happens(tmp_path: Path) -> None:
    assert passes(tmp_path, "") == (0, ["1", "2", "3", "4", "5"])
    assert passes(tmp_path, "before-job.failed:1") == (0, ["1", "2", "3", "4", "5"])
