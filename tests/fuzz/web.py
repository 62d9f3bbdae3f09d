"""What clients of the gateway send, and what its users write into its files."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import json
import re
import time
from decimal import Decimal
from functools import cache
from types import SimpleNamespace
from typing import Any

from pydantic import TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway import auth, protojson, schema
from gateway.auth import Access, Grant, RequestHeaders, Token, TokenFileError, token_line
from gateway.bodies import JsonRequest
from gateway.durations import parse_bounded, parse_duration, parse_grpc_timeout
from gateway.handlers import _field, _message
from gateway.journal import Item, Journal, Position, parse_position
from gateway.proxies import Proxies
from gateway.readers import EventReader, Lines, Terms
from gateway.routes import control
from gateway.routes.parameters import SHORTEST_WAIT, timeout_of, timeout_parameters
from gateway.routes.rpc import _with_name_limits
from gateway.routes.streams import LONGEST_INTERVAL, SHORTEST_INTERVAL, _Interval, _known_types
from gateway.routes.table import Place, placed
from gateway.terminal.client import Frame, Parser, Silence, StreamRefused
from gateway.terminal.text import visible
from gateway.tickets import LIFETIME, Tickets
from tests.fuzz.oracles import (
    Source,
    check_is_short,
    check_quotes_nothing,
    edited,
    file_with,
    pieces,
)
from zapcore.codec import Message
from zapcore.methods import Method

# Times.

_UNITS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}
_GRPC_UNITS = {
    "H": Decimal(3600),
    "M": Decimal(60),
    "S": Decimal(1),
    "m": Decimal("1e-3"),
    "u": Decimal("1e-6"),
    "n": Decimal("1e-9"),
}
_DOCUMENTED = re.compile(r"^[0-9]{1,12}(\.[0-9]{1,9})?(ms|s|m|h)?$")
"""As the OpenAPI document says."""


def _is_near(found: float, exact: Decimal) -> bool:
    return abs(Decimal(found) - exact) <= exact * Decimal("1e-15") * 4


def durations(data: bytes) -> None:
    """A time is read as the document says that it is written, to the last digit that counts."""
    text = data.decode("latin-1")
    documented = _DOCUMENTED.fullmatch(text) is not None
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        assert not documented
        check_is_short(error)
        return
    assert documented
    number = text.rstrip("msh")
    assert _is_near(seconds, Decimal(number) * _UNITS.get(text[len(number) :], Decimal(1)))
    try:
        assert 1 <= parse_bounded(text, 1, 60) == seconds <= 60
    except ValueError:
        assert not 1 <= seconds <= 60


@cache
def _intervals() -> TypeAdapter[float | None]:
    return TypeAdapter(_Interval)


@cache
def _timeouts() -> dict[str, TypeAdapter[float | None]]:
    return {name: TypeAdapter(kind) for name, kind in timeout_parameters(60.0, None).items()}


def parameters(data: bytes) -> None:
    """`interval`, `timeout` and X-Request-Timeout are within their limits, or refused."""
    texts = [part.decode("latin-1") for part in data.split(b"\0", 2)]
    given: dict[str, float | None] = {}
    for text, (name, adapter), limits in zip(
        texts,
        [("interval", _intervals()), *_timeouts().items()],
        [(SHORTEST_INTERVAL, LONGEST_INTERVAL), *[(SHORTEST_WAIT, 60.0)] * 2],
        strict=False,
    ):
        try:
            given[name] = adapter.validate_python(text)
        except ValidationError as error:
            assert _DOCUMENTED.fullmatch(text) is None or not _within(text, *limits)
            check_is_short(error.errors()[0]["msg"])
            return
        assert _within(text, *limits)
    asked = [value for name, value in given.items() if name != "interval"]
    assert timeout_of(given, 30.0) == (min(asked) if asked else 30.0)


def _within(text: str, shortest: float, longest: float) -> bool:
    return shortest <= parse_duration(text) <= longest


def grpc_timeouts(data: bytes) -> None:
    """A Grpc-Timeout is a whole number and a unit, and never more than may be asked for."""
    text = data.decode("latin-1")
    scope = {"type": "http", "headers": [(b"grpc-timeout", data)]}
    form = re.fullmatch("([0-9]{1,18})([HMSmun])", text)
    try:
        timeout = control._timeout(Request(scope), 30.0, 60.0)
    except HTTPException as error:
        status, detail = error.status_code, error.detail
        assert (status, form) == (400, None)
        check_is_short(detail, 100)
        return
    if not text:
        assert timeout == 30.0
        return
    assert form is not None
    exact = int(form[1]) * _GRPC_UNITS[form[2]]
    assert _is_near(parse_grpc_timeout(text), exact)
    assert timeout is not None
    assert 0 <= timeout <= 60.0
    if exact == 0:
        assert timeout == 30.0
    elif exact < Decimal("0.0009"):
        assert timeout == 0


# Streams.


def positions(data: bytes) -> None:
    """An id of an event names a place, or none; written anew it names the same."""
    text = data.decode("latin-1")
    found = parse_position(text)
    form = re.fullmatch("([0-9a-f]{8})-(-?[0-9]{1,10})-([0-9]{1,15})", text)
    assert (found is None) == (form is None)
    if found is not None:
        assert parse_position(str(found)) == found
        assert form is not None
        assert found == (form[1], int(form[2]), int(form[3]))


_EPOCH, _PID = "0123abcd", 42


@cache
def _feed() -> Any:
    """A feed that told 20 events and keeps the last 10."""
    journal = Journal(max_events=10)
    for number in range(1, 21):
        journal.append(Item(Position(_EPOCH, _PID, number), "node.paused", b"%d" % number))
    return SimpleNamespace(
        epoch=_EPOCH,
        position=Position(_EPOCH, _PID, 20),
        journal=journal,
        newest=None,
        baseline=None,
        interval=1.0,
        is_closed=lambda: False,
    )


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


async def _taken(last_id: str) -> bytes:
    reader = EventReader(
        _feed(), Terms(Lines(), 1.0, last_id, lambda: True), types=None, status=False
    )
    return reader.opening() + reader.take()


def last_event_ids(data: bytes) -> None:
    """A reader that comes back gets every event that it missed, once, or word of a gap."""
    text = data.decode("latin-1")
    lines = [json.loads(line) for line in _loop().run_until_complete(_taken(text)).splitlines()]
    numbers = [line for line in lines if isinstance(line, int)]
    gaps = [line for line in lines if isinstance(line, dict) and line.get("type") == "gap"]
    place = parse_position(text)
    if not text:
        assert not lines
    elif place is not None and place.epoch == _EPOCH and 10 <= place.sequence <= 20:
        assert numbers == list(range(place.sequence + 1, 21))
        assert not gaps
    else:
        assert numbers == list(range(11, 21))
        assert len(gaps) == 1


def event_types(data: bytes) -> None:
    """`types` names types that there are, or is refused without repeating all of it."""
    text = data.decode("latin-1")
    try:
        assert _known_types(text) == text
    except ValueError as error:
        check_is_short(error, 1000)


_LARGEST_EVENT = 1000


def event_streams(data: bytes) -> None:
    """`watch` reads the same events however their bytes are cut, and can go on behind each."""
    source = Source(data)
    sizes, stream = source.some(), source.rest()
    whole = _parsed([stream])
    for cut in (pieces(stream, b"\1"), pieces(stream, sizes)):
        # What is too large is seen at the ends of pieces: one that is whole at once may pass.
        assert _parsed(cut) == whole or len(stream) > _LARGEST_EVENT
    last_id, retry = whole[2:4]
    assert last_id.isascii()
    assert last_id.isprintable() or not last_id
    assert len(last_id) <= 256
    assert 0.1 <= retry <= 30


def _parsed(cut: Any) -> tuple[list[Any], bool, str, float]:
    parser = Parser(_LARGEST_EVENT)
    found: list[Frame | Silence] = []
    try:
        for piece in cut:
            found.extend(parser.feed(piece))
    except StreamRefused:
        return found, True, parser.last_id, parser.retry
    return found, False, parser.last_id, parser.retry


def terminal_texts(data: bytes) -> None:
    """What others say is printed on one line, and acts on no terminal."""
    source = Source(data)
    longest = 1 + source.byte()
    text = source.rest().decode("utf-8", "replace")
    shown = visible(text, longest)
    assert shown.isprintable()
    assert len(shown) <= longest
    if not shown.endswith("…"):
        assert shown.isascii() == text.isascii() or not text.isascii()


# Bodies.


def _with_bodies() -> list[tuple[Method[Message, Message], Place, Any]]:
    found = []
    for method, place in placed():
        taken = frozenset(place.parameters.values())
        if set(method.request.__slots__) - taken:
            model = _with_name_limits(method, schema.model_of(method.request, taken))
            found.append((method, place, model))
    return found


_bodies = functools.cache(_with_bodies)


def _check_errors(error: ValidationError) -> None:
    """What is wrong with a body is told in an answer of bounded size."""
    found = error.errors(include_url=False)
    assert found
    for item in found[:100]:
        assert len(_field(item["loc"])) < 1100
        assert len(_message(dict(item))) <= 500


async def _value(body: bytes) -> Any:
    """A body's JSON, as the routes read it."""
    request = JsonRequest({"type": "http"})
    request._body = body
    return await request.json()


def _is_same(one: Any, other: Any) -> bool:
    """Whether values are equal, and of the same types: 1, 1.0 and True are not."""
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(_is_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return type(one) is type(other) and (one == other or (one != one and other != other))


def json_bodies(data: bytes) -> None:
    """JSON becomes a request that can be sent, or is refused; the request's JSON makes it again."""
    source = Source(data)
    method, place, model = _bodies()[source.byte() % len(_bodies())]
    body = source.rest()
    try:
        expected = json.loads(body)
    except (ValueError, RecursionError) as error:
        expected = error
    try:
        document = _loop().run_until_complete(_value(body))
    except (ValueError, RecursionError):
        assert isinstance(expected, Exception)
        return
    assert _is_same(document, expected)
    try:
        valid = model.model_validate(document)
    except ValidationError as error:
        _check_errors(error)
        return
    from_path = dict.fromkeys(place.parameters.values(), "from-the-path")
    message = schema.to_message(valid, **from_path)
    assert type(message) is method.request
    encoded = message.encode()
    assert method.request.decode(encoded) == message
    told = json.loads(schema.to_json(message))
    for name in from_path:
        assert told.pop(protojson.to_camel(name)) == "from-the-path"
    assert schema.to_message(model.model_validate(told), **from_path) == message


_REQUESTS = [method.request for method, _ in placed()]


def old_bodies(data: bytes) -> None:
    """The same for the old API, which takes more."""
    source = Source(data)
    cls = _REQUESTS[source.byte() % len(_REQUESTS)]
    body = source.rest()
    try:
        message = protojson.read(cls, body)
    except protojson.Malformed as error:
        place = error.position
        assert place is None or 0 <= place <= len(body)
        check_is_short(error, 200)
        return
    except ValidationError as error:
        _check_errors(error)
        return
    assert cls.decode(message.encode()) == message
    told = json.loads(protojson.write(message, {}))
    # A name that is absent is empty; one that is given may not be.
    given = {name: value for name, value in told.items() if value != ""}
    assert protojson.read(cls, json.dumps(given).encode()) == message


# Who asks.

_SECRET = "zgw_" + "fuzz" * 10 + "abc"
_TOKENS = tuple(
    auth.parse_tokens(
        [token_line("reader", "read", "another"), token_line("me", "operate", _SECRET)], "here"
    )
)


def token_lines(data: bytes) -> None:
    """Tokens as they are kept, or a refusal that quotes nothing: a secret may stand there."""
    path = file_with(data)
    try:
        found = auth.load_tokens(path)
    except TokenFileError as error:
        check_quotes_nothing(error, data, path, auth)
        return
    lines = [f"{each.name} {each.scope} sha256:{each.digest.hex()}" for each in found]
    assert auth.parse_tokens(lines, "again") == found
    held = data.decode().split("\n")
    assert len(found) == sum(bool(line.partition("#")[0].strip()) for line in held)
    for each in found:
        assert each.scope in ("read", "operate")
        assert len(each.digest) == 32


@cache
def _tickets() -> Tickets:
    return Tickets(bytes(32))


def _ticket(expiry: int, token: Token) -> str:
    return f"{expiry}.{_tickets()._mac(expiry, token)}.{token.name}"


def tickets(data: bytes) -> None:
    """A ticket opens for its own holder and within its time, and nothing that differs from it."""
    source = Source(data)
    way, now = source.byte() % 4, int(time.time())
    token = _TOKENS[source.byte() % 2]
    ends = now + LIFETIME // 2
    if way == 0:
        assert _tickets().redeem(source.rest().decode("latin-1"), _TOKENS) is None
        return
    if way == 1:
        ends = now - 10**6 + int.from_bytes(source.take(3)) * 128
        in_time = now <= ends <= now + LIFETIME
        if not abs(ends - now) <= LIFETIME + 5:
            assert _tickets().redeem(_ticket(ends, token), _TOKENS) is None
        elif in_time and now + 5 < ends < now + LIFETIME - 5:
            assert _tickets().redeem(_ticket(ends, token), _TOKENS) is token
        return
    honest = _ticket(ends, token)
    given = edited(honest.encode(), source).decode("latin-1")
    found = _tickets().redeem(given, _TOKENS)
    assert found is (token if given == honest else None)
    if way == 2:
        others = tuple(each for each in _TOKENS if each is not token)
        assert _tickets().redeem(honest, others) is None


_HEADERS = ("host", "origin", "fetch_site", "fetch_mode", "authorization", "forwarded_host")


def access(data: bytes) -> None:
    """Nobody is let in without the token, or with a Host or an Origin that is not ours."""
    source = Source(data)
    with_tokens, verb = source.byte() % 2 == 0, ("GET", "POST", "OPTIONS")[source.byte() % 3]
    path = ("/v1/status", "/v1/nodes", "/healthz")[source.byte() % 3]
    values = [part.decode("latin-1") for part in source.rest().split(b"\0", len(_HEADERS) - 1)]
    headers = RequestHeaders(*values, *[""] * (len(_HEADERS) - len(values)))
    rules = Access(
        _TOKENS if with_tokens else (),
        ("ours.example",),
        ("https://page.example",),
        own_address="localhost",
    )
    found = rules.check(verb, path, "http", headers)
    if not isinstance(found, Grant):
        assert len(found.detail) < 600
        return
    assert _names_us(headers.host)
    assert not headers.forwarded_host or _names_us(headers.forwarded_host)
    own = f"http://{headers.forwarded_host or headers.host}".lower()
    assert headers.origin.lower() in ("", own, "https://page.example")
    if found.token is not None:
        scheme, _, secret = headers.authorization.partition(" ")
        assert scheme.lower() == "bearer"
        assert secret.strip() in (_SECRET, "another")
        assert verb == "GET" or found.token.scope == "operate"
    elif with_tokens:
        assert path == "/healthz" or (verb == "OPTIONS" and headers.origin)


def _names_us(host: str) -> bool:
    """Whether a Host is one of the names, with a port or without."""
    name = host.lower()
    found = re.match(r"(.*?)(:[0-9]{1,5})?\Z", name, re.DOTALL)
    assert found
    return found[1] in ("localhost", "127.0.0.1", "[::1]", "ours.example", "::1")


@cache
def _proxies() -> Proxies:
    return Proxies("/netrunner", ("10.0.0.0/8", "127.0.0.1", "fd00::/8"))


def proxies(data: bytes) -> None:
    """The client is the last address that no trusted proxy is at; strangers are not believed."""
    source = Source(data)
    trusted = source.byte() % 4 != 0
    parts = source.rest().split(b"\0", 4)
    path, host, proto, forwarded, hops = (*parts, *[b""] * (5 - len(parts)))
    peer = "10.1.2.3" if trusted else "192.0.2.1"
    text = "/" + path.decode("latin-1")
    scope: dict[str, Any] = {"path": text, "scheme": "http", "client": (peer, 1)}
    headers = {
        b"host": host,
        b"x-forwarded-proto": proto,
        b"x-forwarded-host": forwarded,
        b"x-forwarded-for": hops,
    }
    seen = _proxies().look(scope, headers)
    below = text.startswith("/netrunner/")
    assert seen.path == (text.removeprefix("/netrunner") if below else text)
    assert scope["path"] == "/netrunner" + seen.path
    assert seen.scheme in ("http", "https")
    if not trusted:
        assert seen[1:] == ("http", host.decode("latin-1"), peer)
        return
    assert seen.client == _client(hops.decode("latin-1").split(","), peer)
    ipaddress.ip_address(seen.client)


def _client(hops: list[str], peer: str) -> str:
    """From the nearest hop on: the first that is no proxy of ours, as far as they are addresses."""
    client = peer
    for hop in map(str.strip, reversed(hops[-32:])):
        try:
            address = ipaddress.ip_address(hop)
        except ValueError:
            return client
        client = hop
        networks = ("10.0.0.0/8", "127.0.0.1/32", "fd00::/8")
        if not any(address in ipaddress.ip_network(network) for network in networks):
            return client
    return client
