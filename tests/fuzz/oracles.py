"""What the targets share: reading an input, telling a refusal from a defect, and measured runs."""

from __future__ import annotations

import os
import sys
import tempfile
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

MEASURED_ONE_IN = 64
"""Of the inputs. Which ones is up to their bytes, so that a finding is found again."""

MEMORY_BASE, MEMORY_PER_BYTE = 256 * 1024, 512
STEPS_BASE, STEPS_PER_BYTE = 20_000, 400
"""Bytes and lines of Python that a run may take, and those for each byte of its input: far above
what is needed, and far below what a count that is believed, or a square, would take."""


@dataclass(frozen=True)
class Target:
    """A decoder, and what must hold for it.

    Args:
        name: of the function.
        run: raises for an input that shows a defect, and for no other.
        share: of all executions, as compared with the other targets; less where one takes long.
        longest: bytes of an input.
        memory: bytes that it takes for any input: buffers of a fixed size.
        growth: bytes that the decoder gets for each of the input, where those are instructions.
    """

    name: str
    run: Callable[[bytes], None]
    share: float = 1.0
    longest: int = 4096
    memory: int = 0
    growth: int = 1

    def check(self, data: bytes) -> None:
        """Run it, and measure that with some inputs."""
        self.run(data)
        if zlib.crc32(data) % MEASURED_ONE_IN == 0:
            self.check_bounds(data)

    def check_bounds(self, data: bytes) -> None:
        """Run it once more, with what it takes in view: what is made only once is made by now."""
        size = len(data) * self.growth
        with bounded(
            self.memory + MEMORY_BASE + MEMORY_PER_BYTE * size, STEPS_BASE + STEPS_PER_BYTE * size
        ):
            self.run(data)


class TooMuch(AssertionError):
    """A run takes more memory, or more steps, than its input's size lets one expect."""


@contextmanager
def bounded(memory: int, steps: int) -> Iterator[None]:
    """Bound the bytes that are allocated at once, and the lines that run.

    Raises:
        TooMuch: there are more.
    """
    left = steps

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        left -= event == "line"
        if left < 0:
            raise TooMuch(f"over {steps} steps")
        return count

    before = sys.gettrace()
    tracemalloc.start()
    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    if peak > memory:
        raise TooMuch(f"{peak} bytes, over {memory}")


class Source:
    """An input, read from its start: the decisions of a target, and what is left for the decoder.

    It never ends: behind its last byte there are zeros.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def has_more(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        return self.take(1)[0]

    def short(self) -> int:
        """A number of two bytes."""
        return int.from_bytes(self.take(2))

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken.ljust(size, b"\0")

    def some(self) -> bytes:
        """Up to 255 bytes; how many, its own byte says."""
        size = self.byte()
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def rest(self) -> bytes:
        taken = self._data[self._at :]
        self._at = len(self._data)
        return taken


def pieces(data: bytes, sizes: bytes) -> Iterator[bytes]:
    """The data cut into pieces of the sizes (again and again); some may be empty."""
    at = 0
    if not any(sizes):
        sizes = b"\xff"
    while at < len(data):
        for size in sizes:
            yield data[at : at + size]
            at += size


def edited(honest: bytes, source: Source) -> bytes:
    """Honest bytes, changed as the rest of an input says."""
    way = source.byte() % 5
    made = bytearray(honest)
    at = source.short() % (len(made) + 1)
    if way == 0:
        while source.has_more and made:
            made[at % len(made)] ^= source.byte()
            at = source.short()
    elif way == 1:
        del made[at:]
    elif way == 2:
        made += source.rest()
    elif way == 3:
        written = source.rest()
        made[at : at + len(written)] = written
    else:
        made[at:at] = source.rest()
    return bytes(made)


@cache
def _folder(process: int) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"fuzz-{process}-"))


def file_with(data: bytes) -> Path:
    """A file that holds the data, and that only we can read. The next call takes its place."""
    path = _folder(os.getpid()) / "input"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
    return path


def new_path() -> Path:
    """A path where no file is."""
    path = _folder(os.getpid()) / "output"
    path.unlink(missing_ok=True)
    return path


def check_is_short(text: object, longest: int = 300) -> None:
    """An error's text is bounded, whatever was refused."""
    assert len(str(text)) <= longest


_WINDOW = 12


def check_quotes_nothing(error: BaseException, data: bytes, path: Path, module: Any) -> None:
    """An error may tell our own words, and nothing of what the file holds: that may be a key."""
    held, ours = data.decode("latin-1"), _text_of(module)
    for text in (str(each).replace(str(path), "") for each in _shown_with(error)):
        for at in range(len(text) - _WINDOW + 1):
            window = text[at : at + _WINDOW]
            assert window not in held or window in ours, "an error quotes what a file holds"


def _shown_with(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that a traceback shows before it."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@cache
def _text_of(module: Any) -> str:
    return Path(module.__file__).read_text("utf-8")
