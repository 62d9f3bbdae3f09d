"""netrunner's old HTTP API, `POST /v1/control/<rpc>`, as its gRPC gateway offered it.

The manners are those of grpc-gateway v2: see protojson for bodies, grpc_status for failures and
results for the stream.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway import protojson
from gateway.durations import parse_grpc_timeout
from gateway.errors import UNAVAILABLE
from gateway.failures import JSON, StreamFailed
from gateway.readers import Terms
from gateway.results import ResultReader, Results
from gateway.routes.control_documents import documents_of
from gateway.routes.control_table import OLD_ROUTES, TIMEOUT_HEADER, OldRoute
from gateway.routes.parameters import SHORTEST_WAIT
from gateway.routes.rpc import Endpoint, belongs_to, json_response
from gateway.routes.services import context_of, grant_of, services_of
from gateway.routes.streams import LiveStream
from gateway.routes.table import COMPATIBILITY, place_of
from gateway.streams import LONGEST_INTERVAL, SHORTEST_INTERVAL, StatusFeed
from zapcore.codec import Message
from zapcore.messages import StreamStatusRequest
from zapcore.methods import Method, Rpcs

_DEFAULT_INTERVAL = 1.0
_LONGEST_STREAM = 365 * 86400.0
"""Seconds; event loops count no longer than so many years."""


# What a request asks for.


async def _message(request: Request, method: Method[Message, Message]) -> Message:
    """The request's message, whatever its Content-Type says.

    Raises:
        RequestValidationError: the body does not tell one.
    """
    try:
        return protojson.read(method.request, await request.body())
    except protojson.Malformed as error:
        place = ("body",) if error.position is None else ("body", error.position)
        malformed = {"type": "json_invalid", "loc": place, "msg": str(error)}
        raise RequestValidationError([malformed]) from error
    except ValidationError as error:
        items = error.errors(include_url=False)
        raise RequestValidationError([_located(item) for item in items]) from error


def _located(item: Any) -> dict[str, Any]:
    """What is wrong with a part of the body, in the words of the other routes."""
    message = "must be a JSON object" if item["type"] == "model_type" else item["msg"]
    return {**item, "loc": ("body", *item["loc"]), "msg": message}


def _timeout(request: Request, default: float | None, longest: float) -> float | None:
    """Seconds that the call may take; ``default`` where the request doesn't say.

    Raises:
        HTTPException: it says so in a form that gRPC does not know.
    """
    given = request.headers.get(TIMEOUT_HEADER)
    if not given:
        return default
    try:
        seconds = parse_grpc_timeout(given)
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    if 0 < seconds < SHORTEST_WAIT:
        return 0.0  # it is over already
    return min(seconds, longest) if seconds else default


# The endpoints.


def _unary(route: OldRoute, longest: float) -> Endpoint:
    method, usual = route.method, place_of(route.method).timeout
    default = usual if usual is None else min(usual, longest)

    def render(method: Method[Message, Message], body: bytes) -> bytes:
        return protojson.write(method.response.decode(body), route.also)

    async def endpoint(request: Request) -> Response:
        timeout = _timeout(request, default, longest)
        message = await _message(request, method)
        upstream = services_of(request).upstream
        answer = await upstream.call(method, message, timeout, context_of(request), render)
        return json_response(answer)

    return endpoint


async def _stream(request: Request) -> Response:
    timeout = _timeout(request, None, _LONGEST_STREAM)
    message = cast("StreamStatusRequest", await _message(request, Rpcs.stream_status))
    services, context, grant = services_of(request), context_of(request), grant_of(request)
    context.rpc, context.outcome = Rpcs.stream_status.name, "ok"
    terms = Terms(
        form=Results(),
        interval=_interval(message.push_interval),
        last_id="",
        is_allowed=lambda: services.access.stands(grant),
    )
    return _ResultStream(request, services.feed, ResultReader(services.feed, terms), timeout)


def _interval(nanoseconds: int) -> float:
    """Seconds, as near to what is asked for as the feed goes; the old server failed for 0."""
    if nanoseconds <= 0:
        return _DEFAULT_INTERVAL
    return min(max(nanoseconds / 1e9, SHORTEST_INTERVAL), LONGEST_INTERVAL)


class _ResultStream(LiveStream):
    """A stream that has a deadline, and a status of its own where it fails before its first line.

    Args:
        timeout: seconds until the client's deadline; None for none.
    """

    def __init__(
        self, request: Request, feed: StatusFeed, reader: ResultReader, timeout: float | None
    ) -> None:
        super().__init__(request, feed, reader, JSON)
        self._results = reader
        self._timeout = timeout

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        expiry = None
        if self._timeout is not None:
            loop = asyncio.get_running_loop()
            expiry = loop.call_later(self._timeout, self._results.expire)
        try:
            await super()._stream(scope, receive, send)
        finally:
            if expiry is not None:
                expiry.cancel()

    async def _begin(self) -> bytes:
        reader = self._results
        while reader.goes_on:
            if data := reader.take():
                return data
            if reader.goes_on:
                await reader.wait()
        if not reader.gone:
            kind, detail = reader.ending(self._reason())
            # Where there was no server, the old API did not even begin a stream.
            raise StreamFailed(kind, detail, as_line=kind is not UNAVAILABLE)
        return b""


def add_control_routes(api: FastAPI, longest: float) -> None:
    """Add the old API; ``longest`` seconds may be asked for."""
    for route in OLD_ROUTES:
        method = route.method
        endpoint = _stream if method.streaming else _unary(route, longest)
        api.add_api_route(
            route.path,
            belongs_to(method, endpoint),
            methods=["POST"],
            tags=[COMPATIBILITY],
            response_class=Response,
            **documents_of(route),
        )
