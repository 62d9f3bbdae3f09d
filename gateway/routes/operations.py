"""Routes about the gateway itself: liveness, readiness, metrics."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from gateway import metrics
from gateway.errors import MEDIA_TYPE as PROBLEM
from gateway.errors import STOPPING, UNAVAILABLE, Kind, problem, problem_headers, render
from gateway.routes.documents import ALWAYS, problem_responses
from gateway.routes.rpc import json_response
from gateway.routes.services import context_of, services_of
from gateway.routes.table import GATEWAY

_NO_TOKEN: dict[str, Any] = {"security": []}
_ALWAYS_ALL = ConfigDict(json_schema_serialization_defaults_required=True)


class Health(BaseModel):
    """The gateway process lives."""

    model_config = _ALWAYS_ALL

    status: Annotated[str, Field(description="Always `ok`.", examples=["ok"])] = "ok"


class Readiness(BaseModel):
    """A connection to the netrunner server stands."""

    model_config = _ALWAYS_ALL

    status: Annotated[str, Field(description="Always `ready`.", examples=["ready"])] = "ready"
    upstream: Annotated[str, Field(description="The server's address.", examples=["host:9999"])]
    connections: Annotated[int, Field(description="How many connections stand.", examples=[2])]


async def _healthz() -> Response:
    return json_response(Health().model_dump_json().encode())


async def _readyz(request: Request) -> Response:
    services = services_of(request)
    pool = services.upstream.pool
    if services.is_draining():
        return _not_ready(request, STOPPING, "told to stop: it takes new calls for a moment only")
    connections = len(pool.connections)
    if connections:
        ready = Readiness(upstream=pool.address, connections=connections)
        return json_response(ready.model_dump_json().encode())
    failure = pool.last_failure
    reason = f"no connection to {pool.address} yet" if failure is None else str(failure)
    return _not_ready(request, UNAVAILABLE, reason)


def _not_ready(request: Request, kind: Kind, reason: str) -> Response:
    context = context_of(request)
    context.code = kind.code
    document = problem(kind, reason, request_id=context.request_id)
    return Response(render(document), kind.status, problem_headers(kind), PROBLEM)


async def _metrics(request: Request) -> Response:
    services = services_of(request)
    services.sample()
    text = await services.upstream.metrics.render()
    return Response(text, media_type=metrics.MEDIA_TYPE)


def add_operation_routes(api: FastAPI) -> None:
    """Add them."""
    api.add_api_route(
        "/healthz",
        _healthz,
        tags=[GATEWAY],
        summary="Does the gateway live?",
        description="200 as long as the process answers at all, whatever its upstream does.",
        operation_id="healthz",
        openapi_extra=_NO_TOKEN,
        response_class=Response,
        responses={200: {"model": Health}, **problem_responses(ALWAYS)},
    )
    api.add_api_route(
        "/readyz",
        _readyz,
        tags=[GATEWAY],
        summary="Can the gateway reach the netrunner server?",
        description=(
            "200 while a connection stands; 503 with the reason while none does, and once the"
            " gateway was told to stop."
        ),
        operation_id="readyz",
        openapi_extra=_NO_TOKEN,
        response_class=Response,
        responses={200: {"model": Readiness}, **problem_responses((*ALWAYS, UNAVAILABLE))},
    )
    api.add_api_route(
        "/metrics",
        _metrics,
        tags=[GATEWAY],
        summary="Counters for Prometheus",
        description="In Prometheus' text format.",
        operation_id="metrics",
        response_class=Response,
        responses={
            200: {
                "description": "The counters.",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            },
            **problem_responses(ALWAYS),
        },
    )
