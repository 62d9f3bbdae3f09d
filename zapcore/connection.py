"""One connection over asyncio: a TCP stream, Z-Wing on it, ZAP messages in that.

:class:`Channel` is the shell around the sans-I/O core that both sides share. :class:`Connection` is
the client's side: it multiplexes calls.
"""

from __future__ import annotations

import asyncio
import math
import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from time import perf_counter
from typing import Protocol, cast

from zapcore.codec import Message, decode_text
from zapcore.errors import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    HandshakeError,
    InvalidAddress,
    Overloaded,
    ProtocolError,
    RemoteError,
    ZapError,
    remote_error,
)
from zapcore.framing import (
    ERROR_FLAG,
    MAX_ERROR_SIZE,
    RESPONSE_FLAG,
    Envelope,
    LengthPrefixed,
    MessageReader,
    encode_message,
    response_type,
)
from zapcore.methods import Method, Request, Response
from zapcore.zwing.handshake import RESPONSE_SIZE, Expected, Initiator
from zapcore.zwing.identity import Identity, PublicIdentity
from zapcore.zwing.records import MAX_PLAINTEXT_SIZE, Session

DEFAULT_PORT = 9999
DEFAULT_TIMEOUT = 30.0
"""Seconds that a call may take where the caller says nothing."""

HANDSHAKE_TIMEOUT = 5.0
CLOSE_TIMEOUT = 1.0
MAX_CALLS = 1024
MAX_ABANDONED = 1024
"""Calls given up whose answers are still owed. A server that owes more is taken for dead."""

LARGE_BODY = 64 * 1024
"""Bytes of a body that may take long to decode: millions of empty texts fit in, and others wait."""

_HUGE_BODY = 4 * 1024 * 1024
_MANY_ITEMS = 20_000

_MOST_AT_ONCE = MAX_PLAINTEXT_SIZE
"""Bytes that are sealed in one turn of the event loop."""

_LARGEST_BROKEN_TEXT = 256 * 1024
"""Bytes that are looked at of an error text that is none: to mend one takes long."""

_MAX_REQUEST_ID = 0xFFFFFFFF
_STREAM_QUEUE = 16

_ADDRESS = re.compile(
    r"(?:\[(?P<v6>[^\[\]/@\s]+)\]|(?P<host>[^:\[\]/@\s]+))(?::(?P<port>\d{1,5}))?"
)


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`, `[v6]:port`, or a host alone (port 9999).

    Raises:
        InvalidAddress: another form, or a port outside 1 to 65535.
    """
    match = _ADDRESS.fullmatch(address)
    port = int(match["port"] or DEFAULT_PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise InvalidAddress(f"{address!r} is not an address: give host:port, as in 127.0.0.1:9999")
    return match["v6"] or match["host"], port


class Batch:
    """Messages that leave together."""

    __slots__ = ("gone",)

    def __init__(self) -> None:
        self.gone = False
        """Whether they were handed to the operating system, or dropped."""


class Channel(asyncio.Protocol, ABC):
    """A TCP connection that carries ZAP messages in Z-Wing records.

    Messages written in one turn of the event loop leave together. A rule that the peer breaks ends
    the connection, and ``failure`` keeps why.

    Args:
        handshake_size: bytes of the handshake message that the peer sends.
    """

    def __init__(self, handshake_size: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._session: Session | None = None
        self._handshake = LengthPrefixed(handshake_size, handshake_size, 0, "handshake message")
        self._messages = MessageReader()
        self._outgoing: list[bytes] = []
        self._rest: deque[memoryview] = deque()
        """What is too much for one turn of the event loop, and waits for the peer to take more."""
        self._in_pieces = False
        self._paused = False
        self._batch = Batch()
        self._writable = asyncio.Event()
        self._writable.set()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self.failure: ZapError | None = None
        self._closing: asyncio.TimerHandle | None = None
        self.usable = False
        """Whether messages can be written."""
        self.last_received = self._loop.time()
        self._last_taken = self.last_received
        self._established_at = math.inf
        self._made_at = math.nan
        self.handshake_seconds = math.nan
        """From the TCP connection to the end of the handshake; not a number before."""
        self.bytes_received = 0
        self.bytes_sent = 0
        """On the wire, handshakes and records' overhead included."""

    @abstractmethod
    def handshake_received(self, payload: bytes) -> None:
        """The peer's handshake message is whole; lead to :meth:`establish`.

        Raises:
            ZapError: the connection ends, and ``failure`` says why.
        """

    @abstractmethod
    def message_received(self, envelope: Envelope) -> None:
        """A ZAP message came.

        Raises:
            ZapError: the connection ends, and ``failure`` says why.
        """

    @property
    def remote(self) -> PublicIdentity | None:
        """Who is at the other end, once that is proven."""
        return self._session.remote if self._session else None

    @property
    def last_active(self) -> float:
        """When the peer last sent something, or took what waited for it; by the loop's clock."""
        return max(self.last_received, self._last_taken)

    @property
    def proven(self) -> bool:
        """Whether the peer has sent anything since the handshake."""
        return self.last_received > self._established_at

    def establish(self, session: Session) -> None:
        """Begin to carry messages."""
        self._session = session
        self.usable = True
        self._established_at = self._loop.time()
        self.handshake_seconds = perf_counter() - self._made_at

    def write(self, message: bytes) -> Batch:
        """Send a whole ZAP message with all others of this turn of the event loop."""
        if not self._outgoing:
            self._loop.call_soon(self.flush)
        self._outgoing.append(message)
        return self._batch

    def flush(self) -> None:
        """Send what was written in this turn so far; of a lot, what a turn can bear."""
        self._batch.gone = True
        self._batch = Batch()
        outgoing, self._outgoing = self._outgoing, []
        if not (outgoing and self._session and self.usable):
            return
        if sum(map(len, outgoing)) <= _MOST_AT_ONCE and not self._in_pieces:
            self.write_bytes(self._session.send(b"".join(outgoing)))
            return
        self._rest.extend(map(memoryview, outgoing))
        if not self._in_pieces:
            self._in_pieces = True
            self._writable.clear()
            self._send_piece()

    def _send_piece(self) -> None:
        """Send one; the next goes when the peer takes more, and others have had their turn."""
        assert self._session is not None  # noqa: S101 - there is one by then
        piece: list[memoryview] = []
        room = _MOST_AT_ONCE
        while self._rest and room:
            message = self._rest.popleft()
            if len(message) > room:
                self._rest.appendleft(message[room:])
                message = message[:room]
            piece.append(message)
            room -= len(message)
        self.write_bytes(self._session.send(b"".join(piece)))
        if not self._paused:
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Send what is left, and then let others write."""
        if self._paused:
            return
        if self._rest and self.usable:
            self._send_piece()
        else:
            self._in_pieces = False
            self.writable_again()

    def _send_all(self) -> None:
        """Send what is written, at once."""
        self.flush()
        while self._rest and self.usable:
            self._send_piece()

    def write_bytes(self, data: bytes) -> None:
        """Send what is encrypted already, or part of the handshake."""
        assert self._transport is not None  # noqa: S101 - there is one by then
        self.bytes_sent += len(data)
        self._transport.write(data)

    async def drained(self) -> None:
        """Wait until the peer takes what is written to it, or the connection is gone."""
        await self._writable.wait()

    def abort(self, failure: ZapError) -> None:
        """Drop the connection at once, because of ``failure``."""
        if self.failure is None:
            self.failure = failure
        self.usable = False
        if self._transport:
            self._transport.abort()

    def close(self) -> None:
        """Close the connection once what is written has left; a second is given for that."""
        self._send_all()
        self.usable = False
        if self._transport and not self.closed.done():  # a timer would keep what is gone
            self._transport.close()
            self._abort_soon()

    async def wait_closed(self) -> None:
        """Close, and wait until the connection is gone."""
        self.close()
        if self._transport:
            await asyncio.wait((self.closed,))

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        self._made_at = perf_counter()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self.bytes_received += len(data)
        self.last_received = self._loop.time()
        try:
            if self._session is None:
                self._handshake_data(data)
                return
            for envelope in self._messages.receive(self._session.receive(data)):
                self.message_received(envelope)
            # What is whole counts, also where it came together with what breaks the rules.
            if (failure := self._session.failure or self._messages.failure) is not None:
                raise failure
        except ZapError as error:
            self.abort(error)

    def _handshake_data(self, data: bytes) -> None:
        payloads = self._handshake.receive(data)
        if self._handshake.failure is not None:
            raise self._handshake.failure
        if len(payloads) > 1 or (payloads and self._handshake.pending):
            raise HandshakeError("bytes follow the handshake message")
        for payload in payloads:
            self.handshake_received(payload)

    def eof_received(self) -> bool:
        """See asyncio.Protocol. The peer will say no more: nothing more is asked of it.

        The event loop closes the transport once what is written has left; a peer that does not
        read it must not hold the connection for ever.
        """
        self._send_all()
        self.usable = False
        self._writable.set()
        self._abort_soon()
        return False

    def _abort_soon(self) -> None:
        if self._closing is None:
            lost = ConnectionLost("the peer did not take the last bytes")
            self._closing = self._loop.call_later(CLOSE_TIMEOUT, self.abort, lost)

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._paused = True
        self._writable.clear()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._last_taken = self._loop.time()
        self._paused = False
        if self._in_pieces:
            self._go_on()
        else:
            self.writable_again()

    def writable_again(self) -> None:
        """The peer has taken enough of what was written."""
        self._writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        if self.failure is None and error is not None:
            self.failure = ConnectionLost(f"the connection broke: {error}")
        self.usable = False
        if self._closing is not None:
            self._closing.cancel()
        self._rest.clear()
        self._writable.set()
        if not self.closed.done():
            self.closed.set_result(None)


class _Waiter(Protocol):
    """What waits for the answers to one request id."""

    expected: int
    deadline: float
    """When to give up, by the event loop's clock."""

    def deliver(self, envelope: Envelope) -> bool:
        """Take an answer; whether it was the last."""

    def fail(self, error: ZapError) -> None:
        """No answer will come."""

    def expire(self) -> None:
        """The deadline has passed."""


class Call:
    """A call under way: one answer, for whoever awaits the future.

    It fails with what :meth:`Connection.call` raises. Who awaits it and is cancelled must say so:
    see :meth:`Connection.abandon`.
    """

    __slots__ = ("batch", "deadline", "expected", "future", "method", "request_id", "timeout")

    def __init__(
        self,
        method: Method[Message, Message],
        timeout: float,
        deadline: float,
        future: asyncio.Future[bytes],
        batch: Batch,
    ) -> None:
        self.method = method
        self.timeout = timeout
        self.deadline = deadline
        self.expected = method.opcode | RESPONSE_FLAG
        self.future = future
        self.batch = batch
        """What the request leaves with."""
        self.request_id = 0

    def deliver(self, envelope: Envelope) -> bool:
        """See _Waiter."""
        if not self.future.done():
            if envelope.type & ERROR_FLAG:
                self.future.set_exception(_server_error(envelope))
            else:
                self.future.set_result(envelope.body)
        return True

    def fail(self, error: ZapError) -> None:
        """See _Waiter."""
        if not self.future.done():
            self.future.set_exception(error)

    def expire(self) -> None:
        """See _Waiter."""
        self.fail(deadline_exceeded(self.method, self.timeout))


class _Answers:
    """Many answers, kept for one reader. Too many, and the connection is not read for a while."""

    def __init__(self, expected: int, connection: Connection) -> None:
        self.expected = expected
        self.deadline = math.inf
        self._connection = connection
        self._queue: deque[bytes | ZapError] = deque()
        self._arrived = asyncio.Event()

    def deliver(self, envelope: Envelope) -> bool:
        if envelope.type & ERROR_FLAG:
            self._put(_server_error(envelope))
            return True
        self._put(envelope.body)
        return not envelope.body

    def fail(self, error: ZapError) -> None:
        self._put(error)

    def expire(self) -> None:
        raise AssertionError("a stream has no deadline")

    def _put(self, item: bytes | ZapError) -> None:
        self._queue.append(item)
        self._arrived.set()
        if len(self._queue) >= _STREAM_QUEUE:
            self._connection.pause_reading()

    async def next(self) -> bytes:
        """The next answer's body; an empty one ends the stream."""
        while not self._queue:
            self._arrived.clear()
            self._connection.resume_reading()
            await self._arrived.wait()
        item = self._queue.popleft()
        if isinstance(item, ZapError):
            raise item
        return item


def _server_error(envelope: Envelope) -> RemoteError:
    body = envelope.body[:MAX_ERROR_SIZE]
    try:
        return remote_error(body.decode())
    except UnicodeDecodeError:
        return remote_error(decode_text(body[:_LARGEST_BROKEN_TEXT]))


class Connection(Channel):
    """The client's side of a connection: any number of calls under way, answered in any order.

    Use :func:`dial` to get one.

    Args:
        initiator: the handshake to make.
        max_calls: calls under way at once; one more is refused with Overloaded.
    """

    def __init__(self, initiator: Initiator, *, max_calls: int = MAX_CALLS) -> None:
        super().__init__(RESPONSE_SIZE)
        self._initiator = initiator
        self._max_calls = max_calls
        self._waiting: dict[int, _Waiter | None] = {}
        self._abandoned = 0
        self._unsent = 0
        self._last_id = 0
        self._reading = True
        self._timer: asyncio.TimerHandle | None = None
        self._watched_until = math.inf
        self.established: asyncio.Future[None] = self._loop.create_future()
        self.spent: asyncio.Future[None] = self._loop.create_future()
        """Done once no more calls are taken."""
        self.retired = False

    @property
    def calls(self) -> int:
        """Calls under way, those that wait to be written included, without those given up."""
        return len(self._waiting) - self._abandoned + self._unsent

    @property
    def load(self) -> int:
        """Answers that the server owes, those to calls given up included."""
        return len(self._waiting) + self._unsent

    async def call(
        self,
        method: Method[Request, Response],
        request: Message | None = None,
        *,
        timeout: float | None = None,
    ) -> Response:
        """Call once and decode the answer.

        Args:
            method: the RPC.
            request: its request; None for one with nothing but defaults.
            timeout: seconds to wait for the answer (30 where None).

        Raises:
            RemoteError: the server answered with an error text; see its subclasses.
            DeadlineExceeded: no answer in time.
            ConnectionLost: the connection broke first.
            Overloaded: too many calls are under way.
            CodecError: the request can't be encoded, or the answer can't be decoded.
        """
        body = await self.exchange(method, method.encode_request(request), timeout=timeout)
        return (
            method.response.decode(body) if len(body) <= LARGE_BODY else await decoded(method, body)
        )

    async def exchange(
        self, method: Method[Message, Message], payload: bytes, *, timeout: float | None = None
    ) -> bytes:
        """Send a request that is encoded already; the answer's body. Otherwise as :meth:`call`."""
        if timeout is None:
            timeout = DEFAULT_TIMEOUT
        if timeout <= 0:
            raise DeadlineExceeded(f"{method} was not sent: its time was over before")
        deadline = self._loop.time() + timeout
        if not self._writable.is_set():
            await self._writable_before(deadline, method, timeout)
        self._check_usable()
        call = self._begin(method, payload, timeout, deadline)
        try:
            return await call.future
        except asyncio.CancelledError:
            self.abandon(call)
            raise

    def begin(
        self, method: Method[Message, Message], payload: bytes, timeout: float
    ) -> Call | None:
        """As :meth:`exchange`, without a coroutine.

        Args:
            method: the RPC.
            payload: its request, with the sub-opcode.
            timeout: seconds to wait for the answer.

        Returns:
            None where the call can't be sent at once; nothing has happened then, and
            :meth:`exchange` tells why, or waits.
        """
        full = len(self._waiting) + self._unsent >= self._max_calls
        if full or timeout <= 0 or not self.usable or not self._writable.is_set():
            return None
        return self._begin(method, payload, timeout, self._loop.time() + timeout)

    def abandon(self, call: Call) -> None:
        """Nobody waits for that call any longer."""
        self._abandon(call.request_id)
        if call.future.done() and not call.future.cancelled():
            call.future.exception()  # it came together with the cancellation, which wins

    def _begin(
        self, method: Method[Message, Message], payload: bytes, timeout: float, deadline: float
    ) -> Call:
        call = Call(method, timeout, deadline, self._loop.create_future(), self._batch)
        call.request_id = self._send(method, payload, call)
        if deadline < self._watched_until:
            self._watch(deadline)
        return call

    async def _writable_before(
        self, deadline: float, method: Method[Message, Message], timeout: float
    ) -> None:
        """Wait for the peer to read; nothing is sent if it does not in time."""
        self._check_room()
        self._unsent += 1
        try:
            async with asyncio.timeout_at(deadline):
                await self.drained()
        except TimeoutError as error:
            text = f"{method} was not sent: the server took nothing for {timeout:g} s"
            raise DeadlineExceeded(text) from error
        finally:
            self._unsent -= 1

    # One timer serves all calls: it is set for the earliest deadline, and looks for the next one
    # when it fires. A call that ends in time, as nearly all do, never touches it.

    def _watch(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._watched_until = deadline
        self._timer = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer, self._watched_until = None, math.inf
        now, earliest = self._loop.time(), math.inf
        for request_id, waiter in tuple(self._waiting.items()):
            if waiter is None:
                continue
            if waiter.deadline <= now:
                waiter.expire()
                self._abandon(request_id)
            elif waiter.deadline < earliest:
                earliest = waiter.deadline
        if earliest < math.inf:
            self._watch(earliest)

    def _send(self, method: Method[Message, Message], payload: bytes, waiter: _Waiter) -> int:
        request_id = self._last_id + 1
        if request_id > _MAX_REQUEST_ID or request_id in self._waiting:
            request_id = self._free_id()
        message = encode_message(method.opcode, request_id, payload)
        self._last_id = request_id
        self._waiting[request_id] = waiter
        self.write(message)
        return request_id

    def _check_usable(self) -> None:
        if not self.usable:
            raise self._lost(sent=False)
        self._check_room()

    def _check_room(self) -> None:
        if self.calls >= self._max_calls:
            raise Overloaded(f"{self.calls} calls are under way on this connection: try again soon")

    def _free_id(self) -> int:
        """The next id that no call holds; given-up calls hold theirs until the answer comes."""
        request_id = self._last_id
        while True:
            request_id = request_id + 1 if request_id < _MAX_REQUEST_ID else 1
            if request_id not in self._waiting:
                return request_id

    def _abandon(self, request_id: int) -> None:
        """Nobody waits any longer, but the id stays taken: its answer may still come."""
        if self._waiting.get(request_id) is None:
            return
        self._waiting[request_id] = None
        self._abandoned += 1
        if self._abandoned > MAX_ABANDONED:
            self._retire()
        self._end_if_retired()

    def _retire(self) -> None:
        """Take no more calls. Those under way, which may be other people's, can still end."""
        self.retired = True
        self.usable = False
        if not self.spent.done():
            self.spent.set_result(None)

    def _end_if_retired(self) -> None:
        if self.retired and self.calls == 0:
            self.abort(ConnectionLost(f"the server owes {self._abandoned} answers: taken for dead"))

    async def stream(
        self, method: Method[Request, Response], request: Message | None = None
    ) -> AsyncIterator[Response]:
        """Call and decode answer after answer; see :meth:`bodies`."""
        payload = method.encode_request(request)
        async with aclosing(self.bodies(method, payload)) as bodies:
            async for body in bodies:
                yield await decoded(method, body)

    async def bodies(
        self, method: Method[Message, Message], payload: bytes
    ) -> AsyncGenerator[bytes, None]:
        """Send a request that is encoded already; body after body until the server ends the stream.

        ZAP can't cancel: close the connection to leave a stream early (protocol.md section 6).

        Raises:
            as :meth:`call`; DeadlineExceeded only when there is no first answer within 30 s.
        """
        answers = _Answers(response_type(method.opcode), self)
        request_id = 0
        try:
            try:
                async with asyncio.timeout(DEFAULT_TIMEOUT):
                    await self.drained()
                    self._check_usable()
                    request_id = self._send(method, payload, answers)
                    body = await answers.next()
            except TimeoutError as error:
                raise deadline_exceeded(method, DEFAULT_TIMEOUT) from error
            while body:
                yield body
                body = await answers.next()
        finally:
            self._abandon(request_id)
            self.resume_reading()

    def pause_reading(self) -> None:
        """Let the peer wait."""
        if self._reading and self.usable and self._transport:
            self._reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if not self._reading and self.usable and self._transport:
            self._reading = True
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        super().connection_made(transport)
        self.write_bytes(self._initiator.initiate())

    def handshake_received(self, payload: bytes) -> None:
        """Finish the handshake."""
        self.establish(self._initiator.finish(payload))
        if not self.established.done():
            self.established.set_result(None)

    def message_received(self, envelope: Envelope) -> None:
        """Hand an answer to its call; one that nobody waits for is dropped."""
        request_id = envelope.request_id
        if request_id not in self._waiting:
            return
        waiter = self._waiting[request_id]
        if waiter is None:
            self._abandoned -= 1
        elif envelope.type & ~ERROR_FLAG != waiter.expected:
            raise ProtocolError(f"an answer of type 0x{envelope.type:02x} to another kind of call")
        elif not waiter.deliver(envelope):
            return
        del self._waiting[request_id]
        if self.retired:
            self._end_if_retired()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell everybody who waits."""
        super().connection_lost(error)
        if not self.established.done():
            self.established.set_exception(self._handshake_failure())
            self.established.exception()  # whoever dialled may have given up: no loss to report
        if self._timer is not None:
            self._timer.cancel()
        if not self.spent.done():
            self.spent.set_result(None)
        waiters = [waiter for waiter in self._waiting.values() if waiter is not None]
        self._waiting.clear()
        self._abandoned = 0
        for waiter in waiters:
            waiter.fail(self._lost(sent=True))

    def _handshake_failure(self) -> ZapError:
        if self.failure is not None and not isinstance(self.failure, ConnectionLost):
            return self.failure
        return HandshakeError(
            "the server closed the connection during the handshake:"
            " it may not accept this client's identity, or is no Z-Wing server"
        )

    def _lost(self, *, sent: bool) -> ConnectionLost:
        reason = self.failure or "the server closed the connection"
        lost = ConnectionLost(str(reason), sent=sent)
        lost.__cause__ = self.failure
        return lost


def takes_long(body: bytes) -> bool:
    """Whether to decode a body would hold up an event loop, so that a thread should.

    Not many bytes but many items take long; each begins with a length, and that with zeros. Threads
    keep memory for what they once did, so what one large text fills is not for them.
    """
    size = len(body)
    return size > LARGE_BODY and (size > _HUGE_BODY or body.count(b"\0\0\0") > _MANY_ITEMS)


async def decoded(method: Method[Request, Response], body: bytes) -> Response:
    """An answer's message, made in a thread where that takes long; see Message.decode."""
    if takes_long(body):
        return await asyncio.to_thread(method.response.decode, body)
    return method.response.decode(body)


def deadline_exceeded(method: Method[Message, Message], timeout: float) -> DeadlineExceeded:
    """What the caller of a call without an answer is told."""
    text = f"no answer to {method} within {timeout:g} s"
    if not method.read_only:
        text += "; it may still take effect: look before you repeat it"
    return DeadlineExceeded(text)


async def dial(
    address: str,
    identity: Identity,
    server: Expected = None,
    *,
    timeout: float = HANDSHAKE_TIMEOUT,
    max_calls: int = MAX_CALLS,
) -> Connection:
    """Connect and make the handshake.

    Args:
        address: host:port of a netrunner server.
        identity: who we are.
        server: whom to accept; None accepts any server that proves a key, so an attacker too.
        timeout: seconds for the connection and the handshake together.
        max_calls: see Connection.

    Raises:
        InvalidAddress: the address has another form.
        ConnectFailed: nobody answers there, or not in time.
        HandshakeError: the handshake failed.
        FramingError: what answered is no answer of Z-Wing's.
        IdentityMismatch: the server is not the expected one.
    """
    host, port = parse_address(address)
    initiator = Initiator(identity, server)
    connection: Connection | None = None

    def make() -> Connection:
        nonlocal connection
        connection = Connection(initiator, max_calls=max_calls)
        return connection

    try:
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().create_connection(make, host, port)
            assert connection is not None  # noqa: S101 - create_connection has called make
            await connection.established
    except TimeoutError as error:
        _discard(connection)
        raise ConnectFailed(f"{address} did not answer within {timeout:g} s") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no resolver takes
        raise ConnectFailed(f"can't connect to {address}: {_reason(error)}") from error
    except BaseException:
        _discard(connection)
        raise
    return connection


def _reason(error: OSError | ValueError) -> str:
    """What the system says, without the address that asyncio puts into it."""
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there (connection refused)"
    return getattr(error, "strerror", None) or str(error)


def _discard(connection: Connection | None) -> None:
    if connection is not None:
        connection.abort(ConnectFailed("given up"))
