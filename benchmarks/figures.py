"""What a scenario found, and the page that keeps it."""

from __future__ import annotations

import math
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil
from rich.table import Table

from transcription_site.env import BASE_DIR

RESULTS = BASE_DIR / "benchmarks" / "RESULTS.md"
_OF_THE_MACHINE = {" s", " ms", " %"}  # units that follow its pace; ratios of one run do not


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured value, the bound that it is to keep, and what it was seen beside."""

    scenario: str
    name: str
    value: str
    bound: str = ""
    reached: bool | None = None  # None: there is no bound, the value is only told
    beside: str = ""
    late: float = 0.0  # the share of the bound, where it was missed and the machine's pace decides


@dataclass
class Figures:
    """The figures of one run, in the order in which they were taken."""

    taken: list[Figure] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def tell(self, scenario: str, name: str, value: str) -> None:
        """Something to know, without a bound."""
        self.taken.append(Figure(scenario=scenario, name=name, value=value))

    def remark(self, scenario: str, text: str) -> None:
        """Something that stands below the table."""
        self.remarks.append(f"{scenario}: {text}")

    def take(
        self,
        scenario: str,
        name: str,
        value: float,
        *,
        at_most: float = math.inf,
        at_least: float = -math.inf,
        unit: str = "",
        beside: str = "",
        otherwise: str = "",
    ) -> None:
        """A value with one of the two bounds, both in the same unit.

        `otherwise` is what there is to say where the bound was not kept.
        """
        bound = f"≤ {at_most:g}{unit}" if at_most < math.inf else f"≥ {at_least:g}{unit}"
        figure = Figure(
            scenario=scenario,
            name=name,
            value=f"{value:.3g}{unit}",
            bound=bound,
            reached=at_least <= value <= at_most,
            beside=beside,
            late=value / at_most if unit in _OF_THE_MACHINE and value > at_most else 0.0,
        )
        self.taken.append(figure)
        if otherwise and not figure.reached:
            self.remark(f"{scenario}, {name}", otherwise)

    def add(self, others: Figures) -> None:
        """Append all that others hold."""
        self.taken += others.taken
        self.remarks += others.remarks

    @property
    def missed(self) -> list[Figure]:
        """Those whose bound was not kept."""
        return [figure for figure in self.taken if figure.reached is False]

    def table(self) -> Table:
        """All figures for the terminal."""
        table = Table("scenario", "figure", "measured", "to reach", "", "beside")
        for figure in self.taken:
            mark = {True: "[green]yes", False: "[red]NO", None: ""}[figure.reached]
            row = (figure.scenario, figure.name, figure.value, figure.bound, mark, figure.beside)
            table.add_row(*row)
        return table

    def write(self, path: Path = RESULTS) -> None:
        """The page: where, when, at which commit, and the table."""
        lines = [
            "# Results",
            "",
            f"Measured {datetime.now(UTC):%Y-%m-%d} at commit {_commit()} by `make bench`:",
            f"{psutil.cpu_count()} cores ({_processor()}), {_gibibytes()} GiB, Python {_python()}.",
            "The machine is shared: absolute times vary by a third, within minutes. The steps of a",
            "bare loop of Python on all cores, counted before each scenario, tell how fast it was.",
            "A scenario that misses a bound in seconds or in per cent of a core is measured again,",
            "three times at most, when others leave it the machine: the best round stands here.",
            "",
            "| scenario | figure | measured | to reach | reached | beside |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for figure in self.taken:
            mark = {True: "yes", False: "**no**", None: ""}[figure.reached]
            cells = (figure.scenario, figure.name, figure.value, figure.bound, mark, figure.beside)
            lines.append("| " + " | ".join(cells) + " |")
        lines += [f"\n{remark}" for remark in self.remarks]
        path.write_text("\n".join(lines) + "\n")


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all do not exceed (nearest rank)."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=BASE_DIR, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _python() -> str:
    return platform.python_version()


def _gibibytes() -> int:
    return int(psutil.virtual_memory().total / 2**30 + 0.5)
