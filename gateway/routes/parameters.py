"""Parameters that routes share: names in paths, times in queries."""

from __future__ import annotations

from typing import Any

from fastapi import Path, Query
from pydantic import BeforeValidator, WithJsonSchema

from gateway.durations import parse_bounded

NAME_LIMIT = 255

# No control characters, no slashes, nothing that was not valid UTF-8, and no dot segments: a name
# in a path must reach the server as what it looks like.
_BAD = r"\x00-\x1f\x7f-\x9f/\\\ufffd"
_NAME_PATTERN = rf"^(?:[^.{_BAD}][^{_BAD}]*|\.[^.{_BAD}][^{_BAD}]*|\.\.[^{_BAD}]+)$"

DURATION_SCHEMA = WithJsonSchema(
    {"type": "string", "pattern": r"^\d{1,12}(\.\d{1,9})?(ms|s|m|h)?$"}
)


def path_name(description: str) -> Any:
    """A path parameter that is a name."""
    return Path(description=description, min_length=1, max_length=NAME_LIMIT, pattern=_NAME_PATTERN)


def duration(minimum: float, maximum: float) -> BeforeValidator:
    """Reads a time within limits; its value is in seconds."""

    def parse(value: object) -> object:
        return parse_bounded(value, minimum, maximum) if isinstance(value, str) else value

    return BeforeValidator(parse)


def duration_query(description: str, minimum: float, maximum: float, example: str) -> Any:
    """A query parameter that is a time."""
    limits = f"From {minimum:g} s to {maximum:g} s, as in `500ms`, `1s`, `2m`, or seconds."
    return Query(description=f"{description} {limits}", examples=[example])
