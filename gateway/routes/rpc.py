"""A FastAPI route per RPC, made from its row in METHODS and its place in the REST table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from copy import copy
from dataclasses import fields, replace
from typing import Annotated, Any, cast

from fastapi import Body, FastAPI, Request
from pydantic import create_model
from starlette.responses import Response

from gateway import schema
from gateway.failures import JSON
from gateway.names import NEW_NAMES
from gateway.routes.documents import (
    description_of,
    problem_responses,
    problems_of,
    zap_extension,
)
from gateway.routes.parameters import (
    path_name,
    timeout_of,
    timeout_parameters,
)
from gateway.routes.services import context_of, services_of
from gateway.routes.table import Place, operation_id, placed
from zapcore.codec import Message
from zapcore.methods import Method

Endpoint = Callable[..., Coroutine[Any, Any, Response]]


def json_response(body: bytes) -> Response:
    """An answer that is JSON already."""
    return Response(body, media_type=JSON)


def _field_docs(cls: type[Message]) -> dict[str, str]:
    return {field.name: field.metadata["doc"] for field in fields(cast("Any", cls))}


def _parameters(
    method: Method[Message, Message], place: Place, longest: float
) -> list[inspect.Parameter]:
    """What FastAPI must take from the request: path, body, time."""
    docs = _field_docs(method.request)
    taken = place.parameters
    found: dict[str, tuple[object, object]] = {
        name: (Annotated[str, path_name(docs[field])], inspect.Parameter.empty)
        for name, field in taken.items()
    }
    if set(docs) - set(taken.values()):
        model = schema.model_of(method.request, frozenset(taken.values()))
        found["body"] = _body(_with_name_limits(method, model))
    for name, annotation in timeout_parameters(longest, place.timeout).items():
        found[name] = (annotation, None)
    return [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
        )
        for name, (annotation, default) in found.items()
    ]


def _with_name_limits(
    method: Method[Message, Message], model: type[schema.MessageModel]
) -> type[schema.MessageModel]:
    """The model, where what the request makes gets a name that the routes' paths can hold."""
    limited = NEW_NAMES.get(method.request.__name__)
    if limited is None:
        return model
    fields: dict[str, Any] = {
        name: (kind, copy(model.model_fields[name])) for name, kind in limited.items()
    }
    return create_model(model.__name__, __base__=model, __doc__=model.__doc__, **fields)


def _body(model: type[schema.MessageModel]) -> tuple[object, object]:
    if any(field.is_required() for field in model.model_fields.values()):
        return Annotated[model, Body()], inspect.Parameter.empty
    return Annotated[model, Body(default_factory=model)], inspect.Parameter.empty


def endpoint_of(
    method: Method[Message, Message], place: Place, parameters: list[inspect.Parameter]
) -> Endpoint:
    """The function behind a route: request in, message out, answer back."""
    taken = place.parameters

    async def endpoint(request: Request, **given: Any) -> Response:
        from_path = {field: given[name] for name, field in taken.items()}
        model = given.get("body")
        if model is None:
            message = method.request(**from_path)
        else:
            message = schema.to_message(model, **from_path)
        timeout = timeout_of(given, place.timeout)
        upstream = services_of(request).upstream
        return json_response(await upstream.call(method, message, timeout, context_of(request)))

    request = inspect.Parameter("request", inspect.Parameter.KEYWORD_ONLY, annotation=Request)
    signature = inspect.Signature([request, *parameters])
    named = cast("Any", endpoint)
    named.__signature__ = signature
    named.__name__ = method.attribute
    return belongs_to(method, endpoint)


def takes_time(endpoint: Endpoint, longest: float) -> Endpoint:
    """The same endpoint, which gets the parameters for the time of its call by keyword."""

    async def timed(**given: Any) -> Response:
        return await endpoint(**given)

    found = inspect.signature(endpoint, eval_str=True).parameters.values()
    named = [each for each in found if each.kind is not inspect.Parameter.VAR_KEYWORD]
    named += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=None)
        for name, kind in timeout_parameters(longest, None).items()
    ]
    cast("Any", timed).__signature__ = inspect.Signature(named)
    return timed


def belongs_to(method: Method[Message, Message], endpoint: Endpoint) -> Endpoint:
    """Note the RPC behind an endpoint, for its problem documents."""
    cast("Any", endpoint).rpc = method.name
    return endpoint


def add_rpc_routes(api: FastAPI, longest: float) -> None:
    """Add every unary RPC.

    Args:
        api: the application.
        longest: seconds that a request may ask for.
    """
    for method, usual in placed():
        if method.streaming:
            continue
        place = (
            usual if usual.timeout is None else replace(usual, timeout=min(usual.timeout, longest))
        )
        parameters = _parameters(method, place, longest)
        names = {parameter.name for parameter in parameters}
        api.add_api_route(
            place.path,
            endpoint_of(method, place, parameters),
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
                **problem_responses(problems_of(method, names)),
            },
            openapi_extra=zap_extension(method),
        )
