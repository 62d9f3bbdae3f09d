"""What the OpenAPI document says of routes: problems, and what they are on the wire."""

from __future__ import annotations

import inspect
from typing import Any

from gateway.errors import (
    ALREADY_EXISTS,
    BODY_TOO_LARGE,
    DEADLINE,
    FORBIDDEN,
    IDENTITY_MISMATCH,
    INTERNAL,
    INVALID,
    KINDS,
    MEDIA_TYPE,
    NOT_BOOTSTRAPPED,
    NOT_FOUND,
    NOT_JSON,
    OUTCOME_UNKNOWN,
    OVERLOADED,
    PROTOCOL_ERROR,
    STOPPING,
    TOO_MANY_REQUESTS,
    TYPE_PREFIX,
    UNAUTHENTICATED,
    UNAVAILABLE,
    UNSUPPORTED,
    UPSTREAM_ERROR,
    Kind,
)
from zapcore.codec import Message
from zapcore.methods import Method

PROVISIONAL_NOTE = (
    "**Provisional:** the reference reserves this RPC's number but does not implement it yet; such"
    " a server answers 501."
)


def problem_responses(kinds: tuple[Kind, ...]) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses for kinds of problems: one per status, an example per code."""
    responses: dict[int | str, dict[str, Any]] = {}
    for kind in sorted(set(kinds), key=KINDS.index):
        response = responses.setdefault(
            kind.status,
            {
                "description": kind.title,
                "content": {
                    MEDIA_TYPE: {
                        "schema": {"$ref": "#/components/schemas/Problem"},
                        "examples": {},
                    }
                },
            },
        )
        if kind.title not in response["description"]:
            response["description"] += f", or: {kind.title[0].lower()}{kind.title[1:]}"
        response["content"][MEDIA_TYPE]["examples"][kind.code] = {"value": _problem_example(kind)}
    return responses


def _problem_example(kind: Kind) -> dict[str, object]:
    return {
        "type": TYPE_PREFIX + kind.code,
        "title": kind.title,
        "status": kind.status,
        "detail": kind.title,
        "code": kind.code,
        "requestId": "4f1c2a7e9b3d4c58",
    }


ALWAYS = (UNAUTHENTICATED, FORBIDDEN, TOO_MANY_REQUESTS, INTERNAL, STOPPING)
UPSTREAM_KINDS = (
    UNSUPPORTED,
    UPSTREAM_ERROR,
    PROTOCOL_ERROR,
    IDENTITY_MISMATCH,
    UNAVAILABLE,
    OVERLOADED,
    DEADLINE,
)


def problems_of(method: Method[Message, Message], names: set[str]) -> tuple[Kind, ...]:
    """What can go wrong at the route of an RPC whose parameters have these names."""
    kinds = [*ALWAYS, *UPSTREAM_KINDS]
    if names:
        kinds.append(INVALID)
    if "body" in names:
        kinds += [NOT_JSON, BODY_TOO_LARGE]
    if not method.read_only:
        kinds.append(OUTCOME_UNKNOWN)
    if method.sub_opcode is not None:
        kinds += [NOT_BOOTSTRAPPED, NOT_FOUND] if names else [NOT_BOOTSTRAPPED]
        kinds += [] if method.read_only else [ALREADY_EXISTS]
    return tuple(kinds)


def zap_extension(method: Method[Message, Message]) -> dict[str, Any]:
    """What a route is on the wire."""
    return {
        "x-zap": {
            "rpc": method.name,
            "opcode": method.opcode,
            "subOpcode": method.sub_opcode,
            "provisional": method.provisional,
            "streaming": method.streaming,
        }
    }


def description_of(method: Method[Message, Message]) -> str:
    """A route's description."""
    asked, answered = inspect.getdoc(method.request), inspect.getdoc(method.response)
    doc = f"Request: {asked}\n\nAnswer: {answered}"
    return f"{doc}\n\n{PROVISIONAL_NOTE}" if method.provisional else doc
