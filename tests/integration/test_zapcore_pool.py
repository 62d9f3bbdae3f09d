"""The pool against servers that come, go, break and stall."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

import zapcore.connection as connection_module
from tests.integration.zap_helpers import (
    Peer,
    ScriptedServer,
    echo,
    eventually,
    free_port,
    identity_of,
    no_task_left,
    pong,
    serving,
    soon,
    success,
    turns,
)
from zapcore import (
    ConnectionPool,
    NetrunnerClient,
    NetrunnerServer,
    PoolLimits,
    SimulatedNetrunner,
    messages,
)
from zapcore.errors import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    HandshakeError,
    IdentityMismatch,
    InvalidAddress,
    NotFound,
    OutcomeUnknown,
    Overloaded,
    RemoteError,
)
from zapcore.framing import MAX_BODY_SIZE
from zapcore.methods import OPCODE_PING, Rpcs
from zapcore.pool import backoff_delay
from zapcore.zwing.handshake import Expected

QUICK = PoolLimits(backoff_first=0.01, backoff_last=0.05)
ONE_TRY = PoolLimits(backoff_first=60.0, backoff_last=60.0, acquire_timeout=0.05)
"""Whoever must wait for a second attempt to connect waits in vain."""


@asynccontextmanager
async def pooled(
    server: ScriptedServer | NetrunnerServer | str,
    size: int = 1,
    limits: PoolLimits = QUICK,
    expected: Expected = None,
) -> AsyncIterator[ConnectionPool]:
    """A pool that leaves no call and no task behind."""
    address = server if isinstance(server, str) else server.address
    with no_task_left() as check:
        async with ConnectionPool(address, identity_of("client"), expected, size, limits) as pool:
            yield pool
        assert pool.calls == 0
        assert pool.connections == []
        await check()


async def connected(pool: ConnectionPool, count: int) -> None:
    await eventually(lambda: len(pool.connections) == count)


async def never(peer: Peer) -> None:
    while True:
        await peer.message()


async def answer_pings(peer: Peer) -> None:
    while True:
        await peer.send(pong(await peer.message()))


async def break_at_request(peer: Peer) -> None:
    """Take one request and cut the connection."""
    await peer.message()
    peer.writer.transport.abort()


def first_then(first: int, then: Callable[[Peer], Awaitable[None]]) -> Callable[[Peer], Awaitable]:
    """The first connections break at their first request, later ones play ``then``."""
    seen = 0

    async def play(peer: Peer) -> None:
        nonlocal seen
        request = await peer.message()
        seen += 1
        if seen <= first:
            peer.writer.transport.abort()
            return
        await peer.send(pong(request))
        await then(peer)

    return play


# Connecting.


async def test_entering_a_pool_does_not_wait_for_its_connections() -> None:
    release = asyncio.Event()

    async def slow(peer: Peer) -> None:
        await release.wait()
        await peer.respond(identity_of("server"))
        await answer_pings(peer)

    async with ScriptedServer(slow, raw=True) as server, pooled(server, 3) as pool:
        assert not pool.connected_now
        await eventually(lambda: len(server.peers) == 3)
        assert pool.connections == []
        release.set()
        await soon(pool.wait_connected(10))
        assert pool.connected_now
        await connected(pool, 3)


async def test_a_call_waits_for_the_first_connection() -> None:
    release = asyncio.Event()

    async def slow(peer: Peer) -> None:
        await release.wait()
        await peer.respond(identity_of("server"))
        await answer_pings(peer)

    async with ScriptedServer(slow, raw=True) as server, pooled(server) as pool:
        call = asyncio.create_task(pool.call(Rpcs.ping))
        await eventually(lambda: server.peers)
        assert pool.calls == 1
        release.set()
        assert (await soon(call)).pid == 1


@pytest.mark.parametrize("size", [1, 2, 5])
async def test_a_pool_keeps_as_many_connections_as_it_was_told(size: int) -> None:
    async with ScriptedServer(answer_pings) as server, pooled(server, size) as pool:
        await connected(pool, size)
        await soon(asyncio.gather(*(pool.call(Rpcs.ping) for _ in range(20))))
        assert len(server.peers) == size


def test_a_malformed_address_is_refused_at_once() -> None:
    with pytest.raises(InvalidAddress):
        ConnectionPool("http://x", identity_of("client"))


async def test_the_least_busy_connection_carries_a_call() -> None:
    async with ScriptedServer(never) as server, pooled(server, 3) as pool:
        await connected(pool, 3)
        calls = [asyncio.create_task(pool.call(Rpcs.ping)) for _ in range(9)]
        await eventually(lambda: len(server.received) == 9)
        assert [len(peer.received) for peer in server.peers] == [3, 3, 3]
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


async def test_a_connection_that_takes_no_more_counts_as_busy() -> None:
    """Calls that wait to be written count: a stuck connection must not draw all others."""

    async def read_nothing(peer: Peer) -> None:
        peer.writer.transport.pause_reading()

    async with ScriptedServer(read_nothing) as server, pooled(server, 2) as pool:
        await connected(pool, 2)
        stuck, other = pool.connections
        big = asyncio.create_task(pool.exchange(Rpcs.ping, bytes(MAX_BODY_SIZE)))
        await eventually(lambda: not stuck._writable.is_set())
        calls = [asyncio.create_task(pool.call(Rpcs.ping)) for _ in range(9)]
        await turns()
        assert (stuck.calls, other.calls) == (5, 5)
        for call in (big, *calls):
            call.cancel()
        await asyncio.wait([big, *calls])


# Connecting again.


@pytest.mark.parametrize(
    ("failures", "full"), [(1, 0.1), (2, 0.2), (3, 0.4), (6, 3.2), (7, 5.0), (50, 5.0), (5000, 5.0)]
)
def test_the_backoff_doubles_up_to_its_cap_with_jitter_in_the_upper_half(
    failures: int, full: float
) -> None:
    limits = PoolLimits(backoff_first=0.1, backoff_last=5.0)
    assert backoff_delay(limits, failures, 0.0) == pytest.approx(full / 2)
    assert backoff_delay(limits, failures, 0.5) == pytest.approx(full * 0.75)
    assert backoff_delay(limits, failures, 1.0) == pytest.approx(full)


async def test_a_server_that_comes_late_is_found() -> None:
    server = ScriptedServer(answer_pings)
    server.port = free_port()
    async with pooled(server.address) as pool:
        await eventually(lambda: isinstance(pool.last_failure, ConnectFailed))
        async with server:
            assert (await soon(pool.call(Rpcs.ping, timeout=10))).pid == 1
            assert pool.last_failure is None


async def test_a_broken_connection_is_replaced() -> None:
    async with ScriptedServer(answer_pings) as server, pooled(server, 2) as pool:
        await connected(pool, 2)
        server.peers[0].writer.transport.abort()
        await eventually(lambda: len(server.peers) == 3)
        await connected(pool, 2)
        assert (await soon(pool.call(Rpcs.ping))).pid == 1


async def test_a_pool_recovers_when_its_server_is_restarted_on_the_same_port() -> None:
    server = NetrunnerServer(SimulatedNetrunner(), identity_of("server"))
    await server.start(port=0)
    port = int(server.address.rpartition(":")[2])
    async with pooled(server.address, 2, expected=identity_of("server").public) as pool:
        client = NetrunnerClient(pool)
        await soon(client.status())
        await server.close()
        await eventually(lambda: not pool.connected_now)
        again = NetrunnerServer(SimulatedNetrunner(3), identity_of("server"))
        async with again.serving(port=port):
            status = await soon(client.status(timeout=10))
            assert len(status.cluster_info.node_names) == 3
            await connected(pool, 2)


async def test_attempts_that_fail_are_spaced_out() -> None:
    """The second attempt waits for the backoff, which no test lives to see."""
    async with ScriptedServer(lambda peer: peer.close(), raw=True) as server:  # noqa: SIM117
        async with pooled(server, limits=ONE_TRY) as pool:
            await eventually(lambda: pool.last_failure)
            with pytest.raises(HandshakeError, match="may not accept"):
                await pool.call(Rpcs.ping)
            assert len(server.peers) == 1


async def test_connections_that_break_at_once_are_spaced_out_too() -> None:
    """A server that accepts and drops everybody is not dialled in a tight loop."""

    async def drop(peer: Peer) -> None:
        peer.writer.transport.abort()

    async with ScriptedServer(drop) as server, pooled(server, limits=ONE_TRY) as pool:
        reason: Exception | None = None
        while len(server.peers) < 10 and not isinstance(reason, ConnectFailed):
            try:
                await soon(pool.call(Rpcs.ping))
            except (ConnectFailed, ConnectionLost) as error:
                reason = error
        assert len(server.peers) <= 3
        assert isinstance(reason, ConnectFailed)


# Calls whose connection breaks.


async def test_a_read_is_repeated_once_on_another_connection() -> None:
    async with ScriptedServer(first_then(1, answer_pings)) as server, pooled(server, 2) as pool:
        await connected(pool, 2)
        assert (await soon(pool.call(Rpcs.ping))).pid == 1
        assert len(server.received) == 2
        assert sum(bool(peer.received) for peer in server.peers) == 2


async def test_a_read_is_not_repeated_on_a_connection_that_is_about_to_break_too() -> None:
    """As when the server dies: its connections do not all end in the same turn of the loop."""
    asked = asyncio.Event()

    async def play(peer: Peer) -> None:
        if len(server.peers) > 2:
            await answer_pings(peer)
        while True:
            await peer.message()
            asked.set()

    async with ScriptedServer(play) as server, pooled(server, 2) as pool:
        await connected(pool, 2)
        call = asyncio.create_task(pool.call(Rpcs.ping))
        await soon(asked.wait())
        first, second = sorted(server.peers, key=lambda peer: not peer.received)
        first.writer.transport.abort()
        await eventually(lambda: len(pool.connections) < 2)
        await turns()
        second.writer.transport.abort()
        assert (await soon(call)).pid == 1
        assert not second.received


async def test_a_read_is_repeated_on_an_older_connection_where_no_other_can_be_made() -> None:
    async def play(peer: Peer) -> None:
        if len(server.peers) > 2:
            return
        await peer.respond(identity_of("server"))
        if peer is server.peers[0]:
            await first_answered.wait()
            await break_at_request(peer)
        await answer_pings(peer)

    first_answered = asyncio.Event()
    limits = PoolLimits(acquire_timeout=0.2)
    async with (
        ScriptedServer(play, raw=True) as server,
        pooled(server, 2, limits) as pool,
    ):
        await connected(pool, 2)
        first_answered.set()
        answers = await soon(asyncio.gather(*(pool.call(Rpcs.ping) for _ in range(2))))
        assert [answer.pid for answer in answers] == [1, 1]


async def test_a_read_is_repeated_on_a_fresh_connection_where_there_was_one_alone() -> None:
    async with ScriptedServer(first_then(1, answer_pings)) as server, pooled(server) as pool:
        assert (await soon(pool.call(Rpcs.ping))).pid == 1
        assert [len(peer.received) for peer in server.peers] == [1, 1]


async def test_a_read_is_not_repeated_twice() -> None:
    async with ScriptedServer(break_at_request) as server, pooled(server, 4) as pool:
        await connected(pool, 4)
        with pytest.raises(ConnectionLost):
            await soon(pool.call(Rpcs.status))
        assert len(server.received) == 2


CHANGING = [row for row in vars(Rpcs).values() if hasattr(row, "opcode") and not row.read_only]


@pytest.mark.parametrize("row", CHANGING, ids=str)
async def test_a_changing_call_is_sent_once_and_its_outcome_is_unknown(row: object) -> None:
    async with ScriptedServer(break_at_request) as server, pooled(server, 2) as pool:
        await connected(pool, 2)
        with pytest.raises(OutcomeUnknown, match=f"{row} was under way.*not repeated"):
            await soon(pool.call(row))
        await turns(50)
        assert len(server.received) == 1


async def test_a_changing_call_that_nothing_was_sent_of_is_no_unknown_outcome() -> None:
    """It waited behind others when its connection broke: it goes out on another."""
    first: list[Peer] = []

    async def play(peer: Peer) -> None:
        if not first:
            first.append(peer)
            peer.writer.transport.pause_reading()
            return
        while True:
            request = await peer.message()
            await peer.send(pong(request) if request.opcode == OPCODE_PING else echo(request))

    async with ScriptedServer(play) as server, pooled(server) as pool:
        big = asyncio.create_task(pool.exchange(Rpcs.ping, bytes(MAX_BODY_SIZE)))
        await eventually(lambda: pool.connections and not pool.connections[0]._writable.is_set())
        change = asyncio.create_task(pool.call(Rpcs.pause_node, messages.PauseNodeRequest("n")))
        await turns()
        first[0].writer.transport.abort()
        assert (await soon(change)).cluster_info.root_data_dir == "n"
        await soon(big)
        changes = [request for request in server.received if request.opcode != OPCODE_PING]
        assert len(changes) == 1


@pytest.mark.parametrize("row", [Rpcs.ping, Rpcs.pause_node], ids=str)
async def test_a_deadline_is_not_a_reason_to_repeat(row: object) -> None:
    async with ScriptedServer(never) as server, pooled(server, 2) as pool:
        await connected(pool, 2)
        with pytest.raises(DeadlineExceeded):
            await pool.call(row, timeout=0.02)
        await turns(50)
        assert len(server.received) <= 1


async def test_an_error_answer_is_not_a_reason_to_repeat() -> None:
    async def not_found(peer: Peer) -> None:
        while True:
            await peer.answer_error(await peer.message(), "node not found")

    async with ScriptedServer(not_found) as server, pooled(server, 2) as pool:
        with pytest.raises(NotFound):
            await soon(pool.call(Rpcs.status))
        assert len(server.received) == 1


# Keep-alive.


async def test_an_idle_connection_is_asked_for_a_ping() -> None:
    limits = PoolLimits(keepalive=0.02, keepalive_timeout=10)
    async with ScriptedServer(answer_pings) as server, pooled(server, limits=limits) as pool:
        await eventually(lambda: len(server.received) >= 3)
        assert {request.opcode for request in server.received} == {OPCODE_PING}
        assert len(server.peers) == 1
        assert pool.calls == 0


async def test_an_error_answer_to_the_keep_alive_ping_is_a_sign_of_life() -> None:
    async def refuse(peer: Peer) -> None:
        while True:
            await peer.answer_error(await peer.message(), "zapwire: unknown opcode 0x3c")

    limits = PoolLimits(keepalive=0.02, keepalive_timeout=10)
    async with ScriptedServer(refuse) as server, pooled(server, limits=limits):
        await eventually(lambda: len(server.received) >= 3)
        assert len(server.peers) == 1


async def test_a_connection_that_does_not_answer_the_keep_alive_ping_is_replaced() -> None:
    dead: list[Peer] = []

    async def play(peer: Peer) -> None:
        if not dead:
            dead.append(peer)
            await never(peer)
        await answer_pings(peer)

    limits = PoolLimits(keepalive=0.02, keepalive_timeout=0.2, backoff_first=0.01)
    async with ScriptedServer(play) as server, pooled(server, limits=limits) as pool:
        await eventually(lambda: dead)
        hanging = asyncio.create_task(pool.call(Rpcs.status, timeout=60))
        await eventually(lambda: len(server.peers) > 1)
        # The read that hung on the dead connection is repeated on the new one.
        assert await soon(hanging)
        await soon(dead[0].gone.wait())


async def test_a_silent_server_is_noticed_even_when_no_further_call_is_allowed() -> None:
    """The keep-alive Ping is not refused for the calls that wait for the silent server."""
    limits = PoolLimits(keepalive=0.02, keepalive_timeout=0.05, max_calls=1, backoff_first=0.01)
    async with ScriptedServer(never) as server, pooled(server, limits=limits) as pool:
        call = asyncio.create_task(pool.call(Rpcs.stop, timeout=3))
        with pytest.raises(OutcomeUnknown):
            await soon(call)


async def test_a_server_that_takes_a_large_request_slowly_is_not_taken_for_dead() -> None:
    """A Ping can't leave before it, and so can't be answered."""

    def small_buffers(transport: asyncio.BaseTransport | None) -> None:
        assert transport is not None
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, option, 64 * 1024)

    async def slowly(peer: Peer) -> None:
        small_buffers(peer.writer.transport)
        record = peer.record

        async def late_record() -> bytes:
            await asyncio.sleep(0.15)
            return await record()

        peer.record = late_record  # type: ignore[method-assign]
        while True:
            request = await peer.message()
            await peer.answer(request, b"\0\0\0\1")

    limits = PoolLimits(keepalive=0.05, keepalive_timeout=0.8)
    async with ScriptedServer(slowly) as server, pooled(server, limits=limits) as pool:
        await pool.wait_connected(10)
        small_buffers(pool.connections[0]._transport)
        began = time.monotonic()
        await pool.exchange(Rpcs.ping, bytes(MAX_BODY_SIZE), timeout=60)
        assert time.monotonic() - began > 2 * limits.keepalive_timeout
        assert len(server.peers) == 1


async def test_a_busy_connection_is_not_asked_for_a_ping() -> None:
    async def chat(peer: Peer) -> None:
        while True:
            request = await peer.message()
            await peer.send(success(request, messages.StatusResponse()))

    limits = PoolLimits(keepalive=5.0)
    async with ScriptedServer(chat) as server, pooled(server, limits=limits) as pool:
        for _ in range(50):
            await soon(pool.call(Rpcs.status))
        assert OPCODE_PING not in {request.opcode for request in server.received}


# No connection to be had.


async def test_the_reason_is_given_when_no_connection_can_be_had() -> None:
    address = f"127.0.0.1:{free_port()}"
    async with pooled(address, limits=ONE_TRY) as pool:
        with pytest.raises(ConnectFailed, match=f"{address}.*nobody listens"):
            await pool.call(Rpcs.ping)
        with pytest.raises(ConnectFailed, match="nobody listens"):
            await pool.wait_connected(0.01)


async def test_a_connection_that_takes_long_is_the_reason_too() -> None:
    async with ScriptedServer(Peer.closed, raw=True) as server:  # noqa: SIM117
        async with pooled(server, limits=ONE_TRY) as pool:
            with pytest.raises(ConnectFailed, match=r"no connection to 127.* yet"):
                await pool.call(Rpcs.ping)


async def test_a_lost_connection_is_the_reason_while_there_is_no_other() -> None:
    connections = 0

    async def once(peer: Peer) -> None:
        nonlocal connections
        connections += 1
        if connections > 1:
            await peer.closed()
            return
        await peer.respond(identity_of("server"))
        await peer.message()
        peer.writer.transport.abort()

    async with ScriptedServer(once, raw=True) as server:  # noqa: SIM117
        async with pooled(server, limits=ONE_TRY) as pool:
            await connected(pool, 1)
            with pytest.raises(ConnectFailed, match="any more"):
                await soon(pool.call(Rpcs.ping))


async def test_a_stranger_is_refused_without_waiting() -> None:
    """Waiting would not change who the server is."""
    limits = PoolLimits(acquire_timeout=60)
    other = identity_of("stranger").public
    async with (
        ScriptedServer(answer_pings) as server,
        pooled(server, limits=limits, expected=other) as pool,
    ):
        await eventually(lambda: pool.last_failure)
        for _ in range(2):
            with pytest.raises(IdentityMismatch, match=other.fingerprint.replace("+", r"\+")):
                await soon(pool.call(Rpcs.ping))
        assert server.received == []


async def test_a_call_that_waits_already_learns_that_the_server_is_a_stranger() -> None:
    limits = PoolLimits(acquire_timeout=0.5)
    other = identity_of("stranger").public
    async with (
        ScriptedServer(answer_pings) as server,
        pooled(server, limits=limits, expected=other) as pool,
    ):
        with pytest.raises(IdentityMismatch):
            await soon(pool.call(Rpcs.ping))


async def test_a_host_that_no_resolver_takes_is_the_reason() -> None:
    async with pooled("a..b:1", limits=ONE_TRY) as pool:
        await eventually(lambda: pool.last_failure or pool._tasks[0].done())
        assert not pool._tasks[0].done(), "the pool gave up dialling for good"


async def test_calls_beyond_the_limit_are_refused() -> None:
    limits = PoolLimits(max_calls=2)
    async with ScriptedServer(never) as server, pooled(server, 2, limits) as pool:
        calls = [asyncio.create_task(pool.call(Rpcs.ping)) for _ in range(2)]
        await eventually(lambda: len(server.received) == 2)
        with pytest.raises(Overloaded, match="2 calls are under way"):
            await pool.call(Rpcs.ping)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        assert pool.calls == 0


async def test_calls_that_wait_for_a_connection_count_too() -> None:
    limits = PoolLimits(max_calls=1, acquire_timeout=30)
    async with ScriptedServer(Peer.closed, raw=True) as server:  # noqa: SIM117
        async with pooled(server, limits=limits) as pool:
            call = asyncio.create_task(pool.call(Rpcs.ping))
            await turns()
            with pytest.raises(Overloaded):
                await pool.call(Rpcs.ping)
            call.cancel()
            await asyncio.wait([call])


# Cancelling.


async def cancelled(call: asyncio.Task[object]) -> None:
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(call)


async def test_a_call_cancelled_before_it_began_leaves_nothing() -> None:
    async with ScriptedServer(answer_pings) as server, pooled(server) as pool:
        await cancelled(asyncio.create_task(pool.call(Rpcs.ping)))
        assert pool.calls == 0


async def test_a_call_cancelled_while_it_waits_for_a_connection_leaves_nothing() -> None:
    async with ScriptedServer(Peer.closed, raw=True) as server, pooled(server) as pool:
        call = asyncio.create_task(pool.call(Rpcs.ping))
        await turns()
        assert pool.calls == 1
        await cancelled(call)
        assert pool.calls == 0


async def test_a_call_cancelled_while_it_waits_for_its_answer_leaves_nothing() -> None:
    async def late(peer: Peer) -> None:
        first, second = await peer.message(), await peer.message()
        await peer.send(pong(first, pid=100), pong(second, pid=200))

    async with ScriptedServer(late) as server, pooled(server) as pool:
        call = asyncio.create_task(pool.call(Rpcs.ping))
        await eventually(lambda: server.received)
        await cancelled(call)
        assert pool.calls == 0
        assert pool.connections[0].calls == 0
        assert (await soon(pool.call(Rpcs.ping))).pid == 200


async def test_a_call_cancelled_while_it_waits_to_be_written_leaves_nothing() -> None:
    async def read_nothing(peer: Peer) -> None:
        peer.writer.transport.pause_reading()

    async with ScriptedServer(read_nothing) as server, pooled(server) as pool:
        big = asyncio.create_task(pool.exchange(Rpcs.ping, bytes(MAX_BODY_SIZE)))
        await eventually(lambda: pool.connections and not pool.connections[0]._writable.is_set())
        call = asyncio.create_task(pool.call(Rpcs.ping))
        await turns()
        await cancelled(call)
        await cancelled(big)
        assert pool.calls == 0


async def test_a_call_cancelled_while_it_waits_to_be_repeated_leaves_nothing() -> None:
    connections = 0

    async def once(peer: Peer) -> None:
        nonlocal connections
        connections += 1
        if connections > 1:
            await peer.closed()
            return
        await peer.respond(identity_of("server"))
        await break_at_request(peer)

    limits = PoolLimits(acquire_timeout=60)
    async with ScriptedServer(once, raw=True) as server, pooled(server, limits=limits) as pool:
        call = asyncio.create_task(pool.call(Rpcs.ping))
        await eventually(lambda: connections == 2)
        await cancelled(call)
        assert pool.calls == 0


# Closing.


async def closing(
    pool: ConnectionPool, server: ScriptedServer, row: object
) -> asyncio.Task[object]:
    call = asyncio.create_task(pool.call(row, timeout=60))
    await eventually(lambda: server.received)
    await soon(pool.close())
    return call


async def test_closing_ends_reads_under_way_at_once() -> None:
    """They are not repeated on a pool that is closed."""
    limits = PoolLimits(acquire_timeout=60)
    async with ScriptedServer(never) as server, pooled(server, 2, limits) as pool:
        call = await closing(pool, server, Rpcs.ping)
        with pytest.raises(ConnectionLost):
            async with asyncio.timeout(3):
                await call
        await turns()
        assert len(server.received) == 1


async def test_closing_leaves_the_outcome_of_changes_under_way_unknown() -> None:
    async with ScriptedServer(never) as server, pooled(server, 2) as pool:
        call = await closing(pool, server, Rpcs.stop)
        with pytest.raises(OutcomeUnknown) as caught:
            await soon(call)
        assert isinstance(caught.value.__cause__, ConnectionLost)


async def test_closing_ends_calls_that_wait_for_a_connection_at_once() -> None:
    limits = PoolLimits(acquire_timeout=60)
    async with ScriptedServer(Peer.closed, raw=True) as server, pooled(server, 1, limits) as pool:
        call = asyncio.create_task(pool.call(Rpcs.ping, timeout=60))
        await eventually(lambda: server.peers)
        await soon(pool.close())
        done, _ = await asyncio.wait([call], timeout=3)
        call.cancel()
        await asyncio.wait([call])
        assert done, "the call still waits for a connection of a closed pool"
        assert isinstance(call.exception(), ConnectionLost)


async def test_a_call_on_a_closed_pool_fails_at_once() -> None:
    limits = PoolLimits(acquire_timeout=60)
    async with ScriptedServer(answer_pings) as server, pooled(server, 1, limits) as pool:
        await soon(pool.call(Rpcs.ping))
        await pool.close()
        call = asyncio.create_task(pool.call(Rpcs.ping, timeout=60))
        done, _ = await asyncio.wait([call], timeout=3)
        call.cancel()
        await asyncio.wait([call])
        assert done, "the call waits for a connection of a closed pool"
        assert isinstance(call.exception(), (ConnectionLost, ConnectFailed))


@pytest.mark.parametrize(
    "moment", ["before dialling", "while dialling", "connected", "backing off"]
)
async def test_closing_at_any_moment_leaves_no_task_and_no_connection(moment: str) -> None:
    async def play(peer: Peer) -> None:
        if moment == "backing off":
            await peer.close()
            return
        if moment == "connected":
            await peer.respond(identity_of("server"))
        await peer.closed()

    async with ScriptedServer(play, raw=True) as server:
        limits = PoolLimits(backoff_first=60)
        async with pooled(server, 2, limits) as pool:
            if moment == "while dialling":
                await eventually(lambda: len(server.peers) == 2)
            elif moment == "connected":
                await connected(pool, 2)
            elif moment == "backing off":
                await eventually(lambda: pool.last_failure)
        if moment != "backing off":
            for peer in server.peers:
                await soon(peer.gone.wait())


async def test_a_pool_can_be_closed_twice() -> None:
    async with ScriptedServer(answer_pings) as server, pooled(server) as pool:
        await soon(pool.call(Rpcs.ping))
        await pool.close()
        await pool.close()


# Streams.


async def test_a_stream_has_a_connection_of_its_own() -> None:
    async with serving(SimulatedNetrunner()) as server, pooled(server) as pool:
        await connected(pool, 1)
        stream = pool.stream(Rpcs.stream_status, messages.StreamStatusRequest(10**12))
        assert (await soon(anext(stream))).cluster_info is not None
        assert server.connections == 2
        await stream.aclose()
        await eventually(lambda: server.connections == 1)
        await soon(pool.call(Rpcs.ping))


async def test_a_stream_that_the_server_does_not_have_ends_with_its_error() -> None:
    async def unknown(peer: Peer) -> None:
        await peer.answer_error(await peer.message(), "zapwire: unknown SubOp 0x05 for OpStart")

    async with ScriptedServer(unknown) as server, pooled(server) as pool:
        with pytest.raises(RemoteError, match="unknown SubOp 0x05"):
            await soon(anext(pool.stream(Rpcs.stream_status)))


async def test_calls_given_up_break_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gives up call after call costs a connection its place, not the others their calls."""
    monkeypatch.setattr(connection_module, "MAX_ABANDONED", 3)
    release = asyncio.Event()

    async def play(peer: Peer) -> None:
        change = None
        while True:
            request = await peer.message()
            if request.opcode == Rpcs.stop.opcode:
                change = request
            elif request.opcode == OPCODE_PING and peer is not server.peers[0]:
                await peer.send(pong(request))
            if change is not None and release.is_set():
                await peer.send(success(change, messages.StopResponse()))
                change = None

    async with ScriptedServer(play) as server, pooled(server) as pool:
        await connected(pool, 1)
        change = asyncio.create_task(pool.call(Rpcs.stop, timeout=60))
        await eventually(lambda: server.received)
        for _ in range(4):
            with pytest.raises(DeadlineExceeded):
                await pool.call(Rpcs.status, timeout=0.02)
        assert (await soon(pool.call(Rpcs.ping))).pid == 1
        assert len(server.peers) == 2
        assert not change.done()
        release.set()
        change.cancel()
        await asyncio.wait([change])
        await soon(server.peers[0].gone.wait())


async def test_a_server_that_half_closes_is_dialled_anew() -> None:
    async def half_close(peer: Peer) -> None:
        if peer is server.peers[0]:
            peer.writer.write_eof()
            await never(peer)
        await answer_pings(peer)

    async with ScriptedServer(half_close) as server, pooled(server) as pool:
        assert (await soon(pool.call(Rpcs.ping))).pid == 1
        assert len(server.peers) == 2
