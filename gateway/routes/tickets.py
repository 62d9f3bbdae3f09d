"""POST /v1/stream-tickets: leave to open a stream, for clients that can't send headers."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.responses import Response

from gateway.routes.documents import ALWAYS, problem_responses
from gateway.routes.rpc import json_response
from gateway.routes.services import grant_of, services_of
from gateway.routes.table import GATEWAY
from gateway.tickets import LIFETIME

TICKETS_PATH = "/v1/stream-tickets"


class Ticket(BaseModel):
    """Leave to open streams for a short time."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        json_schema_serialization_defaults_required=True,
    )

    ticket: Annotated[
        str,
        Field(
            description="For the query parameter `ticket` of a stream; empty where none is needed."
        ),
    ]
    expires_in: Annotated[
        int, Field(description="Seconds in which it opens streams.", examples=[LIFETIME])
    ] = LIFETIME


async def _issue(request: Request) -> Response:
    token = grant_of(request).token
    text = "" if token is None else services_of(request).tickets.issue(token)
    return json_response(Ticket(ticket=text).model_dump_json(by_alias=True).encode())


def add_ticket_route(api: FastAPI) -> None:
    """Add it."""
    api.add_api_route(
        TICKETS_PATH,
        _issue,
        methods=["POST"],
        tags=[GATEWAY],
        summary="A ticket to open a stream",
        description=(
            "A browser's EventSource can't send a token. Ask here with the token, then open"
            f" the stream with `?ticket=…` within {LIFETIME} s. A ticket opens streams and nothing"
            " else; a stream that is open stays open, until its token is taken away. The scope"
            " `read` is enough."
        ),
        operation_id="newStreamTicket",
        response_class=Response,
        responses={200: {"model": Ticket}, **problem_responses(ALWAYS)},
    )
