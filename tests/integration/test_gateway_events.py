"""GET /v1/events/stream: what changes, as it changes, from one hub for any number of readers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from gateway import schema, streams
from gateway.auth import new_token, token_line
from gateway.changes import EVENT_TYPES
from tests.integration.gateway_helpers import (
    Running,
    SseEvent,
    SseReader,
    Stage,
    Watched,
    document,
    events,
    is_problem,
    ndjson,
    running_gateway,
    sse,
)
from tests.integration.zap_helpers import (
    HANG,
    eventually,
    free_port,
    identity_of,
    serving,
    soon,
)
from zapcore import NetrunnerServer, SimulatedNetrunner
from zapcore import messages as m
from zapcore.errors import RemoteError

EVENTS, STATUS = "/v1/events/stream", "/v1/status/stream"


def cluster(*names: str, **fields: Any) -> m.ClusterInfo:
    """A healthy cluster with nodes of these names."""
    nodes = {name: m.NodeInfo(name=name) for name in names}
    return m.ClusterInfo(
        **{"node_infos": nodes, "healthy": True, "root_data_dir": "/one", **fields}
    )


@asynccontextmanager
async def showing(backend: object, **settings: Any) -> AsyncIterator[Running]:
    """A gateway in front of a backend."""
    async with serving(backend) as server, running_gateway(server, **settings) as running:
        yield running


async def begun(running: Running) -> None:
    """Wait until the feed has a state: what changes from here on is an event."""
    await eventually(lambda: running.gateway.feed.baseline is not None)


async def idle(running: Running) -> None:
    """Wait until nobody reads."""
    await eventually(lambda: not running.gateway.feed.readers)
    await eventually(lambda: running.gateway.feed.newest is None)


@cache
def _validator() -> Draft202012Validator:
    parts = {"components": document()["components"], "$ref": "#/components/schemas/Event"}
    return Draft202012Validator(parts)


def is_event(told: SseEvent, kind: str, **parts: object) -> Any:
    """Check what all events have in common; gives the event's JSON."""
    assert told.type == told.data["type"] == kind
    assert told.id == told.data["id"]
    is_documented(told.data)
    assert {name: told.data[name] for name in parts} == parts
    return told.data


def is_documented(event: Any) -> None:
    assert set(event) == {"id", "type", "time", "node", "chain", "before", "after", "detail"}
    _validator().validate(event)


# Every type, for real.


async def test_nodes_come_change_and_go():
    async with showing(SimulatedNetrunner(nodes=2, health_delay=0)) as running:
        client = running.client
        async with events(client, interval="100ms") as reader:
            await begun(running)
            await client.post("/v1/nodes", json={"name": "extra"})
            event = is_event(await reader.next(), "node.added", node="extra", chain=None)
            assert (event["before"], event["after"]["name"]) == (None, "extra")
            await client.post("/v1/nodes/extra/pause")
            event = is_event(await reader.next(), "node.paused", node="extra")
            assert (event["before"]["paused"], event["after"]["paused"]) == (False, True)
            await client.post("/v1/nodes/extra/resume")
            event = is_event(await reader.next(), "node.resumed", node="extra")
            assert (event["before"]["paused"], event["after"]["paused"]) == (True, False)
            await client.post("/v1/nodes/extra/restart", json={"execPath": "/new/luxd"})
            event = is_event(await reader.next(), "node.changed", node="extra")
            assert event["before"]["execPath"] != event["after"]["execPath"] == "/new/luxd"
            await client.delete("/v1/nodes/extra")
            event = is_event(await reader.next(), "node.removed", node="extra")
            assert (event["before"]["execPath"], event["after"]) == ("/new/luxd", None)


async def test_a_cluster_starts_and_stops():
    """It is null in the one stream, and stopped once in the other."""
    async with showing(SimulatedNetrunner(nodes=2, health_delay=0)) as running:
        client = running.client
        async with (
            events(client, interval="100ms") as reader,
            sse(client, interval="100ms", changes="true") as states,
        ):
            assert (await states.next()).data["clusterInfo"]
            await client.delete("/v1/cluster")
            assert (await states.next()).data == {"clusterInfo": None}
            told = await reader.some(3)
            assert [event.type for event in told] == ["node.removed"] * 2 + ["cluster.stopped"]
            stopped = is_event(told[2], "cluster.stopped", node=None, after=None)
            assert stopped["before"]["nodes"] == 2
            at = running.gateway.feed.newest.sequence
            # It goes on to be pushed, and that is no news.
            await eventually(lambda: running.gateway.feed.newest.sequence >= at + 3)
            await client.post("/v1/cluster", json={"numNodes": 1})
            told = await reader.some(3)
            kinds = ["cluster.started", "node.added", "cluster.healthy"]
            assert [event.type for event in told] == kinds
            started = is_event(told[0], "cluster.started", before=None)
            assert started["after"]["rootDataDir"] != stopped["before"]["rootDataDir"]
            assert (await states.next()).data["clusterInfo"]["nodeNames"] == ["node1"]


async def test_a_cluster_becomes_unhealthy_and_healthy():
    async with showing(SimulatedNetrunner(nodes=1, health_delay=0.3)) as running:
        client = running.client
        async with events(client, interval="100ms", types="cluster.healthy,cluster.unhealthy") as r:
            await eventually(lambda: b'"healthy":true' in _newest(running))
            await client.post("/v1/nodes/node1/restart", json={})
            ill = await r.until(lambda event: event.type == "cluster.unhealthy")
            event = is_event(ill, "cluster.unhealthy")
            assert (event["before"]["healthy"], event["after"]["healthy"]) == (True, False)
            event = is_event(await r.next(), "cluster.healthy")
            assert (event["before"]["healthy"], event["after"]["healthy"]) == (False, True)


def _newest(running: Running) -> bytes:
    newest = running.gateway.feed.newest
    return b"" if newest is None else newest.data


async def test_chains_are_added_and_go_with_their_cluster():
    async with showing(SimulatedNetrunner(nodes=1, health_delay=0)) as running:
        client = running.client
        async with events(client, interval="100ms") as reader:
            await begun(running)
            specs = {"blockchainSpecs": [{"vmName": "evm", "genesis": "{}"}]}
            made = (await client.post("/v1/blockchains", json=specs)).json()["chainIds"]
            event = is_event(await reader.next(), "chain.added", chain=made[0], node=None)
            assert (event["before"], event["after"]["vmName"]) == (None, "evm")
            await client.delete("/v1/cluster")
            is_event(await reader.next(), "node.removed")
            is_event(await reader.next(), "chain.removed", chain=made[0], after=None)
            is_event(await reader.next(), "cluster.stopped")


async def test_a_chain_changes():
    def with_chain(**fields: Any) -> m.ClusterInfo:
        return cluster("node1", custom_chains={"c": m.ChainInfo(chain_id="c", **fields)})

    backend = Stage(with_chain(genesis=b"\x00old"))
    async with (
        showing(backend) as running,
        events(running.client, interval="100ms") as reader,
    ):
        await begun(running)
        backend.state = with_chain(genesis=b"\xffnew")
        event = is_event(await reader.next(), "chain.changed", chain="c")
        assert (event["before"]["genesis"], event["after"]["genesis"]) == ("AG9sZA==", "/25ldw==")


async def test_another_process_that_pushes_is_a_restart():
    backend = Stage(cluster("node1", pid=17), pid=17)
    async with (
        showing(backend) as running,
        events(running.client, interval="100ms", status="true") as reader,
    ):
        assert (await reader.next()).id.split("-")[1] == "17"
        backend.state = cluster("node1", pid=4242)
        told = await reader.until(lambda event: event.type == "server.restarted")
        is_event(told, "server.restarted", before={"pid": 17}, after={"pid": 4242})
        assert told.id.split("-")[1] == "4242", "the id names the process that answers"
        notice = await reader.next()
        assert (notice.type, notice.id) == ("restart", "")
        assert notice.data == {"of": "server", "before": "17", "after": "4242"}
        state = await reader.next()
        assert (state.type, state.id.split("-")[1]) == ("status", "4242")
        # Told once.
        assert [event.type for event in await reader.some(3)] == ["status"] * 3


class Replaceable:
    """A server that is closed, and another that is started on its port."""

    def __init__(self, backend: object) -> None:
        self.server = NetrunnerServer(backend, identity_of("server"))

    async def __aenter__(self) -> Replaceable:
        await self.server.start(port=0)
        self.address = self.server.address
        return self

    async def replace(self, backend: object) -> None:
        await self.server.close()
        await self.start(backend)

    async def start(self, backend: object) -> None:
        self.server = NetrunnerServer(backend, identity_of("server"))
        await self.server.start(port=int(self.address.rpartition(":")[2]))

    async def __aexit__(self, *exc_info: object) -> None:
        await self.server.close()


async def test_a_server_in_the_place_of_another():
    """Lost, back, and another process by what it answers to Ping; the cluster is the same."""
    async with (
        Replaceable(Stage(cluster("node1"), pid=17)) as place,
        running_gateway(place) as running,
        events(running.client, interval="100ms") as reader,
        sse(running.client, interval="100ms") as states,
    ):
        first = await states.next()
        assert first.id.split("-")[1] == "17"
        await place.replace(Stage(cluster("node1"), pid=4242))
        lost = is_event(await reader.next(), "upstream.lost", before=None, after=None)
        assert lost["detail"]
        is_event(await reader.next(), "upstream.back", detail=None)
        told = is_event(await reader.next(), "server.restarted")
        assert (told["before"], told["after"]) == ({"pid": 17}, {"pid": 4242})
        notice = await states.until(lambda event: event.type == "restart")
        assert notice.data == {"of": "server", "before": "17", "after": "4242"}
        state = await states.next()
        assert (state.type, state.id.split("-")[1]) == ("status", "4242")
        await eventually(lambda: len(running.gateway.feed.journal) == 3)


async def test_a_server_that_comes_back_as_it_was():
    async with (
        Replaceable(Stage(cluster("node1"), pid=17)) as place,
        running_gateway(place) as running,
        events(running.client, interval="100ms") as reader,
    ):
        await begun(running)
        await place.server.close()
        is_event(await reader.next(), "upstream.lost")
        backend = Stage(cluster("node1", "node2"), pid=17)
        await place.start(backend)
        is_event(await reader.next(), "upstream.back")
        is_event(await reader.next(), "node.added", node="node2")


async def test_a_server_that_stays_away_is_lost_once():
    async with (
        Replaceable(Stage(cluster())) as place,
        running_gateway(place) as running,
        events(running.client, interval="100ms", status="true") as reader,
    ):
        await reader.until(lambda event: event.type == "status")
        await place.server.close()
        is_event(await reader.until(lambda event: event.type != "status"), "upstream.lost")
        assert (await reader.next()).type == "error"
        await reader.until(lambda event: "can't connect" in event.data.get("detail", ""))
        await place.start(Stage(cluster()))
        told = await reader.until(lambda event: event.type != "error")
        is_event(told, "upstream.back")
        assert (await reader.next()).type == "status"


async def test_a_server_that_refuses_is_not_lost():
    """It answers, after all."""

    class Refusing(Stage):
        async def stream_status(self, request: m.StreamStatusRequest) -> Any:
            self.pushes += 1
            if self.pushes == 2:
                raise RemoteError("not today")
            yield m.StreamStatusResponse(self.state)

    backend = Refusing(cluster("node1"))
    async with (
        showing(backend) as running,
        events(running.client, interval="100ms", status="true") as reader,
    ):
        kinds = [event.type for event in await reader.some(3)]
        assert kinds == ["status", "error", "status"]


def test_there_is_a_test_for_every_type():
    """A type that is added needs one."""
    here = Path(__file__)
    tests = here.read_text() + here.with_name("test_gateway_resume.py").read_text()
    for kind in EVENT_TYPES:
        assert re.search(rf'is_event\([^"]*, "{re.escape(kind)}"', tests), kind


# Which types, and what comes besides.


async def test_only_the_types_that_were_asked_for():
    backend = Stage(cluster("node1"))
    async with showing(backend) as running:
        one = events(running.client, interval="100ms", types="node.added")
        two = events(running.client, interval="100ms", types="node.added,cluster.unhealthy")
        async with one as adds, two as both:
            await begun(running)
            backend.state = cluster("node2", healthy=False)
            await eventually(lambda: len(running.gateway.feed.journal) == 3)
            backend.state = cluster("node2", "node3")
            assert [event.data["node"] for event in await adds.some(2)] == ["node2", "node3"]
            told = [(event.type, event.data["node"]) for event in await both.some(3)]
            assert told == [
                ("node.added", "node2"),
                ("cluster.unhealthy", None),
                ("node.added", "node3"),
            ]


async def test_a_type_that_there_is_not_is_refused():
    watched = Watched(SimulatedNetrunner())
    async with showing(watched) as running:
        for text in ("", "node", "node.exploded", "node.added,", "node.added, gap", "status", "*"):
            response = await running.client.get(EVENTS, params={"types": text})
            problem = is_problem(response, 422, "invalid_request", "StreamStatus")
            assert [item["field"] for item in problem["errors"]] == ["query.types"], text
        for name, text in (("interval", "99ms"), ("status", "perhaps")):
            response = await running.client.get(EVENTS, params={name: text})
            problem = is_problem(response, 422, "invalid_request", "StreamStatus")
            assert [item["field"] for item in problem["errors"]] == [f"query.{name}"]
        assert watched.received == []


async def test_all_types_may_be_named():
    async with (
        showing(SimulatedNetrunner(health_delay=0)) as running,
        events(running.client, interval="100ms", types=",".join(EVENT_TYPES)) as reader,
    ):
        await begun(running)
        await running.client.post("/v1/nodes/node1/pause")
        is_event(await reader.next(), "node.paused", node="node1")


async def test_states_come_in_between_where_they_are_asked_for():
    """An event comes before the first state that shows it, and numbers grow over both."""
    backend = Stage(cluster("node1"))
    async with (
        showing(backend) as running,
        events(running.client, interval="100ms", status="true") as reader,
    ):
        seen = await reader.some(2)
        assert [event.type for event in seen] == ["status"] * 2
        backend.state = cluster("node1", "node2")
        seen.append(await reader.until(lambda event: event.type != "status"))
        is_event(seen[-1], "node.added", node="node2")
        seen.append(await reader.next())
        assert set(seen[-1].data["clusterInfo"]["nodeInfos"]) == {"node1", "node2"}
        assert all(before.sequence < after.sequence for before, after in pairwise(seen))


async def test_events_do_not_wait_for_the_interval():
    """It is the time between two states; another reader makes the gateway look more often."""
    backend = Stage(cluster("node1"))
    async with (
        showing(backend) as running,
        events(running.client, interval="1h", status="true") as slow,
        sse(running.client, interval="100ms"),
    ):
        assert (await slow.next()).type == "status"
        await eventually(lambda: backend.intervals[-1] == pytest.approx(0.1))
        backend.state = cluster()
        is_event(await slow.next(), "node.removed")


async def test_programs_get_lines():
    backend = Stage(cluster("node1"))
    async with (
        showing(backend) as running,
        ndjson(running.client, EVENTS, interval="100ms") as bare,
        ndjson(running.client, EVENTS, interval="100ms", status="true") as both,
    ):
        state = await soon(anext(both))
        assert set(state["status"]["clusterInfo"]["nodeInfos"]) == {"node1"}
        backend.state = cluster("node1", "node2", pid=17)
        event = await soon(anext(bare))
        assert (event["type"], event["node"]) == ("node.added", "node2")
        is_documented(event)
        while "status" in (line := await soon(anext(both))):
            pass
        assert line == event
        backend.state = cluster("node1", "node2", pid=18)
        while "status" in (line := await soon(anext(both))):
            pass
        assert line["type"] == "server.restarted"
        assert line == await soon(anext(bare))
        restart = {"of": "server", "before": "17", "after": "18"}
        assert await soon(anext(both)) == {"restart": restart}
        assert (await soon(anext(both)))["status"]["clusterInfo"]["pid"] == 18


async def test_programs_get_errors_as_lines():
    async with (
        Replaceable(Stage(cluster())) as place,
        running_gateway(place) as running,
        ndjson(running.client, EVENTS, interval="100ms", status="true") as lines,
    ):
        assert "status" in await soon(anext(lines))
        await place.server.close()
        while "status" in (line := await soon(anext(lines))):
            pass
        assert line["type"] == "upstream.lost"
        assert (await soon(anext(lines)))["error"]["code"] == "upstream_unavailable"


# Where a reader begins.


async def test_a_reader_that_comes_later_gets_no_old_events():
    backend = Stage(cluster("node1"))
    async with showing(backend) as running, events(running.client, interval="100ms") as early:
        await begun(running)
        backend.state = cluster("node1", "node2")
        is_event(await early.next(), "node.added", node="node2")
        async with events(running.client, interval="100ms") as late:
            assert await late.opening()
            backend.state = cluster("node1", "node2", "node3")
            is_event(await late.next(), "node.added", node="node3")
            is_event(await early.next(), "node.added", node="node3")


async def test_a_reader_that_comes_after_a_pause_gets_no_old_events():
    """What nobody saw change is no event for somebody who was not there before either."""
    backend = Stage(cluster("node1"))
    async with showing(backend) as running:
        async with events(running.client, interval="100ms") as early:
            await begun(running)
            backend.state = cluster("node1", "node2")
            is_event(await early.next(), "node.added", node="node2")
        await idle(running)
        backend.state = cluster("node3")
        async with events(running.client, interval="100ms") as late:
            await begun(running)
            backend.state = cluster("node3", "node4")
            is_event(await late.next(), "node.added", node="node4")


async def test_a_reader_that_comes_while_the_server_is_away_hears_that():
    port = free_port()
    async with (
        running_gateway(f"127.0.0.1:{port}", ready=False) as running,
        events(running.client, interval="100ms") as reader,
    ):
        is_event(await reader.next(), "upstream.lost")
        again = NetrunnerServer(Stage(cluster("node1")), identity_of("server"))
        async with again.serving(port=port):
            is_event(await reader.next(), "upstream.back")


async def test_what_the_stream_says_of_itself():
    async with (
        showing(SimulatedNetrunner()) as running,
        running.client.stream("GET", EVENTS) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].partition(";")[0] == "text/event-stream"
        assert response.headers["cache-control"] == "no-store"
        assert "content-length" not in response.headers


async def test_silence_is_broken_by_comments(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(streams, "KEEP_ALIVE", 0.02)
    backend = Stage(cluster("node1"))
    async with (
        showing(backend) as running,
        events(running.client, interval="1h") as reader,
    ):
        waiting = asyncio.create_task(reader.next())
        await eventually(lambda: len(reader.comments) >= 3)
        assert set(reader.comments) == {"keep-alive"}
        waiting.cancel()
        await asyncio.wait([waiting])


# Stopped clusters, and what netrunner tells of them.


async def test_a_stopped_cluster_stays_stopped_when_it_can_not_be_asked_for():
    """Its last state goes on to be pushed; that a call fails does not make it run."""

    class Moody(SimulatedNetrunner):
        moody = False
        refused = 0

        async def status(self, request: m.StatusRequest) -> m.StatusResponse:
            if self.moody:
                self.refused += 1
                raise RemoteError("not today")
            return await super().status(request)

    backend = Moody(nodes=1, health_delay=0)
    async with showing(backend) as running:
        client = running.client
        async with (
            events(client, interval="100ms") as reader,
            sse(client, interval="100ms", changes="true") as states,
        ):
            assert (await states.next()).data["clusterInfo"]
            await client.delete("/v1/cluster")
            assert (await states.next()).data == {"clusterInfo": None}
            kinds = [event.type for event in await reader.some(2)]
            assert kinds == ["node.removed", "cluster.stopped"]
            told = len(running.gateway.feed.journal)
            backend.moody = True
            await eventually(lambda: backend.refused >= 3)
            backend.moody = False
            at = running.gateway.feed.newest.sequence
            await eventually(lambda: running.gateway.feed.newest.sequence >= at + 2)
            kept = [item.type for item in running.gateway.feed.journal.since(0)]
            assert kept[told:] == [], "nothing happened"


async def test_a_start_is_not_told_of_the_cluster_that_was_stopped_before():
    """It may fall between what is pushed and what is asked for."""

    class Old(Stage):
        """Pushes the stopped one while another runs already."""

        shown: m.ClusterInfo | None = None

        async def status(self, request: m.StatusRequest) -> m.StatusResponse:
            answer = await super().status(request)
            self.shown = self.state
            return answer

        async def stream_status(self, request: m.StreamStatusRequest) -> Any:
            yield m.StreamStatusResponse(before)
            while self.shown is None:
                yield m.StreamStatusResponse(replace(before, healthy=False))
                await asyncio.sleep(0.01)
            while True:
                yield m.StreamStatusResponse(self.state)
                await asyncio.sleep(0.01)

    before, after = cluster("old"), cluster("new", root_data_dir="/two")
    backend = Old()
    async with showing(backend) as running, events(running.client, interval="100ms") as reader:
        kinds = [event.type for event in await reader.some(2)]
        assert kinds == ["node.removed", "cluster.stopped"]
        backend.state = after
        started = is_event(await reader.next(), "cluster.started")
        assert started["after"]["rootDataDir"] == "/two"
        is_event(await reader.next(), "node.added", node="new")


# Access.


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def test_who_may_read_events(tmp_path: Path):
    """A read token is enough, and so is a ticket; nothing is not."""
    read, operate = new_token(), new_token()
    lines = (token_line("rita", "read", read), token_line("otto", "operate", operate))
    tokens = tmp_path / "tokens"
    tokens.write_text("\n".join(lines))
    backend = Stage(cluster("node1"))
    async with showing(backend, tokens=tokens) as running:
        client = running.client
        is_problem(await client.get(EVENTS), 401, "unauthenticated")
        for wrong in (bearer(new_token()), bearer("x")):
            is_problem(await client.get(EVENTS, headers=wrong), 401, "unauthenticated")
        answer = await client.get(EVENTS, params={"ticket": "1.2.rita"})
        is_problem(answer, 401, "unauthenticated")
        for secret in (read, operate):
            answer = await client.post("/v1/stream-tickets", headers=bearer(secret))
            ticket = answer.json()["ticket"]
            async with (
                _with_token(client, secret) as by_token,
                events(client, interval="100ms", ticket=ticket) as by_ticket,
            ):
                await begun(running)
                name = f"node-{secret == read}"
                backend.state = cluster("node1", name)
                for reader in (by_token, by_ticket):
                    told = await reader.until(lambda event: event.type == "node.added")
                    is_event(told, "node.added", node=name)
            await idle(running)


@asynccontextmanager
async def _with_token(client: httpx.AsyncClient, secret: str) -> AsyncIterator[SseReader]:
    params = {"interval": "100ms"}
    async with (
        client.stream("GET", EVENTS, params=params, headers=bearer(secret)) as response,
        aclosing(SseReader(response)) as reader,
    ):
        yield reader


async def test_events_end_with_their_token(tmp_path: Path):
    read, operate = new_token(), new_token()
    tokens = tmp_path / "tokens"
    lines = [token_line("rita", "read", read), token_line("otto", "operate", operate)]
    tokens.write_text("\n".join(lines))
    backend = Stage(cluster("node1"))
    async with showing(backend, tokens=tokens) as running:
        client = running.client
        answer = await client.post("/v1/stream-tickets", headers=bearer(read))
        ticket = answer.json()["ticket"]
        async with (
            _with_token(client, read) as by_token,
            events(client, ticket=ticket, interval="1h") as by_ticket,
            events(client, ticket=ticket, interval="1h", status="true") as with_states,
            ndjson(client, EVENTS, ticket=ticket, interval="1h") as by_lines,
            _with_token(client, operate) as other,
        ):
            await begun(running)
            await eventually(lambda: running.gateway.feed.readers == 5)
            tokens.write_text(lines[1])
            running.server.reload()
            for reader in (by_token, by_ticket, with_states):
                end = await reader.until(lambda event: event.type == "end")
                assert (end.id, end.data["code"]) == ("", "unauthenticated")
                assert await reader.ends()
            rest = [line async for line in by_lines]
            assert [list(line) for line in rest] == [["end"]]
            assert rest[0]["end"]["code"] == "unauthenticated"
            backend.state = cluster("node1", "node2")
            is_event(await other.next(), "node.added")


# The hub: many readers, one stream of the server's.

INTERVALS = ("100ms", "300ms", "1s", "1m", "1h")


@asynccontextmanager
async def crowd(client: httpx.AsyncClient, count: int) -> AsyncIterator[list[SseReader]]:
    """Readers of both kinds at mixed intervals; the first is as quick as any."""
    async with AsyncExitStack() as stack:
        readers = []
        for number in range(count):
            interval = INTERVALS[number % len(INTERVALS)]
            match number % 3:
                case 0:
                    reader = sse(client, interval=interval)
                case 1:
                    reader = events(client, interval=interval, status="true")
                case _:
                    reader = events(client, interval=interval)
            readers.append(await stack.enter_async_context(reader))
        yield readers


@pytest.mark.parametrize("count", [1, 200])
async def test_upstream_it_is_the_same_for_any_number_of_readers(count: int):
    backend = Stage(cluster("node1", healthy=False))
    watched = Watched(backend)
    async with serving(watched) as server, running_gateway(server) as running:
        async with crowd(running.client, count) as readers:
            await readers[0].next()
            await begun(running)
            await eventually(lambda: running.gateway.feed.readers == count)
            assert backend.intervals == [pytest.approx(0.1)]
            assert watched.streams == backend.most_streams == 1
            watched.received.clear()
            pushes = backend.pushes
            await eventually(lambda: backend.pushes >= pushes + 5)
            pushes = backend.pushes - pushes
            assert set(watched.counts) == {"status"}, "asked whether it is stopped, and no more"
            assert pushes - 2 <= watched.counts["status"] <= pushes + 2
            backend.state = cluster("node1", "node2", healthy=False)
            for reader in readers[1::3] + readers[2::3]:
                told = await reader.until(lambda event: event.type not in ("status", "restart"))
                is_event(told, "node.added", node="node2")
        await eventually(lambda: watched.streams == 0)
        assert backend.most_streams == 1


async def test_all_readers_get_the_same_bytes():
    async def blocks(path: str, **params: str) -> dict[bytes, bytes]:
        """What was told until the third node came, by id."""
        found, data = {}, b""
        async with (
            client.stream("GET", path, params=params) as response,
            aclosing(response.aiter_raw()) as pieces,
        ):
            while b"node3" not in data or not data.endswith(b"\n\n"):
                data += await soon(anext(pieces))
        for block in data.split(b"\n\n")[:-1]:
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n"))
            if b"data" in fields:
                found[fields[b"id"]] = block
        return found

    backend = Stage(cluster("node1"))
    async with showing(backend) as running:
        client = running.client
        fast = {"interval": "100ms"}
        tasks = [
            asyncio.create_task(blocks(path, **fast, **more))
            for path, more in (
                (STATUS, {}),
                (STATUS, {}),
                (EVENTS, {}),
                (EVENTS, {"status": "true"}),
                (EVENTS, {"status": "true"}),
            )
        ]
        await eventually(lambda: running.gateway.feed.readers == 5)
        await begun(running)
        backend.state = cluster("node1", "node2")
        await eventually(lambda: len(running.gateway.feed.journal) == 1)
        backend.state = cluster("node1", "node2", "node3")
        states, same_states, bare, both, same_both = await asyncio.gather(*tasks)
    for one, other in ((states, same_states), (bare, both), (states, both), (both, same_both)):
        shared = set(one) & set(other)
        assert len(shared) >= 2
        assert {one[name] for name in shared} == {other[name] for name in shared}
        assert all(one[name] == other[name] for name in shared)


async def test_json_is_made_once_per_state(monkeypatch: pytest.MonkeyPatch):
    made = []

    def to_json(message: Any) -> bytes:
        made.append(message)
        return original(message)

    original = schema.to_json
    monkeypatch.setattr(schema, "to_json", to_json)
    backend = Stage(cluster("node0"))
    async with showing(backend) as running, crowd(running.client, 30) as readers:
        await readers[0].next()
        await eventually(lambda: running.gateway.feed.readers == 30)
        for number in range(1, 4):
            pushes = backend.pushes
            await eventually(lambda pushes=pushes: backend.pushes >= pushes + 3)
            backend.state = cluster(f"node{number}")
            for reader in readers[2::3]:
                told = await reader.until(lambda event: event.type == "node.added")
                is_event(told, "node.added", node=f"node{number}")
        states = [message.cluster_info for message in made]
        assert states == [cluster(f"node{number}") for number in range(4)]


async def test_two_streams_of_the_server_are_never_read_at_the_same_time():
    """However readers come and go, also all of them for a moment."""
    backend = Stage(cluster("node1"))
    async with showing(backend) as running:
        client = running.client
        async with AsyncExitStack() as stack:
            for interval in ("1h", "1m", "10s", "1s", "500ms", "200ms", "100ms"):
                await stack.enter_async_context(sse(client, interval=interval))
        for number in range(30):
            interval = INTERVALS[number % len(INTERVALS)]
            async with sse(client, interval=interval) as reader:
                await reader.next()
        await idle(running)
        await eventually(lambda: not backend.streams)
        assert len(backend.intervals) > 10
        assert backend.most_streams == 1


class SlowToClose:
    """A pool's streams, whose connections take a moment to be gone."""

    def __init__(self, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        pool = running.gateway.pool
        self._bodies = pool.bodies
        self.open = self.most = 0
        monkeypatch.setattr(pool, "bodies", self.bodies)

    async def bodies(self, *arguments: Any) -> Any:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            async with aclosing(self._bodies(*arguments)) as bodies:
                async for body in bodies:
                    yield body
        finally:
            await asyncio.sleep(0.1)
            self.open -= 1


async def test_a_stream_waits_for_the_end_of_the_one_before(monkeypatch: pytest.MonkeyPatch):
    """Also where all readers left, and another came at once."""
    backend = Stage(cluster("node1"))
    async with showing(backend) as running:
        slow = SlowToClose(running, monkeypatch)
        for _ in range(3):
            async with sse(running.client, interval="100ms") as reader:
                await reader.next()
            await idle(running)
        await eventually(lambda: not slow.open)
        assert slow.most == backend.most_streams == 1


async def test_intervals_that_shrink_at_the_same_moment(monkeypatch: pytest.MonkeyPatch):
    """The last of the streams waits for the first, also past those that never began."""
    backend = Stage(cluster("node1"))
    async with showing(backend) as running, AsyncExitStack() as stack:
        slow = SlowToClose(running, monkeypatch)
        first = await stack.enter_async_context(sse(running.client, interval="1h"))
        await first.next()
        for interval in ("10s", "1s", "100ms"):
            await stack.enter_async_context(sse(running.client, interval=interval))
        await eventually(lambda: backend.intervals[-1] == pytest.approx(0.1))
        await stack.aclose()
        await eventually(lambda: not slow.open)
        assert slow.most == backend.most_streams == 1


async def test_a_reader_that_reads_nothing_keeps_one_state_at_most_and_nobody_waits():
    filling = "x" * 4_000_000
    backend = Stage(cluster("node1", root_data_dir="/first" + filling))
    async with showing(backend) as running:
        feed = running.gateway.feed
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=2**14)
        path = f"{STATUS}?interval=0.1"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        try:
            await eventually(lambda: feed.newest and feed.newest.sequence >= 5)
            async with sse(running.client, interval="100ms") as other:
                seen = await other.some(5)
                assert seen[-1].sequence - seen[0].sequence < 5 * 4, "it is not held up"
            unsent = [each.unsent for each in running.server.connections.all]
            # The other one's connection, which ends just now, may have something left too.
            assert 0 < max(unsent) < len(filling) + 100_000
            backend.state = cluster("node1", root_data_dir="/newest")
            await eventually(lambda: b'"/newest"' in _newest(running))
            newest, data = feed.newest.sequence, b""
            while b'"/newest"' not in data:
                data = data[-100_000:] + await soon(reader.read(2**16))
            ids = [line for line in data.split(b"\n") if line.startswith(b"id: ")]
            assert int(ids[-1].rpartition(b"-")[2]) >= newest
        finally:
            writer.transport.abort()
        await idle(running)


async def test_a_reader_that_is_too_slow_for_the_events_is_told_of_a_gap(
    monkeypatch: pytest.MonkeyPatch,
):
    """Those that wait for it are bounded; the states between them are not even kept."""

    def changed(number: int) -> m.ClusterInfo:
        node = m.NodeInfo(name=f"node{number}", exec_path="x" * 2_000_000)
        return cluster(node_infos={node.name: node})

    backend = Stage(changed(0))
    async with showing(backend) as running, events(running.client, interval="100ms") as quick:
        monkeypatch.setattr(running.gateway.feed.journal, "_max_events", 2)
        await begun(running)
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=2**14)
        try:
            writer.write(f"GET {EVENTS} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert b"200" in await soon(reader.readline())
            for number in range(1, 9):
                backend.state = changed(number)
                told = [event.type for event in await quick.some(2)]
                assert told == ["node.removed", "node.added"]
            unsent = sum(each.unsent for each in running.server.connections.all)
            assert 0 < unsent < 5_000_000, "one event, or two"
            data, kinds = b"", []
            while not data.endswith(b'"node":"node8"'):
                data = (data + await soon(reader.read(2**16)))[-200_000:]
                *lines, data = data.split(b"\n")
                kinds += [line[7:].decode().strip() for line in lines if line[:7] == b"event: "]
                if b'"node":"node8"' in data:
                    break
            assert kinds[-3:] == ["gap", "node.removed", "node.added"]
            assert kinds.count("gap") == 1
        finally:
            writer.transport.abort()


async def test_readers_that_leave_while_they_are_told():
    backend = Stage(cluster("node1", root_data_dir="/" + "x" * 1_000_000))
    async with showing(backend) as running, sse(running.client, interval="100ms") as stays:
        await stays.next()
        for path in (STATUS, f"{EVENTS}?status=true") * 5:
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=2**14)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert b"200" in await soon(reader.readline())
            writer.transport.abort()
        await eventually(lambda: running.gateway.feed.readers == 1)
        await eventually(lambda: len(running.server.connections.all) == 1)
        await stays.some(3)


async def test_readers_of_events_leave_no_task_behind():
    backend = Stage(cluster("node1"))
    async with showing(backend) as running:
        await running.client.get("/v1/status")
        before = len(asyncio.all_tasks())
        for _ in range(3):
            async with crowd(running.client, 12) as readers:
                await readers[0].next()
        await idle(running)
        await eventually(lambda: not backend.streams)
        await running.client.aclose()
        await eventually(lambda: len(asyncio.all_tasks()) <= before)


async def test_readers_of_both_kinds_are_counted_and_bounded():
    async with (
        showing(Stage(cluster()), max_streams=2) as running,
        sse(running.client) as one,
        events(running.client, status="true") as two,
    ):
        await one.next()
        await two.next()
        is_problem(await running.client.get(EVENTS), 503, "overloaded", "StreamStatus")
        text = (await running.client.get("/metrics")).text
        assert "zap_gateway_stream_readers 2.0" in text


async def test_calls_that_are_under_way_do_not_keep_readers_from_the_state():
    """The stream takes no place among them."""
    release = asyncio.Event()

    class Slow(Stage):
        waiting = 0

        async def health(self, request: m.HealthRequest) -> m.HealthResponse:
            self.waiting += 1
            await release.wait()
            return m.HealthResponse(self.state)

    backend = Slow(cluster("node1"))
    async with showing(backend, max_calls=1) as running:
        call = asyncio.create_task(running.client.get("/v1/health"))
        try:
            await eventually(lambda: backend.waiting)
            async with events(running.client, interval="100ms", status="true") as reader:
                assert (await reader.next()).type == "status"
        finally:
            release.set()
            await soon(call)


@pytest.mark.parametrize("path", [STATUS, EVENTS])
async def test_streams_end_with_a_word_when_the_gateway_stops(path: str):
    async with showing(Stage(cluster("node1"))) as running:
        reading: Callable[..., Any] = sse if path == STATUS else events
        async with (
            reading(running.client, interval="1h") as reader,
            ndjson(running.client, path, interval="1h") as lines,
        ):
            await eventually(lambda: running.gateway.feed.readers == 2)
            await begun(running)
            running.tell_to_stop()
            end = await reader.until(lambda event: event.type == "end")
            assert (end.id, end.data["code"], end.data["status"]) == ("", "shutting_down", 503)
            assert await reader.ends()
            async with asyncio.timeout(HANG):
                rest = [line async for line in lines]
            assert rest[-1]["end"]["code"] == "shutting_down"
            assert sum("end" in line for line in rest) == 1
        await soon(running.serving)
