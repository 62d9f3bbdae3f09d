"""OpenTelemetry traces, where its SDK is installed and its environment variables ask for them.

`OTEL_TRACES_EXPORTER` (otlp, console, none) or an `OTEL_EXPORTER_OTLP_…ENDPOINT` turns them on; the
SDK reads its other variables (service name, sampler, headers, batches) by itself. Nothing of
OpenTelemetry is imported before.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points, version
from typing import TYPE_CHECKING, Any

from gateway.context import OTHER, RequestContext
from zapcore.codec import Message
from zapcore.errors import ZapError
from zapcore.methods import Method

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_EXPORTERS = {"otlp": "otlp_proto_http"}
"""Entry points of the group `opentelemetry_traces_exporter`, where they are named otherwise."""

_PROTOCOLS = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
_CARRIED = (b"traceparent", b"tracestate")


class TracingError(Exception):
    """Traces are asked for and can't be had; the text says what to install or set."""


def wanted_exporter() -> str | None:
    """The exporter that the environment asks for; None for no traces."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    named = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if named in ("", "none"):
        given = any(os.environ.get(name) for name in _ENDPOINTS)
        return "otlp" if given and not named else None
    return named


def start_tracing() -> Tracing | None:
    """Traces as the environment asks for them; None where it does not, or has no SDK.

    Raises:
        TracingError: the SDK is there, and the exporter that is asked for is not.
    """
    exporter = wanted_exporter()
    if exporter is None:
        return None
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TracingError(
            "the environment asks for OpenTelemetry traces (OTEL_…), and its SDK is not"
            " installed: pip install 'zap-gateway[otel]', or set OTEL_SDK_DISABLED=true"
        ) from error
    about = {"service.version": version("zap-gateway")}
    if "OTEL_SERVICE_NAME" not in os.environ and "service.name=" not in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    ):
        about["service.name"] = "zap-gateway"
    try:
        provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(_load_exporter(exporter)))
    except TracingError:
        raise
    except Exception as error:  # whatever the SDK and its exporters raise about their variables
        raise TracingError(
            f"OpenTelemetry does not take what its variables say: {error}"
        ) from error
    return Tracing(provider)


def _load_exporter(name: str) -> Any:
    if name == "otlp":
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        name = _PROTOCOLS.get(protocol.strip(), "otlp_proto_http")
    found = entry_points(group="opentelemetry_traces_exporter", name=name)
    if not found:
        raise TracingError(
            f"there is no OpenTelemetry exporter {name!r}: install the package that has it"
            " (pip install 'zap-gateway[otel]' has otlp over HTTP), or set"
            " OTEL_TRACES_EXPORTER=none"
        )
    return next(iter(found)).load()()


class Tracing:
    """A span per HTTP request, and below it one per call to the netrunner server.

    Args:
        provider: the SDK's, with its exporter.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace = trace
        self._provider = provider
        self._tracer = provider.get_tracer("zap-gateway", version("zap-gateway"))
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, context: RequestContext, headers: dict[bytes, bytes], scheme: str) -> None:
        """Begin a request's span, below that of its caller where the headers name one (W3C)."""
        carrier = {
            name.decode(): headers[name].decode("latin-1") for name in _CARRIED if name in headers
        }
        context.span = self._tracer.start_span(
            context.verb,
            context=self._propagator.extract(carrier),
            kind=self._trace.SpanKind.SERVER,
            attributes={
                "http.request.method": context.verb,
                "url.path": context.path,
                "url.scheme": scheme,
                "client.address": context.client,
                "zap_gateway.request_id": context.request_id,
            },
        )

    def end(self, context: RequestContext) -> None:
        """End a request's span."""
        span = context.span
        if span is None:
            return
        if context.route != OTHER:
            span.update_name(f"{context.verb} {context.route}")
            span.set_attribute("http.route", context.route)
        span.set_attribute("http.response.status_code", context.status)
        if context.token_name:
            span.set_attribute("enduser.id", context.token_name)
        if context.code:
            span.set_attribute("error.type", context.code)
        if context.status >= 500:
            span.set_status(self._trace.StatusCode.ERROR, context.code)
        span.end()

    @contextmanager
    def call(
        self, method: Method[Message, Message], address: str, context: RequestContext | None
    ) -> Iterator[None]:
        """The span of a call to the netrunner server."""
        parent = None
        if context is not None and context.span is not None:
            parent = self._trace.set_span_in_context(context.span)
        host, _, port = address.rpartition(":")
        span = self._tracer.start_span(
            f"netrunner/{method.name}",
            context=parent,
            kind=self._trace.SpanKind.CLIENT,
            attributes={
                "rpc.system": "zap",
                "rpc.service": "netrunner",
                "rpc.method": method.name,
                "server.address": host.strip("[]"),
                "server.port": int(port),
            },
        )
        try:
            yield
        except ZapError as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(self._trace.StatusCode.ERROR, str(error)[:500])
            raise
        finally:
            span.end()

    def close(self) -> threading.Thread:
        """Send what is left, in a thread that ends with the process at the latest."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        return sending
