"""`manage.py run_worker`: the Dramatiq worker of one kind of work, sized by the settings."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from asr.errors import EngineMisconfigured
from jobs import engines, storage
from jobs.tasks import WEBHOOKS_AT_ONCE

CONTROL_THREADS = WEBHOOKS_AT_ONCE + 4  # slow receivers leave these to stitching
SHUTDOWN_MS = 60_000  # supervisor and Docker kill after 70 s

MEANINGS = {
    engines.REMOTE_QUEUE: "chunks of remote engines: WORKER_PROCESSES processes of WORKER_THREADS "
    "threads",
    engines.LOCAL_QUEUE: "chunks of local engines: one process with a thread for each child, "
    "LOCAL_PROCESSES or, where faster-whisper is the ASR_ENGINE, WHISPER_PROCESSES",
    engines.CONTROL_QUEUE: f"stitching and webhooks: one process of {CONTROL_THREADS} threads",
}


def size_of(queue: str) -> tuple[int, int]:
    """The processes of a worker, and the threads in each."""
    return {
        engines.REMOTE_QUEUE: (settings.WORKER_PROCESSES, settings.WORKER_THREADS),
        engines.LOCAL_QUEUE: (1, settings.LOCAL_THREADS),
        engines.CONTROL_QUEUE: (1, CONTROL_THREADS),
    }[queue]


class Command(BaseCommand):
    help = (
        "Runs a worker until it is stopped. SIGTERM interrupts the recognitions "
        "that run and gives their claims back at no cost; what is just being written has 60 s to "
        "end. SIGKILL drops that too, and the sweeper puts it back to work."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        described = "; ".join(f"{name}: {MEANINGS[name]}" for name in engines.WORKERS)
        parser.add_argument("queue", choices=engines.WORKERS, help=described)

    def handle(self, *, queue: str, **options: Any) -> None:
        if queue == engines.LOCAL_QUEUE:
            try:
                engines.prepare()
            except EngineMisconfigured as error:
                raise CommandError(error.detail) from None
        if queue != engines.CONTROL_QUEUE:
            storage.warn_if_away(to_write=queue == engines.LOCAL_QUEUE)  # which cuts recordings
        processes, threads = size_of(queue)
        # By default a worker hoards twice its threads in messages, and delayed ones thousandfold;
        # they wait for it while others idle, and die with it.
        os.environ |= {
            "dramatiq_queue_prefetch": str(threads),
            "dramatiq_delay_queue_prefetch": str(4 * threads),
            # How often an idle thread looks whether it is to end: half of what an idle system used.
            "dramatiq_worker_timeout": "2000",
        }
        call_command(
            "rundramatiq",
            queues=list(engines.WORKERS[queue]),
            processes=processes,
            threads=threads,
            path=[str(settings.BASE_DIR)],
            worker_shutdown_timeout=SHUTDOWN_MS,
        )
