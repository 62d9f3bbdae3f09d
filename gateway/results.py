"""The status stream as netrunner's old HTTP API has it: lines of results, ended by a failure."""

from __future__ import annotations

from collections.abc import Iterator

import pydantic_core

from gateway import grpc_status
from gateway.errors import DEADLINE, Kind, Problem, kind_named
from gateway.journal import Item
from gateway.readers import Lines, StatusReader, Terms
from gateway.streams import StatusFeed


class Results(Lines):
    """A line `{"result": …}` per state, and nothing else; see readers.Form."""

    def item(self, item: Item, *, main: bool) -> bytes:
        """One state."""
        del main
        return b'{"result":' + item.data + b"}\n"

    def notice(self, kind: str, data: bytes) -> bytes:
        """Nothing: the old API has states only."""
        del kind, data
        return b""


class ResultReader(StatusReader):
    """Reads states until the first failure. See readers.Reader."""

    def __init__(self, feed: StatusFeed, terms: Terms) -> None:
        super().__init__(feed, terms, changes=False)
        self._failure: tuple[Kind, str] | None = None

    @property
    def goes_on(self) -> bool:
        """Whether there is anybody to tell anything."""
        return self._failure is None and super().goes_on

    def ending(self, problem: Problem) -> tuple[Kind, str]:
        """What ended the stream, and what there is to say of that: ``problem``, or a failure."""
        return self._failure or (kind_named(problem.code), problem.detail)

    def farewell(self, problem: Problem) -> bytes:
        """The line that the stream ends with."""
        return grpc_status.render_chunk(*self.ending(problem))

    def expire(self) -> None:
        """The client's deadline is over."""
        self._failure = (DEADLINE, "the time that Grpc-Timeout gave the stream is over")
        self.poke()

    def _due(self) -> Iterator[bytes]:
        newest = self._feed.newest
        if newest is not None and newest.type == "error" and self._is_due():
            problem = pydantic_core.from_json(newest.data)
            self._failure = (kind_named(problem["code"]), problem["detail"])
            return
        yield from super()._due()
