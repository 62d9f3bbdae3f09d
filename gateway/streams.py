"""StatusFeed: one upstream stream of the cluster's state, any number of readers."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Protocol

from gateway.changes import Change, changes_between, restarted
from gateway.errors import render, zap_problem
from gateway.following import Following, Snapshot
from gateway.journal import Item, Journal, Position, event_item
from gateway.upstream import Upstream
from zapcore.errors import Overloaded, RemoteError, ZapError
from zapcore.methods import Rpcs

SHORTEST_INTERVAL = 0.1
LONGEST_INTERVAL = 3600.0
KEEP_ALIVE = 15.0
"""Seconds of silence after which a reader gets a comment, lest a proxy take it for dead."""

_FRESH = 5.0
"""Seconds that a state may be old for a reader that begins; past that it is asked for anew."""

_WOKEN_AT_ONCE = 64
"""Readers that are woken before the event loop looks at anything else again."""


class Listener(Protocol):
    """A reader, as the feed sees it."""

    interval: float
    """Seconds between two states that it asked for."""

    def notice(self, now: float) -> None:
        """Something was told, at this time by the event loop's clock."""

    def poke(self) -> None:
        """Look whether to go on."""


class StatusFeed:
    """Follows the cluster while anybody reads, at the shortest interval that anybody asked for.

    What it finds out has one order: states, failures and events are numbered together. Of states
    and failures only the newest is kept, so a reader that is slow gets that one and not a queue;
    of events the last thousand.

    Args:
        upstream: where the cluster's state comes from.
        max_readers: one more is refused with Overloaded.
    """

    def __init__(self, upstream: Upstream, max_readers: int) -> None:
        self._upstream = upstream
        self._max_readers = max_readers
        self._listeners: dict[Listener, None] = {}
        self.interval = LONGEST_INTERVAL
        """Seconds between two states, as the server is asked for them."""
        self._task: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._keep_alive: asyncio.TimerHandle | None = None
        self._closed = False
        self._sequence = 0
        self.epoch = secrets.token_hex(4)
        """Names this process in what it tells."""
        self.journal = Journal()
        self.newest: Item | None = None
        """The newest state or failure; None while nobody reads, and until there is one."""
        self.baseline: int | None = None
        """Where the events begin for a reader that began when nobody read yet."""
        self.content_since = 0
        """The number of the first item that told what the newest one tells."""
        self._content = b""
        self._known: Snapshot | None = None
        self._pid = _ServerPid()
        self._met = 0
        self._lost = False
        self._unobserved = False

    @property
    def readers(self) -> int:
        """How many read now."""
        return len(self._listeners)

    @property
    def upstream_streams(self) -> int:
        """How many streams of the server are followed: one while anybody reads."""
        return int(self._task is not None)

    @property
    def position(self) -> Position:
        """The place of what was told last."""
        return Position(self.epoch, self._pid.known, self._sequence)

    # Readers.

    @contextmanager
    def reading(self, listener: Listener) -> Iterator[None]:
        """Take part.

        Raises:
            Overloaded: too many readers.
        """
        if len(self._listeners) >= self._max_readers:
            raise Overloaded(f"{len(self._listeners)} clients read the streams: try again later")
        self._listeners[listener] = None
        self._adapt()
        self._refresh()
        try:
            yield
        finally:
            del self._listeners[listener]
            self._adapt()

    def is_closed(self) -> bool:
        """Whether readers should end."""
        return self._closed

    def drain(self) -> None:
        """Let every reader end."""
        self._closed = True
        self.look_again()

    def look_again(self) -> None:
        """Let every reader see whether it may still read."""
        for listener in self._listeners:
            listener.poke()

    async def close(self) -> None:
        """Stop following."""
        self.drain()
        self._stop()
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _wake(self) -> None:
        """Let readers see what is new, some at a time: others must not wait for all of them."""
        self._wake_some(iter(tuple(self._listeners)))

    def _wake_some(self, listeners: Iterator[Listener]) -> None:
        loop = asyncio.get_running_loop()
        now, woken = loop.time(), 0
        for listener in islice(listeners, _WOKEN_AT_ONCE):
            listener.notice(now)
            woken += 1
        if woken == _WOKEN_AT_ONCE:
            loop.call_soon(self._wake_some, listeners)

    def _look_for_silence(self) -> None:
        self._wake()
        self._keep_alive = asyncio.get_running_loop().call_later(
            KEEP_ALIVE / 4, self._look_for_silence
        )

    # Following.

    def _adapt(self) -> None:
        """Follow at the pace that the readers need now; not at all for none."""
        shortest = min((listener.interval for listener in self._listeners), default=None)
        if shortest is None or self._closed:
            self._stop()
        elif self._task is None or shortest < self.interval:
            self._restart(shortest)
        # A longer interval waits for the next state: readers that come and go must not make the
        # server begin a stream each.

    def _refresh(self) -> None:
        """Who asks for a state per hour still wants to begin with how it is now."""
        newest, now = self.newest, asyncio.get_running_loop().time()
        if newest is not None and newest.type == "status" and now - newest.at > _FRESH:
            self.newest = None
            self._restart(self.interval)

    def _restart(self, interval: float) -> None:
        before, self.interval = self._task, interval
        if before is not None:
            self._end(before)
        else:
            self._unobserved = self._known is not None
            self._look_for_silence()
        following = Following(self._upstream, self, interval)
        run = following.run(after=frozenset(self._ending))
        self._task = asyncio.get_running_loop().create_task(run)

    def _stop(self) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        self._end(task)
        self.newest = self.baseline = None
        if self._keep_alive is not None:
            self._keep_alive.cancel()

    def _end(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    # What is found out; see Sink.

    def met(self, pid: int) -> None:
        """A connection was made."""
        self._met = pid

    def saw(self, snapshot: Snapshot) -> None:
        """A state came."""
        self._tell_unobserved()
        if self._lost:
            self._lost = False
            self._tell(Change("upstream.back"))
        cluster = snapshot.cluster
        self._tell_restart(self._pid.pinged(self._met))
        self._tell_restart(self._pid.told(0 if cluster is None else cluster.pid))
        if self._known is not None and self._known is not snapshot:
            for change in changes_between(self._known.cluster, cluster):
                self._tell(change)
        self._known = snapshot
        if self.baseline is None:
            self.baseline = self._sequence
        self._publish("status", snapshot.json)
        shortest = min((listener.interval for listener in self._listeners), default=None)
        if shortest is not None and shortest > self.interval:
            self._restart(shortest)

    def failed(self, error: ZapError) -> None:
        """The state could not be had."""
        self._tell_unobserved()
        if self.baseline is None:
            self.baseline = self._sequence
        if not self._lost and not isinstance(error, (RemoteError, Overloaded)):
            self._lost = True
            self._tell(Change("upstream.lost", detail=str(error)))
        problem = render(zap_problem(error, request_id="", rpc=Rpcs.stream_status.name))
        if self.newest is None or self.newest.data != problem:
            self._publish("error", problem)
        else:
            self._wake()

    def _publish(self, kind: str, data: bytes) -> None:
        self._sequence += 1
        self.newest = Item(self.position, kind, data, asyncio.get_running_loop().time())
        if data != self._content:
            self._content, self.content_since = data, self._sequence
        self._wake()

    def _tell(self, change: Change) -> None:
        self._sequence += 1
        self.journal.append(event_item(self.position, change))

    def _tell_restart(self, change: Change | None) -> None:
        if change is not None:
            self._tell(change)

    def _tell_unobserved(self) -> None:
        """While nobody read, what came and went was seen by nobody."""
        if self._unobserved:
            self._unobserved = False
            detail = "nobody read for a while: what follows is what that time changed on the whole"
            self._tell(Change("gap", detail=detail))


class _ServerPid:
    """Which process the server is, by what it answers to Ping and by what its states tell."""

    def __init__(self) -> None:
        self._pinged = 0
        self._told = 0

    @property
    def known(self) -> int:
        """0 where it is not known."""
        return self._told or self._pinged

    def pinged(self, pid: int) -> Change | None:
        """Ping was answered; what that shows."""
        before, self._pinged = self._pinged, pid or self._pinged
        if not before or not pid or pid in (before, self._told):
            return None  # or the states told of it already
        known, self._told = self._told or before, 0
        return restarted(known, pid)

    def told(self, pid: int) -> Change | None:
        """A state told the process id; what that shows."""
        before, self._told = self._told, pid or self._told
        if not before or not pid or before == pid:
            return None
        return restarted(before, pid)
