"""The server against clients that are many, slow, silent, hostile or gone."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.integration.zap_helpers import (
    Peer,
    dialled,
    eventually,
    identity_of,
    no_task_left,
    scripted_client,
    serving,
    soon,
    tcp_client,
    told,
    turns,
)
from zapcore import Backend, NetrunnerServer, ServerLimits, SimulatedNetrunner, connect, messages
from zapcore.connection import parse_address
from zapcore.errors import (
    ConnectFailed,
    HandshakeError,
    NotFound,
    RemoteError,
    UnsupportedByServer,
)
from zapcore.framing import MAX_BODY_SIZE, MAX_MESSAGE_SIZE, Envelope, error_type, response_type
from zapcore.methods import METHODS, OPCODE_PING, OPCODE_START, Rpcs
from zapcore.server import ServerChannel
from zapcore.zwing import Identity, Initiator
from zapcore.zwing.records import MAX_FRAME_SIZE

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "messages.json").read_text())


class Scripted(Backend):
    """Tells what it was asked; PauseNode (a change) and Status (a read) wait for ``gate``."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.started: list[str] = []
        self.finished: list[str] = []
        self.cancelled: list[str] = []
        self.stream_ended = asyncio.Event()

    async def ping(self, request: messages.PingRequest) -> messages.PingResponse:
        return messages.PingResponse(7)

    async def pause_node(self, request: messages.PauseNodeRequest) -> messages.PauseNodeResponse:
        await self.wait(request.name)
        return told(request.name)

    async def status(self, request: messages.StatusRequest) -> messages.StatusResponse:
        await self.wait("status")
        return messages.StatusResponse()

    async def wait(self, name: str) -> None:
        self.started.append(name)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        self.finished.append(name)

    async def uris(self, request: messages.URIsRequest) -> messages.URIsResponse:
        """Four MiB."""
        return messages.URIsResponse(["x" * 2**20] * 4)

    async def stream_status(
        self, request: messages.StreamStatusRequest
    ) -> AsyncIterator[messages.StreamStatusResponse]:
        """One answer and then none; with an interval of 2, answers without end."""
        try:
            yield messages.StreamStatusResponse()
            while request.push_interval == 2:
                await asyncio.sleep(0)
                yield messages.StreamStatusResponse(messages.ClusterInfo(root_data_dir="x" * 65536))
            await self.gate.wait()
        finally:
            self.stream_ended.set()


class Raising(Backend):
    """Whatever it is asked fails with the same error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def status(self, request: messages.StatusRequest) -> messages.StatusResponse:
        raise self.error

    async def remove_node(self, request: messages.RemoveNodeRequest) -> messages.RemoveNodeResponse:
        raise self.error


class Answering(Backend):
    """Answers Status with what it was given, and Ping as it should."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    async def ping(self, request: messages.PingRequest) -> messages.PingResponse:
        return messages.PingResponse(7)

    async def status(self, request: messages.StatusRequest) -> object:
        return self.answer

    async def stream_status(self, request: messages.StreamStatusRequest) -> AsyncIterator[object]:
        yield messages.StreamStatusResponse()
        yield self.answer


async def is_served(server: NetrunnerServer, name: str = "client") -> None:
    """A good client is answered."""
    async with connect(server.address, identity=identity_of(name)) as client:
        await soon(client.ping())


async def pongs(peer: Peer, number: int = 1) -> bool:
    """A client that stands already is answered."""
    await peer.ask(Rpcs.ping, number=number)
    return (await soon(peer.message())).type == response_type(OPCODE_PING)


# Handshakes side by side.


@pytest.mark.parametrize("said", [0, 1, 4, 100, 6000])
async def test_a_client_that_stalls_in_its_handshake_keeps_nobody_out(said: int) -> None:
    init = Initiator(identity_of("stranger")).initiate()
    async with serving(Scripted()) as server, tcp_client(server.address) as stalling:
        await stalling.deliver(init[:said])
        await eventually(lambda: server.connections == 1)
        await is_served(server)
        await stalling.deliver(init[said:])
        assert await soon(stalling.frame())


async def test_a_hundred_silent_clients_keep_nobody_out() -> None:
    async with serving(Scripted()) as server, AsyncExitStack() as stack:
        for _ in range(100):
            await stack.enter_async_context(tcp_client(server.address))
        await eventually(lambda: server.connections == 100)
        await is_served(server)


async def test_many_good_clients_are_served_side_by_side() -> None:
    async with serving(Scripted()) as server:
        await soon(asyncio.gather(*(is_served(server) for _ in range(20))))
        await eventually(lambda: server.connections == 0)


@pytest.mark.parametrize("said", [0, 3, 5000])
async def test_the_handshake_time_out_drops_those_who_stall_and_nobody_else(said: int) -> None:
    limits = ServerLimits(handshake_timeout=0.1)
    async with serving(Scripted(), limits) as server, scripted_client(server.address) as good:
        async with tcp_client(server.address) as stalling:
            await stalling.deliver(Initiator(identity_of("stranger")).initiate()[:said])
            await stalling.closed()
        await eventually(lambda: server.connections == 1)
        assert await pongs(good)


async def test_the_oldest_pending_handshake_makes_room_for_a_new_client() -> None:
    limits = ServerLimits(max_pending_handshakes=2, handshake_timeout=60)
    async with serving(Scripted(), limits) as server, AsyncExitStack() as stack:
        peers = []
        for count in (1, 2):
            peers.append(await stack.enter_async_context(tcp_client(server.address)))
            await eventually(lambda count=count: server.connections == count)
        peers.append(await stack.enter_async_context(tcp_client(server.address)))
        await peers[0].closed()
        for peer in peers[1:]:
            await soon(peer.initiate(identity_of("client")))
            assert await pongs(peer)


async def test_clients_after_their_handshake_are_not_pending() -> None:
    limits = ServerLimits(max_pending_handshakes=1)
    async with serving(Scripted(), limits) as server, AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(scripted_client(server.address)) for _ in range(5)]
        for peer in peers:
            assert await pongs(peer)


async def test_clients_beyond_the_limit_are_refused_until_one_leaves() -> None:
    limits = ServerLimits(max_connections=2)
    async with serving(Scripted(), limits) as server, scripted_client(server.address) as first:
        async with scripted_client(server.address) as second:
            assert await pongs(first)
            assert await pongs(second)
            with pytest.raises(HandshakeError):
                await is_served(server)
            assert server.connections == 2
        await eventually(lambda: server.connections == 1)
        await is_served(server)
        assert await pongs(first)


async def test_clients_that_never_said_a_word_make_room_for_new_ones() -> None:
    """A first message can be replayed; whoever does that can't say anything more."""
    limits = ServerLimits(max_connections=2)
    async with serving(Scripted(), limits) as server, scripted_client(server.address) as known:
        assert await pongs(known)
        async with scripted_client(server.address) as silent:
            await is_served(server)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await soon(silent.frame())
        assert await pongs(known)


async def test_a_client_that_says_it_is_done_and_does_not_read_is_not_kept() -> None:
    """Less than what fills a socket's buffers may wait for it, and nobody would notice."""
    async with serving(SimulatedNetrunner()) as server, scripted_client(server.address) as peer:
        await eventually(lambda: server.connections == 1)
        peer.writer.transport.pause_reading()
        await peer.deliver(peer.secure.send(flood_of_status(2000)))
        peer.writer.write_eof()
        await eventually(lambda: server.connections == 0)


def flood_of_status(count: int) -> bytes:
    payload = Rpcs.status.encode_request()
    return b"".join(
        Envelope(Rpcs.status.opcode, number, payload).encode() for number in range(1, count + 1)
    )


async def test_a_client_on_the_allow_list_is_served_and_a_stranger_is_not() -> None:
    clients = [identity_of("client").public, identity_of("second client").public]
    async with serving(Scripted(), clients=clients) as server:
        with pytest.raises(HandshakeError, match="may not accept this client's identity"):
            await is_served(server, "stranger")
        await is_served(server)
        await is_served(server, "second client")
        await eventually(lambda: server.connections == 0)


async def test_an_empty_allow_list_lets_nobody_in() -> None:
    async with serving(Scripted(), clients=[]) as server:
        with pytest.raises(HandshakeError):
            await is_served(server)


def proof(identity: Identity, raw: bytes) -> bytes:
    """An init message that signs a public identity which need not be the signer's whole own."""
    signature = identity.sign("lux.zwing.v1/handshake-init", raw)
    payload = b"".join(struct.pack(">H", len(part)) + part for part in (raw, signature))
    return struct.pack(">I", len(payload)) + payload


def with_xwing(xwing: bytes) -> bytes:
    """A well-signed init message with other X-Wing keys."""
    identity = identity_of("client")
    raw = bytes(identity.public)
    return proof(identity, raw[: -len(xwing)] + xwing)


def changed(init: bytes, at: int) -> bytes:
    return init[:at] + bytes([init[at] ^ 1]) + init[at + 1 :]


INITS: dict[str, Callable[[bytes], bytes]] = {
    "HTTP": lambda _: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "an empty frame": lambda _: bytes(4),
    "a frame of another length": lambda init: struct.pack(">I", len(init)) + init[4:],
    "a huge frame": lambda _: b"\xff" * 4,
    "an identity of another length": lambda init: changed(init, 5),
    "a signature of another length": lambda init: changed(init, 4 + 2 + 3200 + 1),
    "a changed identity": lambda init: changed(init, 2000),
    "a changed signature": lambda init: changed(init, len(init) - 1),
    "noise": lambda init: init[:4] + b"\xa5" * (len(init) - 4),
    "an X25519 key of low order": lambda _: with_xwing(bytes(32)),
    "an ML-KEM key out of range": lambda _: with_xwing(b"\xff" * 1216),
    "bytes behind it": lambda init: init + b"?",
    "a second one behind it": lambda init: init * 2,
}


@pytest.mark.parametrize("name", INITS)
async def test_a_bad_first_message_ends_that_connection_only(name: str) -> None:
    init = INITS[name](Initiator(identity_of("client")).initiate())
    async with serving(Scripted()) as server, scripted_client(server.address) as good:
        async with tcp_client(server.address) as bad:
            bad.writer.write(init)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await soon(bad.frame())
        assert await pongs(good)
        await is_served(server)


async def test_one_init_message_may_be_sent_on_many_connections() -> None:
    """A public identity may sign once and use that again."""
    initiator = Initiator(identity_of("client"))
    init = initiator.initiate()
    async with serving(Scripted()) as server:
        for _ in range(2):
            async with tcp_client(server.address) as peer:
                await peer.deliver(init)
                peer.session = initiator.finish(await soon(peer.frame()))
                assert await pongs(peer)


async def test_a_client_that_leaves_during_its_handshake_leaves_nothing() -> None:
    async with serving(Scripted()) as server:
        for _ in range(5):
            async with tcp_client(server.address) as peer:
                await peer.deliver(Initiator(identity_of("client")).initiate())
        await eventually(lambda: server.connections == 0)
        await is_served(server)


async def test_requests_are_served_however_their_bytes_are_cut() -> None:
    def alone(data: bytes) -> list[bytes]:
        return [data[at : at + 1] for at in range(len(data))]

    async with serving(Scripted()) as server, tcp_client(server.address) as peer:
        peer.pieces = alone
        await soon(peer.initiate(identity_of("client")))
        assert await pongs(peer)
        message = Envelope(OPCODE_PING, 9, b"").encode()
        for byte in alone(message):
            await peer.deliver(peer.secure.send(byte))
        assert (await soon(peer.message())).request_id == 9


# Requests.


async def test_a_later_request_is_answered_before_an_earlier_one() -> None:
    backend = Scripted()
    async with serving(backend) as server, scripted_client(server.address) as peer:
        await peer.ask(Rpcs.status, number=1)
        await peer.ask(Rpcs.pause_node, messages.PauseNodeRequest("n"), number=2)
        await peer.ask(Rpcs.ping, number=3)
        assert (await soon(peer.message())).request_id == 3
        assert sorted(backend.started) == ["n", "status"]
        backend.gate.set()
        assert {(await soon(peer.message())).request_id for _ in range(2)} == {1, 2}


async def test_requests_beyond_the_limit_wait_and_none_is_lost() -> None:
    backend = Scripted()
    limits = ServerLimits(max_requests=2)
    async with serving(backend, limits) as server, dialled(server.address) as connection:
        names = [f"n{number}" for number in range(7)]
        calls = [
            asyncio.create_task(connection.call(Rpcs.pause_node, messages.PauseNodeRequest(name)))
            for name in names
        ]
        await eventually(lambda: len(backend.started) == 2)
        await turns(50)
        assert backend.started == ["n0", "n1"]
        # Another connection has a limit of its own.
        await is_served(server)
        backend.gate.set()
        assert await soon(asyncio.gather(*calls)) == [told(name) for name in names]


async def test_a_flood_of_requests_is_answered_to_the_last() -> None:
    limits = ServerLimits(max_requests=3)
    async with serving(Scripted(), limits) as server, scripted_client(server.address) as peer:
        numbers = range(1, 5001)
        flood = b"".join(Envelope(OPCODE_PING, number, b"").encode() for number in numbers)
        sending = asyncio.create_task(peer.deliver(peer.secure.send(flood)))
        answered = {(await soon(peer.message())).request_id for _ in numbers}
        assert answered == set(numbers)
        await sending


async def test_an_unknown_exception_of_the_backend_is_a_handler_panic() -> None:
    async with serving(Raising(ValueError("boom"))) as server, dialled(server.address) as c:
        for _ in range(2):
            with pytest.raises(RemoteError, match=r"^handler panic: boom$"):
                await soon(c.call(Rpcs.status))


@pytest.mark.parametrize("error", [RemoteError("as it is: ü"), NotFound("node not found")])
async def test_an_error_of_the_backend_reaches_the_client_as_it_is(error: RemoteError) -> None:
    async with serving(Raising(error)) as server, dialled(server.address) as connection:
        with pytest.raises(type(error)) as caught:
            await soon(connection.call(Rpcs.status))
        assert str(caught.value) == str(error)


async def test_a_backend_that_cancels_itself_still_answers() -> None:
    """A call must not wait for ever for what the backend gave up."""
    async with serving(Raising(asyncio.CancelledError())) as server:  # noqa: SIM117
        async with dialled(server.address) as connection:
            with pytest.raises(RemoteError):
                await connection.call(Rpcs.status, timeout=0.5)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (messages.PingResponse(1), "Status was answered with a PingResponse"),
        (None, "Status was answered with a NoneType"),
        (messages.StatusResponse(messages.ClusterInfo(pid=2**40)), r"ClusterInfo|StatusResponse"),
        (
            messages.StatusResponse(messages.ClusterInfo(root_data_dir="x" * MAX_BODY_SIZE)),
            "beyond 16777212 bytes",
        ),
    ],
    ids=["another message", "nothing", "what does not encode", "too much"],
)
async def test_an_answer_that_can_not_be_sent_is_an_error_answer(answer: object, text: str) -> None:
    async with serving(Answering(answer)) as server, dialled(server.address) as connection:
        with pytest.raises(RemoteError, match=text):
            await soon(connection.call(Rpcs.status))
        assert (await soon(connection.call(Rpcs.ping))).pid == 7


async def test_an_answer_of_the_largest_size_is_sent() -> None:
    size = MAX_BODY_SIZE - len(messages.StatusResponse(messages.ClusterInfo()).encode())
    answer = messages.StatusResponse(messages.ClusterInfo(root_data_dir="x" * size))
    assert len(answer.encode()) == MAX_BODY_SIZE
    async with serving(Answering(answer)) as server, dialled(server.address) as connection:
        assert await soon(connection.call(Rpcs.status)) == answer


async def test_a_streams_bad_answer_ends_it_with_an_error() -> None:
    backend = Answering(messages.PingResponse(1))
    async with serving(backend) as server, dialled(server.address) as connection:
        stream = connection.stream(Rpcs.stream_status)
        await soon(anext(stream))
        with pytest.raises(RemoteError, match="StreamStatus was answered with a PingResponse"):
            await soon(anext(stream))
        assert (await soon(connection.call(Rpcs.ping))).pid == 7


@pytest.mark.parametrize("row", METHODS.values(), ids=str)
async def test_an_rpc_without_a_backend_method_is_unsupported(row: object) -> None:
    async with serving(Backend()) as server, scripted_client(server.address) as peer:
        await peer.ask(row)
        answer = await soon(peer.message())
        assert answer.type == error_type(row.opcode)
        if row.sub_opcode is None:
            text = f"zapwire: unknown opcode 0x{row.opcode:02x}"
        else:
            text = f"zapwire: unknown SubOp 0x{row.sub_opcode:02x} for OpStart"
        assert answer.body.decode() == text
    async with serving(Backend()) as server, dialled(server.address) as connection:
        call = anext(connection.stream(row)) if row.streaming else connection.call(row)
        with pytest.raises(UnsupportedByServer):
            await soon(call)


@pytest.mark.parametrize("vector", VECTORS["errors"], ids=lambda vector: vector["name"])
async def test_the_server_errs_in_the_references_own_bytes(vector: dict[str, str]) -> None:
    panic = vector["name"] == "handler_panic"
    error = Exception("boom") if panic else RemoteError(vector["message"])
    async with serving(Raising(error)) as server, scripted_client(server.address) as peer:
        await peer.deliver(peer.secure.send(bytes.fromhex(vector["request_frame"])))
        assert (await soon(peer.record())).hex() == vector["response_frame"]


async def test_trailing_bytes_of_a_request_are_ignored() -> None:
    """A newer client may have added fields."""
    backend = Scripted()
    backend.gate.set()
    async with serving(backend) as server, scripted_client(server.address) as peer:
        body = Rpcs.pause_node.encode_request(messages.PauseNodeRequest("n")) + b"more"
        await peer.send(Envelope(OPCODE_START, 5, body))
        answer = await soon(peer.message())
        assert messages.PauseNodeResponse.decode(answer.body) == told("n")


class Hasty(Backend):
    """Its stream never waits for anything."""

    def __init__(self) -> None:
        self.others_ran_after: int | None = None

    async def stream_status(
        self, request: messages.StreamStatusRequest
    ) -> AsyncIterator[messages.StreamStatusResponse]:
        others = asyncio.Event()
        asyncio.get_running_loop().call_soon(others.set)
        for number in range(1000):
            yield messages.StreamStatusResponse(messages.ClusterInfo(pid=number))
            if others.is_set() and self.others_ran_after is None:
                self.others_ran_after = number


async def test_a_stream_that_never_waits_lets_others_run() -> None:
    """And what it brings leaves as it comes, not all of it at the end."""
    backend = Hasty()
    async with serving(backend) as server, dialled(server.address) as connection:
        answers = [answer async for answer in connection.stream(Rpcs.stream_status)]
        assert len(answers) == 1000
        assert backend.others_ran_after is not None


# Clients that leave.


async def test_a_stream_ends_when_its_client_goes() -> None:
    backend = Scripted()
    async with serving(backend) as server, scripted_client(server.address) as peer:
        await peer.ask(Rpcs.stream_status)
        assert await soon(peer.message())
        peer.writer.transport.abort()
        await soon(backend.stream_ended.wait())


async def test_a_stream_whose_client_does_not_read_ends_when_the_client_goes() -> None:
    backend = Scripted()
    async with serving(backend) as server, scripted_client(server.address) as peer:
        await peer.ask(Rpcs.stream_status, messages.StreamStatusRequest(push_interval=2))
        (channel,) = server._channels
        await eventually(lambda: not channel._writable.is_set())
        assert not backend.stream_ended.is_set()
        peer.writer.transport.abort()
        await soon(backend.stream_ended.wait())


async def test_a_change_goes_on_and_a_read_is_cancelled_when_the_client_leaves() -> None:
    backend = Scripted()
    async with serving(backend) as server:
        async with scripted_client(server.address) as peer:
            await peer.ask(Rpcs.pause_node, messages.PauseNodeRequest("change"), number=1)
            await peer.ask(Rpcs.status, number=2)
            await eventually(lambda: len(backend.started) == 2)
        await eventually(lambda: backend.cancelled == ["status"])
        backend.gate.set()
        await eventually(lambda: backend.finished == ["change"])
        assert backend.cancelled == ["status"]


async def test_a_client_that_leaves_while_requests_wait_leaves_nothing() -> None:
    backend = Scripted()
    async with serving(backend, ServerLimits(max_requests=1)) as server:
        async with scripted_client(server.address) as peer:
            for number, name in enumerate(["first", "second"], 1):
                await peer.ask(Rpcs.pause_node, messages.PauseNodeRequest(name), number=number)
            await eventually(lambda: backend.started == ["first"])
        backend.gate.set()
        await eventually(lambda: server.connections == 0)
        await eventually(lambda: not server._tasks)
        assert backend.finished == backend.started


async def test_a_client_that_never_reads_is_dropped_and_others_are_served() -> None:
    limits = ServerLimits(write_timeout=0.2)
    async with serving(Scripted(), limits) as server, scripted_client(server.address) as good:
        async with scripted_client(server.address) as deaf:
            deaf.writer.transport.pause_reading()
            for number in range(1, 9):
                await deaf.ask(Rpcs.uris, number=number)
            await eventually(lambda: any(not c._writable.is_set() for c in server._channels))
            assert await pongs(good)
            await eventually(lambda: server.connections == 1)
        assert await pongs(good, 2)


async def test_a_client_that_reads_again_in_time_is_not_dropped() -> None:
    limits = ServerLimits(write_timeout=60)
    async with serving(Scripted(), limits) as server, scripted_client(server.address) as slow:
        channel = await deafen(slow, server)
        slow.writer.transport.resume_reading()
        answers = {(await soon(slow.message())).request_id for _ in range(3)}
        assert answers == {1, 2, 3}
        assert channel._stalled.cancelled()


async def deafen(peer: Peer, server: NetrunnerServer) -> ServerChannel:
    """Ask for more than the sockets hold, and read none of it."""
    peer.writer.transport.pause_reading()
    for number in range(1, 4):
        await peer.ask(Rpcs.uris, number=number)
    (channel,) = server._channels
    await eventually(lambda: not channel._writable.is_set())
    return channel


def kept(channel: ServerChannel) -> int:
    """Bytes of answers that wait for the client."""
    assert channel._transport is not None
    return channel._transport.get_write_buffer_size() + sum(
        map(len, (*channel._outgoing, *channel._rest))
    )


async def test_what_ends_before_it_has_begun_ends_quietly() -> None:
    """As when the server closes in the very turn in which a client said its first word."""

    async def work() -> None:
        raise AssertionError("it was begun")

    async with serving(Scripted()) as server:
        task = server.spawn(work())
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        gc.collect()  # a coroutine that nobody ran would be told of


async def test_answers_to_a_client_that_never_reads_are_bounded() -> None:
    """What it asks for waits until it takes the answers that there are."""
    limits = ServerLimits(write_timeout=60)
    async with serving(Scripted(), limits) as server, scripted_client(server.address) as deaf:
        channel = await deafen(deaf, server)
        for number in range(4, 24):
            await deaf.ask(Rpcs.uris, number=number)
        await turns(100)
        assert kept(channel) < 32 * 2**20
        deaf.writer.transport.resume_reading()
        answers = {(await soon(deaf.message())).request_id for _ in range(1, 24)}
        assert answers == set(range(1, 24))


async def test_errors_to_a_client_that_never_reads_are_bounded() -> None:
    limits = ServerLimits(write_timeout=60)
    async with serving(Scripted(), limits) as server, scripted_client(server.address) as deaf:
        channel = await deafen(deaf, server)
        before = kept(channel)
        unknown = Envelope(0x01, 1, b"").encode() * 7000

        async def flood() -> None:
            for _ in range(100):
                await deaf.deliver(deaf.secure.send(unknown))

        flooding = asyncio.create_task(flood())
        await eventually(lambda: flooding.done() or not channel._transport.is_reading())
        after = kept(channel)
        flooding.cancel()
        await asyncio.wait([flooding])
        assert after - before < 8 * 2**20


# Clients that break rules.

GARBAGE: dict[str, Callable[[Peer], bytes]] = {
    "bytes in clear": lambda _: Envelope(OPCODE_PING, 1, b"").encode() + b"more to fill",
    "a record sent twice": lambda peer: peer.secure.send(b"\x00\x00\x00\x04") * 2,
    "a record of nothing": lambda peer: peer.secure._writer._seal(b""),
    "an empty frame": lambda _: bytes(4),
    "an oversized frame": lambda _: struct.pack(">I", MAX_FRAME_SIZE + 1),
    "a message without an id": lambda peer: peer.secure.send(struct.pack(">IB", 3, 60) + bytes(3)),
    "an oversized message": lambda p: p.secure.send(struct.pack(">IB", MAX_MESSAGE_SIZE + 1, 60)),
    "another handshake": lambda _: Initiator(identity_of("client")).initiate(),
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_after_the_handshake_ends_only_that_connection(name: str) -> None:
    async with serving(Scripted()) as server, scripted_client(server.address) as good:
        async with scripted_client(server.address) as bad:
            await bad.deliver(GARBAGE[name](bad))
            await bad.closed()
        await eventually(lambda: server.connections == 1)
        assert await pongs(good)


async def test_a_client_cut_in_mid_message_leaves_nothing() -> None:
    async with serving(Scripted()) as server:
        async with scripted_client(server.address) as peer:
            await peer.deliver(peer.secure.send(Envelope(OPCODE_START, 1, b"\x04").encode())[:-3])
        await eventually(lambda: server.connections == 0)
        await is_served(server)


# Starting and closing.


async def test_closing_ends_everything_and_leaves_no_task() -> None:
    backend = Scripted()
    with no_task_left() as check:
        async with AsyncExitStack() as stack:
            server = NetrunnerServer(backend, identity_of("server"))
            await server.start(port=0)
            silent = await stack.enter_async_context(tcp_client(server.address))
            peers = [
                await stack.enter_async_context(scripted_client(server.address)) for _ in range(4)
            ]
            await peers[0].ask(Rpcs.pause_node, messages.PauseNodeRequest("change"))
            await peers[1].ask(Rpcs.status)
            await peers[2].ask(Rpcs.stream_status)
            peers[3].writer.transport.pause_reading()
            endless = messages.StreamStatusRequest(push_interval=2)
            await peers[3].ask(Rpcs.stream_status, endless)
            await eventually(lambda: len(backend.started) == 2)
            await soon(peers[2].message())
            await eventually(lambda: any(not c._writable.is_set() for c in server._channels))
            await soon(server.close())
            assert sorted(backend.cancelled) == ["change", "status"]
            await soon(backend.stream_ended.wait())
            await eventually(lambda: server.connections == 0)
            for peer in (silent, *peers[:3]):
                await peer.closed()
        await check()


async def test_nobody_listens_once_the_server_is_closed() -> None:
    async with serving(Scripted()) as server:
        address = server.address
    with pytest.raises(ConnectFailed):
        async with connect(address, identity=identity_of("client")):
            pytest.fail("connected to a closed server")


async def test_closing_begins_none_of_the_requests_that_wait() -> None:
    """Also where answers are stuck in the connection, so that it can't be closed at once."""
    backend = Scripted()
    backend.gate.set()
    with no_task_left() as check:
        limits = ServerLimits(max_requests=4)
        async with (
            serving(backend, limits) as server,
            scripted_client(server.address) as peer,
        ):
            channel = await deafen(peer, server)
            late = Rpcs.pause_node.encode_request(messages.PauseNodeRequest("late"))
            uris = Rpcs.uris.encode_request(messages.URIsRequest())
            await peer.send(
                *(Envelope(OPCODE_START, number, uris) for number in range(4, 8)),
                Envelope(OPCODE_START, 9, late),
            )
            await turns(100)
            await soon(server.close())
            await eventually(channel.closed.done)
            await turns(50)
            assert backend.started == []
        await check()


async def test_closing_during_handshakes_leaves_nothing() -> None:
    with no_task_left() as check:
        async with AsyncExitStack() as stack:
            server = NetrunnerServer(Scripted(), identity_of("server"))
            await server.start(port=0)
            init = Initiator(identity_of("client")).initiate()
            peers = [await stack.enter_async_context(tcp_client(server.address)) for _ in range(8)]
            for peer in peers:
                peer.writer.write(init)
            await eventually(lambda: server._tasks)
            await soon(server.close())
            await eventually(lambda: server.connections == 0)
            for peer in peers:
                await peer.closed()
        await check()


async def test_a_server_can_be_closed_twice_and_before_it_started() -> None:
    server = NetrunnerServer(Scripted(), identity_of("server"))
    await server.close()
    async with server.serving():
        await server.close()


async def test_a_port_in_use_is_an_error_of_the_system() -> None:
    async with serving(Scripted()) as server:
        port = parse_address(server.address)[1]
        other = NetrunnerServer(Scripted(), identity_of("server"))
        with pytest.raises(OSError, match="in use"):
            await other.start(port=port)
        await other.close()
        await is_served(server)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
async def test_an_ipv6_server_tells_an_address_that_can_be_dialled() -> None:
    server = NetrunnerServer(SimulatedNetrunner(), identity_of("server"))
    async with server.serving("::1"):
        assert server.address.startswith("[::1]:")
        await is_served(server)
