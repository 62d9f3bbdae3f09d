"""What a backend can do wrong: answers of the wrong type, failures, streams that break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import singledispatch
from typing import Any

from zapcore import codec, messages
from zapcore.codec import Layout, Message
from zapcore.errors import (
    ConnectionLost,
    DeadlineExceeded,
    EncodeError,
    HandshakeError,
    Overloaded,
    RemoteError,
    Truncated,
)
from zapcore.framing import MAX_BODY_SIZE

Behaviour = Callable[[Any], Any]
"""A handler of any RPC."""

SURROGATE = "a \ud800 alone"


class NoException(BaseException):
    """As libraries raise that are not written in Python, where those panic."""


class Untold(Exception):
    """Not even its text can be had."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class UntoldRemotely(RemoteError):
    """The same, of a kind that is told to clients as it is."""

    def __str__(self) -> str:
        raise RecursionError("no words")


# Answers.


def no_answers(cls: type[Message]) -> Iterator[tuple[str, object]]:
    """What is not that message at all."""
    another = messages.PingResponse if cls is not messages.PingResponse else messages.NodeInfo
    for value in (None, 5, "text", b"bytes", 1.5, True, {}, [], object(), another(), cls, Untold):
        yield f"{value!r:.40}", value


def wrong_answers(cls: type[Message]) -> Iterator[tuple[str, Message]]:
    """That message with one fault each, at any depth: a field that holds what it can't."""
    for name, layout in codec.layouts(cls):
        for value in _wrong_values(layout):
            yield f"{cls.__name__}.{name} = {value!r:.60}", _with(cls, name, value)


def _with(cls: type[Message], name: str, value: object) -> Message:
    answer = cls()
    setattr(answer, name, value)
    return answer


@singledispatch
def _wrong_values(layout: Layout) -> Iterator[object]:
    raise NotImplementedError


@_wrong_values.register
def _(layout: codec.IntegerLayout) -> Iterator[object]:
    integer = layout.integer
    yield from (None, "1", 1.5, [], integer.minimum - 1, integer.maximum + 1, 10**400)


@_wrong_values.register
def _(layout: codec.BoolLayout) -> Iterator[object]:
    yield from (None, 1, "false", [])


@_wrong_values.register
def _(layout: codec.BytesLayout) -> Iterator[object]:
    yield from (None, 5, "x", [1])


@_wrong_values.register
def _(layout: codec.TextLayout) -> Iterator[object]:
    yield from (None, 5, b"x", ["x"], SURROGATE)


@_wrong_values.register
def _(layout: codec.OptionalLayout) -> Iterator[object]:
    return (value for value in _wrong_values(layout.inner) if value is not None)


@_wrong_values.register
def _(layout: codec.MessageLayout) -> Iterator[object]:
    yield from (None, 5, "x", {}, messages.RemoveSnapshotResponse())
    yield from (wrong for _, wrong in wrong_answers(layout.message))


@_wrong_values.register
def _(layout: codec.ListLayout) -> Iterator[object]:
    yield from (None, 5, "text", {"a": 1})
    yield from ([wrong] for wrong in _wrong_values(layout.item))


@_wrong_values.register
def _(layout: codec.MapLayout) -> Iterator[object]:
    yield from (None, 5, [], [("a", "b")], {5: "x"}, {"x": 5}, {SURROGATE: "x"})


@_wrong_values.register
def _(layout: codec.KeyedLayout) -> Iterator[object]:
    assert isinstance(layout.item, codec.MessageLayout)
    of = layout.item.message
    yield from (None, 5, [], {"a": 5}, {"a": None}, {"a": _with(of, layout.field, "b")})
    for _, wrong in wrong_answers(of):
        name = getattr(wrong, layout.field)
        if isinstance(name, str):
            yield {name: wrong}


def endless() -> messages.StatusResponse:
    """A state that holds itself."""
    nodes: list[Any] = []
    nodes.append(nodes)
    return messages.StatusResponse(messages.ClusterInfo(node_names=nodes))


def huge() -> messages.StatusResponse:
    return messages.StatusResponse(messages.ClusterInfo(root_data_dir="x" * MAX_BODY_SIZE))


# Failures.


def raising(error: BaseException) -> Behaviour:
    async def behave(request: object) -> object:
        raise error

    return behave


def answering(value: object) -> Behaviour:
    async def behave(request: object) -> object:
        return value

    return behave


def at_once(behave: Behaviour) -> Behaviour:
    """Not a coroutine: it fails, or answers, when it is called."""

    def called(request: object) -> object:
        coroutine = behave(request)
        try:
            coroutine.send(None)
        except StopIteration as answer:
            return answer.value
        raise AssertionError("it waits")

    return called


def stop_at_once(request: object) -> object:
    raise StopIteration("stop")


async def cancelling_itself(request: object) -> object:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)
    return None


FAILURES: dict[str, Behaviour] = {
    "an exception": raising(ValueError("boom")),
    "an exception without words": raising(KeyError()),
    "an exception that can't be told": raising(Untold()),
    "an error for the client that can't be told": raising(UntoldRemotely()),
    "no Exception": raising(NoException("odd")),
    "a group": raising(ExceptionGroup("several", [ValueError("one"), OSError("two")])),
    "a group of no Exceptions": raising(
        BaseExceptionGroup("several", [NoException("odd"), asyncio.CancelledError()])
    ),
    "StopIteration": raising(StopIteration("stop")),
    "StopAsyncIteration": raising(StopAsyncIteration("stop")),
    "RecursionError": raising(RecursionError("too deep")),
    "MemoryError": raising(MemoryError()),
    "TimeoutError": raising(TimeoutError()),
    "CancelledError": raising(asyncio.CancelledError("by itself")),
    "its own task cancelled": cancelling_itself,
    "a lone surrogate": raising(RemoteError(SURROGATE)),
    "an exception with a lone surrogate": raising(ValueError(SURROGATE)),
    "a text beyond all limits": raising(RemoteError("é" * MAX_BODY_SIZE)),
    "ConnectionLost": raising(ConnectionLost("of its own")),
    "DeadlineExceeded": raising(DeadlineExceeded("of its own")),
    "Overloaded": raising(Overloaded("of its own")),
    "HandshakeError": raising(HandshakeError("of its own")),
    "EncodeError": raising(EncodeError("of its own")),
    "Truncated": raising(Truncated("of its own")),
    "an exception at once": at_once(raising(ValueError("boom"))),
    "no Exception at once": at_once(raising(NoException("odd"))),
    "StopIteration at once": stop_at_once,
    "no coroutine": at_once(answering(messages.StatusResponse())),
    "nothing to await": at_once(answering(None)),
    "nothing": answering(None),
    "another message": answering(messages.PingResponse(1)),
    "a class": answering(messages.StatusResponse),
    "what holds itself": answering(endless()),
    "more than fits": answering(huge()),
}
"""Handlers that a call must come to an end with all the same."""


HEAVY = frozenset({"a text beyond all limits", "more than fits"})
"""Those that take many MiB."""


# Streams.


def state(number: int = 0) -> messages.StreamStatusResponse:
    return messages.StreamStatusResponse(messages.ClusterInfo(pid=number, healthy=True))


def failing_after(count: int, error: BaseException) -> Behaviour:
    async def stream(request: object) -> AsyncIterator[object]:
        for number in range(count):
            yield state(number)
        raise error

    return stream


def yielding(*values: object) -> Behaviour:
    async def stream(request: object) -> AsyncIterator[object]:
        for value in values:
            yield value

    return stream


class _Plain:
    """An iterator that is no generator, and can't be closed."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __aiter__(self) -> _Plain:
        return self

    async def __anext__(self) -> object:
        raise self._error


async def going_on_when_closed(request: object) -> AsyncIterator[object]:
    """What it yields is refused, and then it does not want to end."""
    for _ in range(2):
        try:
            yield messages.PingResponse(1)
        except GeneratorExit:
            continue


async def failing_when_closed(request: object) -> AsyncIterator[object]:
    try:
        yield None
    finally:
        raise ValueError("boom")


STREAMS: dict[str, Behaviour] = {
    "an exception at first": failing_after(0, ValueError("boom")),
    "an exception midway": failing_after(3, ValueError("boom")),
    "no Exception midway": failing_after(3, NoException("odd")),
    "CancelledError midway": failing_after(3, asyncio.CancelledError()),
    "StopAsyncIteration midway": failing_after(3, StopAsyncIteration()),
    "an exception that can't be told": failing_after(1, Untold()),
    "nothing": yielding(state(), None),
    "another message": yielding(state(), messages.PingResponse(1)),
    "text": yielding("text"),
    "a field of another type": yielding(
        state(),
        messages.StreamStatusResponse(messages.ClusterInfo(pid="1")),  # type: ignore[arg-type]
    ),
    "a lone surrogate": yielding(
        messages.StreamStatusResponse(messages.ClusterInfo(root_data_dir=SURROGATE))
    ),
    "no iterator": lambda _: None,
    "a list": lambda _: [state()],
    "a generator of the other kind": lambda _: iter([state()]),
    "an iterator that fails": lambda _: _Plain(ValueError("boom")),
    "failing when it is closed": failing_when_closed,
}
"""Streams that must end with an error."""
