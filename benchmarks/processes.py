"""Processes pinned to cores, and what they cost in processor time."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

CORES = sorted(os.sched_getaffinity(0))
MEASURED_CORE = CORES[-1]
LOAD_CORE = CORES[0]
"""With two cores or more, load and server run away from what is measured."""

_LONGEST_WORD = 80


def pin(core: int) -> None:
    """Keep this process, and what it starts, on one core."""
    os.sched_setaffinity(0, {core})


def processor_seconds(pid: int) -> float:
    """Processor time that a process has used so far, user and system, all threads."""
    # The clock behind clock_getcpuclockid(3), which Python does not offer: /proc counts in steps of
    # 10 ms, and forgets what short runs need.
    return time.clock_gettime((~pid << 3) | 2)


def resident(pid: int) -> int:
    """Memory of a process, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the system does not tell how much memory a process has")


def answer_of(url: str) -> bytes:
    """A GET's body; only what answers 200 is measured."""
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - a URL of our own making
        body: bytes = answer.read()
    return body


def upstream_bytes(port: int) -> float:
    """What the gateway on that port has received from the netrunner server."""
    for line in answer_of(f"http://127.0.0.1:{port}/metrics").decode().splitlines():
        if line.startswith("zap_gateway_upstream_received_bytes_total "):
            return float(line.split()[1])
    raise RuntimeError("the gateway does not tell what it received")


def run(main: Coroutine[Any, Any, int]) -> int:
    """As gateway.process.run, for processes that shall not import the whole gateway."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return int(uvloop.run(main))


def python(*words: object) -> tuple[str, ...]:
    """The command that runs a module of ours."""
    return (sys.executable, "-m", *map(str, words))


def command_line(
    core: int, command: tuple[str, ...], environment: Mapping[str, str] | None = None
) -> str:
    """A command as a shell would take it; words beyond all measure are cut."""
    given = [f"{name}={value}" for name, value in (environment or {}).items()]
    words = [f"{word[:12]}…" if len(word) > _LONGEST_WORD else word for word in command]
    program = Path(words[0])
    with_root = program.is_relative_to(Path.cwd())
    words[0] = str(program.relative_to(Path.cwd())) if with_root else words[0]
    return " ".join([*given, "taskset", "-c", str(core), *map(shlex.quote, words)])


def measured(core: int, *command: str, environment: Mapping[str, str] | None = None) -> Any:
    """Run a measuring process to its end; the JSON that it prints last."""
    result = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, **(environment or {})},
        preexec_fn=lambda: pin(core),
    )
    return json.loads(result.stdout.splitlines()[-1])


@contextmanager
def started(
    core: int, *command: str, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """A process on a core; yields it and the JSON line that it prints when it is ready."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
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


@contextmanager
def running(core: int, *words: str) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """The same for Python with these arguments."""
    with started(core, sys.executable, *words) as both:
        yield both


def _line(pipe: IO[str] | None) -> str:
    assert pipe is not None
    line = pipe.readline()
    if not line:
        raise RuntimeError("a benchmark process ended before it was ready")
    return line
