"""What clients may have under way at once, how much they may send, and how long a call may take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.auth import new_token, token_line
from tests.integration.gateway_helpers import (
    Backend,
    Running,
    Watched,
    answers,
    is_problem,
    running_gateway,
    sse,
)
from tests.integration.zap_helpers import HANG, eventually, serving, soon, told
from zapcore import SimulatedNetrunner
from zapcore import messages as m
from zapcore.errors import RemoteError

SOON = HANG / 3
"""Far beyond every time that tests set, and short of every default that must not apply instead."""

SECRETS = {name: new_token() for name in ("alice", "bob")}
TOKENS = ";".join(token_line(name, "operate", secret) for name, secret in SECRETS.items())
JSON = {"content-type": "application/json"}


def as_(name: str) -> dict[str, str]:
    """The headers of who has that token."""
    return {"authorization": f"Bearer {SECRETS[name]}"}


class Held:
    """A handler that keeps its callers waiting until the gate opens."""

    def __init__(self, answer: object) -> None:
        self.gate = asyncio.Event()
        self.begun = 0
        self._answer = answer

    async def __call__(self, request: Any) -> Any:
        self.begun += 1
        await self.gate.wait()
        return self._answer


async def have_begun(held: Held, count: int) -> None:
    await eventually(lambda: held.begun == count)


@asynccontextmanager
async def in_front_of(
    backend: object, **settings: object
) -> AsyncIterator[tuple[Running, Watched]]:
    """A gateway, and what its backend sees."""
    watched = Watched(backend)
    given = {"drain_timeout": 0.1, **settings}
    async with serving(watched) as server, running_gateway(server, **given) as running:
        yield running, watched


def waiting() -> tuple[Held, Backend]:
    """A backend whose Status waits, and whose other RPCs do not."""
    held = Held(m.StatusResponse())
    backend = Backend(
        status=held,
        ping=answers(m.PingResponse(1)),
        pause_node=answers(told("n")),
        add_node=answers(m.AddNodeResponse()),
    )
    return held, backend


THREE_WAYS = ("/v1/status", "/v1/status?timeout=60s", "/v1/nodes")
"""The same call: at once, through FastAPI, and by a route of its own."""


@asynccontextmanager
async def under_way(
    running: Running, held: Held, name: str, count: int = 3
) -> AsyncIterator[list[asyncio.Task[httpx.Response]]]:
    """So many calls with a token that wait in the backend."""
    before = held.begun
    calls = [
        asyncio.create_task(running.client.get(path, headers=as_(name)))
        for path in THREE_WAYS[:count]
    ]
    try:
        await have_begun(held, before + count)
        yield calls
    finally:
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


async def status_of(running: Running, path: str, name: str = "alice") -> int:
    return (await running.client.get(path, headers=as_(name))).status_code


async def sometime(call: Callable[[], Awaitable[httpx.Response]]) -> None:
    """Ask again and again until it is let in."""
    async with asyncio.timeout(SOON):
        while (await call()).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


# Calls.


async def test_one_call_too_many_with_a_token_is_refused():
    held, backend = waiting()
    async with (
        in_front_of(backend, token=TOKENS, max_calls_per_token=3) as (running, watched),
        under_way(running, held, "alice") as calls,
    ):
        for verb, path in (
            ("GET", "/v1/ping"),
            ("GET", "/v1/ping?timeout=1s"),
            ("POST", "/v1/nodes/n/pause"),
            ("POST", "/v1/stream-tickets"),
        ):
            refused = await running.client.request(verb, path, headers=as_("alice"))
            problem = is_problem(refused, 429, "too_many_requests")
            assert "'alice' has 3 calls" in problem["detail"]
            assert int(refused.headers["retry-after"]) >= 1
            other = await running.client.request(verb, path, headers=as_("bob"))
            assert other.status_code == 200
        assert watched.counts == {"status": 3, "pause_node": 1}
        for path in ("/healthz", "/readyz"):
            assert await status_of(running, path) == 200, "these are nobody's"
        held.gate.set()
        assert [(await soon(call)).status_code for call in calls] == [200, 200, 200]
        assert await status_of(running, "/v1/ping") == 200


async def test_a_share_is_a_share_of_each_token():
    held, backend = waiting()
    async with (
        in_front_of(backend, token=TOKENS, max_calls_per_token=3) as (running, _),
        under_way(running, held, "alice"),
        under_way(running, held, "bob"),
    ):
        for name in SECRETS:
            response = await running.client.get("/v1/ping", headers=as_(name))
            problem = is_problem(response, 429, "too_many_requests")
            assert repr(name) in problem["detail"]


async def test_without_tokens_there_are_no_shares():
    held = Held(m.StatusResponse())
    async with in_front_of(Backend(status=held), max_calls_per_token=1) as (running, _):
        calls = [asyncio.create_task(running.client.get("/v1/status")) for _ in range(5)]
        await have_begun(held, 5)
        held.gate.set()
        assert [(await soon(call)).status_code for call in calls] == [200] * 5


async def test_calls_that_fail_give_their_share_back():
    async def refuse(request: Any) -> None:
        raise RemoteError("something went wrong")

    async def defect(request: Any) -> None:
        raise LookupError

    backend = Backend(status=refuse, uris=defect, ping=answers(m.PingResponse(1)))
    settings = {"token": TOKENS, "max_calls_per_token": 1, "max_body": 2000}
    async with in_front_of(backend, **settings) as (running, _):
        for verb, path, body, status in (
            ("GET", "/v1/status", None, 502),
            ("GET", "/v1/nodes", None, 502),
            ("GET", "/v1/uris", None, 502),
            ("GET", "/v1/health", None, 501),
            ("GET", "/v1/ping?timeout=nonsense", None, 422),
            ("POST", "/v1/nodes", b"nonsense", 400),
            ("POST", "/v1/nodes", b" " * 3000, 413),
            ("PUT", "/v1/nodes", b"{}", 405),
            ("GET", "/nowhere", None, 404),
        ):
            headers = as_("alice") | JSON
            refused = await running.client.request(verb, path, content=body, headers=headers)
            assert refused.status_code == status, (path, refused.text)
            assert await status_of(running, "/v1/ping") == 200


@pytest.mark.parametrize("path", THREE_WAYS)
async def test_calls_whose_client_went_away_give_their_share_back(path: str):
    held, backend = waiting()
    settings = {"token": TOKENS, "max_calls_per_token": 1, "max_calls": 1, "call_timeout": "300ms"}
    async with in_front_of(backend, **settings) as (running, _):
        _, writer = await asyncio.open_connection("127.0.0.1", running.port)
        secret = SECRETS["alice"]
        short = path.replace("60s", "300ms")
        head = f"GET {short} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secret}\r\n\r\n"
        writer.write(head.encode())
        await eventually(lambda: held.begun)
        writer.transport.abort()
        await sometime(lambda: running.client.get("/v1/ping", headers=as_("alice")))
        assert running.gateway.pool.calls == 0


async def test_one_call_too_many_in_all_is_refused_whoever_asks():
    held, backend = waiting()
    settings = {"token": TOKENS, "max_calls_per_token": 100, "max_calls": 4}
    async with (
        in_front_of(backend, **settings) as (running, watched),
        under_way(running, held, "alice", 2) as first,
        under_way(running, held, "bob", 2) as second,
    ):
        for name in SECRETS:
            for verb, path, rpc in (
                ("GET", "/v1/ping", "Ping"),
                ("GET", "/v1/ping?timeout=1s", "Ping"),
                ("GET", "/v1/nodes/n", "Status"),
                ("POST", "/v1/nodes/n/pause", "PauseNode"),
            ):
                refused = await running.client.request(verb, path, headers=as_(name))
                is_problem(refused, 503, "overloaded", rpc)
        assert watched.counts == {"status": 4}
        held.gate.set()
        assert [(await soon(call)).status_code for call in first + second] == [200] * 4
        assert running.gateway.pool.calls == 0
        assert await status_of(running, "/v1/ping") == 200


# Streams.


async def is_refused_a_stream(running: Running, name: str, status: int, code: str) -> None:
    response = await running.client.get("/v1/status/stream", headers=as_(name))
    is_problem(response, status, code, None if status == 429 else "StreamStatus")


async def test_one_stream_too_many_with_a_token_is_refused():
    async with (
        in_front_of(SimulatedNetrunner(), token=TOKENS, max_streams_per_token=2) as (running, _),
        AsyncExitStack() as stack,
    ):
        client = running.client
        client.headers.update(as_("alice"))
        await (await stack.enter_async_context(sse(client))).next()
        ticket = (await client.post("/v1/stream-tickets")).json()["ticket"]
        leaving = AsyncExitStack()
        del client.headers["authorization"]
        await (await leaving.enter_async_context(sse(client, ticket=ticket))).next()

        await is_refused_a_stream(running, "alice", 429, "too_many_requests")
        response = await client.get("/v1/status/stream", params={"ticket": ticket})
        is_problem(response, 429, "too_many_requests")
        assert running.gateway.feed.readers == 2
        assert await status_of(running, "/v1/status") == 200, "streams are no calls"
        client.headers.update(as_("bob"))
        async with sse(client) as reader:
            await reader.next()

        await leaving.aclose()
        await eventually(lambda: running.gateway.feed.readers == 1)
        client.headers.update(as_("alice"))
        async with asyncio.timeout(SOON), sse(client) as reader:
            await reader.next()


async def test_calls_take_no_streams_share():
    held, backend = waiting()
    settings = {"token": TOKENS, "max_calls_per_token": 1, "max_streams_per_token": 1}
    async with (
        in_front_of(backend, **settings) as (running, _),
        under_way(running, held, "alice", 1),
    ):
        head = {"params": {"interval": "1h"}, "headers": as_("alice")}
        async with running.client.stream("GET", "/v1/status/stream", **head) as response:
            assert response.status_code == 200
            assert await status_of(running, "/v1/ping") == 429
        held.gate.set()


async def test_one_stream_too_many_in_all_is_refused_until_a_reader_leaves():
    settings = {"token": TOKENS, "max_streams": 2, "max_streams_per_token": 10}
    async with in_front_of(SimulatedNetrunner(), **settings) as (running, watched):
        client, feed = running.client, running.gateway.feed
        for _ in range(3):
            async with AsyncExitStack() as stack:
                for name in SECRETS:
                    client.headers.update(as_(name))
                    await (await stack.enter_async_context(sse(client))).next()
                for name in SECRETS:
                    await is_refused_a_stream(running, name, 503, "overloaded")
                assert feed.readers == 2
            await eventually(lambda: feed.readers == 0)
        await eventually(lambda: watched.streams == 0)


async def test_refused_streams_cost_no_share():
    settings = {"token": TOKENS, "max_streams": 1, "max_streams_per_token": 2}
    async with in_front_of(SimulatedNetrunner(), **settings) as (running, _):
        running.client.headers.update(as_("bob"))
        async with sse(running.client) as reader:
            await reader.next()
            for _ in range(5):
                await is_refused_a_stream(running, "alice", 503, "overloaded")
                path = "/v1/status/stream?interval=nonsense"
                assert await status_of(running, path) == 422


# Bodies.


def node(size: int) -> bytes:
    """An AddNode of so many bytes, most of them white space in the configuration."""
    start, end = b'{"name":"n","nodeConfig":"{', b'}"}'
    return start + b" " * (size - len(start) - len(end)) + end


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 10_000):
        yield body[at : at + 10_000]


def add_node(running: Running, body: object) -> Any:
    return running.client.post("/v1/nodes", content=body, headers=JSON)


BUDGET = 100_000


@pytest.mark.parametrize("chunked", [False, True], ids=["Content-Length", "chunked"])
async def test_bodies_that_are_too_much_together_are_refused(chunked: bool):
    def body_of(size: int) -> Any:
        return pieces(node(size)) if chunked else node(size)

    held = Held(m.AddNodeResponse())
    backend = Backend(add_node=held, ping=answers(m.PingResponse(1)))
    async with in_front_of(backend, max_bodies=BUDGET) as (running, _):
        for before in (0, 2):
            first = asyncio.create_task(add_node(running, body_of(60_000)))
            await have_begun(held, before + 1)
            for _ in range(3):
                is_problem(await add_node(running, body_of(60_000)), 503, "overloaded", "AddNode")
            assert (await running.client.get("/v1/ping")).status_code == 200
            second = asyncio.create_task(add_node(running, body_of(30_000)))
            await have_begun(held, before + 2)
            held.gate.set()
            assert [(await soon(call)).status_code for call in (first, second)] == [200, 200]
            held.gate.clear()


async def test_bodies_that_are_still_coming_count():
    async with in_front_of(waiting()[1], max_bodies=BUDGET) as (running, watched):
        writers = []
        for _ in range(2):
            _, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(
                b"POST /v1/nodes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 50000\r\n\r\n" + node(50_000)[:-1]
            )
            writers.append(writer)
        await eventually(lambda: running.gateway._bodies._held == 2 * 49_999)
        is_problem(await add_node(running, node(1000)), 503, "overloaded", "AddNode")

        writers[0].transport.abort()
        await sometime(lambda: add_node(running, node(1000)))
        writers[1].write(b"}")
        await eventually(lambda: len(watched.last("add_node").node_config) > 49_000)
        writers[1].transport.abort()


async def test_bodies_that_came_to_nothing_give_their_memory_back():
    async with in_front_of(waiting()[1], max_bodies=600_000, max_body=90_000) as (running, _):
        for body, status in (
            (node(90_000), 200),
            (b" " * 90_000, 400),
            (b'{"name":[' + b"0," * 40_000 + b"0]}", 422),
            (node(90_001), 413),
            (node(200_000), 413),
        ) * 3:
            assert (await add_node(running, pieces(body))).status_code == status
        await eventually(lambda: running.gateway._bodies._held == 0)
        assert (await add_node(running, node(90_000))).status_code == 200


@pytest.mark.parametrize("chunked", [False, True], ids=["Content-Length", "chunked"])
async def test_a_body_beyond_the_limit_is_refused_wherever_it_goes(chunked: bool):
    async with in_front_of(waiting()[1], max_body=20_000) as (running, watched):
        for size, status in ((20_000, 200), (20_001, 413), (200_000, 413)):
            body = node(size)
            response = await add_node(running, pieces(body) if chunked else body)
            assert response.status_code == status
            if status == 413:
                is_problem(response, 413, "body_too_large", "AddNode" if chunked else None)
        assert watched.counts["add_node"] == 1


# Time.


async def never(request: Any) -> None:
    await asyncio.Event().wait()


SILENT = Backend(
    status=never, uris=never, wait_for_healthy=never, pause_node=never, add_node=never, start=never
)

CALLS: tuple[tuple[str, str, str], ...] = (
    ("GET", "/v1/status", "Status"),
    ("GET", "/v1/uris", "URIs"),
    ("GET", "/v1/nodes", "Status"),
    ("GET", "/v1/nodes/n", "Status"),
    ("GET", "/v1/health/wait", "WaitForHealthy"),
    ("POST", "/v1/nodes/n/pause", "PauseNode"),
    ("POST", "/v1/nodes", "AddNode"),
    ("POST", "/v1/cluster", "Start"),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def silent() -> AsyncIterator[Running]:
    """A gateway whose server answers nothing, and that would wait long."""
    async with in_front_of(SILENT, call_timeout="60s", change_timeout="60s") as (running, _):
        yield running


async def asks(running: Running, verb: str, path: str, **how: Any) -> httpx.Response:
    """One of those calls."""
    body = {"json": {"name": "n"}} if path == "/v1/nodes" and verb == "POST" else {}
    return await running.client.request(verb, path, **body, **how)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("params", "headers"),
    [
        ({"timeout": "50ms"}, {}),
        ({}, {"x-request-timeout": "50ms"}),
        ({"timeout": "50ms"}, {"x-request-timeout": "50s"}),
        ({"timeout": "50s"}, {"X-Request-Timeout": "0.05"}),
    ],
    ids=["query", "header", "the query is shorter", "the header is shorter"],
)
async def test_a_call_takes_no_longer_than_the_request_allows(
    silent: Running, params: dict[str, str], headers: dict[str, str]
):
    before = time.monotonic()
    for verb, path, rpc in CALLS:
        response = await asks(silent, verb, path, params=params, headers=headers)
        problem = is_problem(response, 504, "deadline_exceeded", rpc)
        assert "0.05 s" in problem["detail"]
    assert 0.05 * len(CALLS) <= time.monotonic() - before < SOON
    assert silent.gateway.pool.calls == 0


async def test_a_call_takes_no_longer_than_is_set_where_the_request_says_nothing():
    settings = {"call_timeout": "50ms", "change_timeout": "60ms"}
    async with in_front_of(SILENT, **settings) as (running, _):
        before = time.monotonic()
        for verb, path, rpc in CALLS:
            if rpc == "WaitForHealthy":  # it has a time of its own
                continue
            for params in ({}, {"x": "1"}):
                response = await asks(running, verb, path, params=params)
                problem = is_problem(response, 504, "deadline_exceeded", rpc)
                assert ("0.06 s" if verb == "POST" else "0.05 s") in problem["detail"]
        assert time.monotonic() - before < 2 * SOON


async def test_a_request_may_ask_for_more_time_than_is_set():
    async def late(request: Any) -> Any:
        await asyncio.sleep(0.3)
        return m.StatusResponse() if isinstance(request, m.StatusRequest) else told("n")

    backend = Backend(status=late, pause_node=late)
    settings = {"call_timeout": "50ms", "change_timeout": "50ms"}
    async with in_front_of(backend, **settings) as (running, _):
        for verb, path in (("GET", "/v1/status"), ("POST", "/v1/nodes/n/pause")):
            impatient = await running.client.request(verb, path)
            is_problem(impatient, 504, "deadline_exceeded", impatient.json()["rpc"])
            for how in ({"params": {"timeout": "30s"}}, {"headers": {"x-request-timeout": "30s"}}):
                patient = await running.client.request(verb, path, **how)
                assert patient.status_code == 200


FORMS = {
    "500ms": 0.5,
    "1s": 1.0,
    "0.5": 0.5,
    "2m": 120.0,
    "1h": 3600.0,
    "1.5s": 1.5,
    "3600": 3600.0,
    "1ms": 0.001,
    "0.001": 0.001,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def answering() -> AsyncIterator[Running]:
    """A gateway whose server answers."""
    async with in_front_of(SimulatedNetrunner(health_delay=0)) as (running, _):
        yield running


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("text", "seconds"), FORMS.items())
async def test_a_time_reaches_the_call_in_every_form(
    answering: Running, text: str, seconds: float, monkeypatch: pytest.MonkeyPatch
):
    given: list[float] = []
    pool = answering.gateway.pool
    exchange = pool.exchange

    async def seen(method: Any, payload: bytes, *, timeout: float | None = None) -> bytes:
        assert timeout is not None
        given.append(timeout)
        return await exchange(method, payload, timeout=60)

    monkeypatch.setattr(pool, "exchange", seen)
    for verb, path in (("GET", "/v1/status"), ("POST", "/v1/nodes/node1/restart")):
        for how in ({"params": {"timeout": text}}, {"headers": {"X-Request-Timeout": text}}):
            response = await answering.client.request(verb, path, **how)
            assert response.status_code == 200
    assert given == [pytest.approx(seconds)] * 4


NO_TIMES = ["", "0", "0s", "0.0001", "-1s", "1d", "s", "1 s", "1e3", "nan", "inf", "3601", "61m"]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("text", NO_TIMES)
@pytest.mark.parametrize(
    ("verb", "path"),
    [("GET", "/v1/status"), ("GET", "/v1/nodes"), ("POST", "/v1/nodes/node1/restart")],
)
async def test_what_is_no_time_is_refused_and_named(
    answering: Running, verb: str, path: str, text: str
):
    for field, how in (
        ("query.timeout", {"params": {"timeout": text}}),
        ("header.X-Request-Timeout", {"headers": {"X-Request-Timeout": text}}),
    ):
        response = await answering.client.request(verb, path, **how)
        problem = is_problem(response, 422, "invalid_request", response.json()["rpc"])
        assert [item["field"].lower() for item in problem["errors"]] == [field.lower()]
        assert problem["detail"].lower().startswith(field.lower())


async def test_the_longest_time_is_a_setting():
    async with in_front_of(SimulatedNetrunner(health_delay=0), max_timeout="2s") as (running, _):
        for verb, path in (
            ("GET", "/v1/status"),
            ("GET", "/v1/health/wait"),
            ("GET", "/v1/nodes"),
            ("GET", "/v1/nodes/node1"),
            ("POST", "/v1/nodes/node1/restart"),
        ):
            for text, status in (("2s", 200), ("2000ms", 200), ("2001ms", 422), ("1m", 422)):
                for how in (
                    {"params": {"timeout": text}},
                    {"headers": {"X-Request-Timeout": text}},
                ):
                    response = await running.client.request(verb, path, **how)
                    assert response.status_code == status, response.text
                    if status == 422:
                        assert "2 s" in response.json()["detail"]
        document = (await running.client.get("/openapi.json")).text
        assert "From 0.001 s to 2 s" in document
        assert "3600 s" not in document.replace("0.1 s to 3600 s", "")
