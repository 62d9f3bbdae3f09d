"""The application: a small ASGI layer in front of FastAPI.

Every request passes :class:`Gateway`: it gets its id, its access is checked, and a plain read is
answered at once. All else goes on to FastAPI, which validates, documents and answers alike.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.types import Message as AsgiMessage
from starlette.types import Receive, Scope, Send

from gateway import errors
from gateway.auth import Access, RequestHeaders
from gateway.metrics import Metrics
from gateway.routes.nodes import add_node_routes
from gateway.routes.operations import add_operation_routes
from gateway.routes.rpc import JSON, add_rpc_routes
from gateway.routes.status_stream import add_stream_route
from gateway.routes.table import TAGS, Place, placed
from gateway.schema import model_of
from gateway.settings import Settings
from gateway.streams import StatusFeed
from gateway.upstream import CallTimes, Upstream
from zapcore.codec import Message
from zapcore.errors import ZapError
from zapcore.messages import StreamStatusResponse
from zapcore.methods import Method
from zapcore.pool import ConnectionPool, PoolLimits
from zapcore.zwing.handshake import Expected
from zapcore.zwing.identity import Identity

logger = logging.getLogger(__name__)

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

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def build_api(max_body: int, lifespan: Any = None) -> FastAPI:
    """The FastAPI application with all routes; its state needs `upstream` and `feed` to serve."""
    api = FastAPI(
        title="zap-gateway",
        version=version("zap-gateway"),
        description=DESCRIPTION,
        openapi_tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        license_info={"name": "BSD-3-Clause", "identifier": "BSD-3-Clause"},
        redoc_url=None,
        redirect_slashes=False,
        max_body_size=max_body,
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False},
        exception_handlers={
            ZapError: errors.on_zap_error,
            RequestValidationError: errors.on_invalid_request,
            HTTPException: errors.on_http_error,
            Exception: errors.on_defect,
        },
    )
    add_operation_routes(api)
    add_stream_route(api)
    add_node_routes(api)
    add_rpc_routes(api)
    api.openapi = lambda: openapi_document(api)  # type: ignore[method-assign]
    return api


def openapi_document(api: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the schemas that only problems and streams refer to."""
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
        for model in (errors.FieldError, errors.Problem, model_of(StreamStatusResponse)):
            schema = model.model_json_schema(
                ref_template="#/components/schemas/{model}", mode="serialization"
            )
            schema.pop("$defs", None)
            schemas[model.__name__] = schema
        for schema in schemas.values():
            _restore_limits(schema)
        for operations in document["paths"].values():
            for operation in operations.values():
                # FastAPI drops what is null, and null says that there is none.
                operation.get("x-zap", {}).setdefault("subOpcode", None)
        document["components"]["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer", "description": "Where tokens are set up."}
        }
        document["security"] = [{}, {"token": []}]
        api.openapi_schema = document
    return api.openapi_schema


def _restore_limits(schema: dict[str, Any]) -> None:
    """FastAPI turns limits into floats, which can't hold those of 64-bit integers."""
    for part in schema.get("properties", {}).values():
        if part.get("format") == "uint64":
            part["maximum"] = 2**64 - 1
        elif part.get("format") == "int64":
            part["minimum"], part["maximum"] = -(2**63), 2**63 - 1


class Gateway:
    """The ASGI application that a server runs.

    Args:
        settings: all settings.
        identity: who the gateway is towards the netrunner server.
        server: whom to accept as that server.
    """

    def __init__(self, settings: Settings, identity: Identity, server: Expected) -> None:
        self.pool = ConnectionPool(
            settings.upstream,
            identity,
            server,
            settings.connections,
            PoolLimits(
                call_timeout=settings.call_timeout,
                acquire_timeout=settings.acquire_timeout,
                connect_timeout=settings.connect_timeout,
                max_calls=settings.max_calls,
            ),
        )
        times = CallTimes(reading=settings.call_timeout, changing=settings.change_timeout)
        self.metrics = Metrics()
        self.upstream = Upstream(self.pool, times, self.metrics)
        self.feed = StatusFeed(self.upstream, settings.max_streams)
        self._access = Access(
            settings.load_tokens(), settings.allowed_host, settings.allowed_origin
        )
        self._max_body = settings.max_body
        self._api = build_api(settings.max_body, self._lifespan)
        self._api.state.upstream = self.upstream
        self._api.state.feed = self.feed
        self._reads = {
            place.path: (method, method.encode_request())
            for method, place in placed()
            if _is_plain_read(method, place)
        }

    @asynccontextmanager
    async def _lifespan(self, api: FastAPI) -> AsyncIterator[None]:
        del api
        async with self.pool:
            yield
            await self.feed.close()

    def drain(self) -> None:
        """Tell the streams to end: the process is about to stop."""
        self.feed.drain()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._api(scope, receive, send)
            return
        request_id, headers, length = _read_headers(scope)
        verb, path = scope["method"], scope["path"]
        origin = headers.origin if self._access.allows(headers.origin) else ""
        send = self._answering(send, request_id, origin)
        refusal = self._access.check(verb, path, scope["scheme"], headers)
        if refusal is not None:
            document = errors.problem(refusal.kind, refusal.detail, request_id=request_id)
            await _send_problem(send, refusal.kind, document)
        elif self._access.is_preflight(verb, headers):
            await _send(send, 204, b"", [*_PREFLIGHT_HEADERS])
        elif length > self._max_body:
            detail = f"{length} bytes; at most {self._max_body} are taken (--max-body)"
            document = errors.problem(errors.BODY_TOO_LARGE, detail, request_id=request_id)
            await _send_problem(send, errors.BODY_TOO_LARGE, document)
        elif verb == "GET" and path in self._reads and not scope["query_string"]:
            await self._read(*self._reads[path], request_id, send)
        else:
            scope.setdefault("state", {})["request_id"] = request_id
            await self._api(scope, receive, send)

    async def _read(
        self, method: Method[Message, Message], payload: bytes, request_id: str, send: Send
    ) -> None:
        """Answer a read without parameters as FastAPI would, without what it costs per call."""
        try:
            body = await self.upstream.exchange(method, payload)
        except ZapError as error:
            document = errors.zap_problem(error, request_id=request_id, rpc=method.name)
            await _send_problem(send, errors.kind_of(error), document)
            return
        except Exception:
            logger.exception("%s failed in the gateway (request %s)", method, request_id)
            document = errors.defect(request_id=request_id, rpc=method.name)
            await _send_problem(send, errors.INTERNAL, document)
            return
        await _send(send, 200, body, [(b"content-type", JSON.encode())])

    def _answering(self, send: Send, request_id: str, origin: str) -> Send:
        """A ``send`` that adds the headers of every answer, and counts it.

        ``origin`` is that of a web page which was let in by name; empty for none.
        """
        common = [*_COMMON_HEADERS, (b"x-request-id", request_id.encode())]
        if origin:
            common += [(b"access-control-allow-origin", origin.encode("latin-1")), *_CORS_HEADERS]

        async def send_with_headers(message: AsgiMessage) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *common]
                self.metrics.request_answered(message["status"])
            await send(message)

        return send_with_headers


_COMMON_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),  # a page in a frame could be made to take a click for ours
)


_CORS_HEADERS = (
    (b"access-control-expose-headers", b"X-Request-ID, Retry-After"),
    (b"vary", b"Origin"),
)
_PREFLIGHT_HEADERS = (
    (b"access-control-allow-methods", b"GET, POST, DELETE"),
    (b"access-control-allow-headers", b"Authorization, Content-Type, X-Request-ID"),
    (b"access-control-max-age", b"600"),
)


def _is_plain_read(method: Method[Message, Message], place: Place) -> bool:
    """Whether a route is nothing but its RPC: nothing to validate, nothing to choose."""
    empty = not dataclasses.fields(cast("Any", method.request))
    return method.read_only and not method.streaming and empty and place.timeout is None


def _read_headers(scope: Scope) -> tuple[str, RequestHeaders, int]:
    """What decides about a request: its id, headers for its access, and the length of its body.

    The id is its own where that is well-formed, else a new one. The length is 0 where none is told:
    then FastAPI counts.
    """
    found: dict[bytes, bytes] = dict(scope["headers"])
    given = found.get(b"x-request-id", b"")
    request_id = given.decode() if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
    texts = (found.get(name, b"").decode("latin-1") for name in _DECIDING_HEADERS)
    length = found.get(b"content-length", b"")
    return request_id, RequestHeaders(*texts), int(length) if length.isdigit() else 0


_DECIDING_HEADERS = (b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"authorization")


async def _send(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _send_problem(send: Send, kind: errors.Kind, document: errors.Problem) -> None:
    headers = [(b"content-type", errors.MEDIA_TYPE.encode())]
    headers += [
        (name.encode(), value.encode()) for name, value in errors.problem_headers(kind).items()
    ]
    await _send(send, kind.status, errors.render(document), headers)
