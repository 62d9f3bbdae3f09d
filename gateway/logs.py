"""The log on standard error: one line per event, as JSON for machines or text for people."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import select
import sys
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, TextIO

import pydantic_core

from gateway.context import RequestContext

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUIET_ROUTES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked for every few seconds by machines: told at the level debug."""

_LEVELS = {level: logging.getLevelName(level).lower() for level in (10, 20, 30, 40, 50)}
_MAX_PATH = 500
_FLUSH_AFTER = 0.05
_FLUSH_SIZE = 64 * 1024
_WHOLE = select.PIPE_BUF


class RequestLog:
    """The line of each request that has been answered, or was left by its client.

    There is one per request, so it takes a shorter way than logging's records do.

    Args:
        lines: where lines go; None sends records to the logger `gateway.request`.
    """

    def __init__(self, lines: Lines | None = None) -> None:
        self._lines = lines
        self._logger = logging.getLogger("gateway.request")
        self._level = self._logger.getEffectiveLevel()

    def tell(self, context: RequestContext, seconds: float) -> None:
        """Write a request's line."""
        if context.status >= 500:
            level = logging.WARNING
        elif context.route in _QUIET_ROUTES:
            level = logging.DEBUG
        else:
            level = logging.INFO
        if self._lines is None:
            self._logger.log(level, "request", extra=_fields(context, seconds))
        elif level >= self._level:
            told = {
                "time": _utc(time.time()),
                "level": _LEVELS[level],
                "logger": "gateway.request",
                "message": "request",
                **_fields(context, seconds),
            }
            self._lines.write(_json(told), now=level >= logging.WARNING)


def _fields(context: RequestContext, seconds: float) -> dict[str, object]:
    fields: dict[str, object] = {
        "request_id": context.request_id,
        "client": context.client,
        "method": context.verb,
        "path": context.path[:_MAX_PATH],
        "route": context.route,
        "status": context.status,
        "duration_ms": round(seconds * 1000, 3),
        "sent_bytes": context.sent,
    }
    if context.received:
        fields["received_bytes"] = context.received
    if context.code:
        fields["code"] = context.code
    if context.token_name:
        fields["token"] = context.token_name
    if context.rpc:
        fields["rpc"] = context.rpc
        fields["outcome"] = context.outcome
        fields["upstream_ms"] = round(context.upstream_seconds * 1000, 3)
    return fields


def _json(told: dict[str, object]) -> str:
    try:
        text = pydantic_core.to_json(told).decode()
    except ValueError:  # a text that is no Unicode
        text = json.dumps(told, default=repr)
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    """What JSON leaves as it is and a terminal, or a reader of lines, may not: controls, breaks."""
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else json.dumps(character)[1:-1]


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """What was given beside the message."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


class JsonFormatter(logging.Formatter):
    """One JSON object per line; times are UTC (RFC 3339)."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        told: dict[str, Any] = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        told.update(extras(record))
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return _json(told)


class TextFormatter(logging.Formatter):
    """For people: time, level, logger, message, and the rest as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        parts = [
            time.strftime("%H:%M:%S", time.localtime(record.created)),
            record.levelname.ljust(7),
            f"{record.name}: {_on_one_line(record.getMessage())}",
        ]
        parts += (f"{name}={_on_one_line(str(value))}" for name, value in extras(record).items())
        text = " ".join(parts)
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


def _utc(created: float) -> str:
    whole = int(created)
    return f"{_second(whole)}.{int((created - whole) * 1000):03d}Z"


@lru_cache(maxsize=4)
def _second(whole: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))


def _on_one_line(text: str) -> str:
    """What a client sent must not be able to look like a line, or a colour, of ours."""
    return text if text.isprintable() else repr(text)[1:-1]


class Lines:
    """Writes lines together, shortly after each other, so that a busy gateway writes seldom.

    An urgent line and a full buffer are written at once, and so is what comes while no event loop
    runs; the end of the process writes the rest.

    Args:
        stream: where to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: list[str] = []
        self._size = 0
        self._lock = threading.Lock()
        self._timer: asyncio.TimerHandle | None = None

    def write(self, line: str, *, now: bool = False) -> None:
        """Write a line, ``now`` or soon."""
        self._lines.append(line)
        self._size += len(line)
        if now or self._size >= _FLUSH_SIZE:
            self.flush()
        elif self._timer is None:
            self._flush_soon()

    def _flush_soon(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
        else:
            self._timer = loop.call_later(_FLUSH_AFTER, self._flush_in_time)

    def _flush_in_time(self) -> None:
        self._timer = None
        self.flush()

    def flush(self) -> None:
        """Write what there is."""
        with self._lock:
            lines, self._lines, self._size = self._lines, [], 0
            # Whoever read the log may be gone; that is no reason to fail a request.
            with contextlib.suppress(OSError, ValueError):
                for piece in _pieces(lines):
                    self._stream.write(piece)
                    self._stream.flush()


def _pieces(lines: list[str]) -> Iterator[str]:
    """Lines in pieces that a pipe takes as a whole: several processes may write to it."""
    piece: list[str] = []
    size = 0
    for line in lines:
        length = len(line.encode("utf-8", "replace")) + 1
        if piece and size + length > _WHOLE:
            yield "".join(piece)
            piece, size = [], 0
        piece.append(line + "\n")
        size += length
    if piece:
        yield "".join(piece)


class LinesHandler(logging.Handler):
    """Sends what is logged to :class:`Lines`; warnings at once."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        try:
            self._lines.write(self.format(record), now=record.levelno >= logging.WARNING)
        except Exception:  # noqa: BLE001 - as every handler of logging does
            self.handleError(record)

    def flush(self) -> None:
        """See logging.Handler."""
        self._lines.flush()


def configure_logging(level: str, form: str = "auto") -> RequestLog:
    """One line per event on standard error; the log of requests, for the gateway.

    Args:
        level: debug, info, warning or error.
        form: text, json, or auto: text where standard error is a terminal.
    """
    as_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    lines = Lines(sys.stderr)
    handler: logging.Handler
    handler = logging.StreamHandler(sys.stderr) if as_text else LinesHandler(lines)
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    # Its warnings are about what clients send, and we have lines of our own for that.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    return RequestLog(None if as_text else lines)
