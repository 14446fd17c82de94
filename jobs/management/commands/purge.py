"""`manage.py purge`: remove now what is past its time."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from jobs import retention
from jobs.retention import Retention
from jobs.storage import StorageAwayError

AUDIO: Final = "AUDIO_RETENTION_DAYS"
JOBS: Final = "TRANSCRIPT_RETENTION_DAYS"
HERE: Final = (
    f"in this shell's environment or in {settings.BASE_DIR / '.env'}. A service that was started "
    "with other variables removes by those; to use them, call this command where it runs, with "
    "Compose by `docker compose exec sweeper python manage.py purge`."
)


class Command(BaseCommand):
    help = (
        "Removes now what the sweeper would by and by: uploads of jobs that ended more than "
        "AUDIO_RETENTION_DAYS ago, and jobs that ended more than TRANSCRIPT_RETENTION_DAYS ago, "
        "both as this shell's environment and .env have them. "
        "It may be interrupted and repeated at any time."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user", default="", metavar="NAME", help="only jobs of this user")
        parser.add_argument("--dry-run", action="store_true", help="count, and change nothing")

    def handle(self, *, user: str, dry_run: bool, **options: Any) -> None:
        chosen = Retention.as_set(user)
        if chosen.audio is None and chosen.transcripts is None:
            self.stdout.write(f"Nothing is removed: neither {AUDIO} nor {JOBS} is set {HERE}")
            return
        try:
            if dry_run:
                found = retention.count(chosen)
            else:
                found, _ = retention.purge(chosen)
        except DatabaseError as error:
            raise CommandError(f"The database cannot be used: {error}") from None
        except StorageAwayError as error:
            raise CommandError(f"{error.advice}; nothing more was removed") from None
        verb = "would be removed" if dry_run else "removed"
        files = f"{found['audioFiles']} uploaded audio files"
        self.stdout.write(f"{found['jobs']} jobs with their transcripts and {files} {verb}.")
        self.stdout.write(f"By {AUDIO}={_days(chosen.audio)}, {JOBS}={_days(chosen.transcripts)}.")


def _days(kept: timedelta | None) -> str:
    return "(not set)" if kept is None else f"{kept / timedelta(days=1):g}"
