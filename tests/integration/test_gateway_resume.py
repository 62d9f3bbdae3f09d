"""Last-Event-ID on both streams: nothing twice, nothing lost, and a word where some is."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from gateway import streams
from gateway.auth import token_line
from gateway.journal import parse_position
from tests.integration.gateway_helpers import (
    Running,
    SseEvent,
    SseReader,
    Stage,
    events,
    ndjson,
    running_gateway,
    sse,
)
from tests.integration.test_gateway_events import (
    EVENTS,
    STATUS,
    Replaceable,
    begun,
    cluster,
    idle,
    is_event,
    showing,
)
from tests.integration.zap_helpers import eventually, serving, soon

FAST: dict[str, Any] = {"interval": "100ms"}

GARBAGE = (
    "17",
    "x",
    "5f0c91d2-4242",
    "5f0c91d2-4242-17-1",
    "5F0C91D2-4242-17",
    "-----",
    "%00",
    "9" * 1000,
)


def names(told: list[SseEvent]) -> list[str | None]:
    return [event.data["node"] for event in told]


async def grown(running: Running, backend: Stage, *nodes: str) -> None:
    """Add nodes one at a time, each seen by the feed."""
    assert backend.state is not None
    for name in nodes:
        told = len(running.gateway.feed.journal)
        backend.state = cluster(*backend.state.node_infos, name)
        await eventually(lambda told=told: len(running.gateway.feed.journal) > told)


@pytest.fixture
def talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments come at once where there is nothing to tell, so that silence can be seen."""
    monkeypatch.setattr(streams, "KEEP_ALIVE", 0.02)


async def next_if_any(reader: SseReader) -> SseEvent | None:
    """The next event; None where there is none, for a talkative gateway."""
    silence = len(reader.comments) + 3
    waiting = asyncio.create_task(reader.next())
    await eventually(lambda: waiting.done() or len(reader.comments) >= silence)
    if waiting.done():
        return waiting.result()
    waiting.cancel()
    await asyncio.wait((waiting,))
    return None


def with_sequence(told_id: str, sequence: int) -> str:
    return f"{told_id.rpartition('-')[0]}-{sequence}"


def of_another_process(told_id: str) -> str:
    epoch, _, rest = told_id.partition("-")
    return f"{int(epoch, 16) ^ 1:08x}-{rest}"


# Ids.


async def test_ids_are_unique_and_grow_over_both_streams():
    backend = Stage(cluster("a", pid=17))
    async with showing(backend) as running:
        client = running.client
        async with (
            sse(client, **FAST) as states,
            events(client, **FAST) as bare,
            events(client, **FAST, status="true") as both,
        ):
            await begun(running)
            await grown(running, backend, "b", "c")
            told = {
                "bare": await bare.some(2),
                "both": [await both.next()],
                "states": [await states.next()],
            }
            for name, reader in (("both", both), ("states", states)):
                while told[name][-1].sequence < told["bare"][-1].sequence + 2:
                    told[name].append(await reader.next())
        by_id: dict[str, SseEvent] = {}
        for seen in told.values():
            assert all(before.sequence < after.sequence for before, after in pairwise(seen))
            for event in seen:
                assert by_id.setdefault(event.id, event) == event, "one id, one thing"
                position = parse_position(event.id)
                assert position is not None
                assert (position.epoch, position.pid) == (running.gateway.feed.epoch, 17)
        sequences = [event.sequence for event in by_id.values()]
        assert len(sequences) == len(set(sequences))
        assert {event.id for event in told["bare"]} <= {event.id for event in told["both"]}


async def test_the_server_is_not_known_where_it_does_not_say():
    async with (
        showing(Stage(cluster("a"))) as running,
        sse(running.client, **FAST) as reader,
    ):
        assert (await reader.next()).id.split("-")[1] == "0"


# Events.


async def test_missed_events_come_once_and_in_order():
    backend = Stage(cluster("a"))
    async with showing(backend) as running, events(running.client, **FAST) as stays:
        async with events(running.client, **FAST) as leaves:
            await begun(running)
            await grown(running, backend, "b")
            last = await leaves.next()
            is_event(last, "node.added", node="b")
        await grown(running, backend, "c", "d", "e")
        async with events(running.client, last_id=last.id, **FAST) as back:
            missed = await back.some(3)
            assert names(missed) == ["c", "d", "e"]
            await grown(running, backend, "f")
            assert names(await back.some(1)) == ["f"]
        assert names(told := await stays.some(5)) == ["b", "c", "d", "e", "f"]
        assert [event.id for event in told[1:4]] == [event.id for event in missed]


async def test_an_opening_is_a_place_to_come_back_to():
    """Before anything was told: what happens in between is not lost."""
    backend = Stage(cluster("a"))
    async with showing(backend) as running, events(running.client, **FAST):
        await begun(running)
        async with events(running.client, **FAST) as reader:
            place = await reader.opening()
            assert reader.retry == 1000
        assert parse_position(place) is not None
        await grown(running, backend, "b")
        async with events(running.client, last_id=place, **FAST) as back:
            assert names(await back.some(1)) == ["b"]


@pytest.mark.usefixtures("talkative")
async def test_the_first_reader_gets_a_place_too():
    """A page that was open for an hour without an event, and loses its connection, must know."""
    backend = Stage(cluster("a"))
    async with showing(backend) as running:
        async with events(running.client, **FAST) as reader:
            await begun(running)
            assert await next_if_any(reader) is None
            place = reader.last_id
        assert parse_position(place) is not None
        await idle(running)
        backend.state = cluster("a", "b")
        async with events(running.client, last_id=place, **FAST) as back:
            is_event(await back.next(), "gap")
            assert names(await back.some(1)) == ["b"]


async def test_nothing_is_told_where_nothing_was_missed():
    backend = Stage(cluster("a"))
    async with showing(backend) as running, events(running.client, **FAST) as stays:
        await begun(running)
        await grown(running, backend, "b")
        last = (await stays.next()).id
        async with events(running.client, last_id=last, **FAST) as back:
            await back.opening()
            await grown(running, backend, "c")
            assert names(await back.some(1)) == ["c"]


async def test_missed_events_are_those_of_the_types_asked_for():
    backend = Stage(cluster("a"))
    async with showing(backend) as running, events(running.client, **FAST) as stays:
        await begun(running)
        await grown(running, backend, "b")
        last = (await stays.next()).id
        backend.state = cluster("c")
        await eventually(lambda: len(running.gateway.feed.journal) == 4)
        kinds = "node.added,cluster.stopped"
        async with events(running.client, last_id=last, types=kinds, **FAST) as back:
            assert names(await back.some(1)) == ["c"]


async def test_events_and_states_are_told_once_to_who_reads_both():
    backend = Stage(cluster("a"))
    async with showing(backend) as running, sse(running.client, **FAST):
        told: list[SseEvent] = []
        last = ""
        for name in ("b", "c", "d"):
            await begun(running)
            async with events(running.client, last_id=last, status="true", **FAST) as reader:
                told += await reader.some(2)
                await grown(running, backend, name)
                told.append(await reader.until(lambda event: event.type == "node.added"))
                last = told[-1].id
        sequences = [event.sequence for event in told]
        assert sequences == sorted(set(sequences))
        assert [event.data["node"] for event in told if event.type == "node.added"] == [
            "b",
            "c",
            "d",
        ]
        assert {event.type for event in told} == {"status", "node.added"}


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_an_id_that_is_none_is_a_gap(garbage: str):
    backend = Stage(cluster("a"))
    async with showing(backend) as running, sse(running.client, **FAST):
        await begun(running)
        async with events(running.client, last_id=garbage, types="node.added", **FAST) as reader:
            gap = is_event(await reader.next(), "gap", node=None, before=None, after=None)
            assert "not to be had" in gap["detail"]
            await grown(running, backend, "b")
            is_event(await reader.next(), "node.added", node="b")


async def test_an_id_from_the_future_is_a_gap():
    backend = Stage(cluster("a"))
    async with showing(backend) as running, sse(running.client, **FAST) as states:
        future = with_sequence((await states.next()).id, 10**9)
        async with events(running.client, last_id=future, **FAST) as reader:
            is_event(await reader.next(), "gap")
            await grown(running, backend, "b")
            is_event(await reader.next(), "node.added", node="b")


async def test_an_id_of_another_process_is_a_gap_and_what_this_one_knows():
    backend = Stage(cluster("a"))
    async with showing(backend) as running, events(running.client, **FAST) as stays:
        await begun(running)
        await grown(running, backend, "b", "c")
        told = await stays.some(2)
        other = of_another_process(told[0].id)
        async with events(running.client, last_id=other, **FAST) as reader:
            gap = await reader.next()
            assert "another process" in is_event(gap, "gap")["detail"]
            known = await reader.some(2)
            assert [event.id for event in known] == [event.id for event in told]
            assert gap.sequence < known[0].sequence
        # With the id of the gap there is no other gap.
        async with events(running.client, last_id=gap.id, **FAST) as reader:
            assert [event.id for event in await reader.some(2)] == [event.id for event in told]


async def test_a_gateway_in_the_place_of_another():
    """The client's last id is of the process before."""
    backend = Stage(cluster("a", pid=17))
    async with serving(backend) as server:
        async with (
            running_gateway(server) as running,
            events(running.client, status="true", **FAST) as reader,
        ):
            last = await reader.next()
        async with running_gateway(server) as running:
            async with events(running.client, last_id=last.id, status="true", **FAST) as reader:
                is_event(await reader.next(), "gap")
                restart = await reader.next()
                assert (restart.type, restart.id) == ("restart", "")
                after = running.gateway.feed.epoch
                assert restart.data == {"of": "gateway", "before": last.epoch, "after": after}
                assert (await reader.next()).type == "status"
            await idle(running)
            async with ndjson(running.client, EVENTS, last_id=last.id, **FAST) as lines:
                assert (await soon(anext(lines)))["type"] == "gap"


@pytest.mark.usefixtures("talkative")
async def test_a_gap_is_not_lost_with_the_connection():
    """Who lost it before the gap came must be told when he is back."""
    backend = Stage(cluster("a"))
    async with showing(backend) as running, sse(running.client, **FAST):
        await begun(running)
        for last in ("garbage", of_another_process(str(running.gateway.feed.position))):
            async with events(running.client, last_id=last, **FAST) as reader:
                place = await reader.opening()
            async with events(running.client, last_id=place or last, **FAST) as reader:
                gap = await next_if_any(reader)
                assert gap is not None, place
                is_event(gap, "gap")


async def test_so_many_missed_that_not_all_are_kept(monkeypatch: pytest.MonkeyPatch):
    backend = Stage(cluster("a"))
    async with showing(backend) as running, events(running.client, **FAST) as stays:
        journal = running.gateway.feed.journal
        monkeypatch.setattr(journal, "_max_events", 3)
        await begun(running)
        await grown(running, backend, "b")
        first = await stays.next()
        for count, name in enumerate("cdefg", 1):
            backend.state = cluster(*(backend.state or cluster()).node_infos, name)
            is_event(await stays.next(), "node.added", node=name)
            gaps = count > 3
            async with events(running.client, last_id=first.id, **FAST) as back:
                told = await back.some(min(count, 3) + gaps)
                kinds = ["gap"] * gaps + ["node.added"] * min(count, 3)
                assert [event.type for event in told] == kinds
                assert names(told[gaps:]) == list("cdefg"[:count][-3:])
        sequences = [event.sequence for event in told]
        assert sequences == sorted(set(sequences))
        assert "so much" in told[0].data["detail"]
        async with events(running.client, last_id=told[0].id, **FAST) as back:
            assert [event.id for event in await back.some(3)] == [event.id for event in told[1:]]


async def test_too_many_bytes_missed(monkeypatch: pytest.MonkeyPatch):
    backend = Stage(cluster("a"))
    async with showing(backend) as running, events(running.client, **FAST) as stays:
        monkeypatch.setattr(running.gateway.feed.journal, "_max_bytes", 1)
        await begun(running)
        await grown(running, backend, "b")
        first = await stays.next()
        for name in "cd":
            backend.state = cluster(*(backend.state or cluster()).node_infos, name)
            await stays.next()
        async with events(running.client, last_id=first.id, **FAST) as back:
            is_event(await back.next(), "gap")
            is_event(await back.next(), "node.added", node="d")


async def test_what_nobody_saw_is_a_gap_and_then_its_outcome():
    backend = Stage(cluster("a", "b"))
    async with showing(backend) as running:
        async with events(running.client, status="true", **FAST) as reader:
            last = (await reader.next()).id
        await idle(running)
        backend.state = cluster("b", "c", healthy=False)
        async with events(running.client, last_id=last, **FAST) as reader:
            told = await reader.some(4)
            assert [event.type for event in told] == [
                "gap",
                "node.removed",
                "node.added",
                "cluster.unhealthy",
            ]
            assert "nobody read" in is_event(told[0], "gap")["detail"]
            sequences = [event.sequence for event in told]
            assert sequences == sorted(set(sequences))
            await grown(running, backend, "d")
            kinds = [(await reader.next()).type for _ in range(2)]
            assert sorted(kinds) == ["cluster.healthy", "node.added"]
        # Told already: not again.
        async with events(running.client, last_id=told[1].id, **FAST) as reader:
            again = await reader.some(2)
            assert [event.id for event in again] == [event.id for event in told[2:]]


async def test_a_gap_comes_whatever_types_are_asked_for():
    backend = Stage(cluster("a"))
    async with showing(backend) as running:
        async with events(running.client, status="true", **FAST) as reader:
            last = (await reader.next()).id
        await idle(running)
        async with events(running.client, last_id=last, types="node.paused", **FAST) as reader:
            is_event(await reader.next(), "gap")


# States.


async def test_the_newest_state_comes_if_one_was_missed():
    """One, at once, however many were missed and however long the interval is."""
    backend = Stage(cluster("a"))
    async with showing(backend) as running, sse(running.client, **FAST) as stays:
        first = await stays.next()
        newest = (await stays.some(3))[-1]
        async with sse(running.client, last_id=first.id, interval="1h") as back:
            event = await back.next()
            assert (event.type, event.data) == ("status", newest.data)
            assert event.sequence >= newest.sequence


async def test_no_state_is_told_twice():
    backend = Stage(cluster("a"))
    async with showing(backend) as running, sse(running.client, **FAST):
        told: list[SseEvent] = []
        for _ in range(5):
            last = told[-1].id if told else ""
            async with sse(running.client, last_id=last, **FAST) as reader:
                told += await reader.some(2)
        sequences = [event.sequence for event in told]
        assert sequences == sorted(set(sequences))
        assert {event.type for event in told} == {"status"}


async def test_who_wants_changes_gets_the_state_only_if_it_is_another():
    backend = Stage(cluster("a"))
    async with showing(backend) as running, sse(running.client, **FAST) as stays:
        wants: dict[str, Any] = {**FAST, "changes": "true"}
        async with sse(running.client, **wants) as reader:
            first = await reader.next()
        await stays.until(lambda event: event.sequence > first.sequence + 2)
        async with sse(running.client, last_id=first.id, **wants) as back:
            assert await back.opening() == ""
            at = running.gateway.feed.newest.sequence
            await eventually(lambda: running.gateway.feed.newest.sequence > at + 2)
            backend.state = cluster("b")
            second = await back.next()
            assert set(second.data["clusterInfo"]["nodeInfos"]) == {"b"}
        backend.state = cluster("c")
        await stays.until(lambda event: "c" in event.data["clusterInfo"]["nodeInfos"])
        async with sse(running.client, last_id=second.id, **wants) as back:
            assert set((await back.next()).data["clusterInfo"]["nodeInfos"]) == {"c"}


async def test_who_wants_changes_gets_none_also_where_nobody_read_meanwhile():
    backend = Stage(cluster("a"))
    async with showing(backend) as running:
        wants: dict[str, Any] = {**FAST, "changes": "true"}
        async with sse(running.client, **wants) as reader:
            first = await reader.next()
        await idle(running)
        async with sse(running.client, last_id=first.id, **wants) as back:
            await begun(running)
            at = running.gateway.feed.newest.sequence
            await eventually(lambda: running.gateway.feed.newest.sequence > at + 2)
            backend.state = cluster("b")
            assert set((await back.next()).data["clusterInfo"]["nodeInfos"]) == {"b"}


@pytest.mark.parametrize("last", [*GARBAGE, "future"])
async def test_an_id_that_is_none_makes_a_first_reader(last: str):
    async with (
        showing(Stage(cluster("a"))) as running,
        sse(running.client, **FAST) as stays,
    ):
        first = await stays.next()
        if last == "future":
            last = with_sequence(first.id, 10**9)
        wants: dict[str, Any] = {"interval": "1h", "changes": "true"}
        async with sse(running.client, last_id=last, **wants) as reader:
            event = await reader.next()
            assert (event.type, event.data) == ("status", first.data)


@pytest.mark.parametrize("changes", ["true", "false"])
async def test_another_process_of_the_gateway_is_a_restart_and_then_the_state(changes: str):
    backend = Stage(cluster("a", pid=17))
    async with serving(backend) as server:
        async with running_gateway(server) as running, sse(running.client, **FAST) as reader:
            last = await reader.next()
        async with running_gateway(server) as running:
            after = running.gateway.feed.epoch
            expected = {"of": "gateway", "before": last.epoch, "after": after}
            async with sse(running.client, last_id=last.id, changes=changes, **FAST) as reader:
                restart = await reader.next()
                assert (restart.type, restart.id, restart.data) == ("restart", "", expected)
                state = await reader.next()
                assert (state.type, state.epoch, state.data) == ("status", after, last.data)
            async with ndjson(running.client, STATUS, last_id=last.id, **FAST) as lines:
                assert await soon(anext(lines)) == {"restart": expected}
                assert await soon(anext(lines)) == last.data
                assert "restart" not in await soon(anext(lines)), "told once"


async def test_another_process_of_both():
    async with (
        showing(Stage(cluster("a", pid=17))) as running,
        sse(running.client, **FAST) as reader,
    ):
        last = await reader.next()
    async with (
        showing(Stage(cluster("a", pid=18))) as running,
        sse(running.client, last_id=last.id, **FAST) as reader,
    ):
        told = await reader.some(3)
        assert [event.type for event in told] == ["restart", "restart", "status"]
        assert [event.data["of"] for event in told[:2]] == ["gateway", "server"]
        assert (told[1].data["before"], told[1].data["after"]) == ("17", "18")


async def test_another_process_of_the_server_while_nobody_read():
    async with (
        Replaceable(Stage(cluster("a"), pid=17)) as place,
        running_gateway(place) as running,
    ):
        async with sse(running.client, **FAST) as reader:
            last = await reader.next()
        await idle(running)
        await place.replace(Stage(cluster("a"), pid=18))
        async with (
            sse(running.client, last_id=last.id, **FAST) as states,
            events(running.client, last_id=last.id, **FAST) as changes,
        ):
            restart = await states.until(lambda event: event.type == "restart")
            assert restart.data == {"of": "server", "before": "17", "after": "18"}
            assert (await states.next()).id.split("-")[1] == "18"
            told = await changes.until(lambda event: event.type == "server.restarted")
            is_event(told, "server.restarted", before={"pid": 17}, after={"pid": 18})


@pytest.mark.usefixtures("talkative")
async def test_who_wants_changes_hears_of_another_server_that_shows_the_same():
    """As two without a cluster do."""
    async with (
        Replaceable(Stage(pid=17)) as place,
        running_gateway(place) as running,
    ):
        wants: dict[str, Any] = {**FAST, "changes": "true"}
        async with sse(running.client, **wants) as reader:
            last = await reader.next()
            assert (last.data, last.id.split("-")[1]) == ({"clusterInfo": None}, "17")
        await idle(running)
        pool = running.gateway.pool
        await place.server.close()
        await eventually(lambda: not pool.connected_now)
        await place.start(Stage(pid=18))
        await eventually(lambda: pool.connected_now)
        async with sse(running.client, last_id=last.id, **wants) as reader:
            await begun(running)
            at = running.gateway.feed.newest.sequence
            await eventually(lambda: running.gateway.feed.newest.sequence > at + 2)
            restart = await next_if_any(reader)
            assert restart is not None
            assert restart.data == {"of": "server", "before": "17", "after": "18"}


# From one stream to the other.


async def test_an_id_of_one_stream_works_on_the_other():
    backend = Stage(cluster("a"))
    async with showing(backend) as running, events(running.client, **FAST) as stays:
        async with sse(running.client, **FAST) as states:
            state = await states.next()
        await grown(running, backend, "b")
        async with events(running.client, last_id=state.id, **FAST) as changes:
            added = await changes.next()
            is_event(added, "node.added", node="b")
        assert (await stays.next()).id == added.id
        wants: dict[str, Any] = {**FAST, "changes": "true"}
        async with sse(running.client, last_id=added.id, **wants) as states:
            assert set((await states.next()).data["clusterInfo"]["nodeInfos"]) == {"a", "b"}


@pytest.mark.usefixtures("talkative")
async def test_a_place_is_not_behind_a_state_that_was_not_told():
    """Whoever lost the connection right behind the opening has seen no state at all."""
    async with (
        showing(Stage(cluster("a"))) as running,
        sse(running.client, interval="1h"),
    ):
        await begun(running)
        rare: dict[str, Any] = {"interval": "1h", "status": "true"}
        async with events(running.client, **rare) as reader:
            place = await reader.opening()
        async with events(running.client, last_id=place, **rare) as reader:
            state = await next_if_any(reader)
            assert state is not None
            assert state.type == "status"


# Pages of other origins.


async def test_a_page_that_was_let_in_may_come_back_to_where_it_was():
    """`fetch` asks first whether it may send the header."""
    tools = "https://tools.example"
    settings = {"allowed_origin": (tools,), "token": token_line("page", "read", "secret")}
    async with showing(Stage(cluster("a")), **settings) as running:
        asked = {
            "origin": tools,
            "access-control-request-method": "GET",
            "access-control-request-headers": "authorization,last-event-id",
        }
        preflight = await running.client.options(EVENTS, headers=asked)
        assert preflight.status_code == 204
        allowed = preflight.headers["access-control-allow-headers"].lower().split(", ")
        assert {"authorization", "last-event-id"} <= set(allowed)
