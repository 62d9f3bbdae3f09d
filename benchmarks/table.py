"""The rows, as data: what is measured against what, and where the bars are."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Bar(Enum):
    """Which side of a bar is the good one."""

    AT_LEAST = "≥"
    AT_MOST = "≤"

    def holds(self, ratio: float, bar: float) -> bool:
        """Whether a ratio is on it or on its good side."""
        return ratio >= bar if self is Bar.AT_LEAST else ratio <= bar


def added(ours: float, theirs: float) -> float:
    """How much more than theirs, in parts of theirs."""
    return ours / theirs - 1


def itself(ours: float, theirs: float) -> float:
    """Ours, for what has no other side."""
    del theirs
    return ours


@dataclass(frozen=True)
class Row:
    """One row."""

    name: str
    """For the command line."""
    what: str
    against: str
    ours: str
    theirs: str | None
    """Sides, by name; None for a figure that stands by itself."""
    kind: Bar = Bar.AT_LEAST
    bar: float | None = None
    """None for what is told beside, and has no bar."""
    beyond: float | None = None
    compare: Callable[[float, float], float] = operator.truediv


ROWS = (
    Row(
        "status-bare",
        "GET /v1/status through the gateway, 32 clients",
        "a bare ASGI app, same bytes, same uvicorn",
        "gateway",
        "bare",
        Bar.AT_LEAST,
        0.60,
        0.75,
    ),
    Row(
        "status-changing",
        "  the same, every node of every answer new",
        "that bare app",
        "gateway changing",
        "bare",
    ),
    Row(
        "status-shared",
        "  calls to the server for each answer",
        "one client, whose calls nobody shares",
        "bytes 32",
        "bytes 1",
        Bar.AT_MOST,
    ),
    Row(
        "status-one",
        "GET /v1/status through the gateway, one client",
        "that bare app with one client",
        "gateway 1",
        "bare 1",
    ),
    Row(
        "status-model",
        "GET /v1/status through the gateway, 32 clients",
        "a FastAPI route, pydantic model from memory",
        "gateway",
        "model",
        Bar.AT_LEAST,
        1.5,
        2,
    ),
    Row(
        "status-go",
        "GET /v1/status through the gateway, 32 clients",
        "the Go gateway, GOMAXPROCS=1, same server",
        "gateway",
        "go gateway",
        Bar.AT_LEAST,
        0.9,
        1.2,
    ),
    Row(
        "calls-bare",
        "Status over Z-Wing, decoded, 32 in flight",
        "requests of the bare app",
        "calls",
        "bare",
        Bar.AT_LEAST,
        2,
        3,
    ),
    Row("calls-1", "  the same, 1 in flight", "requests of the bare app", "calls 1", "bare"),
    Row("calls-256", "  the same, 256 in flight", "requests of the bare app", "calls 256", "bare"),
    Row(
        "calls-changing",
        "  the same, 32, every node of every answer new",
        "requests of the bare app",
        "calls changing",
        "bare",
    ),
    Row(
        "calls-go",
        "Status over Z-Wing, decoded, 32 in flight",
        "Go's client, GOMAXPROCS=1, same server",
        "calls",
        "go calls",
        Bar.AT_LEAST,
        1,
        2,
    ),
    Row(
        "codec",
        "StatusResponse decoded, JSON given; all texts new",
        "protobuf (upb) and its json_format",
        "codec protobuf new",
        "codec ours new",
        Bar.AT_LEAST,
        3,
        10,
    ),
    Row(
        "codec-one",
        "  the same, one text of one node new",
        "protobuf (upb) and its json_format",
        "codec protobuf one",
        "codec ours one",
    ),
    Row(
        "codec-same",
        "  the same, the same bytes again",
        "protobuf (upb) and its json_format",
        "codec protobuf same",
        "codec ours same",
    ),
    Row(
        "latency",
        "GET /v1/status, one client, median: what is added",
        "the bare app's median",
        "latency gateway",
        "latency bare",
        Bar.AT_MOST,
        2.0,
        1.5,
        added,
    ),
    Row(
        "latency-go",
        "  the Go gateway's, for comparison",
        "the bare app's median",
        "latency go gateway",
        "latency bare",
        Bar.AT_MOST,
        compare=added,
    ),
    Row(
        "body-text",
        "8 MiB posted: a genesis of plain text",
        "ChaCha20-Poly1305 over 8 MiB, twice",
        "body plain",
        "cipher",
        Bar.AT_MOST,
        6,
        3,
    ),
    Row(
        "body-json",
        "8 MiB posted: a genesis that is JSON, escaped",
        "ChaCha20-Poly1305 over 8 MiB, twice",
        "body escaped",
        "cipher",
        Bar.AT_MOST,
        6,
        3,
    ),
    Row(
        "body-octets",
        "8 MiB posted: a peer's message, base64",
        "ChaCha20-Poly1305 over 8 MiB, twice",
        "body octets",
        "cipher",
        Bar.AT_MOST,
        6,
        3,
    ),
    Row(
        "body-answer",
        "an answer of 8 MiB: a status with a large genesis",
        "ChaCha20-Poly1305 over 8 MiB, twice",
        "body answer",
        "cipher",
        Bar.AT_MOST,
        6,
        3,
    ),
    Row(
        "start",
        "start to the first answered GET /v1/status",
        'python -c "import fastapi, uvicorn"',
        "start",
        "imports",
        Bar.AT_MOST,
        2.5,
        1.5,
    ),
    Row(
        "start-healthz",
        "  the same to the first GET /healthz",
        'python -c "import fastapi, uvicorn"',
        "start healthz",
        "imports",
        Bar.AT_MOST,
    ),
    Row(
        "handshake",
        "a handshake, both sides",
        "the sum of its primitives, each timed alone",
        "handshake",
        "primitives",
        Bar.AT_MOST,
        1.25,
        1.1,
    ),
    Row(
        "memory-rest",
        "memory of the gateway at rest, MB",
        "a number of MB",
        "memory rest",
        None,
        Bar.AT_MOST,
        90,
        compare=itself,
    ),
    Row(
        "memory-growth",
        "  its growth over many calls (--calls)",
        "itself at rest",
        "memory after",
        "memory rest",
        Bar.AT_MOST,
        0.05,
        compare=added,
    ),
    Row(
        "memory-leak",
        "  its growth after the first five seconds of calls",
        "itself then",
        "memory after",
        "memory early",
        Bar.AT_MOST,
        compare=added,
    ),
)
