"""Generated clients drive the simulated cluster, each as a program of its own.

What they were told is held against what the gateway tells plain HTTP, and the server received.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.auth import new_token, token_line
from tests import secret_search
from tests.clients.conftest import Made
from tests.clients.making import run
from tests.integration.gateway_helpers import (
    Running,
    Watched,
    clean_environment,
    is_problem,
    running_gateway,
)
from tests.integration.zap_helpers import serving, soon
from zapcore import SimulatedNetrunner

FIVE = {f"node{number}": False for number in range(1, 6)}
"""The simulated cluster: whether each node is paused."""


class Program:
    """A program that does what it is told, line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin
        assert process.stdout
        self._process = process
        self._in, self._out = process.stdin, process.stdout
        self._said: list[bytes] = []

    async def _do(self, *words: str) -> dict[str, Any]:
        self._in.write(json.dumps(words).encode() + b"\n")
        line = await soon(self._out.readline())
        self._said.append(line)
        if not line:
            await self._ended()
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def told(self, *words: str) -> Any:
        """Do a step that goes well; what the client was told."""
        answer = await self._do(*words)
        assert "told" in answer, answer
        return answer["told"]

    async def refused(self, *words: str) -> dict[str, Any]:
        """Do a step that does not; the problem, as its type has it."""
        problem: dict[str, Any] = (await self._do(*words))["problem"]
        return problem

    async def end(self) -> None:
        """It ends when there is nothing more to do, and had no complaints."""
        self._in.close()
        await self._ended()

    async def _ended(self) -> None:
        rest, complaints = await soon(self._process.communicate())
        for output in (*self._said, rest, complaints):
            secret_search.session.search.collect("a generated client", output)
        assert (self._process.returncode, rest, complaints.decode()) == (0, b"", "")


@asynccontextmanager
async def program(client: Made, url: str, token: str = "") -> AsyncIterator[Program]:
    """Run the program that drives with a client."""
    environment = clean_environment(
        GATEWAY_URL=url, GATEWAY_TOKEN=token, NO_PROXY="*", **client.environment
    )
    process = await asyncio.create_subprocess_exec(
        *client.drive, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment
    )
    try:
        started = Program(process)
        yield started
        await started.end()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@dataclass
class Stage:
    """A simulated cluster, a gateway in front of it, and a client."""

    program: Program
    running: Running
    server: Watched
    headers: dict[str, str] = field(default_factory=dict)

    async def cluster(self) -> Any:
        """The cluster's state, by plain HTTP."""
        response = await self.running.client.get("/v1/status", headers=self.headers)
        return response.raise_for_status().json()["clusterInfo"]

    async def nodes(self) -> dict[str, bool]:
        """Whether each node is paused, by plain HTTP."""
        response = await self.running.client.get("/v1/nodes", headers=self.headers)
        return {
            node["name"]: node["paused"] for node in response.raise_for_status().json()["nodes"]
        }


@asynccontextmanager
async def stage(client: Made, nodes: int = 5) -> AsyncIterator[Stage]:
    server = Watched(SimulatedNetrunner(nodes, health_delay=0))
    async with (
        serving(server) as upstream,
        running_gateway(upstream) as running,
        program(client, running.url) as started,
    ):
        yield Stage(started, running, server)


async def test_nodes(client: Made):
    async with stage(client) as on:
        told = on.program.told
        assert await told("status") == FIVE == await on.nodes()
        six = {**FIVE, "extra": False}
        assert await told("add", "extra", "/opt/luxd") == six == await on.nodes()
        node = {"name": "extra", "execPath": "/opt/luxd", "paused": False}
        assert await told("get", "extra") == node
        paused = {**six, "extra": True}
        assert await told("pause", "extra") == paused == await on.nodes()
        assert await told("resume", "extra") == six == await on.nodes()
        assert await told("restart", "extra", "/opt/other") == six == await on.nodes()
        assert (await on.cluster())["nodeInfos"]["extra"]["execPath"] == "/opt/other"
        assert await told("wait") is True
        assert await told("remove", "extra") == FIVE == await on.nodes()
        once = ("add_node", "pause_node", "resume_node", "restart_node", "remove_node")
        assert {name: on.server.counts[name] for name in once} == dict.fromkeys(once, 1)


async def test_the_cluster_starts_and_stops(client: Made):
    async with stage(client, nodes=0) as on:
        three = {f"node{number}": False for number in range(1, 4)}
        started = await on.program.told("start", "3", "evm")
        assert started["nodes"] == three == await on.nodes()
        chains = (await on.cluster())["customChains"]
        assert started["chains"] == list(chains)
        assert [chain["vmName"] for chain in chains.values()] == ["evm"]
        assert await on.program.told("stop") == three
        is_problem(await on.running.client.get("/v1/status"), 409, "not_bootstrapped", "Status")


async def test_peers(client: Made):
    async with stage(client) as on:
        peer = await on.program.told("attach", "node2")
        assert peer.startswith("NodeID-")
        assert await on.program.told("send", "node2", peer, "héllo") is True
        received = on.server.last("send_outbound_message")
        assert (received.node_name, received.peer_id) == ("node2", peer)
        assert (received.op, received.bytes) == (7, "héllo".encode())


async def test_chains(client: Made):
    async with stage(client) as on:
        (blockchain,) = await on.program.told("blockchain", "evm", "node1", "node2")
        (chain,) = await on.program.told("chain", "node3")
        cluster = await on.cluster()
        assert cluster["customChains"][blockchain]["vmName"] == "evm"
        assert chain in cluster["subnets"]
        (spec,) = on.server.last("create_blockchains").blockchain_specs
        assert spec.chain_spec.participants == ["node1", "node2"]
        (spec,) = on.server.last("create_chains").chain_specs
        assert spec.participants == ["node3"]


async def test_snapshots(client: Made):
    async with stage(client) as on:
        told = on.program.told

        async def names() -> Any:
            return (await on.running.client.get("/v1/snapshots")).json()["snapshotNames"]

        assert await told("snapshots") == []
        assert (await told("saveHot", "hot one")).endswith("/hot one")
        assert await told("snapshots") == ["hot one"] == await names()
        await told("pause", "node1")
        assert (await told("save", "cold")).endswith("/cold")
        is_problem(await on.running.client.get("/v1/status"), 409, "not_bootstrapped", "Status")
        # Names are put into paths as they must be.
        assert await told("load", "hot one") == FIVE == await on.nodes()
        assert await told("snapshots") == ["cold", "hot one"] == await names()
        assert await told("forget", "hot one") == {}
        assert await told("snapshots") == ["cold"] == await names()


async def test_what_changes_is_watched(client: Made):
    async with stage(client) as on:
        event = await on.program.told("watchPause", "node4")
        assert (event["type"], event["node"]) == ("node.paused", "node4")
        assert event["year"] >= 2000
        assert (await on.nodes())["node4"] is True


@pytest.mark.parametrize(
    ("words", "status", "code", "rpc", "errors"),
    [
        (("get", "nobody"), 404, "not_found", "Status", []),
        (("pause", "nobody"), 404, "not_found", "PauseNode", []),
        (("add", "node1", ""), 409, "already_exists", "AddNode", []),
        (("add", "a/b", ""), 422, "invalid_request", "AddNode", ["body.name"]),
        (("resume", "node1"), 502, "upstream_error", "ResumeNode", []),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
async def test_a_problem_is_typed(
    client: Made, words: tuple[str, ...], status: int, code: str, rpc: str, errors: list[str]
):
    async with stage(client) as on:
        problem = await on.program.refused(*words)
        assert re.fullmatch(r"[0-9a-f]{16}", problem.pop("requestId"))
        assert problem.pop("detail")
        assert problem == {"status": status, "code": code, "rpc": rpc, "errors": errors}
        assert await on.nodes() == FIVE


async def test_a_token_lets_it_in(client: Made):
    reader, operator = new_token(), new_token()
    lines = (token_line("rita", "read", reader), token_line("otto", "operate", operator))
    server = Watched(SimulatedNetrunner(health_delay=0))
    async with (
        serving(server) as upstream,
        running_gateway(upstream, token=lines) as running,
        program(client, running.url) as without,
        program(client, running.url, reader) as reading,
        program(client, running.url, operator) as operating,
    ):
        assert (await without.refused("status"))["code"] == "unauthenticated"
        assert await reading.told("status") == FIVE
        assert (await reading.refused("pause", "node1"))["code"] == "forbidden"
        assert server.counts["pause_node"] == 0
        paused = {**FIVE, "node1": True}
        assert await operating.told("pause", "node1") == paused
        on = Stage(operating, running, server, {"authorization": f"Bearer {reader}"})
        assert await on.nodes() == paused


async def test_the_lines_of_the_readme_do_what_they_say(client: Made):
    async with stage(client) as on:
        text = client.readme.read_text("utf-8")
        assert "http://127.0.0.1:8081" in text, "the README has lines for this client"
        there = client.readme.with_stem("there")
        there.write_text(text.replace("http://127.0.0.1:8081", on.running.url), "utf-8")
        command = sys.executable if there.suffix == ".py" else "node"
        done = await asyncio.to_thread(
            run, command, there, cwd=client.folder, NO_PROXY="*", **client.environment
        )
        assert done.status == 0, done.output
        assert re.search(r"paused[=:] ?true", done.output, re.IGNORECASE), done.output
        assert await on.nodes() == {**FIVE, "node1": True}
