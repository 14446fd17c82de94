"""Fill the broker of a running system: `python -m benchmarks.fill chunks|nothing COUNT`.

Run with the system's environment, and with its workers stopped, so that what is measured later is
their work alone. `chunks` submits jobs of 6 files each, which lie under the audio root.
"""

from __future__ import annotations

import os
import sys

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.site.settings")
django.setup()

import dramatiq  # noqa: E402  (settings come before what reads them)

from benchmarks.site.tasks import nothing  # noqa: E402
from jobs import tasks  # noqa: E402
from jobs.submission import Submission, submit  # noqa: E402


def main(what: str, count: int) -> None:
    """Put `count` messages into the queue."""
    if what == "nothing":
        dramatiq.group([nothing.message() for _ in range(count)]).run()
        return
    for _ in range(count // 6):
        paths = tuple(f"bench/{index}.wav" for index in range(6))
        accepted = submit(Submission(user_id="bench", audio_paths=paths), caller="bench")
        tasks.dispatch(accepted.job_id)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
