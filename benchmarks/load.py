"""An HTTP load: connections that each send a request, wait for the answer, and send the next.

python -m benchmarks.load PORT PATH CONNECTIONS SECONDS [BODY] prints one JSON line with the number
of answers and the latencies' percentiles. BODY names what is posted (benchmarks/bodies.py); without
one it is GET. The client does as little as it can, so that it can keep a server busy from one core;
it checks the status of every answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast

from benchmarks.processes import run


class Client(asyncio.Protocol):
    """One connection; ``ended`` is done when it was told to stop and its last answer is there."""

    def __init__(self, request: bytes, latencies: list[float]) -> None:
        self._request = request
        self._latencies = latencies
        self.stopping = False
        self.ended = asyncio.get_running_loop().create_future()
        self._head = b""
        self._left = 0
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is of no such class
        self.ask()

    def ask(self) -> None:
        """Send the request."""
        assert self._transport is not None
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
        else:
            self._head += data
            head, found, rest = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 200 "):
                self._fail(self._head[:2000].decode("latin-1"))
                return
            size = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            self._left = int(size) - len(rest)
        if not self._left:
            self._latencies.append(time.perf_counter() - self._sent_at)
            self._head = b""
            self.answered()

    def answered(self) -> None:
        """An answer is whole: ask again, unless told to stop."""
        if not self.stopping:
            self.ask()
        else:
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the server closed the connection ({exc})")

    def _fail(self, text: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(RuntimeError(text))


def request_to(port: int, path: str, body: bytes | None) -> bytes:
    lines = [
        f"{'GET' if body is None else 'POST'} {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Accept: */*",
    ]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


async def _load(
    port: int, path: str, connections: int, seconds: float, body: bytes | None = None
) -> int:
    loop = asyncio.get_running_loop()
    request = request_to(port, path, body)
    latencies: list[float] = []
    clients = [Client(request, latencies) for _ in range(connections)]
    started = time.perf_counter()
    unconnected = iter(clients)
    for _ in clients:
        await loop.create_connection(lambda: next(unconnected), "127.0.0.1", port)
    every = [client.ended for client in clients]
    await asyncio.wait(every, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for client in clients:
        client.stopping = True
    await asyncio.gather(*every)
    elapsed = time.perf_counter() - started
    ordered = sorted(latencies)
    told = {
        "answers": len(ordered),
        "seconds": elapsed,
        "median": ordered[len(ordered) // 2],
        "p99": ordered[len(ordered) * 99 // 100],
    }
    print(json.dumps(told), flush=True)
    return 0


def main() -> None:
    """Load, and print."""
    port, path, connections, seconds, *body = sys.argv[1:]
    content = None
    if body:
        from benchmarks.bodies import BODIES

        content = BODIES[body[0]]()
    run(_load(int(port), path, int(connections), float(seconds), content))


if __name__ == "__main__":
    main()
