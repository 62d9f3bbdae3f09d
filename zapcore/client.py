"""NetrunnerClient: one method per RPC, over a connection or a pool."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import TypeAlias

from zapcore.codec import Message
from zapcore.connection import DEFAULT_TIMEOUT, HANDSHAKE_TIMEOUT, Connection, decoded, dial
from zapcore.methods import Caller, Method, Request, Response, Rpcs
from zapcore.zwing.handshake import Expected
from zapcore.zwing.identity import Identity

Dial: TypeAlias = Callable[[], Coroutine[None, None, Connection]]


class NetrunnerClient(Rpcs):
    """Every RPC as a method, typed by its row in METHODS::

        status = await client.status()
        await client.pause_node(name="node1")
        async for status in client.stream_status(push_interval=10**9): ...

    A method takes its request message, or that message's fields by name, and ``timeout`` in
    seconds. What it raises is told at :meth:`Connection.call`.

    Args:
        caller: what carries the calls: a Connection or a ConnectionPool.
        timeout: seconds for calls that don't say.
    """

    def __init__(self, caller: Caller, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._caller = caller
        self._timeout = timeout

    def call(
        self,
        method: Method[Request, Response],
        request: Message | None = None,
        *,
        timeout: float | None = None,
    ) -> Coroutine[None, None, Response]:
        """Call an RPC by its row."""
        limit = self._timeout if timeout is None else timeout
        return self._caller.call(method, request, timeout=limit)

    def stream(
        self, method: Method[Request, Response], request: Message | None = None
    ) -> AsyncIterator[Response]:
        """Read a streaming RPC by its row."""
        return self._caller.stream(method, request)


class StreamDialler:
    """A caller whose streams each get a connection of their own (protocol.md section 6)."""

    def __init__(self, connection: Connection, dial_another: Dial) -> None:
        self._connection = connection
        self._dial = dial_another

    def call(
        self,
        method: Method[Request, Response],
        request: Message | None = None,
        *,
        timeout: float | None = None,
    ) -> Coroutine[None, None, Response]:
        """See Connection.call."""
        return self._connection.call(method, request, timeout=timeout)

    def stream(
        self, method: Method[Request, Response], request: Message | None = None
    ) -> AsyncIterator[Response]:
        """See stream_apart."""
        return stream_apart(self._dial, method, request)


async def stream_apart(
    dial_another: Dial, method: Method[Request, Response], request: Message | None = None
) -> AsyncIterator[Response]:
    """Read a stream on a fresh connection, and close that when the reader is done."""
    payload = method.encode_request(request)
    async with aclosing(bodies_apart(dial_another, method, payload)) as bodies:
        async for body in bodies:
            yield await decoded(method, body)


async def bodies_apart(
    dial_another: Dial, method: Method[Message, Message], payload: bytes
) -> AsyncGenerator[bytes, None]:
    """As :func:`stream_apart`, for a request that is encoded already; bodies as they came."""
    connection = await dial_another()
    try:
        async with aclosing(connection.bodies(method, payload)) as bodies:
            async for body in bodies:
                yield body
    finally:
        await connection.wait_closed()


@asynccontextmanager
async def connect(
    address: str,
    *,
    identity: Identity,
    server: Expected = None,
    timeout: float = DEFAULT_TIMEOUT,
    connect_timeout: float = HANDSHAKE_TIMEOUT,
) -> AsyncIterator[NetrunnerClient]:
    """A client over one connection, closed at the end.

    Args:
        address: host:port of a netrunner server.
        identity: who we are.
        server: the server's public identity or fingerprint, or a rule such as
            ``KnownServers(path).rule(address)``. None accepts any server: somebody in between too.
        timeout: seconds for calls that don't say.
        connect_timeout: seconds for the connection and the handshake.

    Raises:
        ConnectFailed, HandshakeError, IdentityMismatch, InvalidAddress: see dial.
    """

    def dial_another() -> Coroutine[None, None, Connection]:
        return dial(address, identity, server, timeout=connect_timeout)

    connection = await dial_another()
    try:
        yield NetrunnerClient(StreamDialler(connection, dial_another), timeout=timeout)
    finally:
        await connection.wait_closed()
