"""GET /v1/status/stream: the cluster's state as Server-Sent Events, or as NDJSON."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, TypeAlias

from fastapi import FastAPI, Query, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway import schema
from gateway.errors import (
    INVALID,
    NOT_BOOTSTRAPPED,
    STOPPING,
    UNAUTHENTICATED,
    problem,
    render,
)
from gateway.routes.documents import (
    ALWAYS,
    UPSTREAM_KINDS,
    description_of,
    problem_responses,
    zap_extension,
)
from gateway.routes.parameters import DURATION_SCHEMA, duration, duration_query
from gateway.routes.rpc import belongs_to
from gateway.routes.services import context_of, grant_of, services_of
from gateway.routes.table import operation_id, place_of
from gateway.streams import (
    KEEP_ALIVE,
    LONGEST_INTERVAL,
    SHORTEST_INTERVAL,
    Event,
    Reader,
    StatusFeed,
)
from zapcore.methods import Rpcs

SSE = "text/event-stream"
NDJSON = "application/x-ndjson"
_RECONNECT_MILLISECONDS = 1000

_DEFAULT_INTERVAL = 1.0
_Interval = Annotated[
    float | None,
    duration(SHORTEST_INTERVAL, LONGEST_INTERVAL),
    DURATION_SCHEMA,
    duration_query(
        "Time between two events, one second where absent.",
        SHORTEST_INTERVAL,
        LONGEST_INTERVAL,
        "1s",
    ),
]
_Changes = Annotated[bool, Query(description="Only send a state that differs from the last one.")]


TICKET_PARAMETER = "ticket"
_Ticket = Annotated[
    str | None,
    Query(description="Instead of a token; see POST /v1/stream-tickets.", max_length=256),
]

Encode: TypeAlias = Callable[[Reader, str], AsyncIterator[bytes]]


def as_sse(event: Event, epoch: str) -> bytes:
    """An event of the type `status` or `error`, with an id."""
    kind = "error" if event.failed else "status"
    head = f"event: {kind}\nid: {epoch}-{event.sequence}\ndata: ".encode()
    return head + event.data + b"\n\n"


def as_ndjson(event: Event) -> bytes:
    """A state as the object itself, a failure as `{"error": …}`."""
    return (b'{"error":' + event.data + b"}\n") if event.failed else event.data + b"\n"


def _farewell(reader: Reader, request_id: str) -> bytes:
    """Why a stream ends, as a problem document."""
    if reader.is_allowed():
        kind, detail = STOPPING, "open the stream again: another process takes it"
    else:
        kind, detail = UNAUTHENTICATED, "the token was taken away"
    return render(problem(kind, detail, request_id=request_id))


class _FeedResponse(StreamingResponse):
    """A streamed answer that takes its place in the feed before it says anything."""

    def __init__(
        self,
        feed: StatusFeed,
        interval: float,
        is_allowed: Callable[[], bool],
        encode: Encode,
        media_type: str,
    ) -> None:
        super().__init__((), media_type=media_type)
        self._feed = feed
        self._interval = interval
        self._is_allowed = is_allowed
        self._encode = encode

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream while the reader reads.

        Raises:
            Overloaded: there is no place; nothing was said yet.
        """
        with self._feed.reading(self._interval, self._is_allowed) as reader:
            self.body_iterator = self._encode(reader, self._feed.epoch)
            await super().__call__(scope, receive, send)


async def _sse(reader: Reader, epoch: str, changes: bool, request_id: str) -> AsyncIterator[bytes]:
    yield f"retry: {_RECONNECT_MILLISECONDS}\n\n".encode()
    async with aclosing(reader.events(changes=changes, keep_alive=KEEP_ALIVE)) as events:
        async for event in events:
            yield b": keep-alive\n\n" if event is None else as_sse(event, epoch)
    yield b"event: end\ndata: " + _farewell(reader, request_id) + b"\n\n"


async def _ndjson(
    reader: Reader, epoch: str, changes: bool, request_id: str
) -> AsyncIterator[bytes]:
    del epoch
    async with aclosing(reader.events(changes=changes, keep_alive=KEEP_ALIVE)) as events:
        async for event in events:
            if event is not None:
                yield as_ndjson(event)
    yield b'{"end":' + _farewell(reader, request_id) + b"}\n"


async def _stream_status(
    request: Request,
    interval: _Interval = None,
    changes: _Changes = False,
    ticket: _Ticket = None,
) -> Response:
    del ticket  # it was looked at where tokens are
    services, context, grant = services_of(request), context_of(request), grant_of(request)
    context.rpc, context.outcome = Rpcs.stream_status.name, "ok"
    as_lines = NDJSON in request.headers.get("accept", "")
    encode = _ndjson if as_lines else _sse
    return _FeedResponse(
        services.feed,
        _DEFAULT_INTERVAL if interval is None else interval,
        lambda: services.access.stands(grant),
        partial(encode, changes=changes, request_id=context.request_id),
        NDJSON if as_lines else SSE,
    )


def _event(kinds: list[str], payload: str, description: str, *, numbered: bool) -> dict[str, Any]:
    """One event as its fields: that is how tools read the schema of a stream of events."""
    data = {"$ref": f"#/components/schemas/{payload}"}
    fields: dict[str, Any] = {
        "event": {"type": "string", "enum": kinds, "description": "The type of the event."},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": data,
            "description": description,
        },
    }
    if numbered:
        fields["id"] = {"type": "string", "description": "The event's number in this stream."}
    return {"type": "object", "properties": fields, "required": list(fields)}


def add_stream_route(api: FastAPI) -> None:
    """Add the stream."""
    method = Rpcs.stream_status
    place = place_of(method)
    model = schema.model_of(method.response)
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    api.add_api_route(
        place.path,
        belongs_to(method, _stream_status),
        methods=[place.verb],
        tags=[place.tag],
        summary=method.summary,
        description=(
            "One event of the type `status` at once, then one per interval. A server without"
            " StreamStatus is polled instead. What goes wrong upstream is an event of the type"
            " `error` with a problem document, and the stream goes on when the server is back."
            " When the gateway stops, or the token is taken away, the last event is of the type"
            " `end` and says why."
            " A reader that is slow gets the newest state, not a queue.\n\n"
            + description_of(method)
        ),
        operation_id=operation_id(method),
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "The stream.",
                "content": {
                    SSE: {
                        "schema": {
                            "description": "One event of the stream.",
                            "anyOf": [
                                _event(["status"], model.__name__, "The state.", numbered=True),
                                _event(["error"], "Problem", "What went wrong.", numbered=True),
                                _event(["end"], "Problem", "Why it ends.", numbered=False),
                            ],
                        }
                    },
                    NDJSON: {"schema": reference},
                },
            },
            **problem_responses((*ALWAYS, *UPSTREAM_KINDS, INVALID, NOT_BOOTSTRAPPED)),
        },
        openapi_extra={
            **zap_extension(method),
            "security": [{}, {"token": []}, {"ticket": []}],
        },
    )
