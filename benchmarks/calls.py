"""Status calls over Z-Wing: one connection, N in flight, every answer decoded.

python -m benchmarks.calls ADDRESS FINGERPRINT IN_FLIGHT SECONDS prints one JSON line with the
number of calls and the processor time of this process.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from benchmarks.processes import MEASURED_CORE, command_line, measured, python, run
from benchmarks.sides import Figure, Run, Side
from benchmarks.status import ONE_PROCESSOR, go_peer, upstream
from zapcore import ConnectionPool, Identity, NetrunnerClient

_FIRST_CALLS = 2000


async def _measure(address: str, fingerprint: str, in_flight: int, seconds: float) -> int:
    async with ConnectionPool(address, Identity.generate(), fingerprint, size=1) as pool:
        client = NetrunnerClient(pool)
        await client.status()
        stop_at = time.perf_counter() + seconds
        count = 0

        async def worker() -> None:
            nonlocal count
            while time.perf_counter() < stop_at:
                status = await client.status()
                assert status.cluster_info is not None
                count += 1

        wall, processor = time.perf_counter(), time.process_time()
        await asyncio.gather(*(worker() for _ in range(in_flight)))
        told = {
            "calls": count,
            "seconds": time.perf_counter() - wall,
            "cpu_seconds": time.process_time() - processor,
        }
    print(json.dumps(told), flush=True)
    return 0


def _side(in_flight: int, server: str = "") -> Side:
    def side(run: Run) -> Figure:
        at = run.server(server)
        command = python(
            "benchmarks.calls", at["address"], at["fingerprint"], in_flight, run.seconds
        )
        return _figure(command)

    return side


def _go(run: Run) -> Figure:
    """The Go client is told how many calls to make: as many as it makes in the time there is."""
    program, at = go_peer(run), upstream(run.server())

    def command(calls: int) -> tuple[str, ...]:
        return (program, "load", *at, "-calls", str(calls), "-in-flight", "32")

    def pace() -> float:
        words = command(_FIRST_CALLS)
        told = measured(MEASURED_CORE, *words, environment=ONE_PROCESSOR)
        return float(told["calls"] / told["seconds"])

    calls = max(1, int(run.once("go calls per second", pace) * run.seconds))
    return _figure(command(calls), ONE_PROCESSOR)


def _figure(command: tuple[str, ...], environment: dict[str, str] | None = None) -> Figure:
    told = measured(MEASURED_CORE, *command, environment=environment)
    line = command_line(MEASURED_CORE, command, environment)
    return Figure(told["calls"] / told["cpu_seconds"], "per core s", line, told)


SIDES: dict[str, Side] = {
    "calls": _side(32),
    "calls 1": _side(1),
    "calls 256": _side(256),
    "calls changing": _side(32, "--changing"),
    "go calls": _go,
}

if __name__ == "__main__":
    run(_measure(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
