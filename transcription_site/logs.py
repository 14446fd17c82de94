"""What becomes of log records on their way out."""

from __future__ import annotations

import logging
from typing import Final

SHOWN: Final = 300  # characters of what a caller made us say: addresses and hosts may be long


class CallersErrors(logging.Filter):
    """Takes the alarm out of what a caller did wrong: a warning, in one short line.

    Django logs a request that it holds for suspicious, such as one for a foreign host or with a
    body that cannot be read, as an error with a traceback.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record, where it is one of those; it is always let through."""
        status = getattr(record, "status_code", None)
        if isinstance(status, int) and 400 <= status < 500:
            record.levelno = min(record.levelno, logging.WARNING)
            record.levelname = logging.getLevelName(record.levelno)
            record.exc_info = record.exc_text = None
            said = record.getMessage()
            record.msg = said if len(said) <= SHOWN else f"{said[:SHOWN]}…"
            record.args = ()
        return True
