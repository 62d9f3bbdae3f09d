"""What routes need of the running gateway."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from fastapi import Request

from gateway.auth import Access, Grant
from gateway.context import RequestContext
from gateway.streams import StatusFeed
from gateway.tickets import Tickets
from gateway.upstream import Upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The running gateway, as its routes see it."""

    upstream: Upstream
    feed: StatusFeed
    tickets: Tickets
    access: Access
    is_draining: Callable[[], bool]
    sample: Callable[[], None]
    """Brings gauges up to date."""


def services_of(request: Request) -> Services:
    """What the running gateway put into the application's state."""
    return cast("Services", request.app.state.services)


def context_of(request: Request) -> RequestContext:
    """What is known of the request."""
    return cast("RequestContext", request.state.context)


def grant_of(request: Request) -> Grant:
    """As whom the request was let in."""
    return cast("Grant", request.state.grant)
