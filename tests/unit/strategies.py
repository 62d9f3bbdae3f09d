"""Hypothesis strategies: messages, made from their own annotations, and cut or mutated bytes."""

import hashlib
from collections.abc import Iterator
from functools import cache
from itertools import pairwise

from hypothesis import strategies as st

from zapcore import METHODS, codec
from zapcore.codec import Layout, Message


def _with_nested(cls: type[Message]) -> Iterator[type[Message]]:
    yield cls
    for _, layout in codec.layouts(cls):
        yield from _inside(layout)


def _inside(layout: Layout) -> Iterator[type[Message]]:
    if isinstance(layout, codec.MessageLayout):
        yield from _with_nested(layout.message)
    for part in layout.parts:
        yield from _inside(part)


MESSAGE_CLASSES: list[type[Message]] = list(
    dict.fromkeys(
        found
        for method in METHODS.values()
        for top in (method.request, method.response)
        for found in _with_nested(top)
    )
)
"""Every class that can cross the wire: requests, responses and what they hold."""


@cache
def instances(cls: type[Message]) -> st.SearchStrategy[Message]:
    """Any valid message of a class."""
    return st.builds(cls, **{name: values(layout) for name, layout in codec.layouts(cls)})


def values(layout: Layout) -> st.SearchStrategy:
    """Any value that a layout can carry."""
    match layout:
        case codec.IntegerLayout():
            return st.integers(layout.integer.minimum, layout.integer.maximum)
        case codec.BoolLayout():
            return st.booleans()
        case codec.TextLayout():  # before BytesLayout, which it extends
            return st.text(max_size=12)
        case codec.BytesLayout():
            return st.binary(max_size=12)
        case codec.OptionalLayout():
            return st.none() | values(layout.inner)
        case codec.MessageLayout():
            return instances(layout.message)
        case codec.ListLayout():
            return st.lists(values(layout.item), max_size=3)
        case codec.MapLayout():
            return st.dictionaries(values(layout.key), values(layout.item), max_size=3)
        case codec.KeyedLayout():
            return st.lists(values(layout.item), max_size=3).map(
                lambda items: {getattr(item, layout.field): item for item in items}
            )
    raise NotImplementedError(f"no strategy for {layout!r}")


@st.composite
def chunkings(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The data in pieces, some of them maybe empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    edges = [0, *cuts, len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@st.composite
def mutations(draw: st.DrawFn, data: bytes) -> bytes:
    """The data with some bytes changed, and maybe cut or extended."""
    mutated = bytearray(data)
    if data:
        at = st.integers(0, len(data) - 1)
        for position, value in draw(st.lists(st.tuples(at, st.integers(0, 255)), max_size=6)):
            mutated[position] = value
        if draw(st.booleans()):
            del mutated[draw(at) :]
    return bytes(mutated) + draw(st.binary(max_size=8))


def noise(seed: object, size: int) -> bytes:
    """Bytes that look random and are the same in every run; hypothesis draws no long ones."""
    return hashlib.shake_256(repr(seed).encode()).digest(size)
