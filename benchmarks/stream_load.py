"""Readers of a stream: connections that count what they get and how old it is.

python -m benchmarks.stream_load PORT PATH READERS SECONDS waits until every reader has its first
state, prints a JSON line, reads for SECONDS more (from when a line comes in on standard input), and
prints another JSON line with what came. States carry their number and the time when the server
pushed them, by the clock that all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import cast

from benchmarks.processes import run

_STAMP = re.compile(rb"/stamp/(\d+)/(\d+)")
_AT_ONCE = 100


class Reader(asyncio.Protocol):
    """One connection."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._buffer = b""
        self.first = asyncio.get_running_loop().create_future()
        self.ages: list[int] = []
        """Nanoseconds from the server's push to the last byte here."""
        self.missed = 0
        self._last = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        whole, found, rest = self._buffer.rpartition(b"\n\n")
        if not found:
            return
        self._buffer = rest
        now = time.monotonic_ns()
        for match in _STAMP.finditer(whole):
            number, pushed = int(match[1]), int(match[2])
            if self._last:
                self.missed += number - self._last - 1
            self._last = number
            self.ages.append(now - pushed)
            if not self.first.done():
                self.first.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if not self.first.done():
            self.first.set_exception(RuntimeError(f"refused: {self._buffer[:300]!r}"))


async def _load(port: int, path: str, count: int, seconds: float) -> int:
    loop = asyncio.get_running_loop()
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: */*\r\n\r\n".encode()
    readers: list[Reader] = []
    transports = []
    while len(readers) < count:
        for _ in range(min(_AT_ONCE, count - len(readers))):
            transport, reader = await loop.create_connection(
                lambda: Reader(request), "127.0.0.1", port
            )
            transports.append(transport)
            readers.append(reader)
        await asyncio.gather(*(reader.first for reader in readers[-_AT_ONCE:]))
    print(json.dumps({"readers": count}), flush=True)
    if not await loop.run_in_executor(None, sys.stdin.readline):
        return 0
    for reader in readers:
        reader.ages.clear()
        reader.missed = 0
    await asyncio.sleep(seconds)
    ages = sorted(age for reader in readers for age in reader.ages)
    told = {
        "states": len(ages),
        "fewest": min(len(reader.ages) for reader in readers),
        "missed": sum(reader.missed for reader in readers),
        "median": ages[len(ages) // 2] / 1e9,
        "p99": ages[len(ages) * 99 // 100] / 1e9,
    }
    print(json.dumps(told), flush=True)
    for transport in transports:
        transport.abort()
    return 0


if __name__ == "__main__":
    run(_load(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
