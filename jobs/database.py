"""Holding on to the database's connections, and letting go of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

logger = logging.getLogger(__name__)
T = TypeVar("T")


def insist(write: Callable[[], T]) -> T:
    """Call `write` again while the database is away, as long as the claim may live.

    A result that was paid for is not thrown away because the database restarts.
    """
    deadline = time.monotonic() + settings.LEASE_SECONDS
    wait = 0.2
    while True:
        try:
            return write()
        except (OperationalError, InterfaceError):
            release_connection()
            if connection.in_atomic_block or time.monotonic() + wait > deadline:
                raise
            logger.warning("The database is away; writing again in %.1f s", wait)
        time.sleep(wait)
        wait = min(wait * 2, 5.0)


def release_connection() -> None:
    """Give the connection back before a long wait; hundreds of threads share a few."""
    if not connection.in_atomic_block:
        connection.close()
