"""StatusFeed: one upstream stream of the cluster's state, any number of readers."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

from gateway.errors import render, zap_problem
from gateway.upstream import Upstream
from zapcore.errors import (
    DeadlineExceeded,
    Overloaded,
    RemoteError,
    TransportError,
    UnsupportedByServer,
    ZapError,
)
from zapcore.methods import Rpcs
from zapcore.pool import backoff_delay

logger = logging.getLogger(__name__)

SHORTEST_INTERVAL = 0.1
LONGEST_INTERVAL = 3600.0
KEEP_ALIVE = 15.0
"""Seconds of silence after which a reader gets a comment, lest a proxy take it for dead."""

_FRESH = 1.0
"""Seconds that a state may be old for a reader that begins."""

_PATIENCE = 10.0
_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Event:
    """One state of the cluster, or one failure to learn it, as JSON."""

    sequence: int
    data: bytes
    failed: bool


class StatusFeed:
    """Follows the cluster while anybody reads, at the shortest interval that anybody asked for.

    It reads the server's own stream where there is one, and polls Status where there is none.
    Only the newest event is kept: a reader that is slow gets that one, not a queue.

    Args:
        upstream: where the cluster's state comes from.
        max_readers: one more is refused with Overloaded.
    """

    def __init__(self, upstream: Upstream, max_readers: int) -> None:
        self._upstream = upstream
        self._max_readers = max_readers
        self._intervals: dict[Reader, float] = {}
        self._interval = LONGEST_INTERVAL
        self._task: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._sequence = 0
        self._published_at = -math.inf
        self._arrived = asyncio.Event()
        self.latest: Event | None = None
        self._closed = False
        self.epoch = secrets.token_hex(4)

    @property
    def readers(self) -> int:
        """How many read now."""
        return len(self._intervals)

    @property
    def upstream_streams(self) -> int:
        """How many streams of the server are followed: one while anybody reads."""
        return int(self._task is not None)

    @contextmanager
    def reading(
        self, interval: float, is_allowed: Callable[[], bool] = lambda: True
    ) -> Iterator[Reader]:
        """Take part.

        Args:
            interval: seconds.
            is_allowed: whether the reader may still read.

        Raises:
            Overloaded: too many readers.
        """
        if len(self._intervals) >= self._max_readers:
            raise Overloaded(f"{len(self._intervals)} clients read the stream: try again later")
        self._refresh()
        reader = Reader(self, interval, is_allowed)
        self._intervals[reader] = interval
        self._adapt()
        try:
            yield reader
        finally:
            del self._intervals[reader]
            self._adapt()

    def is_closed(self) -> bool:
        """Whether readers should end."""
        return self._closed

    def drain(self) -> None:
        """Let every reader end."""
        self._closed = True
        self._wake()

    def look_again(self) -> None:
        """Let every reader see whether it may still read."""
        self._wake()

    async def close(self) -> None:
        """Stop following."""
        self.drain()
        self._stop()
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def arrived(self, timeout: float) -> None:
        """Wait for the next event, up to ``timeout`` seconds."""
        try:
            async with asyncio.timeout(max(timeout, 0)):
                await self._arrived.wait()
        except TimeoutError:
            return

    def _adapt(self) -> None:
        """Follow at the pace that the readers need now; not at all for none."""
        shortest = min(self._intervals.values(), default=None)
        if shortest is None or self._closed:
            self._stop()
            self.latest = None
        elif self._task is None or shortest != self._interval:
            self._stop()
            self._interval = shortest
            self._task = asyncio.get_running_loop().create_task(self._follow())

    def _refresh(self) -> None:
        """Begin anew when the newest state is old: a new reader wants to know how it is now."""
        if self.latest is None or self.latest.failed:
            return
        if asyncio.get_running_loop().time() - self._published_at > _FRESH:
            self._stop()
            self.latest = None

    def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def _wake(self) -> None:
        self._arrived.set()
        self._arrived = asyncio.Event()

    def _publish(self, data: bytes, *, failed: bool) -> None:
        self._sequence += 1
        self._published_at = asyncio.get_running_loop().time()
        self.latest = Event(self._sequence, data, failed)
        self._wake()

    def _publish_failure(self, error: ZapError, rpc: str) -> None:
        data = render(zap_problem(error, request_id="", rpc=rpc))
        if self.latest is None or self.latest.data != data:
            self._publish(data, failed=True)

    async def _follow(self) -> None:
        source, failures = self._pushed, 0
        while True:
            try:
                async with aclosing(source()) as states:
                    async for state in states:
                        self._publish(state, failed=False)
                        failures = 0
                delay = self._interval
            except UnsupportedByServer:
                source, delay = self._polled, 0.0
            except ZapError as error:
                failures += 1
                self._publish_failure(error, Rpcs.stream_status.name)
                delay = self._backoff(failures)
                if isinstance(error, RemoteError):
                    delay = max(delay, self._interval)
                elif isinstance(error, TransportError):
                    source = self._pushed  # what comes back may be another server
            except Exception:
                # A defect, and a feed that quietly ended would leave its readers without a word.
                logger.exception("the status stream failed in the gateway")
                failures += 1
                delay = self._backoff(failures)
            await asyncio.sleep(delay)

    def _backoff(self, failures: int) -> float:
        return backoff_delay(self._upstream.pool.limits, failures, secrets.randbelow(100) / 100)

    async def _pushed(self) -> AsyncGenerator[bytes, None]:
        """The server's own stream, on a connection of its own."""
        method = Rpcs.stream_status
        request = method.request(push_interval=int(self._interval * _NANOSECONDS))
        patience = self._interval + _PATIENCE
        async with aclosing(
            self._upstream.pool.bodies(method, method.encode_request(request))
        ) as bodies:
            while True:
                try:
                    async with asyncio.timeout(patience):
                        body = await anext(bodies, None)
                except TimeoutError as error:
                    raise DeadlineExceeded(f"the stream was silent for {patience:g} s") from error
                if body is None:
                    return
                yield self._upstream.render(method, body)

    async def _polled(self) -> AsyncGenerator[bytes, None]:
        """Status, again and again."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            yield await self._upstream.call(Rpcs.status)
            due = max(due + self._interval, loop.time())
            await asyncio.sleep(due - loop.time())


class Reader:
    """One reader's place in the feed: at most one state per interval, failures at once."""

    def __init__(self, feed: StatusFeed, interval: float, is_allowed: Callable[[], bool]) -> None:
        self._feed = feed
        self._interval = interval
        self.is_allowed = is_allowed
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time()
        self._seen = 0

    async def events(
        self, *, changes: bool, keep_alive: float
    ) -> AsyncGenerator[Event | None, None]:
        """Events as they are due; None after ``keep_alive`` seconds without one.

        Args:
            changes: leave out a state that equals the one before.
            keep_alive: seconds.
        """
        last: bytes | None = None
        silent_until = self._loop.time() + keep_alive
        while self._goes_on():
            event = await self._next(silent_until)
            if event is None and not self._goes_on():
                return
            if event is not None and changes and event.data == last:
                continue
            if event is not None:
                last = event.data
            yield event
            silent_until = self._loop.time() + keep_alive

    def _goes_on(self) -> bool:
        return not self._feed.is_closed() and self.is_allowed()

    async def _next(self, until: float) -> Event | None:
        while self._goes_on():
            now = self._loop.time()
            event, wake = self._feed.latest, until
            if event is not None and event.sequence > self._seen:
                if event.failed or now >= self._due:
                    return self._take(event, now)
                wake = min(until, self._due)
            if now >= until:
                return None
            await self._feed.arrived(wake - now)
        return None

    def _take(self, event: Event, now: float) -> Event:
        self._seen = event.sequence
        if not event.failed:
            self._due = max(self._due + self._interval, now)
        return event
