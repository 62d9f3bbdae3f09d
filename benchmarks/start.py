"""From the start of `zap-gateway serve` to its first answer, beside imports it can not avoid."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from benchmarks.processes import MEASURED_CORE, answer_of, command_line, pin, processor_seconds
from benchmarks.sides import Figure, Run, Side
from zapcore import Identity

_IMPORTS = (sys.executable, "-c", "import fastapi, uvicorn")
_ANNOUNCED = "zap-gateway: "


def serve_command(run: Run, *flags: str) -> tuple[str, ...]:
    """`zap-gateway serve` in front of the run's server, with an identity of its own."""
    server = run.server()
    return (
        str(Path(sys.executable).with_name("zap-gateway")),
        "serve",
        *("--upstream", server["address"]),
        *("--server", server["fingerprint"]),
        *("--identity", f"{_folder(run)}/gateway.json"),
        *("--port", "0", "--log-format", "json"),
        *flags,
    )


def _folder(run: Run) -> str:
    """A folder with an identity, for this run."""
    folder: tempfile.TemporaryDirectory[str] = run.once("folder", _folder_with_identity)
    return folder.name


def _folder_with_identity() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="zap-gateway-bench-")
    Identity.generate().save(Path(folder.name) / "gateway.json")
    return folder


@contextmanager
def serving(
    command: tuple[str, ...], environment: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The gateway as people start it; yields it and its URL once it has said that."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=_whole(environment),
        preexec_fn=lambda: pin(MEASURED_CORE),  # noqa: PLW1509 - single-threaded parent
    )
    try:
        yield process, _url(process.stderr)
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def environment(run: Run) -> dict[str, str]:
    """Bytecode is kept, whatever this shell says of that: it would be, where people run it."""
    return {"PYTHONPYCACHEPREFIX": f"{_folder(run)}/bytecode", "PYTHONDONTWRITEBYTECODE": ""}


def _whole(environment: Mapping[str, str]) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("ZAP_")}
    return {**ours, **environment}


def _url(pipe: IO[str] | None) -> str:
    assert pipe is not None
    line = pipe.readline()
    if not line.startswith(_ANNOUNCED):
        raise RuntimeError(f"the gateway did not start: {line}{pipe.read()}")
    return line.removeprefix(_ANNOUNCED).split()[0]


def _first_answer(path: str) -> Side:
    def side(run: Run) -> Figure:
        command, around = serve_command(run), environment(run)
        run.once(f"warm start {path}", lambda: _time_to(command, around, path))
        told = _time_to(command, around, path)
        line = command_line(MEASURED_CORE, command, around)
        return Figure(told["seconds"] * 1e3, "ms", line, told)

    return side


def _time_to(command: tuple[str, ...], around: Mapping[str, str], path: str) -> dict[str, float]:
    """Seconds to the answer, by the clock and of the processor."""
    began = time.perf_counter()
    with serving(command, around) as (process, url):
        announced = time.perf_counter() - began
        # It listens already: the question waits in the socket until somebody takes it.
        json.loads(answer_of(url + path))
        seconds = time.perf_counter() - began
        used = processor_seconds(process.pid)
    return {"seconds": seconds, "announced": announced, "processor_seconds": used}


def _imports(run: Run) -> Figure:
    around = environment(run)
    run.once("warm imports", lambda: _time_imports(around))
    told = _time_imports(around)
    line = command_line(MEASURED_CORE, _IMPORTS, around)
    return Figure(told["seconds"] * 1e3, "ms", line, told)


def _time_imports(around: Mapping[str, str]) -> dict[str, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(
        _IMPORTS,
        check=True,
        env=_whole(around),
        preexec_fn=lambda: pin(MEASURED_CORE),
    )
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "processor_seconds": used}


SIDES: dict[str, Side] = {
    "start": _first_answer("/v1/status"),
    "start healthz": _first_answer("/healthz"),
    "imports": _imports,
}
