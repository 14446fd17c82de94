"""`python -m benchmarks [--quick] [SCENARIO …]`: measure, print a table, keep it."""

from __future__ import annotations

import argparse
import signal
import sys
from importlib import import_module

from rich.console import Console

from benchmarks.figures import Figures
from benchmarks.machine import settled, speed, stolen

SCENARIOS = (
    *("burst", "pipeline", "engine", "submit", "read", "idle", "search", "sockets", "pages"),
)
_ROUNDS = 3  # of a scenario, at most: noise of a shared machine only ever makes it slower


def main() -> int:
    """The exit status is 1 when a bound of the whole measurement was not kept."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # which cleans up
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--quick", action="store_true", help="less of everything: under 2 minutes")
    asked = parser.parse_args()
    console, figures = Console(), Figures()
    for name in asked.scenarios:
        if name not in SCENARIOS:
            parser.error(f"{name} is none of {', '.join(SCENARIOS)}")
    try:
        for name in asked.scenarios or SCENARIOS:
            with console.status(f"Measuring: {name} …"):
                figures.add(_best_round(name, console, quick=asked.quick))
    except KeyboardInterrupt:
        console.print("Interrupted; this was measured until then:")
        return 130
    finally:
        console.print(figures.table(), *figures.remarks, sep="\n\n")
    if asked.quick:
        return 0  # too little was measured to judge by it
    if not asked.scenarios:
        figures.write()
    return int(bool(figures.missed))


def _best_round(name: str, console: Console, *, quick: bool) -> Figures:
    """Measure a scenario, again while a bound is missed that the machine's own pace decides."""
    rounds: list[Figures] = []
    while not rounds or (not quick and len(rounds) < _ROUNDS and _lateness(rounds[-1]) > 0):
        one = Figures()
        pace = settled() if rounds else speed()
        one.tell(name, "million steps a second of the bare machine", f"{pace:.1f}")
        with stolen() as share:
            import_module(f"benchmarks.{name}").measure(one, quick=quick)
        one.tell(name, "given to other machines meanwhile (steal)", f"{share():.2f} % of the cores")
        rounds.append(one)
        console.print(f"Measured: {name} {_missed(one)}")
    best = min(rounds, key=_lateness)
    for number, other in enumerate(rounds, 1):
        if other is not best:
            best.tell(name, f"round {number} of {len(rounds)}", _missed(other))
    return best


def _lateness(figures: Figures) -> float:
    return sum(figure.late for figure in figures.missed)


def _missed(figures: Figures) -> str:
    return "; ".join(f"missed {figure.name}: {figure.value}" for figure in figures.missed)


if __name__ == "__main__":
    sys.exit(main())
