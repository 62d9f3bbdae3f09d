"""A backend that keeps account: every change is counted under its own name, every answer checkable.

What it answers to a read is a function of one number, which is how many changes have taken effect.
So an answer is right if it is what belongs to its number, and fresh if the number is not below the
one when the read began.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import AsyncIterator

from zapcore import messages as m
from zapcore.errors import NotFound

_NODES = 5
_OWED = 0.6
"""Seconds that a change takes whose caller has less patience."""

SLOW, REFUSED = "slow", "refused"
"""What a change's name may begin with: it takes long, or takes no effect."""


def state_of(number: int) -> m.ClusterInfo:
    """The state after so many changes."""
    names = [f"node{place}" for place in range(1, _NODES + 1)]
    nodes = {
        name: m.NodeInfo(name=name, uri=f"http://{name}", log_dir=f"/logs/{number}")
        for name in names
    }
    return m.ClusterInfo(node_names=names, node_infos=nodes, network_id=number, healthy=True)


def uris_of(number: int) -> list[str]:
    """Addresses after so many changes. One state in forty has more than fits into a record."""
    size = 600_000 if number % 40 == 0 else 20_000 if number % 10 == 0 else 20
    return [str(number), *(f"{part}{size * chr(97 + (number + part) % 26)}" for part in range(2))]


def content_of(name: str) -> bytes:
    """What a message carries that is sent under a name, up to some KiB."""
    digest = hashlib.sha256(name.encode()).digest()
    return digest * (1 + digest[0] * (digest[1] < 64))


class Ledger:
    """The backend.

    Args:
        seed: how long each call takes depends on it.
    """

    def __init__(self, seed: int) -> None:
        self.effects: Counter[str] = Counter()
        """How often each change took effect."""
        self.total = 0
        """All effects."""
        self.wrong: list[str] = []
        """Changes that did not arrive as they were sent."""
        self.under_way = 0
        self.streams = 0
        self._chances = random.Random(seed)  # noqa: S311

    async def ping(self, request: m.PingRequest) -> m.PingResponse:
        return m.PingResponse(1)

    async def status(self, request: m.StatusRequest) -> m.StatusResponse:
        await self._moment()
        return m.StatusResponse(state_of(self.total))

    async def uris(self, request: m.URIsRequest) -> m.URIsResponse:
        await self._moment()
        return m.URIsResponse(uris_of(self.total))

    async def stream_status(
        self, request: m.StreamStatusRequest
    ) -> AsyncIterator[m.StreamStatusResponse]:
        self.streams += 1
        try:
            while True:
                yield m.StreamStatusResponse(state_of(self.total))
                await asyncio.sleep(request.push_interval / 1e9)
        finally:
            self.streams -= 1

    async def pause_node(self, request: m.PauseNodeRequest) -> m.PauseNodeResponse:
        await self._take_effect(request.name)
        return m.PauseNodeResponse(m.ClusterInfo(root_data_dir=request.name))

    async def send_outbound_message(
        self, request: m.SendOutboundMessageRequest
    ) -> m.SendOutboundMessageResponse:
        if request.bytes != content_of(request.node_name):
            self.wrong.append(request.node_name)
        await self._take_effect(request.node_name)
        return m.SendOutboundMessageResponse(True)

    async def _take_effect(self, name: str) -> None:
        if name.startswith(REFUSED):
            raise NotFound(f"node {name} not found")
        self.effects[name] += 1
        self.total += 1
        if name.startswith(SLOW):
            self.under_way += 1
            try:
                await asyncio.sleep(_OWED)
            finally:
                self.under_way -= 1
        await self._moment()

    async def _moment(self) -> None:
        """Most calls take hardly any time, some a little, so that answers overtake each other."""
        self.under_way += 1
        try:
            long = self._chances.random() < 0.2
            await asyncio.sleep(self._chances.uniform(0, 0.005) if long else 0)
        finally:
            self.under_way -= 1
