"""NetrunnerServer: serves a backend over Z-Wing, to many clients side by side."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias, cast

from zapcore.codec import Message
from zapcore.connection import Channel
from zapcore.errors import (
    CodecError,
    ConnectionLost,
    HandshakeError,
    IdentityMismatch,
    RemoteError,
    Truncated,
    ZapError,
)
from zapcore.framing import MAX_BODY_SIZE, Envelope, error_type, response_type
from zapcore.methods import METHODS, Method, UnknownMethod, parse_request, unknown_method_text
from zapcore.zwing.handshake import INIT_SIZE, Responder, Trust
from zapcore.zwing.identity import Identity, PublicIdentity
from zapcore.zwing.records import Session

logger = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[Message], Awaitable[Message]]
StreamHandler: TypeAlias = Callable[[Message], AsyncIterator[Message]]

_HANDSHAKE_THREADS = 2


class Backend:
    """What a server serves: any object with a method per RPC that it has, named as in ``Rpcs``.

    ``async def status(self, request: StatusRequest) -> StatusResponse`` answers a call; a
    streaming RPC is an async generator. To answer with an error, raise
    ``RemoteError("node not found")``. An RPC without a method is answered as the reference answers
    what it does not know.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """The bounds of a server. Times are in seconds."""

    max_connections: int = 1024
    max_pending_handshakes: int = 256
    """Clients that have not sent their first message; the oldest makes room for a new one."""
    handshake_timeout: float = 5.0
    max_requests: int = 1024
    """Requests of one connection that run at once; more wait in the client's socket."""
    write_timeout: float = 30.0
    """How long a client may leave its answers unread."""


class NetrunnerServer:
    """Serves a backend.

    Args:
        backend: see Backend.
        identity: who we are.
        clients: whom to let in; None lets in everybody who proves a key.
        limits: all bounds.
    """

    def __init__(
        self,
        backend: object,
        identity: Identity,
        clients: Iterable[PublicIdentity] | None = None,
        limits: ServerLimits | None = None,
    ) -> None:
        self.identity = identity
        self.limits = limits or ServerLimits()
        self.handlers = {
            name: handler
            for name, row in METHODS.items()
            if (handler := getattr(backend, row.attribute, None)) is not None
        }
        self.trust: Trust | None = None if clients is None else _allow(frozenset(clients))
        self.executor: ThreadPoolExecutor | None = None
        self._server: asyncio.Server | None = None
        self._channels: dict[ServerChannel, None] = {}
        self._pending: dict[ServerChannel, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 9999) -> None:
        """Listen. Port 0 takes a free one; see :attr:`address`.

        Raises:
            OSError: the address can't be listened on.
        """
        loop = asyncio.get_running_loop()
        self.executor = ThreadPoolExecutor(_HANDSHAKE_THREADS, thread_name_prefix="zwing-handshake")
        self._server = await loop.create_server(lambda: ServerChannel(self), host, port)

    @property
    def address(self) -> str:
        """host:port of the first listening socket."""
        assert self._server is not None, "start() first"  # noqa: S101
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def connections(self) -> int:
        """Clients that are connected, handshakes included."""
        return len(self._channels)

    async def close(self) -> None:
        """Stop listening, drop all clients, and wait for what is under way to end."""
        if self._server is not None:
            self._server.close()
        for channel in tuple(self._channels):
            channel.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(channel.wait_closed() for channel in tuple(self._channels)))
        if self.executor is not None:
            self.executor.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def serving(
        self, host: str = "127.0.0.1", port: int = 0
    ) -> AsyncIterator[NetrunnerServer]:
        """Serve inside an ``async with`` block."""
        await self.start(host, port)
        try:
            yield self
        finally:
            await self.close()

    # What the channels report.

    def admit(self, channel: ServerChannel) -> bool:
        """A client connected: let it begin its handshake, or not."""
        if len(self._channels) >= self.limits.max_connections and not self._make_room():
            logger.warning("refused a client: %d are connected", len(self._channels))
            return False
        self._channels[channel] = None
        if len(self._pending) >= self.limits.max_pending_handshakes:
            oldest = next(iter(self._pending))
            oldest.abort(HandshakeError("too many clients are connecting; the oldest had to go"))
            self.handshake_over(oldest)
        timer = asyncio.get_running_loop().call_later(
            self.limits.handshake_timeout,
            channel.abort,
            HandshakeError(f"no handshake within {self.limits.handshake_timeout:g} s"),
        )
        self._pending[channel] = timer
        return True

    def _make_room(self) -> bool:
        """Drop the oldest client that never said anything in its session.

        A first message can be replayed by whoever saw one, and the replayer can say no more. So
        silence marks the clients that may be nobody.
        """
        for channel in self._channels:
            if channel.remote is not None and not channel.proven:
                channel.abort(ConnectionLost("silent since its handshake, and others wait"))
                self.left(channel)
                return True
        return False

    def handshake_over(self, channel: ServerChannel) -> None:
        """A client's first message is there, or the client is gone."""
        timer = self._pending.pop(channel, None)
        if timer is not None:
            timer.cancel()

    def left(self, channel: ServerChannel) -> None:
        """A client is gone."""
        self.handshake_over(channel)
        self._channels.pop(channel, None)
        if channel.failure is not None:
            logger.info("client dropped: %s", channel.failure)

    def spawn(self, coroutine: Awaitable[None]) -> asyncio.Task[None]:
        """Run something of a channel; close() waits for it."""
        task = asyncio.get_running_loop().create_task(_run(coroutine))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _run(coroutine: Awaitable[None]) -> None:
    await coroutine


def _allow(clients: frozenset[PublicIdentity]) -> Trust:
    def check(remote: PublicIdentity) -> None:
        if remote not in clients:
            raise IdentityMismatch(f"client {remote.fingerprint} is not on the allow-list")

    return check


class ServerChannel(Channel):
    """One client's connection."""

    def __init__(self, server: NetrunnerServer) -> None:
        super().__init__(INIT_SIZE)
        self._server = server
        self._requests: deque[Envelope] = deque()
        self._running: dict[asyncio.Task[None], Method[Message, Message]] = {}
        self._reading = True
        self._stalled: asyncio.TimerHandle | None = None

    # Handshake.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first message, if there is room."""
        super().connection_made(transport)
        if not self._server.admit(self):
            cast("asyncio.Transport", transport).abort()

    def handshake_received(self, payload: bytes) -> None:
        """Answer in a thread: signatures take milliseconds, and other clients must not wait."""
        self._server.handshake_over(self)
        self._set_reading(False)
        self._server.spawn(self._respond(payload))

    async def _respond(self, payload: bytes) -> None:
        responder = Responder(self._server.identity, self._server.trust)
        try:
            answer, session = await self._loop.run_in_executor(
                self._server.executor, responder.respond, payload
            )
        except ZapError as error:
            self.abort(error)
            return
        self._established(answer, session)

    def _established(self, answer: bytes, session: Session) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self.write_bytes(answer)
        self.establish(session)
        self._set_reading(True)

    # Requests.

    def message_received(self, envelope: Envelope) -> None:
        """Run a request as soon as there is room for it."""
        self._requests.append(envelope)
        self._run_waiting()

    def _run_waiting(self) -> None:
        limit = self._server.limits.max_requests
        while self._requests and len(self._running) < limit and self._writable.is_set():
            envelope = self._requests.popleft()
            try:
                method, body = parse_request(envelope.type, envelope.body)
            except UnknownMethod as error:
                self._answer_error(envelope, str(error))
                continue
            task = self._server.spawn(self._serve(envelope, method, body))
            self._running[task] = method
            task.add_done_callback(self._ran)
        self._set_reading(not self._requests and self._writable.is_set())

    def _ran(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if self._requests:
            self._run_waiting()

    def _set_reading(self, reading: bool) -> None:
        if reading == self._reading or self._transport is None or self._transport.is_closing():
            return
        self._reading = reading
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    async def _serve(
        self, envelope: Envelope, method: Method[Message, Message], body: bytes
    ) -> None:
        try:
            handler = self._server.handlers.get(method.name)
            if handler is None:
                text = unknown_method_text(method.opcode, method.sub_opcode)
                self._answer_error(envelope, text)
            elif method.streaming:
                await self._stream(envelope, method, handler(method.request.decode(body)))
            else:
                response = await cast("Handler", handler)(method.request.decode(body))
                self._answer(envelope, method, response)
        except Truncated:
            self._answer_error(envelope, "unexpected EOF")
        except (RemoteError, CodecError) as error:
            self._answer_error(envelope, str(error))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._answer_error(envelope, "handler panic: cancelled")
        except Exception as error:
            logger.exception("%s failed in the backend", method)
            self._answer_error(envelope, f"handler panic: {error}")
        await self.drained()

    async def _stream(
        self,
        envelope: Envelope,
        method: Method[Message, Message],
        responses: AsyncIterator[Message],
    ) -> None:
        async with aclosing(cast("AsyncGenerator[Message, None]", responses)):
            async for response in responses:
                self._answer(envelope, method, response)
                await asyncio.sleep(0)  # to write it, and to let others run
                await self.drained()
        self._write(response_type(method.opcode), envelope, b"")

    def _answer(
        self, envelope: Envelope, method: Method[Message, Message], response: Message
    ) -> None:
        if not isinstance(response, method.response):
            raise TypeError(f"{method} was answered with a {type(response).__name__}")
        body = response.encode()
        if len(body) > MAX_BODY_SIZE:
            raise RemoteError(f"the answer of {len(body)} bytes is beyond {MAX_BODY_SIZE} bytes")
        self._write(response_type(method.opcode), envelope, body)

    def _answer_error(self, envelope: Envelope, text: str) -> None:
        body = text.encode("utf-8", "replace")[:MAX_BODY_SIZE]
        self._write(error_type(envelope.type), envelope, body)

    def _write(self, kind: int, envelope: Envelope, body: bytes) -> None:
        if self.usable:
            self.write(Envelope(kind, envelope.request_id, body).encode())

    def close(self) -> None:
        """Close; what waits to run never runs."""
        self._requests.clear()
        super().close()

    # What the event loop calls.

    def pause_writing(self) -> None:
        """The client does not read: give it a while."""
        super().pause_writing()
        self._set_reading(False)
        limit = self._server.limits.write_timeout
        lost = ConnectionLost(f"the client left its answers unread for {limit:g} s")
        self._stalled = self._loop.call_later(limit, self.abort, lost)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
        self._run_waiting()

    def connection_lost(self, error: Exception | None) -> None:
        """Stop what nobody waits for: streams and reads. A change goes on to its end."""
        super().connection_lost(error)
        if self._stalled is not None:
            self._stalled.cancel()
        self._requests.clear()
        for task, method in self._running.items():
            if method.read_only:
                task.cancel()
        self._server.left(self)
