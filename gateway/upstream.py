"""The way to the netrunner server: calls in, JSON bytes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

from gateway import schema
from gateway.context import RequestContext
from gateway.errors import kind_of
from gateway.metrics import Metrics
from gateway.tracing import Tracing
from zapcore.codec import Message
from zapcore.errors import ZapError
from zapcore.methods import Method
from zapcore.pool import ConnectionPool

_LARGEST_KEPT = 64 * 1024

_T = TypeVar("_T")

Render = Callable[[Method[Message, Message], bytes], bytes]
"""Makes an answer's JSON of its body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTimes:
    """How long a call may take where the request doesn't say, in seconds."""

    reading: float
    changing: float


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

    async def _traced(
        self,
        method: Method[Message, Message],
        payload: bytes,
        timeout: float | None,
        context: RequestContext | None,
        read: Callable[[Method[Message, Message], bytes], _T],
    ) -> _T:
        if timeout is None:
            timeout = self.times.reading if method.read_only else self.times.changing
        if self._tracing is not None:
            with self._tracing.call(method, self.pool.address, context):
                return await self._exchange(method, payload, timeout, context, read)
        return await self._exchange(method, payload, timeout, context, read)

    async def _exchange(
        self,
        method: Method[Message, Message],
        payload: bytes,
        timeout: float,
        context: RequestContext | None,
        read: Callable[[Method[Message, Message], bytes], _T],
    ) -> _T:
        started = perf_counter()
        outcome = "cancelled"
        try:
            body = await self.pool.exchange(method, payload, timeout=timeout)
            answer = read(method, body)
            outcome = "ok"
        except ZapError as error:
            outcome = kind_of(error).code
            raise
        finally:
            seconds = perf_counter() - started
            self.metrics.call_finished(method, outcome, seconds)
            if context is not None:
                context.rpc, context.outcome = method.name, outcome
                context.upstream_seconds += seconds
        return answer

    def render(self, method: Method[Message, Message], body: bytes) -> bytes:
        """An answer's JSON.

        Raises:
            DecodeError: the body is not that RPC's answer.
        """
        last = self._last.get(method.name)
        if last is not None and last[0] == body:
            return last[1]
        answer = schema.to_json(method.response.decode(body))
        if len(body) <= _LARGEST_KEPT:
            self._last[method.name] = (body, answer)
        return answer
