"""The Go program's own gateway and its load against our server: what benchmarks compare with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.integration.gateway_helpers import Backend, Watched, answers, running_gateway
from tests.integration.zap_helpers import HANG, identity_of, serving
from tests.interop.go_processes import go_process, one_line
from tests.interop.script import NOT_UTF_8, UNICODE
from zapcore import NetrunnerServer, SimulatedNetrunner
from zapcore import messages as m
from zapcore.zwing import PublicIdentity

CALLS, IN_FLIGHT = 2000, 32


@asynccontextmanager
async def netrunner(nodes: int = 5) -> AsyncIterator[tuple[NetrunnerServer, Watched]]:
    backend = Watched(SimulatedNetrunner(nodes, health_delay=0.0))
    async with serving(backend) as server:
        yield server, backend


def upstream(server: NetrunnerServer, pin: PublicIdentity | None = None) -> tuple[str, ...]:
    identity = pin or server.identity.public
    return ("-address", server.address, "-server", bytes(identity).hex())


@asynccontextmanager
async def go_gateway(peer: Path, server: NetrunnerServer) -> AsyncIterator[httpx.AsyncClient]:
    """A client of `peer gateway`."""
    async with go_process(peer, "gateway", *upstream(server)) as process:
        first = await process.line()
        assert set(first) == {"address"}
        async with httpx.AsyncClient(
            base_url=f"http://{first['address']}", timeout=HANG, trust_env=False
        ) as client:
            yield client
        assert await process.finish() == 0


@pytest.mark.parametrize("path", ["/v1/ping", "/v1/status"])
async def test_the_go_gateway_answers_as_ours_does(peer: Path, path: str):
    async with (
        netrunner() as (server, backend),
        running_gateway(server) as ours,
        go_gateway(peer, server) as theirs,
    ):
        spec = m.BlockchainSpec("evm", genesis=UNICODE, blockchain_alias=UNICODE)
        await backend.inner.create_blockchains(m.CreateBlockchainsRequest([spec]))
        await backend.inner.pause_node(m.PauseNodeRequest("node2"))
        (node, *_) = backend.inner._cluster.nodes.values()
        node.config = NOT_UTF_8
        expected = await ours.client.get(path)
        answer = await theirs.get(path)
        assert answer.status_code == expected.status_code == 200
        assert answer.headers["content-type"].partition(";")[0] == "application/json"
        assert answer.json() == expected.json()


@pytest.mark.parametrize(
    "state",
    [
        None,
        m.ClusterInfo(),
        m.ClusterInfo(node_infos={"": m.NodeInfo()}, custom_chains={"": m.ChainInfo()}),
    ],
    ids=["no cluster", "an empty cluster", "an empty node and chain"],
)
async def test_what_is_empty_is_empty_in_the_go_gateway_too(
    peer: Path, state: m.ClusterInfo | None
):
    """Go's own JSON would say null of a list that has nothing in it."""
    async with (
        serving(Backend(status=answers(m.StatusResponse(state)))) as server,
        running_gateway(server) as ours,
        go_gateway(peer, server) as theirs,
    ):
        expected = (await ours.client.get("/v1/status")).json()
        assert (await theirs.get("/v1/status")).json() == expected


async def test_load_makes_its_calls_and_gets_every_answer(peer: Path):
    async with (
        netrunner() as (server, backend),
        go_process(
            peer, "load", *upstream(server), "-calls", CALLS, "-in-flight", IN_FLIGHT
        ) as process,
    ):
        told = await process.line()
        assert await process.wait() == 0
    assert set(told) == {"calls", "errors", "seconds", "cpu_seconds"}
    assert (told["calls"], told["errors"]) == (CALLS, 0)
    assert told["seconds"] > 0
    assert told["cpu_seconds"] >= 0
    assert backend.counts == {"status": CALLS}


async def test_load_counts_the_calls_that_fail(peer: Path):
    async with (
        netrunner(0) as (server, backend),
        go_process(peer, "load", *upstream(server), "-calls", 100, "-in-flight", 10) as process,
    ):
        told = await process.line()
        assert (told["calls"], told["errors"]) == (100, 100)
    assert backend.counts == {"status": 100}


@pytest.mark.parametrize(
    "mode", [("gateway",), ("load", "-calls", "10", "-in-flight", "1")], ids=["gateway", "load"]
)
async def test_a_server_that_is_not_the_pinned_one(peer: Path, mode: tuple[str, ...]):
    another = identity_of("another").public
    async with (
        netrunner() as (server, backend),
        go_process(peer, *mode, *upstream(server, another)) as process,
    ):
        assert await process.wait() == 1
        assert "identity" in one_line(process.stderr)
        assert process.lines == []
        assert backend.received == []
