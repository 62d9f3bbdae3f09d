"""A good client among hostile ones, and what may not grow because of them."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.zap_helpers import eventually, identity_of, soon
from zapcore import Backend, connect, messages
from zapcore.client import NetrunnerClient
from zapcore.connection import Connection
from zapcore.server import NetrunnerServer, ServerChannel
from zapcore.zwing import Initiator, Responder, Session

_KINDS = (Connection, Initiator, Responder, ServerChannel, Session)


class Counting(Backend):
    """Answers, and tells what it was asked."""

    def __init__(self) -> None:
        self.nodes: list[str] = []
        self.pings = 0

    async def ping(self, request: messages.PingRequest) -> messages.PingResponse:
        self.pings += 1
        return messages.PingResponse(7)

    async def pause_node(self, request: messages.PauseNodeRequest) -> messages.PauseNodeResponse:
        self.nodes.append(request.name)
        return messages.PauseNodeResponse()

    async def status(self, request: messages.StatusRequest) -> messages.StatusResponse:
        return messages.StatusResponse(messages.ClusterInfo(root_data_dir="x" * 4096))


async def is_answered(client: NetrunnerClient) -> None:
    """A good client gets through."""
    assert (await soon(client.ping())).pid == 7


async def gets_in(server: NetrunnerServer, name: str = "client") -> None:
    """So does one that comes now."""
    async with connect(
        server.address, identity=identity_of(name), server=server.identity.public
    ) as client:
        await is_answered(client)


def _alive() -> int:
    """Connections, handshakes and sessions that anything still refers to."""
    gc.collect()
    return sum(type(each) in _KINDS for each in gc.get_objects())


@dataclass(frozen=True)
class Kept:
    """What this process keeps of its peers."""

    tasks: int = field(default_factory=lambda: len(asyncio.all_tasks()))
    files: int = field(default_factory=lambda: len(os.listdir("/proc/self/fd")))
    objects: int = field(default_factory=_alive)


async def nothing_more_than(before: Kept) -> None:
    """Wait until no more is kept than before."""

    def is_over() -> bool:
        now = Kept()
        return (
            now.tasks <= before.tasks + 1  # the time-out around this is one on some versions
            and now.files <= before.files
            and now.objects <= before.objects
        )

    try:
        await eventually(is_over)
    except TimeoutError:
        raise AssertionError(f"{Kept()} is kept, and {before} was before") from None


def resident() -> int:
    """Bytes of memory that this process takes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def side_by_side(count: int, jobs: Iterable[Awaitable[None]]) -> None:
    """Run jobs, so many at a time."""
    waiting = iter(jobs)

    async def work() -> None:
        for job in waiting:
            await job

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(work())
