"""How fast and how right an engine is on `samples/`: `python -m benchmarks.engines [ENGINE …]`.

Speed is the time that one call takes as a share of the sound's length, the first call (which loads
the model) left out. The word error rate counts wrong, missing and invented words per word spoken;
case and punctuation count for nothing.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from statistics import median

import django
import jiwer
from rich.console import Console
from rich.table import Table

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "transcription_site.settings")
django.setup()

from django.conf import settings  # noqa: E402  (settings come before what reads them)

from asr.audio import inspect  # noqa: E402
from asr.errors import AsrError  # noqa: E402
from asr.types import AudioRequest  # noqa: E402
from jobs import engines  # noqa: E402

LIMIT_SECONDS = 600.0


def main(names: list[str]) -> None:
    """Measure the engines named, or all that are configured."""
    console = Console()
    table = Table("engine", "model", "share of the sound's length", "word error rate")
    try:
        for name in names or engines.configured():
            try:
                engine = engines.get(name)
                engine.prepare()
                share, errors = measure(name)
            except AsrError as error:
                console.print(f"{name} is left out: {error.detail}", soft_wrap=True)
                continue
            table.add_row(name, engine.model, f"{share:.2f}", f"{errors:.1%}")
    finally:
        engines.close()
    console.print(table)


def measure(name: str) -> tuple[float, float]:
    """The median share of the sound's length, and the word error rate over all samples."""
    folder = settings.BASE_DIR / "samples"
    samples = json.loads((folder / "manifest.json").read_text())
    shares, said, heard = [], [], []
    for sample in [samples[0], *samples]:
        data = (folder / sample["file"]).read_bytes()
        info = inspect(engines.child_pool(), data, max_seconds=300, limit=LIMIT_SECONDS)
        began = time.monotonic()
        recognition = engines.get(name).transcribe(
            AudioRequest(data=data, info=info, deadline_seconds=LIMIT_SECONDS)
        )
        shares.append((time.monotonic() - began) / info.duration_seconds)
        said.append(plain(sample["text"]))
        heard.append(plain(recognition.text))
    return median(shares[1:]), jiwer.wer(said[1:], heard[1:])


def plain(text: str) -> str:
    """The words alone."""
    return " ".join(re.findall(r"[\w']+", text.lower()))


if __name__ == "__main__":
    main(sys.argv[1:])
