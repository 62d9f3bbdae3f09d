"""Plain reads take a short way through the gateway; nobody may be able to tell."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from gateway.routes.table import PLACES
from tests.integration.gateway_helpers import (
    Backend,
    answers,
    running_gateway,
    simulator,
)
from tests.integration.zap_helpers import (
    Peer,
    ScriptedServer,
    eventually,
    free_port,
    identity_of,
    serving,
)
from zapcore import NetrunnerServer, SimulatedNetrunner
from zapcore import messages as m
from zapcore.errors import RemoteError
from zapcore.methods import METHODS

READS = ["Ping", "RPCVersion", "Health", "URIs", "Status", "GetSnapshotNames"]
PATHS = [PLACES[name].path for name in READS]


async def same_both_ways(
    client: httpx.AsyncClient, path: str, headers: dict[str, str] | None = None
) -> httpx.Response:
    """The short way and, with a query that means nothing, FastAPI's: only the date may differ."""
    sent = {"x-request-id": "the-same", **(headers or {})}
    short = await client.get(path, headers=sent)
    long = await client.get(path, headers=sent, params={"x": "1"})

    def seen(response: httpx.Response) -> tuple[object, ...]:
        kept = [item for item in response.headers.multi_items() if item[0] != "date"]
        return response.status_code, response.reason_phrase, sorted(kept), response.content

    assert seen(short) == seen(long)
    return short


def test_these_are_all_the_plain_reads():
    """A read that is added must be added to the tests below."""
    assert {name for name, row in METHODS.items() if row.read_only and not row.streaming} - {
        "WaitForHealthy"
    } == set(READS)


async def test_the_short_way_is_really_taken():
    async with serving(SimulatedNetrunner()) as server, running_gateway(server) as running:
        passed_on: list[str] = []
        inner = running.gateway._api

        async def noting(scope: dict, receive: object, send: object) -> None:
            passed_on.append(scope["path"])
            await inner(scope, receive, send)

        running.gateway._api = noting
        for path in PATHS:
            assert (await running.client.get(path)).status_code == 200
        assert passed_on == []
        await running.client.get("/v1/status", params={"x": "1"})
        assert passed_on == ["/v1/status"]


@pytest.mark.parametrize("nodes", [5, 300], ids=["small", "too large to be kept"])
async def test_answers_are_the_same(nodes: int):
    async with (
        serving(SimulatedNetrunner(nodes, health_delay=0)) as server,
        running_gateway(server) as running,
    ):
        for path in PATHS:
            for _ in range(2):  # what is kept of the first must not make a difference
                assert (await same_both_ways(running.client, path)).status_code == 200


async def test_encoded_paths_are_the_same():
    async with serving(SimulatedNetrunner()) as server, running_gateway(server) as running:
        for target in (b"/v1/%73tatus", b"/v1/%73tatus?x=1"):
            response = await running.client.request("GET", "/", extensions={"target": target})
            assert response.status_code == 200
            assert "clusterInfo" in response.json()


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("not bootstrapped", 409),
        ("node already exists", 409),
        ("anything <b>else</b> ü", 502),
        ("x" * 5000, 502),
        ("zapwire: unknown SubOp 0x04 for OpStart", 501),
    ],
)
async def test_the_servers_errors_are_the_same(text: str, status: int):
    handlers = {METHODS[name].attribute: answers(RemoteError(text)) for name in READS[2:]}
    async with serving(Backend(**handlers)) as server, running_gateway(server) as running:
        for path in PATHS[2:]:
            assert (await same_both_ways(running.client, path)).status_code == status


async def test_answers_that_can_not_be_decoded_are_the_same():
    async def script(peer: Peer) -> None:
        while True:
            await peer.answer(await peer.message(), b"\x01")

    async with ScriptedServer(script) as server, running_gateway(server) as running:
        for path in PATHS:
            assert (await same_both_ways(running.client, path)).status_code == 502


async def test_silence_is_the_same():
    async def silent(request: object) -> None:
        await asyncio.Event().wait()

    async with (
        serving(Backend(status=silent)) as server,
        running_gateway(server, call_timeout="20ms") as running,
    ):
        assert (await same_both_ways(running.client, "/v1/status")).status_code == 504


async def test_absence_is_the_same():
    async with running_gateway(
        f"127.0.0.1:{free_port()}", ready=False, acquire_timeout="20ms"
    ) as running:
        await eventually(lambda: running.gateway.pool.last_failure)
        response = await same_both_ways(running.client, "/v1/status")
        assert response.status_code == 503
        assert "retry-after" in response.headers


async def test_a_stranger_is_the_same():
    async with (
        serving(SimulatedNetrunner()) as server,
        running_gateway(server, identity_of("somebody else").public, ready=False) as running,
    ):
        await eventually(lambda: running.gateway.pool.last_failure)
        assert (await same_both_ways(running.client, "/v1/status")).status_code == 502


async def test_refusals_are_the_same():
    async with serving(SimulatedNetrunner()) as server, running_gateway(server) as running:
        foreign = {"origin": "http://evil.example"}
        assert (await same_both_ways(running.client, "/v1/status", foreign)).status_code == 403


async def test_both_ways_are_counted_the_same():
    async with serving(SimulatedNetrunner()) as server, running_gateway(server) as running:
        await same_both_ways(running.client, "/v1/status")
        text = (await running.client.get("/metrics")).text
        labels = 'method="GET",route="/v1/status",status="200"'
        assert f"zap_gateway_http_requests_total{{{labels}}} 2.0" in text
        assert 'zap_gateway_zap_calls_total{outcome="ok",rpc="Status"} 2.0' in text


# Nothing is stale.


async def test_a_change_that_was_answered_shows_in_the_next_status():
    """200 changes, many at once, each followed by a look, against another process."""
    names = [f"node{number}" for number in range(1, 21)]

    async def alternate(client: httpx.AsyncClient, name: str) -> None:
        for paused in [True, False] * 5:
            change = "pause" if paused else "resume"
            response = await client.post(f"/v1/nodes/{name}/{change}")
            assert response.status_code == 200, response.text
            status = (await client.get("/v1/status")).json()
            assert status["clusterInfo"]["nodeInfos"][name]["paused"] is paused
            node = (await client.get(f"/v1/nodes/{name}")).json()
            assert node["paused"] is paused

    with simulator("--nodes", "20") as netrunner:
        async with running_gateway(netrunner, netrunner.fingerprint) as running:
            await asyncio.gather(*(alternate(running.client, name) for name in names))


async def test_two_servers_answers_never_mix():
    """What is kept of an answer goes by its bytes alone: also when the server is another one."""
    port = free_port()
    async with running_gateway(f"127.0.0.1:{port}", ready=False) as running:
        for pid in (1, 2, 1, 3):
            cluster = m.ClusterInfo(pid=pid)
            backend = Backend(status=answers(m.StatusResponse(cluster)))
            server = NetrunnerServer(backend, identity_of("server"))
            async with server.serving(port=port):
                await eventually(lambda: running.gateway.pool.connected_now)
                status = (await running.client.get("/v1/status")).json()
                assert status["clusterInfo"]["pid"] == pid
            await eventually(lambda: not running.gateway.pool.connected_now)
