"""A netrunner server on the simulation, whose answers to Status can be made to differ.

python -m benchmarks.server [--changing | --stamped | --large] prints one JSON line with its address
and fingerprint. With --changing every node of every answer differs from the answer before, which no
cluster does. With --stamped each state of a stream tells when it was pushed. With --large a status
has a genesis that makes 8 MiB of JSON, and what is sent to it is taken and forgotten.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace

from benchmarks.processes import run
from zapcore import Identity, NetrunnerServer, SimulatedNetrunner
from zapcore.messages import (
    ChainInfo,
    CreateBlockchainsRequest,
    CreateBlockchainsResponse,
    SendOutboundMessageRequest,
    SendOutboundMessageResponse,
    StatusRequest,
    StatusResponse,
    StreamStatusRequest,
    StreamStatusResponse,
)

_GENESIS_SIZE = 6 * 1024 * 1024 - 2000
"""Bytes. As base64 a third more, and with the rest of the status 8 MiB."""


class Changing(SimulatedNetrunner):
    """Each node's log directory has a number that no answer before had."""

    _number = 100_000

    async def status(self, request: StatusRequest) -> StatusResponse:
        """The state, with the numbers."""
        response = await super().status(request)
        assert response.cluster_info is not None
        nodes = response.cluster_info.node_infos
        self._number += 1
        for name, node in nodes.items():
            nodes[name] = replace(node, log_dir=f"{node.log_dir}/{self._number}")
        return response


class Stamped(SimulatedNetrunner):
    """In each state of a stream one node's log directory has a number and the time."""

    async def stream_status(
        self, request: StreamStatusRequest
    ) -> AsyncIterator[StreamStatusResponse]:
        """The state, with the stamp."""
        number = 0
        async for response in super().stream_status(request):
            number += 1
            assert response.cluster_info is not None
            node = response.cluster_info.node_infos["node1"]
            stamp = f"/stamp/{number}/{time.monotonic_ns()}"
            nodes = {**response.cluster_info.node_infos, "node1": replace(node, log_dir=stamp)}
            yield StreamStatusResponse(replace(response.cluster_info, node_infos=nodes))


class Large(SimulatedNetrunner):
    """Much comes and goes, and nothing of it is kept."""

    _number = 0

    async def status(self, request: StatusRequest) -> StatusResponse:
        """The state, with a chain whose genesis begins with a number."""
        response = await super().status(request)
        assert response.cluster_info is not None
        self._number += 1
        genesis = b"%012d" % self._number + bytes(_GENESIS_SIZE)
        response.cluster_info.custom_chains["chain"] = ChainInfo(
            chain_name="C", chain_id="chain", genesis=genesis
        )
        return response

    async def create_blockchains(
        self, request: CreateBlockchainsRequest
    ) -> CreateBlockchainsResponse:
        """Taken."""
        del request
        return CreateBlockchainsResponse(None, ["chain"])

    async def send_outbound_message(
        self, request: SendOutboundMessageRequest
    ) -> SendOutboundMessageResponse:
        """Sent."""
        del request
        return SendOutboundMessageResponse(True)


async def _serve(backend: SimulatedNetrunner) -> int:
    identity = Identity.generate()
    async with NetrunnerServer(backend, identity).serving() as server:
        fingerprint = identity.public.fingerprint
        told = {
            "address": server.address,
            "fingerprint": fingerprint,
            "identity": bytes(identity.public).hex(),
            "pid": os.getpid(),
        }
        print(json.dumps(told), flush=True)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
        await ended.wait()
    return 0


if __name__ == "__main__":
    kinds = {"--changing": Changing, "--stamped": Stamped, "--large": Large}
    kind = next((kinds[word] for word in sys.argv if word in kinds), SimulatedNetrunner)
    run(_serve(kind(health_delay=0)))
