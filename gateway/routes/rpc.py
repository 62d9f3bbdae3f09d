"""A FastAPI route per RPC, made from its row in METHODS and its place in the REST table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from dataclasses import fields
from typing import Annotated, Any, cast

from fastapi import Body, FastAPI, Request
from starlette.responses import Response

from gateway import schema
from gateway.routes.documents import (
    description_of,
    problem_responses,
    problems_of,
    zap_extension,
)
from gateway.routes.parameters import DURATION_SCHEMA, duration, duration_query, path_name
from gateway.routes.table import Place, operation_id, placed
from gateway.upstream import Upstream
from zapcore.codec import Message
from zapcore.methods import Method

JSON = "application/json"

_SHORTEST_WAIT, _LONGEST_WAIT = 0.001, 3600.0

Endpoint = Callable[..., Coroutine[Any, Any, Response]]


def upstream_of(request: Request) -> Upstream:
    """The upstream that the running gateway put into the application's state."""
    return cast("Upstream", request.app.state.upstream)


def json_response(body: bytes) -> Response:
    """An answer that is JSON already."""
    return Response(body, media_type=JSON)


def _field_docs(cls: type[Message]) -> dict[str, str]:
    return {field.name: field.metadata["doc"] for field in fields(cast("Any", cls))}


def _parameters(method: Method[Message, Message], place: Place) -> list[inspect.Parameter]:
    """What FastAPI must take from the request: path, body, time."""
    docs = _field_docs(method.request)
    taken = place.parameters
    found: dict[str, tuple[object, object]] = {
        name: (Annotated[str, path_name(docs[field])], inspect.Parameter.empty)
        for name, field in taken.items()
    }
    if set(docs) - set(taken.values()):
        found["body"] = _body(schema.model_of(method.request, frozenset(taken.values())))
    if place.timeout is not None:
        found["timeout"] = (_timeout(place.timeout), None)
    return [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
        )
        for name, (annotation, default) in found.items()
    ]


def _timeout(default: float) -> object:
    text = f"How long to wait, {default:g} s where absent."
    return Annotated[
        float | None,
        duration(_SHORTEST_WAIT, _LONGEST_WAIT),
        DURATION_SCHEMA,
        duration_query(text, _SHORTEST_WAIT, _LONGEST_WAIT, f"{default:g}s"),
    ]


def _body(model: type[schema.MessageModel]) -> tuple[object, object]:
    if any(field.is_required() for field in model.model_fields.values()):
        return Annotated[model, Body()], inspect.Parameter.empty
    return Annotated[model, Body(default_factory=model)], inspect.Parameter.empty


def endpoint_of(method: Method[Message, Message], place: Place) -> Endpoint:
    """The function behind a route: request in, message out, answer back."""
    taken = place.parameters

    async def endpoint(request: Request, **given: Any) -> Response:
        from_path = {field: given[name] for name, field in taken.items()}
        model = given.get("body")
        if model is None:
            message = method.request(**from_path)
        else:
            message = schema.to_message(model, **from_path)
        timeout = given.get("timeout") or place.timeout
        return json_response(await upstream_of(request).call(method, message, timeout))

    request = inspect.Parameter("request", inspect.Parameter.KEYWORD_ONLY, annotation=Request)
    signature = inspect.Signature([request, *_parameters(method, place)])
    named = cast("Any", endpoint)
    named.__signature__ = signature
    named.__name__ = method.attribute
    return belongs_to(method, endpoint)


def belongs_to(method: Method[Message, Message], endpoint: Endpoint) -> Endpoint:
    """Note the RPC behind an endpoint, for its problem documents."""
    cast("Any", endpoint).rpc = method.name
    return endpoint


def add_rpc_routes(api: FastAPI) -> None:
    """Add every unary RPC."""
    for method, place in placed():
        if method.streaming:
            continue
        names = [parameter.name for parameter in _parameters(method, place)]
        api.add_api_route(
            place.path,
            endpoint_of(method, place),
            methods=[place.verb],
            tags=[place.tag],
            summary=method.summary,
            description=description_of(method),
            operation_id=operation_id(method),
            response_class=Response,
            responses={
                200: {
                    "description": inspect.getdoc(method.response),
                    "content": {JSON: {}},
                    "model": schema.model_of(method.response),
                },
                **problem_responses(problems_of(method, set(names))),
            },
            openapi_extra=zap_extension(method),
        )
