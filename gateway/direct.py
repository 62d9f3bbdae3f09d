"""Answers that no ASGI application gives, and the shortcuts that lead to them."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Protocol

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

REMEMBER = "zap_gateway.remember"
"""In a request's scope: takes a Shortcut for when the same bytes come again."""


class Shortcut(Protocol):
    """The way without ASGI for a request that its connection has seen before, byte for byte."""

    def take(self, answer: DirectAnswer) -> bool:
        """Begin to answer; False where the request must go the long way, this time or always."""


class _NobodyWaits:
    """In place of the event that wakes an application up."""

    def set(self) -> None:
        """Wake nobody."""


_NOBODY_WAITS = _NobodyWaits()


class DirectConnection(Protocol):
    """What a direct answer needs of its connection."""

    def answer_directly(
        self, answer: DirectAnswer, status: bytes, headers: bytes, body: bytes
    ) -> None:
        """Write an answer, and go on with the next request."""

    def start(self, coroutine: Coroutine[None, None, None]) -> None:
        """Run a coroutine as a task that the server waits for when it ends."""


class DirectAnswer:
    """An answer that no ASGI application gives.

    It has what uvicorn's connection and ours look at of a cycle of request and response, so that
    what is pipelined behind it, a client that leaves and the end of the server go as ever.
    """

    __slots__ = (
        "_connection",
        "_status",
        "_told",
        "disconnected",
        "keep_alive",
        "message_event",
        "response_complete",
        "response_started",
    )

    def __init__(self, connection: DirectConnection) -> None:
        self._connection = connection
        self.disconnected = False
        self.keep_alive = True
        self.message_event = _NOBODY_WAITS
        self.response_complete = False
        self.response_started = False
        self._status = 0
        self._told = b""

    def write(self, status: int, headers: bytes, body: bytes) -> None:
        """The whole answer.

        Args:
            status: of HTTP.
            headers: their lines, with Content-Length, without what every answer has.
            body: the body.
        """
        self.response_started = self.response_complete = True
        self._connection.answer_directly(self, STATUS_LINE[status], headers, body)

    def go_on(self, coroutine: Coroutine[None, None, None]) -> None:
        """Let a coroutine give the answer, as a task of the server's."""
        self._connection.start(coroutine)

    async def send(self, message: Message) -> None:
        """Give it as an ASGI application would, in two messages."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            told = [header for header in message["headers"] if header[0] != b"connection"]
            self.keep_alive &= len(told) == len(message["headers"])
            self._told = header_lines(told)
        else:
            self.write(self._status, self._told, message["body"])


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as they cross the wire."""
    return b"".join(b"%s: %s\r\n" % header for header in headers)
