"""Peers that do exactly what a test wants, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from typing import TypeVar

from zapcore import NetrunnerServer, ServerLimits, messages
from zapcore.codec import Message
from zapcore.connection import Connection, dial, parse_address
from zapcore.framing import Envelope, MessageReader, error_type, response_type
from zapcore.methods import Method
from zapcore.zwing import Identity, Initiator, PublicIdentity, Responder, Session

T = TypeVar("T")

HANG = 15.0
"""Seconds after which a test is taken to hang. No test depends on how long anything takes."""


@cache
def identity_of(name: str) -> Identity:
    """One identity per name, made once per test session."""
    return Identity.generate()


async def soon(awaitable: Awaitable[T]) -> T:
    """Await with a hang guard."""
    async with asyncio.timeout(HANG):
        return await awaitable


async def eventually(predicate: Callable[[], object]) -> None:
    """Poll until the predicate holds."""
    async with asyncio.timeout(HANG):
        while not predicate():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def turns(count: int = 10) -> None:
    """Let the event loop turn a few times."""
    for _ in range(count):
        await asyncio.sleep(0)


@contextmanager
def no_task_left() -> Iterator[Callable[[], Awaitable[None]]]:
    """Gives a check that no task is left but those from before."""
    before = asyncio.all_tasks()
    yield lambda: eventually(lambda: not asyncio.all_tasks() - before)


def free_port() -> int:
    """A port of loopback on which nobody listens.

    It lies below the range from which the system takes ports for clients: there a connection of
    the tests' own could take the port before the server that is to listen on it.
    """
    while True:
        port = random.randrange(20_000, 32_000)  # noqa: S311
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def whole(data: bytes) -> Iterator[bytes]:
    """Deliver in one piece."""
    yield data


class Peer:
    """One end of a TCP connection, in a script's hands."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pieces: Callable[[bytes], Iterable[bytes]] = whole,
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.pieces = pieces
        self.session: Session | None = None
        self.gone = asyncio.Event()
        self.records = 0
        self.received: list[Envelope] = []
        self._messages = MessageReader()
        self._pending: list[Envelope] = []

    @property
    def secure(self) -> Session:
        assert self.session is not None
        return self.session

    async def frame(self) -> bytes:
        """A Z-Wing frame's payload."""
        header = await self.reader.readexactly(4)
        return await self.reader.readexactly(struct.unpack(">I", header)[0])

    async def deliver(self, wire: bytes) -> None:
        """Bytes as they are, in the pieces that the test chose, each in a turn of its own."""
        for piece in self.pieces(wire):
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def respond(self, identity: Identity) -> None:
        """The server's side of the handshake."""
        answer, self.session = Responder(identity).respond(await self.frame())
        await self.deliver(answer)

    async def initiate(self, identity: Identity) -> None:
        """The client's side of the handshake."""
        initiator = Initiator(identity)
        await self.deliver(initiator.initiate())
        self.session = initiator.finish(await self.frame())

    async def record(self) -> bytes:
        """The plaintext of the next record."""
        payload = await self.frame()
        self.records += 1
        return self.secure.receive(struct.pack(">I", len(payload)) + payload)

    async def message(self) -> Envelope:
        """The next ZAP message."""
        while not self._pending:
            self._pending = self._messages.receive(await self.record())
        envelope = self._pending.pop(0)
        self.received.append(envelope)
        return envelope

    async def send(self, *sent: Envelope) -> None:
        """ZAP messages in one record."""
        await self.deliver(self.secure.send(b"".join(envelope.encode() for envelope in sent)))

    async def answer(self, request: Envelope, response: Message | bytes) -> None:
        """A success."""
        await self.send(success(request, response))

    async def answer_error(self, request: Envelope, text: str) -> None:
        """An error text."""
        await self.send(Envelope(error_type(request.type), request.request_id, text.encode()))

    async def ask(
        self, method: Method[Message, Message], request: Message | None = None, number: int = 1
    ) -> None:
        """A request."""
        payload = method.encode_request(request or method.request())
        await self.send(Envelope(method.opcode, number, payload))

    async def closed(self) -> None:
        """Read until the other end closes the connection, gracefully or not."""
        with suppress(ConnectionError):
            while await soon(self.reader.read(65536)):
                pass
        self.gone.set()

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


def success(request: Envelope, response: Message | bytes) -> Envelope:
    """The success that answers a request."""
    body = response if isinstance(response, bytes) else response.encode()
    return Envelope(response_type(request.type), request.request_id, body)


def pong(request: Envelope, pid: int = 1) -> Envelope:
    """The answer to a Ping."""
    return success(request, messages.PingResponse(pid))


def echo(request: Envelope) -> Envelope:
    """The answer to a PauseNode; it tells the node that the request named."""
    name = messages.PauseNodeRequest.decode(request.body[1:]).name
    return success(request, told(name))


def told(name: str) -> messages.PauseNodeResponse:
    """What `echo` says."""
    return messages.PauseNodeResponse(messages.ClusterInfo(root_data_dir=name))


Script = Callable[[Peer], Awaitable[None]]


class ScriptedServer:
    """A server that plays a script on every connection, after the handshake or (raw) without one.

    A script that ends leaves its connection open; the end of the `async with` block closes all,
    and fails if a script failed other than by the client's leaving.
    """

    def __init__(
        self,
        script: Script,
        *,
        raw: bool = False,
        pieces: Callable[[bytes], Iterable[bytes]] = whole,
    ) -> None:
        self.identity = identity_of("server")
        self.peers: list[Peer] = []
        self.port = 0
        self._script = script
        self._raw = raw
        self._pieces = pieces
        self._tasks: list[asyncio.Task[None]] = []
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def received(self) -> list[Envelope]:
        """Every message that any script took."""
        return [envelope for peer in self.peers for envelope in peer.received]

    async def __aenter__(self) -> ScriptedServer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, self._pieces)
        self.peers.append(peer)
        self._tasks.append(asyncio.get_running_loop().create_task(self._play(peer)))

    async def _play(self, peer: Peer) -> None:
        try:
            if not self._raw:
                await peer.respond(self.identity)
            await self._script(peer)
        except (asyncio.IncompleteReadError, ConnectionError):
            peer.gone.set()

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self.peers:
            peer.writer.transport.abort()
            await peer.close()
        for result in results:
            if isinstance(result, Exception):
                raise result


@asynccontextmanager
async def dialled(server: ScriptedServer | str, **options: object) -> AsyncIterator[Connection]:
    """A connection of our own, closed at the end."""
    address = server if isinstance(server, str) else server.address
    connection = await soon(dial(address, identity_of("client"), **options))
    try:
        yield connection
    finally:
        await connection.wait_closed()
        await eventually(connection.closed.done)


@asynccontextmanager
async def serving(
    backend: object,
    limits: ServerLimits | None = None,
    clients: Iterable[PublicIdentity] | None = None,
) -> AsyncIterator[NetrunnerServer]:
    """Our server, on a free port."""
    server = NetrunnerServer(backend, identity_of("server"), clients, limits)
    async with server.serving():
        yield server


@asynccontextmanager
async def tcp_client(address: str) -> AsyncIterator[Peer]:
    """A client that has connected and said nothing yet."""
    reader, writer = await asyncio.open_connection(*parse_address(address))
    peer = Peer(reader, writer)
    try:
        yield peer
    finally:
        peer.writer.transport.abort()
        await peer.close()


@asynccontextmanager
async def scripted_client(address: str, name: str = "client") -> AsyncIterator[Peer]:
    """A client after its handshake, in a script's hands."""
    async with tcp_client(address) as peer:
        await soon(peer.initiate(identity_of(name)))
        yield peer
