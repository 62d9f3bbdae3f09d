"""What the OpenAPI document says of netrunner's old HTTP API."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, cast

from pydantic import BaseModel, Field, create_model

from gateway import protojson, schema
from gateway.errors import Kind
from gateway.failures import JSON
from gateway.grpc_status import http_status_of
from gateway.routes.control_table import TIMEOUT_HEADER, OldRoute
from gateway.routes.documents import description_of, problems_of, zap_extension
from gateway.routes.streams import line_schema
from zapcore.codec import Message
from zapcore.methods import METHODS, Method, Rpcs

_TIMEOUT_PARAMETER = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "required": False,
    "description": (
        "The deadline: a whole number and a unit, H (hours), M (minutes), S (seconds),"
        " m (milliseconds), u (microseconds) or n (nanoseconds). 0 stands for none given."
    ),
    "schema": {"type": "string", "pattern": "^([0-9]{1,18}[HMSmun])?$", "examples": ["30S"]},
}


class GrpcStatus(BaseModel):
    """A failure, as gRPC's gateway tells it (google.rpc.Status)."""

    code: Annotated[int, Field(description="gRPC's code.", examples=[2])]
    message: Annotated[str, Field(description="What happened.", examples=["node not found"])]
    details: Annotated[list[object], Field(description="Always empty.", max_length=0)]


_REF = "#/components/schemas/"
_STATE = Rpcs.stream_status.response.__name__
_LINES = {
    "ControlResultLine": line_schema("result", _STATE, "The state."),
    "ControlErrorLine": line_schema("error", GrpcStatus.__name__, "What ended it."),
}
_DESCRIPTION = (
    "As netrunner's old HTTP API had it. The body is JSON whatever its Content-Type says; none is"
    " `{}`; fields that nobody knows are ignored."
)


def _responses(method: Method[Message, Message]) -> dict[int | str, dict[str, Any]]:
    """The responses for what can go wrong, by status."""
    found: dict[int | str, dict[str, Any]] = {}
    status = {"$ref": _REF + GrpcStatus.__name__}
    # A stream that was begun tells its failure as a line, also where that is the first one.
    either = {"description": "A failure.", "anyOf": [status, {"$ref": f"{_REF}ControlErrorLine"}]}
    kinds: tuple[Kind, ...] = problems_of(method, {"body"})
    for kind in kinds:
        response = found.setdefault(
            http_status_of(kind),
            {
                "description": kind.title,
                "content": {JSON: {"schema": either if method.streaming else status}},
            },
        )
        if kind.title not in response["description"]:
            response["description"] += f", or: {kind.title[0].lower()}{kind.title[1:]}"
    return found


def _answer_model(route: OldRoute) -> type[schema.MessageModel]:
    model = schema.model_of(route.method.response)
    if not route.also:
        return model
    by_alias = {each.alias: each for each in model.model_fields.values()}
    fields: dict[str, Any] = {}
    for name, older in route.also.items():
        described = Field(description=f"The same as {name}.", alias=older)
        fields[older] = (by_alias[name].annotation, described)
    name = protojson.PREFIX + route.name + "Response"
    return cast(
        "type[schema.MessageModel]",
        create_model(name, __base__=model, __doc__=model.__doc__, **fields),
    )


def _body(method: Method[Message, Message]) -> dict[str, Any]:
    name = protojson.name_of_model(method.request)
    body = {"schema": {"$ref": f"{_REF}{name}"}}
    return {"requestBody": {"content": {JSON: body}, "required": False}}


def _extension(route: OldRoute) -> dict[str, Any]:
    extension = zap_extension(route.method)
    extension["x-zap"]["compatibility"] = True
    return {**extension, **_body(route.method), "parameters": [_TIMEOUT_PARAMETER]}


def _success(route: OldRoute) -> dict[str, Any]:
    if not route.method.streaming:
        description = inspect.getdoc(route.method.response)
        return {"description": description, "content": {JSON: {}}, "model": _answer_model(route)}
    lines = {
        "description": "One line of the stream.",
        "anyOf": [{"$ref": _REF + name} for name in _LINES],
    }
    return {
        "description": "Lines of JSON, each a state.",
        "content": {JSON: {"schema": lines}},
    }


_OF_STREAMS = (
    " The answer has no end but by `Grpc-Timeout` or a failure, which is its last line. A server"
    " without StreamStatus is polled instead."
)


def documents_of(route: OldRoute) -> dict[str, Any]:
    """What FastAPI is told of a route, but for where it is."""
    how = _DESCRIPTION + (_OF_STREAMS if route.method.streaming else "")
    return {
        "summary": f"{route.method.summary} (old API)",
        "description": f"{how}\n\n{description_of(route.method)}",
        "operation_id": f"control{route.name}",
        "responses": {200: _success(route), **_responses(route.method)},
        "openapi_extra": _extension(route),
    }


def control_schemas() -> dict[str, Any]:
    """The schemas that the old API's operations refer to."""
    schemas: dict[str, Any] = {
        GrpcStatus.__name__: GrpcStatus.model_json_schema(mode="serialization"),
        **_LINES,
    }
    for method in METHODS.values():
        model = protojson.lenient_model_of(method.request)
        found = model.model_json_schema(mode="validation", ref_template=_REF + "{model}")
        schemas |= found.pop("$defs", {})
        schemas[model.__name__] = found
    return schemas
