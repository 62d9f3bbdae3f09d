"""The FastAPI application: every route, and the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from gateway import errors, handlers
from gateway.bodies import JsonRoute
from gateway.changes import ClusterSummary, Event, ServerProcess
from gateway.readers import Restart
from gateway.routes.control import add_control_routes
from gateway.routes.control_documents import control_schemas
from gateway.routes.nodes import add_node_routes
from gateway.routes.operations import add_operation_routes
from gateway.routes.pages import add_pages
from gateway.routes.rpc import add_rpc_routes
from gateway.routes.streams import TICKET_PARAMETER, add_stream_routes, stream_schemas
from gateway.routes.table import COMPATIBILITY, TAGS
from gateway.routes.tickets import add_ticket_route
from gateway.schema import model_of
from gateway.settings import Settings
from zapcore.errors import ZapError
from zapcore.messages import StreamStatusResponse

DESCRIPTION = """\
Drive a [netrunner](https://github.com/luxfi/netrunner) over HTTP: every RPC of its native protocol
is a route here. The gateway speaks that protocol (ZAP) over a post-quantum secure channel (Z-Wing)
and keeps its connections open.

* Names are camelCase; requests may use snake_case too. `bytes` are base64. 64-bit integers are
  numbers in answers; requests may give them as decimal strings.
* Errors are problem documents ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)); `code` is for
  programs.
* A call that only reads is repeated once when its connection breaks. A call that changes something
  is sent at most once: `outcome_unknown` says that nobody knows whether it took effect.
"""


def build_api(settings: Settings, lifespan: Any = None) -> FastAPI:
    """The FastAPI application with all routes; to serve, its state needs a :class:`Services`."""
    api = FastAPI(
        title="zap-gateway",
        version=version("zap-gateway"),
        description=DESCRIPTION,
        openapi_tags=[
            {"name": name, "description": text}
            for name, text in TAGS.items()
            if settings.old_api or name != COMPATIBILITY
        ],
        license_info={"name": "BSD-3-Clause", "identifier": "BSD-3-Clause"},
        openapi_url=None,  # a page of ours: see pages.py
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        max_body_size=settings.max_body,
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False},
        exception_handlers={
            ZapError: handlers.on_zap_error,
            RequestValidationError: handlers.on_invalid_request,
            HTTPException: handlers.on_http_error,
            Exception: handlers.on_defect,
        },
    )
    api.router.route_class = JsonRoute
    add_pages(api, settings.root_path)
    add_operation_routes(api)
    add_ticket_route(api)
    add_stream_routes(api)
    add_node_routes(api, settings.max_timeout)
    add_rpc_routes(api, settings.max_timeout)
    if settings.old_api:
        add_control_routes(api, settings.max_timeout)
    more = control_schemas if settings.old_api else dict
    api.openapi = lambda: openapi_document(api, more)  # type: ignore[method-assign]
    return api


def openapi_document(api: FastAPI, more: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The OpenAPI document, with the schemas that only problems and streams refer to.

    Args:
        api: the application.
        more: makes further schemas, by name.
    """
    if api.openapi_schema is None:
        document = get_openapi(
            title=api.title,
            version=api.version,
            description=api.description,
            routes=api.routes,
            tags=api.openapi_tags,
            license_info=api.license_info,
        )
        schemas = document["components"]["schemas"]
        for model in _ONLY_REFERRED_TO:
            schema = model.model_json_schema(
                ref_template="#/components/schemas/{model}", mode="serialization"
            )
            schema.pop("$defs", None)
            schemas[model.__name__] = schema
        schemas |= {**stream_schemas(), **more()}
        for schema in schemas.values():
            _restore_limits(schema)
        for operations in document["paths"].values():
            for operation in operations.values():
                # FastAPI drops what is null, and null says that there is none.
                operation.get("x-zap", {}).setdefault("subOpcode", None)
                for status, response in operation["responses"].items():
                    names = ["X-Request-ID", *_HEADERS_BY_STATUS.get(status, ())]
                    response["headers"] = {
                        name: {"$ref": f"#/components/headers/{name}"} for name in names
                    }
        document["components"]["headers"] = _HEADERS
        document["components"]["securitySchemes"] = _SECURITY_SCHEMES
        document["security"] = [{}, {"token": []}]
        api.openapi_schema = document
    return api.openapi_schema


_ONLY_REFERRED_TO: tuple[type[BaseModel], ...] = (
    errors.FieldError,
    errors.Problem,
    model_of(StreamStatusResponse),
    ClusterSummary,
    ServerProcess,
    Event,
    Restart,
)
_SECURITY_SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "Where tokens are set up."},
    "ticket": {
        "type": "apiKey",
        "in": "query",
        "name": TICKET_PARAMETER,
        "description": "For streams, where headers can't be sent; see POST /v1/stream-tickets.",
    },
}


_HEADERS = {
    "X-Request-ID": {
        "description": "The request's id, as in the gateway's log: the client's own, or a new one.",
        "required": True,
        "schema": {"type": "string", "pattern": r"^[A-Za-z0-9._-]{1,64}$"},
    },
    "Retry-After": {
        "description": "Seconds after which another try makes sense.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    },
    "WWW-Authenticate": {
        "description": "How to show a token.",
        "required": True,
        "schema": {"type": "string"},
    },
}
_HEADERS_BY_STATUS = {
    "401": ("WWW-Authenticate",),
    "429": ("Retry-After",),
    "503": ("Retry-After",),
}


def _restore_limits(schema: dict[str, Any]) -> None:
    """FastAPI turns limits into floats, which can't hold those of 64-bit integers."""
    for part in schema.get("properties", {}).values():
        if part.get("format") == "uint64":
            part["maximum"] = 2**64 - 1
        elif part.get("format") == "int64":
            part["minimum"], part["maximum"] = -(2**63), 2**63 - 1
