"""The golden vectors, and how the reference's names and values become ours."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from zapcore import Identity, codec
from zapcore.codec import Layout, Message

_VECTORS = Path(__file__).parent.parent / "vectors"

# The one field whose name is not ours in another spelling.
_RENAMED = {"MsgBody": "bytes"}


@cache
def load(name: str) -> dict[str, Any]:
    """A file of vectors, by its name without the suffix."""
    document: dict[str, Any] = json.loads((_VECTORS / f"{name}.json").read_text("utf-8"))
    return document


def identity_of(seeds: dict[str, str]) -> Identity:
    """The identity that a vector gives by its seeds; signing keys are arbitrary where it has none.

    The encapsulation vectors are of X-Wing alone and have none.
    """
    return Identity.from_seeds(
        ed25519=bytes.fromhex(seeds.get("ed25519_seed", "11" * 32)),
        ml_dsa=bytes.fromhex(seeds.get("mldsa_seed", "22" * 32)),
        ml_kem=bytes.fromhex(seeds["mlkem_seed"]),
        x25519=bytes.fromhex(seeds["x25519_private"]),
    )


def message_of(cls: type[Message], go_fields: dict[str, Any]) -> Message:
    """Our message with the values of the reference's struct; every Go field must find its place."""
    left = {_RENAMED.get(name, name).lower(): value for name, value in go_fields.items()}
    values = {}
    for name, layout in codec.layouts(cls):
        go_name = name.replace("_", "")
        value = left.pop(go_name)
        present = left.pop(f"{go_name}set", True)
        values[name] = _value_of(layout, value) if present else None
    assert not left, f"{cls.__name__} has no place for {sorted(left)}"
    return cls(**values)


def _value_of(layout: Layout, value: Any) -> Any:
    match layout:
        case codec.OptionalLayout():
            return None if value is None else _value_of(layout.inner, value)
        case codec.MessageLayout():
            return message_of(layout.message, value)
        case codec.ListLayout():
            return [_value_of(layout.item, item) for item in value]
        case codec.MapLayout() | codec.KeyedLayout():
            return {key: _value_of(layout.item, item) for key, item in value.items()}
        case codec.TextLayout():
            return value
        case codec.BytesLayout():
            return bytes.fromhex(value)
        case _:
            return value
