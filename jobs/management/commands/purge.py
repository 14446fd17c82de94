"""`manage.py purge`: remove now what is past its time."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from jobs import retention
from jobs.retention import Retention
from jobs.storage import StorageAwayError


class Command(BaseCommand):
    help = (
        "Removes now what the sweeper would by and by: uploads of jobs that ended more than "
        "AUDIO_RETENTION_DAYS ago, and jobs that ended more than TRANSCRIPT_RETENTION_DAYS ago. "
        "It may be interrupted and repeated at any time."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user", default="", metavar="NAME", help="only jobs of this user")
        parser.add_argument("--dry-run", action="store_true", help="count, and change nothing")

    def handle(self, *, user: str, dry_run: bool, **options: Any) -> None:
        chosen = Retention.as_set(user)
        if chosen.audio is None and chosen.transcripts is None:
            self.stdout.write(
                "Everything is kept: neither AUDIO_RETENTION_DAYS nor TRANSCRIPT_RETENTION_DAYS "
                "is set."
            )
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
