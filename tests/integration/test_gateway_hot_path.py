"""Plain reads take short ways through the gateway; nobody may be able to tell."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway import schema
from gateway.routes.table import PLACES
from tests.integration.gateway_helpers import (
    Backend,
    Running,
    answers,
    running_gateway,
    simulator,
)
from tests.integration.test_gateway_connections import RawClient, get, raw
from tests.integration.test_gateway_shortcuts import Ways, ask, shown
from tests.integration.zap_helpers import (
    HANG,
    Peer,
    ScriptedServer,
    eventually,
    free_port,
    identity_of,
    serving,
)
from zapcore import NetrunnerServer, SimulatedNetrunner, connection
from zapcore import messages as m
from zapcore.errors import RemoteError
from zapcore.methods import METHODS

READS = ["Ping", "RPCVersion", "Health", "URIs", "Status", "GetSnapshotNames"]
PATHS = [PLACES[name].path for name in READS]


class Asking:
    """The same request on all three ways: at once, directly where it comes again, and FastAPI's.

    Args:
        running: the gateway.
        client: its connection is the one on which requests come again.
    """

    def __init__(self, running: Running, client: RawClient) -> None:
        self.running = running
        self.ways = Ways(running)
        self._client = client

    async def learn(self, *paths: str, headers: dict[str, str] | None = None) -> None:
        """Ask until it was answered well once."""
        async with asyncio.timeout(HANG):
            for path in paths:
                while (await ask(self._client, _request(path, headers))).status_code != 200:
                    pass

    async def same(
        self, path: str, headers: dict[str, str] | None = None, *, directly: bool = True
    ) -> httpx.Response:
        """Only the date may differ; ``directly`` says whether the direct way must be taken."""
        before = self.ways.direct
        again = await ask(self._client, _request(path, headers))
        assert self.ways.direct - before == directly
        async with raw(self.running) as fresh:
            first = await ask(fresh, _request(path, headers))
        long = await self.running.client.get(path, headers=_sent(headers), params={"x": "1"})
        assert self.ways.direct - before == directly
        assert shown(first) == shown(long)
        assert shown(again) == shown(long)
        assert again.reason_phrase == long.reason_phrase
        return long


def _sent(headers: dict[str, str] | None) -> dict[str, str]:
    return {"x-request-id": "the-same", **(headers or {})}


def _request(path: str, headers: dict[str, str] | None) -> bytes:
    return get(path, *(f"{name}: {value}" for name, value in _sent(headers).items()))


@asynccontextmanager
async def asking(running: Running, *paths: str) -> AsyncIterator[Asking]:
    """Ask a gateway, which has been asked for those paths before."""
    async with raw(running) as client:
        asked = Asking(running, client)
        await asked.learn(*paths)
        yield asked


class Moods:
    """Handlers of all reads, which answer well until they are told to do something else."""

    def __init__(self) -> None:
        self.mood: Callable[[Any], Any] | None = None

    def backend(self) -> Backend:
        return Backend(**{METHODS[name].attribute: self._handler(name) for name in READS})

    def _handler(self, name: str) -> Callable[[Any], Any]:
        async def handler(request: Any) -> Any:
            if self.mood is not None:
                return await self.mood(request)
            return METHODS[name].response()

        return handler


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


NODES = {"small": 5, "too large to be kept": 300, "made in threads": 300}


@pytest.mark.parametrize("size", NODES)
async def test_answers_are_the_same(size: str, monkeypatch: pytest.MonkeyPatch):
    makers = set()
    make = schema.json_of

    def noting(*arguments: Any) -> bytes:
        makers.add((arguments[0], threading.current_thread() is threading.main_thread()))
        return make(*arguments)

    monkeypatch.setattr(schema, "json_of", noting)
    if size == "made in threads":
        monkeypatch.setattr(connection, "_MANY_ITEMS", 1000)
    async with (
        serving(SimulatedNetrunner(NODES[size], health_delay=0)) as server,
        running_gateway(server) as running,
        asking(running, *PATHS) as asked,
    ):
        for path in PATHS:
            for _ in range(2):  # what is kept of the first must not make a difference
                assert (await asked.same(path)).status_code == 200
    assert (m.StatusResponse, size != "made in threads") in makers
    assert (m.StatusResponse, size == "made in threads") not in makers


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
    moods = Moods()
    async with (
        serving(moods.backend()) as server,
        running_gateway(server) as running,
        asking(running, *PATHS[2:]) as asked,
    ):
        moods.mood = answers(RemoteError(text))
        for path in PATHS[2:]:
            assert (await asked.same(path)).status_code == status
        moods.mood = None
        for path in PATHS[2:]:
            assert (await asked.same(path)).status_code == 200


@pytest.mark.parametrize("bad", [b"\x01", b"\xff" * 8 + bytes(300_000)], ids=["small", "large"])
async def test_answers_that_can_not_be_decoded_are_the_same(bad: bytes):
    rows = {row.encode_request(): row for row in (METHODS[name] for name in READS)}
    broken = False

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.message()
            await peer.answer(request, bad if broken else rows[request.body].response())

    async with (
        ScriptedServer(script) as server,
        running_gateway(server) as running,
        asking(running, *PATHS) as asked,
    ):
        broken = True
        for path in PATHS if bad == b"\x01" else PATHS[2:]:  # a number is one, whatever follows
            assert (await asked.same(path)).status_code == 502


async def test_silence_is_the_same():
    moods = Moods()

    async def silent(request: object) -> None:
        await asyncio.Event().wait()

    async with (
        serving(moods.backend()) as server,
        running_gateway(server, call_timeout="100ms") as running,
        asking(running, "/v1/status") as asked,
    ):
        moods.mood = silent
        assert (await asked.same("/v1/status")).status_code == 504


async def test_defects_are_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def broken(*_: object) -> bytes:
        raise LookupError("a defect of ours")

    async with (
        serving(SimulatedNetrunner()) as server,
        running_gateway(server) as running,
        asking(running, "/v1/status") as asked,
    ):
        monkeypatch.setattr(running.gateway.upstream, "render", broken)
        assert (await asked.same("/v1/status")).status_code == 500
        assert caplog.text.count("LookupError: a defect of ours") == 3
        monkeypatch.undo()


@pytest.mark.parametrize("before", [True, False], ids=["that was there", "that never was"])
async def test_absence_is_the_same(before: bool):
    port = free_port()
    async with (
        running_gateway(f"127.0.0.1:{port}", ready=False, acquire_timeout="20ms") as running,
        asking(running) as asked,
    ):
        if before:
            server = NetrunnerServer(Moods().backend(), identity_of("server"))
            async with server.serving(port=port):
                await asked.learn("/v1/status")
        await eventually(lambda: running.gateway.pool.last_failure)
        await eventually(lambda: running.gateway.pool.circuit_open)
        await eventually(lambda: "refused" in str(running.gateway.pool.last_failure))
        response = await asked.same("/v1/status", directly=False)
        assert response.status_code == 503
        assert "retry-after" in response.headers


async def test_a_stranger_is_the_same():
    async with (
        serving(SimulatedNetrunner()) as server,
        running_gateway(server, identity_of("somebody else").public, ready=False) as running,
        asking(running) as asked,
    ):
        await eventually(lambda: running.gateway.pool.last_failure)
        assert (await asked.same("/v1/status", directly=False)).status_code == 502


async def test_pages_are_told_the_same():
    page, evil = {"origin": "https://page.example"}, {"origin": "http://evil.example"}
    async with (
        serving(SimulatedNetrunner()) as server,
        running_gateway(server, allowed_origin=(page["origin"],)) as running,
        asking(running) as asked,
    ):
        await asked.learn("/v1/status", headers=page)
        response = await asked.same("/v1/status", page)
        assert response.headers["access-control-allow-origin"] == page["origin"]
        assert (await asked.same("/v1/status", evil, directly=False)).status_code == 403


async def test_all_ways_are_counted_the_same():
    async with (
        serving(SimulatedNetrunner()) as server,
        running_gateway(server) as running,
        asking(running, "/v1/status") as asked,
    ):
        await asked.same("/v1/status")
        text = (await running.client.get("/metrics")).text
        labels = 'method="GET",route="/v1/status",status="200"'
        assert f"zap_gateway_http_requests_total{{{labels}}} 4.0" in text
        assert 'zap_gateway_zap_calls_total{outcome="ok",rpc="Status"} 4.0' in text


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
            ways = Ways(running)
            await asyncio.gather(*(alternate(running.client, name) for name in names))
            assert ways.direct > 0


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
