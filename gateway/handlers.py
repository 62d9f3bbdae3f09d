"""What FastAPI calls when a request fails: each failure becomes a problem document."""

from __future__ import annotations

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route

from gateway.context import RequestContext
from gateway.errors import (
    BODY_TOO_LARGE,
    INTERNAL,
    INVALID,
    NO_METHOD,
    NO_ROUTE,
    NOT_JSON,
    OVERLOADED,
    FieldError,
    Kind,
    defect,
    kind_of,
    problem,
)
from gateway.failures import failure
from zapcore.errors import ZapError

_MAX_FIELD, _MAX_DEPTH, _MAX_MESSAGE = 100, 10, 500

_HTTP_ERRORS = {
    400: NOT_JSON,
    404: NO_ROUTE,
    405: NO_METHOD,
    413: BODY_TOO_LARGE,
    503: OVERLOADED,
}


def _rpc_of(request: Request) -> str | None:
    """The RPC of the endpoint that the router chose."""
    return getattr(request.scope.get("endpoint"), "rpc", None)


def respond(
    request: Request,
    kind: Kind,
    detail: str,
    *,
    headers: dict[str, str] | None = None,
    errors: list[FieldError] | None = None,
) -> Response:
    """The answer for what went wrong with a request."""
    context: RequestContext = request.state.context
    document = problem(
        kind,
        detail,
        request_id=context.request_id,
        # The router names an endpoint also where only the path fits, and not the method.
        rpc=None if kind is NO_METHOD else _rpc_of(request),
        errors=errors,
    )
    answer = failure(context, kind, document)
    return Response(
        answer.body, answer.status, {**answer.headers, **(headers or {})}, answer.media_type
    )


async def on_zap_error(request: Request, error: Exception) -> Response:
    """An error of zapcore reached the edge."""
    assert isinstance(error, ZapError)  # noqa: S101 - registered for this class
    return respond(request, kind_of(error), str(error))


async def on_invalid_request(request: Request, error: Exception) -> Response:
    """Validation refused the request."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class
    found = error.errors()
    if any(item["type"] == "json_invalid" for item in found):
        item = found[0]
        reason = item.get("ctx", {}).get("error", item["msg"])
        place = f" (at byte {item['loc'][-1]})" if len(item["loc"]) > 1 else ""
        return respond(request, NOT_JSON, reason + place)
    if isinstance(error.body, bytes):
        detail = "send the body as JSON, with the header Content-Type: application/json"
        return respond(request, NOT_JSON, f"{detail} (curl: --json '{{…}}')")
    errors = [FieldError(field=_field(item["loc"]), message=_message(item)) for item in found[:100]]
    detail = "; ".join(f"{item.field}: {item.message}" for item in errors[:5])
    return respond(request, INVALID, detail, errors=errors)


def _field(location: tuple[str | int, ...]) -> str:
    """Where it is. What stands there may be the client's own words, of any length."""
    return ".".join(str(part)[:_MAX_FIELD] for part in location[:_MAX_DEPTH])


def _message(item: dict[str, object]) -> str:
    if item["type"] == "string_pattern_mismatch":
        return "has a character, or a form, that is not allowed here"
    return str(item["msg"]).removeprefix("Value error, ")[:_MAX_MESSAGE]


async def on_http_error(request: Request, error: Exception) -> Response:
    """The router, or the body limit, refused the request."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class
    kind = _HTTP_ERRORS.get(error.status_code, INVALID)
    headers = dict(error.headers or {})
    if kind is NO_ROUTE:
        detail = f"{request.state.context.path} is no address of this gateway: /docs lists them all"
    elif kind is NO_METHOD:
        detail = f"{request.method} does not work here; /docs tells what does"
        headers = {"allow": ", ".join(sorted(_methods_at(request)))}
    else:
        detail = str(error.detail)
    return respond(request, kind, detail, headers=headers)


def _methods_at(request: Request) -> set[str]:
    """All methods of an address; the router names those of the first route there only."""
    return {
        method
        for route in request.app.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }


async def on_defect(request: Request, error: Exception) -> Response:
    """Something that nobody thought of."""
    del error  # the server logs it
    context: RequestContext = request.state.context
    document = defect(request_id=context.request_id, rpc=_rpc_of(request))
    answer = failure(context, INTERNAL, document)
    return Response(answer.body, answer.status, media_type=answer.media_type)
