"""Names that requests give to what they make: such that a path can hold them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, Strict, WithJsonSchema

NAME_LIMIT = 255

# No control characters, no slashes, nothing that was not valid UTF-8, and no dot segments: a name
# in a path must reach the server as what it looks like.
_BAD = r"\x00-\x1f\x7f-\x9f/\\\ufffd"
NAME_PATTERN = rf"^(?:[^.{_BAD}][^{_BAD}]*|\.[^.{_BAD}][^{_BAD}]*|\.\.[^{_BAD}]+)$"

MOST_IN_A_MAP = 10_000
"""Entries."""


def _few(value: object) -> object:
    if isinstance(value, dict) and len(value) > MOST_IN_A_MAP:
        raise ValueError(f"has {len(value)} entries; at most {MOST_IN_A_MAP} are taken")
    return value


_LOOK_FIRST = BeforeValidator(_few)
FEW_IN_A_MAP = (Field(max_length=MOST_IN_A_MAP), _LOOK_FIRST)
"""For a map's type: its length is looked at first, and told in the documents."""

_LIMITS: dict[str, Any] = {"max_length": NAME_LIMIT, "pattern": NAME_PATTERN}
_NAME = Annotated[str, Strict(), Field(**_LIMITS)]
_TEXT_BY_NAME = Annotated[
    dict[Annotated[str, Strict(), Field(min_length=1, **_LIMITS)], Annotated[str, Strict()]],
    _LOOK_FIRST,
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"minLength": 1, "maxLength": NAME_LIMIT, "pattern": NAME_PATTERN},
            "additionalProperties": {"type": "string"},
            "maxProperties": MOST_IN_A_MAP,
        }
    ),
]

NEW_NAMES: dict[str, dict[str, Any]] = {
    "AddNodeRequest": {"name": _NAME},
    "SaveSnapshotRequest": {"snapshot_name": _NAME},
    "SaveHotSnapshotRequest": {"snapshot_name": _NAME},
    "StartRequest": {"custom_node_configs": _TEXT_BY_NAME},
}
"""By the request's message and field: the type of what it makes something under."""
