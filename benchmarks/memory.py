"""Memory of the gateway: at rest, and after many calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from benchmarks.processes import MEASURED_CORE, answer_of, command_line, resident
from benchmarks.sides import Figure, Run, Side
from benchmarks.start import environment, serve_command, serving
from benchmarks.status import CLIENTS, load

_REST = 2.0
"""Seconds without a request: the connections to the server stand by then."""

_SPELL = 5.0
"""Seconds that the load runs without a break."""

_MEGABYTE = 1e6


def _measure(run: Run) -> dict[str, float]:
    """Bytes of memory at rest, after the first thousands of calls, and after all of them."""
    command = serve_command(run)
    with serving(command, environment(run)) as (process, url), _drained(process.stderr):
        answer_of(f"{url}/healthz")
        time.sleep(_REST)
        seen = {"rest": float(resident(process.pid))}
        port, calls = int(url.rpartition(":")[2]), 0.0
        while calls < run.calls:
            calls += load(port, CLIENTS, _SPELL)["answers"]
            seen.setdefault("early", resident(process.pid))
        time.sleep(_REST)
        seen["after"] = resident(process.pid)
    return {**seen, "calls": calls}


@contextmanager
def _drained(pipe: IO[str] | None) -> Iterator[None]:
    """Read the log lines away: a full pipe would stop the gateway."""
    assert pipe is not None
    reader = threading.Thread(target=lambda: all(pipe), daemon=True)
    reader.start()
    yield


def _side(moment: str) -> Side:
    def side(run: Run) -> Figure:
        seen = run.once("memory", lambda: _measure(run))
        line = command_line(MEASURED_CORE, serve_command(run), environment(run))
        return Figure(seen[moment] / _MEGABYTE, "MB", line, seen)

    return side


SIDES: dict[str, Side] = {
    f"memory {moment}": _side(moment) for moment in ("rest", "early", "after")
}
