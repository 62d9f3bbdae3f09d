"""ConnectionPool: persistent connections to one server (choice, reconnect, health)."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Self, TypeAlias

from zapcore.client import bodies_apart, stream_apart
from zapcore.codec import Message
from zapcore.connection import (
    DEFAULT_TIMEOUT,
    HANDSHAKE_TIMEOUT,
    LARGE_BODY,
    MAX_CALLS,
    Batch,
    Connection,
    decoded,
    dial,
    parse_address,
)
from zapcore.errors import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    IdentityMismatch,
    OutcomeUnknown,
    Overloaded,
    TransportError,
    ZapError,
)
from zapcore.methods import Method, Request, Response, Rpcs
from zapcore.zwing.handshake import Expected
from zapcore.zwing.identity import Identity

logger = logging.getLogger(__name__)

_AFTERMATH = 0.25
"""Seconds within which what ends one connection to a server may end another."""

Resume: TypeAlias = Callable[[], Coroutine[None, None, bytes]]
Ended: TypeAlias = Callable[[bytes | None, Resume], None]

_PING_PAYLOAD = Rpcs.ping.encode_request()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """The bounds of a pool. Times are in seconds."""

    call_timeout: float = DEFAULT_TIMEOUT
    """For a call whose caller says nothing."""
    acquire_timeout: float = 2.0
    """How long a call may wait for a connection. A server that has been away for this long is taken
    for down: calls fail at once until an attempt to connect succeeds."""
    connect_timeout: float = HANDSHAKE_TIMEOUT
    """For a connection and its handshake."""
    max_calls: int = MAX_CALLS
    """Calls under way or waiting, over all connections."""
    backoff_first: float = 0.1
    backoff_last: float = 0.5
    """Between attempts to connect: doubled from first to last, each with jitter."""
    keepalive: float = 10.0
    """After this long without a sign of the server it is asked for a Ping."""
    keepalive_timeout: float = 5.0
    """How long that Ping, or another sign, may take before the connection is dropped."""


class PoolObserver:
    """Told what happens to a pool's connections: for metrics. All of it does nothing here."""

    def dialled(self, connection: Connection) -> None:
        """A connection stands, also one for a stream; its handshake took `handshake_seconds`."""

    def dial_failed(self, error: ZapError) -> None:
        """An attempt to connect failed."""

    def reconnected(self) -> None:
        """A connection of the pool stands again after one was lost."""


def backoff_delay(limits: PoolLimits, failures: int, jitter: float) -> float:
    """Seconds before the next attempt to connect.

    Args:
        limits: gives the first and the last delay.
        failures: attempts that failed in a row, from 1.
        jitter: 0 to 1, where in the upper half of the range the delay lies.
    """
    full = min(limits.backoff_last, limits.backoff_first * 2.0 ** min(failures - 1, 30))
    return full * (0.5 + 0.5 * jitter)


class _Slot:
    """One place of the pool: dials, watches, and dials again."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._limits = pool.limits
        self.connection: Connection | None = None
        self.dialling = False

    async def run(self) -> None:
        """Keep a connection until cancelled."""
        failures = 0
        while True:
            try:
                connection = await self._dial()
            except ZapError as error:
                failures += 1
                self._pool.dial_failed(error)
                await self._pause(failures)
                continue
            except Exception:
                # A defect, and a pool that quietly stops to dial would hide it.
                logger.exception("dialling %s failed", self._pool.address)
                failures += 1
                await self._pause(failures)
                continue
            self.connection = connection
            self._pool.connected()
            try:
                await self._watch(connection)
            finally:
                self.connection = None
                self._pool.let_go(connection)
            self._pool.disconnected(connection.failure)
            if connection.proven:
                failures = 0
            else:  # a server that accepts and drops everybody is no better than none
                failures += 1
                await self._pause(failures)

    async def _dial(self) -> Connection:
        self.dialling = True
        try:
            return await self._pool.dial()
        finally:
            self.dialling = False

    async def _pause(self, failures: int) -> None:
        await asyncio.sleep(backoff_delay(self._limits, failures, random.random()))  # noqa: S311

    async def _watch(self, connection: Connection) -> None:
        """As long as the connection takes calls, ask after the server whenever it is quiet."""
        loop = asyncio.get_running_loop()
        while not connection.spent.done():
            quiet_at = connection.last_active + self._limits.keepalive
            await asyncio.wait((connection.spent,), timeout=max(quiet_at - loop.time(), 0.01))
            quiet = loop.time() - connection.last_active >= self._limits.keepalive
            if quiet and not connection.spent.done():
                await self._check(connection)

    async def _check(self, connection: Connection) -> None:
        limit = self._limits.keepalive_timeout
        before = connection.last_active
        try:
            await connection.exchange(Rpcs.ping, _PING_PAYLOAD, timeout=limit)
        except DeadlineExceeded:
            if connection.last_active > before:
                return  # behind a large request, a Ping may not even leave
            connection.abort(ConnectionLost(f"the server did not answer a Ping within {limit:g} s"))
        except TransportError as error:
            connection.abort(ConnectionLost(f"the keep-alive Ping failed: {error}"))
        except ZapError as error:
            logger.info("the keep-alive Ping was answered with an error: %.200r", str(error))


class ConnectionPool:
    """Persistent connections to one server; the least busy one carries a call.

    ``async with ConnectionPool(...)`` starts to dial and does not wait: a server that is not there
    yet is dialled again and again. A call that only reads is repeated once when its connection
    breaks, on one where the server is heard since; a call that changes something is sent at most
    once.

    Args:
        address: host:port of a netrunner server.
        identity: who we are.
        server: whom to accept; see dial.
        size: how many connections to keep.
        limits: all other bounds.
        observer: told what happens to connections.
    """

    def __init__(
        self,
        address: str,
        identity: Identity,
        server: Expected = None,
        size: int = 2,
        limits: PoolLimits | None = None,
        observer: PoolObserver | None = None,
    ) -> None:
        parse_address(address)
        self.address = address
        self.limits = limits or PoolLimits()
        self._observer = observer or PoolObserver()
        self._identity = identity
        self._server = server
        self._slots = [_Slot(self) for _ in range(size)]
        self._now: Callable[[], float] = time.monotonic
        """The event loop's clock, once there is one."""
        self._tasks: list[asyncio.Task[None]] = []
        self._retired: set[Connection] = set()
        self._dialled: set[Connection] = set()
        self._bytes_received = 0
        self._bytes_sent = 0
        self._changed = asyncio.Event()
        self._calls = 0
        self._down_since = math.inf
        self._told_down = False
        self._lost = 0
        self._closed = False
        self.last_failure: ZapError | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._now = loop.time
        self._closed = False
        self._down_since = loop.time()
        self._tasks = [loop.create_task(slot.run()) for slot in self._slots]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; calls under way end with ConnectionLost."""
        connections = {*self.connections, *self._retired}
        self._closed = True
        self._notify()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await asyncio.gather(*(connection.wait_closed() for connection in connections))

    @property
    def connections(self) -> list[Connection]:
        """The connections that can carry calls now."""
        found = (slot.connection for slot in self._slots)
        return [connection for connection in found if connection and connection.usable]

    @property
    def connected_now(self) -> bool:
        """Whether any connection can carry calls now."""
        return bool(self.connections)

    @property
    def calls(self) -> int:
        """Calls under way or waiting for a connection."""
        return self._calls

    @property
    def size(self) -> int:
        """How many connections it keeps when all is well."""
        return len(self._slots)

    @property
    def dialling(self) -> int:
        """Connections of the pool that are being made now."""
        return sum(slot.dialling for slot in self._slots)

    @property
    def bytes_received(self) -> int:
        """From the server, on the wire, over all connections so far."""
        return self._bytes_received + sum(each.bytes_received for each in self._dialled)

    @property
    def bytes_sent(self) -> int:
        """To the server, on the wire, over all connections so far."""
        return self._bytes_sent + sum(each.bytes_sent for each in self._dialled)

    @property
    def circuit_open(self) -> bool:
        """Whether calls fail at once: there has been no connection for too long."""
        down_for = self._now() - self._down_since
        return down_for >= self.limits.acquire_timeout and not self.connected_now

    async def dial(self) -> Connection:
        """A fresh connection, outside the pool; see dial for what can go wrong."""
        try:
            connection = await dial(
                self.address,
                self._identity,
                self._server,
                timeout=self.limits.connect_timeout,
                max_calls=self.limits.max_calls + 1,  # room for the keep-alive Ping
            )
        except ZapError as error:
            self._observer.dial_failed(error)
            raise
        self._dialled.add(connection)
        connection.closed.add_done_callback(lambda _: self._forget(connection))
        self._observer.dialled(connection)
        return connection

    def _forget(self, connection: Connection) -> None:
        """A connection is gone; what it carried stays counted."""
        self._dialled.discard(connection)
        self._bytes_received += connection.bytes_received
        self._bytes_sent += connection.bytes_sent

    async def wait_connected(self, timeout: float) -> None:
        """Wait until a connection stands.

        Raises:
            ZapError: the last failure to connect, after ``timeout`` seconds.
        """
        await self._acquire(asyncio.get_running_loop().time() + timeout)

    async def call(
        self,
        method: Method[Request, Response],
        request: Message | None = None,
        *,
        timeout: float | None = None,
    ) -> Response:
        """Call once and decode the answer; see :meth:`exchange`."""
        body = await self.exchange(method, method.encode_request(request), timeout=timeout)
        return (
            method.response.decode(body) if len(body) <= LARGE_BODY else await decoded(method, body)
        )

    async def exchange(
        self, method: Method[Message, Message], payload: bytes, *, timeout: float | None = None
    ) -> bytes:
        """Send a request that is encoded already; the answer's body.

        Args:
            method: the RPC.
            payload: its request, with the sub-opcode.
            timeout: seconds for everything, waiting for a connection included.

        Raises:
            RemoteError: the server answered with an error text.
            DeadlineExceeded: no answer in time.
            OutcomeUnknown: the connection broke while a changing call was under way.
            ConnectionLost: it broke twice under a call that only reads.
            ConnectFailed, HandshakeError, IdentityMismatch: no connection can be had, and why.
            Overloaded: too many calls are under way.
        """
        if self._calls >= self.limits.max_calls:
            raise Overloaded(f"{self._calls} calls are under way: try again soon")
        if timeout is None:
            timeout = self.limits.call_timeout
        deadline = self._now() + timeout
        self._calls += 1
        try:
            connection = self._least_busy()
            if connection is None:
                connection = await self._acquire(self._patience(deadline))
                timeout = deadline - self._now()
            call = connection.begin(method, payload, timeout)
            try:
                if call is None:
                    return await connection.exchange(method, payload, timeout=timeout)
                return await call.future
            except asyncio.CancelledError:
                if call is not None:
                    connection.abandon(call)
                raise
            except ConnectionLost as error:
                lost = error
            return await self._repeat(method, payload, deadline, lost)
        finally:
            self._calls -= 1

    async def _repeat(
        self,
        method: Method[Message, Message],
        payload: bytes,
        deadline: float,
        lost: ConnectionLost,
    ) -> bytes:
        """Send a call again whose connection broke, if it may be sent twice."""
        _check_repeatable(method, lost)
        if self._closed:
            raise lost
        another = await self._another(deadline)
        try:
            return await another.exchange(method, payload, timeout=deadline - self._now())
        except ConnectionLost as error:
            _check_repeatable(method, error)
            raise

    def begin(
        self, method: Method[Message, Message], payload: bytes, timeout: float, ended: Ended
    ) -> Batch | None:
        """Send at once, without a coroutine; otherwise as :meth:`exchange`.

        Args:
            method: the RPC.
            payload: its request, with the sub-opcode.
            timeout: seconds for everything.
            ended: called with the answer's body. Where it takes longer, or failed, called with
                None, and what makes the coroutine that gives the body or raises the error.

        Returns:
            What the request leaves with; None where it can't be sent at once, and then nothing
            has happened.
        """
        connection = self._least_busy()
        if connection is None or self._calls >= self.limits.max_calls:
            return None
        deadline = self._now() + timeout
        call = connection.begin(method, payload, timeout)
        if call is None:
            return None

        def take(answer: asyncio.Future[bytes]) -> None:
            self._calls -= 1
            failure = answer.exception()
            resume = partial(self._resume, method, payload, deadline, failure)
            ended(answer.result() if failure is None else None, resume)

        self._calls += 1
        call.future.add_done_callback(take)
        return call.batch

    async def _resume(
        self,
        method: Method[Message, Message],
        payload: bytes,
        deadline: float,
        failure: BaseException | None,
    ) -> bytes:
        """What becomes of a call that was begun and failed: a repeat's answer, or its error."""
        if not isinstance(failure, ConnectionLost):
            raise failure or AssertionError("there is nothing to resume")
        self._calls += 1
        try:
            return await self._repeat(method, payload, deadline, failure)
        finally:
            self._calls -= 1

    def _least_busy(self, heard_since: float = -math.inf) -> Connection | None:
        best: Connection | None = None
        for slot in self._slots:
            connection = slot.connection
            if connection is None or not connection.usable:
                continue
            if connection.last_received < heard_since:
                continue
            if best is None or connection.load < best.load:
                best = connection
        return best

    def _patience(self, deadline: float) -> float:
        """Until when a call waits for a connection: not for ever again while the server is down."""
        since = min(self._now(), self._down_since)
        return min(deadline, since + self.limits.acquire_timeout)

    async def _another(self, deadline: float) -> Connection:
        """A connection for a repeat.

        What took the first one may be about to take the others: for a moment only one will do on
        which the server is heard since.
        """
        lost_at = self._now()
        try:
            async with asyncio.timeout_at(min(deadline, lost_at + _AFTERMATH)):
                return await self._usable(heard_since=lost_at)
        except TimeoutError:
            return await self._acquire(self._patience(deadline))

    async def _acquire(self, until: float) -> Connection:
        """Wait for a connection that can carry a call; in vain while the server is a stranger."""
        if isinstance(self.last_failure, IdentityMismatch) and not self.connected_now:
            raise self._unavailable()
        try:
            async with asyncio.timeout_at(until):
                return await self._usable()
        except TimeoutError as error:
            raise self._unavailable() from error

    async def _usable(self, heard_since: float = -math.inf) -> Connection:
        """Wait for a connection that can carry a call, and was heard since then."""
        while (connection := self._least_busy(heard_since)) is None:
            if self._closed:
                raise ConnectionLost("the pool is closed", sent=False)
            self._changed.clear()
            await self._changed.wait()
        return connection

    def _unavailable(self) -> ZapError:
        failure = self.last_failure
        if failure is None:
            return ConnectFailed(f"no connection to {self.address} yet")
        if isinstance(failure, ConnectionLost):
            return ConnectFailed(f"no connection to {self.address} any more: {failure}")
        return type(failure)(*failure.args)

    def stream(
        self, method: Method[Request, Response], request: Message | None = None
    ) -> AsyncIterator[Response]:
        """Read a streaming RPC on a connection of its own."""
        return stream_apart(self.dial, method, request)

    def bodies(
        self, method: Method[Message, Message], payload: bytes
    ) -> AsyncGenerator[bytes, None]:
        """As :meth:`stream`, for a request that is encoded already; bodies as they came."""
        return bodies_apart(self.dial, method, payload)

    # What the slots report.

    def connected(self) -> None:
        """A slot has a connection."""
        if self._lost:
            self._lost -= 1
            self._observer.reconnected()
        again = " again" if self.last_failure is not None else ""
        level = logging.WARNING if again else logging.INFO
        logger.log(level, "connected to %s%s", self.address, again)
        self._down_since, self._told_down = math.inf, False
        self.last_failure = None
        self._notify()

    def dial_failed(self, error: ZapError) -> None:
        """A slot could not connect."""
        if str(error) != str(self.last_failure):
            logger.warning("no connection to %s: %s", self.address, error)
        self.last_failure = error
        if self.circuit_open and not self._told_down:
            self._told_down = True
            logger.warning("%s is down: calls fail at once until it is back", self.address)
        self._notify()

    def let_go(self, connection: Connection) -> None:
        """A slot is done with a connection: close it, or let the calls on it end first."""
        if not connection.retired:
            connection.close()
        elif not connection.closed.done():
            self._retired.add(connection)
            connection.closed.add_done_callback(lambda _: self._retired.discard(connection))

    def disconnected(self, error: ZapError | None) -> None:
        """A slot's connection is gone."""
        self._lost += 1
        if not self.connected_now:
            self._down_since = min(self._down_since, asyncio.get_running_loop().time())
        self.last_failure = error or ConnectionLost("the server closed the connection")
        logger.warning("connection to %s lost: %s", self.address, self.last_failure)

    def _notify(self) -> None:
        self._changed.set()


def _check_repeatable(method: Method[Message, Message], error: ConnectionLost) -> None:
    """A call that may have left and may change something must not be sent again."""
    if error.sent and not method.read_only:
        raise OutcomeUnknown(
            f"the connection broke while {method} was under way ({error}): it may or may not have"
            " taken effect. It was not repeated; look before you do"
        ) from error
