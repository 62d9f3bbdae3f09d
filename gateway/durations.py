"""Times as text: `500ms`, `1s`, `2m`, `1h` or plain seconds, and gRPC's `30S`."""

from __future__ import annotations

import re

_DURATION = re.compile(r"(?P<number>\d{1,12}(?:\.\d{1,9})?)(?P<unit>ms|s|m|h)?", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_GRPC_TIMEOUT = re.compile(r"(?P<number>\d{1,18})(?P<unit>[HMSmun])", re.ASCII)
_GRPC_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def parse_duration(text: str) -> float:
    """Seconds.

    Raises:
        ValueError: not a number with one of the units, in words for a user.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a time: give it as in 500ms, 1s, 2m, 1h or 1.5")
    return float(match["number"]) * _SECONDS[match["unit"]]


def parse_bounded(text: str, minimum: float, maximum: float) -> float:
    """Seconds within limits.

    Raises:
        ValueError: not a time, or outside the limits, in words for a user.
    """
    seconds = parse_duration(text)
    if not minimum <= seconds <= maximum:
        raise ValueError(f"{text[:40]!r} is outside {minimum:g} s to {maximum:g} s")
    return seconds


def parse_grpc_timeout(text: str) -> float:
    """Seconds, of a `grpc-timeout` as grpc-gateway takes it: a whole number and a unit.

    gRPC itself has up to eight digits; grpc-gateway does not count them.

    Raises:
        ValueError: it has another form; in grpc-gateway's words.
    """
    match = _GRPC_TIMEOUT.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid grpc-timeout: {text[:40]}")
    return float(match["number"]) * _GRPC_SECONDS[match["unit"]]
