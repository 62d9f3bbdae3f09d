"""The Go client against our server: every call of its, compared with what our own client gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway_helpers import Backend, Watched, answers
from tests.integration.zap_helpers import (
    dialled,
    eventually,
    free_port,
    identity_of,
    scripted_client,
    serving,
    soon,
    tcp_client,
)
from tests.interop.go_processes import GoError, GoProcess, go_client, go_process, one_line
from tests.interop.script import CASES, NOT_UTF_8, UNICODE, VERIFIED
from tests.unit import vectors
from zapcore import NetrunnerClient, NetrunnerServer, ServerLimits, SimulatedNetrunner
from zapcore import messages as m
from zapcore.codec import Message
from zapcore.errors import RemoteError
from zapcore.methods import METHODS, Method, Rpcs
from zapcore.zwing import Initiator

Step = tuple[Method[Message, Message], Message]
Ask = Callable[[Method[Message, Message], Message], Any]

LETTERS = "nœud-6"


def steps(peer_of: dict[str, str]) -> list[Callable[[], Step]]:
    """A walk through a cluster; ``peer_of`` learns the ids of peers on the way."""

    def plain(method: Method[Message, Message], **fields: Any) -> Callable[[], Step]:
        return lambda: (method, method.request(**fields))

    maps = {"chain_configs": {"C": "{}"}, "upgrade_configs": {"P": ""}, "chain_config_files": {}}
    whole = {"exec_path": "/x", "node_config": "{}", "plugin_dir": "/p", **maps}
    return [
        *map(plain, (Rpcs.ping, Rpcs.rpc_version, Rpcs.uris)),
        *map(plain, (Rpcs.health, Rpcs.wait_for_healthy, Rpcs.status)),
        plain(Rpcs.add_node, name=LETTERS, **whole),
        plain(Rpcs.add_node, name="bare"),
        plain(Rpcs.add_node, name="bare"),
        plain(Rpcs.add_node, name="broken", node_config="no JSON"),
        plain(Rpcs.add_node),
        plain(Rpcs.restart_node, name=LETTERS, exec_path="/y", whitelisted_chains="a,b", **maps),
        plain(Rpcs.restart_node, name=LETTERS, whitelisted_chains="", plugin_dir="/q"),
        plain(Rpcs.restart_node, name="node1"),
        plain(Rpcs.pause_node, name="node2"),
        plain(Rpcs.pause_node, name="node2"),
        plain(Rpcs.attach_peer, node_name="node2"),
        plain(Rpcs.resume_node, name="node2"),
        plain(Rpcs.resume_node, name="node2"),
        plain(Rpcs.attach_peer, node_name="node2"),
        lambda: (
            Rpcs.send_outbound_message,
            m.SendOutboundMessageRequest("node2", peer_of["node2"], 7, NOT_UTF_8),
        ),
        plain(Rpcs.send_outbound_message, node_name="node2", peer_id="nobody", op=2**32 - 1),
        plain(Rpcs.remove_node, name="node3"),
        plain(Rpcs.remove_node, name="node3"),
        *map(plain, (Rpcs.uris, Rpcs.status, Rpcs.stop, Rpcs.stop, Rpcs.status, Rpcs.uris)),
        plain(Rpcs.pause_node, name="node1"),
    ]


async def walk(ask: Ask) -> list[object]:
    """Every answer, or the error's text."""
    peer_of: dict[str, str] = {}
    told: list[object] = []
    for step in steps(peer_of):
        method, request = step()
        try:
            answer = await soon(ask(method, request))
        except RemoteError as error:
            told.append(f"remote error: {error}")
            continue
        except GoError as error:
            told.append(str(error))
            continue
        told.append(answer)
        if isinstance(answer, m.AttachPeerResponse) and answer.attached_peer_info:
            peer_of[request.node_name] = answer.attached_peer_info.id
    return told


@asynccontextmanager
async def simulation(**options: Any) -> AsyncIterator[tuple[NetrunnerServer, Watched]]:
    """Our server on a cluster that has a blockchain of its own."""
    backend = Watched(SimulatedNetrunner(health_delay=0.0))
    spec = m.BlockchainSpec("evm", genesis=f'{{"x":"{UNICODE}"}}', blockchain_alias=UNICODE)
    await backend.inner.create_blockchains(m.CreateBlockchainsRequest([spec]))
    async with serving(backend, **options) as server:
        yield server, backend


async def test_a_walk_gets_the_answers_that_our_own_client_gets(peer: Path):
    async with simulation() as (server, ours), dialled(server.address) as connection:
        expected = await walk(NetrunnerClient(connection).call)
    async with (
        simulation() as (server, theirs),
        go_client(peer, server.address, server.identity.public) as client,
    ):
        assert await walk(client.call) == expected
    assert theirs.received == ours.received
    assert {method.attribute for method in VERIFIED} == {name for name, _ in ours.received} | {
        "ping"
    }
    texts = {each for each in expected if isinstance(each, str)}
    assert "remote error: not bootstrapped" in texts
    assert "remote error: node already exists" in texts
    assert len(texts) >= 8


@pytest.mark.parametrize("method", VERIFIED, ids=str)
async def test_every_request_with_every_field(peer: Path, method: Method[Message, Message]):
    """What the Go client was told is what our backend gets."""
    requests = [case.request for case in CASES if case.method is method]
    requests += [
        vectors.message_of(method.request, vector["fields"])
        for vector in vectors.load("messages")["messages"]
        if (vector["rpc"], vector["kind"]) == (method.attribute, "request")
    ]
    received: list[Message] = []

    async def handler(request: Message) -> Message:
        received.append(request)
        return method.response()

    async with (
        serving(Backend(**{method.attribute: handler})) as server,
        go_client(peer, server.address) as client,
    ):
        for request in requests:
            await client.call(method, request)
    assert received == requests


@pytest.mark.parametrize("method", VERIFIED, ids=str)
async def test_every_answer_with_every_field(peer: Path, method: Method[Message, Message]):
    """What our backend says is what the Go client has in its structs."""
    said = [case.answer(-1) for case in CASES if case.method is method]
    said += [
        vectors.message_of(method.response, vector["fields"])
        for vector in vectors.load("messages")["messages"]
        if (vector["rpc"], vector["kind"]) == (method.attribute, "response")
    ]
    waiting = list(said)

    async def handler(request: Message) -> Message:
        return waiting.pop(0)

    async with (
        serving(Backend(**{method.attribute: handler})) as server,
        go_client(peer, server.address) as client,
    ):
        assert [await client.call(method) for _ in said] == said


@pytest.mark.parametrize("text", ["node not found", UNICODE, "", "one\r\ntwo \x00", "ü" * 100_000])
async def test_an_error_text_comes_verbatim(peer: Path, text: str):
    async with (
        serving(Backend(pause_node=answers(RemoteError(text)))) as server,
        go_client(peer, server.address) as client,
    ):
        with pytest.raises(GoError) as caught:
            await client.call(Rpcs.pause_node)
        assert str(caught.value) == f"remote error: {text}"


@pytest.mark.parametrize(
    ("attribute", "text"),
    [
        ("status", "remote error: zapwire: unknown SubOp 0x04 for OpStart"),
        ("stop", "remote error: zapwire: unknown opcode 0x3f"),
    ],
)
async def test_what_a_backend_lacks(peer: Path, attribute: str, text: str):
    (method,) = (each for each in METHODS.values() if each.attribute == attribute)
    async with serving(Backend()) as server, go_client(peer, server.address) as client:
        with pytest.raises(GoError) as caught:
            await client.call(method)
        assert str(caught.value) == text


async def test_a_backend_that_fails_is_a_panic_to_the_client(peer: Path):
    async def failing(request: Message) -> Message:
        raise ZeroDivisionError("no such luck")

    backend = Backend(status=failing, ping=answers(m.PingResponse(7)))
    async with serving(backend) as server, go_client(peer, server.address) as client:
        with pytest.raises(GoError) as caught:
            await client.call(Rpcs.status)
        assert str(caught.value) == "remote error: handler panic: no such luck"
        assert await client.call(Rpcs.ping) == m.PingResponse(7)


# Many, and those who say nothing.


async def test_ten_clients_at_once_and_silent_ones_beside_them(peer: Path):
    """None of the silent ones is gone before the last call: the server lets them be that long."""
    limits = ServerLimits(handshake_timeout=3600.0)
    count, rounds = 10, 10
    async with (
        simulation(limits=limits) as (server, backend),
        tcp_client(server.address),
        tcp_client(server.address) as stalled,
        scripted_client(server.address, "another") as mute,
    ):
        begun = Initiator(identity_of("another")).initiate()
        await stalled.deliver(begun[: len(begun) // 2])
        await mute.deliver(b"\x00\x00")  # half of a record's length
        await eventually(lambda: server.connections == 3)
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(busy(peer, server, f"own-{number}", rounds))
        await eventually(lambda: server.connections == 3)
    received = [getattr(request, "name", "") for _, request in backend.received]
    for number in range(count):
        assert received.count(f"own-{number}") == 2 * rounds + 2


async def busy(peer: Path, server: NetrunnerServer, name: str, rounds: int) -> None:
    """A client with a node of its own, which must be in the state that this client left it in."""
    async with go_client(peer, server.address, server.identity.public) as client:
        await client.call(Rpcs.add_node, m.AddNodeRequest(name))
        for _ in range(rounds):
            for method, request, paused in (
                (Rpcs.pause_node, m.PauseNodeRequest(name), True),
                (Rpcs.resume_node, m.ResumeNodeRequest(name), False),
            ):
                answer = await client.call(method, request)
                assert answer.cluster_info.node_infos[name].paused is paused
                status = await client.call(Rpcs.status)
                assert status.cluster_info.node_infos[name].paused is paused
        removed = await client.call(Rpcs.remove_node, m.RemoveNodeRequest(name))
        assert name not in removed.cluster_info.node_infos
        assert await client.process.finish() == 0


# Whom they let in.


async def refused(process: GoProcess) -> str:
    """What a client says that could not connect."""
    await process.tell({"rpc": "Ping", "request": {}})
    assert await process.wait() == 1
    assert [line for line in process.lines if "rpc" in line] == []
    return one_line(process.stderr)


async def test_a_pinned_server(peer: Path):
    async with (
        simulation() as (server, _),
        go_client(peer, server.address, server.identity.public) as client,
    ):
        assert await client.call(Rpcs.rpc_version) == m.RPCVersionResponse(1)
        assert await client.process.finish() == 0


async def test_a_server_that_is_not_the_pinned_one_gets_no_call(peer: Path):
    async with simulation() as (server, backend):
        pin = bytes(identity_of("another").public).hex()
        arguments = ("-address", server.address, "-server", pin)
        async with go_process(peer, "client", *arguments) as process:
            assert "identity" in await refused(process)
        assert backend.received == []


async def test_a_client_on_the_allow_list_and_one_that_is_not(peer: Path):
    async with simulation() as (server, _), go_client(peer, server.address, seed="known") as known:
        allowed = known.identity
    async with simulation(clients=[allowed]) as (server, backend):
        async with go_client(peer, server.address, seed="known") as client:
            assert client.identity == allowed
            await client.call(Rpcs.status)
        arguments = ("-address", server.address, "-seed", "other")
        async with go_process(peer, "client", *arguments) as process:
            await refused(process)
        assert [name for name, _ in backend.received] == ["status"]


async def test_nobody_listens(peer: Path):
    async with go_process(peer, "client", "-address", f"127.0.0.1:{free_port()}") as process:
        assert "connection refused" in await refused(process)


async def test_a_server_that_goes_away(peer: Path):
    async with simulation() as (server, _), go_client(peer, server.address) as client:
        await client.call(Rpcs.rpc_version)
        await server.close()
        await client.process.tell({"rpc": "Ping", "request": {}})
        assert await client.process.wait() == 1
        one_line(client.process.stderr)


# Its command line.


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "nothing",
        "client",
        "load -address 127.0.0.1:1",
        "serve -no-such-flag",
        "serve -client 00",
    ],
)
async def test_wrong_usage(peer: Path, arguments: str):
    async with go_process(peer, *arguments.split()) as process:
        assert await process.wait() == 2
        assert process.lines == []
        assert process.stderr
