"""Status calls over Z-Wing: one pooled client, N in flight, every answer decoded.

python -m benchmarks.calls ADDRESS FINGERPRINT IN_FLIGHT SECONDS prints one JSON line with the
number of calls and the processor time of this process.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from gateway.process import run
from zapcore import ConnectionPool, Identity, NetrunnerClient


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
            "processor_seconds": time.process_time() - processor,
        }
    print(json.dumps(told), flush=True)
    return 0


if __name__ == "__main__":
    run(_measure(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
