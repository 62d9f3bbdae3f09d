"""Our client against the Go server: every RPC, every error text, every pin."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.zap_helpers import identity_of, scripted_client, soon
from tests.interop.go_processes import GoServer, go_server
from tests.interop.script import CASES, ERRORS, PROVISIONAL, cluster, node
from tests.unit import vectors
from zapcore import NetrunnerClient, connect, errors
from zapcore import messages as m
from zapcore.connection import dial
from zapcore.framing import MessageReader
from zapcore.methods import METHODS, Method, unknown_method_text
from zapcore.zwing.handshake import Expected

BY_ATTRIBUTE = {method.attribute: method for method in METHODS.values()}
REQUESTS = [each for each in vectors.load("messages")["messages"] if each["kind"] == "request"]
REFUSED = [
    each
    for each in vectors.load("messages")["errors"]
    if each["message"].startswith(("zapwire: ", "unexpected EOF"))
]
"""Requests that the server itself answers with an error, as they were recorded."""


@pytest_asyncio.fixture
async def server(peer: Path) -> AsyncIterator[GoServer]:
    async with go_server(peer) as running:
        yield running


@asynccontextmanager
async def client_of(
    server: GoServer, name: str = "client", expected: Expected = None
) -> AsyncIterator[NetrunnerClient]:
    async with connect(server.address, identity=identity_of(name), server=expected) as client:
        yield client


async def is_well(server: GoServer, client: NetrunnerClient) -> None:
    """The connection carries calls, and what was refused before left no trace."""
    assert (await soon(client.status())).cluster_info == cluster(server.pid)


# Every RPC.


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_an_rpc_with_every_field_there_and_back(server, case):
    async with client_of(server) as client:
        answer = await soon(client.call(case.method, case.request))
        assert answer == case.answer(server.pid)
        if case.method.name != "Ping":
            assert await server.received() == [(case.method.name, case.request)]


async def test_the_server_s_state_is_what_its_answers_said(server):
    async with client_of(server) as client:
        paused = await soon(client.pause_node(name="node1"))
        assert paused.cluster_info is not None
        assert not paused.cluster_info.healthy
        for method in (client.status, client.health, client.wait_for_healthy):
            assert (await soon(method())).cluster_info == paused.cluster_info
        resumed = await soon(client.resume_node(name="node1"))
        assert resumed.cluster_info == cluster(server.pid)
        await soon(client.remove_node(name="node2"))
        assert len((await soon(client.uris())).uris) == 4
        assert not (await soon(client.send_outbound_message(node_name="node2"))).sent


async def test_a_cluster_that_was_stopped(server):
    async with client_of(server) as client:
        assert (await soon(client.stop())).cluster_info == cluster(server.pid)
        for method in (client.health, client.status, client.wait_for_healthy):
            assert (await soon(method())).cluster_info is None
        assert (await soon(client.uris())).uris == []
        for call in (
            client.add_node(name="node6"),
            client.remove_node(name="node1"),
            client.restart_node(name="node1"),
            client.pause_node(name="node1"),
            client.resume_node(name="node1"),
        ):
            with pytest.raises(errors.NotBootstrapped) as caught:
                await soon(call)
            assert str(caught.value) == "not bootstrapped"
        attached = await soon(client.attach_peer(node_name="node1"))
        assert attached == m.AttachPeerResponse(None, m.AttachedPeerInfo("peer-of-node1"))


@pytest.mark.parametrize("vector", REQUESTS, ids=lambda vector: vector["name"])
async def test_a_recorded_request_means_the_same_to_the_server(server, vector):
    """As it was recorded, byte by byte."""
    (request,) = MessageReader().receive(bytes.fromhex(vector["frame"]))
    method = BY_ATTRIBUTE[vector["rpc"]]
    async with scripted_client(server.address) as client:
        await client.send(request)
        answer = await soon(client.message())
        assert answer.request_id == vector["request_id"]
        assert answer.opcode == vector["opcode"]
    if method.name != "Ping":
        expected = vectors.message_of(method.request, vector["fields"])
        assert await server.received() == [(method.name, expected)]


# Errors.


@pytest.mark.parametrize(("method", "request_", "text"), ERRORS.values(), ids=ERRORS)
async def test_an_error_text_comes_verbatim_and_typed(server, method, request_, text):
    expected = type(errors.remote_error(text))
    async with client_of(server) as client:
        with pytest.raises(errors.RemoteError) as caught:
            await soon(client.call(method, request_))
        assert str(caught.value) == text
        assert type(caught.value) is expected
        await is_well(server, client)
        assert await server.received() == [(method.name, request_), ("Status", m.StatusRequest())]


def test_the_types_of_the_error_texts():
    """By name, where the test above has them from the text."""
    kinds = {title: type(errors.remote_error(text)) for title, (_, _, text) in ERRORS.items()}
    assert kinds["an unknown node"] is errors.NotFound
    assert kinds["an unknown node in Unicode"] is errors.NotFound
    assert kinds["a node that is there"] is errors.AlreadyExists
    assert kinds["a panic"] is errors.RemoteError


@pytest.mark.parametrize(
    "method", [method for method in PROVISIONAL if not method.streaming], ids=str
)
async def test_an_rpc_that_the_server_does_not_know(server, method):
    async with client_of(server) as client:
        with pytest.raises(errors.UnsupportedByServer) as caught:
            await soon(client.call(method))
        assert str(caught.value) == unknown_method_text(method.opcode, method.sub_opcode)
        await is_well(server, client)
        assert await server.received_rpcs() == ["Status"]


async def test_a_stream_that_the_server_does_not_know(server):
    async with client_of(server) as client:
        with pytest.raises(errors.UnsupportedByServer) as caught:
            await soon(anext(client.stream_status(push_interval=10**9)))
        assert str(caught.value) == "zapwire: unknown SubOp 0x05 for OpStart"
        await is_well(server, client)


@pytest.mark.parametrize(("opcode", "sub_opcode"), [(1, None), (59, None), (62, 0xFF), (62, 9)])
async def test_what_no_server_knows(server, opcode, sub_opcode):
    method = Method("Nothing", opcode, sub_opcode, m.PingRequest, m.PingResponse, "")
    async with client_of(server) as client:
        with pytest.raises(errors.UnsupportedByServer) as caught:
            await soon(client.call(method))
        assert str(caught.value) == unknown_method_text(opcode, sub_opcode)
        await is_well(server, client)


@pytest.mark.parametrize("vector", REFUSED, ids=lambda vector: vector["name"])
async def test_the_server_refuses_as_it_was_recorded(server, vector):
    (request,) = MessageReader().receive(bytes.fromhex(vector["request_frame"]))
    async with scripted_client(server.address) as client:
        await client.send(request)
        answer = await soon(client.message())
        assert answer.encode().hex() == vector["response_frame"]
    assert await server.received() == []


# Identities.


@pytest.mark.parametrize("server_pins", [False, True], ids=["anybody", "pins the client"])
@pytest.mark.parametrize("client_pins", ["nothing", "identity", "fingerprint"])
async def test_with_and_without_pinned_identities(peer, client_pins, server_pins):
    allowed = identity_of("client").public if server_pins else None
    async with go_server(peer, client=allowed) as server:
        pins: dict[str, Expected] = {
            "nothing": None,
            "identity": server.identity,
            "fingerprint": server.identity.fingerprint,
        }
        connection = await soon(
            dial(server.address, identity_of("client"), pins[client_pins], timeout=10)
        )
        try:
            assert connection.remote == server.identity
            await is_well(server, NetrunnerClient(connection))
        finally:
            await connection.wait_closed()


@pytest.mark.parametrize("kind", ["identity", "fingerprint"])
async def test_a_server_that_is_not_the_pinned_one_gets_no_call(server, kind):
    another = identity_of("another").public
    expected = another if kind == "identity" else another.fingerprint
    with pytest.raises(errors.IdentityMismatch, match=re.escape(server.identity.fingerprint)):
        async with client_of(server, expected=expected):
            pytest.fail("the wrong server was accepted")
    async with client_of(server, expected=server.identity) as client:
        await is_well(server, client)
    assert await server.received_rpcs() == ["Status"]


async def test_a_client_that_the_server_did_not_pin_is_not_let_in(peer):
    async with go_server(peer, client=identity_of("client").public) as server:
        with pytest.raises(errors.HandshakeError, match="may not accept this client's identity"):
            async with client_of(server, "another"):
                pytest.fail("the wrong client was let in")
        async with client_of(server, expected=server.identity) as client:
            await is_well(server, client)
        assert await server.received_rpcs() == ["Status"]


async def test_each_run_has_its_own_identity_unless_a_seed_says_otherwise(peer):
    async with (
        go_server(peer) as one,
        go_server(peer) as two,
        go_server(peer, seed="a") as seeded,
        go_server(peer, seed="a") as again,
        go_server(peer, seed="b") as other,
    ):
        assert seeded.identity == again.identity
        assert len({each.identity for each in (one, two, seeded, other)}) == 4
        async with client_of(again, expected=seeded.identity) as client:
            await is_well(again, client)


# Clients side by side.


async def test_clients_see_one_cluster(server):
    async with client_of(server) as one, client_of(server, "another") as two:
        await soon(one.pause_node(name="node5"))
        after = cluster(server.pid, node5=replace(node("node5", 5), paused=True))
        assert (await soon(two.status())).cluster_info == after
