"""How far a job is, on a terminal or in a log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from jobs.models import Chunk, ChunkStatus


class PlainView:
    """One line for each change of a chunk: for logs and pipes. `files` are the chunks' own."""

    def __init__(self, files: Sequence[Path], stream: Any) -> None:
        self._files = files
        self._stream = stream
        self._shown: dict[int, str] = {}

    def __enter__(self) -> PlainView:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def show(self, chunks: Sequence[Chunk]) -> None:
        done = sum(chunk.status == ChunkStatus.COMPLETED for chunk in chunks)
        for chunk in chunks:
            state = state_of(chunk)
            if self._shown.get(chunk.index) != state:
                self._shown[chunk.index] = state
                name = self._files[chunk.index]
                self._stream.write(
                    f"[{done}/{len(chunks)}] part {chunk.index + 1}, {name}: {state}"
                )


class TerminalView:
    """A bar for the job and a line for each chunk, drawn again and again."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._bar = Progress(
            TextColumn("parts"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        )
        self._job = self._bar.add_task("", total=None)  # a recording's is not known yet
        self._live = Live(self._bar, console=Console(stderr=True, highlight=False))

    def __enter__(self) -> TerminalView:
        self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()

    def show(self, chunks: Sequence[Chunk]) -> None:
        done = sum(chunk.status == ChunkStatus.COMPLETED for chunk in chunks)
        self._bar.update(self._job, completed=done, total=len(chunks) or None)
        table = Table.grid(padding=(0, 2))
        for chunk in chunks:
            name = Text(self._files[chunk.index].name)
            table.add_row(f"part {chunk.index + 1:2}", name, state_of(chunk))
        self._live.update(Group(self._bar, table))


def state_of(chunk: Chunk) -> str:
    """A chunk's state in a few words."""
    words = str(ChunkStatus(chunk.status).label).lower()
    if chunk.attempts > 1 or (chunk.attempts and chunk.status == ChunkStatus.IN_PROGRESS):
        words += f", attempt {chunk.attempts}"
    if chunk.error_code and chunk.status in {ChunkStatus.PENDING, ChunkStatus.FAILED}:
        words += f" ({chunk.error_code})"
    return words
