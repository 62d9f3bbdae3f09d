"""GET /v1/status/stream: the cluster's state as Server-Sent Events, or as NDJSON."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from typing import Annotated, TypeAlias, cast

from fastapi import FastAPI, Query, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway import schema
from gateway.errors import INVALID, NOT_BOOTSTRAPPED
from gateway.routes.documents import (
    ALWAYS,
    UPSTREAM_KINDS,
    description_of,
    problem_responses,
    zap_extension,
)
from gateway.routes.parameters import DURATION_SCHEMA, duration, duration_query
from gateway.routes.rpc import belongs_to
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


Encode: TypeAlias = Callable[[Reader, str], AsyncIterator[bytes]]


def as_sse(event: Event, epoch: str) -> bytes:
    """An event of the type `status` or `error`, with an id."""
    kind = "error" if event.failed else "status"
    head = f"event: {kind}\nid: {epoch}-{event.sequence}\ndata: ".encode()
    return head + event.data + b"\n\n"


def as_ndjson(event: Event) -> bytes:
    """A state as the object itself, a failure as `{"error": …}`."""
    return (b'{"error":' + event.data + b"}\n") if event.failed else event.data + b"\n"


class _FeedResponse(StreamingResponse):
    """A streamed answer that takes its place in the feed before it says anything."""

    def __init__(self, feed: StatusFeed, interval: float, encode: Encode, media_type: str) -> None:
        super().__init__((), media_type=media_type)
        self._feed = feed
        self._interval = interval
        self._encode = encode

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream while the reader reads.

        Raises:
            Overloaded: there is no place; nothing was said yet.
        """
        with self._feed.reading(self._interval) as reader:
            self.body_iterator = self._encode(reader, self._feed.epoch)
            await super().__call__(scope, receive, send)


async def _sse(reader: Reader, epoch: str, changes: bool) -> AsyncIterator[bytes]:
    yield f"retry: {_RECONNECT_MILLISECONDS}\n\n".encode()
    async with aclosing(reader.events(changes=changes, keep_alive=KEEP_ALIVE)) as events:
        async for event in events:
            yield b": keep-alive\n\n" if event is None else as_sse(event, epoch)


async def _ndjson(reader: Reader, epoch: str, changes: bool) -> AsyncIterator[bytes]:
    del epoch
    async with aclosing(reader.events(changes=changes, keep_alive=KEEP_ALIVE)) as events:
        async for event in events:
            if event is not None:
                yield as_ndjson(event)


async def _stream_status(
    request: Request, interval: _Interval = None, changes: _Changes = False
) -> Response:
    feed = cast("StatusFeed", request.app.state.feed)
    if interval is None:
        interval = _DEFAULT_INTERVAL
    if NDJSON in request.headers.get("accept", ""):
        return _FeedResponse(feed, interval, partial(_ndjson, changes=changes), NDJSON)
    return _FeedResponse(feed, interval, partial(_sse, changes=changes), SSE)


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
            " A reader that is slow gets the newest state, not a queue.\n\n"
            + description_of(method)
        ),
        operation_id=operation_id(method),
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "The stream.",
                "content": {
                    SSE: {"schema": {"type": "string"}},
                    NDJSON: {"schema": reference},
                },
            },
            **problem_responses((*ALWAYS, *UPSTREAM_KINDS, INVALID, NOT_BOOTSTRAPPED)),
        },
        openapi_extra=zap_extension(method),
    )
