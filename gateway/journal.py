"""Journal: the last events, with the bytes that every reader gets, in a bounded memory."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import NamedTuple

from gateway.changes import Change, Event

MAX_EVENTS = 1000
MAX_BYTES = 8 * 1024 * 1024

_ID = re.compile(r"(?P<epoch>[0-9a-f]{8})-(?P<pid>-?\d{1,10})-(?P<sequence>\d{1,15})", re.ASCII)


class Position(NamedTuple):
    """A place in what one gateway process tells; its text is the id of what stands there."""

    epoch: str
    """Names the gateway process."""
    pid: int
    """Of the netrunner server; 0 where it is not known."""
    sequence: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.pid}-{self.sequence}"


def parse_position(text: str) -> Position | None:
    """The place that an id names; None for what is no id of any gateway."""
    match = _ID.fullmatch(text)
    return match and Position(match["epoch"], int(match["pid"]), int(match["sequence"]))


@dataclass(frozen=True)
class Item:
    """One thing to tell: a state, a failure, or an event. Its forms are made once, for all."""

    position: Position
    type: str
    data: bytes
    """JSON."""
    at: float = 0.0
    """When it came, by the event loop's clock; 0 for what has its time in itself."""

    @property
    def sequence(self) -> int:
        """Its number in the order of everything that is told."""
        return self.position.sequence

    @cached_property
    def sse(self) -> bytes:
        """As a Server-Sent Event with an id."""
        return f"event: {self.type}\nid: {self.position}\ndata: ".encode() + self.data + b"\n\n"

    @cached_property
    def line(self) -> bytes:
        """As a line of NDJSON."""
        return self.data + b"\n"

    @cached_property
    def wrapped_line(self) -> bytes:
        """As a line of NDJSON that names what it holds."""
        return b'{"' + self.type.encode() + b'":' + self.data + b"}\n"


def now() -> str:
    """This moment, as events tell it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def event_item(position: Position, change: Change) -> Item:
    """An event, as it is told."""
    event = Event(
        id=str(position),
        type=change.type,
        time=now(),
        node=change.node,
        chain=change.chain,
        before=change.before,
        after=change.after,
        detail=change.detail,
    )
    return Item(position, change.type, event.model_dump_json(by_alias=True).encode())


class Journal:
    """The last events, oldest first. Older ones make room, by number and by size.

    Args:
        max_events: how many are kept.
        max_bytes: how large their JSON may be together; the newest is kept whatever its size.
    """

    def __init__(self, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES) -> None:
        self._items: deque[Item] = deque()
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._bytes = 0
        self.dropped = 0
        """The sequence number of the last event that is not kept any more; 0 for none."""

    @property
    def last(self) -> int:
        """The sequence number of the newest; 0 for none."""
        return self._items[-1].sequence if self._items else 0

    def append(self, item: Item) -> None:
        """Keep one more."""
        self._items.append(item)
        self._bytes += len(item.data)
        while len(self._items) > self._max_events or (
            self._bytes > self._max_bytes and len(self._items) > 1
        ):
            oldest = self._items.popleft()
            self._bytes -= len(oldest.data)
            self.dropped = oldest.sequence

    def since(self, sequence: int) -> Iterator[Item]:
        """Those behind a sequence number, oldest first."""
        newer = 0
        for item in reversed(self._items):
            if item.sequence <= sequence:
                break
            newer += 1
        start = len(self._items) - newer
        for index in range(start, len(self._items)):
            yield self._items[index]

    def __len__(self) -> int:
        return len(self._items)
