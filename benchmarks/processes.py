"""Processes pinned to cores, and what they cost in processor time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

CORES = sorted(os.sched_getaffinity(0))
MEASURED_CORE = CORES[-1]
LOAD_CORE = CORES[0]
"""With two cores or more, load and server run away from what is measured."""

_TICKS = os.sysconf("SC_CLK_TCK")


def pin(core: int) -> None:
    """Keep this process, and what it starts, on one core."""
    os.sched_setaffinity(0, {core})


def processor_seconds(pid: int) -> float:
    """Processor time that a process has used so far, user and system, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def running(core: int, *command: str) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """A Python process on a core; yields it and the JSON line that it prints when it is ready."""
    process = subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: pin(core),  # noqa: PLW1509 - single-threaded parent
    )
    try:
        yield process, json.loads(_line(process.stdout))
    finally:
        process.terminate()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()


def _line(pipe: IO[str] | None) -> str:
    assert pipe is not None
    line = pipe.readline()
    if not line:
        raise RuntimeError("a benchmark process ended before it was ready")
    return line
