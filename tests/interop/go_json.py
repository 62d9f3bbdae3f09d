"""The reference's structs as Go's encoding/json has them, and our messages: each into the other.

Names and values are matched field by field, so that one that is missing, or too many, is an error.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from functools import cache
from typing import Any, TypeVar

from tests.unit.vectors import load
from zapcore import codec
from zapcore.codec import Layout, Message

M = TypeVar("M", bound=Message)

_OURS = {"bytes": "msgbody"}
"""The one field whose name is not the reference's in another spelling."""


def _key(name: str) -> str:
    return _OURS.get(name, name).replace("_", "")


@cache
def _go_names() -> dict[str, str]:
    """Go's spelling of every field that there is, by its letters; the vectors have them all."""
    found = (name for vector in load("messages")["messages"] for name in _names(vector["fields"]))
    return {name.lower(): name for name in found}


def _names(fields: Any) -> Iterator[str]:
    if isinstance(fields, dict):
        for name, value in fields.items():
            if name[:1].isupper():
                yield name
            yield from _names(value)


# Our messages to Go's.


def to_go(message: Message) -> dict[str, Any]:
    """A message as the fields of Go's struct."""
    fields: dict[str, Any] = {}
    for name, layout in codec.layouts(type(message)):
        go_name, value = _go_names()[_key(name)], getattr(message, name)
        if _has_flag(layout):
            fields[f"{go_name}Set"] = value is not None
            value = "" if value is None else value
        fields[go_name] = _to_go(layout, value)
    return fields


def _has_flag(layout: Layout) -> bool:
    """Optional texts have a field beside them that says whether they are there."""
    return isinstance(layout, codec.OptionalLayout) and isinstance(layout.inner, codec.TextLayout)


def _to_go(layout: Layout, value: Any) -> Any:
    match layout:
        case codec.OptionalLayout():
            return None if value is None else _to_go(layout.inner, value)
        case codec.MessageLayout():
            return to_go(value)
        case codec.ListLayout():
            return [_to_go(layout.item, item) for item in value]
        case codec.MapLayout() | codec.KeyedLayout():
            return {key: _to_go(layout.item, item) for key, item in value.items()}
        case codec.TextLayout():
            return value
        case codec.BytesLayout():
            return base64.b64encode(value).decode()
        case _:
            return value


# Go's to ours.


def from_go(cls: type[M], fields: dict[str, Any]) -> M:
    """The message that Go's struct stands for; every field must find its place."""
    left = {name.lower(): value for name, value in fields.items()}
    assert len(left) == len(fields)
    values = {}
    for name, layout in codec.layouts(cls):
        key = _key(name)
        assert key in left, f"{cls.__name__} has no {name} in {sorted(fields)}"
        value = left.pop(key)
        present = left.pop(f"{key}set") if _has_flag(layout) else True
        assert isinstance(present, bool)
        assert present or value == "", "what is not there has no value"
        values[name] = _from_go(layout, value) if present else None
    assert not left, f"{cls.__name__} has no place for {sorted(left)}"
    return cls(**values)


def _from_go(layout: Layout, value: Any) -> Any:
    match layout:
        case codec.OptionalLayout():
            return None if value is None else _from_go(layout.inner, value)
        case codec.MessageLayout():
            return from_go(layout.message, value)
        case codec.ListLayout():  # Go says null for a slice or a map that holds nothing
            return [_from_go(layout.item, item) for item in value or ()]
        case codec.MapLayout() | codec.KeyedLayout():
            return {key: _from_go(layout.item, item) for key, item in (value or {}).items()}
        case codec.TextLayout():
            assert isinstance(value, str)
            return value
        case codec.BytesLayout():
            return base64.b64decode(value or "", validate=True)
        case _:
            return value
