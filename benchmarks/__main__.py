"""python -m benchmarks [NAME…]: every claim of speed, as a ratio of two sides of one run."""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks import body, calls, codec, handshake, latency, memory, start, status
from benchmarks.processes import CORES, LOAD_CORE, MEASURED_CORE
from benchmarks.sides import Figure, Run, Side, Unavailable
from benchmarks.table import ROWS, Row

SIDES: dict[str, Side] = {
    **status.SIDES,
    **calls.SIDES,
    **codec.SIDES,
    **latency.SIDES,
    **body.SIDES,
    **start.SIDES,
    **handshake.SIDES,
    **memory.SIDES,
}

_EPILOG = """\
Each row names two sides. Round after round every side that is wanted is measured once, so that a
slow minute hits both; a ratio is made in each round, and the median of the rounds counts. Figures
are of this machine, ratios carry over. What is measured runs on one core, its load and its server
on another one; rates count processor time of the measured process, so it does not matter whether
the load kept it busy.

  python -m benchmarks                        all rows
  python -m benchmarks status codec           those whose names begin so
  python -m benchmarks latency --rounds 9     more rounds, where a machine is busy
  python -m benchmarks start --json           every figure of every round

The exit status is 0 whatever the figures are. benchmarks/README.md explains each row.

rows:
"""


@dataclass
class Measured:
    """What is known of the sides: figures by round, or why there are none."""

    figures: dict[str, list[Figure]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def ratios(self, row: Row) -> list[float]:
        """Round by round; none where a side is missing."""
        ours = self.figures.get(row.ours, [])
        if row.theirs is None:
            return [row.compare(figure.value, math.nan) for figure in ours]
        theirs = self.figures.get(row.theirs, [])
        return [
            row.compare(mine.value, other.value) for mine, other in zip(ours, theirs, strict=False)
        ]

    def why_missing(self, row: Row) -> str:
        """Why a row has no ratio."""
        return next(self.missing[side] for side in sides_of([row]) if side in self.missing)


def sides_of(rows: Iterable[Row]) -> list[str]:
    """The sides of rows, each once, in order."""
    names = [name for row in rows for name in (row.ours, row.theirs) if name is not None]
    return list(dict.fromkeys(names))


def measure(rows: Sequence[Row], run: Run, rounds: int) -> Measured:
    """All sides in turn, round after round."""
    found = Measured()
    for number in range(rounds):
        run.round = number
        for name in sides_of(rows):
            if name in found.missing:
                continue
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr)
            try:
                figure = SIDES[name](run)
            except Unavailable as error:
                found.missing[name] = str(error)
            else:
                found.figures.setdefault(name, []).append(figure)
    return found


def _plain(number: float) -> str:
    """Three digits that count."""
    if math.isnan(number):
        return "–"
    digits = 0 if abs(number) >= 100 else 1 if abs(number) >= 10 else 2
    return f"{number:,.{digits}f}"


def _limit(row: Row, limit: float | None) -> str:
    return "" if limit is None else f"{row.kind.value} {limit:g}"


def _verdict(row: Row, ratio: float) -> str:
    if row.bar is None:
        return ""
    if row.beyond is not None and row.kind.holds(ratio, row.beyond):
        return "beyond"
    return "holds" if row.kind.holds(ratio, row.bar) else "MISSED"


def _line_of(row: Row, found: Measured) -> str:
    ratios = found.ratios(row)
    title = f"{row.name:16} {row.what:50}"
    if not ratios:
        return f"{title} not measured: {found.why_missing(row)}"
    ratio = statistics.median(ratios)
    spread = f"{_plain(min(ratios))}–{_plain(max(ratios))}"
    return (
        f"{title} {_middle(found, row.ours):>17} {_middle(found, row.theirs):>17}"
        f" {_plain(ratio):>6} {spread:>11} {_limit(row, row.bar):>6} {_limit(row, row.beyond):>6}"
        f" {_verdict(row, ratio)}"
    ).rstrip()


def _middle(found: Measured, side: str | None) -> str:
    if side is None:
        return ""
    figures = found.figures[side]
    middle = statistics.median(figure.value for figure in figures)
    return f"{_plain(middle)} {figures[0].unit}"


def report(rows: Sequence[Row], found: Measured) -> str:
    """The table; below it what each row is against, and the command line of each side."""
    lines = [
        f"Python {platform.python_version()}, {platform.machine()}, cores {CORES}:"
        f" measured on {MEASURED_CORE}, load and server on {LOAD_CORE}",
        "",
        f"{'row':16} {'what':50} {'this':>17} {'other':>17} {'ratio':>6} {'rounds':>11}"
        f" {'bar':>6} {'beyond':>6}",
        *(_line_of(row, found) for row in rows),
        "",
        "Rows: their sides, and how to measure one again",
        *(_sides_line(row) for row in rows),
        "",
        "Sides: their command lines",
        *(f"  {name:20} {figures[-1].command}" for name, figures in found.figures.items()),
    ]
    return "\n".join(lines)


def _sides_line(row: Row) -> str:
    sides = " : ".join(sides_of([row]))
    return f"  {row.name:16} {sides}; against {row.against}; python -m benchmarks {row.name}"


def as_json(rows: Sequence[Row], found: Measured) -> str:
    """Rows with their ratios, and every figure of every side."""
    table = [
        {
            "name": row.name,
            "what": row.what.strip(),
            "against": row.against,
            "sides": sides_of([row]),
            "ratios": found.ratios(row),
            "ratio": statistics.median(found.ratios(row)) if found.ratios(row) else None,
            "bar": row.bar,
            "beyond": row.beyond,
            "good": row.kind.value,
            "missing": None if found.ratios(row) else found.why_missing(row),
        }
        for row in rows
    ]
    sides = {
        name: [
            {"value": each.value, "unit": each.unit, "command": each.command, **each.more}
            for each in figures
        ]
        for name, figures in found.figures.items()
    }
    return json.dumps({"rows": table, "sides": sides}, indent=1)


def wanted(names: Sequence[str]) -> list[Row]:
    """The rows whose names begin with one of these; all for none.

    Raises:
        ValueError: no row's name begins so.
    """
    for name in names:
        if not any(row.name.startswith(name) for row in ROWS):
            raise ValueError(f"there is no row {name!r}: {', '.join(row.name for row in ROWS)}")
    return [row for row in ROWS if not names or row.name.startswith(tuple(names))]


def main() -> None:
    """Measure and print."""
    listed = "\n".join(f"  {row.name:16} {row.what.strip()}, against {row.against}" for row in ROWS)
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description=__doc__,
        epilog=_EPILOG + listed,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="rows, by how their names begin")
    parser.add_argument("--seconds", type=float, default=1.0, help="per side and round (1)")
    parser.add_argument("--rounds", type=int, default=7, help="the median of them counts (7)")
    parser.add_argument(
        "--calls", type=int, default=100_000, help="that the memory rows make (100000)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with every figure")
    arguments = parser.parse_args()
    try:
        rows = wanted(arguments.names)
    except ValueError as error:
        parser.error(str(error))
    with Run(arguments.seconds, arguments.calls) as run:
        found = measure(rows, run, arguments.rounds)
    print(as_json(rows, found) if arguments.json else report(rows, found))


if __name__ == "__main__":
    main()
