"""`python -m deploy.healthcheck web|worker|sweeper`: whether this container does its work.

Exits with 0 when it does; any other end means that it does not.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import httpx2

WEB = "http://127.0.0.1:8000/healthz"


def main(role: str) -> int:
    """The exit status for the container's role."""
    healthy = {"web": _web, "worker": _worker, "sweeper": _sweeper}[role]
    return 0 if healthy() else 1


def _web() -> bool:
    return httpx2.get(WEB, timeout=4, trust_env=False).is_success


def _worker() -> bool:
    """Whether a worker process of this container renewed its row lately."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "transcription_site.settings")
    import django

    django.setup()
    from jobs.models import WorkerProcess

    return WorkerProcess.objects.alive().filter(hostname=socket.gethostname()).exists()


def _sweeper() -> bool:
    """Whether the process is there; when it fails, it ends and is started again."""
    commands = (path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline"))
    return any(b"requeue_pending" in command for command in commands)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
