"""Shortcuts: plain reads that a connection makes again and again, answered without ASGI.

The first request goes the long way. What was decided there depended on the request's bytes, on its
connection, and on little else; so for the same bytes on the same connection only that little is
looked at again: whether the tokens are the same, the token's share is not used up, and the gateway
goes on. The netrunner server is asked each time. When anything is out of the ordinary, the request
goes the long way again.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial

from gateway.auth import Access, Grant, Token
from gateway.context import RequestContext, new_request_id
from gateway.direct import DirectAnswer, header_lines
from gateway.limits import Shares
from gateway.upstream import Upstream
from zapcore.codec import Message
from zapcore.methods import Method

Headers = list[tuple[bytes, bytes]]
Answering = Coroutine[None, None, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a shortcut needs of the gateway."""

    access: Access
    shares: Shares
    upstream: Upstream
    goes_on: Callable[[], bool]
    """Whether the gateway was not told to stop."""
    finished: Callable[[RequestContext], None]
    """Told of each request that was answered."""
    answer: Callable[[Answering, Known, RequestContext, DirectAnswer], Coroutine[None, None, None]]
    """Waits for an answer's JSON, and answers with it or with what went wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the long way found out of a request."""

    method: Method[Message, Message]
    payload: bytes
    grant: Grant
    tokens: tuple[Token, ...]
    """Those that there were when it was granted."""
    first: RequestContext
    names_id: bool
    """Whether the client named the request's id."""
    origin: str


class RecurringRead:
    """A plain read that has been answered before on its connection. See direct.Shortcut.

    Args:
        surroundings: the gateway.
        known: the request.
        headers: of its answer, without Content-Length and X-Request-ID.
    """

    __slots__ = ("_headers", "_known", "_surroundings")

    def __init__(self, surroundings: Surroundings, known: Known, headers: Headers) -> None:
        self._surroundings = surroundings
        self._known = known
        self._headers = header_lines(headers)

    def take(self, answer: DirectAnswer) -> bool:
        """See direct.Shortcut."""
        around, known = self._surroundings, self._known
        if around.access.tokens is not known.tokens or not around.goes_on():
            return False
        if around.shares.take(known.grant) is not None:
            return False
        context = known.first.again(None if known.names_id else new_request_id())
        ended = partial(self._ended, context, answer)
        if around.upstream.begin(known.method, known.payload, context, ended):
            return True
        around.shares.give_back(known.grant)
        return False

    def _ended(
        self, context: RequestContext, answer: DirectAnswer, body: bytes | Answering
    ) -> None:
        if not isinstance(body, bytes):
            answer.go_on(self._wait(body, context, answer))
            return
        context.status, context.sent = 200, len(body)
        answer.keep_alive &= self._surroundings.goes_on()
        lines = b"%scontent-length: %d\r\nx-request-id: %s\r\n"
        try:
            answer.write(200, lines % (self._headers, len(body), context.request_id.encode()), body)
        finally:
            self._end(context)

    async def _wait(
        self, answering: Answering, context: RequestContext, answer: DirectAnswer
    ) -> None:
        try:
            await self._surroundings.answer(answering, self._known, context, answer)
        finally:
            self._end(context)

    def _end(self, context: RequestContext) -> None:
        self._surroundings.shares.give_back(self._known.grant)
        self._surroundings.finished(context)
