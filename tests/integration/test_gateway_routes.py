"""Every route of the REST table, against a simulated netrunner in another process."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio

from gateway.routes.table import PLACES
from tests.integration.gateway_helpers import (
    Running,
    Simulator,
    client_for,
    is_problem,
    operation_of,
    operations,
    running_gateway,
    simulator,
)
from zapcore.methods import METHODS

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def netrunner() -> Iterator[Simulator]:
    """One process for all tests of this file; each starts a cluster of its own."""
    with simulator("--health-delay", "0.05") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(netrunner: Simulator) -> AsyncIterator[Running]:
    async with running_gateway(netrunner, netrunner.fingerprint) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def running(gateway: Running) -> Running:
    """A gateway whose netrunner has no cluster."""
    await gateway.client.delete("/v1/cluster")
    return gateway


@pytest_asyncio.fixture(loop_scope="module")
async def client(running: Running) -> httpx.AsyncClient:
    """A client of a gateway whose netrunner has just started five nodes."""
    response = await running.client.post("/v1/cluster")
    assert response.status_code == 200
    return running.client


async def ok(response: httpx.Response) -> dict[str, object]:
    """An answer's JSON."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


async def cluster_of(client: httpx.AsyncClient) -> dict:
    return (await ok(await client.get("/v1/status")))["clusterInfo"]


NODES = ["node1", "node2", "node3", "node4", "node5"]


async def test_ping_tells_the_servers_process(client: httpx.AsyncClient, netrunner: Simulator):
    assert await ok(await client.get("/v1/ping")) == {"pid": netrunner.pid}


async def test_version(client: httpx.AsyncClient):
    assert await ok(await client.get("/v1/version")) == {"version": 1}


async def test_status_has_every_field_in_camel_case(
    client: httpx.AsyncClient, netrunner: Simulator
):
    cluster = await cluster_of(client)
    assert set(cluster) == {
        "nodeNames",
        "nodeInfos",
        "pid",
        "rootDataDir",
        "healthy",
        "customChains",
        "subnets",
        "networkId",
    }
    assert cluster["nodeNames"] == NODES
    assert cluster["pid"] == netrunner.pid
    assert cluster["networkId"] == 1337
    assert cluster["customChains"] == {}
    assert set(cluster["nodeInfos"]["node1"]) == {
        "name",
        "execPath",
        "uri",
        "id",
        "logDir",
        "dbDir",
        "config",
        "pluginDir",
        "whitelistedSubnets",
        "paused",
    }


async def test_health_and_wait(client: httpx.AsyncClient):
    assert set(await ok(await client.get("/v1/health"))) == {"clusterInfo"}
    waited = await ok(await client.get("/v1/health/wait", params={"timeout": "10s"}))
    assert waited["clusterInfo"]["healthy"] is True
    assert (await ok(await client.get("/v1/health")))["clusterInfo"]["healthy"] is True


async def test_uris_are_those_of_the_nodes(client: httpx.AsyncClient):
    nodes = (await cluster_of(client))["nodeInfos"].values()
    uris = (await ok(await client.get("/v1/uris")))["uris"]
    assert uris == sorted(node["uri"] for node in nodes)


async def test_start_takes_its_whole_request(running: Running):
    answer = await ok(
        await running.client.post(
            "/v1/cluster",
            json={
                "execPath": "/opt/luxd",
                "numNodes": 2,
                "whitelistedChains": "c1,c2",
                "globalNodeConfig": '{"log-level":"debug"}',
                "rootDataDir": "/data",
                "pluginDir": "/plugins",
                "blockchainSpecs": [{"vmName": "evm", "genesis": "{}", "blockchainAlias": "mine"}],
                "chainConfigs": {"C": "{}"},
                "upgradeConfigs": {},
                "reassignPortsIfUsed": True,
                "dynamicPorts": None,
                "chainConfigFiles": {},
            },
        )
    )
    cluster = answer["clusterInfo"]
    node = cluster["nodeInfos"]["node2"]
    assert cluster["nodeNames"] == ["node1", "node2"]
    assert cluster["rootDataDir"].startswith("/data/")
    assert node["execPath"] == "/opt/luxd"
    assert node["pluginDir"] == "/plugins"
    assert node["whitelistedSubnets"] == "c1,c2"
    assert base64.b64decode(node["config"]) == b'{"log-level":"debug"}'
    (chain_id,) = answer["chainIds"]
    assert cluster["customChains"][chain_id]["chainName"] == "mine"


async def test_custom_node_configs_name_the_nodes(running: Running):
    configs = {"alpha": '{"a":1}', "beta": '{"b":2}'}
    answer = await ok(
        await running.client.post("/v1/cluster", json={"custom_node_configs": configs})
    )
    infos = answer["clusterInfo"]["nodeInfos"]
    assert {name: base64.b64decode(infos[name]["config"]).decode() for name in infos} == configs


async def test_stop_ends_the_cluster(client: httpx.AsyncClient):
    answer = await ok(await client.delete("/v1/cluster"))
    assert answer["clusterInfo"]["nodeNames"] == NODES
    is_problem(await client.get("/v1/status"), 409, "not_bootstrapped", "Status")


async def test_add_and_remove_a_node(client: httpx.AsyncClient):
    added = await ok(
        await client.post(
            "/v1/nodes", json={"name": "node6", "nodeConfig": "{}", "execPath": "/opt/other"}
        )
    )
    node = added["clusterInfo"]["nodeInfos"]["node6"]
    assert node["execPath"] == "/opt/other"
    assert base64.b64decode(node["config"]) == b"{}"
    assert (await cluster_of(client))["nodeNames"] == [*NODES, "node6"]
    removed = await ok(await client.delete("/v1/nodes/node6"))
    assert removed["clusterInfo"]["nodeNames"] == NODES
    assert (await cluster_of(client))["nodeNames"] == NODES


async def test_pause_and_resume_a_node(client: httpx.AsyncClient):
    async def paused() -> list[str]:
        infos = (await cluster_of(client))["nodeInfos"]
        return [name for name in infos if infos[name]["paused"]]

    await ok(await client.post("/v1/nodes/node3/pause"))
    assert await paused() == ["node3"]
    await ok(await client.post("/v1/nodes/node3/resume"))
    assert await paused() == []


async def test_restart_a_node_with_and_without_a_body(client: httpx.AsyncClient):
    plain = await ok(await client.post("/v1/nodes/node1/restart"))
    before = plain["clusterInfo"]["nodeInfos"]["node1"]
    changed = await ok(
        await client.post(
            "/v1/nodes/node1/restart", json={"execPath": "/opt/new", "whitelistedChains": "x"}
        )
    )
    after = changed["clusterInfo"]["nodeInfos"]["node1"]
    assert (before["execPath"], after["execPath"]) == ("/usr/local/bin/luxd", "/opt/new")
    assert after["whitelistedSubnets"] == "x"
    kept = await ok(await client.post("/v1/nodes/node1/restart", json={}))
    assert kept["clusterInfo"]["nodeInfos"]["node1"] == after


async def test_nodes_as_resources(client: httpx.AsyncClient):
    infos = (await cluster_of(client))["nodeInfos"]
    assert await ok(await client.get("/v1/nodes")) == {"nodes": [infos[name] for name in NODES]}
    assert await ok(await client.get("/v1/nodes/node4")) == infos["node4"]
    is_problem(await client.get("/v1/nodes/node9"), 404, "not_found", "Status")


async def test_attach_a_peer_and_send_its_message(client: httpx.AsyncClient):
    attached = await ok(await client.post("/v1/nodes/node1/peers"))
    peer = attached["attachedPeerInfo"]["id"]
    path = f"/v1/nodes/node1/peers/{peer}/messages"
    sent = await client.post(path, json={"op": 7, "bytes": "aGVsbG8="})
    assert await ok(sent) == {"sent": True}
    elsewhere = await client.post(path.replace("node1", "node2"), json={"op": 7, "bytes": ""})
    is_problem(elsewhere, 404, "not_found", "SendOutboundMessage")


async def test_blockchains_are_created_in_order(client: httpx.AsyncClient):
    genesis = '{"chainId": 96369}'
    specs = [
        {"vmName": "evm", "genesis": genesis, "blockchainAlias": "one"},
        {"vm_name": "other", "chain_spec": {"participants": ["node1"]}},
    ]
    answer = await ok(await client.post("/v1/blockchains", json={"blockchainSpecs": specs}))
    chains = (await cluster_of(client))["customChains"]
    one, two = (chains[chain_id] for chain_id in answer["chainIds"])
    assert (one["chainName"], one["vmName"]) == ("one", "evm")
    assert two["vmName"] == "other"
    assert base64.b64decode(one["genesis"]).decode() == genesis
    assert {one["subnetId"], two["subnetId"]} == set((await cluster_of(client))["subnets"])


async def test_a_validator_set_from_its_making_to_its_last_validator(client: httpx.AsyncClient):
    made = await ok(
        await client.post("/v1/chains", json={"chainSpecs": [{"participants": ["node1"]}]})
    )
    (chain_id,) = made["chainIds"]
    assert chain_id in made["clusterInfo"]["subnets"]

    spec = {"elasticChainSpec": [{"chainId": chain_id, "maxSupply": str(2**64 - 1)}]}
    elastic = await ok(await client.post("/v1/chains/elastic", json=spec))
    assert len(elastic["txIds"]) == len(elastic["assetIds"]) == 1
    again = await client.post("/v1/chains/elastic", json=spec)
    is_problem(again, 409, "already_exists", "TransformElasticChains")

    validator = {"chainId": chain_id, "nodeName": "node2", "stakedTokenAmount": 2000}
    await ok(await client.post("/v1/validators", json={"validatorSpec": [validator]}))
    removal = {"validatorSpec": [{"chainId": chain_id, "nodeNames": ["node1", "node2"]}]}
    await ok(await client.post("/v1/validators/remove", json=removal))
    twice = await client.post("/v1/validators/remove", json=removal)
    is_problem(twice, 502, "upstream_error", "RemoveChainValidator")


async def test_a_hot_snapshot_leaves_the_cluster_running_and_a_plain_one_stops_it(
    client: httpx.AsyncClient,
):
    await ok(await client.post("/v1/nodes", json={"name": "kept"}))
    hot = await ok(await client.post("/v1/snapshots/hot", json={"snapshotName": "s-hot"}))
    assert hot["snapshotPath"].endswith("s-hot")
    await ok(await client.post("/v1/snapshots", json={"snapshotName": "s-cold"}))
    is_problem(await client.get("/v1/snapshots"), 409, "not_bootstrapped", "GetSnapshotNames")

    loaded = await ok(await client.post("/v1/snapshots/s-cold/load", json={"execPath": "/new"}))
    assert loaded["clusterInfo"]["nodeInfos"]["kept"]["execPath"] == "/new"
    names = (await ok(await client.get("/v1/snapshots")))["snapshotNames"]
    assert {"s-hot", "s-cold"} <= set(names)
    for name in ("s-hot", "s-cold"):
        assert await ok(await client.delete(f"/v1/snapshots/{name}")) == {}
    missing = await client.delete("/v1/snapshots/s-hot")
    is_problem(missing, 404, "not_found", "RemoveSnapshot")


async def test_operations(running: Running):
    assert await ok(await running.client.get("/healthz")) == {"status": "ok"}
    ready = await ok(await running.client.get("/readyz"))
    assert ready["status"] == "ready"
    assert ready["upstream"] == running.gateway.pool.address
    assert 1 <= ready["connections"] <= 2


async def test_metrics_count_requests_and_calls(running: Running, netrunner: Simulator):
    async with running_gateway(netrunner, netrunner.fingerprint) as fresh:
        await fresh.client.get("/v1/ping")
        await fresh.client.get("/v1/status")
        response = await fresh.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = response.text.splitlines()
    assert 'zap_gateway_zap_calls_total{outcome="ok",rpc="Ping"} 1.0' in lines
    assert 'zap_gateway_zap_calls_total{outcome="not_bootstrapped",rpc="Status"} 1.0' in lines
    refused = 'zap_gateway_http_requests_total{method="GET",route="/v1/status",status="409"} 1.0'
    assert refused in lines
    standing = 'zap_gateway_upstream_connections{state="connected"} '
    (connections,) = (line for line in lines if line.startswith(standing))
    assert float(connections.removeprefix(standing)) >= 1


async def test_documents_are_served(running: Running):
    served = await running.client.get("/openapi.json")
    assert {
        (verb.upper(), path) for path, verbs in served.json()["paths"].items() for verb in verbs
    }
    page = await running.client.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")


async def test_every_documented_route_answers_200_as_documented(running: Running):
    """One walk through the whole table; the client's hook holds each answer against its schema."""
    walked = set()

    async def note(response: httpx.Response) -> None:
        assert response.status_code == 200, (response.request.url, await response.aread())
        walked.add(operation_of(response.request))

    async with client_for(running.url) as client:
        client.event_hooks = {"response": [*client.event_hooks["response"], note]}
        await walk(client)
    assert walked == set(operations())


async def walk(client: httpx.AsyncClient) -> None:
    """Every route once, each where it succeeds."""
    await client.post("/v1/cluster", json={"numNodes": 3})
    for path in ("/healthz", "/readyz", "/metrics", "/v1/ping", "/v1/version", "/v1/uris"):
        await client.get(path)
    for path in ("/v1/health", "/v1/health/wait?timeout=30s", "/v1/status", "/v1/snapshots"):
        await client.get(path)
    for path in ("/v1/status/stream", "/v1/events/stream"):
        async with client.stream("GET", path):
            pass
    await client.post("/v1/stream-tickets")
    await client.post("/v1/nodes", json={"name": "extra"})
    await client.get("/v1/nodes")
    await client.get("/v1/nodes/extra")
    for action in ("pause", "resume", "restart"):
        await client.post(f"/v1/nodes/extra/{action}")
    peer = (await client.post("/v1/nodes/extra/peers")).json()["attachedPeerInfo"]["id"]
    await client.post(f"/v1/nodes/extra/peers/{peer}/messages", json={"op": 1, "bytes": "AA=="})
    await client.post("/v1/blockchains", json={"blockchainSpecs": [{"vmName": "evm"}]})
    made = await client.post("/v1/chains", json={"chainSpecs": [{"participants": ["node1"]}]})
    chain = {"chainId": made.json()["chainIds"][0]}
    await client.post("/v1/chains/elastic", json={"elasticChainSpec": [chain]})
    validators = {"validatorSpec": [{**chain, "nodeName": "extra"}]}
    await client.post("/v1/validators", json=validators)
    removals = {"validatorSpec": [{**chain, "nodeNames": ["extra"]}]}
    await client.post("/v1/validators/remove", json=removals)
    await client.delete("/v1/nodes/extra")
    await client.post("/v1/snapshots/hot", json={"snapshotName": "walk-hot"})
    await client.post("/v1/snapshots", json={"snapshotName": "walk"})
    await client.post("/v1/snapshots/walk/load")
    await client.delete("/v1/snapshots/walk")
    await client.delete("/v1/snapshots/walk-hot")
    await client.delete("/v1/cluster")


async def test_the_table_has_every_rpc_and_no_two_at_one_place():
    assert set(PLACES) == set(METHODS)
    places = [(place.verb, place.path) for place in PLACES.values()]
    assert len(set(places)) == len(places)
    assert set(places) <= set(operations())


async def test_every_answer_says_that_it_must_not_be_kept_or_sniffed(running: Running):
    for path in ("/v1/ping", "/v1/ping?x=1", "/nowhere", "/docs", "/healthz", "/metrics"):
        headers = (await running.client.get(path)).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


async def test_answers_are_plain_utf_8_json(client: httpx.AsyncClient):
    """Characters stand for themselves, as the netrunner's own JSON has them."""
    name = "nœud-节点-🚀"
    await ok(await client.post("/v1/nodes", json={"name": name}))
    body = (await client.get("/v1/status")).content
    assert name.encode() in body
    assert json.loads(body)["clusterInfo"]["nodeInfos"][name]["name"] == name
