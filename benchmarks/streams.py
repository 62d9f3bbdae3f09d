"""python -m benchmarks.streams [--readers 1,10,…]: what readers of the live stream cost.

The netrunner server pushes a state of five nodes every second, one of which differs each time. The
gateway sends it to all readers; so does, in the same run, a bare ASGI application on the same
uvicorn that makes up its states itself.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.processes import (
    CORES,
    LOAD_CORE,
    MEASURED_CORE,
    processor_seconds,
    resident,
    running,
    upstream_bytes,
)

_PATHS = {"gateway": "/v1/status/stream", "bare": "/"}
_SPARE = 64


@dataclass(frozen=True)
class Cost:
    """What so many readers cost one process."""

    side: str
    readers: int
    core: float
    """Part of one core."""
    kilobytes: float
    """Memory per reader, in thousands of bytes."""
    median: float
    p99: float
    """Seconds from the server's push to the reader's last byte."""
    fewest: int
    """States that the reader with the fewest got."""
    missed: int
    """States that any reader did not get, in all."""
    upstream: float | None
    """Bytes per second from the netrunner server; None where there is none."""


def measure(side: str, readers: int, seconds: float) -> Cost:
    """One side with so many readers."""
    serve = ("-m", "benchmarks.server", "--stamped")
    with running(LOAD_CORE, *serve) if side == "gateway" else nullcontext() as server:
        if server is None:
            app = ("broadcast",)
        else:
            told = server[1]
            app = ("gateway", told["address"], told["fingerprint"], str(readers + _SPARE))
        with running(MEASURED_CORE, "-m", "benchmarks.apps", *app) as (_, ready):
            return _measure(side, ready["pid"], ready["port"], readers, seconds)


def _measure(side: str, pid: int, port: int, readers: int, seconds: float) -> Cost:
    path = _PATHS[side]
    with _load(port, path, 1) as (_, _ready):
        pass  # what is made once, whoever reads, is made now
    empty = resident(pid)
    with _load(port, path, readers, seconds) as (load, _ready):
        memory = resident(pid)
        before, upstream = processor_seconds(pid), _upstream_bytes(side, port)
        assert load.stdin is not None
        assert load.stdout is not None
        load.stdin.write("go\n")
        load.stdin.flush()
        told = json.loads(load.stdout.readline())
        used = processor_seconds(pid) - before
        after = _upstream_bytes(side, port)
    return Cost(
        side,
        readers,
        used / seconds,
        (memory - empty) / readers / 1000,
        told["median"],
        told["p99"],
        told["fewest"],
        told["missed"],
        None if upstream is None or after is None else (after - upstream) / seconds,
    )


def _load(
    port: int, path: str, readers: int, seconds: float = 0.0
) -> AbstractContextManager[tuple[subprocess.Popen[str], Any]]:
    return running(
        LOAD_CORE, "-m", "benchmarks.stream_load", str(port), path, str(readers), str(seconds)
    )


def _upstream_bytes(side: str, port: int) -> float | None:
    return upstream_bytes(port) if side == "gateway" else None


def report(costs: list[Cost]) -> str:
    """The table: one side beside the other for each number of readers."""
    lines = [
        f"Python {platform.python_version()}, {platform.machine()}, cores {CORES}:"
        f" measured on {MEASURED_CORE}, readers and server on {LOAD_CORE}",
        "",
        f"{'readers':>7}  {'':8} {'core':>7} {'kB each':>8} {'median':>9} {'99 %':>9}"
        f" {'missed':>7} {'upstream':>10}",
    ]
    for cost in costs:
        upstream = "" if cost.upstream is None else f"{cost.upstream:6.0f} B/s"
        lines.append(
            f"{cost.readers:7,}  {cost.side:8} {cost.core:7.1%} {cost.kilobytes:8.1f}"
            f" {cost.median * 1000:6.1f} ms {cost.p99 * 1000:6.1f} ms"
            f" {cost.missed:7,} {upstream:>10}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("python -m benchmarks.streams", description=__doc__)
    parser.add_argument("--readers", default="1,10,100,1000,5000", help="how many, with commas")
    parser.add_argument("--seconds", type=float, default=10.0, help="per side and number (10)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    costs = []
    for readers in map(int, arguments.readers.split(",")):
        for side in _PATHS:
            print(f"{readers} readers: {side}", file=sys.stderr)
            costs.append(measure(side, readers, arguments.seconds))
    print(json.dumps([asdict(cost) for cost in costs]) if arguments.json else report(costs))


if __name__ == "__main__":
    main()
