"""The live streams: the cluster's state, and what changed, as Server-Sent Events or NDJSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, cast

from fastapi import FastAPI, Header, Query, Request
from pydantic import AfterValidator, WithJsonSchema
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway import schema
from gateway.changes import EVENT_TYPES
from gateway.errors import INVALID, OVERLOADED, STOPPING, UNAUTHENTICATED, Problem, problem
from gateway.readers import EventReader, Lines, Reader, ServerSentEvents, StatusReader, Terms
from gateway.routes.documents import (
    ALWAYS,
    description_of,
    problem_responses,
    zap_extension,
)
from gateway.routes.parameters import DURATION_SCHEMA, duration, duration_query
from gateway.routes.rpc import belongs_to
from gateway.routes.services import context_of, grant_of, services_of
from gateway.routes.table import CLUSTER, operation_id, place_of
from gateway.streams import LONGEST_INTERVAL, SHORTEST_INTERVAL, StatusFeed
from zapcore.methods import Rpcs

SSE = "text/event-stream"
NDJSON = "application/x-ndjson"
EVENTS_PATH = "/v1/events/stream"
STREAM_PATHS = frozenset({place_of(Rpcs.stream_status).path, EVENTS_PATH})
TICKET_PARAMETER = "ticket"
PROMPT = "zap_gateway.prompt"
"""The ASGI extension of a server that can be asked to keep as little as it can unsent."""

_DEFAULT_INTERVAL = 1.0
_LONGEST_TICKET = 256
_FLUSH = {"type": "http.response.body", "body": b"", "more_body": True}


# What a request may ask for.

_Interval = Annotated[
    float | None,
    duration(SHORTEST_INTERVAL, LONGEST_INTERVAL),
    DURATION_SCHEMA,
    duration_query(
        "Time between two states, one second where absent.",
        SHORTEST_INTERVAL,
        LONGEST_INTERVAL,
        "1s",
    ),
]
_Changes = Annotated[bool, Query(description="Only send a state that differs from the last one.")]
_Status = Annotated[bool, Query(description="Send states too, as the status stream does.")]
# What is absent from a request is not null there: the documents speak of the texts alone.
_Ticket = Annotated[
    Annotated[str | None, WithJsonSchema({"type": "string", "maxLength": _LONGEST_TICKET})],
    Query(
        description="Instead of a token; see POST /v1/stream-tickets.", max_length=_LONGEST_TICKET
    ),
]
_LastEventId = Annotated[
    Annotated[str | None, WithJsonSchema({"type": "string", "examples": ["5f0c91d2-4242-17"]})],
    Header(
        alias="Last-Event-ID",
        description="The id of the last event that was read, to go on behind it.",
    ),
]


def _known_types(text: str) -> str:
    unknown = [name for name in text.split(",") if name not in EVENT_TYPES]
    if unknown:
        raise ValueError(f"knows no {unknown[0][:50]!r}; there are {', '.join(EVENT_TYPES)}")
    return text


_ONE_TYPE = "|".join(name.replace(".", r"\.") for name in EVENT_TYPES)
_Types = Annotated[
    Annotated[
        Annotated[str, AfterValidator(_known_types)] | None,
        WithJsonSchema(
            {
                "type": "string",
                "pattern": rf"^({_ONE_TYPE})(,({_ONE_TYPE}))*$",
                "examples": ["node.paused,node.resumed"],
            }
        ),
    ],
    Query(description="Types of events to send, separated by commas; all where absent."),
]


# The answer.


class LiveStream(Response):
    """A streamed answer. FastAPI only checks the request; then the gateway goes on with it."""

    def __init__(self, request: Request, feed: StatusFeed, reader: Reader, media_type: str) -> None:
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        self._context = context_of(request)
        self._feed = feed
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say nothing yet."""
        del scope, receive, send
        self._context.continuation = self._stream

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream while the client reads.

        Raises:
            Overloaded: there is no place; nothing was said yet.
            StreamFailed: it failed before anything was said.
        """
        with self._feed.reading(self._reader):
            watching = asyncio.get_running_loop().create_task(_watch(receive, self._reader))
            try:
                data = await self._begin()
                start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                await send(start)
                await self._tell(data, send, _promptness(scope))
            finally:
                watching.cancel()
                await asyncio.wait((watching,))

    async def _begin(self) -> bytes:
        """What the stream begins with."""
        return self._reader.opening()

    async def _tell(self, data: bytes, send: Send, unsent: Callable[[], int]) -> None:
        reader = self._reader
        while reader.goes_on:
            if data:
                await send({"type": "http.response.body", "body": data, "more_body": True})
                if unsent():
                    # Only when the client took that is it seen what is newest.
                    await send(_FLUSH)
            else:
                await reader.wait()
            data = reader.take()
        if not reader.gone:
            end = reader.farewell(self._reason())
            await send({"type": "http.response.body", "body": end, "more_body": False})

    def _reason(self) -> Problem:
        """Why the stream ends."""
        if self._reader.is_allowed():
            kind, detail = STOPPING, "open the stream again: another process takes it"
        else:
            kind, detail = UNAUTHENTICATED, "the token was taken away"
        return problem(kind, detail, request_id=self._context.request_id)


def _promptness(scope: Scope) -> Callable[[], int]:
    """Have the server keep little unsent; tells how many bytes are, or that it can't be known."""
    be_prompt = scope.get("extensions", {}).get(PROMPT)
    return (lambda: 1) if be_prompt is None else cast("Callable[[], int]", be_prompt())


async def _watch(receive: Receive, reader: Reader) -> None:
    """See the client leave."""
    while (await receive())["type"] != "http.disconnect":
        pass
    reader.leave()


def _terms(request: Request, interval: float | None, last_event_id: str | None) -> Terms:
    """On what terms the request asks to read."""
    services, grant = services_of(request), grant_of(request)
    return Terms(
        form=Lines() if _wants_lines(request) else ServerSentEvents(),
        interval=_DEFAULT_INTERVAL if interval is None else interval,
        last_id=last_event_id or "",
        is_allowed=lambda: services.access.stands(grant),
    )


def _wants_lines(request: Request) -> bool:
    return NDJSON in request.headers.get("accept", "")


def _answer(request: Request, reader: Reader) -> Response:
    """Begin a stream."""
    context = context_of(request)
    context.rpc, context.outcome = Rpcs.stream_status.name, "ok"
    media_type = NDJSON if _wants_lines(request) else SSE
    return LiveStream(request, services_of(request).feed, reader, media_type)


async def _stream_status(
    request: Request,
    interval: _Interval = None,
    changes: _Changes = False,
    ticket: _Ticket = None,
    last_event_id: _LastEventId = None,
) -> Response:
    del ticket  # it was looked at where tokens are
    terms = _terms(request, interval, last_event_id)
    return _answer(request, StatusReader(services_of(request).feed, terms, changes=changes))


async def _stream_events(
    request: Request,
    types: _Types = None,
    interval: _Interval = None,
    status: _Status = False,
    ticket: _Ticket = None,
    last_event_id: _LastEventId = None,
) -> Response:
    del ticket
    terms = _terms(request, interval, last_event_id)
    wanted = None if types is None else frozenset(types.split(","))
    feed = services_of(request).feed
    return _answer(request, EventReader(feed, terms, types=wanted, status=status))


# The documents.


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _event(
    kinds: tuple[str, ...], payload: str, description: str, *, numbered: bool
) -> dict[str, Any]:
    """One event as its fields: that is how tools read the schema of a stream of events."""
    choice = {"enum": list(kinds)} if len(kinds) > 1 else {"const": kinds[0]}
    fields: dict[str, Any] = {
        "event": {"type": "string", **choice, "description": "The type of the event."},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": _reference(payload),
            "description": description,
        },
    }
    if numbered:
        fields["id"] = {"type": "string", "description": "The event's place in the stream."}
    return {
        "type": "object",
        "description": f"An event of a stream. {description}",
        "properties": fields,
        "required": list(fields),
    }


def line_schema(kind: str, payload: str, description: str) -> dict[str, Any]:
    """A line that is not of the kind that the stream is of, under the name of its own."""
    item = {**_reference(payload), "description": description}
    return {
        "type": "object",
        "description": f"A line of a stream. {description}",
        "properties": {kind: item},
        "required": [kind],
    }


_STATUS = schema.model_of(Rpcs.stream_status.response).__name__
_NOTICES = (
    ("Error", "Problem", "What went wrong upstream.", True),
    ("Restart", "Restart", "Another process answers.", False),
    ("End", "Problem", "Why the stream ends.", False),
)


def stream_schemas() -> dict[str, Any]:
    """The schemas that the streams' answers refer to, by name: generators call their types so."""
    schemas = {
        "ChangeEvent": _event(EVENT_TYPES, "Event", "The change.", numbered=True),
        "StatusEvent": _event(("status",), _STATUS, "The state.", numbered=True),
        "StatusLine": line_schema("status", _STATUS, "The state."),
    }
    for name, payload, text, numbered in _NOTICES:
        schemas[f"{name}Event"] = _event((name.lower(),), payload, text, numbered=numbered)
        schemas[f"{name}Line"] = line_schema(name.lower(), payload, text)
    return schemas


def _stream_response(events: tuple[str, ...], lines: tuple[str, ...]) -> dict[int | str, Any]:
    def one_of(what: str, kinds: tuple[str, ...]) -> dict[str, Any]:
        names = (*kinds, *(f"{name}{what.capitalize()}" for name, *_ in _NOTICES))
        any_of = [_reference(name) for name in names]
        return {"schema": {"description": f"One {what} of the stream.", "anyOf": any_of}}

    return {
        200: {
            "description": "The stream.",
            "content": {
                SSE: one_of("event", events),
                NDJSON: one_of("line", lines),
            },
        },
        **problem_responses((*ALWAYS, INVALID, OVERLOADED)),
    }


_COMMON = (
    " What goes wrong upstream is an event of the type `error` with a problem document, and the"
    " stream goes on when the server is back. When the gateway stops, or the token is taken away,"
    " the last event is of the type `end` and says why.\n\n"
    "All readers share one stream of the server's. With `Last-Event-ID` a reader goes on where it"
    " was; an id is `PROCESS-PID-NUMBER`: the gateway's process, the netrunner's, and a number"
    " that grows."
)
_SECURITY: dict[str, Any] = {"security": [{}, {"token": []}, {"ticket": []}]}


def add_stream_routes(api: FastAPI) -> None:
    """Add the streams."""
    method = Rpcs.stream_status
    place = place_of(method)
    api.add_api_route(
        place.path,
        belongs_to(method, _stream_status),
        methods=[place.verb],
        tags=[place.tag],
        summary=method.summary,
        description=(
            "One event of the type `status` at once, then one per interval; `clusterInfo` is null"
            " while there is no cluster. A server without StreamStatus is polled instead. A reader"
            " that is slow gets the newest state, not a queue. When another process of the gateway"
            " or of the netrunner answers than the one that the reader heard last, an event of the"
            " type `restart` says so first." + _COMMON + "\n\n" + description_of(method)
        ),
        operation_id=operation_id(method),
        response_class=Response,
        responses=_stream_response(("StatusEvent",), (_STATUS,)),
        openapi_extra={**zap_extension(method), **_SECURITY},
    )
    api.add_api_route(
        EVENTS_PATH,
        belongs_to(method, _stream_events),
        methods=["GET"],
        tags=[CLUSTER],
        summary="What changes, as it changes",
        description=(
            "One event per change, of the type that it has, made from successive states: one that"
            " comes and goes between two of them is not seen. Events begin now. With"
            " `Last-Event-ID` they begin behind that one: the last 1,000 are kept, and an event of"
            " the type `gap`, which comes whatever `types` says, tells where some are missing."
            " With `status=true` the events of the status stream come in between." + _COMMON
        ),
        operation_id="streamEvents",
        response_class=Response,
        responses=_stream_response(("ChangeEvent", "StatusEvent"), ("Event", "StatusLine")),
        openapi_extra={**zap_extension(method), **_SECURITY},
    )
