"""GET /v1/status with one client: how long an answer takes, half of them at most.

python -m benchmarks.latency SECONDS PORT… prints one JSON line with the median of each port, in
seconds. The ports are asked in turn, some times each, so that what else the machine does hits all.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from typing import Any

from benchmarks.load import Client, request_to
from benchmarks.processes import LOAD_CORE, command_line, measured, python, run
from benchmarks.sides import Figure, Run, Side, Unavailable
from benchmarks.status import PATH, Served, app

_IN_A_ROW = 25
_NAMES = ("bare", "gateway", "go gateway")


class Asker(Client):
    """A client that asks some times, when it is told to."""

    def __init__(self, request: bytes) -> None:
        self.latencies: list[float] = []
        super().__init__(request, self.latencies)
        self._more = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # uvloop's is of no such class

    async def ask_in_a_row(self, times: int) -> None:
        """So many times; its latencies have them."""
        self._more = times
        self.ended = asyncio.get_running_loop().create_future()
        self.ask()
        await self.ended

    def answered(self) -> None:
        """See Client."""
        self._more -= 1
        if self._more:
            self.ask()
        else:
            self.ended.set_result(None)


async def _measure(seconds: float, ports: list[int]) -> int:
    loop = asyncio.get_running_loop()
    askers = []
    for port in ports:
        asker = Asker(request_to(port, PATH, None))
        await loop.create_connection(lambda asker=asker: asker, "127.0.0.1", port)  # type: ignore[misc]
        await asker.ask_in_a_row(_IN_A_ROW)
        asker.latencies.clear()
        askers.append(asker)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for asker in askers:
            await asker.ask_in_a_row(_IN_A_ROW)
    print(json.dumps([statistics.median(asker.latencies) for asker in askers]))
    return 0


def _apps(run_: Run) -> dict[str, Served]:
    """Those that can be had."""
    found = {}
    for name in _NAMES:
        try:
            found[name] = app(run_, name)
        except Unavailable as error:
            run_.once(f"no {name}", lambda error=error: error)  # type: ignore[misc]
    return found


def _round(run_: Run) -> tuple[Any, str]:
    """The median of each application in this round, and the command that found them."""
    apps = run_.once("latency apps", lambda: _apps(run_))
    ports = [served.port for served in apps.values()]
    command = python("benchmarks.latency", run_.seconds * len(ports), *ports)
    found = dict(zip(apps, measured(LOAD_CORE, *command), strict=True))
    return found, command_line(LOAD_CORE, command)


def _side(name: str) -> Side:
    def side(run_: Run) -> Figure:
        found, command = run_.once(f"latency {run_.round}", lambda: _round(run_))
        if name not in found:
            raise run_.once(f"no {name}", lambda: Unavailable("not here"))
        return Figure(found[name] * 1e6, "µs", command)

    return side


SIDES: dict[str, Side] = {f"latency {name}": _side(name) for name in _NAMES}

if __name__ == "__main__":
    run(_measure(float(sys.argv[1]), list(map(int, sys.argv[2:]))))
