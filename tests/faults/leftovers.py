"""What a process has at a moment: tasks, files, objects. So what is left over is seen."""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_LOOKS = 50
_COUNTED = "gateway.tallies"
"""One for each kind of outcome: the second half of a test may see one that the first did not."""

_PASSING = (asyncio.Handle, asyncio.TimerHandle)
"""Those that are cancelled stay for a while, and others come and go. What they hold is seen."""

_OURS = ("zapcore", "gateway", "asyncio", "_asyncio", "uvicorn", "_socket", "httptools")


@dataclass(frozen=True)
class Holdings:
    """What this process has."""

    tasks: int
    files: Counter[str]
    """Open files by kind: socket, pipe, …"""
    objects: Counter[str]
    """Objects that the collector of garbage knows, by the type's name, of what is looked at."""

    def beyond(self, other: Holdings) -> dict[str, int]:
        """How much more of what this has than the other."""
        more = {"tasks": self.tasks - other.tasks}
        more |= self.files - other.files
        more |= self.objects - other.objects
        return {name: count for name, count in more.items() if count > 0}


def files_of(pid: int | str = "self") -> Counter[str]:
    """The open files of a process, by kind."""
    found: Counter[str] = Counter()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:  # the one that lists them, for one
            continue
        found["file " + target.partition(":")[0]] += 1
    return found


def memory_of(pid: int) -> int:
    """The resident memory of a process, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmRSS:"))
    return 1024 * int(line.split()[1])


@contextmanager
def only_new_objects() -> Iterator[None]:
    """Let the collector of garbage, and so :func:`holdings`, see only what is made from now on."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def holdings() -> Holdings:
    """Now, without what is garbage."""
    gc.collect()
    objects: Counter[str] = Counter()
    for kind, count in Counter(map(type, gc.get_objects())).items():
        module = str(kind.__module__)
        if not module.startswith(_OURS) or module == _COUNTED or issubclass(kind, _PASSING):
            continue
        objects[f"{module}.{kind.__qualname__}"] += count
    return Holdings(len(asyncio.all_tasks()), files_of(), objects)


async def nothing_beyond(before: Holdings) -> None:
    """Wait until there is no more than before."""
    more: dict[str, int] = {}
    # Each look takes a while, and a time-out around them would be seen itself.
    for _ in range(_LOOKS):
        more = holdings().beyond(before)
        if not more:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"left over: {more}")
