"""Second readings of what the project reads: slow, plain, and made without looking at its code.

They follow the protocol's description step by step. A message's fields and their order come from
the message itself; everything else is said here once more.
"""

from __future__ import annotations

import base64
from functools import cache
from typing import Any, NamedTuple

from zapcore import codec
from zapcore.codec import Layout, Message


class Refused(Exception):
    """The bytes are not what they should be."""


# Units of a stream that begin with their length.


class Cut(NamedTuple):
    """A stream's units, whether a length in it is refused, and what is left behind the last."""

    units: list[bytes]
    refused: bool
    rest: bytes


def cut(data: bytes, minimum: int, maximum: int, extra: int) -> Cut:
    """Cut a whole stream; ``extra`` bytes of a unit are not in its length."""
    units = []
    while len(data) >= 4:
        length = int.from_bytes(data[:4])
        if not minimum <= length <= maximum:
            return Cut(units, True, data)
        end = 4 + extra + length
        if len(data) < end:
            break
        units.append(data[4:end])
        data = data[end:]
    return Cut(units, False, data)


# Messages.


@cache
def _fields(cls: type[Message]) -> tuple[tuple[str, Layout], ...]:
    return tuple(codec.layouts(cls))


def text(data: bytes) -> str:
    """UTF-8, with U+FFFD for each byte that is part of no character."""
    found, at = "", 0
    while at < len(data):
        for size in (1, 2, 3, 4):
            try:
                found += data[at : at + size].decode()
            except UnicodeDecodeError:
                continue
            at += size
            break
        else:
            found += "\ufffd"
            at += 1
    return found


class Reader:
    """Reads values from a body.

    ``canonical`` tells whether everything so far is as a writer would write it, so that writing
    what was read gives the same bytes.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.canonical = True

    def take(self, size: int) -> bytes:
        if self.at + size > len(self.data):
            raise Refused
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), signed=signed)

    def flag(self) -> bool:
        value = self.number(1)
        self.canonical &= value < 2
        return value != 0

    def text(self) -> str:
        raw = self.take(self.number(4))
        found = text(raw)
        self.canonical &= found.encode() == raw
        return found

    def message(self, cls: type[Message]) -> Message:
        return cls(**{name: self.value(layout) for name, layout in _fields(cls)})

    def value(self, layout: Layout) -> Any:
        match layout:
            case codec.IntegerLayout():
                return self.number(layout.integer.bits // 8, signed=layout.integer.signed)
            case codec.BoolLayout():
                return self.flag()
            case codec.TextLayout():  # before BytesLayout, which it extends
                return self.text()
            case codec.BytesLayout():
                return self.take(self.number(4))
            case codec.OptionalLayout():
                return self.value(layout.inner) if self.flag() else None
            case codec.MessageLayout():
                return self.message(layout.message)
            case codec.ListLayout():
                return [self.value(layout.item) for _ in range(self.number(4))]
            case codec.MapLayout():
                count = self.number(4)
                pairs = [(self.value(layout.key), self.value(layout.item)) for _ in range(count)]
                return self._mapped(pairs)
            case codec.KeyedLayout():
                items = [self.value(layout.item) for _ in range(self.number(4))]
                return self._mapped([(getattr(item, layout.field), item) for item in items])
        raise NotImplementedError(layout)

    def _mapped(self, pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        found = dict(pairs)
        self.canonical &= len(found) == len(pairs)
        return found


def to_json(message: Message, *, wide_as_text: bool = False) -> dict[str, Any]:
    """A message's JSON document."""
    return {
        _camel(name): _json(getattr(message, name), layout, wide_as_text=wide_as_text)
        for name, layout in _fields(type(message))
    }


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)


def _json(value: Any, layout: Layout, *, wide_as_text: bool) -> Any:
    if isinstance(layout, codec.OptionalLayout):
        layout = layout.inner
    if isinstance(value, Message):
        return to_json(value, wide_as_text=wide_as_text)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return [_json(item, layout.parts[0], wide_as_text=wide_as_text) for item in value]
    if isinstance(value, dict):
        inner = layout.parts[0]
        return {key: _json(item, inner, wide_as_text=wide_as_text) for key, item in value.items()}
    if isinstance(layout, codec.IntegerLayout) and layout.integer.bits == 64 and wide_as_text:
        return str(value)
    return value
