"""OpenTelemetry traces of `zap-gateway serve`, as a collector receives them."""

from __future__ import annotations

import gzip
import json
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import tracing
from gateway.auth import new_token, token_line
from tests.commands.test_cli_drain import Served, netrunner, serve
from tests.commands.test_cli_serve import eventually, get, identity
from tests.integration.gateway_helpers import (
    Simulator,
    clean_environment,
)
from tests.integration.zap_helpers import HANG

pytest.importorskip("opentelemetry.sdk")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

__all__ = ["identity", "netrunner"]


class Collector:
    """Takes traces over OTLP/HTTP."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers["content-encoding"] == "gzip":
                    body = gzip.decompress(body)
                collector.paths.append(self.path)
                collector.bodies.append(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def resources(self) -> list[Any]:
        """What was sent, by who sent it."""
        parsed = (ExportTraceServiceRequest.FromString(body) for body in self.bodies)
        return [part for request in parsed for part in request.resource_spans]

    @property
    def spans(self) -> list[Span]:
        return [span for part in self.resources for each in part.scope_spans for span in each.spans]

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Span:
        """The only span of a name."""
        (found,) = self.named(name)
        return found

    def children(self, span: Span) -> list[Span]:
        """The spans right below one."""
        return [
            each
            for each in self.spans
            if (each.trace_id, each.parent_span_id) == (span.trace_id, span.span_id)
        ]

    def of(self, request_id: str) -> Span:
        """The span of a request."""
        (found,) = (
            span
            for span in self.spans
            if attributes(span).get("zap_gateway.request_id") == request_id
        )
        return found

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.close()


def attributes(span: Any) -> dict[str, object]:
    """The attributes of a span, or of a resource."""
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes
    }


def traceparent(trace: str, span: str, flags: str = "01") -> dict[str, str]:
    return {"traceparent": f"00-{trace}-{span}-{flags}"}


@contextmanager
def traced(
    netrunner: Simulator,
    identity: Path,
    collector: Collector,
    *flags: object,
    stays_quiet: bool = True,
    **environment: str,
) -> Iterator[Served]:
    """A gateway that sends its traces only when it stops, unless told otherwise."""
    delay = {"OTEL_BSP_SCHEDULE_DELAY": "3600000"} if stays_quiet else {}
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **delay, **environment}
    with serve(netrunner, identity, *flags, **given) as served:
        yield served


# What is sent.


def test_spans_of_requests_and_of_their_calls(
    netrunner: Simulator, identity: Path, collector: Collector, tmp_path: Path
):
    secret = new_token()
    tokens = tmp_path / "tokens"
    tokens.write_text(token_line("me", "operate", secret) + "\n")
    hidden = f"sesame-{secrets.token_hex(8)}"
    with traced(netrunner, identity, collector, "--tokens", tokens) as served:
        headers = {"Authorization": f"Bearer {secret}"}
        with httpx.Client(
            base_url=served.url, timeout=HANG, trust_env=False, headers=headers
        ) as client:

            def ask(verb: str, target: str, status: int = 200, **more: Any) -> str:
                response = client.request(verb, target, **more)
                assert response.status_code == status
                return str(response.headers["x-request-id"])

            short = ask("GET", "/v1/status")
            long = ask("POST", "/v1/nodes/node1/restart")
            query = ask("GET", f"/v1/uris?timeout=5s&secret={hidden}", headers={"Cookie": hidden})
            nowhere = ask("GET", f"/nowhere?ticket={hidden}", 404)
            stranger = ask("GET", "/v1/status", 401, headers={"Authorization": f"Bearer {hidden}"})
            missing = ask("POST", "/v1/nodes/nobody/pause", 404, json={"secret": hidden})
            failed = ask("POST", "/v1/nodes/node1/resume", 502)
            with client.stream("GET", "/v1/status/stream") as stream:
                next(stream.iter_lines())
                streaming = str(stream.headers["x-request-id"])

            above, below = secrets.token_hex(16), secrets.token_hex(8)
            called = [
                ask("GET", "/v1/version", headers=traceparent(above, below)),
                ask("GET", "/v1/nodes", headers=traceparent(above, below)),
            ]
            unsampled = ask("GET", "/v1/ping", headers=traceparent(above, below, "00"))
            odd = ask("GET", "/v1/health", headers={"traceparent": "00-nonsense"})
        assert collector.bodies == [], "they are sent together"
        served.stops()

        assert set(collector.paths) == {"/v1/traces"}
        about = attributes(collector.resources[0].resource)
        assert about["service.name"] == "zap-gateway"
        assert re.match(r"\d+\.\d+", str(about["service.version"]))

        is_traced(collector, short, "GET", "/v1/status", "Status", netrunner)
        is_traced(collector, long, "POST", "/v1/nodes/{name}/restart", "RestartNode", netrunner)
        is_traced(collector, query, "GET", "/v1/uris", "URIs", netrunner)
        assert attributes(collector.of(short))["enduser.id"] == "me"
        assert attributes(collector.of(long))["url.path"] == "/v1/nodes/node1/restart"

        span = collector.of(nowhere)
        assert (span.name, collector.children(span)) == ("GET", [])
        assert attributes(span)["http.response.status_code"] == 404
        assert "http.route" not in attributes(span)
        assert span.status.code == Status.STATUS_CODE_UNSET, "the client's mistake"
        assert attributes(collector.of(stranger))["error.type"] == "unauthenticated"
        assert collector.children(collector.of(stranger)) == []

        span = collector.of(missing)
        assert attributes(span)["error.type"] == "not_found"
        assert span.status.code == Status.STATUS_CODE_UNSET
        (call,) = collector.children(span)
        assert call.status.code == Status.STATUS_CODE_ERROR
        assert attributes(call)["error.type"] == "NotFound"

        span = collector.of(failed)
        assert span.status.code == Status.STATUS_CODE_ERROR
        assert attributes(span)["error.type"] == "upstream_error"
        (call,) = collector.children(span)
        assert (call.status.code, call.status.message) == (
            Status.STATUS_CODE_ERROR,
            "node has not been paused",
        )
        assert collector.of(streaming).name == "GET /v1/status/stream"

        for request_id in called:
            span = collector.of(request_id)
            assert (span.trace_id.hex(), span.parent_span_id.hex()) == (above, below)
            (call,) = collector.children(span)
            assert call.trace_id == span.trace_id
        ids = {attributes(span).get("zap_gateway.request_id") for span in collector.spans}
        assert unsampled not in ids, "the caller does not want it"
        assert collector.of(odd).parent_span_id == b""

        sent = b"".join(collector.bodies)
        for text in (secret, hidden, "earer", "ticket="):
            assert text.encode() not in sent


def is_traced(
    collector: Collector, request_id: str, verb: str, route: str, rpc: str, netrunner: Simulator
) -> None:
    """A request has a span, and its call one below that."""
    span = collector.of(request_id)
    assert span.name == f"{verb} {route}"
    assert span.kind == Span.SPAN_KIND_SERVER
    assert span.parent_span_id == b""
    assert span.status.code == Status.STATUS_CODE_UNSET
    told = attributes(span)
    assert told["http.request.method"] == verb
    assert told["http.route"] == route
    assert told["http.response.status_code"] == 200
    assert told["url.scheme"] == "http"
    assert told["client.address"] == "127.0.0.1"
    assert "error.type" not in told
    (call,) = collector.children(span)
    assert call.name == f"netrunner/{rpc}"
    assert call.kind == Span.SPAN_KIND_CLIENT
    assert attributes(call) == {
        "rpc.system": "zap",
        "rpc.service": "netrunner",
        "rpc.method": rpc,
        "server.address": "127.0.0.1",
        "server.port": netrunner.port,
    }
    starts, ends = (
        [getattr(each, f"{edge}_time_unix_nano") for each in (span, call)]
        for edge in ("start", "end")
    )
    assert starts[0] <= starts[1] < ends[1] <= ends[0]


def test_spans_are_sent_while_it_runs_and_not_mixed_up(
    netrunner: Simulator, identity: Path, collector: Collector
):
    """Those of requests that run at the same time; and of the name that the environment gives."""
    environment = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_SERVICE_NAME": "mine"}
    with (
        traced(netrunner, identity, collector, stays_quiet=False, **environment) as served,
        ThreadPoolExecutor(8) as threads,
    ):

        def ask(number: int) -> tuple[str, str]:
            path = ("/v1/status", "/v1/uris", "/v1/nodes", "/v1/snapshots")[number % 4]
            trace = f"{number + 1:032x}"
            headers = traceparent(trace, "1" * 16)
            assert get(served.url, path, headers=headers).status_code == 200
            return path, trace

        asked = list(threads.map(ask, range(64)))
        rpcs = {"/v1/uris": "URIs", "/v1/snapshots": "GetSnapshotNames"}
        eventually(lambda: len([s for s in collector.spans if s.trace_id[:8] == bytes(8)]) == 128)
        assert served.command.process.poll() is None
        for path, trace in asked:
            above, below = sorted(
                (span for span in collector.spans if span.trace_id.hex() == trace),
                key=lambda span: span.kind,
            )
            assert above.name == f"GET {path}"
            assert below.name == f"netrunner/{rpcs.get(path, 'Status')}"
            assert below.parent_span_id == above.span_id
        names = {attributes(each.resource)["service.name"] for each in collector.resources}
        assert names == {"mine"}


# When nothing is sent.


def imports_of(
    netrunner: Simulator, identity: Path, **environment: str
) -> tuple[str, httpx.Response]:
    """Which modules a gateway imports that serves a request, and what it answers."""
    running = subprocess.Popen(
        [
            *(sys.executable, "-X", "importtime", "-m", "gateway"),
            *("serve", "--port", "0", "--identity", identity, "--drain-grace", "0"),
            *("--upstream", netrunner.address, "--server", netrunner.fingerprint),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(**environment),
    )
    told = ""
    assert running.stderr is not None
    with running.stderr:
        while (found := re.search(r"zap-gateway: (http\S+)", told)) is None:
            told += running.stderr.readline()
        headers = traceparent("a" * 32, "b" * 16)
        response = get(found[1], "/v1/status", headers=headers)
        running.send_signal(signal.SIGTERM)
        told += running.stderr.read()
    assert running.wait(timeout=HANG) == 0
    return told, response


@pytest.mark.parametrize("disabled", [False, True])
def test_without_the_variables_nothing_is_imported_and_nothing_is_sent(
    netrunner: Simulator, identity: Path, collector: Collector, disabled: bool
):
    environment = {}
    if disabled:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SDK_DISABLED": "true"}
    told, response = imports_of(netrunner, identity, **environment)
    assert response.status_code == 200
    assert "gateway.tracing" in told
    assert "opentelemetry.sdk" not in told
    assert "opentelemetry.exporter" not in told
    assert collector.bodies == []


def test_with_the_variables_it_is_imported(
    netrunner: Simulator, identity: Path, collector: Collector
):
    """Or the test above would not tell anything."""
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    told, _ = imports_of(netrunner, identity, **environment)
    assert "opentelemetry.sdk" in told
    assert collector.one("GET /v1/status")


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, None),
        ({"OTEL_SERVICE_NAME": "mine"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, "otlp"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": " Console "}, "console"),
        ({"OTEL_TRACES_EXPORTER": "none"}, None),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, None),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}, None),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, None),
        ({"OTEL_SDK_DISABLED": "false", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, "otlp"),
    ],
)
def test_which_variables_turn_it_on(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], wanted: str | None
):
    for name in (
        *("OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_SERVICE_NAME"),
        *("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
    ):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracing.wanted_exporter() == wanted


# What goes wrong.


def test_without_the_sdk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(tracing.TracingError, match=r"pip install 'zap-gateway\[otel\]'"):
        tracing.start_tracing()


def test_without_the_exporter_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "carrier-pigeon")
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    with pytest.raises(tracing.TracingError, match="no OpenTelemetry exporter 'carrier-pigeon'"):
        tracing.start_tracing()


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_TRACES_EXPORTER": "carrier-pigeon"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "99999"},
    ],
    ids=["no such exporter", "a value that the SDK refuses"],
)
def test_traces_that_cant_be_had_are_said_and_the_gateway_serves(
    netrunner: Simulator, identity: Path, environment: dict[str, str]
):
    with serve(netrunner, identity, **environment) as served:
        warning = json.loads(served.command.line(r"{.*there are no traces.*}\n")[0])
        assert warning["level"] == "warning"
        assert get(served.url, "/v1/status").status_code == 200
        served.stops()


def test_a_collector_that_never_answers_keeps_nobody_from_anything(
    netrunner: Simulator, identity: Path
):
    with socket.create_server(("127.0.0.1", 0)) as hole:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{hole.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "3600",
            "OTEL_BSP_SCHEDULE_DELAY": "20",
        }
        with serve(netrunner, identity, **environment) as served:
            for _ in range(20):
                assert get(served.url, "/v1/status").status_code == 200
            served.stops()
