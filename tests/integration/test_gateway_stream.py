"""GET /v1/status/stream: one upstream stream, any number of readers, and none of them stuck."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from contextlib import AsyncExitStack, aclosing
from itertools import pairwise
from typing import Any

import httpx
import pytest

from gateway import following, streams
from tests.integration.gateway_helpers import (
    Backend,
    Watched,
    answers,
    is_problem,
    running_gateway,
    sse,
)
from tests.integration.zap_helpers import (
    HANG,
    Peer,
    ScriptedServer,
    eventually,
    free_port,
    identity_of,
    pong,
    serving,
    soon,
)
from zapcore import NetrunnerServer, SimulatedNetrunner
from zapcore import messages as m
from zapcore.errors import NotBootstrapped, RemoteError

POOL = 2
"""Connections that the gateway keeps; a stream has one more of its own."""


class Pushing:
    """A backend whose stream says what `say` was given last, at the interval asked for."""

    def __init__(self, text: str = "first") -> None:
        self.say(text)
        self.intervals: list[float] = []

    def say(self, text: str) -> None:
        self.state = m.ClusterInfo(root_data_dir=text)

    async def status(self, request: m.StatusRequest) -> m.StatusResponse:
        return m.StatusResponse(self.state)

    async def stream_status(self, request: m.StreamStatusRequest) -> Any:
        self.intervals.append(request.push_interval / 1e9)
        while True:
            yield m.StreamStatusResponse(self.state)
            await asyncio.sleep(request.push_interval / 1e9)


def text_of(event: Any) -> str:
    return event.data["clusterInfo"]["rootDataDir"]


# One reader.


async def test_the_first_event_comes_at_once():
    """An hour before the next one is no reason to wait."""
    async with (
        serving(SimulatedNetrunner()) as server,
        running_gateway(server) as running,
        sse(running.client, interval="1h") as reader,
    ):
        event = await reader.next()
        assert event.type == "status"
        status = (await running.client.get("/v1/status")).json()
        assert set(event.data["clusterInfo"]) == set(status["clusterInfo"])
        assert event.data["clusterInfo"]["nodeNames"] == status["clusterInfo"]["nodeNames"]


async def test_what_the_stream_says_of_itself():
    async with (
        serving(SimulatedNetrunner()) as server,
        running_gateway(server) as running,
        running.client.stream("GET", "/v1/status/stream") as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].partition(";")[0] == "text/event-stream"
        assert response.headers["cache-control"] == "no-store"
        assert "content-length" not in response.headers


async def test_ids_increase_and_name_the_process():
    async with (
        serving(SimulatedNetrunner()) as server,
        running_gateway(server) as running,
        sse(running.client, interval="100ms") as reader,
    ):
        events = [await reader.next() for _ in range(4)]
        sequences = [event.sequence for event in events]
        assert sequences == sorted(set(sequences))
        assert {event.epoch for event in events} == {running.gateway.feed.epoch}
        assert reader.retry is not None


async def test_events_are_an_interval_apart():
    backend = Pushing()
    async with (
        serving(backend) as server,
        running_gateway(server) as running,
        sse(running.client, interval="0.2") as reader,
    ):
        await reader.next()
        before = time.monotonic()
        for _ in range(5):
            await reader.next()
        assert time.monotonic() - before > 0.5, "five times 0.2 s, with much room"
        assert backend.intervals == [0.2]


async def test_an_interval_is_read_in_every_form():
    backend = Pushing()
    forms = {
        "1s": 1,
        "500ms": 0.5,
        "2m": 120,
        "1h": 3600,
        "0.2": 0.2,
        "100ms": 0.1,
        "1.5s": 1.5,
        "3600": 3600,
    }
    async with serving(backend) as server, running_gateway(server) as running:
        for text in forms:
            async with sse(running.client, interval=text) as reader:
                await reader.next()
            await eventually(lambda: running.gateway.feed.newest is None)
        async with sse(running.client) as reader:
            await reader.next()
    assert backend.intervals == pytest.approx([*forms.values(), 1])


async def test_a_bad_parameter_is_refused_before_anything_begins():
    watched = Watched(SimulatedNetrunner())
    async with serving(watched) as server, running_gateway(server) as running:
        for text in ("0", "99ms", "0.09", "61m", "3601s", "-1s", "abc", "", "1 s", "1d", "nan"):
            response = await running.client.get("/v1/status/stream", params={"interval": text})
            problem = is_problem(response, 422, "invalid_request", "StreamStatus")
            assert [item["field"] for item in problem["errors"]] == ["query.interval"]
        response = await running.client.get("/v1/status/stream", params={"changes": "maybe"})
        problem = is_problem(response, 422, "invalid_request", "StreamStatus")
        assert [item["field"] for item in problem["errors"]] == ["query.changes"]
        assert watched.received == []


async def test_changes_alone_are_sent_when_only_they_are_asked_for():
    backend = Pushing("first")
    async with (
        serving(backend) as server,
        running_gateway(server) as running,
        sse(running.client, interval="100ms", changes="true") as reader,
    ):
        first = await reader.next()
        feed = running.gateway.feed
        await eventually(lambda: feed.newest.sequence >= first.sequence + 4)
        backend.say("second")
        second = await reader.next()
        assert (text_of(first), text_of(second)) == ("first", "second")
        assert second.sequence >= first.sequence + 4, "what was the same was not sent"
        at = second.sequence
        await eventually(lambda: feed.newest.sequence >= at + 3)
        backend.say("third")
        assert text_of(await reader.next()) == "third"


async def test_a_change_of_the_cluster_is_one_event():
    async with (
        serving(SimulatedNetrunner(health_delay=0)) as server,
        running_gateway(server) as running,
        sse(running.client, interval="100ms", changes="true") as reader,
    ):
        await reader.next()
        await running.client.post("/v1/nodes/node1/pause")
        event = await reader.next()
        assert event.data["clusterInfo"]["nodeInfos"]["node1"]["paused"]
        await running.client.delete("/v1/cluster")
        assert (await reader.next()).data == {"clusterInfo": None}


async def test_ndjson_where_it_is_asked_for():
    backend = Pushing("first")
    headers = {"accept": "application/x-ndjson"}
    async with (
        serving(backend) as server,
        running_gateway(server) as running,
        running.client.stream(
            "GET", "/v1/status/stream", params={"interval": "100ms"}, headers=headers
        ) as response,
        aclosing(response.aiter_lines()) as lines,
    ):
        assert response.headers["content-type"].partition(";")[0] == "application/x-ndjson"
        for _ in range(3):
            status = json.loads(await soon(anext(lines)))
            assert status["clusterInfo"]["rootDataDir"] == "first"
        await server.close()
        while "error" not in (line := json.loads(await soon(anext(lines)))):
            assert line == status
        assert line["error"]["code"] == "upstream_unavailable"


async def test_silence_is_broken_by_comments(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(streams, "KEEP_ALIVE", 0.02)
    backend = Pushing("first")
    async with (
        serving(backend) as server,
        running_gateway(server) as running,
        sse(running.client, interval="100ms", changes="true") as reader,
    ):
        await reader.next()
        waiting = asyncio.create_task(reader.next())
        await eventually(lambda: len(reader.comments) >= 3)
        assert set(reader.comments) == {"keep-alive"}
        backend.say("second")
        assert text_of(await waiting) == "second"


async def test_silence_is_broken_also_while_states_come_that_are_not_told(
    monkeypatch: pytest.MonkeyPatch,
):
    """The server pushes ten times a second, nothing changes, and the reader still hears of us."""
    monkeypatch.setattr(streams, "KEEP_ALIVE", 0.25)
    async with (
        serving(Pushing("same")) as server,
        running_gateway(server) as running,
        sse(running.client, interval="100ms", changes="true") as reader,
    ):
        await reader.next()
        waiting = asyncio.create_task(reader.next())
        await eventually(lambda: len(reader.comments) >= 2)
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_ndjson_has_no_comments(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(streams, "KEEP_ALIVE", 0.01)
    async with (
        serving(Pushing()) as server,
        running_gateway(server) as running,
        running.client.stream(
            "GET",
            "/v1/status/stream",
            params={"interval": "200ms"},
            headers={"accept": "application/x-ndjson"},
        ) as response,
        aclosing(response.aiter_lines()) as lines,
    ):
        for _ in range(3):
            assert json.loads(await soon(anext(lines)))["clusterInfo"]


# The server.


async def test_a_server_that_goes_is_an_event_and_its_return_another():
    """On the same response: nobody has to connect again."""
    server = NetrunnerServer(Pushing("before"), identity_of("server"))
    await server.start(port=0)
    port = int(server.address.rpartition(":")[2])
    async with (
        running_gateway(server) as running,
        sse(running.client, interval="100ms") as reader,
    ):
        first = await reader.next()
        assert text_of(first) == "before"
        await server.close()
        error = await reader.until(lambda event: event.type == "error")
        assert error.data["status"] == 503
        assert error.data["code"] == "upstream_unavailable"
        assert error.data["rpc"] == "StreamStatus"
        assert error.data["type"] == "urn:zap-gateway:problem:upstream_unavailable"

        again = NetrunnerServer(Pushing("after"), identity_of("server"))
        async with again.serving(port=port):
            back = await reader.until(lambda event: event.type == "status")
            assert text_of(back) == "after"
            assert first.sequence < error.sequence < back.sequence


async def test_a_server_that_stays_away_is_told_once():
    server = NetrunnerServer(Pushing(), identity_of("server"))
    await server.start(port=0)
    port = int(server.address.rpartition(":")[2])
    async with (
        running_gateway(server) as running,
        sse(running.client, interval="100ms") as reader,
    ):
        await reader.next()
        await server.close()
        seen = []
        again = NetrunnerServer(Pushing("after"), identity_of("server"))

        async def collect() -> None:
            while (event := await reader.next()).type != "status" or not seen:
                seen.append(event)

        collecting = asyncio.create_task(collect())
        await eventually(lambda: "can't connect" in str(seen and seen[-1].data))
        async with again.serving(port=port):
            await collecting
        errors = [event.data["detail"] for event in seen if event.type == "error"]
        assert len(errors) == len(set(errors)) <= 3


async def test_a_reader_that_comes_while_the_server_is_away():
    port = free_port()
    async with (
        running_gateway(f"127.0.0.1:{port}", ready=False) as running,
        sse(running.client, interval="100ms") as reader,
    ):
        assert (await reader.next()).type == "error"
        again = NetrunnerServer(SimulatedNetrunner(), identity_of("server"))
        async with again.serving(port=port):
            await reader.until(lambda event: event.type == "status")


async def test_a_server_without_streams_is_polled():
    backend = Backend(status=Pushing("polled").status)
    watched = Watched(backend)
    async with (
        serving(watched) as server,
        running_gateway(server) as running,
        sse(running.client, interval="100ms") as reader,
    ):
        events = [await reader.next() for _ in range(4)]
        assert [event.type for event in events] == ["status"] * 4
        assert {text_of(event) for event in events} == {"polled"}
        assert watched.counts["status"] >= 4
        assert server.connections == POOL, "no connection of its own for that"


async def test_a_polled_server_without_a_cluster():
    """As where the server pushes: no cluster is a state like any other."""
    inner = Backend(status=answers(NotBootstrapped("not bootstrapped")))

    async def status(request: m.StatusRequest) -> m.StatusResponse:
        answer: m.StatusResponse = await inner.status(request)
        return answer

    async with (
        serving(Backend(status=status)) as server,
        running_gateway(server) as running,
        sse(running.client, interval="100ms", changes="true") as reader,
    ):
        assert (await reader.next()).data == {"clusterInfo": None}
        inner.status = answers(m.StatusResponse(m.ClusterInfo(root_data_dir="started")))
        assert text_of(await reader.next()) == "started"


async def test_a_stream_without_a_cluster_says_null_until_there_is_one():
    async with (
        serving(SimulatedNetrunner(nodes=0)) as server,
        running_gateway(server) as running,
        sse(running.client, interval="100ms", changes="true") as reader,
    ):
        assert (await reader.next()).data == {"clusterInfo": None}
        await running.client.post("/v1/cluster", json={"numNodes": 1})
        assert (await reader.next()).data["clusterInfo"]["nodeNames"] == ["node1"]


async def test_a_server_that_ends_its_stream_is_asked_again():
    class Brief(Pushing):
        async def stream_status(self, request: m.StreamStatusRequest) -> Any:
            self.intervals.append(request.push_interval / 1e9)
            yield m.StreamStatusResponse(self.state)

    backend = Brief()
    async with (
        serving(backend) as server,
        running_gateway(server) as running,
        sse(running.client, interval="100ms") as reader,
    ):
        assert [(await reader.next()).type for _ in range(3)] == ["status"] * 3
        assert len(backend.intervals) >= 3


async def test_a_stream_that_fails_in_the_server_goes_on_later():
    class Moody(Pushing):
        async def stream_status(self, request: m.StreamStatusRequest) -> Any:
            self.intervals.append(0)
            if len(self.intervals) == 1:
                raise RemoteError("not today")
            yield m.StreamStatusResponse(self.state)

    async with (
        serving(Moody()) as server,
        running_gateway(server) as running,
        sse(running.client, interval="100ms") as reader,
    ):
        error = await reader.next()
        assert (error.type, error.data["detail"]) == ("error", "not today")
        assert (await reader.next()).type == "status"


async def test_a_stream_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch):
    """As a server that hangs does; the connection alone would not tell."""
    monkeypatch.setattr(following, "_PATIENCE", 0.05)

    class Hanging(Pushing):
        async def stream_status(self, request: m.StreamStatusRequest) -> Any:
            self.intervals.append(0)
            yield m.StreamStatusResponse(self.state)
            if len(self.intervals) == 1:
                await asyncio.Event().wait()

    async with (
        serving(Hanging()) as server,
        running_gateway(server) as running,
        sse(running.client, interval="100ms") as reader,
    ):
        error = await reader.until(lambda event: event.type == "error")
        assert error.data["code"] == "deadline_exceeded"
        assert (await reader.next()).type == "status"


async def test_garbage_in_the_stream_is_an_error_and_the_stream_goes_on():
    asked: list[Peer] = []

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.message()
            if request.opcode == 60:
                await peer.send(pong(request))
                continue
            asked.append(peer)
            good = m.StreamStatusResponse(m.ClusterInfo(root_data_dir="good", healthy=True))
            await peer.answer(request, b"\x01\x02" if len(asked) == 1 else good)

    async with (
        ScriptedServer(script) as server,
        running_gateway(server) as running,
        sse(running.client, interval="100ms") as reader,
    ):
        error = await reader.next()
        assert (error.type, error.data["code"]) == ("error", "upstream_protocol_error")
        assert text_of(await reader.next()) == "good"
        assert len(asked) == 2


async def test_a_server_that_is_not_the_pinned_one_is_told_to_readers():
    async with (
        serving(SimulatedNetrunner()) as server,
        running_gateway(server, identity_of("somebody else").public, ready=False) as running,
        sse(running.client) as reader,
    ):
        error = await reader.next()
        assert (error.type, error.data["code"]) == ("error", "upstream_identity_mismatch")


# Many readers.


async def test_many_readers_share_one_upstream_stream():
    watched = Watched(SimulatedNetrunner())
    async with serving(watched) as server, running_gateway(server) as running:
        async with AsyncExitStack() as stack:
            readers = [
                await stack.enter_async_context(sse(running.client, interval="100ms"))
                for _ in range(50)
            ]
            for reader in readers:
                assert [(await reader.next()).type for _ in range(2)] == ["status"] * 2
            await eventually(lambda: server.connections == POOL + 1)
            assert watched.streams == 1
            assert watched.counts["stream_status"] == 1
            text = (await running.client.get("/metrics")).text
            assert "zap_gateway_stream_readers 50.0" in text
        await eventually(lambda: server.connections == POOL)
        await eventually(lambda: watched.streams == 0)
        assert "zap_gateway_stream_readers 0.0" in (await running.client.get("/metrics")).text


async def test_the_upstream_keeps_the_pace_of_the_fastest_reader():
    backend = Pushing()
    watched = Watched(backend)
    async with serving(watched) as server, running_gateway(server) as running:
        async with sse(running.client, interval="1h") as slow:
            first = await slow.next()
            async with sse(running.client, interval="100ms") as fast:
                while (await fast.next()).sequence < first.sequence + 4:
                    pass
                assert backend.intervals[-1] == pytest.approx(0.1)
                assert watched.streams == 1
            await eventually(lambda: backend.intervals[-1] == 3600)
            assert running.gateway.feed.newest is not None
        await eventually(lambda: watched.streams == 0)


async def test_a_reader_that_comes_later_gets_the_state_of_now(monkeypatch: pytest.MonkeyPatch):
    """The first event is not what another reader was told an hour ago."""
    monkeypatch.setattr(streams, "_FRESH", 0.0)
    async with (
        serving(SimulatedNetrunner(health_delay=0)) as server,
        running_gateway(server) as running,
        sse(running.client, interval="1h") as early,
    ):
        assert not (await early.next()).data["clusterInfo"]["nodeInfos"]["node1"]["paused"]
        await running.client.post("/v1/nodes/node1/pause")
        async with sse(running.client, interval="1h") as late:
            assert (await late.next()).data["clusterInfo"]["nodeInfos"]["node1"]["paused"]


async def test_readers_see_what_they_asked_for_each():
    backend = Pushing("first")
    async with (
        serving(backend) as server,
        running_gateway(server) as running,
        sse(running.client, interval="100ms") as every,
        sse(running.client, interval="100ms", changes="true") as changed,
        sse(running.client, interval="1h") as once,
    ):
        for reader in (every, changed, once):
            assert text_of(await reader.next()) == "first"
        for _ in range(3):
            assert text_of(await every.next()) == "first"
        backend.say("second")
        assert text_of(await changed.next()) == "second"
        assert text_of(await every.until(lambda event: text_of(event) != "first")) == "second"
        last = running.gateway.feed.newest.sequence
        silent = asyncio.create_task(once.next())
        await eventually(lambda: running.gateway.feed.newest.sequence > last + 2)
        assert not silent.done()
        silent.cancel()
        await asyncio.gather(silent, return_exceptions=True)


async def test_a_reader_too_many_is_refused():
    async with (
        serving(SimulatedNetrunner()) as server,
        running_gateway(server, max_streams=2) as running,
    ):
        async with sse(running.client) as one, sse(running.client) as two:
            await one.next()
            await two.next()
            response = await running.client.get("/v1/status/stream")
            is_problem(response, 503, "overloaded", "StreamStatus")
            assert (await running.client.get("/v1/status")).status_code == 200
        feed = running.gateway.feed
        await eventually(lambda: not feed.readers)
        async with sse(running.client) as reader:
            await reader.next()


async def test_readers_too_many_at_the_same_moment_are_each_refused_properly():
    """Whoever is not refused gets a stream; nobody gets half an answer."""
    async with (
        serving(SimulatedNetrunner()) as server,
        running_gateway(server, max_streams=1) as running,
    ):
        release = asyncio.Event()

        async def read() -> int:
            async with running.client.stream("GET", "/v1/status/stream") as response:
                if response.status_code == 200:
                    async with aclosing(response.aiter_lines()) as lines:
                        assert (await soon(anext(lines))).startswith("retry")
                        await release.wait()
                return response.status_code

        tasks = [asyncio.create_task(read()) for _ in range(12)]
        await eventually(lambda: sum(task.done() for task in tasks) == 11)
        release.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert sorted(map(str, results)) == ["200"] + ["503"] * 11


async def test_a_slow_reader_costs_nothing_and_gets_the_newest_state():
    """It skips what it missed, and the others are not held up."""
    filling = "x" * 4_000_000

    class Large(Pushing):
        number = 0

        async def stream_status(self, request: m.StreamStatusRequest) -> Any:
            while True:
                self.number += 1
                self.say(f"{self.number} {filling}")
                yield m.StreamStatusResponse(self.state)
                await asyncio.sleep(0.02)

    async with serving(Large()) as server, running_gateway(server) as running:
        feed = running.gateway.feed
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=2**14)
        writer.write(
            b"GET /v1/status/stream?interval=0.1 HTTP/1.1\r\nHost: localhost\r\n"
            b"Accept: application/x-ndjson\r\nConnection: close\r\n\r\n"
        )
        await eventually(lambda: feed.newest and feed.newest.sequence >= 40)
        newest = feed.newest.sequence

        seen: list[int] = []
        tail = b""
        async with asyncio.timeout(HANG):
            while not seen or seen[-1] < newest:
                tail = tail[-200:] + await reader.read(2**16)
                at = tail.find(b'"rootDataDir":"')
                end = tail.find(b" ", at)
                if at >= 0 and end > at:
                    seen.append(int(tail[at + 15 : end]))
                    tail = tail[end:]
        gaps = [after - before for before, after in pairwise(seen)]
        assert max(gaps) > 10, "what piled up meanwhile was left out"
        assert len(seen) < 20
        writer.transport.abort()
        await eventually(lambda: not feed.readers)
        await eventually(lambda: server.connections == POOL)


async def test_a_reader_that_vanishes_ends_the_upstream_stream():
    watched = Watched(SimulatedNetrunner())
    async with serving(watched) as server, running_gateway(server) as running:
        _, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"GET /v1/status/stream?interval=1h HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await eventually(lambda: watched.streams == 1)
        writer.transport.abort()
        await eventually(lambda: watched.streams == 0)
        await eventually(lambda: server.connections == POOL)
        assert running.gateway.feed.newest is None
        status = (await running.client.get("/v1/status")).json()
        assert status["clusterInfo"]


async def test_readers_that_come_and_go_leave_no_task_behind():
    watched = Watched(SimulatedNetrunner())
    async with serving(watched) as server, running_gateway(server) as running:
        await running.client.get("/v1/status")
        before = len(asyncio.all_tasks())

        async def visit(number: int) -> None:
            interval = ("100ms", "1s", "1h")[number % 3]
            async with sse(running.client, interval=interval) as reader:
                await reader.next()

        for _ in range(3):
            await asyncio.gather(*(visit(number) for number in range(12)))
        await eventually(lambda: watched.streams == 0)
        await eventually(lambda: server.connections == POOL)
        await running.client.aclose()
        await eventually(lambda: len(asyncio.all_tasks()) <= before)


# The end.


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
async def test_streams_end_cleanly_when_the_gateway_stops(accept: str):
    async with serving(SimulatedNetrunner()) as server, running_gateway(server) as running:
        async with running.client.stream(
            "GET", "/v1/status/stream", params={"interval": "1h"}, headers={"accept": accept}
        ) as response:
            async with aclosing(response.aiter_bytes()) as pieces:
                await soon(anext(pieces))
                await eventually(lambda: running.gateway.feed.newest)
                running.tell_to_stop()
                async with asyncio.timeout(HANG):
                    async for _ in pieces:
                        pass
            assert response.is_stream_consumed
        await soon(running.serving)
        await eventually(lambda: server.connections == 0)


async def test_calls_under_way_finish_when_the_gateway_stops():
    gate = asyncio.Event()
    begun = asyncio.Event()

    async def pause_node(request: m.PauseNodeRequest) -> m.PauseNodeResponse:
        begun.set()
        await gate.wait()
        return m.PauseNodeResponse()

    async with (
        serving(Backend(pause_node=pause_node)) as server,
        running_gateway(server) as running,
    ):
        call = asyncio.create_task(running.client.post("/v1/nodes/n/pause"))
        await soon(begun.wait())
        running.tell_to_stop()
        await eventually(lambda: not _listens(running.port))
        gate.set()
        response: httpx.Response = await soon(call)
        assert response.status_code == 200
        await soon(running.serving)


async def test_a_reader_that_reads_nothing_does_not_keep_the_gateway_from_stopping():
    async with (
        serving(Pushing("x" * 8_000_000)) as server,
        running_gateway(server, drain_timeout=0.2) as running,
    ):
        _, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=2**14)
        writer.write(b"GET /v1/status/stream?interval=0.1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        feed = running.gateway.feed
        await eventually(lambda: feed.newest and feed.newest.sequence >= 3)
        running.tell_to_stop()
        await soon(running.serving)
        writer.transport.abort()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
