"""HTTP connections with bounds that uvicorn does not have: on headers, on time, on their number.

A client that sends too slowly, takes too slowly or sends too much is cut off. Nothing here costs a
timer per request: one sweep over all connections, several times a second at most, finds them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Coroutine, Sized
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import httptools
import uvicorn
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import (
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from gateway import errors
from gateway.context import new_request_id
from gateway.direct import REMEMBER, DirectAnswer, Shortcut, header_lines
from gateway.routes.streams import PROMPT

logger = logging.getLogger(__name__)

SLOWEST = 32 * 1024
"""Bytes per second that a client must at least send or take, on average."""

_SLACK = 1024 * 1024
_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)
_CLOSE_WAIT = 8
"""Linux's word for a connection that the peer has closed: the first byte of TCP_INFO."""

_NOTSENT_LOWAT: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)
_MOST_UNSENT = 16 * 1024
"""Bytes that the kernel may keep for a client that is to get what is newest."""

_MOST_SHORTCUTS = 8
_LARGEST_SHORTCUT = 2048
"""Of a connection, and bytes of a request: what a busy client repeats is small."""

_LINGER = 1.0
_MOST_LINGERING = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """The bounds of clients' connections. Times in seconds, sizes in bytes."""

    max_connections: int
    max_header: int
    max_body: int
    receive_timeout: float
    send_timeout: float
    idle_timeout: float

    @property
    def sweep_interval(self) -> float:
        """How often connections must be looked at for their times to be kept."""
        shortest = min(self.receive_timeout, self.send_timeout, self.idle_timeout)
        return min(1.0, shortest / 4)


class HttpConnections:
    """All connections of one server, and what bounds them.

    Args:
        limits: the bounds.
        on_refusal: told of each request that is refused before it reaches the application.
    """

    def __init__(
        self, limits: HttpLimits, on_refusal: Callable[[errors.Kind], None] = lambda _: None
    ) -> None:
        self.limits = limits
        self.on_refusal = on_refusal
        self.all: set[HttpConnection] = set()
        self.lingering: set[HttpConnection] = set()
        """Those that were refused, and may read why for a moment."""
        self.watched = 0.0
        """Seconds in which this process did its part: while it is held up, no client is slow."""
        self._swept = 0.0
        self._common_headers: list[tuple[bytes, bytes]] = []
        self._common_lines = b""

    def count(self) -> tuple[int, int]:
        """How many have a request under way, and how many are idle."""
        busy = sum(not connection.idle for connection in self.all)
        return busy, len(self.all) - busy

    def make_room(self) -> bool:
        """Close the connection that has been idle longest; False where all are busy."""
        idle = [each for each in self.all if each.idle and not each.unsent]
        if not idle:
            return False
        min(idle, key=lambda connection: connection.head_since).cut_off()
        return True

    def admit(self, connection: HttpConnection) -> bool:
        """Take a connection in; False where there is no room and none can be made."""
        has_room = len(self.all) < self.limits.max_connections or self.make_room()
        self.all.add(connection)
        return has_room

    def common_lines(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """The lines of what every answer has; uvicorn makes that list anew each second."""
        if headers is not self._common_headers:
            self._common_headers = headers
            self._common_lines = header_lines(headers)
        return self._common_lines

    def sweep(self, now: float) -> None:
        """Cut off those that are too slow.

        Args:
            now: by the event loop's clock.
        """
        self.watched += min(max(now - self._swept, 0.0), self.limits.sweep_interval)
        self._swept = now
        for connection in tuple(self.all):
            connection.check(now)


class _CountingTransport:
    """A transport that counts what is written to it, so that it shows how much a peer takes."""

    __slots__ = (
        "_write",
        "abort",
        "can_write_eof",
        "close",
        "get_extra_info",
        "get_write_buffer_size",
        "is_closing",
        "pause_reading",
        "resume_reading",
        "set_write_buffer_limits",
        "write_eof",
        "written",
    )

    def __init__(self, transport: asyncio.Transport) -> None:
        self.written = 0
        self._write = transport.write
        self.close = transport.close
        self.abort = transport.abort
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self.get_extra_info = transport.get_extra_info
        self.get_write_buffer_size = transport.get_write_buffer_size
        self.can_write_eof = transport.can_write_eof
        self.write_eof = transport.write_eof
        self.set_write_buffer_limits = transport.set_write_buffer_limits

    def write(self, data: bytes) -> None:
        """See asyncio.WriteTransport."""
        self.written += len(data)
        self._write(data)


class _Flow(FlowControl):
    """Lets nobody read on while requests wait behind the one that is under way."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """See FlowControl."""
        if not self._waiting:
            super().resume_reading()


class _Nothing(list[tuple[bytes, bytes]]):
    """Headers that nobody reads: those behind a body in chunks."""

    def append(self, header: tuple[bytes, bytes]) -> None:
        """Keep nothing."""


class HttpConnection(HttpToolsProtocol):
    """uvicorn's connection, with bounds, and with shortcuts."""

    # Thousands of readers have one each, and uvicorn's attributes fill a dictionary as it is.
    __slots__ = (
        "_begun",
        "_behind",
        "_body_since",
        "_head_without_upgrade",
        "_in_head",
        "_limits",
        "_others",
        "_received",
        "_refused",
        "_running",
        "_shortcuts",
        "_taken",
        "_unsent_since",
        "head_since",
    )

    def __init__(
        self,
        connections: HttpConnections,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
    ) -> None:
        super().__init__(config, server_state, app_state, asyncio.get_running_loop())
        self._others = connections
        self._limits = connections.limits
        self._in_head = True
        self.head_since = self.loop.time()
        """Since when the next request is waited for, or its headers are."""
        self._begun = False
        self._head_without_upgrade = b""
        self._behind = False
        """Whether the request's first bytes came together with the one before."""
        self._refused = False
        self._running: RequestResponseCycle | DirectAnswer | None = None
        self._shortcuts: dict[bytes, Shortcut] | None = None
        """By the bytes of the request, which may hold a token; nobody else's are compared."""
        self._body_since = 0.0
        self._received = 0
        self._taken = 0
        self._unsent_since: float | None = None
        """By the seconds that are watched."""

    @property
    def idle(self) -> bool:
        """Whether no request is under way; one whose headers are not whole does not count."""
        if self._refused or not self._in_head or self.pipeline:
            return False
        return self._running is None or self._running.response_complete

    @property
    def unsent(self) -> int:
        """Bytes that the client has not taken yet."""
        return self.transport.get_write_buffer_size()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(cast("asyncio.Transport", _CountingTransport(transport)))
        self.flow = _Flow(self.transport, self.pipeline)
        self.head_since = self.loop.time()  # with TLS, its handshake came before
        if not self._others.admit(self):
            detail = "all connections are busy (--max-connections)"
            self._refuse(errors.OVERLOADED, detail)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._others.all.discard(self)
        self._others.lingering.discard(self)
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn forgets that of a client that was cut off
        self._tell_applications()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._refused:
            return
        apart = not self._begun
        if apart:
            if self._shortcuts is not None and self._take_shortcut(data):
                return
            self._begun = True
            self._behind = False
            self.head_since = self.loop.time()
        self._received += len(data)
        self._parse(data)
        if apart and self._may_recur(data):
            extensions = cast("dict[str, object]", self.cycle.scope["extensions"])
            extensions[REMEMBER] = partial(self._remember, data)
        if self._in_head:
            if self._begun and self._received > self._limits.max_header:
                self._refuse_header()
        elif self._received > 2 * self._limits.max_body + _SLACK:
            # Nobody may send for ever, neither a body that is refused nor chunks of one byte.
            self._refuse(errors.BODY_TOO_LARGE, "the request does not end")

    def _parse(self, data: bytes) -> None:
        """As uvicorn's data_received, but for requests that ask for another protocol.

        A server may ignore that (RFC 9110, section 7.8), and Java's client asks with every first
        request. The parser takes the body of such a request for requests, so another one goes on
        with the same head, without that header.
        """
        self._unset_keepalive_if_required()
        rest = memoryview(data)
        while rest and not self._refused:
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as asked:
                rest = rest[asked.args[0] :]
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
                return
            if self._head_without_upgrade:
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
                rest = memoryview(self._head_without_upgrade + rest)
                self._head_without_upgrade = b""

    # Shortcuts.

    def _may_recur(self, data: bytes) -> bool:
        """Whether what has come is one whole request without a body, and its connection stays."""
        return (
            len(data) <= _LARGEST_SHORTCUT
            and data.endswith(b"\r\n\r\n")
            and self._in_head
            and not (self._begun or self._refused or self.pipeline)
            and self._running is not None
            and self._running is self.cycle
            and self.cycle.keep_alive
            and not self.cycle.body
            and not self.cycle.waiting_for_100_continue
        )

    def _remember(self, data: bytes, shortcut: Shortcut) -> None:
        """Take a shortcut when these bytes come again."""
        if self._shortcuts is None or len(self._shortcuts) >= _MOST_SHORTCUTS:
            self._shortcuts = {}
        self._shortcuts[data] = shortcut

    def _take_shortcut(self, data: bytes) -> bool:
        assert self._shortcuts is not None  # noqa: S101 - the caller has looked
        shortcut = self._shortcuts.get(data)
        if shortcut is None or not self.idle or self.flow.write_paused:
            return False
        answer = DirectAnswer(self)
        if not shortcut.take(answer):
            return False
        self._unset_keepalive_if_required()
        self._running = answer
        self.cycle = cast("RequestResponseCycle", answer)
        return True

    def answer_directly(
        self, answer: DirectAnswer, status: bytes, headers: bytes, body: bytes
    ) -> None:
        """Write a direct answer, and go on with the next request."""
        if answer.disconnected or self.transport.is_closing():
            return
        if not answer.keep_alive:
            headers += b"connection: close\r\n"
        common = self._others.common_lines(self.server_state.default_headers)
        self.transport.write(b"".join((status, common, headers, b"\r\n", body)))
        if not answer.keep_alive:
            self.transport.close()
        if self.pipeline:
            self.on_response_complete()
        else:  # the sweep sees to connections that are idle: no timer is needed
            self.server_state.total_requests += 1
            self.head_since = self.loop.time()

    def start(self, coroutine: Coroutine[None, None, None]) -> None:
        """Run a coroutine as a task that the server waits for when it ends."""
        task = self.loop.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self._has_ended)

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        """Do as uvicorn does with an application that failed: nobody may wait for its answer."""
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a direct answer failed", exc_info=error)
            self.transport.close()

    # What the parser calls. It does not stop when a request is refused.

    def on_message_begin(self) -> None:
        """Another request begins."""
        super().on_message_begin()
        self._behind = not self._begun
        self._begun = True
        self.head_since = self.loop.time()

    def on_headers_complete(self) -> None:
        """The headers are whole: the request goes to the application."""
        if self._refused:
            return
        most = self._limits.max_header
        if (self._behind or self._received > most) and self._head_size() > most:
            self._refuse_header()
            return
        if self.parser.should_upgrade() and any(name == b"upgrade" for name, _ in self.headers):
            self._head_without_upgrade = self._told_again()
            return
        super().on_headers_complete()
        self.headers = _Nothing()
        self._in_head = False
        self._body_since = self.loop.time()

    def on_body(self, body: bytes) -> None:
        """Part of the body."""
        if not self._in_head:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._in_head:
            return  # it was refused
        super().on_message_complete()
        self._in_head = True
        self._begun = False
        self._received = 0
        self.head_since = self.loop.time()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        cycle.scope["extensions"] = cast("Any", {PROMPT: self._be_prompt})
        super()._start_asgi_task(cycle, app)

    def _be_prompt(self) -> Callable[[], int]:
        """Keep little for a client that is slow: by the time it is taken it would be old.

        Gives a function that tells how many bytes were not taken yet.
        """
        self.transport.set_write_buffer_limits(high=1)  # TLS would take 0 for full when empty
        connection = self.transport.get_extra_info("socket")
        if _NOTSENT_LOWAT is not None:
            connection.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, _MOST_UNSENT)
        return self.transport.get_write_buffer_size

    def on_response_complete(self) -> None:
        """The answer is whole: the next request, or the wait for one, begins."""
        self.head_since = self._body_since = self.loop.time()
        super().on_response_complete()
        self.flow.resume_reading()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        self._refuse(errors.NOT_HTTP, msg)

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _told_again(self) -> bytes:
        """The request's head, without what asks for another protocol."""
        head = b"%s %s HTTP/%s\r\n" % (
            self.parser.get_method(),
            self.url,
            self.parser.get_http_version().encode(),
        )
        return head + header_lines(each for each in self.headers if each[0] != b"upgrade") + b"\r\n"

    def _tell_applications(self) -> None:
        """Let what runs, and what waits behind it, see that the client is gone."""
        for cycle in (self._running, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()

    # Bounds.

    def check(self, now: float) -> None:
        """Cut off a client that is too slow."""
        if self._takes_too_slowly():
            logger.info("cut off a client that does not read its answer", extra=self._about())
            self.cut_off()
        elif self.flow.read_paused:
            if self._is_broken():
                self.cut_off()
        elif self._refused or self.transport.is_closing():
            return
        elif self._in_head:
            self._check_head(now)
        elif now - self._body_since > self._limits.receive_timeout + self._received / SLOWEST:
            self._refuse(errors.REQUEST_TIMEOUT, "the body came too slowly")

    def _is_broken(self) -> bool:
        """Whether the client is gone. Where nothing is read, the event loop does not notice."""
        connection = self.transport.get_extra_info("socket")
        if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return True
        if not self.pipeline or _TCP_INFO is None:
            return False
        state = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)
        return bool(state[0] == _CLOSE_WAIT)

    def _check_head(self, now: float) -> None:
        if not self.idle:
            return
        waited = now - self.head_since
        if self._begun:
            if waited > self._limits.receive_timeout:
                self._refuse(errors.REQUEST_TIMEOUT, "the headers did not come in time")
        elif self._running is None:
            if waited > self._limits.receive_timeout:
                self.cut_off()  # it connected and said nothing
        elif waited > self._limits.idle_timeout:
            self.transport.close()

    def _takes_too_slowly(self) -> bool:
        """Whether too little was taken for too long, while there was something to take."""
        now = self._others.watched
        unsent = self.unsent
        if not unsent:
            self._unsent_since = None
            return False
        taken = cast("_CountingTransport", self.transport).written - unsent
        if self._unsent_since is None:
            self._taken, self._unsent_since = taken, now
        elapsed = now - self._unsent_since
        if elapsed < self._limits.send_timeout:
            return False
        if taken - self._taken < SLOWEST * elapsed:
            return True
        self._taken, self._unsent_since = taken, now
        return False

    def _refuse_header(self) -> None:
        detail = f"at most {self._limits.max_header} bytes are taken (--max-header)"
        self._refuse(errors.HEADER_TOO_LARGE, detail)

    def _refuse(self, kind: errors.Kind, detail: str) -> None:
        """Say why, where no answer has begun, and close."""
        if self._refused:
            return
        may_answer = self._may_answer()
        self._refused = True
        request_id = new_request_id()
        logger.info(
            "refused a request: %s", detail, extra={**self._about(), "request_id": request_id}
        )
        self._others.on_refusal(kind)
        if may_answer:
            self.transport.write(_raw_answer(kind, detail, request_id))
        self._tell_applications()
        self._close_gently()

    def _close_gently(self) -> None:
        """Let the client read why: closing while it still sends would take the answer from it."""
        others = self._others
        others.all.discard(self)  # it takes nobody's place any more
        if self.transport.can_write_eof() and len(others.lingering) < _MOST_LINGERING:
            others.lingering.add(self)
            self.transport.write_eof()
        else:
            self.transport.close()
        self.loop.call_later(_LINGER, self.cut_off)

    def _may_answer(self) -> bool:
        """Whether what is written now would be taken for the answer to this very request."""
        if self._in_head:
            return self.idle
        return self._running is self.cycle and not self.cycle.response_started

    def _about(self) -> dict[str, object]:
        return {"client": self.client[0] if self.client else ""}

    def cut_off(self) -> None:
        """End the connection at once; it counts no more."""
        self._others.all.discard(self)
        with contextlib.suppress(RuntimeError):
            self.transport.abort()


def _raw_answer(kind: errors.Kind, detail: str, request_id: str) -> bytes:
    """An answer of the server itself, before there is a request that could be answered."""
    body = errors.render(errors.problem(kind, detail, request_id=request_id))
    headers = {
        "content-type": errors.MEDIA_TYPE,
        "content-length": str(len(body)),
        "connection": "close",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "x-request-id": request_id,
        **errors.problem_headers(kind),
    }
    head = f"HTTP/1.1 {kind.status} {HTTPStatus(kind.status).phrase}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return head.encode() + b"\r\n" + body
