"""Problem documents (RFC 9457): one table from what happened to status and code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from zapcore import errors as zap

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:zap-gateway:problem:"

_MAX_DETAIL = 2000
_RETRY_AFTER = 1


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the table of errors."""

    status: int
    code: str
    title: str
    retry_after: int | None = None
    """Seconds, where trying again makes sense."""


NOT_JSON = Kind(400, "invalid_request", "The body is not JSON")
NOT_HTTP = Kind(400, "invalid_request", "The request is not HTTP")
UNAUTHENTICATED = Kind(401, "unauthenticated", "A valid token is needed")
FORBIDDEN = Kind(403, "forbidden", "This is not allowed")
NO_ROUTE = Kind(404, "not_found", "There is nothing at this address")
NOT_FOUND = Kind(404, "not_found", "What the request names does not exist")
NO_METHOD = Kind(405, "method_not_allowed", "This address does not know that method")
NOT_BOOTSTRAPPED = Kind(409, "not_bootstrapped", "There is no running cluster")
ALREADY_EXISTS = Kind(409, "already_exists", "It is there already")
REQUEST_TIMEOUT = Kind(408, "request_timeout", "The request did not arrive in time")
BODY_TOO_LARGE = Kind(413, "body_too_large", "The request is too large")
INVALID = Kind(422, "invalid_request", "The request is malformed")
TOO_MANY_REQUESTS = Kind(
    429, "too_many_requests", "This token has too much under way", _RETRY_AFTER
)
HEADER_TOO_LARGE = Kind(431, "header_too_large", "The request's headers are too large")
INTERNAL = Kind(500, "internal_error", "The gateway has a defect")
UNSUPPORTED = Kind(501, "unsupported_by_server", "The netrunner server does not implement this")
UPSTREAM_ERROR = Kind(502, "upstream_error", "The netrunner server answered with an error")
PROTOCOL_ERROR = Kind(502, "upstream_protocol_error", "The netrunner server broke the protocol")
IDENTITY_MISMATCH = Kind(
    502, "upstream_identity_mismatch", "The netrunner server is not the expected one"
)
OUTCOME_UNKNOWN = Kind(502, "outcome_unknown", "Whether the change took effect is unknown")
UNAVAILABLE = Kind(
    503, "upstream_unavailable", "The netrunner server can't be reached", _RETRY_AFTER
)
OVERLOADED = Kind(503, "overloaded", "Too many calls are under way", _RETRY_AFTER)
STOPPING = Kind(503, "shutting_down", "The gateway is about to stop", _RETRY_AFTER)
DEADLINE = Kind(504, "deadline_exceeded", "The netrunner server did not answer in time")

KINDS: tuple[Kind, ...] = tuple(value for value in globals().values() if isinstance(value, Kind))

# Looked up along an error's class hierarchy: the most specific row counts.
_ZAP_ERRORS: dict[type[zap.ZapError], Kind] = {
    zap.NotFound: NOT_FOUND,
    zap.NotBootstrapped: NOT_BOOTSTRAPPED,
    zap.AlreadyExists: ALREADY_EXISTS,
    zap.UnsupportedByServer: UNSUPPORTED,
    zap.RemoteError: UPSTREAM_ERROR,
    zap.EncodeError: INVALID,
    zap.DecodeError: PROTOCOL_ERROR,
    zap.ProtocolError: PROTOCOL_ERROR,
    zap.IdentityMismatch: IDENTITY_MISMATCH,
    zap.OutcomeUnknown: OUTCOME_UNKNOWN,
    zap.MessageTooLarge: BODY_TOO_LARGE,
    zap.Overloaded: OVERLOADED,
    zap.DeadlineExceeded: DEADLINE,
    zap.TransportError: UNAVAILABLE,
    zap.ZapError: INTERNAL,
}


def kind_of(error: zap.ZapError) -> Kind:
    """The row for an error of zapcore."""
    if isinstance(error, zap.ConnectionLost) and isinstance(error.__cause__, zap.ProtocolError):
        return PROTOCOL_ERROR
    return next(_ZAP_ERRORS[cls] for cls in type(error).__mro__ if cls in _ZAP_ERRORS)


_BY_CODE = {kind.code: kind for kind in (*KINDS, *_ZAP_ERRORS.values())}


def kind_named(code: str) -> Kind:
    """The row with a code; where several have it, the one for what a call can fail with."""
    return _BY_CODE[code]


class FieldError(BaseModel):
    """What is wrong with one part of a request."""

    field: Annotated[str, Field(description="Where it is.", examples=["body.numNodes"])]
    message: Annotated[str, Field(description="What is wrong.", examples=["Field required"])]


def _left_out_rather_than_null(schema: dict[str, Any]) -> None:
    """Let a model's JSON schema say so of what may be None."""
    for part in schema["properties"].values():
        if "anyOf" in part:
            kind, _ = part.pop("anyOf")
            del part["default"]
            part.update(kind)


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        json_schema_extra=_left_out_rather_than_null,
    )

    type: Annotated[
        str,
        Field(description="The code as a URI.", examples=[f"{TYPE_PREFIX}not_found"]),
    ]
    title: Annotated[str, Field(description="What happened, the same for every such problem.")]
    status: Annotated[int, Field(description="The HTTP status.", examples=[404])]
    detail: Annotated[
        str, Field(description="What happened this time.", examples=["node not found"])
    ]
    code: Annotated[str, Field(description="What happened, for programs.", examples=["not_found"])]
    rpc: Annotated[
        str | None, Field(description="The netrunner RPC behind the route.", examples=["PauseNode"])
    ] = None
    request_id: Annotated[
        str, Field(description="The request's id, as in the X-Request-ID header.")
    ]
    errors: Annotated[
        list[FieldError] | None, Field(description="Each part of the request that is wrong.")
    ] = None


def problem(
    kind: Kind,
    detail: str,
    *,
    request_id: str = "",
    rpc: str | None = None,
    errors: list[FieldError] | None = None,
) -> Problem:
    """A problem document."""
    return Problem(
        type=TYPE_PREFIX + kind.code,
        title=kind.title,
        status=kind.status,
        detail=detail if len(detail) <= _MAX_DETAIL else detail[:_MAX_DETAIL] + "…",
        code=kind.code,
        rpc=rpc,
        request_id=request_id,
        errors=errors,
    )


def render(document: Problem) -> bytes:
    """A problem document's JSON; what does not apply is left out."""
    return pydantic_core.to_json(document, by_alias=True, exclude_none=True)


def problem_headers(kind: Kind) -> dict[str, str]:
    """The headers that go with a kind of problem."""
    headers = {} if kind.retry_after is None else {"retry-after": str(kind.retry_after)}
    if kind is UNAUTHENTICATED:
        headers["www-authenticate"] = 'Bearer realm="zap-gateway"'
    return headers


def zap_problem(error: zap.ZapError, *, request_id: str, rpc: str | None) -> Problem:
    """The document for an error of zapcore."""
    return problem(kind_of(error), str(error), request_id=request_id, rpc=rpc)


def defect(*, request_id: str, rpc: str | None) -> Problem:
    """The document for what nobody thought of; the log has the rest."""
    detail = f"the gateway's log tells more of the request {request_id}"
    return problem(INTERNAL, detail, request_id=request_id, rpc=rpc)
