"""Counters for Prometheus. Labels are routes, RPCs and codes of this program: all bounded."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from gateway.errors import kind_of
from zapcore.codec import Message
from zapcore.errors import ZapError
from zapcore.methods import METHODS, Method

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What one gateway process counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "zap_gateway_http_requests",
            "HTTP requests answered, by status.",
            ["status"],
            registry=self.registry,
        )
        self._calls = Counter(
            "zap_gateway_zap_calls",
            "Calls to the netrunner server, by RPC and outcome.",
            ["rpc", "outcome"],
            registry=self.registry,
        )
        self.connections = Gauge(
            "zap_gateway_upstream_connections",
            "Connections to the netrunner server that stand.",
            registry=self.registry,
        )
        self.readers = Gauge(
            "zap_gateway_stream_readers",
            "Clients that read the status stream.",
            registry=self.registry,
        )
        self._succeeded = {name: self._calls.labels(rpc=name, outcome="ok") for name in METHODS}
        self._answered: dict[int, Counter] = {}

    def call_succeeded(self, method: Method[Message, Message]) -> None:
        """An RPC was answered."""
        self._succeeded[method.name].inc()

    def call_failed(self, method: Method[Message, Message], error: ZapError) -> None:
        """An RPC failed."""
        self._calls.labels(rpc=method.name, outcome=kind_of(error).code).inc()

    def request_answered(self, status: int) -> None:
        """An HTTP request was answered."""
        counter = self._answered.get(status)
        if counter is None:
            counter = self._answered[status] = self._requests.labels(status=str(status))
        counter.inc()

    def render(self) -> bytes:
        """All counters in Prometheus' text format."""
        return generate_latest(self.registry)
