"""RequestContext: what is known of one request while it is answered."""

from __future__ import annotations

import random
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import Span
    from starlette.types import ASGIApp

OTHER = "other"
"""The route of what is no address of the gateway: clients must not be able to make up labels."""


def new_request_id() -> str:
    """16 hexadecimal digits. They tell requests apart, and are no secret."""
    return f"{random.getrandbits(64):016x}"


class RequestContext:
    """What the log, the metrics and the traces tell of a request; filled in on its way.

    Args:
        request_id: as in the X-Request-ID header.
        verb: the method.
        path: without the root path and the query, which may hold a ticket.
        client: the client's address.
    """

    __slots__ = (
        "client",
        "code",
        "continuation",
        "old_api",
        "outcome",
        "path",
        "received",
        "request_id",
        "route",
        "rpc",
        "sent",
        "span",
        "started",
        "status",
        "streaming",
        "token_name",
        "upstream_seconds",
        "verb",
    )

    def __init__(self, request_id: str, verb: str, path: str, client: str) -> None:
        self.request_id = request_id
        self.verb = verb
        self.path = path
        self.client = client
        self.started = perf_counter()
        self.token_name = ""
        """The name of the token that let the request in; empty for none."""
        self.route = OTHER
        """The address in the documents that the request is for."""
        self.streaming = False
        self.old_api = False
        """Whether the address is of netrunner's old HTTP API, which tells failures its own way."""
        self.status = 0
        """0 where no answer was begun."""
        self.code = ""
        """The problem document's."""
        self.rpc = ""
        self.outcome = ""
        """`ok` or a problem's code: how the call to the netrunner server ended."""
        self.upstream_seconds = 0.0
        self.received = 0
        self.sent = 0
        """Bytes of bodies."""
        self.span: Span | None = None
        self.continuation: ASGIApp | None = None
        """What goes on with the answer when the route is done; streams need none of its frames."""

    def again(self, request_id: str | None) -> RequestContext:
        """For another request that is the same; ``request_id`` where it has an id of its own."""
        context = RequestContext(request_id or self.request_id, self.verb, self.path, self.client)
        context.token_name = self.token_name
        context.route = self.route
        context.old_api = self.old_api
        return context
