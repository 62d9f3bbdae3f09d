"""An HTTP load: connections that each send a request, wait for the answer, and send the next.

python -m benchmarks.load PORT PATH CONNECTIONS SECONDS prints one JSON line with the number of
answers and the latencies' percentiles. The client does as little as it can, so that it can keep a
server busy from one core; it checks the status of every answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast

from gateway.process import run


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, request: bytes, latencies: list[float]) -> None:
        self._request = request
        self._latencies = latencies
        self._buffer = b""
        self._length = 0
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is of no such class
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._length:
            head, found, _ = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(head.decode("latin-1"))
            size = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            self._length = len(head) + 4 + int(size)
        if len(self._buffer) >= self._length:
            self._latencies.append(time.perf_counter() - self._sent_at)
            self._buffer, self._length = b"", 0
            self._send()


async def _load(port: int, path: str, connections: int, seconds: float) -> int:
    loop = asyncio.get_running_loop()
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: */*\r\n\r\n".encode()
    latencies: list[float] = []
    clients = [
        await loop.create_connection(lambda: Client(request, latencies), "127.0.0.1", port)
        for _ in range(connections)
    ]
    started, before = time.perf_counter(), len(latencies)
    await asyncio.sleep(seconds)
    count, elapsed = len(latencies) - before, time.perf_counter() - started
    for transport, _ in clients:
        transport.abort()
    ordered = sorted(latencies[before:])
    told = {
        "answers": count,
        "seconds": elapsed,
        "median": ordered[len(ordered) // 2],
        "p99": ordered[len(ordered) * 99 // 100],
    }
    print(json.dumps(told), flush=True)
    return 0


if __name__ == "__main__":
    run(_load(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
