"""Limits on what clients may have under way at once. Past one, a request is refused, not queued."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from gateway.auth import Grant
from gateway.context import RequestContext


class Shares:
    """How many of one kind of thing each token has under way.

    Args:
        most: with one token.
        kind: what they are, in the plural, for the refusal.
    """

    def __init__(self, most: int, kind: str) -> None:
        self._most = most
        self._kind = kind
        self._held: Counter[str] = Counter()

    def take(self, grant: Grant) -> str | None:
        """Take one more; why not, or None. Who came without a token has no share of their own."""
        if grant.token is None:
            return None
        name = grant.token.name
        if self._held[name] >= self._most:
            return f"the token {name!r} has {self._most} {self._kind} under way: try again soon"
        self._held[name] += 1
        return None

    def give_back(self, grant: Grant) -> None:
        """One less."""
        if grant.token is None:
            return
        name = grant.token.name
        self._held[name] -= 1
        if not self._held[name]:
            del self._held[name]


class BodyBudget:
    """Memory for the request bodies of all requests.

    Args:
        most: bytes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0

    @contextmanager
    def counting(self, receive: Receive, context: RequestContext) -> Iterator[Receive]:
        """A ``receive`` whose bytes count until the request is answered."""
        held = 0

        async def receive_counted() -> Message:
            nonlocal held
            message = await receive()
            size = len(message.get("body", b""))
            held += size
            self._held += size
            context.received = held
            if self._held > self._most:
                raise HTTPException(503, "the bodies of other requests take all memory for them")
            return message

        try:
            yield receive_counted
        finally:
            self._held -= held
