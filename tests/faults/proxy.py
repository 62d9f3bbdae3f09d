"""FaultProxy: TCP between a client and a server of Z-Wing, with the faults that a plan wants.

A plan says for each kind of fault how likely a frame is to meet it; where in the frame it strikes
is drawn evenly over its bytes, those of the length included. What is drawn depends on the seed, the
connection's number, its direction and the frames' lengths only: a seed replays a failure as far as
the peers cut their messages into records alike.

    plan = Plan.of(Delay(0.002), 0.2) | Plan.of(Reset(), 0.01) | Plan.of(Flip(), 0.01).only(Way.UP)
    async with FaultProxy(server.address, plan * 0.5, seed=7) as proxy:
        ... proxy.address ...
"""

from __future__ import annotations

import asyncio
import enum
import random
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from zapcore.connection import parse_address

_HEADER = struct.Struct(">I")
_CHUNK = 64 * 1024
_NO_LINGER = struct.pack("ii", 1, 0)
"""Closing sends RST, and what was not sent yet is lost."""


class Way(enum.Enum):
    """Which way bytes go."""

    UP = "up"
    """From the client to the server."""
    DOWN = "down"


class Cut(Exception):
    """Both connections end, at once and without manners."""


class Fault(Protocol):
    """What can happen to the bytes of one direction, just before one of them."""

    @property
    def name(self) -> str:
        """For counting."""

    async def strike(self, pipe: Pipe) -> None:
        """Happen."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Both sides get RST; what was on its way is lost."""

    name: str = "reset"

    async def strike(self, pipe: Pipe) -> None:
        raise Cut


@dataclass(frozen=True, slots=True)
class Finish:
    """The receiver gets FIN, and nothing more of this direction."""

    name: str = "finish"

    async def strike(self, pipe: Pipe) -> None:
        pipe.finish()


@dataclass(frozen=True, slots=True)
class Flip:
    """One bit of the next byte is turned over."""

    name: str = "flip"

    async def strike(self, pipe: Pipe) -> None:
        pipe.flip = 1 << pipe.random.randrange(8)


@dataclass(frozen=True, slots=True)
class Delay:
    """The rest waits for up to ``most`` seconds. The other direction goes on."""

    most: float
    name: str = "delay"

    async def strike(self, pipe: Pipe) -> None:
        await pipe.pause(pipe.random.uniform(0, self.most))


@dataclass(frozen=True, slots=True)
class Stall:
    """The rest waits for ``seconds``. The other direction goes on."""

    seconds: float
    name: str = "stall"

    async def strike(self, pipe: Pipe) -> None:
        await pipe.pause(self.seconds)


@dataclass(frozen=True, slots=True)
class Split:
    """The next ``span`` bytes go in pieces of 1 to ``largest``, each in a turn of its own."""

    largest: int = 1
    span: int = 64
    name: str = "split"

    async def strike(self, pipe: Pipe) -> None:
        pipe.slow(self.span, self.largest, 0.0)


@dataclass(frozen=True, slots=True)
class Throttle:
    """The next ``span`` bytes go at a rate of ``rate`` bytes per second."""

    rate: float
    span: int = 256
    name: str = "throttle"

    async def strike(self, pipe: Pipe) -> None:
        piece = max(1, self.span // 8)
        pipe.slow(self.span, piece, piece / self.rate)


@dataclass(frozen=True, slots=True)
class Chain:
    """One fault after the other: with a delay before it, a cut comes when all is quiet."""

    first: Fault
    then: Fault

    @property
    def name(self) -> str:
        return f"{self.first.name}, {self.then.name}"

    async def strike(self, pipe: Pipe) -> None:
        await self.first.strike(pipe)
        await self.then.strike(pipe)


@dataclass(frozen=True, slots=True)
class Rule:
    """A fault, and how likely a frame is to meet it, 0 to 1."""

    fault: Fault
    chance: float
    ways: frozenset[Way] = frozenset(Way)


@dataclass(frozen=True, slots=True)
class Plan:
    """All rules of a proxy. ``|`` joins plans, ``*`` makes their faults more or less likely."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def of(cls, fault: Fault, chance: float) -> Plan:
        """One fault."""
        return cls((Rule(fault, chance),))

    def __or__(self, other: Plan) -> Plan:
        return Plan(self.rules + other.rules)

    def __mul__(self, factor: float) -> Plan:
        return Plan(tuple(replace(rule, chance=rule.chance * factor) for rule in self.rules))

    def only(self, way: Way) -> Plan:
        """The same in one direction."""
        return Plan(tuple(replace(rule, ways=rule.ways & {way}) for rule in self.rules))

    def draw(self, chances: random.Random, way: Way, size: int) -> list[tuple[int, Fault]]:
        """The faults of one frame of ``size`` bytes, each with the byte that it strikes before."""
        drawn = [
            (chances.randrange(size), rule.fault)
            for rule in self.rules
            if chances.random() < rule.chance and way in rule.ways
        ]
        return sorted(drawn, key=lambda each: each[0])


class Pipe:
    """One direction of one connection.

    Args:
        proxy: whose plan it follows.
        way: which direction.
        chances: where its chances come from.
        source: read.
        sink: written.
    """

    def __init__(
        self,
        proxy: FaultProxy,
        way: Way,
        chances: random.Random,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
    ) -> None:
        self.random = chances
        self.flip = 0
        """Bits to turn over in the next byte."""
        self._proxy = proxy
        self._way = way
        self._source = source
        self._sink = sink
        self._finished = False
        self._slow_span = 0
        self._slow_largest = 0
        self._slow_wait = 0.0

    async def run(self) -> None:
        """Carry bytes to the end of the source."""
        while (head := await self._head()) is not None:
            (length,) = _HEADER.unpack(head)
            faults = self._proxy.plan.draw(self.random, self._way, _HEADER.size + length)
            self._proxy.frames += 1
            await self._carry(head, length, faults)
        self.finish()

    async def _head(self) -> bytes | None:
        """A frame's length field. Nobody stops in its midst, so its bytes may wait for each other.

        A peer that is cut off may do so: its last bytes are dropped with it.
        """
        with suppress(asyncio.IncompleteReadError):
            return await self._source.readexactly(_HEADER.size)
        return None

    async def _carry(self, head: bytes, length: int, faults: list[tuple[int, Fault]]) -> None:
        at, rest, data = 0, length, head
        while data:
            while faults and faults[0][0] < at + len(data):
                place, fault = faults.pop(0)
                before, data = data[: place - at], data[place - at :]
                await self._put(before)
                at = place
                self._proxy.struck[fault.name] += 1
                await fault.strike(self)
            await self._put(data)
            at += len(data)
            data = await self._source.read(min(rest, _CHUNK)) if rest else b""
            rest -= len(data)

    async def _put(self, data: bytes) -> None:
        if not data or self._finished:
            return
        if self.flip:
            data, self.flip = bytes((data[0] ^ self.flip,)) + data[1:], 0
        for piece in self._pieces(data):
            self._sink.write(piece)
            await self._sink.drain()
            if self._slow_span:
                await (self.pause(self._slow_wait) if self._slow_wait else asyncio.sleep(0))

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        while data and self._slow_span:
            size = min(self.random.randint(1, self._slow_largest), self._slow_span)
            piece, data = data[:size], data[size:]
            yield piece
            self._slow_span -= len(piece)
        if data:
            yield data

    # What faults do.

    def slow(self, span: int, largest: int, wait: float) -> None:
        """Let the next ``span`` bytes go in pieces, with a wait in seconds behind each."""
        self._slow_span, self._slow_largest, self._slow_wait = span, largest, wait

    async def pause(self, seconds: float) -> None:
        """Wait, but not once the proxy is calm."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._proxy.calmed.wait()

    def finish(self) -> None:
        """Say to the receiver that no more will come, and let none come."""
        if not self._finished:
            self._finished = True
            with suppress(OSError):  # it may be gone
                self._sink.write_eof()


class FaultProxy:
    """Listens for clients, and connects each to the server.

    Args:
        server: host:port.
        plan: the faults.
        seed: see the module.
    """

    def __init__(self, server: str, plan: Plan, seed: int) -> None:
        self.plan = plan
        self.calmed = asyncio.Event()
        """Set: nobody waits for a pause any more."""
        self.struck: Counter[str] = Counter()
        """Faults so far, by name."""
        self.frames = 0
        self.connections = 0
        """So far."""
        self._server = parse_address(server)
        self._seed = seed
        self._links: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """host:port for clients."""
        assert self._listener is not None
        return "{}:{}".format(*self._listener.sockets[0].getsockname())

    @property
    def links(self) -> int:
        """Connections now."""
        return len(self._links)

    async def __aenter__(self) -> FaultProxy:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._listener is not None
        self._listener.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    def calm(self) -> None:
        """No faults any more; what waits goes on."""
        self.plan = Plan()
        self.calmed.set()

    def disturb(self, plan: Plan) -> None:
        """Faults again."""
        self.plan = plan
        self.calmed.clear()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        link = asyncio.get_running_loop().create_task(self._link(self.connections, reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _link(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writers = [writer]
        try:
            # Whatever ends a connection of TCP without manners, the other one ends the same way.
            with suppress(OSError, Cut):
                server_reader, server_writer = await asyncio.open_connection(*self._server)
                writers.append(server_writer)
                up = Pipe(self, Way.UP, self._chances(number, Way.UP), reader, server_writer)
                down = Pipe(self, Way.DOWN, self._chances(number, Way.DOWN), server_reader, writer)
                await _both(up, down)
                for each in writers:
                    each.close()
                    await each.wait_closed()
        finally:
            for each in writers:
                reset(each)

    def _chances(self, number: int, way: Way) -> random.Random:
        return random.Random(f"{self._seed}/{number}/{way.value}")  # noqa: S311


async def _both(up: Pipe, down: Pipe) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(up.run())
            group.create_task(down.run())
    except* (OSError, Cut) as errors:
        raise Cut from errors


def reset(writer: asyncio.StreamWriter) -> None:
    """Close at once with RST, if it is not closed yet."""
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()
