"""Chooses the inputs that are worth keeping: few, short, and each reaching what no other does."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz import corpus
from tests.fuzz.oracles import Target

MOST_INPUTS, MOST_BYTES = 60, 24 * 1024
_OURS = re.compile(r"[/\\](zapcore|gateway|fuzz)[/\\]|^<(decode|encode)_")


def keep_best(target: Target, folder: Path) -> str:
    """Keep the best of a folder and of what is kept already; a sentence about that.

    First come those that reach what no shorter one does. atheris had a reason for the others too,
    so that some of them follow where there is room.
    """
    begun = set(corpus.seeds(target.name))
    found = {path.read_bytes() for path in folder.iterdir()} | set(corpus.kept(target.name))
    short = (data for data in found - begun if len(data) <= target.longest)
    ordered = sorted(short, key=lambda data: (len(data), data))
    known = set().union(*(_reached(target, data) for data in begun))
    first, others = [], []
    for data in ordered:
        reached = _reached(target, data)
        (others if reached <= known else first).append(data)
        known |= reached
    best, size = [], 0
    for data in (*_spread(first), *_spread(others)):
        if len(best) < MOST_INPUTS and size + len(data) <= MOST_BYTES:
            best.append(data)
            size += len(data)
    corpus.keep(target.name, best)
    return f"{target.name}: keeps {len(best)} of {len(ordered)} inputs, {size} bytes"


def _spread(inputs: list[bytes]) -> list[bytes]:
    """At most as many as are kept, from the shortest to the longest."""
    return inputs[:: -(-len(inputs) // MOST_INPUTS) or 1]


def _reached(target: Target, data: bytes) -> set[object]:
    """The steps from line to line that an input leads to, about how often, and the errors there."""
    steps: Counter[object] = Counter()

    def follow(frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        if not _OURS.search(code.co_filename):
            return None
        before = frame.f_lineno

        def step(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal before
            if event == "line":
                steps[code.co_filename, before, frame.f_lineno] += 1
                before = frame.f_lineno
            elif event == "exception":
                steps[code.co_filename, before, argument[0]] += 1
            return step

        return step

    sys.settrace(follow)
    try:
        target.run(data)
    finally:
        sys.settrace(None)
    return {(step, count.bit_length()) for step, count in steps.items()}
