"""A client of the gateway's event streams: connects, reads, and connects again where it stopped."""

from __future__ import annotations

import http.client
import json
import secrets
import ssl
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import NamedTuple, TypeAlias
from urllib.parse import SplitResult

from gateway.terminal.text import visible

EVENT_STREAM = "text/event-stream"
MAX_EVENT = 64 * 1024 * 1024
STRANGER = "what answers there is no zap-gateway"

_MAX_ID = 256
_MAX_REFUSAL = 64 * 1024
_MAX_WORDS = 500
_AT_ONCE = 64 * 1024
_LONGEST_WAIT = 30.0
_FINAL = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY})
"""What asking again would not change."""

Document: TypeAlias = dict[str, object]


class StreamRefused(Exception):
    """There is no stream; the text is a sentence for people.

    Args:
        reason: the sentence.
        status: of the HTTP answer; 0 where there was none.
    """

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


class Frame(NamedTuple):
    """One event of the stream."""

    kind: str
    document: Document


class Reached(NamedTuple):
    """The gateway answers, for the first time or again."""


class Silence(NamedTuple):
    """Nothing happened; the connection stands."""


class Lost(NamedTuple):
    """The gateway does not answer, or no more."""

    reason: str
    wait: float
    """Seconds until the next attempt."""


Told: TypeAlias = Frame | Reached | Silence | Lost


@dataclass(frozen=True)
class Target:
    """What to read, and how.

    Args:
        url: of the stream, http or https.
        token: what to show, or None. It is in no text that this makes.
        trust: for https.
        connect_timeout: seconds for a connection.
        patience: seconds of silence after which a gateway is taken to hang. It sends a comment
            every 15 seconds.
    """

    url: SplitResult
    token: str | None = field(default=None, repr=False)
    trust: ssl.SSLContext | None = None
    connect_timeout: float = 10.0
    patience: float = 30.0


class Parser:
    """Reads Server-Sent Events out of bytes in pieces of any size; lines end with LF or CRLF.

    Args:
        max_event: bytes that an event may have, and a line.
    """

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self.last_id = ""
        """Of the last event that was whole."""
        self.retry = 1.0
        """Seconds to wait before connecting again, as the server says."""
        self._max_event = max_event
        self._begin()

    def _begin(self) -> None:
        self._pending = bytearray()
        self._searched = 0
        self._clear()

    def _clear(self) -> None:
        self._kind, self._id, self._size = "message", self.last_id, 0
        self._data: list[bytes] = []

    def restart(self) -> None:
        """Forget what had begun: another connection follows."""
        self._begin()

    def feed(self, data: bytes) -> Iterator[Frame | Silence]:
        """What the bytes complete.

        Raises:
            StreamRefused: an event is too large, or not JSON.
        """
        self._pending += data
        while (end := self._pending.find(b"\n", self._searched)) >= 0:
            line = bytes(self._pending[:end]).removesuffix(b"\r")
            del self._pending[: end + 1]
            self._searched = 0
            yield from self._take(line)
        self._searched = len(self._pending)
        self._check(self._searched + self._size)

    def _check(self, size: int) -> None:
        if size > self._max_event:
            raise StreamRefused(f"an event of over {self._max_event} bytes came")

    def _take(self, line: bytes) -> Iterator[Frame | Silence]:
        if not line:
            yield from self._dispatch()
        elif line.startswith(b":"):
            yield Silence()
        else:
            name, _, value = line.partition(b":")
            self._take_field(name, value.removeprefix(b" "))

    def _take_field(self, name: bytes, value: bytes) -> None:
        if name == b"data":
            self._size += len(value)
            self._check(self._size)
            self._data.append(value)
        elif name == b"event":
            self._kind = value[:_MAX_ID].decode("utf-8", "replace")
        elif name == b"id" and len(value) <= _MAX_ID and value.isascii():
            text = value.decode()
            self._id = text if text.isprintable() else self._id  # it will be a header's value
        elif name == b"retry" and value.isdigit() and len(value) < 10:
            self.retry = min(max(int(value) / 1000, 0.1), _LONGEST_WAIT)

    def _dispatch(self) -> Iterator[Frame]:
        self.last_id = self._id
        kind, data = self._kind, b"\n".join(self._data)
        self._clear()
        if data:
            yield Frame(kind, _document(data))


def _document(data: bytes) -> Document:
    try:
        document = json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise StreamRefused(f"{STRANGER}: an event is not JSON") from error
    if not isinstance(document, dict):
        raise StreamRefused(f"{STRANGER}: an event is not an object")
    return document


def _no_number(text: str) -> float:
    raise ValueError(text)


def text_of(document: Document, name: str) -> str:
    """A member that is a text; empty where it is none."""
    found = document.get(name)
    return found if isinstance(found, str) else ""


def follow(
    target: Target, sleep: Callable[[float], None] = time.sleep
) -> Generator[Told, None, None]:
    """Everything that the stream tells, over as many connections as it takes, without an end.

    A connection that breaks is made again, with a growing pause, from the last event on.

    Raises:
        StreamRefused: no stream could be had at first, or it is refused for good.
    """
    parser = Parser()
    reached, failures = False, 0
    while True:
        try:
            with _opened(target, parser) as response:
                reached = True
                yield Reached()
                for told in _frames(response, parser):
                    failures = 0
                    yield told
                    if isinstance(told, Frame) and told.kind == "end":
                        reason = _farewell(told.document)
                        break
                else:
                    reason = "the stream ended"
        except StreamRefused as error:
            if not reached or error.status == 0 or error.status in _FINAL:
                raise
            reason = str(error)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = _words(error, target)
            if not reached:
                raise StreamRefused(reason) from error
        failures += 1
        wait = _backoff(parser.retry, failures)
        yield Lost(reason, wait)
        sleep(wait)


def _backoff(first: float, failures: int) -> float:
    """Seconds, doubled with each failure; the jitter keeps clients from coming back as one."""
    full = min(_LONGEST_WAIT, first * 2.0 ** min(failures - 1, 30))
    return full * (0.5 + secrets.randbelow(1000) / 2000)


def _farewell(problem: Document) -> str:
    """Why the gateway ended the stream, where another may be had.

    Raises:
        StreamRefused: none may.
    """
    detail = visible(text_of(problem, "detail"), _MAX_WORDS) or "it said no reason"
    code = text_of(problem, "code")
    if code in ("unauthenticated", "forbidden"):
        raise StreamRefused(f"the gateway ended the stream: {detail}", HTTPStatus.UNAUTHORIZED)
    return "it stops" if code == "shutting_down" else f"it ended the stream: {detail}"


@contextmanager
def _opened(target: Target, parser: Parser) -> Iterator[http.client.HTTPResponse]:
    parser.restart()
    connection = _connection(target)
    try:
        _connect(connection, target)
        path = f"{target.url.path or '/'}?{target.url.query}".removesuffix("?")
        connection.request("GET", path, headers=_headers(target, parser))
        response = connection.getresponse()
        with response:
            if response.status != HTTPStatus.OK:
                raise _refusal(response)
            if response.headers.get_content_type() != EVENT_STREAM:
                raise StreamRefused(STRANGER, response.status)
            yield response
    finally:
        connection.close()


def _connection(target: Target) -> http.client.HTTPConnection:
    host, port, timeout = target.url.hostname or "", target.url.port, target.connect_timeout
    if target.url.scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=target.trust)
    return http.client.HTTPConnection(host, port, timeout=timeout)


def _connect(connection: http.client.HTTPConnection, target: Target) -> None:
    try:
        connection.connect()
    except TimeoutError as error:
        raise OSError(f"there is no connection within {target.connect_timeout:g} s") from error
    connection.sock.settimeout(target.patience)


def _headers(target: Target, parser: Parser) -> dict[str, str]:
    headers = {"Accept": EVENT_STREAM, "Cache-Control": "no-store"}
    if target.token is not None:
        headers["Authorization"] = f"Bearer {target.token}"
    if parser.last_id:
        headers["Last-Event-ID"] = parser.last_id
    return headers


def _frames(response: http.client.HTTPResponse, parser: Parser) -> Iterator[Frame | Silence]:
    while data := response.read1(_AT_ONCE):
        yield from parser.feed(data)


def _refusal(response: http.client.HTTPResponse) -> StreamRefused:
    """What an answer without a stream says."""
    status = response.status
    answered = f"{status} {response.reason}".strip()
    if 300 <= status < 400:
        location = visible(response.headers.get("Location", ""))
        return StreamRefused(f"it answers {visible(answered)}, and leads to {location}", status)
    try:
        problem = _document(response.read(_MAX_REFUSAL))
    except StreamRefused:
        problem = {}
    detail, code = text_of(problem, "detail"), text_of(problem, "code")
    if not detail or not code or status == HTTPStatus.NOT_FOUND:
        return StreamRefused(f"{STRANGER} ({visible(answered)})", status)
    return StreamRefused(visible(detail, _MAX_WORDS), status)


def _words(error: Exception, target: Target) -> str:
    """What went wrong with a connection, for people."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate can't be trusted: {visible(error.verify_message)}"
        case ssl.SSLError():
            return f"there is no TLS to be had: {visible(error.reason or str(error))}"
        case TimeoutError():
            return f"it said nothing for {target.patience:g} s"
        case ConnectionRefusedError():
            return "nobody listens there (connection refused)"
        case http.client.RemoteDisconnected():
            maybe = "; maybe it wants https" if target.url.scheme == "http" else ""
            return f"it closed the connection without an answer{maybe}"
        case http.client.IncompleteRead():
            return "the connection broke"
        case http.client.HTTPException():
            return f"{STRANGER}: {visible(str(error) or type(error).__name__)}"
        case OSError():
            return visible(error.strerror or str(error))
    return visible(str(error))
