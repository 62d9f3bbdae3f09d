"""GET /metrics: what it counts, how it names that, and that clients can't make it grow."""

from __future__ import annotations

import asyncio
import platform
import random
import re
import string
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

import httpx
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway.auth import new_token, token_line
from gateway.errors import KINDS
from tests.integration.gateway_helpers import (
    Backend,
    Running,
    Watched,
    all_operations,
    answers,
    running_gateway,
    sse,
)
from tests.integration.zap_helpers import (
    HANG,
    Peer,
    ScriptedServer,
    free_port,
    identity_of,
    serving,
    soon,
)
from zapcore import NetrunnerServer, SimulatedNetrunner
from zapcore import messages as m
from zapcore.errors import NotFound, RemoteError
from zapcore.methods import METHODS
from zapcore.zwing.handshake import RESPONSE_SIZE

PREFIX = "zap_gateway_"
COUNTERS = {
    "http_requests_total",
    "http_request_body_bytes_total",
    "http_response_body_bytes_total",
    "zap_calls_total",
    "upstream_reconnects_total",
    "upstream_dial_failures_total",
    "upstream_received_bytes_total",
    "upstream_sent_bytes_total",
}
HISTOGRAMS = {
    "http_request_duration_seconds",
    "zap_call_duration_seconds",
    "upstream_handshake_duration_seconds",
}
GAUGES = {
    "build_info",
    "http_connections",
    "stream_readers",
    "zap_calls_under_way",
    "upstream_connections",
    "upstream_circuit_open",
    "upstream_streams",
}


class Numbers:
    """The metrics of one moment."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families: dict[str, Metric] = {
            family.name: family for family in text_string_to_metric_families(text)
        }
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, **labels: object) -> float:
        """One of them; 0 where it is not told."""
        wanted = frozenset((key, str(value)) for key, value in labels.items())
        return self.samples.get((PREFIX + name, wanted), 0.0)

    def total(self, name: str, **labels: str) -> float:
        """The sum over all labels that are not given."""
        wanted = set(labels.items())
        return sum(
            value
            for (found, given), value in self.samples.items()
            if found == PREFIX + name and wanted <= given
        )

    def labels(self, label: str) -> set[str]:
        """Every value of a label of ours."""
        return {
            value
            for (name, given) in self.samples
            if name.startswith(PREFIX)
            for key, value in given
            if key == label
        }


async def numbers(running: Running) -> Numbers:
    response = await running.client.get("/metrics")
    assert response.status_code == 200
    return Numbers(response.text)


async def until(running: Running, predicate: Callable[[Numbers], object]) -> Numbers:
    """Ask until the predicate holds."""
    async with asyncio.timeout(HANG):
        while True:
            found = await numbers(running)
            if predicate(found):
                return found
            await asyncio.sleep(0.01)


@asynccontextmanager
async def simulated(**settings: object) -> AsyncIterator[Running]:
    """A gateway in front of a simulated cluster whose nodes are healthy."""
    async with (
        serving(SimulatedNetrunner(health_delay=0)) as server,
        running_gateway(server, **settings) as running,
    ):
        yield running


# Form.


async def test_the_form_is_that_of_prometheus():
    async with simulated() as running:
        await running.client.get("/v1/status")
        await running.client.post("/v1/nodes/nobody/pause")
        async with sse(running.client) as reader:
            await reader.next()
            response = await running.client.get("/metrics")
        assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert response.headers["cache-control"] == "no-store"
        found = Numbers(response.text)
        ours = {name: family for name, family in found.families.items() if PREFIX in name}

        types = {name.removeprefix(PREFIX): family.type for name, family in ours.items()}
        # The parser leaves out what a counter's name ends in.
        told = {name + "_total" if kind == "counter" else name for name, kind in types.items()}
        assert told >= COUNTERS | HISTOGRAMS | GAUGES
        for name, kind in types.items():
            if kind == "counter":
                assert f"# TYPE {PREFIX}{name}_total counter" in response.text
            if kind == "histogram":
                assert name.endswith("_seconds")
            assert not re.search(r"_(ms|millis\w*|minutes|kb|kib|mb|kilobytes)(_|$)", name)
        assert {types[name] for name in HISTOGRAMS} == {"histogram"}
        assert {types[name] for name in GAUGES} == {"gauge"}
        assert all(types[name.removesuffix("_total")] == "counter" for name in COUNTERS)
        assert all(family.documentation for family in found.families.values())
        assert "_created" not in response.text
        foreign = set(found.families) - set(ours)
        assert all(name.startswith("process_") for name in foreign), foreign


async def test_buckets_grow_to_infinity():
    async with simulated() as running:
        await running.client.get("/v1/status")
        found = await numbers(running)
        wanted = {"method": "GET", "route": "/v1/status"}
        buckets = [
            (float(labels["le"]), value)
            for (name, given), value in found.samples.items()
            if name == PREFIX + "http_request_duration_seconds_bucket"
            and wanted.items() <= (labels := dict(given)).items()
        ]
        assert buckets == sorted(buckets)
        assert buckets[-1] == (float("inf"), 1)


async def test_who_runs():
    async with simulated() as running:
        found = await numbers(running)
        about = {"version": version("zap-gateway"), "python": platform.python_version()}
        assert found.value("build_info", **about) == 1
        own = {name for name, _ in found.samples if name.startswith("process_")}
        assert own >= {
            "process_cpu_seconds_total",
            "process_open_fds",
            "process_resident_memory_bytes",
            "process_start_time_seconds",
        }


async def test_metrics_need_a_token_where_there_are_any():
    secret = new_token()
    async with simulated(token=(token_line("prometheus", "read", secret),)) as running:
        assert (await running.client.get("/metrics")).status_code == 401
        bearer = {"Authorization": f"Bearer {secret}"}
        assert (await running.client.get("/metrics", headers=bearer)).status_code == 200


# Nobody can make it grow.


METHODS_OF_HTTP = ("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "other")
ODD_METHODS = ("PROPFIND", "M-SEARCH", "PURGE", "TRACE", "LINK", "SOURCE")


def word() -> str:
    letters = random.choices(string.ascii_letters + "%._-~", k=12)  # noqa: S311
    return "".join(letters).replace("%", "%41")


async def send_anything(running: Running) -> None:
    """Requests in which all that a client can choose is chosen at random."""
    headers = {"x-request-id": word(), "user-agent": word(), "x-forwarded-for": word()}
    places = (
        f"/{word()}",
        f"/v1/{word()}",
        f"/v1/nodes/{word()}",
        f"/v1/nodes/{word()}/pause",
        f"/v1/status?{word()}={word()}",
        f"/v1/status/stream?interval={word()}",
        f"/v1/health/wait?timeout={word()}",
        f"/v1/snapshots/{word()}",
        f"//{word()}",
        "/v1/status/",
        "/healthz",
        "/",
        "/docs",
        "/static/docs.js",
        f"/static/{word()}",
    )
    verbs = ("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", *ODD_METHODS)
    for verb in verbs:
        for place in places:
            if verb == "DELETE" and place == "/v1/cluster":
                continue
            response = await running.client.request(verb, place, headers=headers)
            assert response.status_code < 600
    for content in (b"{}", b"no JSON", b'{"name": "' + word().encode() + b'"'):
        await running.client.post("/v1/nodes", content=content)


async def test_labels_come_from_a_fixed_set_whatever_clients_send():
    async with simulated() as running:
        await send_anything(running)
        first = await until(running, lambda _: True)
        await send_anything(running)
        await send_anything(running)
        found = await numbers(running)
        assert found.samples.keys() == first.samples.keys() | {
            key for key in found.samples if ("route", "/metrics") in key[1]
        }

        pages = {"/", "/docs", "/static/{name}"}
        routes = {path for _, path in all_operations()} | pages
        assert pages <= found.labels("route") <= routes | {"other"}
        assert found.labels("method") == set(METHODS_OF_HTTP)
        assert found.labels("status") <= {"200", "0", *(str(kind.status) for kind in KINDS)}
        assert found.labels("rpc") <= set(METHODS)
        outcomes = {"ok", "cancelled", *(kind.code for kind in KINDS)}
        assert found.labels("outcome") <= outcomes
        assert found.total("http_requests_total", method="other") >= 3 * len(ODD_METHODS)
        assert found.value("http_requests_total", method="GET", route="other", status=404) > 0
        assert found.value("http_requests_total", method="other", route="other", status=404) > 0


async def test_a_name_in_a_path_is_no_label():
    async with simulated() as running:
        for node in ("node1", "node2", "nobody", "somebody"):
            await running.client.get(f"/v1/nodes/{node}")
        found = await numbers(running)
        route = "/v1/nodes/{name}"
        assert found.value("http_requests_total", method="GET", route=route, status=200) == 2
        assert found.value("http_requests_total", method="GET", route=route, status=404) == 2
        assert "node1" not in found.text


# Requests and calls.


async def test_requests_are_counted_by_method_route_and_status():
    async with simulated() as running:
        client = running.client
        asked = Counter(
            {
                ("GET", "/v1/status", "/v1/status"): 4,  # the short way
                ("GET", "/v1/uris?timeout=5s", "/v1/uris"): 3,  # FastAPI's
                ("GET", "/v1/nodes", "/v1/nodes"): 2,
                ("POST", "/v1/nodes/node1/restart", "/v1/nodes/{name}/restart"): 2,
                ("GET", "/healthz", "/healthz"): 2,
                ("GET", "/nowhere", "other"): 3,
                ("PUT", "/nowhere", "other"): 1,
                ("PURGE", "/nowhere", "other"): 2,
                ("POST", "/v1/nodes/nobody/pause", "/v1/nodes/{name}/pause"): 2,
                ("POST", "/v1/nodes", "/v1/nodes"): 2,
            }
        )
        statuses = {"/nowhere": 404, "/v1/nodes/nobody/pause": 404}
        for (verb, target, _), times in asked.items():
            expected = 422 if (verb, target) == ("POST", "/v1/nodes") else statuses.get(target, 200)
            for _ in range(times):
                assert (await client.request(verb, target)).status_code == expected
        found = await numbers(running)
        for (verb, target, route), times in asked.items():
            expected = 422 if (verb, target) == ("POST", "/v1/nodes") else statuses.get(target, 200)
            method = "other" if verb == "PURGE" else verb
            labels = {"method": method, "route": route, "status": expected}
            assert found.value("http_requests_total", **labels) == times, labels

        # Each of them took its time.
        for name, given in found.samples:
            if name == PREFIX + "http_request_duration_seconds_count":
                labels = dict(given)
                times = found.total("http_requests_total", **labels)
                assert found.value("http_request_duration_seconds_count", **labels) == times
                assert found.value("http_request_duration_seconds_sum", **labels) > 0


async def test_calls_are_counted_by_rpc_and_outcome():
    handlers = {
        "status": answers(m.StatusResponse()),
        "uris": answers(RemoteError("not today")),
        "pause_node": answers(NotFound("node not found")),
    }
    async with (
        serving(Backend(**handlers)) as server,
        running_gateway(server) as running,
    ):
        for _ in range(3):
            await running.client.get("/v1/status")
        await running.client.get("/v1/status?timeout=5s")
        for _ in range(2):
            await running.client.get("/v1/uris")
            await running.client.post("/v1/nodes/n/pause")
        await running.client.get("/v1/health")
        found = await numbers(running)
        for rpc, outcome, times in (
            ("Status", "ok", 4),
            ("URIs", "upstream_error", 2),
            ("PauseNode", "not_found", 2),
            ("Health", "unsupported_by_server", 1),
        ):
            assert found.value("zap_calls_total", rpc=rpc, outcome=outcome) == times
            assert found.total("zap_calls_total", rpc=rpc) == times
            assert found.value("zap_call_duration_seconds_count", rpc=rpc) == times
            assert found.value("zap_call_duration_seconds_sum", rpc=rpc) > 0
        # Of each RPC there is a number from the start, so that a rate can be had of the first one.
        assert found.labels("rpc") >= {
            name for name, method in METHODS.items() if not method.streaming
        }


async def test_what_was_not_let_in_is_counted_too():
    line = token_line("me", "read", new_token())
    async with simulated(token=(line,)) as running:
        for _ in range(3):
            assert (await running.client.get("/v1/status")).status_code == 401
        # There is no route: who is not let in is not told which there are.
        counted = (await running.gateway.metrics.render()).decode()
        found = Numbers(counted)
        assert found.value("http_requests_total", method="GET", route="other", status=401) == 3
        assert found.total("zap_calls_total") == 0


# Streams.


async def test_streams_and_their_readers_are_gauges():
    watched = Watched(SimulatedNetrunner())
    async with serving(watched) as server, running_gateway(server) as running:
        before = await numbers(running)
        assert (before.value("stream_readers"), before.value("upstream_streams")) == (0, 0)
        async with AsyncExitStack() as stack:
            for _ in range(3):
                await (await stack.enter_async_context(sse(running.client))).next()
            found = await numbers(running)
            assert (found.value("stream_readers"), found.value("upstream_streams")) == (3, 1)
            assert found.total("http_requests_total", route="/v1/status/stream") == 0
        await until(running, lambda now: now.value("stream_readers") == 0)
        after = await until(running, lambda now: now.value("upstream_streams") == 0)
        route = {"method": "GET", "route": "/v1/status/stream"}
        assert after.value("http_requests_total", **route, status=200) == 3
        # How long somebody read says nothing about how fast we are.
        assert after.value("http_request_duration_seconds_count", **route) == 0


async def test_a_streams_bytes_count_while_it_goes_on():
    async with simulated() as running, sse(running.client, interval="100ms") as reader:
        await reader.next()
        first = (await numbers(running)).value("http_response_body_bytes_total")
        for _ in range(3):
            event = await reader.next()
        later = (await numbers(running)).value("http_response_body_bytes_total")
        assert later - first > 3 * len(str(event.data)) / 2


# The way to the server.


async def test_connections_to_the_server_by_state_and_their_handshakes():
    async with simulated(connections=3) as running:
        found = await until(
            running, lambda now: now.value("upstream_connections", state="connected") == 3
        )
        assert found.value("upstream_connections", state="connecting") == 0
        assert found.value("upstream_connections", state="waiting") == 0
        assert found.value("upstream_handshake_duration_seconds_count") == 3
        assert 0 < found.value("upstream_handshake_duration_seconds_sum") < HANG
        assert found.value("upstream_circuit_open") == 0
        assert found.total("upstream_dial_failures_total") == 0
        assert found.value("upstream_reconnects_total") == 0
        async with sse(running.client) as reader:
            await reader.next()
            found = await numbers(running)
            assert found.value("upstream_handshake_duration_seconds_count") == 4


async def test_a_server_that_goes_and_comes_back_shows_in_the_numbers():
    port = free_port()
    identity = identity_of("server")
    async with AsyncExitStack() as stack:
        first = NetrunnerServer(SimulatedNetrunner(), identity)
        await first.start("127.0.0.1", port)
        address = f"127.0.0.1:{port}"
        entered = running_gateway(address, acquire_timeout=0.05)
        running = await stack.enter_async_context(entered)
        await until(running, lambda now: now.value("upstream_connections", state="connected") == 2)
        await first.close()
        down = await until(running, lambda now: now.value("upstream_circuit_open") == 1)
        assert down.value("upstream_connections", state="connected") == 0
        others = [
            down.value("upstream_connections", state=state) for state in ("connecting", "waiting")
        ]
        assert sum(others) == 2
        down = await until(
            running, lambda now: now.value("upstream_dial_failures_total", reason="unreachable")
        )
        assert down.value("upstream_reconnects_total") == 0

        again = NetrunnerServer(SimulatedNetrunner(), identity)
        await again.start("127.0.0.1", port)
        stack.push_async_callback(again.close)
        up = await until(running, lambda now: now.value("upstream_reconnects_total") == 2)
        assert up.value("upstream_circuit_open") == 0
        assert up.value("upstream_connections", state="connected") == 2
        assert up.value("upstream_handshake_duration_seconds_count") == 4
        assert up.labels("reason") == {"unreachable", "handshake", "identity_mismatch"}
        assert up.value("upstream_dial_failures_total", reason="handshake") == 0


async def fails_because(running: Running, reason: str) -> None:
    """Wait for failures to connect, all of them for one reason."""
    name = "upstream_dial_failures_total"
    found = await until(running, lambda now: now.total(name))
    assert found.value(name, reason=reason) == found.total(name)


async def test_a_server_that_is_not_there_is_unreachable():
    async with running_gateway(f"127.0.0.1:{free_port()}", ready=False) as running:
        await fails_because(running, "unreachable")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(4), b""])
async def test_a_server_that_speaks_something_else_fails_in_the_handshake(answer: bytes):
    async def say(peer: Peer) -> None:
        await peer.frame()
        if answer:
            await peer.deliver(answer)
        await peer.close()

    async with (
        ScriptedServer(say, raw=True) as server,
        running_gateway(server, ready=False) as running,
    ):
        await fails_because(running, "handshake")


async def test_a_server_that_proves_nothing_fails_in_the_handshake():
    async def forge(peer: Peer) -> None:
        await peer.frame()
        await peer.deliver(struct.pack(">I", RESPONSE_SIZE) + bytes(RESPONSE_SIZE))

    async with (
        ScriptedServer(forge, raw=True) as server,
        running_gateway(server, ready=False) as running,
    ):
        await fails_because(running, "handshake")


async def test_a_server_that_is_another_is_a_mismatch():
    async with (
        serving(SimulatedNetrunner()) as server,
        running_gateway(server, identity_of("somebody else").public, ready=False) as running,
    ):
        await fails_because(running, "identity_mismatch")


async def test_calls_under_way_are_a_gauge():
    gate = asyncio.Event()

    async def status(request: m.StatusRequest) -> m.StatusResponse:
        await gate.wait()
        return m.StatusResponse()

    async with serving(Backend(status=status)) as server, running_gateway(server) as running:
        calls = [asyncio.create_task(running.client.get("/v1/status")) for _ in range(3)]
        await until(running, lambda now: now.value("zap_calls_under_way") == 3)
        gate.set()
        await soon(asyncio.gather(*calls))
        assert (await numbers(running)).value("zap_calls_under_way") == 0


# Bytes and connections.


async def test_bytes_are_counted():
    async with simulated() as running:
        before = await numbers(running)
        answers_to_me = [await running.client.get("/v1/status") for _ in range(5)]
        answers_to_me.append(await running.client.get("/v1/nodes"))
        body = {"name": "n", "nodeConfig": '{"x": "' + "y" * 1000 + '"}'}
        answers_to_me.append(await running.client.post("/v1/nodes", json=body))
        after = await numbers(running)

        def grown(name: str) -> float:
            return after.value(name) - before.value(name)

        sent = sum(len(answer.content) for answer in answers_to_me) + len(before.text.encode())
        assert grown("http_response_body_bytes_total") == sent
        length = int(answers_to_me[-1].request.headers["content-length"])
        assert grown("http_request_body_bytes_total") == length
        assert grown("upstream_sent_bytes_total") > 1000
        assert grown("upstream_received_bytes_total") > 5 * 100


async def test_what_connections_carried_stays_counted_when_they_are_gone():
    backend = SimulatedNetrunner()
    port = free_port()
    server = NetrunnerServer(backend, identity_of("server"))
    await server.start("127.0.0.1", port)
    async with running_gateway(f"127.0.0.1:{port}", acquire_timeout=0.05) as running:
        for _ in range(5):
            await running.client.get("/v1/status")
        before = await numbers(running)
        await server.close()
        after = await until(
            running, lambda now: not now.value("upstream_connections", state="connected")
        )
        for name in ("upstream_received_bytes_total", "upstream_sent_bytes_total"):
            assert after.value(name) >= before.value(name) > 0


async def test_clients_connections_are_busy_or_idle():
    gate = asyncio.Event()

    async def status(request: m.StatusRequest) -> m.StatusResponse:
        await gate.wait()
        return m.StatusResponse()

    def are(busy: int, idle: int) -> Callable[[Numbers], bool]:
        return lambda now: (
            (
                now.value("http_connections", state="busy"),
                now.value("http_connections", state="idle"),
            )
            == (busy, idle)
        )

    async with serving(Backend(status=status)) as server, running_gateway(server) as running:
        await until(running, are(1, 0))  # the one that asks
        waiting = [
            await asyncio.open_connection("127.0.0.1", running.port, limit=2**16) for _ in range(3)
        ]
        await until(running, are(1, 3))
        for _, writer in waiting[:2]:
            writer.write(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(running, are(3, 1))
        gate.set()
        for reader, _ in waiting[:2]:
            await soon(reader.readuntil(b"\r\n\r\n"))
        await until(running, are(1, 3))
        for _, writer in waiting:
            writer.close()
            await writer.wait_closed()
        await until(running, are(1, 0))


async def test_a_client_that_leaves_in_the_midst_of_a_stream_is_counted_once():
    async with simulated() as running:
        async with (
            httpx.AsyncClient(base_url=running.url, trust_env=False) as client,
            client.stream("GET", "/v1/status/stream") as response,
        ):
            assert response.status_code == 200
        labels = {"method": "GET", "route": "/v1/status/stream", "status": "200"}
        await until(running, lambda now: now.value("http_requests_total", **labels) == 1)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"this is no HTTP\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"y" * 40_000 + b"\r\n\r\n", 431),
    ],
)
async def test_what_is_no_whole_request_is_counted_too(sent: bytes, status: int):
    async with simulated() as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(sent)
        answer = await soon(reader.read())
        assert answer.startswith(f"HTTP/1.1 {status}".encode())
        writer.close()
        labels = {"method": "other", "route": "other", "status": status}
        assert (await numbers(running)).value("http_requests_total", **labels) == 1


async def test_what_was_counted_last_is_told_at_the_end():
    """Several workers share their numbers, which outlive each of them."""
    async with simulated() as running:
        for _ in range(3):
            await running.client.get("/v1/status")
        running.tell_to_stop()
        await soon(running.serving)
        labels = {"method": "GET", "route": "/v1/status", "status": "200"}
        registry = running.gateway.metrics.registry
        assert registry.get_sample_value("zap_gateway_http_requests_total", labels) == 3
