"""`manage.py requeue_pending`: put every job that is not ended back to work."""

from __future__ import annotations

import logging
import signal
import threading
import time
from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import BaseCommand
from django.db import Error as DatabaseError
from django.db import close_old_connections, connection

from jobs import liveness
from jobs.models import SWEEPER
from jobs.retention import Retention, purge
from jobs.sweeper import mark_delayed, sweep
from jobs.tasks import BrokerState, look_at_broker, send_chunk, send_cut, send_webhook

PURGE_SECONDS: Final = 1.0  # in a round: what is past its time must not hold up what waits
PURGE_EVERY_SECONDS: Final = 60.0  # once nothing is left that is past its time

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = (
        "Puts every job that is not ended back to work: releases the chunks of dead workers, "
        "sends chunks that no message points at, finishes jobs whose chunks have all ended. "
        "Run it at boot; it is safe at any time and many times at once."
    )

    _everything = True  # the first round is the boot
    _purge_due = 0.0

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--every",
            type=float,
            metavar="SECONDS",
            help="keep running and look again after that many seconds (the sweeper process)",
        )

    def handle(self, *, every: float | None, **options: Any) -> None:
        if every is None:
            self.stdout.write(f"{sweep(send_chunk, send_webhook, send_cut, everything=True)}")
            return
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        heart = liveness.start(SWEEPER)
        while not stop.is_set():
            try:
                self._look(silence=heart.is_steady())
                self._purge()
            except DatabaseError:
                logger.warning("The database is away; looking again in %g s", every)
                connection.close()
            close_old_connections()
            stop.wait(every)
        liveness.stop()

    def _look(self, *, silence: bool) -> None:
        """One round. Until one came through, the next sends everything."""
        broker = look_at_broker()
        self._everything |= broker != BrokerState.READY
        report = sweep(
            send_chunk, send_webhook, send_cut, everything=self._everything, silence=silence
        )
        logger.log(logging.INFO if report.found_something else logging.DEBUG, "%s", report)
        away = broker == BrokerState.AWAY or report.broker_away
        mark_delayed(broker_away=away)
        self._everything = away

    def _purge(self) -> None:
        """Remove some of what is past its time; it never stops the sweeper."""
        if time.monotonic() < self._purge_due:
            return
        is_all = True
        try:
            removed, is_all = purge(Retention.as_set(), seconds=PURGE_SECONDS)
            if +removed:
                logger.info("Past their time: %s", dict(removed))
        except OSError as error:
            logger.warning("What is past its time could not be removed: %s", error.strerror)
        self._purge_due = time.monotonic() + (PURGE_EVERY_SECONDS if is_all else 0.0)
