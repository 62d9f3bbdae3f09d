"""Our client against the Go server where it gets hard: sizes, numbers, silence, and its death."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.integration.gateway_helpers import running_gateway
from tests.integration.zap_helpers import HANG, dialled, eventually, free_port, identity_of, soon
from tests.interop.go_processes import GoServer, go_server
from tests.interop.script import (
    LARGEST_ID,
    LARGEST_REQUEST,
    SMALLEST_REQUEST,
    TOO_LARGE_REQUEST,
    as_json,
    cluster,
)
from zapcore import ConnectionPool, NetrunnerClient, PoolLimits, errors
from zapcore import messages as m
from zapcore.connection import Connection
from zapcore.framing import MAX_BODY_SIZE
from zapcore.methods import Rpcs

PATIENT = PoolLimits(backoff_first=0.01, backoff_last=0.05, acquire_timeout=HANG)
IDLE = 40.0
"""Seconds. The reference's own time-outs are 30 s."""


@asynccontextmanager
async def pooled(server: GoServer, limits: PoolLimits = PATIENT) -> AsyncIterator[ConnectionPool]:
    """A pool whose connections stand."""
    async with ConnectionPool(
        server.address, identity_of("client"), server.identity, 2, limits
    ) as pool:
        await eventually(lambda: len(pool.connections) == pool.size)
        yield pool


async def is_well(server: GoServer, connection: Connection) -> None:
    assert connection.usable
    answer = await soon(NetrunnerClient(connection).status())
    assert answer.cluster_info == cluster(server.pid)


# Sizes.


async def test_the_largest_request(peer: Path):
    async with go_server(peer) as server, dialled(server.address) as connection:
        client = NetrunnerClient(connection)
        assert (await soon(client.send_outbound_message(LARGEST_REQUEST))).sent
        await is_well(server, connection)
        (sent, _) = await server.received()
        assert sent == ("SendOutboundMessage", LARGEST_REQUEST)


async def test_one_byte_more_is_refused_before_anything_is_sent(peer: Path):
    async with go_server(peer) as server, dialled(server.address) as connection:
        client = NetrunnerClient(connection)
        before = connection.bytes_sent
        with pytest.raises(errors.MessageTooLarge):
            await soon(client.send_outbound_message(TOO_LARGE_REQUEST))
        assert (connection.bytes_sent, connection.calls) == (before, 0)
        await is_well(server, connection)
        assert await server.received_rpcs() == ["Status"]


async def test_the_largest_answer(peer: Path):
    async with go_server(peer) as server, dialled(server.address) as connection:
        client = NetrunnerClient(connection)
        answer = await soon(client.attach_peer(node_name=f"size:{LARGEST_ID}"))
        assert answer == m.AttachPeerResponse(None, m.AttachedPeerInfo("a" * LARGEST_ID))
        assert connection.bytes_received > MAX_BODY_SIZE
        await is_well(server, connection)


async def test_an_answer_that_the_server_can_t_send_is_given_up_and_others_are_not(peer: Path):
    """The reference says nothing then, so that only the deadline ends it; another may say so."""
    async with go_server(peer) as server, dialled(server.address) as connection:
        client = NetrunnerClient(connection)
        with pytest.raises((errors.DeadlineExceeded, errors.RemoteError)):
            await client.attach_peer(node_name=f"size:{LARGEST_ID + 1}", timeout=1.0)
        await is_well(server, connection)


async def test_bodies_of_one_byte(peer: Path):
    async with go_server(peer) as server, dialled(server.address) as connection:
        request = SMALLEST_REQUEST.encode_request()
        assert len(request) == 1
        await soon(connection.exchange(SMALLEST_REQUEST, request))
        sending = Rpcs.send_outbound_message
        assert await soon(connection.exchange(sending, sending.encode_request())) == b"\x00"
        known = sending.request(node_name="node1")
        assert await soon(connection.exchange(sending, sending.encode_request(known))) == b"\x01"
        await soon(NetrunnerClient(connection).stop())
        assert await soon(connection.exchange(SMALLEST_REQUEST, request)) == b"\x00"


async def test_the_largest_both_ways_beside_small_calls(peer: Path):
    async with go_server(peer) as server, dialled(server.address) as connection:
        client = NetrunnerClient(connection)
        async with asyncio.timeout(HANG), asyncio.TaskGroup() as group:
            large = group.create_task(client.attach_peer(node_name=f"size:{LARGEST_ID}"))
            sent = group.create_task(client.send_outbound_message(LARGEST_REQUEST))
            small = [group.create_task(client.status()) for _ in range(50)]
        assert large.result().attached_peer_info == m.AttachedPeerInfo("a" * LARGEST_ID)
        assert sent.result().sent
        for each in small:
            assert each.result().cluster_info == cluster(server.pid)
        assert ("SendOutboundMessage", LARGEST_REQUEST) in await server.received()


# Numbers.


async def test_500_calls_in_flight_each_get_their_own_answer(peer: Path):
    """The last that was asked is answered first."""
    count = 500
    order: list[int] = []
    async with go_server(peer) as server, dialled(server.address) as connection:
        client = NetrunnerClient(connection)

        async def ask(number: int) -> None:
            name = f"sleep:{count - number}:word-{number}"
            answer = await client.attach_peer(node_name=name)
            assert answer == m.AttachPeerResponse(None, m.AttachedPeerInfo(f"word-{number}"))
            order.append(number)

        async with asyncio.timeout(HANG), asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(ask(number))
            await eventually(lambda: connection.calls == count)
        assert order != sorted(order)
        assert sorted(order) == list(range(count))
        await is_well(server, connection)
        received = await server.received()
        names = {request.node_name for name, request in received if name == "AttachPeer"}
        assert (len(received), len(names)) == (count + 1, count)


# Silence.


@pytest.mark.timeout(IDLE + 60)
async def test_an_idle_of_40_seconds(peer: Path):
    """A bare connection, a pool, a gateway, and a call that takes that long, at the same time."""
    async with (
        go_server(peer) as server,
        dialled(server.address) as bare,
        dialled(server.address) as waiting,
        pooled(server) as pool,
        running_gateway(server.address, server.identity) as gateway,
    ):
        await eventually(lambda: len(gateway.gateway.pool.connections) == 2)
        kept = [*pool.connections, *gateway.gateway.pool.connections]
        word = f"sleep:{IDLE * 1000:.0f}:awake"
        answer = await NetrunnerClient(waiting).attach_peer(node_name=word, timeout=IDLE + HANG)
        assert answer.attached_peer_info == m.AttachedPeerInfo("awake")
        assert server.rpcs == ["AttachPeer"], "nothing else was said, but for Pings"
        await is_well(server, bare)
        await is_well(server, waiting)
        assert (await soon(pool.call(Rpcs.status))).cluster_info == cluster(server.pid)
        response = await gateway.client.get("/v1/status")
        assert response.json() == {"clusterInfo": as_json(cluster(server.pid))}
        assert [*pool.connections, *gateway.gateway.pool.connections] == kept, "none was lost"


# Its death.


async def test_killed_and_started_again(peer: Path):
    """Reads are asked again and answered; a change is not, and its caller is told."""
    port = free_port()
    async with go_server(peer, port=port, seed="kept") as first, pooled(first) as pool:
        client = NetrunnerClient(pool)
        await soon(client.remove_node(name="node5"))
        # What is asked now waits in its sockets and is never read.
        first.process.send(signal.SIGSTOP)
        reads = [asyncio.create_task(client.status()) for _ in range(10)]
        changes = [asyncio.create_task(client.pause_node(name="node1")) for _ in range(10)]
        await eventually(lambda: sum(each.calls for each in pool.connections) == 20)
        await first.process.kill()
        async with go_server(peer, port=port, seed="kept") as second:
            assert second.identity == first.identity
            assert second.pid != first.pid
            for answer in await soon(asyncio.gather(*reads)):
                assert answer.cluster_info == cluster(second.pid)
            for error in await soon(asyncio.gather(*changes, return_exceptions=True)):
                assert isinstance(error, errors.OutcomeUnknown)
                assert "It was not repeated" in str(error)
            assert (await soon(client.ping())).pid == second.pid
            await soon(client.pause_node(name="node2"))
            assert await second.received_rpcs() == ["Status"] * 10 + ["PauseNode"]
        assert first.rpcs == ["RemoveNode"]


async def test_killed_while_it_works_on_a_change(peer: Path):
    async with go_server(peer) as server, pooled(server) as pool:
        client = NetrunnerClient(pool)
        change = asyncio.create_task(client.attach_peer(node_name="sleep:600000:never"))
        await eventually(lambda: server.rpcs == ["AttachPeer"])
        await server.process.kill()
        with pytest.raises(errors.OutcomeUnknown):
            await soon(change)


async def test_calls_while_it_is_away_wait_for_it(peer: Path):
    port = free_port()
    async with go_server(peer, port=port, seed="kept") as first, pooled(first) as pool:
        client = NetrunnerClient(pool)
        await first.process.kill()
        await eventually(lambda: not pool.connected_now)
        waiting = asyncio.create_task(client.pause_node(name="node1"))
        await eventually(lambda: pool.calls == 1)
        async with go_server(peer, port=port, seed="kept") as second:
            cluster_info = (await soon(waiting)).cluster_info
            assert cluster_info is not None
            assert cluster_info.pid == second.pid
            assert await second.received_rpcs() == ["PauseNode"]


async def test_another_server_at_its_address_gets_no_call(peer: Path):
    port = free_port()
    async with go_server(peer, port=port, seed="kept") as first, pooled(first) as pool:
        await first.process.kill()
        async with go_server(peer, port=port, seed="another") as second:
            assert second.identity != first.identity
            await eventually(lambda: isinstance(pool.last_failure, errors.IdentityMismatch))
            with pytest.raises(errors.IdentityMismatch):
                await soon(pool.call(Rpcs.status))
            assert await second.received() == []


async def test_a_server_that_ends_closes_its_connections(peer: Path):
    async with go_server(peer) as server, dialled(server.address) as connection:
        await is_well(server, connection)
        assert await server.process.finish() == 0
        await soon(asyncio.shield(connection.closed))
        with pytest.raises(errors.ConnectionLost):
            await soon(connection.call(Rpcs.status))
