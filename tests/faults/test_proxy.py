"""The fault proxy does what its plans say, and the same again for the same seed."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.faults.proxy import (
    Chain,
    Delay,
    Fault,
    FaultProxy,
    Finish,
    Flip,
    Plan,
    Reset,
    Split,
    Stall,
    Throttle,
    Way,
)
from tests.integration.zap_helpers import eventually, no_task_left, soon

FRAMES = [random.Random(size).randbytes(size) for size in (1, 40, 7000, 300_000, 0, 3)]  # noqa: S311
SENT = b"".join(struct.pack(">I", len(frame)) + frame for frame in FRAMES)


@asynccontextmanager
async def echoing(plan: Plan, seed: int) -> AsyncIterator[FaultProxy]:
    """A proxy in front of a server that sends back what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()
            await writer.wait_closed()

    with no_task_left() as check:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        address = "{}:{}".format(*server.sockets[0].getsockname())
        async with server, FaultProxy(address, plan, seed) as proxy:
            yield proxy
        await check()


async def sent_through(proxy: FaultProxy) -> bytes:
    """What comes back of SENT, to the end of the connection."""
    reader, writer = await asyncio.open_connection(*proxy.address.split(":"))

    async def send() -> None:
        with suppress(OSError):
            writer.write(SENT)
            writer.write_eof()
            await writer.drain()

    sending = asyncio.get_running_loop().create_task(send())
    try:
        return await soon(reader.read())
    finally:
        await sending
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@pytest.mark.parametrize(
    "fault",
    [Split(), Split(1000, 5000), Delay(0.002), Stall(0.002), Throttle(100_000.0, 300)],
    ids=repr,
)
async def test_what_is_slow_is_whole(fault: Fault, seed: int):
    async with echoing(Plan.of(fault, 1.0), seed) as proxy:
        assert await sent_through(proxy) == SENT
        assert proxy.struck == {fault.name: 2 * len(FRAMES)}
        assert proxy.frames == 2 * len(FRAMES)


async def test_a_flip_is_of_one_bit_in_each_frame_that_it_strikes(seed: int):
    async with echoing(Plan.of(Flip(), 1.0).only(Way.DOWN), seed) as proxy:
        got = await sent_through(proxy)
        assert proxy.struck == {"flip": len(FRAMES)}
    assert len(got) == len(SENT)
    flips = [(one ^ other).bit_count() for one, other in zip(got, SENT, strict=True)]
    assert flips.count(1) == len(FRAMES)
    assert sum(flips) == len(FRAMES)


@pytest.mark.parametrize("fault", [Finish(), Chain(Delay(0.001), Finish())], ids=repr)
async def test_a_finish_lets_nothing_follow(fault: Fault, seed: int):
    async with echoing(Plan.of(fault, 1.0).only(Way.UP), seed) as proxy:
        got = await sent_through(proxy)
    assert len(got) < 5
    assert SENT.startswith(got)


@pytest.mark.parametrize("fault", [Reset(), Chain(Delay(0.001), Reset())], ids=repr)
async def test_a_reset_is_one(fault: Fault, seed: int):
    async with echoing(Plan.of(fault, 1.0).only(Way.DOWN), seed) as proxy:
        with pytest.raises(ConnectionResetError):
            await sent_through(proxy)


async def test_a_seed_replays_its_faults():
    plan = Plan.of(Flip(), 0.5) | Plan.of(Split(3, 50), 0.5) * 0.5
    got: dict[int, set[bytes]] = {1: set(), 2: set()}
    for seed in (1, 1, 2, 2):
        async with echoing(plan, seed) as proxy:
            got[seed].add(await sent_through(proxy))
    assert [len(each) for each in got.values()] == [1, 1]
    assert got[1] != got[2]


async def test_who_is_stalled_for_ever_goes_on_when_the_proxy_is_calm(seed: int):
    async with echoing(Plan.of(Stall(3600), 1.0), seed) as proxy:
        coming = asyncio.get_running_loop().create_task(sent_through(proxy))
        await eventually(lambda: proxy.struck)
        proxy.calm()
        assert await soon(coming) == SENT
