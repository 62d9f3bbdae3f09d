"""Thousands of handshakes with whatever an attacker can make, towards the server and the client."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.hostile import forging
from tests.hostile.helpers import (
    Counting,
    Kept,
    gets_in,
    is_answered,
    nothing_more_than,
    resident,
    side_by_side,
)
from tests.integration.zap_helpers import (
    Peer,
    ScriptedServer,
    eventually,
    identity_of,
    pong,
    serving,
    soon,
    tcp_client,
)
from zapcore import NetrunnerServer, connect
from zapcore.client import NetrunnerClient
from zapcore.connection import dial
from zapcore.errors import HandshakeError, IdentityMismatch, ProtocolError, ZapError
from zapcore.framing import Envelope
from zapcore.methods import OPCODE_PING
from zapcore.zwing import Responder
from zapcore.zwing.handshake import RESPONSE_SIZE
from zapcore.zwing.identity import ReplayFilter

AT_ONCE = 16
ANSWER_SIZE = 4 + RESPONSE_SIZE


@pytest.fixture
def seed() -> int:
    """What a run is made of; told where it fails."""
    chosen = random.SystemRandom().randrange(2**32)
    print(f"seed {chosen}")  # noqa: T201
    return chosen


# Towards the server.


async def is_refused(server: NetrunnerServer, message: bytes, *, in_haste: bool) -> None:
    """Nothing is answered, and the connection ends."""
    async with tcp_client(server.address) as peer:
        peer.writer.write(message)
        if in_haste:
            return
        peer.writer.write_eof()
        assert await rest_of(peer) == b""


async def is_answered_in_vain(server: NetrunnerServer, message: bytes, behind: bytes) -> None:
    """It is answered, as the first message is all there is to go by; then the connection ends."""
    async with tcp_client(server.address) as peer:
        peer.writer.write(message)
        assert len(await soon(peer.reader.readexactly(ANSWER_SIZE))) == ANSWER_SIZE
        peer.writer.write(behind)
        peer.writer.write_eof()
        assert await rest_of(peer) == b""


async def rest_of(peer: Peer) -> bytes:
    try:
        return await soon(peer.reader.read())
    except ConnectionError:
        return b""


class Hostile:
    """An endless supply of hostile handshakes.

    Args:
        seed: of all chances.
        server: whom they are for.
    """

    def __init__(self, seed: int, server: NetrunnerServer) -> None:
        self._chance = random.Random(seed)  # noqa: S311
        self._server = server

    async def one(self) -> None:
        chance = self._chance
        if chance.random() < 0.1:
            init, behind = self._replayed()
            await is_answered_in_vain(self._server, init, behind)
        else:
            forged = chance.choice(list(forging.REFUSED.values()))(chance)
            await is_refused(self._server, forged, in_haste=chance.random() < 0.1)

    def _replayed(self) -> tuple[bytes, bytes]:
        """The beginning of a session that somebody else had, and how it goes on."""
        chance = self._chance
        init, records = forging.recorded_session()
        if chance.random() < 0.5:
            return init, records
        return chance.choice([init, forging.borrowed_xwing()]), chance.randbytes(200)


async def many(hostile: Hostile, good: NetrunnerClient, count: int) -> int:
    """So many hostile handshakes, beside calls; how many calls."""
    calls = 0

    async def attack(left: Iterator[int]) -> None:
        for _ in left:
            await hostile.one()

    async def call(attacks: asyncio.Task[None]) -> None:
        nonlocal calls
        while not attacks.done():
            await is_answered(good)
            calls += 1
            await asyncio.sleep(0.01)

    left = iter(range(count))
    async with asyncio.TaskGroup() as group:
        attacks = group.create_task(side_by_side(AT_ONCE, (attack(left) for _ in range(AT_ONCE))))
        group.create_task(call(attacks))
    return calls


@pytest.mark.timeout(600)
async def test_no_hostile_handshake_is_established_and_nothing_is_kept(
    seed: int, long: bool
) -> None:
    half = 5000 if long else 150
    backend = Counting()
    async with serving(backend) as server:
        hostile = Hostile(seed, server)
        async with connect(server.address, identity=identity_of("client")) as good:
            calls = await many(hostile, good, half // 5)  # what is made once, is made
            before = Kept()
            blocks, memory = [], []
            for _ in range(2):
                calls += await many(hostile, good, half)
                await eventually(lambda: server.connections == 1)
                await eventually(lambda: not server._tasks and not server._pending)
                await nothing_more_than(before)
                blocks.append(sys.getallocatedblocks())
                memory.append(resident())
            print(f"blocks {blocks}, resident {memory}, calls {calls}")  # noqa: T201
            assert blocks[1] - blocks[0] < 2000
            assert memory[1] - memory[0] < 8 * 2**20
            await gets_in(server)
            assert backend.pings == calls + 1, "nobody else was heard"


@pytest.mark.parametrize("kind", forging.REFUSED)
async def test_each_kind_of_forged_message_is_refused(kind: str, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    backend = Counting()
    async with serving(backend) as server:
        for _ in range(4):
            forged = forging.REFUSED[kind](chance)
            await is_refused(server, forged, in_haste=False)
        await gets_in(server)
        assert backend.pings == 1


async def test_every_key_of_low_order_is_refused() -> None:
    async with serving(Counting()) as server:
        for message in forging._weak_keys():
            await is_refused(server, message, in_haste=False)


async def test_a_replayed_session_reaches_nobody() -> None:
    """Not even on the server that it was recorded with."""
    backend = Counting()
    async with serving(backend) as server:
        seen: list[bytes] = []
        async with tcp_client(server.address) as peer:
            deliver = peer.deliver

            async def recording(wire: bytes) -> None:
                seen.append(wire)
                await deliver(wire)

            peer.deliver = recording  # type: ignore[method-assign]
            await peer.initiate(identity_of("client"))
            await peer.send(Envelope(OPCODE_PING, 1, b""))
            assert await soon(peer.message())
        init, *records = seen
        for _ in range(3):
            await is_answered_in_vain(server, init, b"".join(records))
        await is_refused(server, b"".join(seen), in_haste=False)
        assert backend.pings == 1


async def test_a_defect_in_a_handshake_drops_that_client_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a library, for one. A client that nobody reads would keep its place for ever."""
    respond = Responder.respond

    def fail_for_strangers(self: Responder, payload: bytes) -> object:
        if payload == forging.init_of("victim"):
            raise SystemError("a bug")
        return respond(self, payload)

    monkeypatch.setattr(Responder, "respond", fail_for_strangers)
    async with serving(Counting()) as server:
        await is_refused(server, forging.frame(forging.init_of("victim")), in_haste=False)
        await gets_in(server)
        await eventually(lambda: server.connections == 0)
    assert "a handshake failed in the server" in caplog.text


# Towards the client.


class Impostor(ScriptedServer):
    """Answers each first message with what it is told to next."""

    def __init__(self) -> None:
        super().__init__(self._play_next, raw=True)
        self.answers: list[forging.ForgedAnswer] = []
        self.chance = random.Random()  # noqa: S311
        self.heard: list[bytes] = []
        """What clients said after their first message."""

    async def _play_next(self, peer: Peer) -> None:
        init = await peer.frame()
        await peer.deliver(self.answers.pop()(self.chance, init))
        peer.writer.write_eof()
        self.heard.append(await rest_of(peer))
        await peer.close()


@asynccontextmanager
async def impostor(seed: int) -> AsyncIterator[Impostor]:
    async with Impostor() as server:
        server.chance.seed(seed)
        yield server


async def is_not_accepted(server: Impostor, answer: forging.ForgedAnswer) -> ZapError:
    """Why not."""
    server.answers.append(answer)
    expected = identity_of("server").public
    with pytest.raises((ProtocolError, IdentityMismatch)) as caught:
        await soon(dial(server.address, identity_of("client"), expected))
    return caught.value


async def forget(server: Impostor) -> None:
    """Let go of what is over."""
    await eventually(lambda: all(task.done() for task in server._tasks))
    assert set(server.heard) <= {b""}
    for kept in (server._tasks, server.peers, server.heard):
        kept.clear()


@pytest.mark.timeout(600)
async def test_no_hostile_answer_is_accepted_and_nothing_is_kept(seed: int, long: bool) -> None:
    half = 1000 if long else 30
    async with impostor(seed) as server:

        async def attack(count: int) -> None:
            kinds = list(forging.UNACCEPTABLE.values())
            for _ in range(count):
                await is_not_accepted(server, server.chance.choice(kinds))
            await forget(server)

        await attack(half // 2)
        before = Kept()
        blocks, memory = [], []
        for _ in range(2):
            await attack(half)
            await nothing_more_than(before)
            blocks.append(sys.getallocatedblocks())
            memory.append(resident())
        print(f"blocks {blocks}, resident {memory}")  # noqa: T201
        assert blocks[1] - blocks[0] < 2000
        assert memory[1] - memory[0] < 8 * 2**20


@pytest.mark.parametrize("kind", forging.UNACCEPTABLE)
async def test_each_kind_of_forged_answer_is_refused(kind: str, seed: int) -> None:
    async with impostor(seed) as server:
        for _ in range(4):
            await is_not_accepted(server, forging.UNACCEPTABLE[kind])
        await forget(server)


async def test_an_answer_with_any_key_of_low_order_is_refused(seed: int) -> None:
    async with impostor(seed) as server:
        for point in forging.LOW_ORDER:
            answer = forging.answer_for()
            weak = forging.frame(answer[:1088] + point + answer[1120:])
            error = await is_not_accepted(server, lambda *_, weak=weak: weak)
            assert "low order" in str(error)
        await forget(server)


async def test_a_replayed_answer_is_refused_before_anything_is_sealed_under_its_keys() -> None:
    """All of a session's keys would come again, and records under them with the same numbers."""
    recorded: list[bytes] = []

    async def script(peer: Peer) -> None:
        init = await peer.frame()
        if recorded:
            await peer.deliver(recorded[0])
            replayed.append(await rest_of(peer))
            return
        answer, peer.session = Responder(server.identity).respond(init)
        recorded.append(answer)
        await peer.deliver(answer)
        await peer.send(pong(await peer.message(), pid=7))

    replayed: list[bytes] = []
    async with ScriptedServer(script, raw=True) as server:
        client = identity_of("client")
        async with connect(server.address, identity=client, server=server.identity.public) as first:
            await is_answered(first)
        for number in range(1, 4):
            with pytest.raises(HandshakeError, match="replay"):
                await soon(dial(server.address, client, server.identity.public))
            await eventually(lambda number=number: len(replayed) == number)
        assert set(replayed) == {b""}


async def test_a_real_server_is_accepted_after_all_replays(seed: int) -> None:
    async with impostor(seed) as server:
        for kind in ("a bit changed", "meant for somebody else", "cut short"):
            await is_not_accepted(server, forging.UNACCEPTABLE[kind])
    async with serving(Counting()) as real:
        for _ in range(3):
            await gets_in(real)


def test_the_filter_of_replays_forgets_nothing_and_takes_little_for_known() -> None:
    seen = ReplayFilter()
    values = [number.to_bytes(4) for number in range(20_000)]
    assert all(map(seen.is_new, values))
    assert not any(map(seen.is_new, values))


async def test_an_answer_that_was_refused_is_no_replay_of_itself(seed: int) -> None:
    """What is remembered was proven: nobody can have an answer refused that is yet to come."""
    async with impostor(seed) as server:
        await is_not_accepted(server, forging.UNACCEPTABLE["somebody else's honest one"])
        told = server.answers
        honest, _ = Responder(identity_of("server")).respond(forging.init_of("client"))
        told.append(lambda *_: honest[:-1] + bytes([honest[-1] ^ 1]))
        with pytest.raises(HandshakeError, match="not sealed"):
            await soon(dial(server.address, identity_of("client"), identity_of("server").public))
        told.append(lambda *_: honest)
        connection = await soon(
            dial(server.address, identity_of("client"), identity_of("server").public)
        )
        await connection.wait_closed()
