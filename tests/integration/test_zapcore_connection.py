"""One connection against peers that do exactly what each test wants."""

from __future__ import annotations

import asyncio
import gc
import random
import struct
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from tests.integration.zap_helpers import (
    Peer,
    ScriptedServer,
    dialled,
    echo,
    eventually,
    free_port,
    identity_of,
    no_task_left,
    pong,
    soon,
    success,
    told,
    turns,
)
from zapcore import ConnectionPool, KnownServers, connect, messages
from zapcore import connection as connection_module
from zapcore.connection import Connection, dial, parse_address
from zapcore.errors import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    FramingError,
    HandshakeError,
    IdentityMismatch,
    InvalidAddress,
    MessageTooLarge,
    NotFound,
    Overloaded,
    ProtocolError,
    RecordError,
    RemoteError,
    TransportError,
    Truncated,
    UnknownServer,
    ZapError,
)
from zapcore.framing import (
    MAX_BODY_SIZE,
    MAX_ERROR_SIZE,
    MAX_MESSAGE_SIZE,
    Envelope,
    response_type,
)
from zapcore.methods import OPCODE_PING, Rpcs
from zapcore.zwing import Initiator, Responder
from zapcore.zwing.handshake import RESPONSE_SIZE
from zapcore.zwing.records import MAX_FRAME_SIZE

LAST_ID = 0xFFFFFFFF


async def never(peer: Peer) -> None:
    """Take requests and answer none."""
    while True:
        await peer.message()


async def answer_pings(peer: Peer) -> None:
    """Answer whatever comes as a Ping."""
    while True:
        await peer.send(pong(await peer.message()))


async def read_nothing(peer: Peer) -> None:
    """Take nothing: what the client writes piles up."""
    peer.writer.transport.pause_reading()


async def pause(connection: Connection, name: str) -> str:
    """A call whose answer tells which call it belongs to."""
    response = await connection.call(Rpcs.pause_node, messages.PauseNodeRequest(name))
    assert response.cluster_info is not None
    return response.cluster_info.root_data_dir


# Calls side by side.


async def test_answers_in_any_order_go_to_their_callers() -> None:
    names = [f"node{number}" for number in range(50)]

    async def shuffled(peer: Peer) -> None:
        requests = [await peer.message() for _ in names]
        random.Random(7).shuffle(requests)  # noqa: S311
        for request in requests:
            await peer.send(echo(request))

    async with ScriptedServer(shuffled) as server, dialled(server) as connection:
        assert await soon(asyncio.gather(*(pause(connection, name) for name in names))) == names
        assert connection.calls == 0


async def test_calls_of_one_turn_leave_in_one_record() -> None:
    async def answer_five(peer: Peer) -> None:
        requests = [await peer.message() for _ in range(5)]
        await peer.send(*map(pong, requests))

    async with ScriptedServer(answer_five) as server, dialled(server) as connection:
        await soon(asyncio.gather(*(connection.call(Rpcs.ping) for _ in range(5))))
        assert len(server.received) == 5
        assert server.peers[0].records == 1


async def test_request_ids_wrap_and_skip_those_still_waiting() -> None:
    async def answer_the_last_four(peer: Peer) -> None:
        early = [await peer.message() for _ in range(3)]
        late = [await peer.message() for _ in range(4)]
        for request in [*late, *early]:
            await peer.send(echo(request))

    async with ScriptedServer(answer_the_last_four) as server, dialled(server) as connection:
        early = [asyncio.create_task(pause(connection, f"early{number}")) for number in range(3)]
        await eventually(lambda: len(server.received) == 3)
        connection._last_id = LAST_ID - 2
        late = [asyncio.create_task(pause(connection, f"late{number}")) for number in range(4)]
        answers = await soon(asyncio.gather(*early, *late))
        assert answers == ["early0", "early1", "early2", "late0", "late1", "late2", "late3"]
        numbers = [envelope.request_id for envelope in server.received]
        assert numbers == [1, 2, 3, LAST_ID - 1, LAST_ID, 4, 5]


async def test_calls_beyond_the_limit_are_refused_and_the_others_go_on() -> None:
    async def answer_two(peer: Peer) -> None:
        requests = [await peer.message() for _ in range(2)]
        await peer.send(*map(pong, requests))
        await answer_pings(peer)

    async with ScriptedServer(answer_two) as server, dialled(server, max_calls=2) as connection:
        first = asyncio.create_task(connection.call(Rpcs.ping))
        await eventually(lambda: len(server.received) == 1)
        second = asyncio.create_task(connection.call(Rpcs.ping))
        await turns(1)
        with pytest.raises(Overloaded, match="2 calls are under way"):
            await connection.call(Rpcs.ping)
        await soon(asyncio.gather(first, second))
        await soon(connection.call(Rpcs.ping))
        assert len(server.received) == 3


async def test_an_answer_that_does_not_decode_is_that_calls_error_alone() -> None:
    async def truncated_once(peer: Peer) -> None:
        await peer.answer(await peer.message(), b"\x00")
        await answer_pings(peer)

    async with ScriptedServer(truncated_once) as server, dialled(server) as connection:
        with pytest.raises(Truncated):
            await soon(connection.call(Rpcs.ping))
        assert (await soon(connection.call(Rpcs.ping))).pid == 1


@pytest.mark.parametrize(
    ("texts", "apart"),
    [([""], False), ([""] * 30_000, True), (["x" * 3_000_000], False), (["x" * 5_000_000], True)],
    ids=["small", "many texts", "a large text", "a huge text"],
)
async def test_an_answer_that_takes_long_is_decoded_where_nobody_waits(
    texts: list[str], apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts of nothing take long: millions fit into an answer."""
    threads: list[bool] = []
    decode = messages.URIsResponse.decode.__func__

    def noting(cls: type[messages.URIsResponse], data: bytes) -> messages.URIsResponse:
        threads.append(threading.current_thread() is threading.main_thread())
        return decode(cls, data)

    monkeypatch.setattr(messages.URIsResponse, "decode", classmethod(noting))
    expected = messages.URIsResponse(texts)

    async def answer(peer: Peer) -> None:
        while True:
            await peer.answer(await peer.message(), expected)

    async with ScriptedServer(answer) as server, dialled(server) as connection:
        assert await soon(connection.call(Rpcs.uris)) == expected
        async with ConnectionPool(server.address, identity_of("client"), size=1) as pool:
            assert await soon(pool.call(Rpcs.uris)) == expected
        async with aclosing(connection.stream(Rpcs.uris)) as stream:
            assert await soon(anext(stream)) == expected
    assert threads == [not apart] * 3


async def test_an_error_answer_is_a_typed_error() -> None:
    async def not_found(peer: Peer) -> None:
        await peer.answer_error(await peer.message(), "node not found")

    async with ScriptedServer(not_found) as server, dialled(server) as connection:
        with pytest.raises(NotFound, match=r"^node not found$"):
            await soon(pause(connection, "x"))


@pytest.mark.parametrize("cut", ["every byte alone", "random chunks", "many in one record"])
async def test_the_same_answers_come_however_the_bytes_are_cut(cut: str) -> None:
    draw = random.Random(3)  # noqa: S311

    def pieces(data: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(data):
            size = {"every byte alone": 1, "random chunks": draw.randint(1, 900)}.get(cut, 10**6)
            yield data[at : at + size]
            at += size

    async def answer(peer: Peer) -> None:
        requests = [await peer.message() for _ in range(4)]
        plaintext = b"".join(echo(request).encode() for request in requests)
        if cut == "many in one record":
            await peer.deliver(peer.secure.send(plaintext))
            return
        for at in range(0, len(plaintext), 7):  # one message spans many records
            await peer.deliver(peer.secure.send(plaintext[at : at + 7]))

    async with ScriptedServer(answer, pieces=pieces) as server, dialled(server) as connection:
        names = ["a", "bb" * 30, "", "ü"]
        assert await soon(asyncio.gather(*(pause(connection, name) for name in names))) == names


async def test_a_message_of_the_largest_size_crosses_both_ways() -> None:
    async def mirror(peer: Peer) -> None:
        request = await peer.message()
        await peer.answer(request, request.body)

    body = bytes(range(256)) * (MAX_BODY_SIZE // 256)
    body += bytes(MAX_BODY_SIZE - len(body))
    async with ScriptedServer(mirror) as server, dialled(server) as connection:
        assert await soon(connection.exchange(Rpcs.ping, body)) == body


async def test_a_message_too_large_leaves_the_connection_usable() -> None:
    async with ScriptedServer(answer_pings) as server, dialled(server) as connection:
        with pytest.raises(MessageTooLarge, match="16777212 bytes"):
            await connection.exchange(Rpcs.ping, bytes(MAX_BODY_SIZE + 1))
        assert connection.calls == 0
        assert (await soon(connection.call(Rpcs.ping))).pid == 1
        assert len(server.received) == 1


# Calls given up.


async def give_up_by_cancelling(connection: Connection) -> None:
    task = asyncio.create_task(pause(connection, "given up"))
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def give_up_by_deadline(connection: Connection) -> None:
    request = messages.PauseNodeRequest("given up")
    with pytest.raises(DeadlineExceeded):
        await connection.call(Rpcs.pause_node, request, timeout=0.01)


@pytest.mark.parametrize("give_up", [give_up_by_cancelling, give_up_by_deadline])
async def test_a_given_up_call_keeps_its_id_until_its_late_answer(
    give_up: Callable[[Connection], Awaitable[None]],
) -> None:
    release = asyncio.Event()

    async def late(peer: Peer) -> None:
        request = await peer.message()
        await release.wait()
        await peer.send(echo(request))
        while True:
            await peer.send(echo(await peer.message()))

    async with ScriptedServer(late) as server, dialled(server) as connection:
        await give_up(connection)
        await eventually(lambda: len(server.received) == 1)
        assert connection.calls == 0
        connection._last_id = 0
        following = asyncio.create_task(pause(connection, "following"))
        await turns()
        release.set()
        assert await soon(following) == "following"
        connection._last_id = 0
        assert await soon(pause(connection, "free again")) == "free again"
        assert [envelope.request_id for envelope in server.received] == [1, 2, 1]


async def test_a_late_answer_of_another_kind_is_dropped_too() -> None:
    """The connection has nobody left whom it could mislead."""

    async def odd(peer: Peer) -> None:
        first, second = await peer.message(), await peer.message()
        await peer.send(Envelope(0x05, first.request_id, b""), pong(second))

    async with ScriptedServer(odd) as server, dialled(server) as connection:
        await give_up_by_cancelling(connection)
        assert (await soon(connection.call(Rpcs.ping))).pid == 1


async def test_calls_given_up_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that owes too many answers is asked nothing more; who waits already may wait on."""
    monkeypatch.setattr(connection_module, "MAX_ABANDONED", 3)
    release = asyncio.Event()

    async def answers_the_ping_at_last(peer: Peer) -> None:
        while (request := await peer.message()).opcode != OPCODE_PING:
            pass
        await release.wait()
        await peer.send(pong(request))
        await peer.closed()

    async with ScriptedServer(answers_the_ping_at_last) as server, dialled(server) as connection:
        for _ in range(3):
            await give_up_by_deadline(connection)
        assert connection.usable
        waiting = asyncio.create_task(connection.call(Rpcs.ping))
        await turns(1)
        await give_up_by_deadline(connection)
        assert not connection.usable
        with pytest.raises(ConnectionLost) as refused:
            await connection.call(Rpcs.ping)
        assert not refused.value.sent
        assert not waiting.done()
        release.set()
        assert (await soon(waiting)).pid == 1
        await soon(connection.closed)
        assert "owes 4 answers" in str(connection.failure)


@pytest.mark.parametrize("kind", ["success", "error"])
async def test_an_answer_that_meets_a_cancellation_frees_the_id(kind: str) -> None:
    """The cancellation wins, and no answer is owed any more."""

    async def answer(peer: Peer) -> None:
        request = await peer.message()
        if kind == "success":
            await peer.send(pong(request))
        else:
            await peer.answer_error(request, "node not found")
        await answer_pings(peer)

    async with ScriptedServer(answer) as server, dialled(server) as connection:
        task = asyncio.create_task(connection.call(Rpcs.ping))
        received = connection.message_received

        def receive_and_cancel(envelope: Envelope) -> None:
            received(envelope)
            task.cancel()  # in the turn in which the answer came, before the caller runs

        connection.message_received = receive_and_cancel
        with pytest.raises(asyncio.CancelledError):
            await soon(task)
        connection.message_received = received
        connection._last_id = 0
        await soon(connection.call(Rpcs.ping))
        assert [envelope.request_id for envelope in server.received] == [1, 1]


@pytest.mark.parametrize("row", [Rpcs.ping, Rpcs.pause_node, Rpcs.stop], ids=str)
async def test_a_deadline_error_tells_whether_the_call_may_still_take_effect(row: object) -> None:
    async with ScriptedServer(never) as server, dialled(server) as connection:
        with pytest.raises(DeadlineExceeded, match=f"no answer to {row} within 0.01 s") as caught:
            await connection.call(row, timeout=0.01)
        assert ("may still take effect" in str(caught.value)) is not row.read_only
        assert isinstance(caught.value, TimeoutError)


async def test_every_call_has_its_own_deadline_in_whatever_order_they_come() -> None:
    ended: list[float] = []
    release = asyncio.Event()

    async def answer_the_patient(peer: Peer) -> None:
        requests = [await peer.message() for _ in range(6)]
        await release.wait()
        await peer.send(*map(pong, requests))

    async def call(connection: Connection, timeout: float) -> None:
        try:
            await connection.call(Rpcs.ping, timeout=timeout)
        finally:
            ended.append(timeout)

    async with ScriptedServer(answer_the_patient) as server, dialled(server) as connection:
        limits = (60.0, 0.3, 0.05, 50.0, 0.2, 0.1)
        calls = [asyncio.create_task(call(connection, limit)) for limit in limits]
        await eventually(lambda: len(ended) == 4)
        assert sorted(ended) == [0.05, 0.1, 0.2, 0.3]  # a busy loop sees some of them together
        assert connection.calls == 2
        release.set()
        results = await soon(asyncio.gather(*calls, return_exceptions=True))
        for limit, result in zip(limits, results, strict=True):
            assert (result is None) is (limit >= 50)
        assert connection.calls == 0


@pytest.mark.parametrize("timeout", [0.0, -1.0])
async def test_a_call_whose_deadline_has_passed_already_is_not_sent(timeout: float) -> None:
    async with ScriptedServer(answer_pings) as server, dialled(server) as connection:
        with pytest.raises(DeadlineExceeded, match="Stop was not sent"):
            await soon(connection.call(Rpcs.stop, timeout=timeout))
        assert connection.calls == 0
        await soon(connection.call(Rpcs.ping))
        assert [envelope.opcode for envelope in server.received] == [60]


# Peers that break rules.


async def test_an_answer_to_an_unknown_id_is_dropped() -> None:
    async def unasked(peer: Peer) -> None:
        request = await peer.message()
        await peer.send(
            pong(request._replace(request_id=77), pid=66),
            Envelope(0xFF, 78, b"who asked?"),
            pong(request, pid=5),
            pong(request, pid=6),  # a second answer is nobody's either
        )
        await answer_pings(peer)

    async with ScriptedServer(unasked) as server, dialled(server) as connection:
        assert (await soon(connection.call(Rpcs.ping))).pid == 5
        assert (await soon(connection.call(Rpcs.ping))).pid == 1


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(response_type(61), id="another opcode"),
        pytest.param(OPCODE_PING, id="no response flag"),
        pytest.param(OPCODE_PING | 0x40, id="error without response flag"),
        pytest.param(0xFF, id="error of another opcode"),
    ],
)
async def test_an_answer_of_the_wrong_kind_ends_the_connection(kind: int) -> None:
    async def wrong(peer: Peer) -> None:
        first, second = await peer.message(), await peer.message()
        await peer.send(Envelope(kind, second.request_id, b""), pong(first))

    async with ScriptedServer(wrong) as server, dialled(server) as connection:
        calls = [asyncio.create_task(connection.call(Rpcs.ping)) for _ in range(2)]
        results = await soon(asyncio.gather(*calls, return_exceptions=True))
        assert all(isinstance(result, ConnectionLost) for result in results)
        assert type(results[0].__cause__) is ProtocolError
        assert type(connection.failure) is ProtocolError
        with pytest.raises(ConnectionLost) as caught:
            await connection.call(Rpcs.ping)
        assert caught.value.sent is False


def changed_record(peer: Peer, request: Envelope) -> bytes:
    record = bytearray(peer.secure.send(pong(request).encode()))
    record[-1] ^= 1
    return bytes(record)


def repeated_record(peer: Peer, request: Envelope) -> bytes:
    return peer.secure.send(pong(request._replace(request_id=99)).encode()) * 2


def plaintext_length(length: int) -> Callable[[Peer, Envelope], bytes]:
    return lambda peer, _: peer.secure.send(struct.pack(">IBI", length, 0xBC, 1))


GARBAGE: dict[str, tuple[Callable[[Peer, Envelope], bytes], type[ZapError]]] = {
    "bytes in clear": (lambda _, request: pong(request).encode(), RecordError),
    "a changed record": (changed_record, RecordError),
    "a record sent twice": (repeated_record, RecordError),
    "a record without room for its tag": (lambda *_: struct.pack(">I", 3) + b"abc", RecordError),
    "a record of nothing": (lambda peer, _: peer.secure._writer._seal(b""), RecordError),
    "an empty frame": (lambda *_: bytes(4), FramingError),
    "an oversized frame": (lambda *_: struct.pack(">I", MAX_FRAME_SIZE + 1), FramingError),
    "an HTTP answer": (lambda *_: b"HTTP/1.1 400 Bad Request\r\n\r\n", FramingError),
    "a message without an id": (plaintext_length(3), FramingError),
    "an oversized message": (plaintext_length(MAX_MESSAGE_SIZE + 1), FramingError),
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_ends_the_connection_and_its_calls(name: str) -> None:
    garbage, cause = GARBAGE[name]

    async def play(peer: Peer) -> None:
        request = await peer.message()
        await peer.deliver(garbage(peer, request))
        await peer.closed()

    async with ScriptedServer(play) as server, dialled(server) as connection:
        with pytest.raises(ConnectionLost) as caught:
            await soon(connection.call(Rpcs.ping))
        assert isinstance(caught.value.__cause__, cause)
        assert caught.value.sent is True
        assert isinstance(connection.failure, cause)
        assert not connection.usable


@pytest.mark.parametrize("ending", ["graceful", "reset"])
async def test_a_connection_cut_in_mid_record_ends_its_calls(ending: str) -> None:
    async def cut(peer: Peer) -> None:
        record = peer.secure.send(pong(await peer.message()).encode())
        await peer.deliver(record[: len(record) // 2])
        if ending == "reset":
            linger = struct.pack("ii", 1, 0)
            peer.writer.get_extra_info("socket").setsockopt(1, 13, linger)  # SOL_SOCKET, SO_LINGER
            peer.writer.transport.abort()
        else:
            peer.writer.close()

    async with ScriptedServer(cut) as server, dialled(server) as connection:
        with pytest.raises(ConnectionLost) as caught:
            await soon(connection.call(Rpcs.ping))
        assert caught.value.sent is True


async def test_half_a_message_is_no_answer() -> None:
    async def half(peer: Peer) -> None:
        await peer.deliver(peer.secure.send(pong(await peer.message()).encode()[:-1]))

    async with ScriptedServer(half) as server, dialled(server) as connection:
        with pytest.raises(DeadlineExceeded):
            await connection.call(Rpcs.ping, timeout=0.05)


async def test_closing_ends_the_calls_under_way() -> None:
    with no_task_left() as check:
        async with ScriptedServer(never) as server:
            async with dialled(server) as connection:
                call = asyncio.create_task(connection.call(Rpcs.ping))
                await eventually(lambda: server.received)
            with pytest.raises(ConnectionLost):
                await soon(call)
        await check()


# A server that stops reading.


async def stall(connection: Connection, server: ScriptedServer) -> asyncio.Task[bytes]:
    """Write until the server takes no more."""
    task = asyncio.create_task(connection.exchange(Rpcs.ping, bytes(MAX_BODY_SIZE)))
    await eventually(lambda: not connection._writable.is_set())
    return task


async def test_calls_wait_for_writability_only_until_their_deadline() -> None:
    read_on = asyncio.Event()

    async def later(peer: Peer) -> None:
        peer.writer.transport.pause_reading()
        await read_on.wait()
        peer.writer.transport.resume_reading()
        await answer_pings(peer)

    async with ScriptedServer(later) as server, dialled(server) as connection:
        first = await stall(connection, server)
        for row in (Rpcs.ping, Rpcs.stop):
            with pytest.raises(DeadlineExceeded):
                await connection.call(row, timeout=0.02)
        cancelled = asyncio.create_task(connection.call(Rpcs.ping))
        waiting = asyncio.create_task(connection.call(Rpcs.ping))
        await turns()
        cancelled.cancel()
        read_on.set()
        assert await soon(first) == messages.PingResponse(1).encode()
        assert (await soon(waiting)).pid == 1
        assert cancelled.cancelled()
        assert len(server.received) == 2, "calls given up before they left never leave"


async def test_a_call_that_waited_to_be_written_was_not_sent_when_the_connection_breaks() -> None:
    async with ScriptedServer(read_nothing) as server, dialled(server) as connection:
        first = await stall(connection, server)
        waiting = asyncio.create_task(connection.call(Rpcs.stop))
        await turns()
        server.peers[0].writer.transport.abort()
        results = await soon(asyncio.gather(first, waiting, return_exceptions=True))
        assert [type(result) for result in results] == [ConnectionLost, ConnectionLost]
        assert [result.sent for result in results] == [True, False]


async def test_calls_that_wait_to_be_written_count_as_calls() -> None:
    """Otherwise they are without bound, and a stuck connection looks idle to a pool."""
    async with ScriptedServer(read_nothing) as server, dialled(server, max_calls=2) as connection:
        first = await stall(connection, server)
        waiting = asyncio.create_task(connection.call(Rpcs.ping, timeout=0.2))
        await turns()
        assert connection.calls == 2
        with pytest.raises(Overloaded):
            await connection.call(Rpcs.ping, timeout=0.2)
        first.cancel()
        await asyncio.gather(first, waiting, return_exceptions=True)


async def test_closing_does_not_wait_for_a_peer_that_reads_nothing() -> None:
    async with ScriptedServer(read_nothing) as server:
        async with dialled(server) as connection:
            call = await stall(connection, server)
            await soon(connection.wait_closed())
        with pytest.raises(ConnectionLost):
            await soon(call)


# Streams.


def state(number: int, size: int = 0) -> messages.StreamStatusResponse:
    return messages.StreamStatusResponse(messages.ClusterInfo(pid=number, root_data_dir="x" * size))


def number_of(response: messages.StreamStatusResponse) -> int:
    assert response.cluster_info is not None
    return response.cluster_info.pid


async def test_a_stream_brings_many_answers_and_an_empty_body_ends_it() -> None:
    async def push(peer: Peer) -> None:
        request = await peer.message()
        for number in range(100):
            await peer.answer(request, state(number))
        await peer.answer(request, b"")
        await answer_pings(peer)

    async with ScriptedServer(push) as server, dialled(server) as connection:
        found = [number_of(item) async for item in connection.stream(Rpcs.stream_status)]
        assert found == list(range(100))
        assert connection.calls == 0
        assert (await soon(connection.call(Rpcs.ping))).pid == 1


async def test_an_error_ends_a_stream_after_what_came_before() -> None:
    async def push(peer: Peer) -> None:
        request = await peer.message()
        await peer.answer(request, state(1))
        await peer.answer_error(request, "node not found")
        await answer_pings(peer)

    async with ScriptedServer(push) as server, dialled(server) as connection:
        stream = connection.stream(Rpcs.stream_status)
        assert number_of(await soon(anext(stream))) == 1
        with pytest.raises(NotFound):
            await soon(anext(stream))
        assert (await soon(connection.call(Rpcs.ping))).pid == 1


async def test_a_broken_connection_ends_a_stream_after_what_came_before() -> None:
    async def push(peer: Peer) -> None:
        await peer.answer(await peer.message(), state(1))
        peer.writer.close()

    async with ScriptedServer(push) as server, dialled(server) as connection:
        stream = connection.stream(Rpcs.stream_status)
        assert number_of(await soon(anext(stream))) == 1
        with pytest.raises(ConnectionLost):
            await soon(anext(stream))


async def test_a_slow_reader_of_a_stream_makes_the_server_wait() -> None:
    total, size = 1000, 64 * 1024
    sent = 0

    async def push(peer: Peer) -> None:
        nonlocal sent
        request = await peer.message()
        for sent in range(total):
            await peer.answer(request, state(sent, size))
        await peer.answer(request, b"")

    async with ScriptedServer(push) as server, dialled(server) as connection:
        stream = connection.stream(Rpcs.stream_status)
        assert number_of(await soon(anext(stream))) == 0
        await eventually(lambda: not connection._transport.is_reading())
        writing = server.peers[0].writer.transport
        await eventually(lambda: writing.get_write_buffer_size() > 0)
        assert sent < total - 1
        rest = [number_of(item) async for item in stream]
        assert rest == list(range(1, total))


async def test_leaving_a_stream_early_closes_its_own_connection_only() -> None:
    endless = asyncio.Event()

    async def push(peer: Peer) -> None:
        request = await peer.message()
        if request.opcode == OPCODE_PING:
            await peer.send(pong(request))
            await answer_pings(peer)
        await peer.answer(request, state(1))
        await peer.closed()
        endless.set()

    with no_task_left() as check:
        async with ScriptedServer(push) as server:
            async with connect(server.address, identity=identity_of("client")) as client:
                await soon(client.ping())
                stream = client.stream_status(push_interval=1)
                assert number_of(await soon(anext(stream))) == 1
                await stream.aclose()
                await soon(endless.wait())
                assert (await soon(client.ping())).pid == 1
            assert len(server.peers) == 2
        await check()


async def test_a_streams_request_carries_its_fields() -> None:
    async def push(peer: Peer) -> None:
        await peer.answer(await peer.message(), b"")

    async with (
        ScriptedServer(push) as server,
        connect(server.address, identity=identity_of("client")) as client,
    ):
        request = messages.StreamStatusRequest(push_interval=123)
        assert [item async for item in client.stream_status(request)] == []
        (received,) = server.received
        assert received.body == b"\x05" + request.encode()


# Whom to trust.


async def ping_through(address: str, server: object) -> None:
    async with connect(address, identity=identity_of("client"), server=server) as client:
        assert (await soon(client.ping())).pid == 1


@pytest.mark.parametrize("pin", ["identity", "fingerprint", "anybody", "rule"])
async def test_a_server_that_is_who_it_should_be_is_accepted(pin: str, tmp_path: Path) -> None:
    async with ScriptedServer(answer_pings) as server:
        public = server.identity.public
        known = KnownServers(tmp_path / "known")
        known.add(server.address, public)
        rules = {
            "identity": public,
            "fingerprint": public.fingerprint,
            "anybody": None,
            "rule": known.rule(server.address),
        }
        await ping_through(server.address, rules[pin])


@pytest.mark.parametrize("pin", ["identity", "fingerprint", "rule"])
async def test_a_server_that_is_somebody_else_is_refused(pin: str, tmp_path: Path) -> None:
    async with ScriptedServer(answer_pings) as server:
        other = identity_of("stranger").public
        known = KnownServers(tmp_path / "known")
        known.add(server.address, other)
        rules = {
            "identity": other,
            "fingerprint": other.fingerprint,
            "rule": known.rule(server.address),
        }
        with pytest.raises(IdentityMismatch, match=r"SHA256:.*SHA256:") as caught:
            await ping_through(server.address, rules[pin])
        assert server.identity.public.fingerprint in str(caught.value)
        await soon(server.peers[0].gone.wait())
        assert server.received == []


async def test_an_unknown_server_is_refused_until_its_first_use_is_trusted(tmp_path: Path) -> None:
    path = tmp_path / "known"
    async with ScriptedServer(answer_pings) as server:
        address = server.address
        with pytest.raises(UnknownServer, match=address):
            await ping_through(address, KnownServers(path).rule(address))
        await ping_through(address, KnownServers(path, trust_on_first_use=True).rule(address))
        await ping_through(address, KnownServers(path).rule(address))
        assert KnownServers(path).fingerprints() == {address: server.identity.public.fingerprint}


async def test_the_remote_identity_is_known_once_it_is_proven() -> None:
    async with ScriptedServer(answer_pings) as server, dialled(server) as connection:
        assert connection.remote == server.identity.public


# Connections that never stand.


async def test_nobody_listening_is_a_failure_that_names_the_address() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(ConnectFailed, match=f"{address}.*nobody listens"):
        await soon(dial(address, identity_of("client")))


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "nul\0byte", "no-such-host.invalid"])
async def test_a_host_that_no_resolver_takes_is_a_transport_error(host: str) -> None:
    with pytest.raises(TransportError):
        await soon(dial(f"{host}:1", identity_of("client")))


async def test_a_server_that_says_nothing_fails_to_connect_in_time() -> None:
    with no_task_left() as check:
        async with ScriptedServer(Peer.closed, raw=True) as server:
            with pytest.raises(ConnectFailed, match=f"{server.address}.*within 0.05 s"):
                async with connect(
                    server.address, identity=identity_of("client"), connect_timeout=0.05
                ):
                    pytest.fail("connected to a server that said nothing")
            await soon(server.peers[0].gone.wait())
        await check()


async def test_cancelling_a_dial_closes_its_connection() -> None:
    async with ScriptedServer(Peer.closed, raw=True) as server:
        task = asyncio.create_task(dial(server.address, identity_of("client")))
        await eventually(lambda: server.peers)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await soon(server.peers[0].gone.wait())


async def close_at_once(peer: Peer) -> None:
    peer.writer.transport.abort()


async def close_after_the_first_message(peer: Peer) -> None:
    await peer.frame()
    peer.writer.close()


async def close_within_the_answer(peer: Peer) -> None:
    answer, _ = Responder(identity_of("server")).respond(await peer.frame())
    peer.writer.write(answer[:-1])
    peer.writer.close()


@pytest.mark.parametrize(
    "script", [close_at_once, close_after_the_first_message, close_within_the_answer]
)
async def test_a_server_that_closes_during_the_handshake_may_refuse_us(
    script: Callable[[Peer], Awaitable[None]],
) -> None:
    async with ScriptedServer(script, raw=True) as server:
        with pytest.raises(HandshakeError, match="may not accept this client's identity"):
            await soon(dial(server.address, identity_of("client")))


ANSWERS: dict[str, tuple[Callable[[bytes], bytes], type[ZapError]]] = {
    "of noise": (lambda answer: answer[:4] + bytes(RESPONSE_SIZE), HandshakeError),
    "too short": (lambda answer: struct.pack(">I", 17) + answer[4:21], FramingError),
    "too long": (lambda answer: struct.pack(">I", 2**31) + answer[4:], FramingError),
    "changed": (lambda answer: answer[:-1] + bytes([answer[-1] ^ 1]), HandshakeError),
    "and more behind it": (lambda answer: answer + b"?", HandshakeError),
    "and a second one behind it": (lambda answer: answer * 2, HandshakeError),
    "in HTTP": (lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n", FramingError),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_malformed_handshake_answer_is_an_error(name: str) -> None:
    change, kind = ANSWERS[name]

    async def play(peer: Peer) -> None:
        answer, _ = Responder(identity_of("server")).respond(await peer.frame())
        await peer.deliver(change(answer))
        await peer.closed()

    async with ScriptedServer(play, raw=True) as server:
        with pytest.raises(kind):
            await soon(dial(server.address, identity_of("client")))


async def test_an_answer_meant_for_another_client_is_refused() -> None:
    """Even one that the real server made."""

    async def relay(peer: Peer) -> None:
        await peer.frame()
        other = Initiator(identity_of("stranger"))
        answer, _ = Responder(identity_of("server")).respond(other.initiate()[4:])
        await peer.deliver(answer)
        await peer.closed()

    async with ScriptedServer(relay, raw=True) as server:
        with pytest.raises(HandshakeError, match="not sealed for this identity"):
            await soon(dial(server.address, identity_of("client")))


# The client over a connection.


async def test_a_clients_method_takes_fields_or_a_message() -> None:
    async def mirror(peer: Peer) -> None:
        while True:
            await peer.send(echo(await peer.message()))

    async with (
        ScriptedServer(mirror) as server,
        connect(server.address, identity=identity_of("client")) as client,
    ):
        assert await soon(client.pause_node(name="a")) == told("a")
        assert await soon(client.pause_node(messages.PauseNodeRequest("b"))) == told("b")


async def test_a_clients_time_out_holds_where_a_call_says_nothing() -> None:
    async with ScriptedServer(never) as server:
        identity = identity_of("client")
        async with connect(server.address, identity=identity, timeout=0.02) as client:
            with pytest.raises(DeadlineExceeded, match=r"0\.02 s"):
                await client.ping()
            with pytest.raises(DeadlineExceeded, match=r"0\.01 s"):
                await client.ping(timeout=0.01)


async def test_leaving_the_block_closes_the_connection_and_leaves_no_task() -> None:
    with no_task_left() as check:
        async with ScriptedServer(answer_pings) as server:
            async with connect(server.address, identity=identity_of("client")) as client:
                await soon(client.ping())
            await soon(server.peers[0].gone.wait())
        await check()


async def test_an_error_in_the_block_closes_the_connection() -> None:
    async with ScriptedServer(answer_pings) as server:
        with pytest.raises(ZeroDivisionError):
            async with connect(server.address, identity=identity_of("client")):
                raise ZeroDivisionError
        await soon(server.peers[0].gone.wait())


# Addresses.


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:9999", ("127.0.0.1", 9999)),
        ("localhost:1", ("localhost", 1)),
        ("host:65535", ("host", 65535)),
        ("netrunner", ("netrunner", 9999)),
        ("[::1]:4242", ("::1", 4242)),
        ("[::1]", ("::1", 9999)),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
        ("node-1.example.org:08080", ("node-1.example.org", 8080)),
    ],
)
def test_an_address_has_a_host_and_a_port(address: str, expected: tuple[str, int]) -> None:
    assert parse_address(address) == expected


@pytest.mark.parametrize(
    "address",
    [
        "",
        ":9999",
        "host:",
        "host:0",
        "host:65536",
        "host:123456",
        "host:-1",
        "host:http",
        "::1",
        "::1:9999",
        "[::1",
        "[]:1",
        "http://host:1",
        "user@host:1",
        "host:1/path",
        "host :1",
        "host:1\n",
        " host:1",
    ],
)
async def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidAddress, match="give host:port"):
        parse_address(address)
    with pytest.raises(InvalidAddress):
        await dial(address, identity_of("client"))


async def test_a_stream_of_answers_to_an_unwritable_connection_starts_once_it_is_writable() -> None:
    read_on = asyncio.Event()

    async def later(peer: Peer) -> None:
        peer.writer.transport.pause_reading()
        await read_on.wait()
        peer.writer.transport.resume_reading()
        await peer.send(pong(await peer.message()))
        await peer.send(success(await peer.message(), b""))

    async with ScriptedServer(later) as server, dialled(server) as connection:
        first = await stall(connection, server)
        stream = asyncio.create_task(anext(connection.stream(Rpcs.stream_status), None))
        await turns()
        read_on.set()
        await soon(first)
        assert await soon(stream) is None


# What came whole before the connection broke counts.


@pytest.mark.parametrize("tail", ["tampered", "overlong", "empty length"])
async def test_an_answer_before_a_broken_record_is_an_answer(tail: str):
    """The change is known to have succeeded, also where both come in one piece."""

    async def play(peer: Peer) -> None:
        answer = echo(await peer.message()).encode()
        good = peer.secure.send(answer)
        bad = {
            "tampered": bytearray(peer.secure.send(b"x" * 40)),
            "overlong": bytearray(b"\xff\xff\xff\xff"),
            "empty length": bytearray(4),
        }[tail]
        bad[-1] ^= tail == "tampered"
        await peer.deliver(good + bytes(bad))
        await peer.closed()

    async with ScriptedServer(play) as server, dialled(server) as connection:
        response = await soon(connection.call(Rpcs.pause_node, Rpcs.pause_node.request("n")))
        assert response.cluster_info.root_data_dir == "n"


async def test_an_answer_before_a_message_of_no_allowed_size_is_an_answer():
    async def play(peer: Peer) -> None:
        await peer.deliver(
            peer.secure.send(echo(await peer.message()).encode() + b"\0\0\0\0\0\0\0\0\0")
        )
        await peer.closed()

    async with ScriptedServer(play) as server, dialled(server) as connection:
        response = await soon(connection.call(Rpcs.pause_node, Rpcs.pause_node.request("n")))
        assert response.cluster_info.root_data_dir == "n"
        await soon(connection.closed)
        assert isinstance(connection.failure, FramingError)


async def test_a_lot_that_is_written_at_once_arrives_whole_and_in_order() -> None:
    """It leaves in pieces, and what is written between them comes behind."""
    sizes = [MAX_BODY_SIZE, 1, 5_000_000, 0, 3]
    bodies = [bytes([number]) * size for number, size in enumerate(sizes)]

    async def reversed_bodies(peer: Peer) -> None:
        for body in bodies:
            request = await peer.message()
            assert request.body == body
            await peer.answer(request, bytes([len(body) % 251]))

    async with ScriptedServer(reversed_bodies) as server, dialled(server) as connection:
        calls = [asyncio.create_task(connection.exchange(Rpcs.ping, bodies[0]))]
        for body in bodies[1:]:
            await asyncio.sleep(0)
            calls.append(asyncio.create_task(connection.exchange(Rpcs.ping, body)))
        answers = await soon(asyncio.gather(*calls))
        assert answers == [bytes([size % 251]) for size in sizes]


async def test_a_connection_that_is_gone_is_not_kept_by_closing_it() -> None:
    async with ScriptedServer(never) as server:
        connection = await dial(server.address, identity_of("client"))
        connection.abort(ConnectionLost("given up"))
        await soon(connection.closed)
        connection.close()
        gone = weakref.ref(connection)
        del connection
        await turns()
        gc.collect()
        assert gone() is None


async def test_what_was_written_before_closing_leaves_whole() -> None:
    heard: list[int] = []

    async def listen(peer: Peer) -> None:
        heard.append(len((await peer.message()).body))
        await peer.closed()

    async with ScriptedServer(listen) as server, dialled(server) as connection:
        call = asyncio.create_task(connection.exchange(Rpcs.ping, bytes(MAX_BODY_SIZE)))
        await asyncio.sleep(0)
        connection.close()
        with pytest.raises(ConnectionLost):
            await soon(call)
        await eventually(lambda: heard == [MAX_BODY_SIZE])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (bytes(5_000_000), "\0" * MAX_ERROR_SIZE),
        (b"\xff" * 5_000_000, "\ufffd" * 2**18),
        (b"\xff" + bytes(5_000_000), "\ufffd" + "\0" * (2**18 - 1)),
    ],
    ids=["a text", "no text", "nearly a text"],
)
async def test_of_an_error_text_without_end_the_beginning_is_told(text: bytes, told: str) -> None:
    async def fail(peer: Peer) -> None:
        request = await peer.message()
        await peer.send(Envelope(0xC0 | request.type, request.request_id, text))

    async with ScriptedServer(fail) as server, dialled(server) as connection:
        with pytest.raises(RemoteError) as caught:
            await soon(connection.call(Rpcs.status))
        assert str(caught.value) == told
