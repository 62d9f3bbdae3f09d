"""A simulated netrunner that can be killed: what it did is in a file.

python -m tests.faults.server IDENTITY PORT EFFECTS prints one JSON line once it listens: its
address, its process id, and the time by the system's monotonic clock. PORT 0 takes a free one. The
name of each node that it is asked to pause is a line of the file EFFECTS before it is answered.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

from zapcore import Identity, NetrunnerServer, SimulatedNetrunner
from zapcore import messages as m


class Recorder(SimulatedNetrunner):
    """A cluster of five nodes, and an account of changes that are none.

    Args:
        effects: an open file.
    """

    def __init__(self, effects: int) -> None:
        super().__init__(health_delay=0)
        self._effects = effects

    async def pause_node(self, request: m.PauseNodeRequest) -> m.PauseNodeResponse:
        """Take down the node's name; the answer tells it."""
        os.write(self._effects, f"{request.name}\n".encode())
        await asyncio.sleep(0.001)
        return m.PauseNodeResponse(m.ClusterInfo(root_data_dir=request.name))


async def _serve(identity: str, port: int, effects: str) -> None:
    file = os.open(effects, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    server = NetrunnerServer(Recorder(file), Identity.load(identity))
    async with server.serving(port=port):
        told = {"address": server.address, "pid": os.getpid(), "ready": time.monotonic()}
        print(json.dumps(told), flush=True)  # noqa: T201
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
