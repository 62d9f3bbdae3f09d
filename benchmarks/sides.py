"""What a row of the table is measured with: sides, and the processes that they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from benchmarks.processes import LOAD_CORE, command_line, python, started


class Unavailable(Exception):
    """A side that can't be had on this machine; the text says why."""


@dataclass(frozen=True)
class Figure:
    """What one side did in one round."""

    value: float
    unit: str
    command: str
    """The command line that did it."""
    more: Mapping[str, float] = field(default_factory=dict)
    """What else was seen, for --json."""


@dataclass(frozen=True)
class Process:
    """A process that runs until the end of the run."""

    pid: int
    told: Any
    """The JSON line that it printed when it was ready."""
    command: str


class Run:
    """One run of the benchmarks: how long, and what sides share.

    Args:
        seconds: that each side may take in each round.
        calls: how many the memory row makes.
    """

    def __init__(self, seconds: float, calls: int = 100_000) -> None:
        self.seconds = seconds
        self.round = 0
        self.calls = calls
        self._processes: dict[str, Process] = {}
        self._notes: dict[str, Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def process(
        self,
        name: str,
        core: int,
        command: Callable[[], tuple[str, ...]],
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """The process of that name, started by ``command`` where it does not run yet."""
        if name not in self._processes:
            words = command()
            running = started(core, *words, environment=environment)
            process, told = self._stack.enter_context(running)
            line = command_line(core, words, environment)
            self._processes[name] = Process(process.pid, told, line)
        return self._processes[name]

    def server(self, kind: str = "") -> Any:
        """What a netrunner server says of itself; kind is a flag of `benchmarks.server`."""
        words = [kind] if kind else []
        command = lambda: python("benchmarks.server", *words)  # noqa: E731
        return self.process(f"server {kind}", LOAD_CORE, command).told

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What ``make`` gives, made once in a run."""
        if name not in self._notes:
            self._notes[name] = make()
        return self._notes[name]


Side: TypeAlias = Callable[[Run], Figure]
