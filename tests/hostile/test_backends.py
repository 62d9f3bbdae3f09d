"""Backends that answer nonsense, fail, never answer, or do not end when they are told to."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.hostile.helpers import Kept, gets_in, nothing_more_than
from tests.hostile.misbehaving import (
    FAILURES,
    HEAVY,
    STREAMS,
    Behaviour,
    going_on_when_closed,
    no_answers,
    raising,
    state,
    wrong_answers,
)
from tests.integration.gateway_helpers import Backend
from tests.integration.zap_helpers import (
    Peer,
    dialled,
    eventually,
    identity_of,
    no_task_left,
    scripted_client,
    serving,
    soon,
    turns,
)
from zapcore import NetrunnerServer, ServerLimits, connect, messages
from zapcore.codec import Message
from zapcore.connection import Connection
from zapcore.errors import DeadlineExceeded, RemoteError, UnsupportedByServer
from zapcore.methods import METHODS, Method, Rpcs


async def pong(request: messages.PingRequest) -> messages.PingResponse:
    return messages.PingResponse(7)


def misbehaving(behave: Behaviour, **others: Behaviour) -> Backend:
    """A backend whose calls all behave like that, but for Ping and for what is given."""
    calls = {row.attribute: behave for row in METHODS.values() if not row.streaming}
    return Backend(**{**calls, "ping": pong, **others})


@asynccontextmanager
async def connected(
    backend: object, limits: ServerLimits | None = None
) -> AsyncIterator[tuple[NetrunnerServer, Connection]]:
    """A server and a connection to it; nothing is left when it is closed."""
    with no_task_left() as check:
        async with serving(backend, limits) as server, dialled(server.address) as connection:
            yield server, connection
        await check()


async def goes_on(server: NetrunnerServer, connection: Connection) -> None:
    """Others are answered: on that connection, and on a new one."""
    assert (await soon(connection.call(Rpcs.ping))).pid == 7
    await gets_in(server)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.fixture
def unlogged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests keep what was logged, and with an exception all that its frames refer to."""
    monkeypatch.setattr(logging.getLogger("zapcore.server"), "disabled", True)


# Answers of the wrong type.

ROWS = [row for row in METHODS.values() if not row.streaming]


class Told:
    """Answers with what it is told to."""

    def __init__(self) -> None:
        self.answer: object = None

    async def __call__(self, request: object) -> object:
        return self.answer


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_an_answer_of_the_wrong_type_is_an_error_whatever_the_call(
    row: Method[Message, Message], caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()
    async with connected(Backend(**{"status": told, row.attribute: told})) as (_, connection):
        answers = [*no_answers(row.response), *wrong_answers(row.response)]
        for label, answer in answers:
            told.answer = answer
            with pytest.raises(RemoteError) as caught:
                await soon(connection.call(row))
            assert not isinstance(caught.value, UnsupportedByServer), label
            assert row.response.__name__ in str(caught.value) or row.name in str(caught.value), (
                label
            )
        assert len(logged(caplog)) == len(answers)
        told.answer = right = row.response()
        assert await soon(connection.call(row)) == right


# Failures.


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("name", FAILURES)
async def test_a_failure_of_the_backend_is_an_error_answer_and_nothing_else(name: str) -> None:
    async with connected(misbehaving(FAILURES[name])) as (server, connection):
        for row in (Rpcs.status, Rpcs.pause_node):
            with pytest.raises(RemoteError):
                await soon(connection.call(row))
            await goes_on(server, connection)
        assert connection.calls == 0
        assert not connection._waiting


@pytest.mark.parametrize("name", ["an exception", "no Exception", "its own task cancelled"])
async def test_failures_side_by_side_are_each_answered(name: str) -> None:
    async with connected(misbehaving(FAILURES[name])) as (server, connection):
        calls = [connection.call(Rpcs.status) for _ in range(200)]
        results = await soon(asyncio.gather(*calls, return_exceptions=True))
        assert {type(result) for result in results} == {RemoteError}
        await goes_on(server, connection)


async def test_the_log_tells_of_a_failure_and_not_of_what_was_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "correct-horse-battery-staple"  # noqa: S105
    request = messages.AddNodeRequest(name="n", node_config=secret, chain_configs={"c": secret})
    for failure in (raising(ValueError("boom")), FAILURES["another message"]):
        async with connected(misbehaving(failure)) as (_, connection):
            with pytest.raises(RemoteError):
                await soon(connection.call(Rpcs.add_node, request))
    assert logged(caplog) == ["AddNode failed in the backend"] * 2
    assert "ValueError: boom" in caplog.text
    assert "AddNode was answered with a PingResponse" in caplog.text
    assert secret not in caplog.text


async def test_an_error_that_is_meant_for_the_client_is_no_event_for_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with connected(misbehaving(raising(RemoteError("not today")))) as (_, connection):
        with pytest.raises(RemoteError, match="not today"):
            await soon(connection.call(Rpcs.status))
    assert logged(caplog) == []


# No answer, or a late one.


class Stubborn:
    """Waits for a gate, and does not heed being cancelled for so many times."""

    def __init__(self, heeds_after: int = 0) -> None:
        self.gate = asyncio.Event()
        self.begun = 0
        self.cancelled = 0
        self.ended = 0
        self._heeds_after = heeds_after

    async def __call__(self, request: Any) -> Message:
        self.begun += 1
        ignored = 0
        try:
            while not self.gate.is_set():
                try:
                    await self.gate.wait()
                except asyncio.CancelledError:
                    self.cancelled += 1
                    ignored += 1
                    if ignored > self._heeds_after:
                        raise
        finally:
            self.ended += 1
        return messages.StatusResponse()


async def test_a_call_that_is_never_answered_ends_by_its_deadline_alone() -> None:
    never = Stubborn()
    async with connected(misbehaving(never)) as (server, connection):
        for row in (Rpcs.status, Rpcs.pause_node):
            with pytest.raises(DeadlineExceeded):
                await soon(connection.call(row, timeout=0.05))
            await goes_on(server, connection)
        assert connection.calls == 0
        assert never.begun == 2
    assert never.ended == 2


async def test_an_answer_after_its_deadline_is_dropped() -> None:
    late = Stubborn()
    async with connected(misbehaving(late)) as (server, connection):
        with pytest.raises(DeadlineExceeded):
            await soon(connection.call(Rpcs.status, timeout=0.05))
        late.gate.set()
        await eventually(lambda: not connection._waiting)
        await goes_on(server, connection)


@pytest.mark.parametrize("row", [Rpcs.status, Rpcs.pause_node], ids=str)
async def test_an_answer_after_its_client_left_goes_nowhere(row: Method[Message, Message]) -> None:
    """Nor does it where the backend does not heed that nobody waits."""
    late = Stubborn(heeds_after=3)
    async with connected(misbehaving(late)) as (server, connection):
        async with scripted_client(server.address) as leaving:
            await leaving.ask(row)
            await eventually(lambda: late.begun)
        await eventually(lambda: server.connections == 1)
        late.gate.set()
        await eventually(lambda: late.ended and not server._tasks)
        assert late.cancelled == int(row.read_only)
        await goes_on(server, connection)


async def test_a_call_that_ends_only_after_a_while_does_not_keep_the_server_open() -> None:
    slow = Stubborn(heeds_after=10**6)
    limits = ServerLimits(close_timeout=0.05)
    async with connected(misbehaving(slow), limits) as (server, connection):
        call = asyncio.create_task(connection.call(Rpcs.pause_node))
        await eventually(lambda: slow.begun)
        await soon(server.close())
        with pytest.raises(Exception, match="closed the connection"):
            await soon(call)
        assert not slow.ended
        assert len(server._tasks) == 1
        slow.gate.set()
        await eventually(lambda: slow.ended and not server._tasks)


async def test_a_server_that_closes_says_whom_it_leaves(caplog: pytest.LogCaptureFixture) -> None:
    slow = Stubborn(heeds_after=10**6)
    limits = ServerLimits(close_timeout=0.05)
    async with connected(misbehaving(slow), limits) as (server, _):
        async with scripted_client(server.address) as peer:
            for number in (1, 2):
                await peer.ask(Rpcs.pause_node, number=number)
            await eventually(lambda: slow.begun == 2)
            await soon(server.close())
        assert logged(caplog) == ["2 calls of the backend go on though they are cancelled"]
        slow.gate.set()


async def test_changes_whose_clients_left_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Who sends and leaves, again and again, must not pile them up."""
    never = Stubborn()
    limits = ServerLimits(max_orphans=3)
    async with connected(misbehaving(never), limits) as (server, connection):
        for client in range(4):
            async with scripted_client(server.address) as leaving:
                for number in (1, 2):
                    await leaving.ask(Rpcs.pause_node, number=number)
                await eventually(lambda client=client: never.begun == 2 * client + 2)
            await eventually(lambda: server.connections == 1)
        await eventually(lambda: len(server._tasks) == 3)
        assert never.cancelled == 5, "the oldest"
        assert caplog.text.count("cancelled a change") == 5
        await goes_on(server, connection)
        never.gate.set()
        await eventually(lambda: not server._tasks and not server._orphans)
    assert (never.ended, never.cancelled) == (8, 5)


# Streams.


async def read(connection: Connection) -> list[Message]:
    """A stream to its end."""
    return [each async for each in connection.stream(Rpcs.stream_status)]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("name", [*STREAMS, "no generator"])
async def test_a_stream_that_breaks_ends_with_an_error(name: str) -> None:
    behave = STREAMS.get(name) or raising(ValueError("nobody awaits this"))
    async with connected(Backend(ping=pong, stream_status=behave)) as (server, connection):
        for _ in range(2):
            with pytest.raises(RemoteError):
                await soon(read(connection))
            await goes_on(server, connection)
        assert not connection._waiting
        await eventually(lambda: not server._tasks)


async def test_a_stream_that_yields_nothing_ends() -> None:
    async def nothing(request: object) -> AsyncIterator[object]:
        for _ in ():
            yield state()

    async with connected(Backend(ping=pong, stream_status=nothing)) as (server, connection):
        assert await soon(read(connection)) == []
        await goes_on(server, connection)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("unlogged")
async def test_a_stream_that_goes_on_when_it_is_closed_is_left_alone() -> None:
    """Python complains of it in the end, and nothing else happens."""
    stream = going_on_when_closed
    async with connected(Backend(ping=pong, stream_status=stream)) as (server, connection):
        with pytest.raises(RemoteError, match="ignored GeneratorExit"):
            await soon(read(connection))
        await eventually(lambda: not server._tasks)
        gc.collect()
        await goes_on(server, connection)


class Stream:
    """Yields for ever, or never, and does not heed being cancelled for so many times."""

    def __init__(self, *, mute: bool = False, ignores: int = 0) -> None:
        self.begun = False
        self.ended = False
        self.cancelled = 0
        self.yielded = 0
        self._mute = mute
        self._ignores = ignores

    async def __call__(self, request: object) -> AsyncIterator[object]:
        self.begun = True
        try:
            while True:
                try:
                    await asyncio.sleep(3600 if self._mute else 0)
                except asyncio.CancelledError:
                    self.cancelled += 1
                    if self.cancelled > self._ignores:
                        raise
                self.yielded += 1
                yield state(self.yielded)
        finally:
            self.ended = True


@pytest.mark.parametrize("ignores", [0, 1], ids=["heeding", "not heeding"])
@pytest.mark.parametrize("mute", [False, True], ids=["always", "never"])
async def test_a_stream_without_end_ends_when_its_client_left(mute: bool, ignores: int) -> None:
    stream = Stream(mute=mute, ignores=ignores)
    async with connected(Backend(ping=pong, stream_status=stream)) as (server, connection):
        async with scripted_client(server.address) as leaving:
            await leaving.ask(Rpcs.stream_status)
            await eventually(lambda: stream.begun if mute else stream.yielded > 3)
            await goes_on(server, connection)
        await eventually(lambda: stream.ended and not server._tasks)
        await goes_on(server, connection)


@pytest.mark.parametrize("mute", [False, True], ids=["always", "never"])
async def test_a_stream_that_does_not_heed_its_end_for_a_while_lets_the_server_close(
    mute: bool,
) -> None:
    stream = Stream(mute=mute, ignores=1)
    async with connected(Backend(ping=pong, stream_status=stream)) as (server, _):
        async with scripted_client(server.address) as peer:
            await peer.ask(Rpcs.stream_status)
            await eventually(lambda: stream.begun)
            await soon(server.close())
        assert stream.ended
        assert not server._tasks


# All of it at once, again and again.


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("unlogged")
async def test_nothing_is_kept_of_what_went_wrong(long: bool) -> None:
    behaviours = [behave for name, behave in FAILURES.items() if name not in HEAVY]
    turn = 0

    def behave(request: object) -> object:
        nonlocal turn
        turn += 1
        return behaviours[turn % len(behaviours)](request)

    def stream(request: object) -> object:
        return list(STREAMS.values())[turn % len(STREAMS)](request)

    async def client(server: NetrunnerServer) -> None:
        async with connect(server.address, identity=identity_of("client")) as one:
            for _ in range(len(behaviours)):
                with pytest.raises(RemoteError):
                    await one.status()
            with pytest.raises(RemoteError):
                async for _ in one.stream_status(push_interval=1):
                    pass

    async with serving(misbehaving(behave, stream_status=stream)) as server:
        await soon(client(server))
        before = Kept()
        for _ in range(50 if long else 4):
            await soon(asyncio.gather(*(client(server) for _ in range(4))))
        await eventually(lambda: server.connections == 0 and not server._tasks)
        await turns()
        await nothing_more_than(before)


async def test_a_client_is_answered_beside_one_whose_calls_all_fail() -> None:
    async with connected(misbehaving(raising(ValueError("boom")))) as (server, connection):

        async def ask(peer: Peer) -> None:
            for number in range(1, 300):
                await peer.ask(Rpcs.status, number=number)
                assert (await soon(peer.message())).is_error

        async with scripted_client(server.address) as peer:
            failing = asyncio.create_task(ask(peer))
            while not failing.done():
                await goes_on(server, connection)
            await failing
