"""Following: the cluster's state, as the server pushes it or as it is asked for."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, cast

from gateway import schema
from gateway.upstream import Upstream
from zapcore.codec import Message
from zapcore.errors import (
    DeadlineExceeded,
    NotBootstrapped,
    Overloaded,
    RemoteError,
    TransportError,
    UnsupportedByServer,
    ZapError,
)
from zapcore.messages import ClusterAnswer, ClusterInfo, PingResponse, StreamStatusResponse
from zapcore.methods import Method, Rpcs
from zapcore.pool import backoff_delay

logger = logging.getLogger(__name__)

_PATIENCE = 10.0
"""Seconds that a state may be late."""

_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """One state of the cluster, decoded once and turned into JSON once."""

    cluster: ClusterInfo | None
    json: bytes


NO_CLUSTER = Snapshot(None, schema.to_json(StreamStatusResponse()))


class Sink(Protocol):
    """Who is told what is found out."""

    def met(self, pid: int) -> None:
        """A connection was made, and the server told its process id; 0 where it does not."""

    def saw(self, snapshot: Snapshot) -> None:
        """A state; the very object of the last time where nothing changed."""

    def failed(self, error: ZapError) -> None:
        """The state could not be had; another attempt follows."""


class Following:
    """One stream of the server's, or one poll where it has none, until it is cancelled.

    Args:
        upstream: where the cluster's state comes from.
        sink: told of everything.
        interval: seconds between two states.
    """

    def __init__(self, upstream: Upstream, sink: Sink, interval: float) -> None:
        self._upstream = upstream
        self._sink = sink
        self.interval = interval
        self._last: tuple[bytes, Snapshot] | None = None
        self._verdict: tuple[ClusterInfo | None, Snapshot] = (None, NO_CLUSTER)
        """What was pushed as unhealthy last, and what it turned out to be."""

    async def run(self, after: frozenset[asyncio.Task[None]] = frozenset()) -> None:
        """Follow.

        Args:
            after: others that were cancelled and must be gone first: the server sees one.
        """
        if after:
            await asyncio.wait(after)
        source, failures = self._pushed, 0
        while True:
            delay = self.interval
            try:
                async with aclosing(source()) as snapshots:
                    async for snapshot in snapshots:
                        self._sink.saw(snapshot)
                        failures = 0
            except UnsupportedByServer:
                source, delay = self._polled, 0.0
            except NotBootstrapped:
                self._sink.saw(NO_CLUSTER)
            except ZapError as error:
                failures += 1
                self._sink.failed(error)
                delay = self._backoff(failures)
                if isinstance(error, RemoteError):
                    delay = max(delay, self.interval)
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

    async def _pushed(self) -> AsyncGenerator[Snapshot, None]:
        """The server's own stream, on a connection of its own."""
        await self._meet()
        method = Rpcs.stream_status
        request = method.request(push_interval=int(self.interval * _NANOSECONDS))
        patience = self.interval + _PATIENCE
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
                yield await self._unless_stopped(self._snapshot(method, body))

    async def _polled(self) -> AsyncGenerator[Snapshot, None]:
        """Status, again and again."""
        await self._meet()
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            try:
                yield await self._upstream.read(Rpcs.status, self._snapshot)
            except NotBootstrapped:
                yield NO_CLUSTER
            due = max(due + self.interval, loop.time())
            await asyncio.sleep(due - loop.time())

    async def _meet(self) -> None:
        """Ask which process it is that answers."""
        try:
            self._sink.met(await self._upstream.read(Rpcs.ping, _pid))
        except (UnsupportedByServer, Overloaded):
            self._sink.met(0)

    async def _unless_stopped(self, snapshot: Snapshot) -> Snapshot:
        """What is so: netrunner goes on to push the last state of a cluster that was stopped."""
        if snapshot.cluster is None or snapshot.cluster.healthy:
            return snapshot
        patience = self.interval + _PATIENCE
        try:
            found = await self._upstream.read(Rpcs.status, self._snapshot, patience)
        except NotBootstrapped:
            found = NO_CLUSTER
        except ZapError:
            # The stream itself shows what is wrong, if it lasts.
            pushed, verdict = self._verdict
            return verdict if pushed is snapshot.cluster else snapshot
        self._verdict = (snapshot.cluster, found)
        return found

    def _snapshot(self, method: Method[Message, Message], body: bytes) -> Snapshot:
        if self._last is not None and self._last[0] == body:
            return self._last[1]
        answer = cast("ClusterAnswer", method.response.decode(body))
        cluster = answer.cluster_info
        snapshot = NO_CLUSTER if cluster is None else Snapshot(cluster, schema.to_json(answer))
        self._last = (body, snapshot)
        return snapshot


def _pid(method: Method[Message, Message], body: bytes) -> int:
    return cast("PingResponse", method.response.decode(body)).pid
