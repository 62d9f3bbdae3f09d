"""Parameters that routes share: names in paths, times in queries."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header, Path, Query
from pydantic import BeforeValidator, WithJsonSchema

from gateway.durations import parse_bounded
from gateway.names import NAME_LIMIT, NAME_PATTERN

DURATION_SCHEMA = WithJsonSchema(
    {"type": "string", "pattern": r"^[0-9]{1,12}(\.[0-9]{1,9})?(ms|s|m|h)?$"}
)


SHORTEST_WAIT = 0.001
TIMEOUT, TIMEOUT_HEADER = "timeout", "x_request_timeout"


def path_name(description: str) -> Any:
    """A path parameter that is a name."""
    return Path(description=description, min_length=1, max_length=NAME_LIMIT, pattern=NAME_PATTERN)


def duration(minimum: float, maximum: float) -> BeforeValidator:
    """Reads a time within limits; its value is in seconds."""

    def parse(value: object) -> object:
        return parse_bounded(value, minimum, maximum) if isinstance(value, str) else value

    return BeforeValidator(parse)


def duration_query(description: str, minimum: float, maximum: float, example: str) -> Any:
    """A query parameter that is a time."""
    limits = f"From {minimum:g} s to {maximum:g} s, as in `500ms`, `1s`, `2m`, or seconds."
    return Query(description=f"{description} {limits}", examples=[example])


def timeout_parameters(longest: float, default: float | None) -> dict[str, object]:
    """The parameters by which a request says how long its call may take, by name.

    Args:
        longest: seconds that may be asked for.
        default: seconds where nothing is asked for; None for the settings' own.
    """
    otherwise = "as the gateway is set" if default is None else f"{default:g} s"
    text = f"How long to wait for the server, {otherwise} where absent."
    limits = f"From {SHORTEST_WAIT:g} s to {longest:g} s, as in `500ms`, `1s`, `2m`, or seconds."
    reading = duration(SHORTEST_WAIT, longest)
    example = "30s" if default is None else f"{default:g}s"
    query = Query(description=f"{text} {limits}", examples=[example])
    header = Header(
        alias="X-Request-Timeout",
        description="The same as a header; where both are given, the shorter counts.",
        examples=[example],
    )
    kind = Annotated[float | None, reading, DURATION_SCHEMA]
    return {TIMEOUT: Annotated[kind, query], TIMEOUT_HEADER: Annotated[kind, header]}


def timeout_of(given: dict[str, Any], default: float | None) -> float | None:
    """The shortest time that a request asks for, in seconds; ``default`` where it asks for none."""
    asked = [given[name] for name in (TIMEOUT, TIMEOUT_HEADER) if given.get(name) is not None]
    return min(asked, default=default)
