"""Nodes as resources of their own, read from Status."""

from __future__ import annotations

import types
from typing import Annotated, Any, cast

import pydantic_core
from fastapi import FastAPI, Request
from pydantic import Field, create_model
from starlette.responses import Response

from gateway import schema
from gateway.errors import INVALID, NOT_BOOTSTRAPPED, NOT_FOUND
from gateway.routes.documents import ALWAYS, UPSTREAM_KINDS, problem_responses, zap_extension
from gateway.routes.parameters import path_name, timeout_of
from gateway.routes.rpc import belongs_to, json_response, takes_time
from gateway.routes.services import context_of, services_of
from gateway.routes.table import NODES
from zapcore.errors import NotFound
from zapcore.messages import NodeInfo
from zapcore.methods import Rpcs

_NodeName = Annotated[str, path_name("The node's name.")]
_Node = schema.model_of(NodeInfo)
_NodeList = create_model(
    "NodeList",
    __doc__="The nodes of the cluster.",
    nodes=(
        cast("Any", types.GenericAlias)(list, (_Node,)),
        Field(description="The nodes, sorted."),
    ),
)


async def _nodes(request: Request, timeout: float | None) -> dict[str, object]:
    upstream, context = services_of(request).upstream, context_of(request)
    answer = await upstream.call(Rpcs.status, timeout=timeout, context=context)
    status = pydantic_core.from_json(answer)
    cluster = status["clusterInfo"] or {}
    nodes: dict[str, object] = cluster.get("nodeInfos", {})
    return nodes


async def _list_nodes(request: Request, **given: Any) -> Response:
    nodes = await _nodes(request, timeout_of(given, None))
    return json_response(pydantic_core.to_json({"nodes": [nodes[name] for name in sorted(nodes)]}))


async def _get_node(request: Request, name: _NodeName, **given: Any) -> Response:
    nodes = await _nodes(request, timeout_of(given, None))
    if name not in nodes:
        raise NotFound("node not found")
    return json_response(pydantic_core.to_json(nodes[name]))


def add_node_routes(api: FastAPI, longest: float) -> None:
    """Add the list and the single node; ``longest`` seconds may be asked for."""
    shared: dict[str, Any] = {
        "methods": ["GET"],
        "tags": [NODES],
        "response_class": Response,
        "openapi_extra": zap_extension(Rpcs.status),
    }
    kinds = (*ALWAYS, *UPSTREAM_KINDS, INVALID, NOT_BOOTSTRAPPED)
    api.add_api_route(
        "/v1/nodes",
        belongs_to(Rpcs.status, takes_time(_list_nodes, longest)),
        summary="All nodes",
        description="The nodes, as Status tells them.",
        operation_id="listNodes",
        responses={200: {"model": _NodeList}, **problem_responses(kinds)},
        **shared,
    )
    api.add_api_route(
        "/v1/nodes/{name}",
        belongs_to(Rpcs.status, takes_time(_get_node, longest)),
        summary="One node",
        description="The node, as Status tells it.",
        operation_id="getNode",
        responses={200: {"model": _Node}, **problem_responses((*kinds, NOT_FOUND))},
        **shared,
    )
