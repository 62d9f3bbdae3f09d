"""python -m benchmarks [--seconds S] [--rounds N]: everything, as ratios. `make bench` runs it."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.processes import (
    CORES,
    LOAD_CORE,
    MEASURED_CORE,
    pin,
    processor_seconds,
    running,
)

CLIENTS = 32


@dataclass(frozen=True)
class Rate:
    """What one side did: answers per second of its own processor time, and of the clock."""

    per_core: float
    per_second: float


def _child(core: int, *command: str) -> dict[str, float]:
    """Run a measuring process to its end; the JSON that it prints."""
    result = subprocess.run(
        [sys.executable, "-m", *command],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=lambda: pin(core),
    )
    told: dict[str, float] = json.loads(result.stdout)
    return told


def http_rate(app: tuple[str, ...], seconds: float) -> Rate:
    """GET /v1/status of an application on the measured core, loaded from the other one."""
    with running(MEASURED_CORE, "-m", "benchmarks.apps", *app) as (_, ready):
        arguments = (str(ready["port"]), "/v1/status", str(CLIENTS))
        _child(LOAD_CORE, "benchmarks.load", *arguments, "0.5")
        before = processor_seconds(ready["pid"])
        told = _child(LOAD_CORE, "benchmarks.load", *arguments, str(seconds))
        used = processor_seconds(ready["pid"]) - before
    return Rate(told["answers"] / used, told["answers"] / told["seconds"])


def call_rate(server: dict[str, str], in_flight: int, seconds: float) -> Rate:
    """Decoded Status calls of a client on the measured core."""
    told = _child(
        MEASURED_CORE,
        "benchmarks.calls",
        server["address"],
        server["fingerprint"],
        str(in_flight),
        str(seconds),
    )
    return Rate(told["calls"] / told["processor_seconds"], told["calls"] / told["seconds"])


def _median(rates: list[Rate]) -> Rate:
    return Rate(
        statistics.median(rate.per_core for rate in rates),
        statistics.median(rate.per_second for rate in rates),
    )


def measure(seconds: float, rounds: int) -> dict[str, Rate]:
    """All sides in turn, round after round, so that a slow minute hits them alike."""
    found: dict[str, list[Rate]] = {}
    serve = ("-m", "benchmarks.server")
    with (
        running(LOAD_CORE, *serve) as (_, same),
        running(LOAD_CORE, *serve, "--changing") as (_, changing),
    ):
        sides: dict[str, Callable[[], Rate]] = {
            "bare": lambda: http_rate(("bare",), seconds),
            "model": lambda: http_rate(("model",), seconds),
            "gateway": lambda: http_rate(_gateway(same), seconds),
            "gateway changing": lambda: http_rate(_gateway(changing), seconds),
            "calls 1": lambda: call_rate(same, 1, seconds),
            "calls 32": lambda: call_rate(same, 32, seconds),
            "calls 256": lambda: call_rate(same, 256, seconds),
            "calls changing": lambda: call_rate(changing, 32, seconds),
        }
        for number in range(rounds):
            for name, side in sides.items():
                print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr)
                found.setdefault(name, []).append(side())
    return {name: _median(rates) for name, rates in found.items()}


def _gateway(server: dict[str, str]) -> tuple[str, ...]:
    return ("gateway", server["address"], server["fingerprint"])


_ROWS = (
    ("bare", "bare ASGI app, same bytes, same uvicorn"),
    ("model", "FastAPI route, pydantic model from memory"),
    ("gateway", "GET /v1/status through the gateway"),
    ("gateway changing", "  the same, every node of every answer new"),
    ("calls 1", "Status over Z-Wing, decoded, 1 in flight"),
    ("calls 32", "Status over Z-Wing, decoded, 32 in flight"),
    ("calls 256", "Status over Z-Wing, decoded, 256 in flight"),
    ("calls changing", "  32 in flight, every node of every answer new"),
)


def report(rates: dict[str, Rate]) -> str:
    """The table: the ratio to the bare application is what counts."""
    lines = [
        f"Python {platform.python_version()}, {platform.machine()}, cores {CORES}:"
        f" measured on {MEASURED_CORE}, load and server on {LOAD_CORE}",
        "",
        f"{'':46} {'per core s':>11} {'per second':>11} {'to bare':>8}",
    ]
    base = rates["bare"].per_core
    for name, title in _ROWS:
        rate = rates[name]
        lines.append(
            f"{title:46} {rate.per_core:11,.0f} {rate.per_second:11,.0f}"
            f" {rate.per_core / base:8.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="per side and round (3)")
    parser.add_argument("--rounds", type=int, default=3, help="the median of them counts (3)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    rates = measure(arguments.seconds, arguments.rounds)
    if arguments.json:
        print(json.dumps({name: vars(rate) for name, rate in rates.items()}))
    else:
        print(report(rates))


if __name__ == "__main__":
    main()
