"""`manage.py redrive`: let chunks that failed for good run again."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, DjangoHelpFormatter
from django.db import DatabaseError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jobs import dead_letters, tasks
from jobs.dead_letters import ERROR_CODES, Selection, Tally
from jobs.models import UserJobIndex

MANY: Final = 50  # chunks from which on a progress bar is shown
LONGEST_DAYS: Final = 36_500
INTERRUPTED: Final = 130  # what a shell expects of a command that Ctrl-C ended
UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhd])", re.ASCII)


def age(text: str) -> timedelta:
    """A number and its unit: 30m, 2h, 1.5d."""
    parts = _AGE.fullmatch(text)
    if parts is None:
        raise ArgumentTypeError(f"{text!r} is no age; write a number and s, m, h or d, as in 2h")
    number, unit = float(parts[1]), UNITS[parts[2]]
    if number * timedelta(**{unit: 1}).total_seconds() > LONGEST_DAYS * 86_400:
        raise ArgumentTypeError(f"{text!r} is more than {LONGEST_DAYS} days")
    return timedelta(**{unit: number})


class HelpFormatter(DjangoHelpFormatter, RawDescriptionHelpFormatter):
    """Keeps the lines of the examples."""


class Command(BaseCommand):
    help = (
        "Lets dead letters run again: chunks that failed for good, of jobs that failed.\n"
        "Without options these are all whose error was one that passes (an engine that was\n"
        "down, a crash), of any age and user. Their jobs are in progress again and end anew;\n"
        "chunks that are not selected stay as they are. It may be interrupted and repeated\n"
        "at any time."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.formatter_class = HelpFormatter
        parser.epilog = (
            "examples:\n"
            "  manage.py redrive --dry-run               what would run again, by code\n"
            "  manage.py redrive --older-than 2h         what failed before the outage ended\n"
            "  manage.py redrive --code engine_refused   once the engine's key is right again\n"
            "  manage.py redrive --user alice --code invalid_audio --code audio_too_long"
        )
        parser.add_argument(
            "--code",
            action="append",
            default=[],
            metavar="CODE",
            dest="codes",
            help="only chunks that failed with exactly this code, also one that does not pass by "
            f"itself; may be repeated. Codes: {', '.join(sorted(ERROR_CODES))}",
        )
        parser.add_argument(
            "--older-than",
            type=age,
            metavar="AGE",
            help="only chunks that failed longer ago than that: 30m, 2h, 1.5d",
        )
        parser.add_argument("--user", default="", metavar="NAME", help="only jobs of this user")
        parser.add_argument(
            "--dry-run", action="store_true", help="show the table and change nothing"
        )

    def handle(
        self,
        *,
        codes: list[str],
        older_than: timedelta | None,
        user: str,
        dry_run: bool,
        **options: Any,
    ) -> None:
        selection = Selection(codes=tuple(codes), older_than=older_than, user_id=user)
        with database_errors():
            self._check(codes, user)
            found = dead_letters.tally(selection)
            left = [] if codes else dead_letters.tally(replace(selection, recoverable=False))
        if left:
            kinds = ", ".join(f"{kind.code} ({kind.chunks})" for kind in left)
            self.stdout.write(f"Left out, as they would fail again: {kinds}; --code takes them.")
        if not found:
            self.stdout.write("No dead letters are selected.")
        elif dry_run:
            self._show(found)
            self.stdout.write("Nothing was changed (--dry-run).")
        else:
            self._redrive(selection, found)

    def _check(self, codes: list[str], user: str) -> None:
        if user and not UserJobIndex.objects.filter(user_id=user).exists():
            raise CommandError(f"There are no jobs of a user {user!r}.")
        for code in codes:
            if not dead_letters.is_known(code):
                known = ", ".join(sorted(ERROR_CODES))
                raise CommandError(f"--code: no chunk fails with {code!r}; the codes are {known}")

    def _redrive(self, selection: Selection, found: list[Tally]) -> None:
        """Retry and dispatch job by job; say what was done, also when it was cut short."""
        retried, broker_away, interrupted = Counter[str](), False, False
        bar = progress_bar(sum(tally.chunks for tally in found))
        try:
            with bar, database_errors():
                for chunks in dead_letters.redrive(selection):
                    retried.update(chunk.error_code for chunk in chunks)
                    # Asked once: a broker that is away would let every job wait for a second.
                    broker_away = broker_away or not tasks.dispatch(chunks[0].job_id)
                    bar.advance(bar.task_ids[0], len(chunks))
        except KeyboardInterrupt:
            interrupted = True
        finally:
            self._show(found, retried)
            if broker_away:
                self.stdout.write("The broker is away: what was retried starts when it is back.")
        if interrupted:
            raise CommandError(
                "Interrupted: what was retried runs, the rest is as it was.",
                returncode=INTERRUPTED,
            )

    def _show(self, found: list[Tally], retried: Counter[str] | None = None) -> None:
        table = Table(show_footer=len(found) > 1)
        table.add_column("Code", footer="total")
        table.add_column("Class")
        table.add_column("Chunks", justify="right", footer=f"{sum(kind.chunks for kind in found)}")
        table.add_column("Jobs", justify="right")
        if retried is not None:
            table.add_column("Retried", justify="right", footer=f"{retried.total()}")
        for kind in found:
            row = (kind.code, kind.classification, f"{kind.chunks}", f"{kind.jobs}")
            table.add_row(*row, *([] if retried is None else [f"{retried[kind.code]}"]))
        console = Console(width=100, no_color=True)
        with console.capture() as capture:
            console.print(table)
        self.stdout.write(capture.get())


def progress_bar(chunks: int) -> Progress:
    """On a terminal, for many chunks; else one that shows nothing."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("chunks"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=chunks < MANY or not console.is_terminal,
    )
    bar.add_task("", total=chunks)
    return bar


@contextmanager
def database_errors() -> Iterator[None]:
    """A database that cannot be used, as one line.

    Raises:
        CommandError: nothing half-done stays behind; what was retried before runs.
    """
    try:
        yield
    except DatabaseError as error:
        raise CommandError(f"The database cannot be used: {error}") from None
