"""The circuit breaker: a server that is away costs one wait in all, and none once it is back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sized
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import httpx
import pytest

from tests.integration.gateway_helpers import (
    Backend,
    Running,
    Watched,
    is_problem,
    running_gateway,
)
from tests.integration.zap_helpers import (
    HANG,
    Peer,
    ScriptedServer,
    eventually,
    free_port,
    identity_of,
    no_task_left,
    pong,
    serving,
    soon,
)
from zapcore import (
    ConnectionPool,
    NetrunnerServer,
    PoolLimits,
    SimulatedNetrunner,
    messages,
)
from zapcore.connection import Connection
from zapcore.errors import (
    ConnectFailed,
    HandshakeError,
    IdentityMismatch,
    OutcomeUnknown,
    ZapError,
)
from zapcore.methods import Rpcs
from zapcore.pool import PoolObserver
from zapcore.zwing.handshake import Expected

SOON = HANG / 3
"""Far beyond every time that tests set, and short of every default that must not apply instead."""

PATIENCE = 0.3


class Restartable:
    """A netrunner that goes and comes back on the same port."""

    def __init__(self, backend: object | None = None) -> None:
        self.backend = Watched(backend or SimulatedNetrunner(health_delay=0))
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.server: NetrunnerServer | None = None

    async def start(self) -> None:
        self.server = NetrunnerServer(self.backend, identity_of("server"))
        await self.server.start(port=self.port)

    async def stop(self) -> None:
        server, self.server = self.server, None
        if server is not None:
            await server.close()


@asynccontextmanager
async def restartable(backend: object | None = None) -> AsyncIterator[Restartable]:
    server = Restartable(backend)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def is_down(running: Running, server: Restartable) -> None:
    """The server goes, and the breaker opens."""
    pool = running.gateway.pool
    await server.stop()
    await eventually(lambda: not pool.connected_now)
    await eventually(lambda: pool.circuit_open)


async def is_back(running: Running, server: Restartable) -> None:
    """The server comes back, and the pool finds it."""
    pool = running.gateway.pool
    await server.start()
    await eventually(lambda: len(pool.connections) == pool.size)


WAYS = (
    ("GET", "/v1/status", "Status"),
    ("GET", "/v1/status?timeout=60s", "Status"),
    ("GET", "/v1/nodes/node1", "Status"),
    ("GET", "/v1/health/wait", "WaitForHealthy"),
    ("POST", "/v1/nodes/node1/restart", "RestartNode"),
)


def is_unavailable(response: httpx.Response, rpc: str) -> None:
    problem = is_problem(response, 503, "upstream_unavailable", rpc)
    assert int(response.headers["retry-after"]) >= 1
    assert problem["detail"]


# The gateway.


async def test_once_the_server_is_down_calls_fail_at_once():
    """Each of them waited for itself otherwise."""
    async with restartable() as server, running_gateway(server, acquire_timeout=1.0) as running:
        await is_down(running, server)
        before = time.monotonic()
        for verb, path, rpc in WAYS * 4:
            is_unavailable(await running.client.request(verb, path), rpc)
        assert time.monotonic() - before < SOON, "4 times 5 waits of 1 s"
        assert running.gateway.pool.calls == 0


async def test_many_calls_while_the_server_is_down_do_not_pile_up():
    async with (
        restartable() as server,
        running_gateway(server, acquire_timeout=PATIENCE, max_calls=1000) as running,
    ):
        await is_down(running, server)
        tasks = len(asyncio.all_tasks())
        for _ in range(2):
            calls = [running.client.request(verb, path) for verb, path, _ in WAYS * 10]
            responses = await soon(asyncio.gather(*calls))
            for response, (_, _, rpc) in zip(responses, WAYS * 10, strict=True):
                is_unavailable(response, rpc)
            assert running.gateway.pool.calls == 0
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
        assert server.backend.received == []


async def test_calls_that_wait_fail_together_however_late_they_came():
    """The wait is measured from the outage."""
    patience = 2.0
    async with (
        restartable() as server,
        running_gateway(server, acquire_timeout=patience) as running,
    ):

        async def failing() -> tuple[float, float]:
            began = time.monotonic()
            is_unavailable(await running.client.get("/v1/status"), "Status")
            return began, time.monotonic()

        await server.stop()
        await eventually(lambda: not running.gateway.pool.connected_now)
        first = asyncio.create_task(failing())
        await asyncio.sleep(0.8 * patience)
        assert not first.done(), "a server may come back within that time"
        last = asyncio.create_task(failing())
        (_, first_ended), (last_began, last_ended) = await soon(asyncio.gather(first, last))
        assert last_ended - last_began < 0.7 * patience, "0.2 of it, with much room"
        assert last_ended - first_ended < 0.5 * patience
        assert running.gateway.pool.calls == 0


async def test_when_the_server_is_back_calls_succeed_again():
    async with (
        restartable() as server,
        running_gateway(server, acquire_timeout=PATIENCE) as running,
    ):
        for _ in range(2):
            await is_down(running, server)
            is_unavailable(await running.client.get("/v1/status"), "Status")
            is_problem(await running.client.get("/readyz"), 503, "upstream_unavailable")
            await is_back(running, server)
            assert not running.gateway.pool.circuit_open
            for verb, path, _ in WAYS:
                assert (await running.client.request(verb, path)).status_code == 200
            assert (await running.client.get("/readyz")).status_code == 200


async def test_a_server_that_is_found_only_later_is_down_until_then():
    server = Restartable()
    async with running_gateway(server, ready=False, acquire_timeout=PATIENCE) as running:
        pool = running.gateway.pool
        assert pool.limits.acquire_timeout == PATIENCE
        assert not pool.circuit_open, "it was not away for long"
        await eventually(lambda: pool.circuit_open)
        is_unavailable(await running.client.get("/v1/status"), "Status")
        await is_back(running, server)
        try:
            assert (await running.client.get("/v1/status")).status_code == 200
        finally:
            await server.stop()


async def has(items: Sized, count: int) -> None:
    """At least so many."""
    await eventually(lambda: len(items) >= count)


async def reads_all_the_time(running: Running, statuses: list[int]) -> None:
    while True:
        statuses.append((await running.client.get("/v1/status")).status_code)


@pytest.mark.parametrize("connections", [1, 2])
async def test_reads_do_not_see_a_short_restart(connections: int):
    """It is over well before the breaker would open."""
    statuses: list[int] = []
    async with (
        restartable() as server,
        running_gateway(server, acquire_timeout=10.0, connections=connections) as running,
    ):
        reading = [asyncio.create_task(reads_all_the_time(running, statuses)) for _ in range(8)]
        try:
            for _ in range(2):
                await has(statuses, len(statuses) + 20)
                await server.stop()
                await asyncio.sleep(0.1)
                await server.start()
                await has(statuses, len(statuses) + 40)
        finally:
            for task in reading:
                task.cancel()
            await asyncio.wait(reading)
        assert set(statuses) == {200}


async def test_a_change_under_way_when_the_server_goes_is_no_matter_of_the_breaker():
    """Its outcome is unknown; the next one did not leave, and says so."""
    begun = asyncio.Event()

    async def never(request: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with (
        restartable(Backend(pause_node=never)) as server,
        running_gateway(server, acquire_timeout=PATIENCE) as running,
    ):
        call = asyncio.create_task(running.client.post("/v1/nodes/n/pause"))
        await soon(begun.wait())
        await is_down(running, server)
        is_problem(await soon(call), 502, "outcome_unknown", "PauseNode")
        is_unavailable(await running.client.post("/v1/nodes/n/pause"), "PauseNode")
        await is_back(running, server)
        assert server.backend.counts["pause_node"] == 1


async def test_a_server_that_accepts_and_says_nothing_is_down_too():
    """Dialling takes longer than anybody's patience."""
    async with ScriptedServer(Peer.closed, raw=True) as server:
        settings = {"acquire_timeout": PATIENCE, "connect_timeout": "60s"}
        async with running_gateway(server, ready=False, **settings) as running:
            pool = running.gateway.pool
            await eventually(lambda: pool.circuit_open)
            assert pool.dialling == 2
            before = time.monotonic()
            for _ in range(30):
                is_unavailable(await running.client.get("/v1/status"), "Status")
            assert time.monotonic() - before < SOON, "30 waits of 0.3 s"


async def test_a_deadline_shorter_than_the_wait_counts():
    server = Restartable()
    async with running_gateway(server, ready=False, acquire_timeout="60s") as running:
        before = time.monotonic()
        response = await running.client.get("/v1/status", params={"timeout": "100ms"})
        assert response.status_code in (503, 504)
        assert 0.1 <= time.monotonic() - before < SOON


# The pool.


class Seen(PoolObserver):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.stood: list[Connection] = []
        self.seconds: list[float] = []
        self.failed: list[ZapError] = []
        self.again = 0

    def dialled(self, connection: Connection) -> None:
        """See PoolObserver."""
        self.stood.append(connection)
        self.seconds.append(connection.handshake_seconds)

    def dial_failed(self, error: ZapError) -> None:
        """See PoolObserver."""
        self.failed.append(error)

    def reconnected(self) -> None:
        """See PoolObserver."""
        self.again += 1


def quick(acquire_timeout: float = PATIENCE) -> PoolLimits:
    return PoolLimits(acquire_timeout=acquire_timeout, backoff_first=0.01, backoff_last=0.05)


@asynccontextmanager
async def pooled(
    address: str,
    size: int = 1,
    limits: PoolLimits | None = None,
    seen: Seen | None = None,
    expected: Expected = None,
) -> AsyncIterator[ConnectionPool]:
    """A pool that leaves nothing behind."""
    with no_task_left() as check:
        pool = ConnectionPool(
            address, identity_of("client"), expected, size, limits or quick(), seen
        )
        async with pool:
            yield pool
        assert pool.calls == 0
        await check()


async def stands(pool: ConnectionPool) -> None:
    await eventually(lambda: len(pool.connections) == pool.size)


async def answer_pings(peer: Peer) -> None:
    while True:
        await peer.send(pong(await peer.message()))


def cut(peer: Peer) -> None:
    peer.writer.transport.abort()


async def test_the_circuit_opens_once_there_was_no_connection_for_too_long():
    async with pooled(f"127.0.0.1:{free_port()}") as pool:
        before = time.monotonic()
        assert not pool.circuit_open
        await eventually(lambda: pool.last_failure)
        await eventually(lambda: pool.circuit_open)
        assert time.monotonic() - before >= PATIENCE * 0.9


async def test_the_circuit_is_closed_while_any_connection_stands():
    stay = asyncio.Event()

    async def play(peer: Peer) -> None:
        if peer is not server.peers[0]:
            stay.set()
            await peer.closed()
        await peer.respond(identity_of("server"))
        await answer_pings(peer)

    async with ScriptedServer(play, raw=True) as server, pooled(server.address, 2) as pool:
        await eventually(lambda: pool.connected_now)
        await soon(stay.wait())
        await asyncio.sleep(2 * PATIENCE)
        assert not pool.circuit_open
        assert (await soon(pool.call(Rpcs.ping))).pid == 1


async def test_the_time_without_a_connection_begins_when_the_last_one_is_lost():
    """And not when the pool began."""
    patience = 0.7
    async with restartable() as server, pooled(server.address, 2, quick(patience)) as pool:
        await stands(pool)
        await asyncio.sleep(1.2 * patience)
        await server.stop()
        await eventually(lambda: not pool.connected_now)
        assert not pool.circuit_open
        before = time.monotonic()
        await eventually(lambda: pool.circuit_open)
        assert time.monotonic() - before > 0.5 * patience


async def test_the_time_without_a_connection_does_not_begin_while_another_stands():
    """However long one of them was away."""

    async def play(peer: Peer) -> None:
        if len(server.peers) > 2:
            await peer.closed()
        await peer.respond(identity_of("server"))
        await answer_pings(peer)

    patience = 0.7
    async with (
        ScriptedServer(play, raw=True) as server,
        pooled(server.address, 2, quick(patience)) as pool,
    ):
        await stands(pool)
        cut(server.peers[0])
        await eventually(lambda: len(pool.connections) == 1)
        await asyncio.sleep(1.2 * patience)
        assert not pool.circuit_open
        cut(server.peers[1])
        await eventually(lambda: not pool.connected_now)
        assert not pool.circuit_open
        await eventually(lambda: pool.circuit_open)


async def test_a_connection_closes_the_circuit_and_the_next_outage_counts_anew():
    async with restartable() as server, pooled(server.address, limits=quick(0.7)) as pool:
        for _ in range(2):
            await stands(pool)
            assert not pool.circuit_open
            await server.stop()
            await eventually(lambda: not pool.connected_now)
            assert not pool.circuit_open
            await eventually(lambda: pool.circuit_open)
            with pytest.raises(ConnectFailed):
                await asyncio.wait_for(pool.call(Rpcs.ping), 0.5)
            await server.start()
        await stands(pool)
        assert (await soon(pool.call(Rpcs.ping))).pid
        assert pool._down_since == float("inf")


async def test_failed_attempts_do_not_prolong_the_wait():
    """Each of them would begin it anew otherwise."""
    async with pooled(f"127.0.0.1:{free_port()}", 3) as pool:
        await eventually(lambda: pool.circuit_open)
        since = pool._down_since
        assert isinstance(pool.last_failure, ConnectFailed)
        await asyncio.sleep(PATIENCE)
        assert pool.circuit_open
        assert pool._down_since == since


@pytest.mark.parametrize("row", [Rpcs.ping, Rpcs.pause_node], ids=str)
async def test_a_call_while_the_circuit_is_open_tells_why(row: Any):
    async with pooled(f"127.0.0.1:{free_port()}", limits=quick(0.05)) as pool:
        await eventually(lambda: pool.circuit_open)
        calls = [pool.call(row, timeout=60) for _ in range(200)]
        errors = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), SOON)
        assert {type(error) for error in errors} == {ConnectFailed}
        assert all("nobody listens" in str(error) for error in errors)
        assert pool.calls == 0


async def test_waiting_for_a_connection_outlasts_a_long_outage():
    server = Restartable()
    async with pooled(server.address, limits=quick(0.05)) as pool:
        await eventually(lambda: pool.circuit_open)
        waiting = asyncio.create_task(pool.wait_connected(60))
        with pytest.raises(ConnectFailed):
            await pool.call(Rpcs.ping)
        await asyncio.sleep(10 * 0.05)
        assert not waiting.done()
        await server.start()
        await soon(waiting)
        assert (await soon(pool.call(Rpcs.ping))).pid
        await server.stop()


async def test_waiting_for_a_connection_ends_in_time():
    async with pooled(f"127.0.0.1:{free_port()}", limits=quick(0.05)) as pool:
        await eventually(lambda: pool.circuit_open)
        before = time.monotonic()
        with pytest.raises(ConnectFailed, match="nobody listens"):
            await soon(pool.wait_connected(0.3))
        assert 0.3 * 0.9 <= time.monotonic() - before < SOON


async def test_a_change_that_broke_is_not_repeated_when_the_circuit_closes():
    """The read beside it is."""

    async def play(peer: Peer) -> None:
        if peer is server.peers[0]:
            await peer.message()
            await peer.message()
            cut(peer)
            return
        await answer_pings(peer)

    async with ScriptedServer(play) as server, pooled(server.address, limits=quick(5.0)) as pool:
        await stands(pool)
        change = asyncio.create_task(pool.call(Rpcs.stop, timeout=60))
        read = asyncio.create_task(pool.call(Rpcs.ping, timeout=60))
        with pytest.raises(OutcomeUnknown):
            await soon(change)
        assert (await soon(read)).pid == 1
        assert [request.opcode for request in server.peers[1].received] == [Rpcs.ping.opcode]


# What an observer is told.


async def test_an_observer_is_told_of_every_connection_and_how_long_its_handshake_took():
    seen = Seen()
    before = time.perf_counter()
    async with (
        serving(SimulatedNetrunner()) as server,
        pooled(server.address, 3, seen=seen) as pool,
    ):
        await stands(pool)
        assert set(seen.stood) == set(pool.connections)
        assert all(0 < seconds < time.perf_counter() - before for seconds in seen.seconds)

        stream = pool.stream(Rpcs.stream_status, messages.StreamStatusRequest(10**12))
        await soon(anext(stream))
        assert len(seen.stood) == 4
        assert seen.seconds[3] > 0
        await stream.aclose()
        assert (seen.failed, seen.again) == ([], 0)


async def test_a_slow_handshake_is_seen_to_be_slow():
    seen = Seen()

    async def play(peer: Peer) -> None:
        await asyncio.sleep(0.3)
        await peer.respond(identity_of("server"))
        await answer_pings(peer)

    async with (
        ScriptedServer(play, raw=True) as server,
        pooled(server.address, seen=seen, limits=quick(60)) as pool,
    ):
        await stands(pool)
        assert seen.seconds[0] >= 0.3 * 0.9


async def nobody(peer: Peer) -> None:
    await peer.frame()
    await peer.close()


FAILURES: dict[str, tuple[Callable[[Peer], Awaitable[None]] | None, type[ZapError]]] = {
    "nobody listens": (None, ConnectFailed),
    "the handshake fails": (nobody, HandshakeError),
    "a stranger": (answer_pings, IdentityMismatch),
}


@pytest.mark.parametrize(("script", "kind"), FAILURES.values(), ids=FAILURES.keys())
async def test_an_observer_is_told_of_every_failed_attempt(
    script: Callable[[Peer], Awaitable[None]] | None, kind: type[ZapError]
):
    seen = Seen()
    expected = identity_of("somebody else").public
    if script is None:
        async with pooled(f"127.0.0.1:{free_port()}", seen=seen) as pool:
            await eventually(lambda: len(seen.failed) >= 3)
            assert isinstance(pool.last_failure, kind)
    else:
        async with (
            ScriptedServer(script, raw=kind is HandshakeError) as server,
            pooled(server.address, seen=seen, expected=expected) as pool,
        ):
            await eventually(lambda: len(seen.failed) >= 3)
            assert isinstance(pool.last_failure, kind)
    assert {type(error) for error in seen.failed} == {kind}
    assert (seen.stood, seen.again) == ([], 0)


async def test_an_observer_is_told_when_what_was_lost_stands_again():
    seen = Seen()
    async with restartable() as server, pooled(server.address, 2, seen=seen) as pool:
        await stands(pool)
        for times in (1, 2):
            await server.stop()
            await eventually(lambda: not pool.connected_now)
            await server.start()
            await stands(pool)
            assert seen.again == 2 * times
        assert len(seen.stood) == 6


async def test_one_connection_of_two_that_comes_again_is_told_once():
    seen = Seen()
    async with (
        ScriptedServer(answer_pings) as server,
        pooled(server.address, 2, seen=seen) as pool,
    ):
        await stands(pool)
        cut(server.peers[0])
        await eventually(lambda: seen.again)
        await stands(pool)
        assert seen.again == 1
        assert len(seen.stood) == 3
        assert seen.failed == []


async def test_a_first_connection_after_failures_is_not_one_that_came_again():
    seen, server = Seen(), Restartable()
    async with pooled(server.address, 2, seen=seen) as pool:
        await eventually(lambda: len(seen.failed) >= 2)
        await server.start()
        await stands(pool)
        assert seen.again == 0
        await server.stop()


async def test_a_stream_is_not_one_of_the_pools_connections_that_came_again():
    seen = Seen()
    async with (
        serving(SimulatedNetrunner()) as server,
        pooled(server.address, seen=seen) as pool,
    ):
        for count in (2, 3):
            await stands(pool)
            stream = pool.stream(Rpcs.stream_status, messages.StreamStatusRequest(10**12))
            await soon(anext(stream))
            await stream.aclose()
            assert len(seen.stood) == count
        assert seen.again == 0


# What is counted.


async def test_dialling_counts_connections_that_are_being_made():
    release = asyncio.Event()

    async def play(peer: Peer) -> None:
        await release.wait()
        await peer.respond(identity_of("server"))
        await answer_pings(peer)

    async with ScriptedServer(play, raw=True) as server, pooled(server.address, 3) as pool:
        assert pool.size == 3
        await eventually(lambda: pool.dialling == 3)
        await eventually(lambda: len(server.peers) == 3)
        assert pool.dialling == 3
        release.set()
        await stands(pool)
        assert pool.dialling == 0
        release.clear()
        cut(server.peers[0])
        await eventually(lambda: pool.dialling == 1)
        release.set()
        await stands(pool)
        assert pool.dialling == 0


async def test_a_pause_between_attempts_is_no_dialling():
    limits = PoolLimits(backoff_first=60, backoff_last=60)
    async with pooled(f"127.0.0.1:{free_port()}", 2, limits) as pool:
        await eventually(lambda: pool.last_failure)
        await eventually(lambda: pool.dialling == 0)


async def test_bytes_are_counted_as_they_are_on_the_wire_over_all_connections():
    sent = 0

    def counting(data: bytes) -> list[bytes]:
        nonlocal sent
        sent += len(data)
        return [data]

    async with (
        ScriptedServer(answer_pings, pieces=counting) as server,
        pooled(server.address, 2) as pool,
    ):
        await stands(pool)
        handshakes = pool.bytes_sent
        assert pool.bytes_received == sent > 2 * 1000, "handshakes count"
        assert handshakes > 2 * 1000
        seen = [(pool.bytes_received, pool.bytes_sent)]
        for round_ in range(1, 4):
            for _ in range(5):
                await soon(pool.call(Rpcs.ping))
                seen.append((pool.bytes_received, pool.bytes_sent))
            assert pool.bytes_received == sent
            assert pool.bytes_sent > seen[-6][1]
            before = len(server.peers)
            for peer in server.peers[-2:]:
                cut(peer)
            for _ in range(20):
                seen.append((pool.bytes_received, pool.bytes_sent))
                await asyncio.sleep(0.001)
            await has(server.peers, before + 2)
            await stands(pool)
            seen.append((pool.bytes_received, pool.bytes_sent))
            assert pool.bytes_received == sent
            assert pool.bytes_sent >= (round_ + 1) * handshakes
        for earlier, later in pairwise(seen):
            assert earlier[0] <= later[0], "what closed connections carried stays"
            assert earlier[1] <= later[1], "what closed connections carried stays"
    assert pool.bytes_received == sent
    assert pool._dialled == set()


async def test_bytes_of_a_stream_count():
    async with serving(SimulatedNetrunner()) as server, pooled(server.address) as pool:
        await stands(pool)
        before = pool.bytes_received, pool.bytes_sent
        stream = pool.stream(Rpcs.stream_status, messages.StreamStatusRequest(10**12))
        await soon(anext(stream))
        during = pool.bytes_received, pool.bytes_sent
        assert during[0] > before[0] + 1000
        assert during[1] > before[1] + 1000
        await stream.aclose()
        await eventually(lambda: len(pool._dialled) == 1)
        assert pool.bytes_received >= during[0]
        assert pool.bytes_sent >= during[1]
