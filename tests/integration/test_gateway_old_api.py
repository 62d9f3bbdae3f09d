"""netrunner's old HTTP API: its manners, beside what tests/commands shows with curl."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.auth import new_token, token_line
from gateway.routes.control_table import OLD_ROUTES
from gateway.routes.table import place_of
from tests.integration.gateway_helpers import (
    Backend,
    Running,
    Stage,
    Watched,
    answers,
    is_problem,
    running_gateway,
)
from tests.integration.zap_helpers import (
    HANG,
    Peer,
    ScriptedServer,
    eventually,
    free_port,
    pong,
    serving,
    soon,
    told,
)
from zapcore import SimulatedNetrunner
from zapcore import messages as m
from zapcore.errors import NotBootstrapped, RemoteError
from zapcore.methods import METHODS

CONTROL = "/v1/control/"
STREAM = CONTROL + "streamstatus"
FORM = {"content-type": "application/x-www-form-urlencoded"}


def is_status(response: httpx.Response, status: int, code: int) -> str:
    """Check what failures have in common; gives the message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert document == {"code": code, "message": document["message"], "details": []}
    return str(document["message"])


@asynccontextmanager
async def in_front_of(
    backend: object, **settings: object
) -> AsyncIterator[tuple[Running, Watched]]:
    """A gateway, and what its backend sees."""
    watched = Watched(backend)
    given = {"drain_timeout": 0.1, **settings}
    async with serving(watched) as server, running_gateway(server, **given) as running:
        yield running, watched


# Calls.


def test_every_rpc_has_an_address():
    assert {route.method.name for route in OLD_ROUTES} == set(METHODS)


UNARY = [route for route in OLD_ROUTES if not route.method.streaming]


def whole_backend() -> Backend:
    """A backend that answers every call with nothing but defaults."""
    return Backend(**{each.method.attribute: answers(each.method.response()) for each in UNARY})


async def test_an_address_calls_its_rpc_with_nothing_and_tells_the_whole_answer():
    async with in_front_of(whole_backend()) as (running, watched):
        for route in UNARY:
            method, place = route.method, place_of(route.method)
            watched.received.clear()
            response = await running.client.post(route.path, content=b"", headers=FORM)
            assert response.status_code == 200, (route.path, response.text)
            assert response.headers["content-type"] == "application/json"
            if method.name != "Ping":
                assert watched.received == [(method.attribute, method.request())]
            told_more = {older: response.json()[name] for name, older in route.also.items()}
            path = place.path.replace("{name}", "a").replace("{peerId}", "p")
            other = await running.client.request(place.verb, path, json=NEEDED.get(method.name))
            assert other.status_code == 200, other.text
            assert response.json() == other.json() | told_more


NEEDED = {
    "AddNode": {"name": "a"},
    "SaveSnapshot": {"snapshotName": "a"},
    "SaveHotSnapshot": {"snapshotName": "a"},
    "CreateBlockchains": {"blockchainSpecs": [{"vmName": "v"}]},
    "CreateChains": {"chainSpecs": [{}]},
    "TransformElasticChains": {"elasticChainSpec": [{"chainId": "c"}]},
    "AddPermissionlessValidator": {"validatorSpec": [{"chainId": "c", "nodeName": "a"}]},
    "RemoveChainValidator": {"validatorSpec": [{"chainId": "c", "nodeNames": ["a"]}]},
}
"""What the new routes insist on."""


async def test_whatever_text_a_server_answers_with_comes_as_it_is():
    texts = ["node not found", "not bootstrapped", "node already exists", "disk full", "é\n😀", ""]

    async def pause(request: m.PauseNodeRequest) -> Any:
        raise RemoteError(texts[int(request.name)])

    async with in_front_of(Backend(pause_node=pause)) as (running, _):
        for number, text in enumerate(texts):
            response = await running.client.post(CONTROL + "pausenode", json={"name": str(number)})
            assert is_status(response, 500, 2) == text


async def test_an_rpc_that_the_server_lacks():
    async with in_front_of(Backend(status=answers(m.StatusResponse()))) as (running, _):
        response = await running.client.post(CONTROL + "start")
    assert "unknown SubOp" in is_status(response, 501, 12)


async def test_a_deadline_of_a_read_and_of_a_change():
    async def never(request: Any) -> Any:
        await asyncio.Event().wait()

    async with in_front_of(Backend(status=never, stop=never)) as (running, watched):
        for name in ("status", "stop"):
            response = await running.client.post(CONTROL + name, headers={"grpc-timeout": "50m"})
            assert "0.05 s" in is_status(response, 504, 4)
        assert watched.counts == {"status": 1, "stop": 1}


async def test_deadlines_far_away_and_none_at_all():
    async with in_front_of(Stage(m.ClusterInfo())) as (running, _):
        for given in ("0S", "1H", "99999999H", "123456789S", "30S", "60000m", ""):
            headers = {"grpc-timeout": given}
            response = await running.client.post(CONTROL + "status", headers=headers)
            assert response.status_code == 200, given


async def test_a_deadline_in_another_form_is_refused_and_nothing_called():
    async with in_front_of(Stage(m.ClusterInfo())) as (running, watched):
        for given in ("5", "S", "1x", "-1S", "1.5S", "1234567890123456789S", "1S, 2S"):
            headers = {"grpc-timeout": given}
            response = await running.client.post(CONTROL + "status", headers=headers)
            assert is_status(response, 400, 3) == f"invalid grpc-timeout: {given}"
        assert not watched.received


async def test_a_lost_connection_under_a_change_is_no_code_that_clients_repeat():
    async def play(peer: Peer) -> None:
        while True:
            request = await peer.message()
            if request.opcode != 60:
                await peer.close()
                return
            await peer.send(pong(request))

    async with ScriptedServer(play) as server, running_gateway(server) as running:
        response = await running.client.post(CONTROL + "stop")
        assert "Stop" in is_status(response, 500, 2)


async def test_a_server_that_is_away():
    address = f"127.0.0.1:{free_port()}"
    async with running_gateway(address, ready=False, acquire_timeout=0.2) as running:
        response = await running.client.post(CONTROL + "status")
        is_status(response, 503, 14)
        assert int(response.headers["retry-after"]) >= 1


# What is no call.


async def test_unknown_addresses():
    async with in_front_of(Stage()) as (running, _):
        is_status(await running.client.post(CONTROL.rstrip("/")), 404, 5)
        for verb in ("GET", "POST", "DELETE"):
            for path in ("nosuch", "", "status/", "Status", "start/x"):
                response = await running.client.request(verb, CONTROL + path)
                assert is_status(response, 404, 5) == "Not Found"


async def test_another_method_than_post():
    async with in_front_of(Stage()) as (running, watched):
        for verb in ("GET", "PUT", "DELETE"):
            response = await running.client.request(verb, CONTROL + "stop")
            assert is_status(response, 501, 12) == "Method Not Allowed"
            assert response.headers["allow"] == "POST"
        assert not watched.received


async def test_ping_is_the_old_one_for_post_alone():
    async with in_front_of(Stage(pid=7)) as (running, _):
        assert (await running.client.post("/v1/ping", content=b"x")).json()["code"] == 3
        assert (await running.client.post("/v1/ping")).json() == {"pid": 7}
        assert (await running.client.get("/v1/ping")).json() == {"pid": 7}
        is_problem(await running.client.put("/v1/ping"), 405, "method_not_allowed")


async def test_a_body_that_is_too_large_is_refused():
    async with in_front_of(Stage(), max_body=1024) as (running, watched):
        response = await running.client.post(CONTROL + "addnode", content=b" " * 1025)
        assert "1025 bytes" in is_status(response, 400, 3)

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b" " * 100

        is_status(await running.client.post(CONTROL + "addnode", content=chunks()), 400, 3)
        assert not watched.received


async def test_without_it_nothing_of_it_is_there():
    async with in_front_of(Stage(m.ClusterInfo(), pid=7), old_api=False) as (running, watched):
        async with httpx.AsyncClient(base_url=running.url, trust_env=False) as client:
            for path in (CONTROL + "status", STREAM, CONTROL + "nosuch"):
                is_problem(await client.post(path), 404, "not_found")
            is_problem(await client.post("/v1/ping"), 405, "method_not_allowed")
        assert not watched.received


# Who may ask.

SECRETS = {scope: new_token() for scope in ("read", "operate")}
TOKENS = ";".join(token_line(scope, scope, secret) for scope, secret in SECRETS.items())


async def test_a_token_that_may_read_may_post_to_what_only_reads():
    async with in_front_of(whole_backend(), token=TOKENS) as (running, watched):
        for route in UNARY:
            refused = await running.client.post(route.path)
            is_status(refused, 401, 16)
            assert refused.headers["www-authenticate"].startswith("Bearer")
            reads = await running.client.post(route.path, headers=as_("read"))
            if route.method.read_only:
                assert reads.status_code == 200
            else:
                assert "scope operate" in is_status(reads, 403, 7)
        changed = {route.method.attribute for route in UNARY if not route.method.read_only}
        assert not changed & set(watched.counts)
        for route in UNARY:
            operates = await running.client.post(route.path, headers=as_("operate"))
            assert operates.status_code == 200


def as_(scope: str) -> dict[str, str]:
    """The headers of who has a token with that scope."""
    return {"authorization": f"Bearer {SECRETS[scope]}"}


async def test_a_ticket_opens_no_stream_here():
    async with in_front_of(Stage(m.ClusterInfo()), token=TOKENS) as (running, watched):
        made = await running.client.post("/v1/stream-tickets", headers=as_("operate"))
        is_status(await running.client.post(f"{STREAM}?ticket={made.json()['ticket']}"), 401, 16)
        assert not watched.received


async def test_a_form_of_another_site_is_refused():
    async with in_front_of(Stage(m.ClusterInfo())) as (running, watched):
        for headers in (
            {"origin": "http://evil.example"},
            {"origin": "null"},
            {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
            {"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate"},
            {"host": "evil.example"},
        ):
            for path in (CONTROL + "stop", CONTROL + "status", "/v1/ping", STREAM):
                given = {**FORM, **headers}
                response = await running.client.post(path, content=b"{}", headers=given)
                is_status(response, 403, 7)
        assert not watched.received


async def test_a_token_has_its_share_of_calls_and_streams():
    async def never(request: Any) -> Any:
        await asyncio.Event().wait()

    stage = Stage(m.ClusterInfo())
    backend = Backend(
        ping=stage.ping, status=stage.status, stream_status=stage.stream_status, health=never
    )
    headers = as_("operate")
    limits = {"max_calls_per_token": 1, "max_streams_per_token": 1}
    async with in_front_of(backend, token=TOKENS, **limits) as (running, watched):
        waiting = asyncio.create_task(running.client.post(CONTROL + "health", headers=headers))
        try:
            await eventually(lambda: watched.counts["health"])
            refused = await running.client.post(CONTROL + "status", headers=headers)
            assert "1 calls" in is_status(refused, 429, 8)
            assert int(refused.headers["retry-after"]) >= 1
            async with results(running, headers=headers) as lines:
                await anext(lines)
                refused = await running.client.post(STREAM, headers=headers)
                assert "1 streams" in is_status(refused, 429, 8)
        finally:
            waiting.cancel()
            await asyncio.wait((waiting,))


# The stream.


@asynccontextmanager
async def results(
    running: Running, body: object = None, **options: Any
) -> AsyncIterator[AsyncIterator[Any]]:
    """Read the stream's lines."""
    content = b"" if body is None else json.dumps(body).encode()
    async with (
        asyncio.timeout(HANG),
        running.client.stream("POST", STREAM, content=content, **options) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        yield (json.loads(line) async for line in response.aiter_lines())


def failure_of(line: Any) -> tuple[int, str]:
    """The code and message of a line that ends a stream."""
    assert line == {"error": {**line["error"], "details": []}}
    return line["error"]["code"], line["error"]["message"]


async def test_a_line_per_state():
    stage = Stage(m.ClusterInfo(root_data_dir="/a", healthy=True))
    async with in_front_of(stage) as (running, _), results(running, {"pushInterval": 1e8}) as lines:
        first = await anext(lines)
        assert first["result"]["clusterInfo"]["rootDataDir"] == "/a"
        stage.state = m.ClusterInfo(root_data_dir="/b", healthy=True)
        async for line in lines:
            assert set(line) == {"result"}
            if line["result"]["clusterInfo"]["rootDataDir"] == "/b":
                break


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        (None, 1.0),
        ({}, 1.0),
        ({"pushInterval": 0}, 1.0),
        ({"pushInterval": -5}, 1.0),
        ({"push_interval": "250000000"}, 0.25),
        ({"pushInterval": 5_000_000_000}, 5.0),
        ({"pushInterval": 1}, 0.1),
        ({"pushInterval": str(2**63 - 1)}, 3600.0),
    ],
)
async def test_intervals_are_nanoseconds(asked: object, seconds: float):
    stage = Stage(m.ClusterInfo())
    async with in_front_of(stage) as (running, _), results(running, asked) as lines:
        await anext(lines)
        assert stage.intervals == [seconds]


async def test_a_server_that_is_away_has_a_status_of_its_own_and_no_line():
    address = f"127.0.0.1:{free_port()}"
    async with running_gateway(address, ready=False, acquire_timeout=0.2) as running:
        response = await running.client.post(STREAM)
        assert response.json().keys() == {"code", "message", "details"}
        is_status(response, 503, 14)


async def test_a_server_that_goes_ends_the_stream():
    async with AsyncExitStack() as upstream:
        server = await upstream.enter_async_context(serving(Stage(m.ClusterInfo())))
        running = await upstream.enter_async_context(running_gateway(server, acquire_timeout=0.2))
        lines = await upstream.enter_async_context(results(running))
        assert "result" in await anext(lines)
        await server.close()
        rest = [line async for line in lines]
        assert failure_of(rest[-1])[0] == 14
        assert all("result" in line for line in rest[:-1])


async def test_no_cluster_is_null_until_there_is_one():
    stage = Stage(None)
    async with in_front_of(stage) as (running, _), results(running, {"pushInterval": 1e8}) as lines:
        assert await anext(lines) == {"result": {"clusterInfo": None}}
        stage.state = m.ClusterInfo(network_id=5, healthy=True)
        async for line in lines:
            if line["result"]["clusterInfo"] is not None:
                assert line["result"]["clusterInfo"]["networkId"] == 5
                break


async def test_a_server_without_streams_is_polled():
    backend = Backend(
        status=answers(m.StatusResponse(m.ClusterInfo())), ping=answers(m.PingResponse())
    )
    async with in_front_of(backend) as (running, watched):
        async with results(running, {"pushInterval": 1e8}) as lines:
            for _ in range(3):
                assert "result" in await anext(lines)
        assert watched.counts["status"] >= 3


async def test_a_deadline_ends_the_stream():
    async with (
        in_front_of(Stage(m.ClusterInfo())) as (running, _),
        results(running, headers={"grpc-timeout": "1H"}) as lines,
    ):
        assert "result" in await anext(lines)
        (reader,) = running.gateway.feed._listeners
        reader.expire()
        said = [line async for line in lines]
        assert failure_of(said[-1]) == (4, "the time that Grpc-Timeout gave the stream is over")


async def test_a_deadline_that_is_over_already_sends_nothing():
    async with in_front_of(Stage(m.ClusterInfo())) as (running, watched):
        for given in ("1n", "999u"):
            response = await running.client.post(
                CONTROL + "status", headers={"grpc-timeout": given}
            )
            assert is_status(response, 504, 4).startswith("Status was not sent")
        assert not watched.received


async def test_a_deadline_beyond_all_clocks():
    headers = {"grpc-timeout": "9" * 18 + "H"}
    async with (
        in_front_of(Stage(m.ClusterInfo())) as (running, _),
        results(running, headers=headers) as lines,
    ):
        assert "result" in await anext(lines)
        response = await running.client.post(CONTROL + "status", headers=headers)
        assert response.status_code == 200


async def test_a_deadline_before_the_first_line():
    async def never(request: Any) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield

    backend = Backend(stream_status=never, ping=answers(m.PingResponse()))
    async with in_front_of(backend) as (running, _):
        response = await running.client.post(STREAM, headers={"grpc-timeout": "50m"})
        assert response.status_code == 504
        assert response.headers["content-type"] == "application/json"
        assert failure_of(response.json())[0] == 4


async def test_an_error_of_the_server_before_the_first_line():
    async def fails(request: Any) -> AsyncIterator[Any]:
        raise RemoteError("disk full")
        yield

    async with in_front_of(Backend(stream_status=fails, ping=answers(m.PingResponse()))) as (
        running,
        _,
    ):
        response = await running.client.post(STREAM)
        assert response.status_code == 500
        assert response.content.endswith(b"\n")
        assert failure_of(response.json()) == (2, "disk full")


async def test_a_gateway_that_stops_says_so():
    async with (
        in_front_of(Stage(m.ClusterInfo()), drain_timeout=5) as (running, _),
        results(running) as lines,
    ):
        await anext(lines)
        running.tell_to_stop()
        rest = [line async for line in lines]
        assert failure_of(rest[-1])[0] == 14
        await soon(running.serving)


async def test_a_client_that_leaves_leaves_nothing_behind():
    async with in_front_of(Stage(m.ClusterInfo())) as (running, watched):
        async with results(running, headers={"grpc-timeout": "1H"}) as lines:
            await anext(lines)
            await eventually(lambda: watched.streams == 1)
        await eventually(lambda: watched.streams == 0)
        assert running.gateway.feed.readers == 0


async def test_one_reader_too_many():
    stage = Stage(m.ClusterInfo())
    async with in_front_of(stage, max_streams=1) as (running, _), results(running) as lines:
        await anext(lines)
        is_status(await running.client.post(STREAM), 503, 14)


async def test_a_bad_body_begins_nothing():
    stage = Stage(m.ClusterInfo())
    async with in_front_of(stage) as (running, _):
        for body in (b"{", b'{"pushInterval":"soon"}', b"[]", b'{"pushInterval":1.5}'):
            is_status(await running.client.post(STREAM, content=body), 400, 3)
        assert not stage.intervals


# Side by side with the other routes.


async def test_scripts_of_either_kind_see_one_cluster():
    async with in_front_of(SimulatedNetrunner(nodes=0, health_delay=0)) as (running, _):
        client = running.client
        body = {"execPath": "/x", "numNodes": 2, "whitelistedSubnets": "s", "logLevel": "INFO"}
        started = await client.post(CONTROL + "start", json=body)
        assert started.json()["clusterInfo"]["nodeNames"] == ["node1", "node2"]
        assert (await client.get("/v1/nodes/node1")).json()["whitelistedSubnets"] == "s"
        await client.post("/v1/nodes", json={"name": "extra"})
        status = (await client.post(CONTROL + "status")).json()
        assert status == (await client.get("/v1/status")).json()
        assert "extra" in status["clusterInfo"]["nodeInfos"]


async def test_what_the_log_and_the_metrics_call_it():
    backend = Backend(
        pause_node=answers(told("a")), status=answers(NotBootstrapped("not bootstrapped"))
    )
    async with in_front_of(backend) as (running, _):
        await running.client.post(CONTROL + "pausenode", content=b'{"name":"a"}')
        await running.client.post(CONTROL + "status")
        await running.client.post(CONTROL + "nosuch")
        metrics = (await running.client.get("/metrics")).text
    assert 'route="/v1/control/pausenode",status="200"' in metrics
    assert 'route="/v1/control/status",status="500"' in metrics
    assert "nosuch" not in metrics
