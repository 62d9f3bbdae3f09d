"""gRPC's status codes: what netrunner's old HTTP API tells failures with.

The codes, and the HTTP status that goes with each, are those of google/rpc/code.proto, as
grpc-gateway writes them.
"""

from __future__ import annotations

from enum import IntEnum

import pydantic_core

from gateway import errors
from gateway.errors import Kind


class Code(IntEnum):
    """The codes that the gateway uses."""

    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


HTTP_STATUS = {
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}

# UNAVAILABLE and RESOURCE_EXHAUSTED invite to try again: neither stands for a change that may have
# taken effect, nor for what fails every time.
_CODES = {
    errors.NOT_JSON: Code.INVALID_ARGUMENT,
    errors.NOT_HTTP: Code.INVALID_ARGUMENT,
    errors.UNAUTHENTICATED: Code.UNAUTHENTICATED,
    errors.FORBIDDEN: Code.PERMISSION_DENIED,
    errors.NO_ROUTE: Code.NOT_FOUND,
    errors.NOT_FOUND: Code.UNKNOWN,
    errors.NO_METHOD: Code.UNIMPLEMENTED,
    errors.NOT_BOOTSTRAPPED: Code.UNKNOWN,
    errors.ALREADY_EXISTS: Code.UNKNOWN,
    errors.REQUEST_TIMEOUT: Code.DEADLINE_EXCEEDED,
    errors.BODY_TOO_LARGE: Code.INVALID_ARGUMENT,
    errors.INVALID: Code.INVALID_ARGUMENT,
    errors.TOO_MANY_REQUESTS: Code.RESOURCE_EXHAUSTED,
    errors.HEADER_TOO_LARGE: Code.INVALID_ARGUMENT,
    errors.INTERNAL: Code.INTERNAL,
    errors.UNSUPPORTED: Code.UNIMPLEMENTED,
    errors.UPSTREAM_ERROR: Code.UNKNOWN,
    errors.PROTOCOL_ERROR: Code.INTERNAL,
    errors.IDENTITY_MISMATCH: Code.INTERNAL,
    errors.OUTCOME_UNKNOWN: Code.UNKNOWN,
    errors.UNAVAILABLE: Code.UNAVAILABLE,
    errors.OVERLOADED: Code.UNAVAILABLE,
    errors.STOPPING: Code.UNAVAILABLE,
    errors.DEADLINE: Code.DEADLINE_EXCEEDED,
}

# grpc-gateway's own words, where no server has said anything.
_WORDS = {errors.NO_ROUTE: "Not Found", errors.NO_METHOD: "Method Not Allowed"}


def code_of(kind: Kind) -> Code:
    """The code for a kind of problem. Whatever text a server answers with has UNKNOWN."""
    return _CODES[kind]


def http_status_of(kind: Kind) -> int:
    """The HTTP status that goes with its code."""
    return HTTP_STATUS[code_of(kind)]


def document(kind: Kind, detail: str) -> dict[str, object]:
    """A failure as a google.rpc.Status in JSON."""
    return {"code": int(code_of(kind)), "message": _WORDS.get(kind, detail), "details": []}


def render(kind: Kind, detail: str) -> bytes:
    """A failure's JSON."""
    return pydantic_core.to_json(document(kind, detail))


def render_chunk(kind: Kind, detail: str) -> bytes:
    """A failure as the last line of a stream."""
    return pydantic_core.to_json({"error": document(kind, detail)}) + b"\n"
