"""Reads that a connection repeats are answered below ASGI; but for the time, nobody can tell.

Everything here goes over sockets whose every byte the test decides.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import pytest_asyncio
import uvloop

from gateway import errors
from gateway.auth import new_token, token_line
from gateway.context import RequestContext
from gateway.direct import DirectAnswer
from gateway.http import HttpConnection
from gateway.routes.table import PLACES
from gateway.shortcuts import RecurringRead
from tests.integration.gateway_helpers import (
    Backend,
    Running,
    Watched,
    answers,
    is_problem,
    running_gateway,
)
from tests.integration.test_gateway_connections import (
    SMALL_BUFFER,
    SOON,
    Large,
    RawClient,
    get,
    is_closed_with,
    nobody_left,
    only,
    post,
    raw,
    simulated,
)
from tests.integration.test_gateway_tls import Authority
from tests.integration.zap_helpers import (
    HANG,
    Peer,
    ScriptedServer,
    eventually,
    pong,
    serving,
    soon,
    success,
    told,
)
from zapcore import messages as m
from zapcore.errors import NotBootstrapped
from zapcore.framing import Envelope
from zapcore.methods import Rpcs

READ = get("/v1/status", "X-Request-ID: read")
PING = get("/v1/ping", "X-Request-ID: ping")
LARGEST = 2048
"""Bytes of a request that is still remembered."""


class Ways:
    """How often reads went which way, from now on."""

    def __init__(self, running: Running) -> None:
        self.direct = self.long = 0
        upstream: Any = running.gateway.upstream
        begin, exchange = upstream.begin, upstream.exchange

        def counted_begin(*arguments: Any) -> bool:
            taken: bool = begin(*arguments)
            self.direct += taken
            return taken

        def counted_exchange(*arguments: Any, **options: Any) -> Any:
            self.long += 1
            return exchange(*arguments, **options)

        upstream.begin, upstream.exchange = counted_begin, counted_exchange


class Heard:
    """How many bytes the connections of gateways were given, and in how many pieces."""

    def __init__(self) -> None:
        self.size = self.pieces = 0

    async def all_of(self, size: int) -> None:
        """Wait for so many bytes."""
        async with asyncio.timeout(HANG):
            while self.size < size:  # noqa: ASYNC110
                await asyncio.sleep(0)

    async def send(self, client: RawClient, *pieces: bytes) -> None:
        """Send pieces so that each is read by itself."""
        for piece in pieces:
            size, count = self.size, self.pieces
            await client.send(piece)
            await self.all_of(size + len(piece))
            assert self.pieces == count + 1


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    found = Heard()
    receive = HttpConnection.data_received

    def noting(self: HttpConnection, data: bytes) -> None:
        found.size += len(data)
        found.pieces += 1
        receive(self, data)

    monkeypatch.setattr(HttpConnection, "data_received", noting)
    return found


async def ask(client: RawClient, request: bytes = READ) -> httpx.Response:
    await client.send(request)
    return await client.response()


async def learn(client: RawClient, *requests: bytes) -> None:
    """Let the connection see requests for the first time."""
    for request in requests or (READ,):
        assert (await ask(client, request)).status_code == 200


@asynccontextmanager
async def taught(running: Running, *requests: bytes, **options: Any) -> AsyncIterator[RawClient]:
    """A client whose connection has seen requests before."""
    async with raw(running, **options) as client:
        await learn(client, *requests)
        yield client


def shown(response: httpx.Response, *but: str) -> tuple[object, ...]:
    """All of an answer that must be the same each time."""
    left_out = {"date", *but}
    kept = [item for item in response.headers.multi_items() if item[0] not in left_out]
    return response.status_code, sorted(kept), response.content


class Status:
    """A Status that is answered at once, until its gate is closed or it is told to fail."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = 0
        self.failure: Exception | None = None

    async def __call__(self, request: m.StatusRequest) -> m.StatusResponse:
        self.begun += 1
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return m.StatusResponse(m.ClusterInfo(pid=7))


def backend(status: Status | None = None) -> Backend:
    """One that answers at once, and refuses nothing."""
    return Backend(
        status=status or Status(),
        ping=answers(m.PingResponse(1)),
        add_node=answers(m.AddNodeResponse()),
        pause_node=answers(told("n")),
    )


class Plain(NamedTuple):
    """A gateway without settings, for tests that leave nothing behind."""

    running: Running
    watched: Watched
    ways: Ways
    status: Status


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kept_plain() -> AsyncIterator[Plain]:
    status = Status()
    async with simulated(backend(status)) as (running, watched):
        yield Plain(running, watched, Ways(running), status)


@pytest.fixture
def plain(kept_plain: Plain) -> Plain:
    kept_plain.watched.received.clear()
    kept_plain.ways.direct = kept_plain.ways.long = 0
    kept_plain.status.failure = None
    kept_plain.status.gate.set()
    return kept_plain


on_shared = pytest.mark.asyncio(loop_scope="module")


# Which requests are answered directly.


def of_size(size: int) -> bytes:
    """A read of so many bytes."""
    return get("/v1/status", "X-Fill: " + "x" * (size - len(get("/v1/status", "X-Fill: "))))


DIRECTLY = {
    "a plain one": get("/v1/status"),
    "one with an id": READ,
    "an absolute target": get("http://localhost/v1/status"),
    "an encoded path": get("/v1/%73tatus"),
    "a query of nothing": get("/v1/status?"),
    "an empty line before it": b"\r\n" + get("/v1/status"),
    "an empty line behind it": get("/v1/status") + b"\r\n",
    "names in capitals": get("/v1/status").replace(b"Host", b"HOST"),
    "a connection to keep": get("/v1/status", "Connection: keep-alive"),
    "a body of nothing": get("/v1/status", "Content-Length: 0"),
    "no chunks": get("/v1/status", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "just small enough": of_size(LARGEST),
}


@on_shared
@pytest.mark.parametrize("request_", DIRECTLY.values(), ids=DIRECTLY.keys())
async def test_what_a_connection_repeats_is_answered_directly(request_: bytes, plain: Plain):
    running, watched, ways, _ = plain
    async with raw(running) as client:
        first, *again = [await ask(client, request_) for _ in range(3)]
        assert (ways.long, ways.direct) == (1, 2)
        for response in again:
            assert shown(response, "x-request-id") == shown(first, "x-request-id")
        assert (await ask(client, get("/healthz"))).status_code == 200
        assert client.is_open, "nothing is left over"
    assert watched.counts == {"status": 3}, "the server is asked each time"


UPGRADE = ("Connection: Upgrade", "Upgrade: h2c")
NEVER = {
    "a query": get("/v1/status?x=1"),
    "a time of its own": get("/v1/status", "X-Request-Timeout: 5s"),
    "an expectation": get("/v1/status", "Content-Length: 0", "Expect: 100-continue"),
    "a body that looks like an end": get("/v1/status", "Content-Length: 4") + b"\r\n\r\n",
    "a chunk that looks like an end": get("/v1/status", "Transfer-Encoding: chunked")
    + b"4\r\n\r\n\r\n\r\n0\r\n\r\n",
    "too large": of_size(LARGEST + 1),
    "a change": post("Content-Length: 0", path="/v1/nodes/n/pause"),
    "another page": get("/healthz"),
    "nothing there": get("/nowhere"),
    "not allowed": get("/v1/status", "Origin: http://evil.example"),
    "a header twice": get("/v1/status", "Host: localhost"),
    "not its method": post("Content-Length: 0", path="/v1/status"),
}


@on_shared
@pytest.mark.parametrize("request_", NEVER.values(), ids=NEVER.keys())
async def test_all_else_goes_the_long_way_each_time(request_: bytes, plain: Plain):
    running, _, ways, _ = plain
    async with raw(running) as client:
        first, *again = [await ask(client, request_) for _ in range(3)]
        assert ways.direct == 0
        for response in again:
            assert response.status_code == first.status_code
        assert (await ask(client, get("/healthz"))).status_code == 200
        assert client.is_open


@on_shared
async def test_two_at_once_are_nothing_to_remember(plain: Plain):
    running, watched, ways, _ = plain
    async with raw(running) as client:
        for _ in range(3):
            await client.send(READ * 2)
            assert shown(await client.response()) == shown(await client.response())
    assert ways.direct == 0
    assert watched.counts == {"status": 6}


LAST = {
    "Connection: close": get("/v1/status", "Connection: close"),
    "close among others": get("/v1/status", "Connection: keep-alive, close"),
    "HTTP/1.0": get("/v1/status").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "HTTP/1.0 to keep": get("/v1/status", "Connection: keep-alive").replace(b"/1.1", b"/1.0"),
}


@on_shared
@pytest.mark.parametrize("request_", LAST.values(), ids=LAST.keys())
async def test_a_last_request_is_the_last(request_: bytes, plain: Plain):
    running, _, ways, _ = plain
    async with taught(running) as client:
        await client.send(READ)
        assert (await client.response()).status_code == 200
        response = await ask(client, request_ + READ)
        assert response.status_code == 200
        assert response.headers["connection"] == "close"
        assert await client.ends() == b""
    assert ways.direct == 1


@on_shared
async def test_a_line_without_its_return_ends_the_connection(plain: Plain):
    """Where others might see another end of the head than we do."""
    running, watched, ways, _ = plain
    async with taught(running) as client:
        await client.send(READ.replace(b"\r\n", b"\n"))
        await is_closed_with(client, 400, "invalid_request")
    assert (watched.counts["status"], ways.direct) == (1, 0)


@on_shared
async def test_few_requests_are_remembered(plain: Plain):
    running, _, _, _ = plain
    async with raw(running) as client:
        for number in range(40):
            request = get("/v1/status", f"X-Request-ID: r{number}")
            for _ in range(2):
                assert (await ask(client, request)).headers["x-request-id"] == f"r{number}"
            kept = only(running)._shortcuts
            assert kept is not None
            assert 0 < len(kept) <= 8
            assert all(len(each) <= LARGEST for each in kept)


@on_shared
async def test_a_connection_knows_nothing_of_anothers_requests(plain: Plain):
    running, _, ways, _ = plain
    async with taught(running), taught(running):
        assert (ways.long, ways.direct) == (2, 0)


async def test_it_is_the_same_over_tls(tmp_path: Path):
    authority = Authority()
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    authority.issue(certificate, key)
    settings = {"tls_certificate": certificate, "tls_key": key}
    async with simulated(backend(), **settings) as (running, _):
        ways = Ways(running)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", running.port, ssl=authority.trust(), server_hostname="localhost"
        )
        for _ in range(3):
            writer.write(READ)
            head = (await soon(reader.readuntil(b"\r\n\r\n"))).decode()
            size = int(head.partition("content-length: ")[2].partition("\r\n")[0])
            assert json.loads(await soon(reader.readexactly(size)))["clusterInfo"]["pid"] == 7
        assert (ways.long, ways.direct) == (1, 2)
        writer.transport.abort()


# What looks like a request that is known, and is none.


LENGTH = f"Content-Length: {len(READ)}"
CHUNKS = "Transfer-Encoding: chunked"
DISGUISED = {
    "a body": (400, (post(LENGTH), READ)),
    "the end of a body": (400, (post(f"Content-Length: {len(READ) + 1}"), b"{", READ)),
    "a chunk": (400, (post(CHUNKS) + b"%x\r\n" % len(READ), READ, b"\r\n0\r\n\r\n")),
    "a trailer": (422, (post(CHUNKS) + b"0\r\nX-Header: ", READ)),
    "the body of a read": (200, (get("/v1/status", LENGTH, "X-Request-ID: other"), READ)),
    "a body for nobody": (404, (post(LENGTH, path="/nowhere"), READ)),
    "a header": (404, (b"GET /nowhere HTTP/1.1\r\nX-Header: ", READ)),
}


@on_shared
@pytest.mark.parametrize(("status", "pieces"), DISGUISED.values(), ids=DISGUISED.keys())
async def test_what_is_part_of_another_request_is_not_answered(
    status: int, pieces: tuple[bytes, ...], plain: Plain, heard: Heard
):
    running, watched, ways, _ = plain
    async with taught(running, READ, PING) as client:
        watched.received.clear()
        await heard.send(client, *pieces)
        assert (await client.response()).status_code == status
        assert watched.counts["status"] == (status == 200)
        assert ways.direct == 0
        assert (await ask(client, PING)).headers["x-request-id"] == "ping"
        assert (await ask(client)).headers["x-request-id"] == "read"
        assert ways.direct == 2, "and afterwards they are known again"
        assert client.is_open


@on_shared
async def test_behind_an_empty_line_it_is_answered_once(plain: Plain, heard: Heard):
    running, watched, _, _ = plain
    async with taught(running) as client:
        for empty in (b"\r\n", b"\r\n\r\n"):
            await ask(client)
            watched.received.clear()
            await heard.send(client, empty, READ)
            assert (await client.response()).status_code == 200
            assert watched.counts == {"status": 1}
            assert client.is_open


@on_shared
async def test_a_request_cut_at_any_byte_is_the_same(plain: Plain, heard: Heard):
    running, watched, ways, _ = plain
    stream = READ + PING + READ
    async with taught(running, READ, PING) as client:
        for at in range(1, len(stream)):
            await heard.send(client, stream[:at], stream[at:])
            for name in ("read", "ping", "read"):
                response = await client.response()
                assert response.status_code == 200
                assert response.headers["x-request-id"] == name
        assert client.is_open
    assert watched.counts["status"] == 1 + 2 * (len(stream) - 1)
    assert 1 <= ways.direct <= 2, "where it was cut between two"


@on_shared
async def test_byte_by_byte_it_is_the_same(plain: Plain, heard: Heard):
    running, _, ways, _ = plain
    async with taught(running, READ, PING) as client:
        await heard.send(client, *(bytes([each]) for each in READ + PING))
        assert (await client.response()).headers["x-request-id"] == "read"
        assert (await client.response()).headers["x-request-id"] == "ping"
        assert ways.direct == 0
        await ask(client)
        assert ways.direct == 1


@on_shared
async def test_what_follows_a_request_for_another_protocol_is_answered(plain: Plain, heard: Heard):
    """Nobody changes the protocol here, so it is HTTP/1.1 that goes on."""
    running, _, _, _ = plain
    upgrade = get("/v1/ping", "X-Request-ID: up", *UPGRADE)
    change = post("X-Request-ID: change", "Content-Length: 0", *UPGRADE, path="/v1/nodes/n/pause")
    async with taught(running) as client:
        for pieces, names in (
            ([upgrade + READ], ["up", "read"]),
            ([upgrade, READ], ["up", "read"]),
            ([upgrade + READ[:20], READ[20:]], ["up", "read"]),
            ([upgrade * 3 + READ], ["up", "up", "up", "read"]),
            ([READ + change + PING], ["read", "change", "ping"]),
        ):
            await heard.send(client, *pieces)
            for name in names:
                response = await client.response()
                assert response.status_code == 200
                assert response.headers["x-request-id"] == name
            assert client.is_open


@on_shared
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one by one"])
@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ((post(f"Content-Length: {len(READ)}", *UPGRADE), READ), 400),
        ((get("/v1/status", f"Content-Length: {len(READ)}", *UPGRADE), READ), 200),
        (
            (
                post("Transfer-Encoding: chunked", *UPGRADE),
                b"%x\r\n%b\r\n0\r\n\r\n" % (len(READ), READ),
            ),
            400,
        ),
    ],
    ids=["of a length", "of a read", "in chunks"],
)
async def test_a_body_of_a_request_for_another_protocol_is_not_taken_for_a_request(
    pieces: tuple[bytes, ...], status: int, at_once: bool, plain: Plain
):
    """It is taken for what it is: the body, of the request in HTTP/1.1."""
    running, watched, ways, _ = plain
    async with taught(running) as client:
        watched.received.clear()
        for piece in [b"".join(pieces)] if at_once else pieces:
            await client.send(piece)
            await asyncio.sleep(0.01)
        assert (await client.response()).status_code == status
        assert ways.direct == 0
        await ask(client)  # and what follows is a request again
        assert client.is_open


@on_shared
@pytest.mark.parametrize("size", [1000, 1, 7])
async def test_a_body_that_asks_for_another_protocol_is_read(size: int, plain: Plain):
    """As the first request of Java's client, which would rather speak HTTP/2."""
    running, _, _, _ = plain
    body = b'{"none": "of these"}'
    given = (f"Content-Length: {len(body)}", *UPGRADE)
    async with taught(running) as client:
        await client.send(post(*given, path="/v1/nodes"))
        for at in range(0, len(body), size):
            await client.send(body[at : at + size])
        response = await client.response()
        assert response.status_code == 422
        assert "body.none" in response.text
        await ask(client)


@on_shared
@pytest.mark.parametrize(
    ("request_line", "headers", "status"),
    [
        ("GET /v1/ping", ("Upgrade: h2c",), 200),
        ("POST /v1/nodes/n/pause", ("Upgrade: h2c", "Content-Length: 0"), 200),
        ("CONNECT localhost:443", UPGRADE, None),
        ("CONNECT localhost:443", (), None),
    ],
    ids=["alone", "alone, a change", "a tunnel", "a tunnel that is one already"],
)
async def test_asking_by_halves_or_for_a_tunnel_leaves_nobody_waiting(
    request_line: str,
    headers: tuple[str, ...],
    status: int | None,
    plain: Plain,
    caplog: pytest.LogCaptureFixture,
):
    running, _, _, _ = plain
    lines = (f"{request_line} HTTP/1.1", "Host: localhost", *headers, "", "")
    async with taught(running) as client:
        await client.send("\r\n".join(lines).encode())
        response = await client.response()
        assert response.status_code == status or (status is None and response.status_code >= 400)
    assert not [each for each in caplog.records if each.exc_info]


MIXTURE = {
    "read": (READ, 200),
    "ping": (PING, 200),
    "fastapi": (get("/v1/status?x=1", "X-Request-ID: fastapi"), 200),
    "page": (get("/healthz", "X-Request-ID: page"), 200),
    "nowhere": (get("/nowhere", "X-Request-ID: nowhere"), 404),
    "change": (post("X-Request-ID: change", "Content-Length: 0", path="/v1/nodes/n/pause"), 200),
    "body": (post("X-Request-ID: body", f"Content-Length: {len(READ)}") + READ, 400),
    "chunks": (
        post("X-Request-ID: chunks", "Transfer-Encoding: chunked")
        + b"%x\r\n%b\r\n0\r\n\r\n" % (len(READ), READ),
        400,
    ),
    "upgrade": (get("/v1/ping", "X-Request-ID: upgrade", *UPGRADE), 200),
}


def pieces_of(stream: list[bytes], chance: random.Random) -> Iterator[bytes]:
    """Requests, mostly one by one, now and then several or parts of one."""
    rest = b""
    for request in stream:
        rest += request
        if chance.random() < 0.7:
            yield rest
            rest = b""
        elif chance.random() < 0.5:
            at = chance.randrange(1, len(rest))
            yield rest[:at]
            rest = rest[at:]
    if rest:
        yield rest


async def send_mixture(client: RawClient, heard: Heard, seed: int) -> None:
    """Requests of all kinds in pieces of all sizes; each is answered, in order, as it should."""
    chance = random.Random(seed)  # noqa: S311
    names = chance.choices(list(MIXTURE), weights=[6, 4, 1, 1, 1, 1, 1, 1, 1], k=25)

    async def send() -> None:
        size = heard.size
        for piece in pieces_of([MIXTURE[name][0] for name in names], chance):
            await client.send(piece)
            size += len(piece)
            if chance.random() < 0.8:
                await heard.all_of(size)
            if chance.random() < 0.5:
                await asyncio.sleep(0.001)

    sending = asyncio.create_task(send())
    got = [await client.response() for _ in names]
    await sending
    assert [each.headers["x-request-id"] for each in got] == names, seed
    assert [each.status_code for each in got] == [MIXTURE[name][1] for name in names], seed
    assert client.is_open, seed


async def mixtures(heard: Heard, count: int) -> None:
    async with simulated(backend()) as (running, watched):
        ways = Ways(running)
        async with raw(running) as client:
            for seed in range(count):
                await send_mixture(client, heard, seed)
        await nobody_left(running)
        assert watched.counts["add_node"] == 0
        assert ways.direct > count, "else this would say little"


async def test_whatever_is_sent_is_answered_in_order(heard: Heard, long: bool):
    await mixtures(heard, 500 if long else 20)


def test_whatever_is_sent_is_answered_in_order_on_the_faster_event_loop(heard: Heard, long: bool):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(mixtures(heard, 500 if long else 20))


# Others behind it on the connection.


@on_shared
async def test_requests_behind_one_under_way_are_answered_in_order(plain: Plain, heard: Heard):
    running, _, ways, status = plain
    async with taught(running, READ, PING) as client:
        status.gate.clear()
        await heard.send(client, READ)
        assert ways.direct == 1
        await client.send(PING)
        await client.send(READ + PING[:30])
        await client.send(PING[30:] + READ)
        await asyncio.sleep(0.05)
        assert client.is_open, "nobody overtakes it"
        status.gate.set()
        for name in ("read", "ping", "read", "ping", "read"):
            assert (await client.response()).headers["x-request-id"] == name
        assert (await ask(client)).status_code == 200
        assert ways.direct == 2


@on_shared
async def test_garbage_behind_one_under_way_ends_the_connection(
    plain: Plain, heard: Heard, caplog: pytest.LogCaptureFixture
):
    running, _, ways, status = plain
    async with taught(running) as client:
        status.gate.clear()
        await heard.send(client, READ, b"nonsense\r\n\r\n")
        assert ways.direct == 1
        status.gate.set()
        assert await client.ends() == b"", "it could be taken for the answer to the read"
    await nobody_left(running)
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


# Clients that leave.


@on_shared
@pytest.mark.parametrize("behind", [b"", PING, READ[:20]], ids=["alone", "with one", "with half"])
async def test_who_leaves_in_the_midst_leaves_nothing(
    behind: bytes, plain: Plain, heard: Heard, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    running, watched, _, status = plain
    async with taught(running) as client:
        status.gate.clear()
        await heard.send(client, READ)
        if behind:
            await heard.send(client, behind)
        client.abort()
    await eventually(lambda: not running.server.connections.all)
    status.gate.set()
    await eventually(lambda: running.gateway.pool.calls == 0)
    await nobody_left(running)
    assert watched.counts == {"status": 2}
    lines = [each for each in caplog.records if each.name == "gateway.request"]
    assert len(lines) == 2, "one that nobody read is told too"


async def test_who_left_does_not_make_the_server_wait_and_is_told(
    heard: Heard, caplog: pytest.LogCaptureFixture
):
    """The call is given up with the server's end; its line is written all the same."""
    caplog.set_level("INFO")
    held = Status()
    async with simulated(backend(held), drain_timeout=HANG) as (running, _):
        async with taught(running) as client:
            held.gate.clear()
            await heard.send(client, READ)
            client.abort()
        await eventually(lambda: not running.server.connections.all)
        running.tell_to_stop()
        await soon(running.serving)
    lines = [each for each in caplog.records if each.name == "gateway.request"]
    assert [each.status for each in lines] == [200, 503]
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


# Clients that do not read.


async def test_who_does_not_read_piles_up_nothing_and_is_cut_off(heard: Heard):
    size = 1_000_000
    async with simulated(Large(size), send_timeout=0.5) as (running, watched):
        ways = Ways(running)
        async with raw(running, SMALL_BUFFER) as client:
            for _ in range(4):
                await learn(client)
            assert ways.direct == 3
            connection = only(running)
            most = 0
            before = time.monotonic()

            async def send() -> None:
                for _ in range(30):
                    await heard.send(client, READ)
                    await eventually(lambda: connection.idle)

            sending = asyncio.create_task(send())
            while connection in running.server.connections.all:
                most = max(most, connection.unsent)
                await asyncio.sleep(0.002)
            sending.cancel()
            await asyncio.wait([sending])
            assert time.monotonic() - before >= 0.5
            assert size / 2 < most < 3 * size
        await nobody_left(running)
        assert watched.counts["status"] < 4 + 15, "no more than the system keeps for it"


async def test_who_reads_late_gets_all_of_it():
    """Answers that are begun while others wait to be taken come behind them."""
    async with simulated(Large(300_000)) as (running, _):
        ways = Ways(running)
        async with raw(running, SMALL_BUFFER) as client:
            first = await ask(client)
            sending = asyncio.create_task(client.send(READ * 5))
            await asyncio.sleep(0.05)
            for _ in range(5):
                assert shown(await client.response()) == shown(first)
            await sending
            for _ in range(3):
                assert shown(await ask(client)) == shown(first)
            assert ways.direct == 3


# Times, and room for others.

IDLE = 0.3
RECEIVE = 0.2


async def test_an_idle_connection_is_closed_though_no_timer_waits_for_it():
    async with simulated(backend(), idle_timeout=IDLE) as (running, _):
        async with taught(running) as client:
            for _ in range(3):
                before = time.monotonic()
                await ask(client)
            assert only(running).timeout_keep_alive_task is None
            assert await client.ends() == b""
            assert IDLE * 0.9 <= time.monotonic() - before < SOON
        await nobody_left(running)


async def test_a_timer_of_the_long_way_does_not_end_one_that_goes_on():
    """uvicorn's, which the first answer has armed."""
    async with (
        simulated(backend(), idle_timeout=IDLE) as (running, _),
        taught(running) as client,
    ):
        until = time.monotonic() + 2 * IDLE
        while time.monotonic() < until:
            await ask(client)
            await asyncio.sleep(IDLE / 10)
        assert client.is_open


async def test_one_under_way_is_not_idle(heard: Heard):
    held = Status()
    times = {"idle_timeout": IDLE, "receive_timeout": IDLE, "send_timeout": IDLE}
    async with (
        simulated(backend(held), **times) as (running, _),
        taught(running) as client,
    ):
        held.gate.clear()
        await heard.send(client, READ)
        running.server.connections.sweep(asyncio.get_running_loop().time() + 1000)
        await asyncio.sleep(2 * IDLE)
        assert client.is_open
        held.gate.set()
        assert (await client.response()).status_code == 200


@pytest.mark.parametrize("when", ["behind the answer", "before the answer"])
async def test_half_a_head_has_its_time_once_the_one_before_is_answered(when: str, heard: Heard):
    held = Status()
    async with (
        simulated(backend(held), receive_timeout=RECEIVE) as (running, _),
        taught(running) as client,
    ):
        if when == "before the answer":
            held.gate.clear()
            await heard.send(client, READ, READ[:20])
            running.server.connections.sweep(asyncio.get_running_loop().time() + 1000)
            await asyncio.sleep(2 * RECEIVE)
            assert client.is_open
            held.gate.set()
            before = time.monotonic()
            assert (await client.response()).status_code == 200
        else:
            assert (await ask(client)).status_code == 200
            before = time.monotonic()
            await heard.send(client, READ[:20])
        await is_closed_with(client, 408, "request_timeout")
        assert RECEIVE * 0.9 <= time.monotonic() - before < SOON


async def test_who_was_answered_directly_last_makes_room_last():
    async with (
        simulated(backend(), max_connections=2) as (running, _),
        AsyncExitStack() as stack,
    ):
        first, second = [await stack.enter_async_context(taught(running)) for _ in range(2)]
        await asyncio.sleep(0.01)
        await ask(first)
        await asyncio.sleep(0.01)
        async with taught(running):
            assert await second.ends() == b""
            assert first.is_open


async def test_one_under_way_makes_no_room(heard: Heard):
    held = Status()
    async with (
        simulated(backend(held), max_connections=1) as (running, _),
        taught(running) as client,
    ):
        held.gate.clear()
        await heard.send(client, READ)
        assert running.server.connections.count() == (1, 0)
        async with raw(running) as another:
            await is_closed_with(another, 503, "overloaded")
        held.gate.set()
        assert (await client.response()).status_code == 200
        assert running.server.connections.count() == (0, 1)


# The end of the server.


@pytest.mark.parametrize(
    ("way", "grace", "status"),
    [("direct", 0, 200), ("direct", 3600, 200), ("direct", 3600, 409), ("long", 3600, 200)],
)
async def test_one_under_way_when_told_to_stop_is_answered_and_the_last(
    way: str, grace: int, status: int, heard: Heard
):
    held = Status()
    settings = {"drain_grace": grace, "drain_timeout": HANG}
    async with simulated(backend(held), **settings) as (running, _):
        ways = Ways(running)
        async with raw(running) as client:
            if way == "direct":
                await learn(client)
            held.gate.clear()
            await heard.send(client, READ)
            await eventually(lambda: held.begun == ways.long + ways.direct)
            assert ways.direct == (way == "direct")
            running.tell_to_stop()
            await eventually(lambda: running.gateway.draining)
            if not grace:
                await eventually(lambda: not only(running).cycle.keep_alive)
            held.failure = None if status == 200 else NotBootstrapped("not bootstrapped")
            held.gate.set()
            response = await client.response()
            assert response.status_code == status
            assert response.headers["connection"] == "close"
            assert await client.ends() == b""
        if grace:
            running.tell_to_stop()
        await soon(running.serving)


async def test_in_the_grace_time_nothing_is_answered_directly():
    async with simulated(backend(), drain_grace=3600) as (running, _):
        ways = Ways(running)
        async with taught(running) as client:
            running.tell_to_stop()
            await eventually(lambda: running.gateway.draining)
            response = await ask(client)
            assert response.status_code == 200
            assert response.headers["connection"] == "close"
            assert ways.direct == 0
        running.tell_to_stop()


@pytest.mark.parametrize("way", ["direct", "long"])
async def test_one_that_does_not_end_in_time_is_told_what_is_known_of_it(way: str, heard: Heard):
    held = Status()
    async with simulated(backend(held)) as (running, _):
        async with raw(running) as client:
            if way == "direct":
                await learn(client)
            held.gate.clear()
            before = held.begun
            await heard.send(client, READ)
            await eventually(lambda: held.begun == before + 1)
            running.tell_to_stop()
            response = await client.response()
            is_problem(response, 503, "upstream_unavailable", "Status")
            assert response.headers["connection"] == "close"
            assert await client.ends() == b""
        await soon(running.serving)


async def test_told_to_stop_twice_it_waits_for_nobody(heard: Heard):
    held = Status()
    async with simulated(backend(held), drain_timeout=HANG) as (running, _):
        async with taught(running) as client:
            held.gate.clear()
            await heard.send(client, READ)
            running.tell_to_stop()
            running.tell_to_stop()
            await client.ends()
        await soon(running.serving)


# Who may ask.

SECRETS = {name: new_token() for name in ("alice", "bob")}


def write_tokens(file: Path, *names: str) -> None:
    file.write_text("\n".join(token_line(name, "read", SECRETS[name]) for name in names))


def read_by(name: str, path: str = "/v1/status") -> bytes:
    return get(path, f"Authorization: Bearer {SECRETS[name]}")


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """Alice's and Bob's."""
    file = tmp_path / "tokens"
    write_tokens(file, *SECRETS)
    return file


async def test_a_token_that_is_taken_away_lets_nobody_in_any_more(tokens: Path):
    async with simulated(backend(), tokens=tokens) as (running, watched):
        ways = Ways(running)
        async with taught(running, read_by("alice")) as client:
            await learn(client, read_by("alice"))
            assert ways.direct == 1
            write_tokens(tokens, "bob")
            running.server.reload()
            watched.received.clear()
            for _ in range(2):
                response = await ask(client, read_by("alice"))
                is_problem(response, 401, "unauthenticated")
            assert (ways.direct, watched.received) == (1, [])

            write_tokens(tokens, "alice")
            running.server.reload()
            for _ in range(2):
                assert (await ask(client, read_by("alice"))).status_code == 200
            assert ways.direct == 2, "once more the long way, and then directly again"
            is_problem(await ask(client, read_by("bob")), 401, "unauthenticated")


async def test_tokens_that_can_not_be_read_change_nothing(tokens: Path):
    async with simulated(backend(), tokens=tokens) as (running, _):
        ways = Ways(running)
        async with taught(running, read_by("alice")) as client:
            tokens.write_text("nonsense")  # noqa: ASYNC240
            running.server.reload()
            assert (await ask(client, read_by("alice"))).status_code == 200
            assert ways.direct == 1


@pytest.mark.parametrize("way", ["direct", "long"])
async def test_a_token_that_is_taken_away_meanwhile_lets_in_no_more(
    way: str, tokens: Path, heard: Heard
):
    """Above all where the first request is under way: what it found out is old by then."""
    held = Status()
    async with simulated(backend(held), tokens=tokens) as (running, _):
        ways = Ways(running)
        async with raw(running) as client:
            if way == "direct":
                await learn(client, read_by("alice"))
            held.gate.clear()
            before = held.begun
            await heard.send(client, read_by("alice"))
            await eventually(lambda: held.begun == before + 1)
            write_tokens(tokens, "bob")
            running.server.reload()
            held.gate.set()
            assert (await client.response()).status_code == 200
            direct = ways.direct
            is_problem(await ask(client, read_by("alice")), 401, "unauthenticated")
            assert ways.direct == direct


async def test_tokens_have_their_shares(tokens: Path, heard: Heard):
    held = Status()
    settings = {"tokens": tokens, "max_calls_per_token": 1}
    async with simulated(backend(held), **settings) as (running, _):
        ways = Ways(running)
        async with (
            taught(running, read_by("alice")) as client,
            taught(running, read_by("alice")) as another,
            taught(running, read_by("bob")) as bob,
        ):
            held.gate.clear()
            await heard.send(client, read_by("alice"))
            is_problem(await ask(another, read_by("alice")), 429, "too_many_requests")
            await heard.send(bob, read_by("bob"))
            assert ways.direct == 2
            held.gate.set()
            assert (await client.response()).status_code == 200
            assert (await bob.response()).status_code == 200
            assert (await ask(another, read_by("alice"))).status_code == 200
            assert not running.gateway._call_shares._held


async def test_a_share_is_one_of_calls_that_are_shared_too(tokens: Path):
    settings = {"tokens": tokens, "max_calls_per_token": 3}
    async with (
        simulated(backend(), **settings) as (running, _),
        AsyncExitStack() as stack,
    ):
        clients = [
            await stack.enter_async_context(taught(running, read_by("alice"))) for _ in range(5)
        ]
        await all_send(clients, read_by("alice"))
        statuses = [(await client.response()).status_code for client in clients]
        assert sorted(statuses) == [200, 200, 200, 429, 429]
        assert not running.gateway._call_shares._held


async def test_there_are_only_so_many_calls(tokens: Path, heard: Heard):
    held = Status()
    ping = read_by("alice", "/v1/ping")
    async with simulated(backend(held), max_calls=1, tokens=tokens) as (running, _):
        ways = Ways(running)
        async with taught(running, read_by("alice")) as client, taught(running, ping) as another:
            held.gate.clear()
            await heard.send(client, read_by("alice"))
            is_problem(await ask(another, ping), 503, "overloaded", "Ping")
            held.gate.set()
            assert (await client.response()).status_code == 200
            assert (await ask(another, ping)).status_code == 200
            assert ways.direct == 2
            assert running.gateway.pool.calls == 0
            assert not running.gateway._call_shares._held


# What the answer, the log and the metrics tell.


def told_of(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The lines of requests, without what differs each time."""
    fields = (
        *("request_id", "client", "method", "path", "route", "status", "sent_bytes"),
        *("received_bytes", "code", "token", "rpc", "outcome"),
    )
    return [
        {name: getattr(record, name, None) for name in fields}
        for record in caplog.records
        if record.name == "gateway.request"
    ]


async def test_the_log_tells_the_same(caplog: pytest.LogCaptureFixture, tokens: Path):
    caplog.set_level("INFO")
    request = read_by("alice").replace(b"\r\n\r\n", b"\r\nX-Request-ID: mine\r\n\r\n")
    async with simulated(backend(), tokens=tokens) as (running, _):
        ways = Ways(running)
        async with raw(running) as client:
            for _ in range(3):
                size = len((await ask(client, request)).content)
        assert ways.direct == 2
    first, *again = told_of(caplog)
    assert first == {
        "request_id": "mine",
        "client": "127.0.0.1",
        "method": "GET",
        "path": "/v1/status",
        "route": "/v1/status",
        "status": 200,
        "sent_bytes": size,
        "received_bytes": None,
        "code": None,
        "token": "alice",
        "rpc": "Status",
        "outcome": "ok",
    }
    assert again == [first, first]
    for record in caplog.records:
        if record.name == "gateway.request":
            assert 0 < record.upstream_ms <= record.duration_ms < HANG * 1000


@on_shared
async def test_the_log_tells_failures_the_same(plain: Plain, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    running, _, ways, status = plain
    async with taught(running) as client, raw(running) as fresh:
        status.failure = NotBootstrapped("not bootstrapped")
        assert shown(await ask(client)) == shown(await ask(fresh))
    assert ways.direct == 1
    _, direct, long = told_of(caplog)
    assert direct == long
    assert (direct["status"], direct["outcome"], direct["code"]) == (
        409,
        "not_bootstrapped",
        "not_bootstrapped",
    )


async def test_the_metrics_tell_the_same():
    async with simulated(backend()) as (running, _):
        async with raw(running) as client:
            for _ in range(3):
                size = len((await ask(client)).content)
        text = (await running.client.get("/metrics")).text
        labels = 'method="GET",route="/v1/status"'
        for line in (
            f'http_requests_total{{{labels},status="200"}} 3.0',
            f"http_request_duration_seconds_count{{{labels}}} 3.0",
            'zap_calls_total{outcome="ok",rpc="Status"} 3.0',
            'zap_call_duration_seconds_count{rpc="Status"} 3.0',
            f"http_response_body_bytes_total {3.0 * size}",
            "http_request_body_bytes_total 0.0",
        ):
            assert f"zap_gateway_{line}" in text.splitlines()


@on_shared
async def test_a_request_without_an_id_of_its_own_gets_another_each_time(plain: Plain):
    running, _, ways, _ = plain
    async with raw(running) as client:
        for request in (
            get("/v1/status"),
            get("/v1/status", "X-Request-ID: no <id>"),
            get("/v1/status", "X-Request-ID: one", "X-Request-ID: two"),
            get("/v1/status", "X-Request-ID: " + "x" * 65),
            get("/v1/status", "X-Request-ID:"),
        ):
            ids = [(await ask(client, request)).headers["x-request-id"] for _ in range(4)]
            assert len(set(ids)) == 4
            assert all(len(each) == 16 for each in ids)
    assert ways.direct == 5 * 3


async def test_a_proxy_asks_for_many_on_one_connection(caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    hops = ["198.51.100.4", "198.51.100.5", "2001:db8::4"] * 3
    async with simulated(backend(), trusted_proxy=("127.0.0.1",)) as (running, _):
        ways = Ways(running)
        async with raw(running) as client:
            for hop in hops:
                await ask(client, get("/v1/status", f"X-Forwarded-For: {hop}"))
        assert ways.direct == 6
    assert [line["client"] for line in told_of(caplog)] == hops


async def test_pages_that_were_let_in_by_name_are_told_so_and_others_are_not():
    page = "https://page.example"
    async with simulated(backend(), allowed_origin=(page,)) as (running, _):
        ways = Ways(running)
        async with raw(running) as client:
            for _ in range(3):
                for origin, allowed in ((page, page), (page.upper(), page.upper()), ("", None)):
                    headers = (f"Origin: {origin}",) if origin else ()
                    response = await ask(client, get("/v1/status", *headers))
                    assert response.status_code == 200
                    assert response.headers.get("access-control-allow-origin") == allowed
                    assert response.headers.get("vary") == ("Origin" if allowed else None)
                evil = await ask(client, get("/v1/status", "Origin: https://evil.example"))
                is_problem(evil, 403, "forbidden")
        assert ways.direct == 6


# Failures.


class Breaking:
    """A server's script: so many Status calls are not answered, but their connections cut."""

    def __init__(self) -> None:
        self.cuts = 0
        self.asked: list[Peer] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            request = await peer.message()
            if request.type == Rpcs.ping.opcode and request.body == Rpcs.ping.encode_request():
                await peer.send(pong(request))
                continue
            self.asked.append(peer)
            if self.cuts:
                self.cuts -= 1
                peer.writer.transport.abort()
                return
            await peer.answer(request, m.StatusResponse(m.ClusterInfo(pid=7)))


@pytest.mark.parametrize(("cuts", "status"), [(1, 200), (2, 503)])
async def test_a_connection_to_the_server_that_is_lost_is_another_one_chance(
    cuts: int, status: int, heard: Heard
):
    script = Breaking()
    async with ScriptedServer(script) as server, running_gateway(server) as running:
        await eventually(lambda: len(running.gateway.pool.connections) == 2)
        ways = Ways(running)
        async with taught(running) as client:
            script.cuts = cuts
            response = await ask(client)
            assert ways.direct == 1
            assert response.status_code == status
            if status != 200:
                is_problem(response, 503, "upstream_unavailable", "Status")
            assert len(script.asked) == 1 + 2, "it is asked once more, and not twice"
            assert script.asked[1] is not script.asked[2]
            await eventually(lambda: running.gateway.pool.connected_now)
            assert (await ask(client)).status_code == 200


async def test_where_the_server_is_gone_it_is_the_same():
    async with AsyncExitStack() as upstream:
        server = await upstream.enter_async_context(serving(backend()))
        async with (
            running_gateway(server, acquire_timeout="20ms") as running,
            taught(running) as client,
            raw(running) as fresh,
        ):
            await upstream.aclose()
            await eventually(lambda: not running.gateway.pool.connected_now)
            await eventually(lambda: running.gateway.pool.circuit_open)
            ways = Ways(running)
            response = await ask(client)
            is_problem(response, 503, "upstream_unavailable", "Status")
            assert shown(await ask(fresh)) == shown(response)
            assert ways.direct == 0


async def test_a_defect_in_telling_a_failure_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tokens: Path
):
    """As with an application that fails: the connection ends, and the log tells why."""
    status = Status()

    def broken(*_: object, **__: object) -> errors.Problem:
        raise LookupError("a defect of ours")

    async with simulated(backend(status), tokens=tokens) as (running, _):
        async with taught(running, read_by("alice")) as client:
            status.failure = NotBootstrapped("not bootstrapped")
            monkeypatch.setattr(errors, "zap_problem", broken)
            await client.send(read_by("alice"))
            assert await client.ends() == b""
        assert "a defect of ours" in caplog.text
        await nobody_left(running)
        assert not running.gateway._call_shares._held


# Calls that are shared.


async def all_send(clients: list[RawClient], request: bytes = READ) -> None:
    """Send from all in one turn of the event loop, so that all is read in the next."""
    for client in clients:
        await client.send(request)


@asynccontextmanager
async def many_taught(
    running: Running, count: int, *requests: bytes
) -> AsyncIterator[list[RawClient]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(taught(running, *requests)) for _ in range(count)]


@on_shared
async def test_reads_of_one_moment_are_one_call(plain: Plain):
    running, watched, ways, _ = plain
    async with many_taught(running, 20, READ) as clients:
        for _ in range(3):
            watched.received.clear()
            await all_send(clients)
            bodies = {(await client.response()).content for client in clients}
            assert len(bodies) == 1
            assert watched.counts == {"status": 1}
        assert ways.direct == 3 * 20
    assert not running.gateway.upstream._shared


async def test_reads_of_different_rpcs_are_different_calls():
    names = ["Ping", "RPCVersion", "Health", "URIs", "Status", "GetSnapshotNames"]
    requests = [get(PLACES[name].path) for name in names] * 2
    async with simulated() as (running, watched), AsyncExitStack() as stack:
        ways = Ways(running)
        clients = [
            await stack.enter_async_context(taught(running, request)) for request in requests
        ]
        expected = [(await ask(*pair)).content for pair in zip(clients, requests, strict=True)]
        assert ways.direct == len(requests)
        watched.received.clear()
        for client, request in zip(clients, requests, strict=True):
            await client.send(request)
        assert [(await client.response()).content for client in clients] == expected
        assert set(watched.counts.values()) == {1}
        assert len(watched.counts) == len(names) - 1, "Pings are not watched"


@on_shared
async def test_changes_are_shared_with_nobody(plain: Plain):
    running, watched, _, _ = plain
    change = post("Content-Length: 0", path="/v1/nodes/n/pause")
    async with many_taught(running, 10, READ) as clients:
        watched.received.clear()
        for client in clients[:5]:
            await client.send(change)
        await all_send(clients[5:])
        for client in clients:
            assert (await client.response()).status_code == 200
        assert watched.counts == {"pause_node": 5, "status": 1}


class Late:
    """A server's script: it looks at its state when it is asked, and answers when it is told."""

    def __init__(self) -> None:
        self.pid = 1
        self.waiting: list[tuple[Peer, Envelope]] = []
        self.patient = False

    async def __call__(self, peer: Peer) -> None:
        while True:
            request = await peer.message()
            if request.type == Rpcs.ping.opcode and request.body == Rpcs.ping.encode_request():
                await peer.send(pong(request))
                continue
            state = m.StatusResponse(m.ClusterInfo(pid=self.pid))
            self.waiting.append((peer, success(request, state)))
            if not self.patient:
                await self.answer(0)

    async def answer(self, number: int) -> None:
        peer, answer = self.waiting.pop(number)
        await peer.send(answer)


async def pid_of(client: RawClient) -> int:
    return int((await client.response()).json()["clusterInfo"]["pid"])


@pytest.mark.parametrize("connections", [1, 2])
async def test_a_read_that_begins_later_gets_what_is_so_later(connections: int, heard: Heard):
    """Also while one that began before is still waiting for its answer."""
    script = Late()
    async with (
        ScriptedServer(script) as server,
        running_gateway(server, connections=connections) as running,
        many_taught(running, 4, READ) as clients,
    ):
        ways = Ways(running)
        await eventually(lambda: len(running.gateway.pool.connections) == connections)
        script.patient = True
        await all_send(clients[:2])
        await eventually(lambda: len(script.waiting) == 1)
        script.pid = 2
        await all_send(clients[2:])
        await eventually(lambda: len(script.waiting) == 2)
        assert ways.direct == 4
        await script.answer(1)
        assert [await pid_of(client) for client in clients[2:]] == [2, 2]
        assert all(client.is_open for client in clients[:2])
        await script.answer(0)
        assert [await pid_of(client) for client in clients[:2]] == [1, 1]
        assert not running.gateway.upstream._shared


async def test_a_read_in_the_turn_after_the_request_has_left_is_a_call_of_its_own():
    """However soon: each reader here begins as soon as the one before has left."""
    script = Late()
    async with (
        ScriptedServer(script) as server,
        running_gateway(server) as running,
        many_taught(running, 10, READ) as clients,
    ):
        script.patient = True
        upstream, name = running.gateway.upstream, "Status"
        for number, client in enumerate(clients, 1):
            await client.send(READ)
            async with asyncio.timeout(HANG):
                while (  # noqa: ASYNC110
                    running.gateway.pool.calls < number or not upstream._shared[name].batch.gone
                ):
                    await asyncio.sleep(0)
        await eventually(lambda: len(script.waiting) == 10)
        for _ in clients:
            await script.answer(0)
        for client in clients:
            assert await pid_of(client) == 1


@on_shared
async def test_all_that_share_a_call_share_its_failure(plain: Plain):
    running, watched, _, status = plain
    async with many_taught(running, 8, READ) as clients:
        status.failure = NotBootstrapped("not bootstrapped")
        watched.received.clear()
        await all_send(clients)
        for client in clients:
            is_problem(await client.response(), 409, "not_bootstrapped", "Status")
        assert watched.counts == {"status": 1}
        status.failure = None
        await all_send(clients)
        for client in clients:
            assert (await client.response()).status_code == 200
        assert running.gateway.pool.calls == 0


async def test_all_that_share_a_call_whose_connection_is_lost_get_an_answer():
    script = Breaking()
    async with (
        ScriptedServer(script) as server,
        running_gateway(server) as running,
        many_taught(running, 8, READ) as clients,
    ):
        await eventually(lambda: len(running.gateway.pool.connections) == 2)
        script.cuts = 1
        script.asked.clear()
        await all_send(clients)
        for client in clients:
            assert (await client.response()).status_code == 200
        assert len(script.asked) <= 1 + len(clients), "each is repeated once at most"
        assert running.gateway.pool.calls == 0


async def test_all_that_share_a_call_that_is_not_answered_are_told_so():
    script = Late()
    async with (
        ScriptedServer(script) as server,
        running_gateway(server, call_timeout="300ms") as running,
        many_taught(running, 8, READ) as clients,
    ):
        script.patient = True
        await all_send(clients)
        for client in clients:
            is_problem(await client.response(), 504, "deadline_exceeded", "Status")
        assert len(script.waiting) == 1


@on_shared
async def test_one_that_leaves_takes_nothing_from_those_that_share_its_call(
    plain: Plain, heard: Heard
):
    running, _, _, status = plain
    async with many_taught(running, 6, READ) as clients:
        status.gate.clear()
        begun, size = status.begun, heard.size
        await all_send(clients)
        await heard.all_of(size + 6 * len(READ))
        await eventually(lambda: status.begun == begun + 1)
        for client in clients[::2]:
            client.abort()
        await eventually(lambda: len(running.server.connections.all) == 3)
        status.gate.set()
        for client in clients[1::2]:
            assert (await client.response()).status_code == 200
    await nobody_left(running)


@pytest.mark.parametrize("where", ["in the log", "in the socket"])
async def test_a_defect_with_one_takes_nothing_from_those_that_share_its_call(
    where: str, tokens: Path, caplog: pytest.LogCaptureFixture
):
    def broken(*_: object) -> None:
        raise LookupError("a defect of ours")

    request = read_by("alice")
    async with (
        simulated(backend(), tokens=tokens) as (running, _),
        many_taught(running, 6, request) as clients,
    ):
        if where == "in the log":
            log: Any = running.gateway._log
            tells = [log.tell] * 5 + [broken]
            log.tell = lambda *given: tells.pop()(*given)  # noqa: PLW0108 - another each time
        else:
            transport: Any = next(iter(running.server.connections.all)).transport
            transport._write = broken
        await all_send(clients, request)
        await eventually(lambda: sum(not client.is_open for client in clients) >= 5)
        answered = [client for client in clients if not client.is_open]
        for client in answered:
            assert (await client.response()).status_code == 200
        assert "a defect of ours" in caplog.text
        assert not running.gateway._call_shares._held
        assert running.gateway.pool.calls == 0


# Memory.


def alive(*kinds: type) -> int:
    """How many objects there are of some kinds."""
    gc.collect()
    return sum(type(each) in kinds for each in gc.get_objects())


@on_shared
async def test_nothing_is_kept_of_what_was_answered(plain: Plain):
    running, _, _, status = plain
    await nobody_left(running)
    before = alive(RequestContext, DirectAnswer, RecurringRead)
    async with many_taught(running, 5, READ) as clients:
        for turn in range(20):
            status.failure = NotBootstrapped("no") if turn % 4 == 0 else None
            await all_send(clients)
            for client in clients:
                await client.response()
        kept = alive(RequestContext, DirectAnswer, RecurringRead) - before
        assert kept <= 3 * len(clients), "what is known, and the last answer"
        assert not running.gateway.upstream._shared
        assert not running.server.server_state.tasks
        gone = [weakref.ref(each) for each in running.server.connections.all]
    await nobody_left(running)
    async with asyncio.timeout(HANG):
        while any(each() for each in gone):
            gc.collect()
            await asyncio.sleep(0.01)
    assert alive(RequestContext, DirectAnswer, RecurringRead) <= before
