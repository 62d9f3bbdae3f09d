"""The way to the netrunner server: calls in, JSON bytes out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import NamedTuple, TypeVar

from gateway import schema
from gateway.context import RequestContext
from gateway.errors import kind_of
from gateway.metrics import Metrics
from gateway.tracing import Tracing
from zapcore.codec import Message
from zapcore.connection import Batch, takes_long
from zapcore.errors import ZapError
from zapcore.methods import Method
from zapcore.pool import ConnectionPool, Resume

logger = logging.getLogger(__name__)

_LARGEST_KEPT = 64 * 1024

_T = TypeVar("_T")

Render = Callable[[Method[Message, Message], bytes], bytes]
"""Makes an answer's JSON of its body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTimes:
    """How long a call may take where the request doesn't say, in seconds."""

    reading: float
    changing: float


Ended = Callable[[bytes | Coroutine[None, None, bytes]], None]


class _Reader(NamedTuple):
    """Who waits for the answer to a call."""

    context: RequestContext
    started: float
    ended: Ended


class _Shared(NamedTuple):
    """The last call of an RPC that was begun, and its readers so far."""

    batch: Batch
    readers: list[_Reader]


class Upstream:
    """Calls through the pool.

    An answer's JSON is a pure function of its bytes, so each RPC's last answer keeps its JSON
    beside it: a cluster that did not change is not decoded again.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        times: CallTimes,
        metrics: Metrics,
        tracing: Tracing | None = None,
    ) -> None:
        self.pool = pool
        self.times = times
        self.metrics = metrics
        self._tracing = tracing
        self._last: dict[str, tuple[bytes, bytes]] = {}
        self._shared: dict[str, _Shared] = {}
        self._deliveries: set[asyncio.Task[None]] = set()

    async def call(
        self,
        method: Method[Message, Message],
        request: Message | None = None,
        timeout: float | None = None,
        context: RequestContext | None = None,
        render: Render | None = None,
    ) -> bytes:
        """Call an RPC; its answer's JSON.

        Args:
            method: the RPC.
            request: its request; None for one with nothing but defaults.
            timeout: seconds; as :class:`CallTimes` says where None.
            context: of the HTTP request that the call is for; told what became of it.
            render: makes the JSON of the answer's body; :meth:`render` where None.

        Raises:
            ZapError: whatever went wrong; see ConnectionPool.exchange.
        """
        payload = method.encode_request(request)
        return await self._traced(method, payload, timeout, context, render or self.render)

    async def exchange(
        self,
        method: Method[Message, Message],
        payload: bytes,
        timeout: float | None = None,
        context: RequestContext | None = None,
    ) -> bytes:
        """As :meth:`call`, for a request that is encoded already."""
        return await self._traced(method, payload, timeout, context, self.render)

    async def read(
        self,
        method: Method[Message, Message],
        read: Callable[[Method[Message, Message], bytes], _T],
        timeout: float | None = None,
    ) -> _T:
        """As :meth:`call`, for an RPC that asks nothing; what ``read`` makes of its answer."""
        return await self._traced(method, method.encode_request(), timeout, None, read)

    def begin(
        self,
        method: Method[Message, Message],
        payload: bytes,
        context: RequestContext,
        ended: Ended,
    ) -> bool:
        """As :meth:`exchange` for an RPC that asks nothing, without a coroutine and without traces.

        Reads of an RPC that come before the request for the first of them has left share it: it
        leaves after all of them have begun, so none gets what is older than itself.

        Args:
            method: the RPC; it must be one that only reads.
            payload: its request, with the sub-opcode.
            context: of the HTTP request that the call is for; told what became of it.
            ended: called with the answer's JSON. Where it takes longer, or failed, called with what
                must be awaited for the JSON or the error.

        Returns:
            False where the call can't be sent at once; nothing has happened then.
        """
        reader = _Reader(context, perf_counter(), ended)
        shared = self._shared.get(method.name)
        if shared is not None and not shared.batch.gone:
            shared.readers.append(reader)
            return True
        readers = [reader]
        batch = self.pool.begin(
            method, payload, self.times.reading, partial(self._deliver, method, readers)
        )
        if batch is None:
            return False
        self._shared[method.name] = _Shared(batch, readers)
        return True

    def _deliver(
        self,
        method: Method[Message, Message],
        readers: list[_Reader],
        body: bytes | None,
        resume: Resume,
    ) -> None:
        shared = self._shared.get(method.name)
        if shared is not None and shared.readers is readers:
            del self._shared[method.name]
        answer: bytes | None = None
        if body is not None:
            if takes_long(body):
                task = asyncio.create_task(self._deliver_large(method, readers, body))
                self._deliveries.add(task)
                task.add_done_callback(self._deliveries.discard)
                return
            try:
                answer = self.render(method, body)
            except Exception:  # noqa: BLE001 - it comes again for each reader, who tells it
                resume = partial(_at_hand, body)
        self._hand_over(method, readers, answer, resume)

    async def _deliver_large(
        self, method: Method[Message, Message], readers: list[_Reader], body: bytes
    ) -> None:
        answer: bytes | None
        try:
            answer = await asyncio.to_thread(self.render, method, body)
        except Exception:  # noqa: BLE001 - it comes again for each reader, who tells it
            answer = None
        self._hand_over(method, readers, answer, partial(_at_hand, body))

    def _hand_over(
        self,
        method: Method[Message, Message],
        readers: list[_Reader],
        answer: bytes | None,
        resume: Resume,
    ) -> None:
        for context, started, ended in readers:
            try:
                if answer is None:
                    ended(self._finish(method, resume(), context, self.render, started))
                else:
                    self._tell(method, "ok", started, context)
                    ended(answer)
            except Exception:
                # The others that share the call get its answer all the same.
                logger.exception("an answer to %s was not taken", method)

    def _timeout(self, method: Method[Message, Message]) -> float:
        return self.times.reading if method.read_only else self.times.changing

    async def _traced(
        self,
        method: Method[Message, Message],
        payload: bytes,
        timeout: float | None,
        context: RequestContext | None,
        read: Callable[[Method[Message, Message], bytes], _T],
    ) -> _T:
        if timeout is None:
            timeout = self._timeout(method)
        started = perf_counter()
        answer = self.pool.exchange(method, payload, timeout=timeout)
        if self._tracing is not None:
            with self._tracing.call(method, self.pool.address, context):
                return await self._finish(method, answer, context, read, started)
        return await self._finish(method, answer, context, read, started)

    async def _finish(
        self,
        method: Method[Message, Message],
        answer: Coroutine[None, None, bytes],
        context: RequestContext | None,
        read: Callable[[Method[Message, Message], bytes], _T],
        started: float,
    ) -> _T:
        """Wait for an answer, make of it what is wanted, and tell how that went."""
        outcome = "cancelled"
        try:
            body = await answer
            if takes_long(body):
                made = await asyncio.to_thread(read, method, body)
            else:
                made = read(method, body)
            outcome = "ok"
        except ZapError as error:
            outcome = kind_of(error).code
            raise
        finally:
            self._tell(method, outcome, started, context)
        return made

    def _tell(
        self,
        method: Method[Message, Message],
        outcome: str,
        started: float,
        context: RequestContext | None,
    ) -> None:
        seconds = perf_counter() - started
        self.metrics.call_finished(method, outcome, seconds)
        if context is not None:
            context.rpc, context.outcome = method.name, outcome
            context.upstream_seconds += seconds

    def render(self, method: Method[Message, Message], body: bytes) -> bytes:
        """An answer's JSON.

        Raises:
            DecodeError: the body is not that RPC's answer.
        """
        last = self._last.get(method.name)
        if last is not None and last[0] == body:
            return last[1]
        answer = schema.json_of(method.response, body)
        if len(body) <= _LARGEST_KEPT:
            self._last[method.name] = (body, answer)
        return answer


async def _at_hand(body: bytes) -> bytes:
    return body
