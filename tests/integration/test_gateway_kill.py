"""The server dies and comes back while calls run: every answer is right, or an honest error."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections import Counter
from pathlib import Path

import httpx

from gateway.errors import KINDS
from tests.integration.gateway_helpers import (
    Backend,
    identity_file,
    is_problem,
    running_gateway,
    simulator,
)
from tests.integration.zap_helpers import eventually, identity_of
from zapcore import NetrunnerServer
from zapcore import messages as m

WHEN_DOWN = {(kind.status, kind.code) for kind in KINDS if kind.status in (502, 503, 504)} - {
    (502, "upstream_identity_mismatch"),
    (502, "upstream_error"),
}


def is_an_error_of_a_server_that_is_down(response: httpx.Response, rpc: str) -> str:
    """Its code."""
    problem = is_problem(response, response.status_code, response.json()["code"], rpc)
    assert (problem["status"], problem["code"]) in WHEN_DOWN, problem
    return str(problem["code"])


async def test_a_netrunner_that_is_killed_and_started_again_under_load(tmp_path: Path):
    """A real process, SIGKILL, the same port, the same keys."""
    keys = identity_file(tmp_path, "server")
    stop = asyncio.Event()
    seen: Counter[int] = Counter()

    async def read(client: httpx.AsyncClient, path: str, rpc: str, key: str) -> None:
        while not stop.is_set():
            response = await client.get(path)
            seen[response.status_code] += 1
            if response.status_code == 200:
                assert key in response.json()
            else:
                assert is_an_error_of_a_server_that_is_down(response, rpc) != "outcome_unknown"

    async def change(client: httpx.AsyncClient, number: int) -> None:
        serial = 0
        while not stop.is_set():
            serial += 1
            name = f"n-{number}-{serial}"
            response = await client.post("/v1/nodes", json={"name": name})
            if response.status_code == 200:
                assert name in response.json()["clusterInfo"]["nodeNames"]
            else:
                is_an_error_of_a_server_that_is_down(response, "AddNode")
            await client.delete(f"/v1/nodes/{name}")

    with simulator("--identity", keys) as first:
        async with running_gateway(first, acquire_timeout="50ms") as running:
            client, pool = running.client, running.gateway.pool
            async with asyncio.TaskGroup() as group:
                for _ in range(4):
                    group.create_task(read(client, "/v1/status", "Status", "clusterInfo"))
                    group.create_task(read(client, "/v1/uris?x=1", "URIs", "uris"))
                    group.create_task(read(client, "/v1/nodes", "Status", "nodes"))
                for number in range(3):
                    group.create_task(change(client, number))
                await eventually(lambda: seen[200] > 50)
                first.command.send(signal.SIGKILL)
                first.command.wait()
                await eventually(lambda: seen[503] > 10)
                assert (await client.get("/healthz")).status_code == 200
                is_problem(await client.get("/readyz"), 503, "upstream_unavailable")
                restarted = ("--identity", keys, "--port", first.port)
                with simulator(*restarted) as second:
                    assert second.pid != first.pid
                    await eventually(lambda: pool.connected_now)
                    before = seen[200]
                    await eventually(lambda: seen[200] > before + 50)
                    assert (await client.get("/readyz")).status_code == 200
                    assert (await client.get("/v1/ping")).json() == {"pid": second.pid}
                    stop.set()
                    await eventually(lambda: pool.calls == 0)


class Counting(Backend):
    """Counts the names that it was asked to pause; takes a moment for each."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    async def status(self, request: m.StatusRequest) -> m.StatusResponse:
        await asyncio.sleep(0)
        return m.StatusResponse()

    async def pause_node(self, request: m.PauseNodeRequest) -> m.PauseNodeResponse:
        self.names[request.name] += 1
        await asyncio.sleep(0.001 * (len(self.names) % 7))
        return m.PauseNodeResponse(m.ClusterInfo(root_data_dir=request.name))


class Load:
    """Changes, each under a name of its own, and reads; and what became of them."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.stop = asyncio.Event()
        self.outcomes: dict[str, str] = {}
        self.reads: Counter[int] = Counter()

    @property
    def done(self) -> int:
        return sum(outcome == "ok" for outcome in self.outcomes.values())

    @property
    def failed(self) -> int:
        return len(self.outcomes) - self.done

    async def change(self, number: int) -> None:
        for serial in itertools.count():
            if self.stop.is_set():
                return
            name = f"{number}-{serial}"
            response = await self.client.post(f"/v1/nodes/{name}/pause")
            if response.status_code == 200:
                assert response.json()["clusterInfo"]["rootDataDir"] == name
                self.outcomes[name] = "ok"
            else:
                code = is_an_error_of_a_server_that_is_down(response, "PauseNode")
                self.outcomes[name] = code

    async def read(self) -> None:
        while not self.stop.is_set():
            response = await self.client.get("/v1/status")
            self.reads[response.status_code] += 1
            if response.status_code != 200:
                is_an_error_of_a_server_that_is_down(response, "Status")

    async def more_done(self) -> None:
        """Wait until it goes on."""
        before = self.done
        await eventually(lambda: self.done > before + 40)

    async def more_failed(self) -> None:
        """Wait until it is felt that nobody is there."""
        before = self.failed
        await eventually(lambda: self.failed > before + 20)


async def kill(server: NetrunnerServer) -> None:
    for channel in tuple(server._channels):
        channel._transport.abort()
    await server.close()


async def test_no_change_is_ever_received_twice():
    """Four deaths of the server in the midst of hundreds of changes.

    What was answered with 200 was received once; what was refused as unavailable never was; what
    is unknown was received once or not at all.
    """
    backend = Counting()
    server = NetrunnerServer(backend, identity_of("server"))
    await server.start(port=0)
    port = int(server.address.rpartition(":")[2])
    async with (
        running_gateway(server, acquire_timeout="50ms", connections=3) as running,
        asyncio.TaskGroup() as group,
    ):
        load = Load(running.client)
        for number in range(16):
            group.create_task(load.change(number))
        for _ in range(4):
            group.create_task(load.read())
        for _ in range(4):
            await load.more_done()
            await kill(server)
            await load.more_failed()
            server = NetrunnerServer(backend, identity_of("server"))
            await server.start(port=port)
        await load.more_done()
        load.stop.set()
    await server.close()

    assert max(backend.names.values()) == 1
    received: dict[str, set[int]] = {}
    for name, outcome in load.outcomes.items():
        received.setdefault(outcome, set()).add(backend.names[name])
    assert received.pop("ok") == {1}
    assert received.pop("outcome_unknown", set()) <= {0, 1}
    assert received.pop("upstream_unavailable") == {0}
    assert all(times == {0} for times in received.values()), received
    assert load.reads[200] > 0
