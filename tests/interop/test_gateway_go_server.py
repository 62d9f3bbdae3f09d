"""The gateway in front of the Go server: REST in, the reference's wire out, exact JSON back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio

from gateway.names import NAME_LIMIT, NAME_PATTERN
from gateway.routes.table import PLACES
from tests.integration.gateway_helpers import (
    Running,
    events,
    is_problem,
    ndjson,
    running_gateway,
    sse,
)
from tests.integration.zap_helpers import eventually, free_port, identity_of, soon
from tests.interop.go_processes import GoServer, go_server
from tests.interop.script import (
    CASES,
    ERRORS,
    LARGEST_ID,
    LARGEST_REQUEST,
    PROVISIONAL,
    TOO_LARGE_REQUEST,
    VERIFIED,
    as_json,
    camel,
    cluster,
    node,
)
from zapcore import errors
from zapcore import messages as m
from zapcore.codec import Message
from zapcore.methods import Method, unknown_method_text

Http = tuple[str, str, Any]
"""Method, path and body (None for none)."""


@pytest_asyncio.fixture
async def server(peer: Path) -> AsyncIterator[GoServer]:
    async with go_server(peer) as running:
        yield running


@pytest_asyncio.fixture
async def running(server: GoServer) -> AsyncIterator[Running]:
    async with in_front_of(server) as gateway:
        yield gateway


@pytest_asyncio.fixture
async def client(running: Running) -> httpx.AsyncClient:
    return running.client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def refused(peer: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client for requests that are refused, so that all of them can share one server."""
    async with go_server(peer) as server, in_front_of(server) as gateway:
        yield gateway.client


@asynccontextmanager
async def in_front_of(server: GoServer, **settings: object) -> AsyncIterator[Running]:
    async with running_gateway(server.address, server.identity, **settings) as gateway:
        yield gateway


def http_of(method: Method[Message, Message], request: Message) -> Http:
    """The HTTP request that asks for this."""
    place = PLACES[method.name]
    in_path = {
        name: quote(getattr(request, field), safe="") for name, field in place.parameters.items()
    }
    body = as_json(request)
    for field in place.parameters.values():
        del body[camel(field)]
    body = {name: value for name, value in body.items() if value is not None}
    has_body = set(place.parameters.values()) != {field.name for field in fields(method.request)}
    return place.verb, place.path.format(**in_path), body if has_body else None


def fits_a_path(method: Method[Message, Message], request: Message) -> bool:
    """Whether the names that go into the path are names as the gateway takes them."""
    names = [getattr(request, field) for field in PLACES[method.name].parameters.values()]
    return all(re.match(NAME_PATTERN, name) and len(name) <= NAME_LIMIT for name in names)


async def ask(client: httpx.AsyncClient, http: Http) -> httpx.Response:
    verb, path, body = http
    return await client.request(verb, path, json=body)


IN_REST = [case for case in CASES if fits_a_path(case.method, case.request)]


def test_every_rpc_of_the_reference_is_asked_for():
    assert {case.method.name for case in IN_REST} == {method.name for method in VERIFIED}


@pytest.mark.parametrize("case", IN_REST, ids=str)
async def test_an_endpoint_with_the_exact_json(server, client, case):
    response = await ask(client, http_of(case.method, case.request))
    assert response.status_code == 200, response.text
    assert response.json() == as_json(case.answer(server.pid))
    if case.method.name != "Ping":
        assert await server.received() == [(case.method.name, case.request)]


async def test_the_status_in_full(server, client):
    """Written out, lest the tests' own way to JSON be wrong."""
    status = (await client.get("/v1/status")).json()
    infos = status["clusterInfo"].pop("nodeInfos")
    assert status == {
        "clusterInfo": {
            "nodeNames": ["node1", "node2", "node3", "node4", "node5"],
            "pid": server.pid,
            "rootDataDir": "/var/lib/netrunner",
            "healthy": True,
            "customChains": {
                "chain-1": {
                    "chainName": "C-Test",
                    "vmId": "vm-1",
                    "vmName": "subnetevm",
                    "chainId": "chain-1",
                    "subnetId": "subnet-1",
                    "genesis": "eyJ4Ijoiw7wifYA=",
                }
            },
            "subnets": ["subnet-1", "subnet-2"],
            "networkId": 1337,
        }
    }
    assert sorted(infos) == ["node1", "node2", "node3", "node4", "node5"]
    assert infos["node2"] == {
        "name": "node2",
        "execPath": "/opt/luxd/luxd",
        "uri": "http://127.0.0.1:9632",
        "id": "NodeID-node2",
        "logDir": "/var/lib/netrunner/node2/logs",
        "dbDir": "/var/lib/netrunner/node2/db",
        "config": "eyJub2RlIjoibm9kZTIifQD//g==",
        "pluginDir": "/opt/luxd/plugins",
        "whitelistedSubnets": "subnet-1,subnet-2",
        "paused": False,
    }


async def test_nodes_as_resources(server, client):
    infos = as_json(cluster(server.pid))["nodeInfos"]
    assert (await client.get("/v1/nodes")).json() == {"nodes": list(infos.values())}
    assert (await client.get("/v1/nodes/node3")).json() == infos["node3"]
    is_problem(await client.get("/v1/nodes/node9"), 404, "not_found", "Status")


async def test_a_cluster_that_was_stopped(server, client):
    stopped = await client.delete("/v1/cluster")
    assert stopped.json() == {"clusterInfo": as_json(cluster(server.pid))}
    for path in ("/v1/status", "/v1/health", "/v1/health/wait"):
        assert (await client.get(path)).json() == {"clusterInfo": None}
    assert (await client.get("/v1/uris")).json() == {"uris": []}
    assert (await client.get("/v1/nodes")).json() == {"nodes": []}
    refused = await client.post("/v1/nodes", json={"name": "node6"})
    problem = is_problem(refused, 409, "not_bootstrapped", "AddNode")
    assert problem["detail"] == "not bootstrapped"


# Errors.

PROBLEMS = {
    errors.NotFound: (404, "not_found"),
    errors.AlreadyExists: (409, "already_exists"),
    errors.RemoteError: (502, "upstream_error"),
}
IN_REST_ERRORS = {
    title: (method, request, text)
    for title, (method, request, text) in ERRORS.items()
    if fits_a_path(method, request) and text
}


@pytest.mark.parametrize(
    ("method", "request_", "text"), IN_REST_ERRORS.values(), ids=IN_REST_ERRORS
)
@pytest.mark.asyncio(loop_scope="module")
async def test_an_error_text_comes_as_a_problem(refused, method, request_, text):
    status, code = PROBLEMS[type(errors.remote_error(text))]
    response = await ask(refused, http_of(method, request_))
    assert is_problem(response, status, code, method.name)["detail"] == text
    assert (await refused.get("/v1/version")).json() == {"version": 1}


def test_every_problem_has_an_error_text():
    texts = [text for _, _, text in IN_REST_ERRORS.values()]
    assert {type(errors.remote_error(text)) for text in texts} == set(PROBLEMS)


LEAST = {
    "Start": m.StartRequest(),
    "CreateBlockchains": m.CreateBlockchainsRequest([m.BlockchainSpec("evm")]),
    "CreateChains": m.CreateChainsRequest([m.ChainSpec()]),
    "TransformElasticChains": m.TransformElasticChainsRequest([m.ElasticChainSpec("chain-1")]),
    "AddPermissionlessValidator": m.AddPermissionlessValidatorRequest(
        [m.PermissionlessValidatorSpec("chain-1", "node1")]
    ),
    "RemoveChainValidator": m.RemoveChainValidatorRequest(
        [m.RemoveChainValidatorSpec("chain-1", ["node1"])]
    ),
    "SaveSnapshot": m.SaveSnapshotRequest("mine"),
    "SaveHotSnapshot": m.SaveHotSnapshotRequest("mine"),
    "LoadSnapshot": m.LoadSnapshotRequest("mine"),
    "RemoveSnapshot": m.RemoveSnapshotRequest("mine"),
    "GetSnapshotNames": m.GetSnapshotNamesRequest(),
}
"""Requests that the gateway lets through."""

CALLS = [method for method in PROVISIONAL if not method.streaming]


@pytest.mark.parametrize("method", CALLS, ids=str)
@pytest.mark.asyncio(loop_scope="module")
async def test_an_endpoint_whose_rpc_the_server_lacks(refused, method):
    response = await ask(refused, http_of(method, LEAST[method.name]))
    problem = is_problem(response, 501, "unsupported_by_server", method.name)
    assert problem["detail"] == unknown_method_text(method.opcode, method.sub_opcode)


async def test_a_deadline_that_passes(server, client):
    response = await client.post("/v1/nodes/sleep:600000:never/peers?timeout=50ms")
    is_problem(response, 504, "deadline_exceeded", "AttachPeer")
    assert (await client.get("/v1/status")).json()["clusterInfo"]["pid"] == server.pid


# Sizes.


async def test_the_largest_message_and_one_byte_more(server):
    path = "/v1/nodes/node1/peers/p/messages"
    async with in_front_of(server, max_body=2**26) as gateway:
        fits = {"op": 1, "bytes": as_json(LARGEST_REQUEST.bytes)}
        assert (await gateway.client.post(path, json=fits)).json() == {"sent": True}
        beyond = {"op": 1, "bytes": as_json(TOO_LARGE_REQUEST.bytes)}
        response = await gateway.client.post(path, json=beyond)
        is_problem(response, 413, "body_too_large", "SendOutboundMessage")
        assert (await gateway.client.get("/v1/version")).json() == {"version": 1}
        sent, (name, _) = await server.received()
        assert sent == ("SendOutboundMessage", LARGEST_REQUEST)
        assert name == "RPCVersion", "and nothing in between"


async def test_the_largest_answer(client):
    response = await client.post(f"/v1/nodes/size:{LARGEST_ID}/peers")
    assert response.json() == {"clusterInfo": None, "attachedPeerInfo": {"id": "a" * LARGEST_ID}}


# Streams.


async def test_the_status_stream_falls_back_to_polling(server, client):
    async with sse(client, interval="100ms", changes="true") as reader:
        first = await reader.next()
        assert first.type == "status"
        assert first.data == {"clusterInfo": as_json(cluster(server.pid))}
        await client.post("/v1/nodes/node2/pause")
        paused = replace(node("node2", 2), paused=True)
        second = await reader.next()
        assert second.type == "status"
        assert second.data == {"clusterInfo": as_json(cluster(server.pid, node2=paused))}
    rpcs = await server.received_rpcs()
    assert rpcs.count("Status") >= 2
    assert rpcs.count("PauseNode") == 1


async def test_the_stream_as_ndjson_polls_at_its_interval(server, client):
    async with ndjson(client, "/v1/status/stream", interval="100ms") as states:
        for _ in range(3):
            assert await soon(anext(states)) == {"clusterInfo": as_json(cluster(server.pid))}
    rpcs = await server.received_rpcs()
    assert set(rpcs) == {"Status"}
    assert len(rpcs) >= 3


async def test_events_of_a_server_that_is_polled(server, client):
    async with events(client, interval="100ms", status="true") as reader:
        await reader.until(lambda event: event.type == "status")
        await client.post("/v1/nodes/node4/pause")
        event = await reader.until(lambda event: event.type == "node.paused")
        assert event.data["node"] == "node4"
        assert event.data["before"] == as_json(node("node4", 4))
        assert event.data["after"] == as_json(replace(node("node4", 4), paused=True))


async def test_a_stream_goes_on_with_another_process(peer):
    port = free_port()
    async with (
        go_server(peer, port=port, seed="kept") as first,
        in_front_of(first) as gateway,
        events(gateway.client, interval="100ms", status="true") as reader,
    ):
        await reader.until(lambda event: event.type == "status")
        await first.process.kill()
        await reader.until(lambda event: event.type == "upstream.lost")
        async with go_server(peer, port=port, seed="kept") as second:
            restarted = await reader.until(lambda event: event.type == "server.restarted")
            assert restarted.data["before"] == {"pid": first.pid}
            assert restarted.data["after"] == {"pid": second.pid}
            status = await reader.until(lambda event: event.type == "status")
            assert status.data == {"clusterInfo": as_json(cluster(second.pid))}


# Whom it talks to, and when that one is away.


async def test_a_server_that_is_not_the_pinned_one(server):
    pin = identity_of("another").public
    async with running_gateway(server.address, pin, ready=False) as gateway:
        response = await gateway.client.get("/v1/status")
        problem = is_problem(response, 502, "upstream_identity_mismatch", "Status")
        assert server.identity.fingerprint in problem["detail"]
        is_problem(await gateway.client.get("/readyz"), 503, "upstream_unavailable")
    assert await server.received() == []


async def test_a_server_that_lets_in_this_gateway_alone(peer):
    allowed = identity_of("gateway").public
    async with go_server(peer, client=allowed) as server, in_front_of(server) as gateway:
        assert (await gateway.client.get("/v1/version")).json() == {"version": 1}


async def test_a_server_that_does_not_let_in_this_gateway(peer):
    async with go_server(peer, client=identity_of("another").public) as server:
        async with in_front_of(server, ready=False, acquire_timeout="50ms") as gateway:
            response = await gateway.client.get("/v1/status")
            assert response.status_code in (502, 503)
            assert "may not accept this client's identity" in response.json()["detail"]
        assert await server.received() == []


async def test_a_restart_is_seen_and_recovered_from(peer):
    port = free_port()
    async with go_server(peer, port=port, seed="kept") as first, in_front_of(first) as gateway:
        client = gateway.client
        assert (await client.get("/readyz")).status_code == 200
        await first.process.kill()
        await eventually(lambda: not gateway.gateway.pool.connected_now)
        is_problem(await client.get("/readyz"), 503, "upstream_unavailable")
        assert (await client.get("/healthz")).status_code == 200
        async with go_server(peer, port=port, seed="kept") as second:
            await eventually(lambda: gateway.gateway.pool.connected_now)
            assert (await client.get("/readyz")).status_code == 200
            assert (await client.get("/v1/ping")).json() == {"pid": second.pid}
            status = (await client.get("/v1/status")).json()
            assert status == {"clusterInfo": as_json(cluster(second.pid))}


async def test_a_change_under_way_when_the_server_dies(server, client):
    async def die() -> None:
        await eventually(lambda: server.rpcs == ["AttachPeer"])
        await server.process.kill()

    async with asyncio.TaskGroup() as group:
        asked = group.create_task(client.post("/v1/nodes/sleep:600000:never/peers"))
        group.create_task(die())
    is_problem(asked.result(), 502, "outcome_unknown", "AttachPeer")
