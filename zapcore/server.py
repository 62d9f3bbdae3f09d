"""NetrunnerServer: serves a backend over Z-Wing, to many clients side by side."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, cast

from zapcore.codec import Message
from zapcore.connection import LARGE_BODY, Channel
from zapcore.errors import (
    CodecError,
    ConnectionLost,
    EncodeError,
    HandshakeError,
    IdentityMismatch,
    RemoteError,
    Truncated,
    ZapError,
)
from zapcore.framing import MAX_BODY_SIZE, MAX_ERROR_SIZE, Envelope, error_type, response_type
from zapcore.methods import METHODS, Method, UnknownMethod, parse_request, unknown_method_text
from zapcore.zwing.handshake import INIT_SIZE, Responder, Trust
from zapcore.zwing.identity import Identity, PublicIdentity
from zapcore.zwing.records import Session

logger = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[Message], Awaitable[Message]]
StreamHandler: TypeAlias = Callable[[Message], AsyncIterator[Message]]

_HANDSHAKE_THREADS = 2
_SWEEP_INTERVAL = 1.0

SLOWEST = 32 * 1024
"""Bytes per second that a client must at least send of a message that it has begun, on average."""


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
    """Handshakes included. Where more knock, the oldest client that has proven nothing goes. Who
    holds a key that is let in can hold all places: without an allow-list, that is everybody."""
    max_pending_handshakes: int = 256
    """Clients that have not sent their first message; the oldest makes room for a new one."""
    handshake_timeout: float = 5.0
    max_requests: int = 1024
    """Requests of one connection that run at once; more wait in the client's socket."""
    write_timeout: float = 30.0
    """How long a client may leave its answers unread."""
    message_timeout: float = 30.0
    """For a message that a client has begun; a large one has a second more for each 32 KiB."""
    max_unfinished: int = 256 * 1024 * 1024
    """Bytes of messages that are not whole, or wait to be decoded, over all clients; beyond that
    who holds most has to go."""
    max_orphans: int = 1024
    """Changes under way whose client has left; the oldest is cancelled for one more."""
    close_timeout: float = 5.0
    """What a backend has to end its calls in, once they are cancelled, before it is left alone."""

    @property
    def sweep_interval(self) -> float:
        """How often clients must be looked at for their times to be kept."""
        return min(_SWEEP_INTERVAL, self.message_timeout / 4)


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
        self._decoder: ThreadPoolExecutor | None = None
        self._decoding = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: asyncio.Server | None = None
        self._channels: dict[ServerChannel, None] = {}
        self._pending: dict[ServerChannel, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._orphans: dict[asyncio.Task[None], None] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._open = False

    async def start(self, host: str = "127.0.0.1", port: int = 9999) -> None:
        """Listen. Port 0 takes a free one; see :attr:`address`.

        Raises:
            OSError: the address can't be listened on.
        """
        self._loop = loop = asyncio.get_running_loop()
        self.executor = ThreadPoolExecutor(_HANDSHAKE_THREADS, thread_name_prefix="zwing-handshake")
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="zap-decode")
        self._decoding = asyncio.Lock()
        self._open = True
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
        self._open = False
        if self._server is not None:
            self._server.close()
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for channel in tuple(self._channels):
            channel.close()
        await self._end(set(self._tasks))
        await asyncio.gather(*(channel.wait_closed() for channel in tuple(self._channels)))
        for executor in (self.executor, self._decoder):
            if executor is not None:
                executor.shutdown(wait=False, cancel_futures=True)

    async def _end(self, tasks: set[asyncio.Task[None]]) -> None:
        """Cancel them, and wait; a backend that does not heed it must not hold up the rest."""
        for task in tasks:
            task.cancel()
        if not tasks:
            return
        _, left = await asyncio.wait(tasks, timeout=self.limits.close_timeout)
        if left:
            logger.error("%d calls of the backend go on though they are cancelled", len(left))

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
        if not self._open:
            return False  # it was accepted just before the server closed
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
        if self._sweeping is None:
            self._sweep_later()
        return True

    def _sweep_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeping = loop.call_later(self.limits.sweep_interval, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Drop who does not go on with a message, and who makes us keep too much of them.

        One look at all clients now and then costs less than a timer per message would.
        """
        self._sweeping = None
        unfinished = 0
        for channel in tuple(self._channels):
            channel.check(loop.time())
            unfinished += channel.unfinished
        if unfinished > self.limits.max_unfinished:
            self._shed(unfinished)
        if self._channels:
            self._sweep_later()

    def _shed(self, unfinished: int) -> None:
        largest = sorted(self._channels, key=lambda channel: channel.unfinished, reverse=True)
        for channel in largest:
            if unfinished <= self.limits.max_unfinished:
                return
            unfinished -= channel.unfinished
            text = f"{channel.unfinished} bytes of unfinished messages, where memory is short"
            channel.abort(ConnectionLost(text))

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

    def spawn(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run something of a channel; close() waits for it."""
        assert self._loop is not None  # noqa: S101 - channels come after start
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def decode(self, decode: Callable[[bytes], Message], body: bytes) -> Message:
        """Decode a large request in a thread: millions of empty texts fit in, and others wait."""
        # Who waits for the lock can give up, and nothing is kept then; a thread's queue keeps it.
        async with self._decoding:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._decoder, decode, body)

    def orphaned(self, task: asyncio.Task[None]) -> None:
        """A change whose client has left goes on; who sends and leaves must not pile them up."""
        if len(self._orphans) >= self.limits.max_orphans:
            oldest = next(iter(self._orphans))
            del self._orphans[oldest]
            oldest.cancel()
            logger.warning("cancelled a change: %d go on without a client", len(self._orphans) + 1)
        self._orphans[task] = None
        task.add_done_callback(self._adopted)

    def _adopted(self, task: asyncio.Task[None]) -> None:
        self._orphans.pop(task, None)


def _text(error: BaseException) -> str:
    """What an error says. One of a backend's own classes may fail at that too."""
    try:
        return str(error)
    except Exception:
        logger.exception("a %s of the backend can't be told", type(error).__name__)
        return type(error).__name__


def _forget_frames(error: BaseException) -> None:
    """A backend may raise one error again and again, which would keep all frames that it passed.

    So would those behind it: an error that became another one on its way, or one of a group.
    """
    found, seen = [error], set[int]()
    while found:
        each = found.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        each.__traceback__ = None
        found += [behind for behind in (each.__cause__, each.__context__) if behind is not None]
        if isinstance(each, BaseExceptionGroup):
            found += each.exceptions


def _allow(clients: frozenset[PublicIdentity]) -> Trust:
    def check(remote: PublicIdentity) -> None:
        if remote not in clients:
            raise IdentityMismatch(f"client {remote.fingerprint} is not on the allow-list")

    return check


class _Begun(NamedTuple):
    """Where a client was with a message, when it was seen to have begun one."""

    messages: int
    since: float
    bytes_received: int


class ServerChannel(Channel):
    """One client's connection."""

    def __init__(self, server: NetrunnerServer) -> None:
        super().__init__(INIT_SIZE)
        self._server = server
        self._requests: deque[Envelope] = deque()
        self._running: dict[asyncio.Task[None], Method[Message, Message]] = {}
        self._reading = True
        self._stalled: asyncio.TimerHandle | None = None
        self._messages_received = 0
        self._begun: _Begun | None = None
        self._undecoded: dict[asyncio.Task[object], int] = {}
        """The bytes that each task keeps that has yet to decode them."""

    @property
    def proven(self) -> bool:
        """Whether the client has shown that it holds its keys; anybody can send bytes."""
        return self._session is not None and self._session.heard

    @property
    def unfinished(self) -> int:
        """Bytes kept of what is not whole yet, and of large requests that wait to be decoded."""
        if self._session is None:
            return 0  # at most one first message
        undecoded = sum(self._undecoded.values())
        return self._session.pending + self._messages.pending + undecoded

    def check(self, now: float) -> None:
        """Drop a client that does not go on with what it has begun."""
        if not self.unfinished or not self._reading:
            self._begun = None
        elif self._begun is None or self._begun.messages != self._messages_received:
            self._begun = _Begun(self._messages_received, now, self.bytes_received)
        else:
            _, since, before = self._begun
            more = (self.bytes_received - before) / SLOWEST
            if now - since > self._server.limits.message_timeout + more:
                self.abort(ConnectionLost(f"a message was not whole after {now - since:.3g} s"))

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
        except Exception:
            # A defect, and a client that nobody reads would keep its place for ever.
            logger.exception("a handshake failed in the server")
            self.abort(HandshakeError("the server failed in it"))
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
        self._messages_received += 1
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
        wanted = not self._requests and not self._undecoded and self._writable.is_set()
        self._set_reading(wanted)

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
                large = len(body) > LARGE_BODY
                request = (
                    await self._decoded(method, body) if large else method.request.decode(body)
                )
                response = await cast("Handler", handler)(request)
                self._answer(envelope, method, response)
        except Truncated as error:
            self._answer_error(envelope, "unexpected EOF")
            _forget_frames(error)
        except (RemoteError, CodecError) as error:
            self._answer_error(envelope, _text(error))
            _forget_frames(error)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except asyncio.CancelledError as error:
            self._answer_error(envelope, "handler panic: cancelled")
            _forget_frames(error)
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
        except BaseException as error:
            # Some that are no Exception come out of libraries too, and the client waits.
            logger.exception("%s failed in the backend", method)
            self._answer_error(envelope, f"handler panic: {_text(error)}")
            _forget_frames(error)
        if len(self._running) == 1:
            self.flush()  # there is nothing to wait for that could leave together with it
        await self.drained()

    async def _decoded(self, method: Method[Message, Message], body: bytes) -> Message:
        """A large request. What follows in its connection is not read until it is decoded."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one
        self._undecoded[task] = len(body)
        self._set_reading(False)
        try:
            return await self._server.decode(method.request.decode, body)
        finally:
            del self._undecoded[task]
            self._run_waiting()

    async def _stream(
        self,
        envelope: Envelope,
        method: Method[Message, Message],
        responses: AsyncIterator[Message],
    ) -> None:
        async with aclosing(cast("AsyncGenerator[Message, None]", responses)):
            async for response in responses:
                if not self.usable:
                    return  # and the backend did not heed that it was cancelled
                self._answer(envelope, method, response)
                await asyncio.sleep(0)  # to write it, and to let others run
                await self.drained()
        self._write(response_type(method.opcode), envelope, b"")

    def _answer(
        self, envelope: Envelope, method: Method[Message, Message], response: Message
    ) -> None:
        if not isinstance(response, method.response):
            raise TypeError(f"{method} was answered with a {type(response).__name__}")
        try:
            body = response.encode()
            if len(body) > MAX_BODY_SIZE:
                raise EncodeError(f"an answer of {len(body)} bytes is beyond {MAX_BODY_SIZE} bytes")
        except EncodeError as error:
            logger.error("%s was answered with what can't be sent: %.500s", method, error)
            raise
        self._write(response_type(method.opcode), envelope, body)

    def _answer_error(self, envelope: Envelope, text: str) -> None:
        body = text[:MAX_ERROR_SIZE].encode("utf-8", "replace")[:MAX_ERROR_SIZE]
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

    def writable_again(self) -> None:
        """See Channel: what was asked meanwhile can be answered."""
        super().writable_again()
        self._run_waiting()

    def connection_lost(self, error: Exception | None) -> None:
        """Stop what nobody waits for: streams and reads. A change that has begun goes on."""
        super().connection_lost(error)
        if self._stalled is not None:
            self._stalled.cancel()
        self._requests.clear()
        for task, method in self._running.items():
            if method.read_only or task in self._undecoded:
                task.cancel()
            else:
                self._server.orphaned(task)
        self._server.left(self)
