"""Clients that connect and stall, in every place where one can, beside a good one."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, aclosing, asynccontextmanager, suppress
from itertools import cycle, islice
from statistics import median
from time import perf_counter

import pytest

from tests.hostile.helpers import Counting, Kept, gets_in, is_answered, nothing_more_than
from tests.integration.gateway_helpers import Simulator, simulator
from tests.integration.zap_helpers import (
    HANG,
    Peer,
    eventually,
    identity_of,
    scripted_client,
    serving,
    soon,
    tcp_client,
    turns,
)
from zapcore import NetrunnerServer, ServerLimits, connect, messages
from zapcore.connection import parse_address
from zapcore.framing import Envelope
from zapcore.methods import Rpcs
from zapcore.server import ServerChannel
from zapcore.zwing import Initiator

Stall = Callable[[Peer], Awaitable[None]]


async def nothing(peer: Peer) -> None:
    """It has connected, and that is all."""


def part_of_init(size: int | None) -> Stall:
    async def stall(peer: Peer) -> None:
        await peer.deliver(Initiator(identity_of("stalling")).initiate()[:size])

    return stall


async def silence(peer: Peer) -> None:
    await peer.initiate(identity_of("stalling"))


def part_of_record(size: int) -> Stall:
    """Of the bytes on the wire."""

    async def stall(peer: Peer) -> None:
        await peer.initiate(identity_of("stalling"))
        await peer.deliver(peer.secure.send(large_message())[:size])

    return stall


def part_of_message(size: int) -> Stall:
    """In a record that is whole."""

    async def stall(peer: Peer) -> None:
        await peer.initiate(identity_of("stalling"))
        await peer.deliver(peer.secure.send(large_message()[:size]))

    return stall


def large_message(size: int = 100_000) -> bytes:
    body = Rpcs.pause_node.encode_request(messages.PauseNodeRequest("x" * size))
    return Envelope(Rpcs.pause_node.opcode, 1, body).encode()


async def deafness(peer: Peer) -> None:
    """It asks for more than the sockets hold, and reads none of it."""
    await peer.initiate(identity_of("stalling"))
    peer.writer.transport.pause_reading()
    status = Rpcs.status.encode_request()
    asked = (Envelope(Rpcs.status.opcode, number, status).encode() for number in range(1, 2500))
    await peer.deliver(peer.secure.send(b"".join(asked)))


PLACES: dict[str, Stall] = {
    "before the first byte": nothing,
    "in the length": part_of_init(2),
    "in the init message": part_of_init(3000),
    "after the init message": part_of_init(None),
    "after the handshake": silence,
    "in a record's length": part_of_record(3),
    "in a record": part_of_record(60_000),
    "in a message's length": part_of_message(3),
    "in a message": part_of_message(60_000),
    "with answers unread": deafness,
}
QUIET = ("after the init message", "after the handshake")
"""Where a client may stay as long as there is room: a good one does so between two calls."""

REASONS = {
    "before the first byte": "no handshake within",
    "in the length": "no handshake within",
    "in the init message": "no handshake within",
    "in a record's length": "a message was not whole after",
    "in a record": "a message was not whole after",
    "in a message's length": "a message was not whole after",
    "in a message": "a message was not whole after",
    "with answers unread": "left its answers unread",
}

PATIENT = ServerLimits(
    handshake_timeout=600, message_timeout=600, write_timeout=600, max_requests=64
)


@asynccontextmanager
async def stalling(address: str, places: list[str]) -> AsyncIterator[list[Peer]]:
    """A client that stalls in each of these places."""
    async with AsyncExitStack() as stack:
        peers = []
        for place in places:
            peers.append(await stack.enter_async_context(tcp_client(address)))
            await soon(PLACES[place](peers[-1]))
        yield peers


def channels(server: NetrunnerServer) -> list[ServerChannel]:
    return list(server._channels)


def unwritable(server: NetrunnerServer) -> list[ServerChannel]:
    return [each for each in channels(server) if not each._writable.is_set()]


@pytest.mark.timeout(600)
async def test_clients_that_stall_everywhere_keep_nobody_out(long: bool) -> None:
    places = list(islice(cycle(PLACES), 500 if long else 60))
    async with serving(Counting(), PATIENT) as server:
        before = Kept()
        await beside_stalling(server, places)
        await nothing_more_than(before)


async def beside_stalling(server: NetrunnerServer, places: list[str]) -> None:
    async with connect(server.address, identity=identity_of("client")) as good:
        await is_answered(good)
        async with stalling(server.address, places):
            await eventually(lambda: server.connections == len(places) + 1)
            deaf = places.count("with answers unread")
            await eventually(lambda: len(unwritable(server)) == deaf)
            for _ in range(50):
                await is_answered(good)
            await gets_in(server)
            assert len(server._tasks) <= deaf * PATIENT.max_requests
            assert sum(each.unfinished for each in channels(server)) < 80_000 * len(places)
        await eventually(lambda: server.connections == 1)
        await is_answered(good)


@pytest.mark.parametrize("place", REASONS)
async def test_who_stalls_is_dropped_and_nobody_else(
    place: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "zapcore.server")
    limits = ServerLimits(handshake_timeout=0.2, message_timeout=0.2, write_timeout=0.2)
    async with (
        serving(Counting(), limits) as server,
        connect(server.address, identity=identity_of("client")) as good,
    ):
        await is_answered(good)
        async with stalling(server.address, [place]):
            await eventually(lambda: REASONS[place] in caplog.text)
            await eventually(lambda: server.connections == 1)
            assert caplog.text.count("client dropped") == 1
        await is_answered(good)


async def test_who_is_quiet_stays() -> None:
    limits = ServerLimits(handshake_timeout=0.1, message_timeout=0.1, write_timeout=0.1)
    async with serving(Counting(), limits) as server, stalling(server.address, [*QUIET]) as peers:
        await eventually(lambda: [each for each in channels(server) if each.remote])
        async with stalling(server.address, ["in a message"]) as (stalled,):
            await stalled.closed()
        assert server.connections == len(peers)


@pytest.mark.parametrize("places", [QUIET, ["after the init message"]], ids=len)
async def test_who_proves_nothing_makes_room_whatever_it_sends(places: list[str]) -> None:
    """A first message can be replayed, and anybody can send bytes behind it."""
    limits = ServerLimits(max_connections=4, message_timeout=600)
    async with (
        serving(Counting(), limits) as server,
        connect(server.address, identity=identity_of("client")) as good,
    ):
        await is_answered(good)
        async with stalling(server.address, list(islice(cycle(places), 3))) as peers:
            await eventually(lambda: all(each.remote for each in channels(server)))
            for peer in peers:
                await peer.deliver(b"\0\0\xff")
            await eventually(lambda: len(unfinished(server, 3)) == 3)
            async with connect(server.address, identity=identity_of("client")) as second:
                await is_answered(second)
                await gets_in(server)
                await is_answered(second)
        await is_answered(good)


def unfinished(server: NetrunnerServer, size: int) -> list[ServerChannel]:
    return [each for each in channels(server) if each.unfinished == size]


async def test_unfinished_messages_are_bounded_over_all_clients(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "zapcore.server")
    limits = ServerLimits(message_timeout=2, max_unfinished=150_000)
    async with (
        serving(Counting(), limits) as server,
        connect(server.address, identity=identity_of("client")) as good,
    ):
        await is_answered(good)
        async with stalling(server.address, ["in a message"] * 5):
            await eventually(lambda: "where memory is short" in caplog.text)
            await eventually(lambda: server.connections == 3)
            assert sum(each.unfinished for each in channels(server)) <= 150_000
            assert caplog.text.count("where memory is short") == 3
        await is_answered(good)


@asynccontextmanager
async def in_a_message(limits: ServerLimits) -> AsyncIterator[tuple[Peer, ServerChannel, bytes]]:
    """A client that has sent the first 1000 bytes of a message: it, and the rest."""
    async with serving(Counting(), limits) as server, scripted_client(server.address) as peer:
        message = large_message(2**20)
        await peer.deliver(peer.secure.send(message[:1000]))
        (channel,) = channels(server)
        await eventually(lambda: channel.unfinished == 1000)
        yield peer, channel, message[1000:]


async def test_a_slow_client_has_the_time_that_its_message_takes() -> None:
    now = asyncio.get_running_loop().time()
    async with in_a_message(ServerLimits(message_timeout=30)) as (peer, channel, rest):
        channel.check(now)
        channel.check(now + 28)
        await peer.deliver(peer.secure.send(rest[: 4 * 32 * 1024]))
        await eventually(lambda: channel.unfinished == 1000 + 4 * 32 * 1024)
        channel.check(now + 32)
        assert channel.failure is None, "four more seconds for 128 KiB"
        channel.check(now + 40)
        assert channel.failure is not None


async def test_a_client_that_goes_on_is_not_blamed_for_where_it_is() -> None:
    """It may be in the middle of one message each time that somebody looks."""
    now = asyncio.get_running_loop().time()
    async with in_a_message(ServerLimits(message_timeout=30)) as (peer, channel, rest):
        for second in range(0, 500, 50):
            channel.check(now + second)
            await peer.deliver(peer.secure.send(rest + large_message(2**20)[:1000]))
            assert await soon(peer.message())
            await eventually(lambda: channel.unfinished == 1000)
        channel.check(now + 500)
        assert channel.failure is None


class Held(Counting):
    """Its nodes are paused when the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def pause_node(self, request: messages.PauseNodeRequest) -> messages.PauseNodeResponse:
        await self.gate.wait()
        return await super().pause_node(request)


async def test_a_client_whose_requests_wait_is_not_blamed_for_what_is_not_read() -> None:
    backend = Held()
    now = asyncio.get_running_loop().time()
    limits = ServerLimits(message_timeout=30, max_requests=1)
    async with serving(backend, limits) as server, scripted_client(server.address) as peer:
        message = large_message()
        await peer.deliver(peer.secure.send(message * 2 + message[:1000]))
        (channel,) = channels(server)
        await eventually(lambda: channel.unfinished == 1000)
        for second in (0, 50, 100):
            channel.check(now + second)
        assert channel.failure is None
        backend.gate.set()
        await eventually(lambda: len(backend.nodes) == 2)
        await peer.deliver(peer.secure.send(message[1000:]))
        await eventually(lambda: len(backend.nodes) == 3)


class SlowToDecode:
    """Makes large requests to pause a node take until it is told otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.begun = 0
        self._decode = messages.PauseNodeRequest.decode
        monkeypatch.setattr(messages.PauseNodeRequest, "decode", self)

    def __call__(self, data: bytes) -> messages.PauseNodeRequest:
        if len(data) > 1000:
            self.begun += 1
            assert self.go.wait(HANG), "the event loop waited too"
        return self._decode(data)


async def test_a_request_that_takes_long_to_decode_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Millions of empty texts fit into one."""
    slow = SlowToDecode(monkeypatch)
    backend = Counting()
    async with (
        serving(backend) as server,
        connect(server.address, identity=identity_of("client")) as good,
        scripted_client(server.address) as hostile,
    ):
        await is_answered(good)
        message = large_message()
        sending = asyncio.create_task(hostile.deliver(hostile.secure.send(message * 100)))
        await eventually(lambda: slow.begun)
        for _ in range(5):
            await is_answered(good)
            await gets_in(server)
        await turns(100)
        assert slow.begun == 1
        assert sum(each.unfinished for each in channels(server)) < 2 * 2**20, "the rest is not read"
        slow.go.set()
        for _ in range(100):
            assert await soon(hostile.message())
        await sending
        assert len(backend.nodes) == 100


async def test_clients_that_leave_while_their_requests_wait_to_be_decoded_leave_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not even what they sent: who comes and goes must not pile that up."""
    slow = SlowToDecode(monkeypatch)
    backend = Counting()
    limits = ServerLimits(message_timeout=1, max_unfinished=150_000)
    async with serving(backend, limits) as server:
        before = Kept()
        for _ in range(3):
            await leave_something_large(server, slow)
            await eventually(lambda: server.connections == 0 and not server._tasks)
        assert slow.begun == 1
        slow.go.set()
        await gets_in(server)
        await nothing_more_than(before)
        assert backend.nodes == []


async def leave_something_large(server: NetrunnerServer, slow: SlowToDecode) -> None:
    async with scripted_client(server.address) as hostile:
        await hostile.deliver(hostile.secure.send(large_message() * 3))
        await eventually(lambda: slow.begun)
        await eventually(lambda: server._tasks)


async def test_a_large_request_that_does_not_decode_is_an_error_answer() -> None:
    async with serving(Counting()) as server, scripted_client(server.address) as hostile:
        body = Rpcs.pause_node.encode_request(messages.PauseNodeRequest("x" * 100_000))[:-1]
        await hostile.send(Envelope(Rpcs.pause_node.opcode, 1, body))
        answer = await soon(hostile.message())
        assert answer.is_error
        assert answer.body == b"unexpected EOF"
        await hostile.ask(Rpcs.ping, number=2)
        assert not (await soon(hostile.message())).is_error


async def test_clients_that_come_while_the_server_closes_are_not_kept() -> None:
    before = Kept()
    for accepted in (0, 1, 3, 4, 5, 6):  # at 2 some versions of asyncio lose them, by themselves
        await coming_while_it_closes(accepted)
    await nothing_more_than(before)


async def coming_while_it_closes(accepted: int) -> None:
    """The system has taken their connections; the event loop has gone so far with them."""
    server = NetrunnerServer(Counting(), identity_of("server"))
    await server.start(port=0)
    with ExitStack() as stack:
        host, port = parse_address(server.address)
        clients = [stack.enter_context(socket.create_connection((host, port))) for _ in range(4)]
        await turns(accepted)
        await soon(server.close())
        assert server.connections == 0
        for client in clients:
            client.setblocking(False)
            await eventually(lambda client=client: is_closed(client))
        assert server.connections == 0


def is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


# How fast the good client is: two servers of the same kind, only one of them under attack.


@pytest.mark.long_only
@pytest.mark.timeout(600)
async def test_a_good_client_is_as_fast_beside_500_that_stall() -> None:
    with simulator() as attacked, simulator() as left_alone:
        async with AsyncExitStack() as stack:
            goods = []
            for each in (attacked, left_alone):
                client = connect(each.address, identity=identity_of("client"))
                goods.append(await stack.enter_async_context(client))
            attack = await stack.enter_async_context(aclosing(attacking(attacked)))
            attackers = await soon(anext(attack))
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(20_000):
                for good, taken in zip(goods, times, strict=True):
                    begun = perf_counter()
                    await soon(good.status())
                    taken.append(perf_counter() - begun)
            assert not any(each.done() for each in attackers)
            beside, alone = map(median, times)
            print(f"median beside 500: {beside * 1e6:.0f} µs, alone: {alone * 1e6:.0f} µs")  # noqa: T201
            assert beside <= 1.5 * alone


async def attacking(server: Simulator) -> AsyncIterator[list[asyncio.Task[None]]]:
    """500 clients that stall all the time, and come again when they are dropped."""
    places = list(islice(cycle(PLACES), 500))
    stalled = asyncio.Semaphore(0)

    async def attacker(place: str) -> None:
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                async with tcp_client(server.address) as peer:
                    await PLACES[place](peer)
                    stalled.release()
                    if place == "with answers unread":
                        # Nothing tells a client that does not read that it was dropped.
                        await asyncio.sleep(ServerLimits().write_timeout)
                    while await peer.reader.read(65536):
                        pass

    tasks = [asyncio.create_task(attacker(place)) for place in places]
    try:
        for _ in places:
            await stalled.acquire()
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
