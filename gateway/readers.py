"""Readers: what one client of a stream is told, and when."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, Field

from gateway import streams
from gateway.changes import Change
from gateway.errors import Problem, render
from gateway.journal import Item, Position, event_item, parse_position
from gateway.streams import StatusFeed

_MOST_AT_ONCE = 64 * 1024
"""Bytes of events after which the rest waits until they are taken."""

_RECONNECT_MILLISECONDS = 1000
_EARLY = 0.1
"""Part of its interval by which a reader may get a state early, lest it wait for the next."""


class Restart(BaseModel):
    """Another process answers than the one that the reader heard last."""

    of: Annotated[Literal["gateway", "server"], Field(description="Which of the two it is.")]
    before: Annotated[str, Field(description="The process before, as in ids.")]
    after: Annotated[str, Field(description="The process now.")]


class Form(Protocol):
    """How a stream is written."""

    keep_alive: bytes

    def opening(self, position: Position | None) -> bytes:
        """What it begins with, and where to come back to where that is known already."""

    def place(self, position: Position) -> bytes:
        """Where to come back to, should nothing else come at all."""

    def item(self, item: Item, *, main: bool) -> bytes:
        """One item; ``main`` for the kind that this stream is of."""

    def notice(self, kind: str, data: bytes) -> bytes:
        """A word about the stream itself, which has no place in it."""


class ServerSentEvents:
    """text/event-stream."""

    keep_alive = b": keep-alive\n\n"

    def opening(self, position: Position | None) -> bytes:
        """See Form."""
        place = b"\n" if position is None else self.place(position)
        return f"retry: {_RECONNECT_MILLISECONDS}\n".encode() + place

    def place(self, position: Position) -> bytes:
        """See Form."""
        return f"id: {position}\n\n".encode()

    def item(self, item: Item, *, main: bool) -> bytes:
        """See Form."""
        del main
        return item.sse

    def notice(self, kind: str, data: bytes) -> bytes:
        """See Form."""
        return f"event: {kind}\ndata: ".encode() + data + b"\n\n"


class Lines:
    """application/x-ndjson."""

    keep_alive = b""

    def opening(self, position: Position | None) -> bytes:
        """See Form."""
        del position
        return b""

    def place(self, position: Position) -> bytes:
        """See Form."""
        del position
        return b""

    def item(self, item: Item, *, main: bool) -> bytes:
        """See Form."""
        return item.line if main else item.wrapped_line

    def notice(self, kind: str, data: bytes) -> bytes:
        """See Form."""
        return f'{{"{kind}":'.encode() + data + b"}\n"


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a client reads.

    Args:
        form: how its stream is written.
        interval: seconds between two states.
        last_id: where it comes back to; empty where it comes first.
        is_allowed: whether it may still read.
    """

    form: Form
    interval: float
    last_id: str
    is_allowed: Callable[[], bool]


class Reader:
    """One client of the feed.

    It pulls: :meth:`take` gives what is due, and :meth:`wait` returns when there may be more.

    Args:
        feed: what it reads.
        terms: on what terms.
    """

    def __init__(self, feed: StatusFeed, terms: Terms) -> None:
        self.interval = terms.interval
        self.is_allowed = terms.is_allowed
        self.gone = False
        """Whether the client is not there any more."""
        self._feed = feed
        self._form = terms.form
        self._came_back = bool(terms.last_id)
        self._last = _given_out(parse_position(terms.last_id), feed)
        self._loop = asyncio.get_running_loop()
        self._silent_since = self._loop.time()
        self._waiting: asyncio.Future[None] | None = None

    def opening(self) -> bytes:
        """What the stream begins with."""
        return self._form.opening(None)

    def farewell(self, problem: Problem) -> bytes:
        """What the stream ends with."""
        return self._form.notice("end", render(problem))

    @property
    def goes_on(self) -> bool:
        """Whether there is anybody to tell anything."""
        return not self.gone and not self._feed.is_closed() and self.is_allowed()

    def take(self) -> bytes:
        """What is due now; empty for nothing."""
        now = self._loop.time()
        data = b"".join(self._due())
        if not data and self._is_silent(now):
            data = self._form.keep_alive
            self._silent_since = now
        elif data:
            self._silent_since = now
        return data

    async def wait(self) -> None:
        """Wait until something may be due."""
        self._waiting = self._loop.create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def poke(self) -> None:
        """Let :meth:`wait` return."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def notice(self, now: float) -> None:
        """See Listener."""
        # One that is not waiting is at it, and looks again by itself.
        if self._waiting is not None and (self._is_due() or self._is_silent(now)):
            self.poke()

    def leave(self) -> None:
        """The client is gone."""
        self.gone = True
        self.poke()

    def _is_silent(self, now: float) -> bool:
        # The feed looks four times in that time: once more would be too late.
        return now - self._silent_since >= streams.KEEP_ALIVE * 0.75

    def _due(self) -> Iterator[bytes]:
        """What is due, and is told by that."""
        raise NotImplementedError

    def _is_due(self) -> bool:
        """Whether there is anything to tell."""
        raise NotImplementedError


def _given_out(position: Position | None, feed: StatusFeed) -> Position | None:
    """The position, unless this very process never gave it out."""
    if position is None or position.epoch != feed.epoch:
        return position
    return position if position.sequence <= feed.position.sequence else None


class _States:
    """The states that one reader was told, and is to be told next.

    Args:
        feed: where they come from.
        interval: seconds between two.
        changes: whether to leave out a state that equals the one before.
        last: where the reader comes back to.
    """

    def __init__(
        self, feed: StatusFeed, interval: float, changes: bool, last: Position | None
    ) -> None:
        self._feed = feed
        self._interval = interval
        self._changes = changes
        self._heard = last
        self._seen = last.sequence if last is not None and last.epoch == feed.epoch else 0
        self._told: bytes | None = None
        self._due_at = -math.inf

    def is_due(self) -> bool:
        """Whether the newest is to be told now."""
        item = self._feed.newest
        if item is None or item.sequence <= self._seen or self._is_known(item):
            return False
        if item.type == "error":
            return True
        # By when it came, not by when this reader did: all get it at the same time. Where the
        # server keeps this reader's own pace, only one that floods is held back.
        early = 1.0 if self._interval <= self._feed.interval else _EARLY
        return item.at >= self._due_at - early * self._interval

    def due(self, form: Form, *, main: bool) -> Iterator[bytes]:
        """The newest, if it is due, behind word of another process that tells it."""
        item = self._feed.newest
        if item is None or not self.is_due():
            return
        heard, self._heard = self._heard, item.position
        if heard is not None:
            yield from _restarts(form, heard, item.position)
        self._seen, self._told = item.sequence, item.data
        if item.type != "error":
            kept_pace = item.at - self._due_at <= self._interval
            self._due_at = (self._due_at if kept_pace else item.at) + self._interval
        yield form.item(item, main=main and item.type != "error")

    def _is_known(self, item: Item) -> bool:
        if not self._changes or _another_server(self._heard, item.position):
            return False
        if self._told is None:
            return self._feed.content_since <= self._seen
        return item.data == self._told


def _restarts(form: Form, heard: Position, position: Position) -> Iterator[bytes]:
    """Word of processes that are not those that the reader heard last."""
    found = []
    if heard.epoch != position.epoch:
        found.append(Restart(of="gateway", before=heard.epoch, after=position.epoch))
    if _another_server(heard, position):
        found.append(Restart(of="server", before=str(heard.pid), after=str(position.pid)))
    for restart in found:
        yield form.notice("restart", restart.model_dump_json().encode())


def _another_server(heard: Position | None, position: Position) -> bool:
    return heard is not None and bool(heard.pid and position.pid) and heard.pid != position.pid


class StatusReader(Reader):
    """Reads states. See :class:`Reader`.

    Args:
        changes: whether to leave out a state that equals the one before.
    """

    def __init__(self, feed: StatusFeed, terms: Terms, *, changes: bool) -> None:
        super().__init__(feed, terms)
        self._states = _States(feed, terms.interval, changes, self._last)

    def _due(self) -> Iterator[bytes]:
        return self._states.due(self._form, main=True)

    def _is_due(self) -> bool:
        return self._states.is_due()


class EventReader(Reader):
    """Reads events, and states in between where it asks for them. See :class:`Reader`.

    Args:
        types: the types of events to tell; None for all.
        status: whether to tell states too.
    """

    def __init__(
        self, feed: StatusFeed, terms: Terms, *, types: frozenset[str] | None, status: bool
    ) -> None:
        super().__init__(feed, terms)
        self._types = types
        self._states = _States(feed, terms.interval, False, self._last) if status else None
        self._missed: str | None = None
        self._cursor = self._beginning()
        self._placed = self._came_back
        """Whether the client knows where to come back to."""

    def opening(self) -> bytes:
        """What the stream begins with."""
        if self._cursor is None or self._placed:
            return super().opening()
        self._placed = True
        return self._form.opening(self._place(self._cursor))

    def _beginning(self) -> int | None:
        """The number behind which it reads on; None until the feed has a first state."""
        feed = self._feed
        if not self._came_back:
            return None if feed.baseline is None else feed.position.sequence
        if self._last is None:
            self._missed = "the id to come back to is not one of this gateway's"
        elif self._last.epoch != feed.epoch:
            self._missed = "another process of the gateway answers than the one before"
        else:
            return self._last.sequence
        return feed.journal.dropped

    def _due(self) -> Iterator[bytes]:
        if self._cursor is None:
            self._cursor = self._feed.baseline
        if self._cursor is None:
            return
        if not self._placed:
            self._placed = True
            yield self._form.place(self._place(self._cursor))
        yield from self._events(self._cursor)
        if self._states is not None:
            yield from self._states.due(self._form, main=False)

    def _place(self, cursor: int) -> Position:
        newest = self._feed.newest
        if self._states is not None and newest is not None:
            cursor = min(cursor, newest.sequence - 1)  # or that state would count as told
        return self._feed.position._replace(sequence=cursor)

    def _events(self, cursor: int) -> Iterator[bytes]:
        journal = self._feed.journal
        if cursor < journal.dropped:
            cursor = journal.dropped
            self._missed = "so much happened since that the gateway does not keep all of it"
        if self._missed is not None:
            gap = Change("gap", detail=f"{self._missed}: some events are not to be had")
            place = self._feed.position._replace(sequence=cursor)
            self._missed = None
            yield self._form.item(event_item(place, gap), main=True)
        size = 0
        for item in journal.since(cursor):
            if size > _MOST_AT_ONCE:
                break
            cursor = item.sequence
            if self._types is None or item.type in self._types or item.type == "gap":
                size += len(item.data)
                yield self._form.item(item, main=True)
        self._cursor = cursor

    def _is_due(self) -> bool:
        if self._cursor is None:
            return self._feed.baseline is not None
        if self._missed is not None or self._feed.journal.last > self._cursor:
            return True
        return self._states is not None and self._states.is_due()
