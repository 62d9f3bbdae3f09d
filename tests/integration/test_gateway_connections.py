"""Clients that send too much, too slowly, take too slowly, or come in too great numbers.

Everything here goes over sockets whose every byte the test decides. Configured times are short; no
test depends on how long anything takes, beyond "not before" and, with much room, "not for ever".
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import resource
import socket
import ssl
import statistics
import struct
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway import process
from gateway.http import HttpConnection
from tests.integration.gateway_helpers import (
    Backend,
    Running,
    Watched,
    answers,
    is_problem,
    running_gateway,
)
from tests.integration.test_gateway_tls import Authority
from tests.integration.zap_helpers import HANG, eventually, serving, soon, told
from zapcore import SimulatedNetrunner
from zapcore import messages as m

SOON = HANG / 3
"""Far beyond every time that tests set, and short of every default that must not apply instead."""

SMALL_BUFFER = 4096
HEADER_LIMIT = 4096
RECEIVE = 0.2


class RawClient:
    """A connection on which a test says exactly what it wants, and sees all that comes back.

    What the server said before it reset the connection is seen too.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.unread = b""
        self.sent = 0
        self._socket = sock
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> bool:
        """Whether the server still takes it."""
        try:
            await self._loop.sock_sendall(self._socket, data)
        except ConnectionError:
            return False
        self.sent += len(data)
        return True

    async def send_for_ever(self, piece: bytes, pause: float = 0.0) -> None:
        """Until the server takes no more."""
        while await self.send(piece):  # noqa: ASYNC110
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def sending(self, piece: bytes, pause: float = 0.0) -> AsyncIterator[None]:
        """Send meanwhile, as often as the server takes it."""
        task = asyncio.create_task(self.send_for_ever(piece, pause))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def more(self, size: int = 65536) -> bool:
        """Read something; False at the end."""
        try:
            data = await self._loop.sock_recv(self._socket, size)
        except ConnectionError:
            return False
        self.unread += data
        return bool(data)

    async def until(self, end: bytes) -> bytes:
        """Read up to what ends so."""
        async with asyncio.timeout(HANG):
            while end not in self.unread:
                assert await self.more(), f"it ended with {self.unread[-200:]!r}"
        found, _, self.unread = self.unread.partition(end)
        return found + end

    async def exactly(self, size: int) -> bytes:
        """Read so many bytes."""
        async with asyncio.timeout(HANG):
            while len(self.unread) < size:
                assert await self.more(), f"it ended {size - len(self.unread)} bytes too early"
        found, self.unread = self.unread[:size], self.unread[size:]
        return found

    async def response(self) -> httpx.Response:
        """The next answer."""
        status_line, *lines = (await self.until(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        version, status, _ = status_line.split(" ", 2)
        assert version == "HTTP/1.1"
        headers = dict(line.split(": ", 1) for line in lines)
        body = await self.exactly(int(headers["content-length"]))
        return httpx.Response(int(status), headers=headers, content=body)

    async def ends(self) -> bytes:
        """What comes until the server closes, which it does in reasonable time; close as well."""
        async with asyncio.timeout(SOON):
            while await self.more():
                pass
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        return self.unread

    @property
    def is_open(self) -> bool:
        """Whether the server has neither said anything more nor closed."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        return False

    def abort(self) -> None:
        """Vanish at once."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


def new_socket(running: Running, receive_buffer: int | None = None) -> socket.socket:
    """A socket that is connected; nobody needs to accept it for that."""
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.connect(("127.0.0.1", running.port))
    sock.setblocking(False)
    return sock


@asynccontextmanager
async def raw(running: Running, receive_buffer: int | None = None) -> AsyncIterator[RawClient]:
    """A client of the gateway.

    Args:
        running: the gateway.
        receive_buffer: bytes that the system takes for a client that does not read.
    """
    with new_socket(running, receive_buffer) as sock:
        yield RawClient(sock)


Both = tuple[Running, Watched]


@asynccontextmanager
async def simulated(backend: object | None = None, **settings: object) -> AsyncIterator[Both]:
    """A gateway in front of a simulator, or of another backend."""
    watched = Watched(backend or SimulatedNetrunner(health_delay=0))
    given = {"drain_timeout": 0.1, **settings}
    async with serving(watched) as server, running_gateway(server, **given) as running:
        yield running, watched


# Gateways for all tests that leave nothing behind.


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kept_narrow() -> AsyncIterator[Both]:
    backend = Backend(add_node=answers(m.AddNodeResponse()), pause_node=answers(told("n")))
    async with simulated(backend, max_header=HEADER_LIMIT, max_body=100_000) as both:
        yield both


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kept_hasty() -> AsyncIterator[Both]:
    backend = Backend(add_node=answers(m.AddNodeResponse()))
    async with simulated(backend, receive_timeout=RECEIVE) as both:
        yield both


@pytest.fixture
def narrow(kept_narrow: Both) -> Both:
    """Takes little."""
    kept_narrow[1].received.clear()
    return kept_narrow


@pytest.fixture
def hasty(kept_hasty: Both) -> Both:
    """Waits for requests for a short time only."""
    kept_hasty[1].received.clear()
    return kept_hasty


on_shared = pytest.mark.asyncio(loop_scope="module")


async def is_closed_with(client: RawClient, status: int, code: str) -> dict[str, Any]:
    """The one answer is that problem, and then the connection ends."""
    response = await client.response()
    problem = is_problem(response, status, code)
    assert response.headers["connection"] == "close"
    assert await client.ends() == b"", "one answer"
    return problem


def get(path: str = "/healthz", *headers: str) -> bytes:
    """A request without a body."""
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", "")).encode()


def post(*headers: str, path: str = "/v1/nodes") -> bytes:
    """The head of a request with JSON."""
    first = (f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json")
    return "\r\n".join((*first, *headers, "", "")).encode()


def node(size: int) -> bytes:
    """An AddNode of so many bytes, most of them white space in the configuration."""
    start, end = b'{"name":"n","nodeConfig":"{', b'}"}'
    return start + b" " * (size - len(start) - len(end)) + end


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


CHUNKED = post("Transfer-Encoding: chunked")


def only(running: Running) -> HttpConnection:
    """The server's end of the one connection."""
    (connection,) = running.server.connections.all
    return connection


async def nobody_left(running: Running) -> None:
    """All connections are gone, and so is everything that answered on them."""
    state = running.server.server_state
    await eventually(lambda: not running.server.connections.all and not state.connections)
    await eventually(lambda: not state.tasks)
    assert running.gateway.pool.calls == 0


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


# Headers: their size.


START = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


def head_of(size: int) -> bytes:
    """A whole head of so many bytes."""
    start = START + b"X-Fill: "
    return start + b"x" * (size - len(start) - 4) + b"\r\n\r\n"


HUGE = {
    "one huge header": head_of(100_000),
    "a header a little too large": head_of(HEADER_LIMIT + 200),
    "a header with a huge name": START + b"x" * 100_000 + b": 1\r\n\r\n",
    "many small headers": START + b"X-A: b\r\n" * 10_000 + b"\r\n",
    "a huge request line": get("/" + "x" * 100_000),
    "a huge query": get("/healthz?" + "x" * 100_000),
    "a header line without an end": START + b"X-Fill: " + b"x" * 100_000,
    "a header name without an end": START + b"x" * 100_000,
    "a request line without an end": b"GET /" + b"x" * 100_000,
    "headers without an end": START + b"X-A: b\r\n" * 10_000,
    "empty lines without an end": b"\r\n" * 50_000,
}


@on_shared
@pytest.mark.parametrize("data", HUGE.values(), ids=HUGE.keys())
async def test_too_large_a_head_is_refused_and_the_connection_closed(data: bytes, narrow: Both):
    running, _ = narrow
    async with raw(running) as client:
        await client.send(data)
        problem = await is_closed_with(client, 431, "header_too_large")
        assert "--max-header" in problem["detail"]
        assert str(HEADER_LIMIT) in problem["detail"]


@on_shared
async def test_a_head_that_comes_in_pieces_is_measured_as_a_whole(narrow: Both):
    running, _ = narrow
    async with raw(running) as client:
        await client.send(START)
        async with client.sending(b"X-A: b\r\n" * 10):
            await is_closed_with(client, 431, "header_too_large")


@on_shared
@pytest.mark.parametrize("pieces", [1, 2, 50])
async def test_a_head_of_just_the_limit_passes(pieces: int, narrow: Both):
    running, _ = narrow
    async with raw(running) as client:
        for _ in range(2):
            whole = head_of(HEADER_LIMIT)
            assert len(whole) == HEADER_LIMIT
            step = -(-HEADER_LIMIT // pieces)
            for at in range(0, HEADER_LIMIT, step):
                await client.send(whole[at : at + step])
                await asyncio.sleep(0.001)
            assert (await client.response()).status_code == 200


@on_shared
async def test_a_body_does_not_count_as_part_of_the_head(narrow: Both):
    running, watched = narrow
    async with raw(running) as client:
        body = node(20_000)
        await client.send(post(f"Content-Length: {len(body)}") + body + get())
        assert (await client.response()).status_code == 200
        assert (await client.response()).status_code == 200
        assert watched.counts["add_node"] == 1


@on_shared
async def test_a_later_request_has_the_same_limit(narrow: Both):
    running, _ = narrow
    async with raw(running) as client:
        await client.send(get())
        assert (await client.response()).status_code == 200
        await client.send(head_of(HEADER_LIMIT * 2))
        await is_closed_with(client, 431, "header_too_large")


@on_shared
async def test_a_pipelined_request_has_the_same_limit(narrow: Both):
    """Also where it came in the same segment as the one before."""
    running, _ = narrow
    async with raw(running) as client:
        await client.send(get() + head_of(8000))
        assert (await client.ends()).count(b"HTTP/1.1 200") <= 1


@on_shared
async def test_what_follows_a_head_that_was_refused_is_not_run(narrow: Both):
    running, watched = narrow
    async with raw(running) as client:
        await client.send(head_of(8000) + post("Content-Length: 0", path="/v1/nodes/node1/pause"))
        await is_closed_with(client, 431, "header_too_large")
        await nobody_left(running)
        async with raw(running) as another:
            await another.send(post("Content-Length: 40") + node(40))
            assert (await another.response()).status_code == 200
        assert watched.counts == {"add_node": 1}


async def test_the_limit_of_heads_is_32_kib_unless_set():
    async with simulated() as (running, _), raw(running) as client:
        await client.send(head_of(32 * 1024))
        assert (await client.response()).status_code == 200
        await client.send(head_of(33 * 1024))
        await is_closed_with(client, 431, "header_too_large")


# Headers: their time.


@on_shared
async def test_a_head_byte_by_byte_is_cut_off(hasty: Both):
    running, _ = hasty
    async with raw(running) as client:
        before = time.monotonic()
        await client.send(START + b"X: ")
        async with client.sending(b"x", pause=0.02):
            await is_closed_with(client, 408, "request_timeout")
        assert RECEIVE <= time.monotonic() - before < SOON


@on_shared
@pytest.mark.parametrize(
    "said", [b"G", START, START + b"X: y\r\n", b"\r\n"], ids=["G", "lines", "more", "CRLF"]
)
async def test_a_head_that_does_not_go_on_is_cut_off(said: bytes, hasty: Both):
    running, _ = hasty
    async with raw(running) as client:
        before = time.monotonic()
        await client.send(said)
        await is_closed_with(client, 408, "request_timeout")
        assert RECEIVE <= time.monotonic() - before < SOON


@on_shared
async def test_empty_lines_are_no_sign_of_life(hasty: Both):
    running, _ = hasty
    async with raw(running) as client:
        before = time.monotonic()
        async with client.sending(b"\r\n", pause=0.02):
            await is_closed_with(client, 408, "request_timeout")
        assert RECEIVE <= time.monotonic() - before < SOON


@on_shared
async def test_whoever_says_nothing_is_told_nothing(hasty: Both):
    running, _ = hasty
    async with raw(running) as client:
        before = time.monotonic()
        assert await client.ends() == b""
        assert RECEIVE <= time.monotonic() - before < SOON
        await nobody_left(running)


async def test_time_between_requests_is_no_time_of_the_next_head():
    """A connection may be idle for longer than a head may take."""
    async with simulated(receive_timeout=RECEIVE) as (running, _), raw(running) as client:
        await client.send(get())
        assert (await client.response()).status_code == 200
        idle_since = only(running).head_since
        await asyncio.sleep(3 * RECEIVE)
        assert client.is_open
        await client.send(START)
        await eventually(lambda: only(running).head_since > idle_since)
        running.server.connections.sweep(asyncio.get_running_loop().time())
        await client.send(b"\r\n")
        assert (await client.response()).status_code == 200


@on_shared
async def test_a_later_head_has_the_same_time(hasty: Both):
    running, _ = hasty
    async with raw(running) as client:
        await client.send(get())
        assert (await client.response()).status_code == 200
        before = time.monotonic()
        await client.send(START)
        await is_closed_with(client, 408, "request_timeout")
        assert RECEIVE <= time.monotonic() - before < SOON


async def test_the_time_of_a_tls_handshake_is_no_time_of_a_head(tmp_path: Path):
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    Authority().issue(certificate, key)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    settings = {"tls_certificate": certificate, "tls_key": key, "receive_timeout": 3 * RECEIVE}
    async with simulated(**settings) as (running, _):
        sock = new_socket(running)
        await asyncio.sleep(4 * RECEIVE)
        reader, writer = await asyncio.open_connection(
            sock=sock, ssl=context, server_hostname="localhost"
        )
        await eventually(lambda: running.server.connections.all)
        running.server.connections.sweep(asyncio.get_running_loop().time())
        writer.write(get())
        assert (await soon(reader.readline())).startswith(b"HTTP/1.1 200")
        writer.transport.abort()


# Bodies: their time.


@on_shared
@pytest.mark.parametrize(
    "start",
    [
        post("Content-Length: 1000"),
        post("Content-Length: 1000") + b'{"name"',
        CHUNKED + chunk(b'{"name"'),
        CHUNKED + b"5",
        CHUNKED + chunk(node(100)) + b"0\r\n",
    ],
    ids=["nothing", "a part", "a chunk", "a chunk's size", "all but the end"],
)
async def test_a_body_that_does_not_go_on_is_cut_off(start: bytes, hasty: Both):
    running, watched = hasty
    async with raw(running) as client:
        before = time.monotonic()
        await client.send(start)
        problem = await is_closed_with(client, 408, "request_timeout")
        assert "body" in problem["detail"]
        assert RECEIVE <= time.monotonic() - before < SOON
        await nobody_left(running)
        assert watched.received == []


@on_shared
async def test_a_body_below_the_lowest_rate_is_cut_off(hasty: Both):
    running, watched = hasty
    async with raw(running) as client:
        before = time.monotonic()
        await client.send(post("Content-Length: 1000"))
        async with client.sending(b" ", pause=0.02):
            await is_closed_with(client, 408, "request_timeout")
        assert RECEIVE <= time.monotonic() - before < SOON
        assert watched.received == []


@on_shared
@pytest.mark.parametrize("framing", ["Content-Length", "chunked"])
async def test_a_body_that_comes_steadily_may_take_longer(framing: str, hasty: Both):
    body = node(200_000)
    head = CHUNKED if framing == "chunked" else post(f"Content-Length: {len(body)}")
    running, watched = hasty
    async with raw(running) as client:
        before = time.monotonic()
        await client.send(head)
        for at in range(0, len(body), 12_000):
            piece = body[at : at + 12_000]
            await client.send(chunk(piece) if framing == "chunked" else piece)
            await asyncio.sleep(0.05)
        await client.send(b"0\r\n\r\n" if framing == "chunked" else b"")
        assert (await client.response()).status_code == 200
        assert time.monotonic() - before > 3 * RECEIVE
        assert watched.last("add_node").node_config == json.loads(body)["nodeConfig"]


async def test_time_behind_another_request_is_no_time_of_a_body():
    """Nobody reads a pipelined request while the one before it is answered."""
    held = Held(m.StatusResponse())
    backend = Backend(status=held, add_node=answers(m.AddNodeResponse()))
    async with (
        simulated(backend, receive_timeout=RECEIVE) as (running, watched),
        raw(running) as client,
    ):
        body = node(100)
        await client.send(get("/v1/status") + post(f"Content-Length: {len(body)}"))
        await eventually(lambda: held.begun)
        await asyncio.sleep(3 * RECEIVE)
        held.gate.set()
        assert (await client.response()).status_code == 200
        running.server.connections.sweep(asyncio.get_running_loop().time())
        await client.send(body)
        assert (await client.response()).status_code == 200
        assert watched.counts["add_node"] == 1


# Bodies: their size.


@on_shared
async def test_a_body_without_an_end_is_refused_and_the_connection_closed(
    narrow: Both,
):
    running, watched = narrow
    async with raw(running) as client:
        await client.send(CHUNKED)
        async with client.sending(chunk(b" " * 1000)):
            is_problem(await client.response(), 413, "body_too_large", "AddNode")
            assert await client.ends() == b""
        await nobody_left(running)
        assert watched.received == []


ENDLESS = {
    "chunks of one byte": (CHUNKED, chunk(b" ") * 1000),
    "trailers": (CHUNKED + chunk(node(100)) + b"0\r\n", b"X-A: b\r\n" * 1000),
    "one trailer": (CHUNKED + chunk(node(100)) + b"0\r\nX-A: ", b"x" * 10_000),
    "a chunk's extension": (CHUNKED + b"1;a=", b"x" * 10_000),
    "a chunk's size": (CHUNKED, b"0" * 10_000),
}


@on_shared
@pytest.mark.parametrize(("start", "piece"), ENDLESS.values(), ids=ENDLESS.keys())
async def test_nothing_else_in_a_body_goes_on_without_an_end(
    start: bytes, piece: bytes, narrow: Both
):
    running, watched = narrow
    async with raw(running) as client:
        await client.send(start)
        async with client.sending(piece):
            response = await client.response()
            problem = response.json()
            assert response.status_code in (400, 413, 431)
            is_problem(response, response.status_code, problem["code"], problem.get("rpc"))
            assert await client.ends() == b""
        await nobody_left(running)
        assert watched.received == []


@on_shared
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one by one"])
async def test_a_body_in_chunks_of_one_byte_arrives_whole(at_once: bool, narrow: Both):
    body = node(2000)
    running, watched = narrow
    async with raw(running) as client:
        await client.send(CHUNKED)
        pieces = [chunk(body[at : at + 1]) for at in range(len(body))] + [b"0\r\n\r\n"]
        for piece in [b"".join(pieces)] if at_once else pieces:
            await client.send(piece)
        assert (await client.response()).status_code == 200
        assert watched.last("add_node").node_config == json.loads(body)["nodeConfig"]
        await client.send(get())
        assert (await client.response()).status_code == 200


@on_shared
async def test_trailers_are_not_kept(narrow: Both):
    """They could be many more than headers."""
    running, _ = narrow
    async with raw(running) as client:
        await client.send(CHUNKED)
        await client.send(chunk(node(100)) + b"0\r\n" + b"X-A: b\r\n" * 10_000)
        connections = running.server.connections.all
        await eventually(
            lambda: not client.is_open or any(each._received > 80_000 for each in connections)
        )
        assert not any(len(each.headers) > 10 for each in connections)


@on_shared
async def test_trailers_are_no_headers(narrow: Both):
    running, watched = narrow
    async with raw(running) as client:
        trailers = b"X-Request-Timeout: nonsense\r\nContent-Type: text/plain\r\n\r\n"
        await client.send(CHUNKED)
        await client.send(chunk(node(100)) + b"0\r\n" + trailers)
        assert (await client.response()).status_code == 200
        assert watched.counts["add_node"] == 1


@on_shared
@pytest.mark.parametrize("length", [16 * 2**20 + 1, 10**18, 10**30])
async def test_a_body_that_says_that_it_is_too_large_is_refused_unread(length: int, hasty: Both):
    running, watched = hasty
    async with raw(running) as client:
        await client.send(post(f"Content-Length: {length}", "Expect: 100-continue"))
        response = await client.response()
        if length < 2**64:
            is_problem(response, 413, "body_too_large")
        else:
            is_problem(response, 400, "invalid_request")
        assert await client.ends() == b"", "the body did not come: no more can"
        assert watched.received == []


@on_shared
async def test_a_refused_body_that_is_sent_anyway_ends_somewhere(narrow: Both):
    running, _ = narrow
    async with raw(running) as client:
        await client.send(post(f"Content-Length: {10**12}"))
        is_problem(await client.response(), 413, "body_too_large")
        async with client.sending(b" " * 10_000):
            assert await client.ends() == b""
        await nobody_left(running)


# Expect: 100-continue.


@on_shared
async def test_who_waits_for_leave_to_send_a_body_gets_it(narrow: Both):
    body = node(100)
    running, watched = narrow
    async with raw(running) as client:
        for _ in range(2):
            await client.send(post(f"Content-Length: {len(body)}", "Expect: 100-continue"))
            assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert client.is_open
            await client.send(body)
            assert (await client.response()).status_code == 200
        assert watched.counts["add_node"] == 2


@on_shared
async def test_who_got_leave_and_does_not_send_is_cut_off(hasty: Both):
    running, _ = hasty
    async with raw(running) as client:
        await client.send(post("Content-Length: 100", "Expect: 100-continue"))
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await is_closed_with(client, 408, "request_timeout")


# What is no HTTP.


GARBAGE = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    "zeros": bytes(1000),
    "words": b"what is this\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown method": b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an unknown version": b"GET / HTTP/7.7\r\nHost: localhost\r\n\r\n",
    "a header without a colon": START + b"nonsense\r\n\r\n",
    "a header with a NUL": START + b"X: a\0b\r\n\r\n",
    "a space before a colon": START + b"X : a\r\n\r\n",
    "two lengths": post("Content-Length: 5", "Content-Length: 6"),
    "a length and chunks": post("Content-Length: 5", "Transfer-Encoding: chunked"),
    "a negative length": post("Content-Length: -5"),
    "a length that is none": post("Content-Length: five"),
    "chunks that do not come last": post("Transfer-Encoding: chunked, gzip"),
    "a chunk's size that is none": CHUNKED + b"nonsense\r\n",
    "CONNECT": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@on_shared
@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_is_told_so_and_the_connection_closed(data: bytes, narrow: Both):
    running, watched = narrow
    async with raw(running) as client:
        await client.send(data)
        await is_closed_with(client, 400, "invalid_request")
        await nobody_left(running)
        assert watched.received == []


@on_shared
async def test_garbage_behind_a_request_ends_the_connection(narrow: Both):
    running, _ = narrow
    async with raw(running) as client:
        await client.send(get())
        assert (await client.response()).status_code == 200
        await client.send(b"nonsense\r\n\r\n")
        await is_closed_with(client, 400, "invalid_request")


@on_shared
async def test_who_was_refused_and_goes_on_is_put_out(narrow: Both):
    running, _ = narrow
    async with raw(running) as client:
        await client.send(GARBAGE["words"])
        is_problem(await client.response(), 400, "invalid_request")
        async with client.sending(b"x" * 1000, pause=0.01):
            await nobody_left(running)


async def test_who_was_refused_takes_no_place():
    """Otherwise a few bytes of garbage would keep others out."""
    async with simulated(max_connections=2) as (running, _), AsyncExitStack() as stack:
        for _ in range(2):
            refused = await stack.enter_async_context(raw(running))
            await refused.send(GARBAGE["words"])
            is_problem(await refused.response(), 400, "invalid_request")
        async with raw(running) as another:
            await asks(another)


# Pipelining.


async def test_pipelined_requests_are_answered_in_order():
    """Though the first takes long, and others could be answered at once."""
    backend = SimulatedNetrunner(health_delay=0.3)
    async with simulated(backend) as (running, _), raw(running) as client:
        paths = ["/v1/health/wait", "/healthz", "/nowhere", "/v1/status", "/v1/nodes?x=1"] * 3
        await client.send(
            b"".join(get(path, f"X-Request-ID: r{number}") for number, path in enumerate(paths))
        )
        for number, path in enumerate(paths):
            response = await client.response()
            assert response.headers["x-request-id"] == f"r{number}"
            assert response.status_code == (404 if path == "/nowhere" else 200)


async def becomes_healthy(running: Running) -> None:
    """A cluster of one node that takes long to become healthy: it is, once that node is paused."""
    assert (await running.client.post("/v1/nodes/node1/pause")).status_code == 200


async def test_half_a_request_behind_one_that_takes_long_does_not_disturb_it():
    times = {"receive_timeout": 3 * RECEIVE, "idle_timeout": 3 * RECEIVE}
    backend = SimulatedNetrunner(1, health_delay=3600)
    async with simulated(backend, **times) as (running, _), raw(running) as client:
        await client.send(get("/v1/health/wait"))
        await client.send(START[:20])
        await asyncio.sleep(6 * RECEIVE)
        assert client.is_open
        await becomes_healthy(running)
        response = await client.response()
        assert response.status_code == 200
        assert response.json()["clusterInfo"]["healthy"]
        await client.send(START[20:] + b"\r\n")
        assert (await client.response()).status_code == 200


async def test_half_a_request_behind_another_has_its_time_once_that_is_answered():
    held = Held(m.StatusResponse())
    async with (
        simulated(Backend(status=held), receive_timeout=RECEIVE) as (running, _),
        raw(running) as client,
    ):
        await client.send(get("/v1/status") + START)
        await eventually(lambda: held.begun)
        running.server.connections.sweep(asyncio.get_running_loop().time() + 1000)
        assert client.is_open
        await asyncio.sleep(2 * RECEIVE)
        held.gate.set()
        before = time.monotonic()
        assert (await client.response()).status_code == 200
        await is_closed_with(client, 408, "request_timeout")
        assert RECEIVE * 0.9 <= time.monotonic() - before < SOON


@pytest.mark.parametrize(
    "request_",
    [get(), post("Content-Length: 40") + node(40), get("/v1/uris")],
    ids=["a page", "with a body", "a plain read"],
)
async def test_pipelined_requests_do_not_pile_up_in_memory(request_: bytes):
    """Whoever sends faster than it is answered is read no further."""
    one_read = 256 * 1024
    handlers = {"add_node": answers(m.AddNodeResponse()), "uris": answers(m.URIsResponse())}
    async with simulated(Backend(**handlers)) as (running, _), raw(running) as client:
        most = 0
        async with client.sending(request_ * 1000):
            for _ in range(50):
                assert (await client.response()).status_code == 200
                most = max(most, len(only(running).pipeline))
        assert most <= 3 * one_read / len(request_)


@on_shared
@pytest.mark.parametrize("first", [get("/healthz"), post("Content-Length: 40") + node(40)])
async def test_what_follows_the_last_request_is_not_run(
    first: bytes, narrow: Both, caplog: pytest.LogCaptureFixture
):
    running, watched = narrow
    async with raw(running) as client:
        last = first.replace(b"Host: localhost", b"Host: localhost\r\nConnection: close")
        await client.send(last + post("Content-Length: 0", path="/v1/nodes/n/pause") * 3)
        response = await client.response()
        assert response.status_code == 200
        assert response.headers["connection"] == "close"
        assert await client.ends() == b""
        await nobody_left(running)
        assert watched.counts["pause_node"] == 0
        assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_who_leaves_while_requests_wait_leaves_nothing():
    held = Held(m.StatusResponse())
    async with simulated(Backend(status=held)) as (running, watched):
        async with raw(running) as client:
            await client.send(get("/v1/status") * 5)
            await eventually(lambda: held.begun)
            client.abort()
        held.gate.set()
        await nobody_left(running)
        assert watched.counts["status"] == 1, "nobody waits for the others"


# Clients that do not read.


SEND = 0.5
MEDIUM_BUFFER = 256 * 1024
"""So small that most of an answer waits at the server, so large that the rest flows."""


async def test_a_client_that_reads_no_answer_is_cut_off_and_forgotten():
    backend = SimulatedNetrunner(1000, health_delay=0)
    async with (
        simulated(backend, send_timeout=SEND) as (running, _),
        raw(running, SMALL_BUFFER) as client,
    ):
        before = time.monotonic()
        await client.send(get("/v1/status") * 100)
        await eventually(lambda: running.server.connections.all)
        gone = weakref.ref(only(running))
        await eventually(lambda: only(running).transport.get_write_buffer_size() > 0)
        await nobody_left(running)
        assert SEND <= time.monotonic() - before < HANG
        async with asyncio.timeout(HANG):
            while gone() is not None:
                gc.collect()
                await asyncio.sleep(0.01)
        assert (await running.client.get("/v1/status")).status_code == 200


class Large:
    """A backend whose state is large, and whose stream tells it often."""

    def __init__(self, size: int) -> None:
        self.state = m.ClusterInfo(root_data_dir="x" * size)
        self.streams = 0

    async def status(self, request: m.StatusRequest) -> m.StatusResponse:
        return m.StatusResponse(self.state)

    async def ping(self, request: m.PingRequest) -> m.PingResponse:
        return m.PingResponse(1)

    async def stream_status(self, request: m.StreamStatusRequest) -> Any:
        while True:
            yield m.StreamStatusResponse(self.state)
            await asyncio.sleep(request.push_interval / 1e9)


STREAM = get("/v1/status/stream?interval=0.1")


async def test_a_stuck_reader_of_a_stream_loses_its_place():
    async with (
        simulated(Large(2_000_000), send_timeout=SEND, max_streams=1) as (running, _),
        raw(running, SMALL_BUFFER) as stuck,
    ):
        before = time.monotonic()
        await stuck.send(STREAM)
        feed = running.gateway.feed
        await eventually(lambda: feed.readers == 1)
        async with raw(running) as another:
            await another.send(STREAM)
            is_problem(await another.response(), 503, "overloaded", "StreamStatus")
        await eventually(lambda: feed.readers == 0)
        assert SEND <= time.monotonic() - before < HANG
        async with raw(running) as another:
            await another.send(STREAM)
            assert (await another.until(b"\r\n")).startswith(b"HTTP/1.1 200")
            await another.until(b"rootDataDir")


async def takes(client: RawClient, size: int) -> None:
    """Read so many bytes, slowly but steadily: many times what a client must take at least."""
    async with asyncio.timeout(HANG):
        while size > 0:
            assert await client.more(100_000), "it was cut off"
            size -= len(client.unread)
            client.unread = b""
            await asyncio.sleep(0.01)


async def test_a_reader_of_a_stream_that_is_slow_but_reads_keeps_its_place():
    """It takes less than there is, which is its right."""
    async with (
        simulated(Large(4_000_000), send_timeout=SEND) as (running, _),
        raw(running, MEDIUM_BUFFER) as client,
    ):
        await client.send(STREAM)
        before = time.monotonic()
        while time.monotonic() - before < 4 * SEND:
            await takes(client, 100_000)
        assert running.gateway.feed.readers == 1


async def test_a_client_that_reads_many_answers_slowly_gets_them_all():
    async with (
        simulated(Large(2_000_000), send_timeout=SEND) as (running, _),
        raw(running, MEDIUM_BUFFER) as client,
    ):
        before = time.monotonic()
        await client.send(get("/v1/status") * 8)
        await takes(client, 8 * 2_000_000)
        assert time.monotonic() - before > 2 * SEND


async def test_a_client_is_not_blamed_for_a_time_in_which_the_gateway_stood_still():
    """As on a busy machine: here, the client stands still with it."""
    async with (
        simulated(Large(15_000_000), send_timeout=SEND) as (running, _),
        raw(running, MEDIUM_BUFFER) as client,
    ):
        await client.send(get("/v1/status"))
        for _ in range(4):
            await takes(client, 2_000_000)
            assert only(running).unsent > 0
            for _ in range(2):
                time.sleep(2 * SEND)  # noqa: ASYNC251 - that is what it is about
                await asyncio.sleep(SEND / 10)
        await takes(client, 6_000_000)


@pytest.mark.parametrize("ending", ["aborts", "closes"])
@pytest.mark.parametrize("behind", ["alone", "a request behind it", "a request behind it later"])
async def test_a_reader_of_a_stream_that_goes_gives_its_place_back(behind: str, ending: str):
    """Also one to which nothing is written for an hour."""
    stream = get("/v1/status/stream?interval=1h", "Accept: application/x-ndjson")
    async with simulated(max_streams=1, send_timeout=1) as (running, watched):
        async with raw(running) as client:
            await client.send(stream + (get() if behind == "a request behind it" else b""))
            await client.until(b"}\n\r\n")
            await client.send(get() if behind == "a request behind it later" else b"")
            await asyncio.sleep(0.05)
            assert watched.streams == 1
            if ending == "aborts":
                client.abort()
        async with asyncio.timeout(SOON):
            # BUG: where a request waits behind it, an end that is no reset is not noticed.
            await eventually(lambda: running.gateway.feed.readers == 0)
        await eventually(lambda: watched.streams == 0)
        await nobody_left(running)


def test_the_system_looks_for_clients_that_vanished_without_a_word():
    """A stream of lines may have nothing to write for long, and then nobody else would notice."""
    with process.listen("127.0.0.1", 0) as listener, socket.socket() as client:
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.mark.parametrize("behind", [b"", get()], ids=["alone", "with a request behind it"])
async def test_a_stuck_reader_that_is_cut_off_leaves_nothing(behind: bytes):
    async with (
        simulated(Large(2_000_000), send_timeout=SEND) as (running, _),
        raw(running, SMALL_BUFFER) as client,
    ):
        await client.send(STREAM + behind)
        await eventually(lambda: running.gateway.feed.readers == 1)
        await eventually(lambda: running.gateway.feed.readers == 0)
        await nobody_left(running)


# The number of connections.


async def asks(client: RawClient, path: str = "/healthz") -> None:
    """One request, answered; and then it is idle, for longer than a clock's tick."""
    await client.send(get(path))
    assert (await client.response()).status_code == 200
    await asyncio.sleep(0.01)


async def test_idle_connections_make_room_for_new_ones_the_oldest_first():
    async with simulated(max_connections=3) as (running, _), AsyncExitStack() as stack:
        first, second, third = [await stack.enter_async_context(raw(running)) for _ in range(3)]
        for client in (first, second, third):
            await asks(client)

        fourth = await stack.enter_async_context(raw(running))
        await asks(fourth)
        assert await first.ends() == b""
        assert second.is_open
        assert third.is_open

        await asks(second)
        fifth = await stack.enter_async_context(raw(running))
        await asks(fifth)
        assert await third.ends() == b"", "the second was idle for a shorter time by now"
        for client in (second, fourth, fifth):
            await asks(client)


async def test_busy_connections_make_no_room():
    """Whoever comes is told so, and the busy ones are not disturbed."""
    held = Held(m.StatusResponse())
    backend = Backend(status=held)
    async with simulated(backend, max_connections=2) as (running, _), AsyncExitStack() as stack:
        busy = [await stack.enter_async_context(raw(running)) for _ in range(2)]
        for client in busy:
            await client.send(get("/v1/status"))
        await eventually(lambda: held.begun == 2)
        for said in (b"", get()):
            async with raw(running) as another:
                await another.send(said)
                problem = await is_closed_with(another, 503, "overloaded")
                assert "--max-connections" in problem["detail"]
        held.gate.set()
        for client in busy:
            assert (await client.response()).status_code == 200
        async with raw(running) as another:
            await asks(another)


@pytest.mark.parametrize("start", [post("Content-Length: 100"), STREAM], ids=["body", "stream"])
async def test_a_connection_in_the_middle_of_something_makes_no_room(start: bytes):
    async with simulated(max_connections=1) as (running, _), raw(running) as busy:
        await busy.send(start)
        await eventually(lambda: running.server.connections.count() == (1, 0))
        async with raw(running) as another:
            await is_closed_with(another, 503, "overloaded")
        if start is STREAM:
            await busy.until(b"event: status")
        else:
            await busy.send(node(100))
            assert (await busy.response()).status_code == 200


async def test_half_a_head_does_not_hold_a_connection():
    """Anybody could send those."""
    async with simulated(max_connections=1) as (running, _), raw(running) as slow:
        await slow.send(START)
        await eventually(lambda: running.server.connections.all)
        async with raw(running) as another:
            await asks(another)
        assert await slow.ends() == b""


async def test_an_answer_that_is_on_its_way_is_not_cut_off_to_make_room():
    async with (
        simulated(Large(10_000_000), max_connections=1) as (running, _),
        raw(running, MEDIUM_BUFFER) as slow,
    ):
        await slow.send(get("/v1/status"))
        await slow.until(b"\r\n\r\n")
        connection = only(running)
        await eventually(lambda: connection.cycle.response_complete)
        assert connection.transport.get_write_buffer_size() > 0
        async with raw(running) as another:
            await another.send(get())
            await another.response()
        assert b"rootDataDir" in await slow.exactly(10_000_000)


async def test_many_that_come_at_the_same_moment_are_not_more_than_the_limit():
    async with simulated(max_connections=10) as (running, _), AsyncExitStack() as stack:
        clients = [RawClient(stack.enter_context(new_socket(running))) for _ in range(60)]
        async with raw(running) as last:
            await asks(last)
            assert len(running.server.connections.all) <= 10
            await eventually(lambda: sum(client.is_open for client in clients) <= 9)


async def test_many_that_come_at_the_same_moment_while_all_are_busy_are_all_refused():
    held = Held(m.StatusResponse())
    backend = Backend(status=held)
    async with simulated(backend, max_connections=2) as (running, _), AsyncExitStack() as stack:
        busy = [await stack.enter_async_context(raw(running)) for _ in range(2)]
        for client in busy:
            await client.send(get("/v1/status"))
        await eventually(lambda: held.begun == 2)
        others = [RawClient(stack.enter_context(new_socket(running))) for _ in range(10)]
        for other in others:
            await other.send(get("/v1/status"))
        for other in others:
            await is_closed_with(other, 503, "overloaded")
        assert held.begun == 2
        held.gate.set()


# Idle connections.


IDLE = 0.3


async def test_an_idle_connection_is_closed_without_a_word():
    async with simulated(idle_timeout=IDLE) as (running, _), raw(running) as client:
        for _ in range(2):
            before = time.monotonic()  # idle begins with the answer, which this loop may see late
            await asks(client)
        assert await client.ends() == b""
        assert IDLE * 0.9 <= time.monotonic() - before < SOON
        await nobody_left(running)


async def test_a_connection_with_a_request_under_way_is_not_idle():
    times = {"idle_timeout": IDLE, "receive_timeout": IDLE, "send_timeout": IDLE}
    backend = SimulatedNetrunner(1, health_delay=3600)
    async with simulated(backend, **times) as (running, _), raw(running) as client:
        await asks(client)
        await client.send(get("/v1/health/wait"))
        await asyncio.sleep(4 * IDLE)
        assert client.is_open
        await becomes_healthy(running)
        assert (await client.response()).status_code == 200
        await asks(client)


async def test_a_stream_lasts_longer_than_any_of_the_times():
    async with (
        simulated(idle_timeout=IDLE, receive_timeout=IDLE, send_timeout=IDLE) as (running, _),
        raw(running) as client,
    ):
        await client.send(STREAM)
        until = time.monotonic() + 4 * IDLE
        while time.monotonic() < until:
            await client.until(b"event: status")


async def test_a_connection_is_idle_too_when_its_body_came_after_the_answer():
    async with simulated(idle_timeout=IDLE) as (running, _), raw(running) as client:
        await client.send(post("Content-Length: 100", path="/nowhere"))
        is_problem(await client.response(), 404, "not_found")
        await client.send(node(100))
        assert await client.ends() == b""
        await nobody_left(running)


# Slow clients in great number.


LORIS = 500


@pytest.fixture
def many_files() -> Iterator[None]:
    """Both ends of every connection are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * LORIS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"the system allows {hard} open files")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Loris:
    """Holds a connection with a head that never ends, and comes again when it is cut off."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.cut_off = 0
        self.connected = False

    async def run(self) -> None:
        while True:
            async with raw(self.running) as client:
                self.connected = True
                await client.send(START + b"X: ")
                await client.send_for_ever(b"x", pause=0.3)
            self.connected = False
            self.cut_off += 1
            await asyncio.sleep(random.uniform(1, 2))  # noqa: S311


@asynccontextmanager
async def slow_lorises(running: Running) -> AsyncIterator[list[Loris]]:
    lorises = [Loris(running) for _ in range(LORIS)]
    tasks = [asyncio.create_task(loris.run()) for loris in lorises]
    try:
        await eventually(lambda: all(loris.connected or loris.cut_off for loris in lorises))
        yield lorises
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def timed(count: int, call: Callable[[], Any]) -> list[float]:
    """How long each of so many calls took; all succeed."""
    seconds = []
    for _ in range(count):
        before = time.perf_counter()
        response = await soon(call())
        seconds.append(time.perf_counter() - before)
        assert response.status_code == 200
    return seconds


@pytest.mark.usefixtures("many_files")
async def test_500_slow_clients_do_not_disturb_another():
    async with simulated(max_connections=2048) as (running, _):

        async def call() -> httpx.Response:
            return await running.client.get("/v1/status")

        before = statistics.median(await timed(200, call))
        async with slow_lorises(running):
            connections = running.server.connections
            await eventually(lambda: len(connections.all) > LORIS)
            during = statistics.median(await timed(200, call))
            assert len(connections.all) > LORIS * 0.9, "they were there all the time"
        assert during <= max(10 * before, 0.020)


@pytest.mark.usefixtures("many_files")
async def test_500_slow_clients_that_fight_for_100_places_do_not_keep_others_out():
    async with simulated(max_connections=100) as (running, _):

        async def call() -> httpx.Response:
            async with raw(running) as client:
                await client.send(get("/v1/status"))
                return await client.response()

        async with slow_lorises(running) as lorises:
            await timed(50, call)
            await eventually(lambda: sum(loris.cut_off for loris in lorises) > LORIS)
            await timed(50, call)


def test_what_the_helper_makes_is_what_it_says():
    assert len(head_of(HEADER_LIMIT)) == HEADER_LIMIT
    assert len(node(100)) == 100
    json.loads(node(100))
