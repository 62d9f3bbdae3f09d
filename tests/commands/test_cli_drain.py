"""How `zap-gateway serve` stops: not ready at once, taking calls for a while, cutting none off."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.commands.test_cli_serve import eventually, get, identity, is_ready
from tests.integration import zap_helpers
from tests.integration.gateway_helpers import (
    Command,
    Simulator,
    command,
    is_problem,
    running_gateway,
    simulator,
)
from tests.integration.zap_helpers import HANG, identity_of, serving
from zapcore import NetrunnerServer, SimulatedNetrunner
from zapcore import messages as m

__all__ = ["identity"]

GRACE = 1.0


@dataclass(frozen=True)
class Served:
    """A gateway in a process of its own."""

    command: Command
    url: str

    @property
    def port(self) -> int:
        return httpx.URL(self.url).port or 0

    def stops(self, number: int = signal.SIGTERM) -> None:
        """Tell it to stop; it does so properly."""
        self.command.send(number)
        self.has_stopped()

    def has_stopped(self) -> None:
        """It ends by itself, and well."""
        assert self.command.wait() == 0, self.command.stderr
        assert "Traceback" not in self.command.stderr


@contextmanager
def serve(
    upstream: Simulator, identity: Path, *flags: object, **environment: str
) -> Iterator[Served]:
    """`zap-gateway serve` in front of a simulator, once it is ready; without a grace time."""
    with command(
        *("serve", "--port", "0", "--identity", identity, "--upstream", upstream.address),
        *("--server", upstream.fingerprint, *flags),
        **{"ZAP_GATEWAY_DRAIN_GRACE": "0", **environment},
    ) as running:
        url = str(running.line(r"zap-gateway: (https?://\S+) → ")[1])
        if url.startswith("http://"):
            is_ready(url)
        yield Served(running, url)


@asynccontextmanager
async def serve_beside(
    server: NetrunnerServer, identity: Path, *flags: object
) -> AsyncIterator[Served]:
    """The same, in front of a server in this very process, which must be able to go on."""
    fingerprint = identity_of("server").public.fingerprint
    upstream: Any = type("Beside", (), {"address": server.address, "fingerprint": fingerprint})
    with ExitStack() as stack:
        manager = serve(upstream, identity, *flags)
        served = await asyncio.to_thread(stack.enter_context, manager)
        try:
            yield served
        finally:
            await asyncio.to_thread(stack.close)


@dataclass(frozen=True)
class Call:
    """What became of a call."""

    begun: float
    said: str
    """Its status, its problem's code, or the class of what went wrong with its connection."""
    closes: bool = False


def ask(connection: http.client.HTTPConnection, verb: str, path: str) -> Call:
    """One call, which http.client does not repeat."""
    begun = time.monotonic()
    try:
        connection.request(verb, path)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return Call(begun, type(error).__name__)
    said = "200" if response.status == 200 else str(json.loads(body)["code"])
    return Call(begun, said, response.getheader("connection") == "close")


def fresh(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=HANG)


def ask_once(port: int, verb: str, path: str) -> Call:
    with closing(fresh(port)) as connection:
        return ask(connection, verb, path)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def no_longer_listens(port: int) -> None:
    eventually(lambda: not listens(port))


@pytest.fixture(scope="module")
def netrunner() -> Iterator[Simulator]:
    with simulator("--health-delay", "0") as running:
        yield running


@pytest.fixture(scope="module")
def slow_netrunner() -> Iterator[Simulator]:
    """One whose nodes never become healthy, as far as a test can tell."""
    with simulator("--health-delay", "3600") as running:
        yield running


# Under load.


def drive(port: int, calls: list[tuple[str, str]], *, keeps: bool) -> list[Call]:
    """Call again and again until nobody listens any more."""
    done = []
    with closing(fresh(port)) as connection:
        for verb, path in cycle(calls):
            if not keeps:
                connection.close()
            done.append(ask(connection, verb, path))
            if done[-1].said == "ConnectionRefusedError":
                return done
    raise AssertionError("it never ends")


def changes(node: str) -> list[tuple[str, str]]:
    return [("POST", f"/v1/nodes/{node}/restart")]


READS = [("GET", "/v1/status"), ("GET", "/v1/nodes"), ("GET", "/v1/nodes/node5")]


def drives(port: int) -> list[Callable[[], list[Call]]]:
    """Reads and changes, each over a kept connection and over new ones."""
    return [
        lambda: drive(port, READS, keeps=True),
        lambda: drive(port, READS, keeps=False),
        lambda: drive(port, changes("node1"), keeps=True),
        lambda: drive(port, changes("node2"), keeps=False),
    ]


def were_all_answered(calls: list[Call], told_at: float) -> None:
    """Check what became of calls from before, within and after the grace time."""
    # Those of its last moments may arrive late.
    early = [call for call in calls if call.begun < told_at + GRACE / 2]
    assert {call.said for call in early} == {"200"}
    assert any(call.begun > told_at for call in early), "the test came too late"
    assert any(call.closes for call in early), "kept connections are asked to go elsewhere"
    proper = ("200", "shutting_down", "ConnectionRefusedError")
    cut_off = [call.said for call in calls if call.said not in proper]
    # Who connects in the very moment in which it closes: each of those that call, once at most.
    assert len(cut_off) <= len(drives(0)), cut_off


def test_under_load_every_call_that_begins_in_the_grace_time_is_answered(
    netrunner: Simulator, identity: Path
):
    flags = ("--drain-grace", f"{GRACE}s")
    with serve(netrunner, identity, *flags) as served, ThreadPoolExecutor(4) as threads:
        running = [threads.submit(each) for each in drives(served.port)]
        time.sleep(0.2)
        told_at = time.monotonic()
        served.stops()
        calls = [call for each in running for call in each.result(timeout=HANG)]
        were_all_answered(calls, told_at)


# The grace time.


def test_in_the_grace_time_it_is_not_ready_and_takes_calls(netrunner: Simulator, identity: Path):
    with (
        serve(netrunner, identity, "--drain-grace", "1h") as served,
        httpx.Client(base_url=served.url, timeout=HANG, trust_env=False) as client,
    ):
        assert "connection" not in client.get("/v1/status").headers
        served.command.send(signal.SIGTERM)
        eventually(lambda: get(served.url, "/readyz").status_code == 503)
        answer = client.get("/readyz")
        is_problem(answer, 503, "shutting_down")
        for verb, path in (("GET", "/v1/status"), *changes("node1"), ("GET", "/v1/nodes")):
            taken = client.request(verb, path)
            assert (taken.status_code, taken.headers["connection"]) == (200, "close")
        alive = client.get("/healthz")
        assert (alive.status_code, alive.headers["connection"]) == (200, "close")
        with client.stream("GET", "/v1/status/stream") as stream:
            assert next(stream.iter_lines()).startswith("retry")

        # And a second signal ends it at once, also now.
        assert served.command.stop(signal.SIGTERM) == 1
        assert "Traceback" not in served.command.stderr


async def test_after_the_grace_time_calls_are_refused_and_it_is_still_alive():
    async with (
        serving(SimulatedNetrunner()) as server,
        running_gateway(server) as running,
    ):
        running.gateway.refuse_new()
        for verb, path in (("GET", "/v1/status"), ("GET", "/v1/nodes"), ("DELETE", "/v1/cluster")):
            refused = await running.client.request(verb, path)
            is_problem(refused, 503, "shutting_down")
            assert refused.headers["connection"] == "close"
        is_problem(await running.client.get("/readyz"), 503, "shutting_down")
        is_problem(await running.client.get("/v1/status/stream"), 503, "shutting_down")
        assert (await running.client.get("/healthz")).status_code == 200
        running.server.should_exit = True


def test_an_idle_connection_is_closed_and_not_reset(netrunner: Simulator, identity: Path):
    """And the log tells how it stops."""
    with (
        serve(netrunner, identity, "--drain-grace", "100ms") as served,
        socket.create_connection(("127.0.0.1", served.port), timeout=HANG) as idle,
    ):
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle.recv(65536).startswith(b"HTTP/1.1 200")
        served.command.send(signal.SIGTERM)
        while idle.recv(65536):
            pass
        served.has_stopped()
        told = [json.loads(line)["message"] for line in served.command.err if line[0] == "{"]
        begun = next(
            n for n, text in enumerate(told) if re.search(r"told to stop: .* 0\.1 s", text)
        )
        assert told.index("stopped") > begun


def test_a_request_that_is_still_being_sent_when_the_grace_time_ends_is_answered(
    netrunner: Simulator, identity: Path
):
    with (
        serve(netrunner, identity) as served,
        socket.create_connection(("127.0.0.1", served.port), timeout=HANG) as slow,
    ):
        body = json.dumps({"name": "slow"}).encode()
        head = f"POST /v1/nodes HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        slow.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body[:5])
        assert get(served.url, "/healthz").status_code == 200
        served.command.send(signal.SIGTERM)
        no_longer_listens(served.port)
        slow.sendall(body[5:])
        response = http.client.HTTPResponse(slow)
        response.begin()
        assert response.status == 200, response.read()
        assert "slow" in json.loads(response.read())["clusterInfo"]["nodeNames"]
        assert response.getheader("connection") == "close"
        served.has_stopped()


# Calls under way.


class Stubborn(SimulatedNetrunner):
    """Calls that end when the test lets them, if ever."""

    def __init__(self) -> None:
        super().__init__(health_delay=3600)
        self.gate = asyncio.Event()
        self.under_way: set[str] = set()

    async def _wait(self, name: str) -> None:
        self.under_way.add(name)
        await self.gate.wait()

    async def pause_node(self, request: m.PauseNodeRequest) -> m.PauseNodeResponse:
        await self._wait("pause_node")
        return await super().pause_node(request)

    async def wait_for_healthy(self, request: m.WaitForHealthyRequest) -> m.WaitForHealthyResponse:
        await self._wait("wait_for_healthy")
        return m.WaitForHealthyResponse()

    async def uris(self, request: m.URIsRequest) -> m.URIsResponse:
        await self._wait("uris")
        return await super().uris(request)


LONG_CALLS = (("POST", "/v1/nodes/node1/pause"), ("GET", "/v1/health/wait"), ("GET", "/v1/uris"))


@asynccontextmanager
async def long_calls(
    identity: Path, *flags: object
) -> AsyncIterator[tuple[Stubborn, Served, list[asyncio.Task[httpx.Response]]]]:
    """A gateway with calls that hang in its server."""
    backend = Stubborn()
    async with (
        serving(backend) as server,
        serve_beside(server, identity, *flags) as served,
        httpx.AsyncClient(base_url=served.url, timeout=HANG, trust_env=False) as client,
    ):
        calls = [asyncio.create_task(client.request(*each)) for each in LONG_CALLS]
        await zap_helpers.eventually(lambda: len(backend.under_way) == len(calls))
        try:
            yield backend, served, calls
        finally:
            backend.gate.set()
            await asyncio.gather(*calls, return_exceptions=True)


async def test_calls_under_way_finish_while_nobody_is_let_in_any_more(identity: Path):
    async with long_calls(identity, "--drain-timeout", "1h") as (backend, served, calls):
        served.command.send(signal.SIGTERM)
        await asyncio.to_thread(no_longer_listens, served.port)
        assert not any(call.done() for call in calls)
        backend.gate.set()
        answers = await asyncio.gather(*calls)
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        await asyncio.to_thread(served.has_stopped)


async def test_calls_that_do_not_finish_in_time_are_told_what_is_known_of_them(identity: Path):
    async with long_calls(identity, "--drain-timeout", "300ms") as (_, served, calls):
        served.command.send(signal.SIGTERM)
        changing, waiting, reading = await asyncio.gather(*calls)
        is_problem(changing, 502, "outcome_unknown", "PauseNode")
        is_problem(waiting, 503, "upstream_unavailable", "WaitForHealthy")
        is_problem(reading, 503, "upstream_unavailable", "URIs")
        await asyncio.to_thread(served.has_stopped)
        assert "3 requests are still under way: they are given up" in served.command.stderr


def test_a_wait_for_health_that_does_not_end_is_answered(slow_netrunner: Simulator, identity: Path):
    flags = ("--drain-timeout", "300ms")
    with (
        serve(slow_netrunner, identity, *flags) as served,
        ThreadPoolExecutor(1) as threads,
    ):
        call = threads.submit(ask_once, served.port, "GET", "/v1/health/wait?timeout=1h")
        eventually(lambda: "zap_calls_under_way 1.0" in get(served.url, "/metrics").text)
        served.stops()
        assert call.result(timeout=HANG).said == "upstream_unavailable"


def test_a_second_signal_does_not_wait_for_calls(slow_netrunner: Simulator, identity: Path):
    flags = ("--drain-timeout", "1h")
    with (
        serve(slow_netrunner, identity, *flags) as served,
        ThreadPoolExecutor(1) as threads,
    ):
        call = threads.submit(ask_once, served.port, "GET", "/v1/health/wait?timeout=1h")
        eventually(lambda: "zap_calls_under_way 1.0" in get(served.url, "/metrics").text)
        served.command.send(signal.SIGTERM)
        no_longer_listens(served.port)
        assert served.command.process.poll() is None
        assert served.command.stop(signal.SIGINT) == 1
        assert "Traceback" not in served.command.stderr
        call.result(timeout=HANG)


# Streams.


def events_of(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """A stream's objects, of either kind; its end is the response's, or httpx would complain."""
    sse = response.headers["content-type"].startswith("text/event-stream")
    name = ""
    for line in response.iter_lines():
        if not sse:
            told = json.loads(line)
            yield told if "end" in told else {"status": told}
        elif line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield {name: json.loads(line.removeprefix("data: "))}


def test_streams_end_with_a_word_of_farewell(netrunner: Simulator, identity: Path):
    """After SIGINT, which is as good as SIGTERM."""
    with (
        serve(netrunner, identity, "--drain-grace", "200ms") as served,
        httpx.Client(base_url=served.url, timeout=HANG, trust_env=False) as client,
        ExitStack() as stack,
    ):
        streams = []
        for accept in ("text/event-stream", "application/x-ndjson") * 2:
            opened = client.stream(
                *("GET", "/v1/status/stream"),
                params={"interval": "1h"},
                headers={"accept": accept},
            )
            response = stack.enter_context(opened)
            assert response.headers["content-type"].startswith(accept)
            events = events_of(response)
            assert "status" in next(events)
            streams.append((response, events))
        served.command.send(signal.SIGINT)
        for response, events in streams:
            (last,) = events
            assert list(last) == ["end"]
            assert (last["end"]["code"], last["end"]["status"]) == ("shutting_down", 503)
            assert last["end"]["requestId"] == response.headers["x-request-id"]
        served.has_stopped()
