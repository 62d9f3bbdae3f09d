"""Numbers for Prometheus. Labels are routes, RPCs and codes of this program: all bounded."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.context import OTHER, RequestContext
from gateway.errors import Kind
from gateway.tallies import CountTally, DurationTally, ManyHistogram
from zapcore.codec import Message
from zapcore.connection import Connection
from zapcore.errors import ConnectFailed, IdentityMismatch, ProtocolError, ZapError
from zapcore.methods import METHODS, Method
from zapcore.pool import ConnectionPool, PoolObserver

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client keeps the numbers of all workers; it reads the variable when imported."""

_PREFIX = "zap_gateway_"
_CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)
_HANDSHAKE_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_VERBS = frozenset({"GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"})

disable_created_metrics()  # type: ignore[no-untyped-call] # a second series per counter, which nobody reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What is so at a moment, to be told as gauges."""

    busy_connections: int
    idle_connections: int
    readers: int
    upstream_streams: int


class Metrics(PoolObserver):
    """What one gateway process counts. With several workers, what all of them do."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._define_http()
        self._define_upstream()
        build = self._gauge("build_info", "What runs; always 1.", ["version", "python"], "livemax")
        build.labels(version=version("zap-gateway"), python=platform.python_version()).set(1)
        self._shared = SHARED_FOLDER in os.environ
        if not self._shared:
            ProcessCollector(registry=self.registry)
        self._seen_received = self._seen_sent = 0
        self._rendering = asyncio.Lock()

    def _define_http(self) -> None:
        self._requests = self._counter(
            "http_requests", "Requests that ended.", ["method", "route", "status"]
        )
        self._durations = self._histogram(
            "http_request_duration_seconds",
            "From a request's headers to the end of its answer; streams are left out.",
            ["method", "route"],
            _CALL_BUCKETS,
        )
        self._received = CountTally(
            self._counter("http_request_body_bytes", "Bytes of requests' bodies.")
        )
        self._sent = CountTally(
            self._counter("http_response_body_bytes", "Bytes of answers' bodies.")
        )
        self._request_tallies: dict[tuple[str, str, int], CountTally] = {}
        self._duration_tallies: dict[tuple[str, str], DurationTally] = {}
        self._http_connections = self._gauge(
            "http_connections", "Clients' connections, busy with a request or idle.", ["state"]
        )
        self._readers = self._gauge("stream_readers", "Clients that read a stream.")

    def _define_upstream(self) -> None:
        self._calls = self._counter(
            "zap_calls",
            "Calls to the netrunner server that ended; reads that shared one count each.",
            ["rpc", "outcome"],
        )
        self._call_durations = self._histogram(
            "zap_call_duration_seconds",
            "Of calls to the netrunner server, waiting for a connection included.",
            ["rpc"],
            _CALL_BUCKETS,
        )
        self._under_way = self._gauge("zap_calls_under_way", "Calls that wait for their answer.")
        self._upstream_connections = self._gauge(
            "upstream_connections",
            "The pool's connections: they stand, are being made, or wait for the next attempt.",
            ["state"],
        )
        self._circuit = self._gauge("upstream_circuit_open", "1 while calls fail at once.")
        self._upstream_streams = self._gauge("upstream_streams", "Streams read from the server.")
        self._reconnects = self._counter(
            "upstream_reconnects", "Connections of the pool that stood again after a loss."
        )
        self._handshakes = self._histogram(
            "upstream_handshake_duration_seconds", "Of Z-Wing handshakes.", [], _HANDSHAKE_BUCKETS
        )
        self._dial_failures = self._counter(
            "upstream_dial_failures", "Attempts to connect that failed.", ["reason"]
        )
        self._upstream_received = self._counter("upstream_received_bytes", "From the server.")
        self._upstream_sent = self._counter("upstream_sent_bytes", "To the server.")
        self._call_tallies = {
            (name, "ok"): CountTally(self._calls.labels(rpc=name, outcome="ok"))
            for name, method in METHODS.items()
            if not method.streaming
        }
        self._call_duration_tallies: dict[str, DurationTally] = {}
        for reason in _REASONS.values():
            self._dial_failures.labels(reason=reason)

    def _counter(self, name: str, text: str, labels: list[str] | None = None) -> Counter:
        return Counter(_PREFIX + name, text, labels or [], registry=self.registry)

    def _gauge(
        self,
        name: str,
        text: str,
        labels: list[str] | None = None,
        mode: Literal["livesum", "livemax"] = "livesum",
    ) -> Gauge:
        """A gauge; ``mode`` tells what it is over all workers."""
        return Gauge(
            _PREFIX + name, text, labels or [], registry=self.registry, multiprocess_mode=mode
        )

    def _histogram(
        self, name: str, text: str, labels: list[str], buckets: tuple[float, ...]
    ) -> ManyHistogram:
        return ManyHistogram(_PREFIX + name, text, labels, registry=self.registry, buckets=buckets)

    # Requests.

    def request_finished(self, context: RequestContext, seconds: float) -> None:
        """A request was answered, or its client left."""
        verb = context.verb if context.verb in _VERBS else OTHER
        key = (verb, context.route, context.status)
        count = self._request_tallies.get(key)
        if count is None:
            labels = (verb, context.route, str(context.status))
            count = self._request_tallies[key] = CountTally(self._requests.labels(*labels))
        count.add()
        if context.received:
            self._received.add(context.received)
        if context.streaming:
            return  # its bytes were told as they went, and its length says nothing
        self._sent.add(context.sent)
        took = self._duration_tallies.get(key[:2])
        if took is None:
            labelled = self._durations.labels(verb, context.route)
            took = self._duration_tallies[key[:2]] = DurationTally(labelled, _CALL_BUCKETS)
        took.add(seconds)

    def request_refused(self, kind: Kind) -> None:
        """A request was refused before it was whole."""
        self._requests.labels(OTHER, OTHER, str(kind.status)).inc()

    def stream_sent(self, size: int) -> None:
        """A stream sent so many bytes."""
        self._sent.add(size)

    # Calls.

    def call_finished(self, method: Method[Message, Message], outcome: str, seconds: float) -> None:
        """An RPC was answered (`ok`), or failed with a problem's code."""
        key = (method.name, outcome)
        count = self._call_tallies.get(key)
        if count is None:
            labelled = self._calls.labels(rpc=method.name, outcome=outcome)
            count = self._call_tallies[key] = CountTally(labelled)
        count.add()
        took = self._call_duration_tallies.get(method.name)
        if took is None:
            took = DurationTally(self._call_durations.labels(method.name), _CALL_BUCKETS)
            self._call_duration_tallies[method.name] = took
        took.add(seconds)

    # What the pool reports.

    def dialled(self, connection: Connection) -> None:
        """See PoolObserver."""
        self._handshakes.observe(connection.handshake_seconds)

    def dial_failed(self, error: ZapError) -> None:
        """See PoolObserver."""
        reason = next((text for cls, text in _REASONS.items() if isinstance(error, cls)), "other")
        self._dial_failures.labels(reason=reason).inc()

    def reconnected(self) -> None:
        """See PoolObserver."""
        self._reconnects.inc()

    # What is looked at now and then.

    def take(self, pool: ConnectionPool, sample: Sample) -> None:
        """Bring the gauges, and what is too frequent to be told at once, up to date."""
        self._tell()
        self._http_connections.labels(state="busy").set(sample.busy_connections)
        self._http_connections.labels(state="idle").set(sample.idle_connections)
        self._readers.set(sample.readers)
        self._upstream_streams.set(sample.upstream_streams)
        standing, dialling = len(pool.connections), pool.dialling
        self._upstream_connections.labels(state="connected").set(standing)
        self._upstream_connections.labels(state="connecting").set(dialling)
        waiting = max(0, pool.size - standing - dialling)
        self._upstream_connections.labels(state="waiting").set(waiting)
        self._circuit.set(pool.circuit_open)
        self._under_way.set(pool.calls)
        received, sent = pool.bytes_received, pool.bytes_sent
        self._upstream_received.inc(received - self._seen_received)
        self._upstream_sent.inc(sent - self._seen_sent)
        self._seen_received, self._seen_sent = received, sent

    def _tell(self) -> None:
        for tally in self._tallies():
            tally.tell()

    def _tallies(self) -> Iterator[CountTally | DurationTally]:
        yield from (self._received, self._sent)
        yield from self._request_tallies.values()
        yield from self._duration_tallies.values()
        yield from self._call_tallies.values()
        yield from self._call_duration_tallies.values()

    async def render(self) -> bytes:
        """All of it in Prometheus' text format: made in a thread, as there may be much of it."""
        async with self._rendering:
            self._tell()
            return await asyncio.to_thread(self._generate)

    def _generate(self) -> bytes:
        if not self._shared:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


_REASONS: dict[type[ZapError], str] = {
    IdentityMismatch: "identity_mismatch",
    ProtocolError: "handshake",
    ConnectFailed: "unreachable",
}
