"""The inputs that are kept, and those that everything begins with."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from gateway import auth, protojson, schema
from gateway.changes import EVENT_TYPES
from gateway.routes.table import placed
from tests.fuzz import wire, zwing
from tests.fuzz.web import _SECRET, _TOKENS, _bodies, _ticket
from tests.unit.vectors import load
from zapcore import METHODS, Identity
from zapcore.zwing.identity import FINGERPRINT_PREFIX

FOLDER = Path(__file__).parent / "corpus"


def kept(name: str, folder: Path = FOLDER) -> list[bytes]:
    """The inputs of a target that are kept: one line of base64 each, the shortest first."""
    path = folder / f"{name}.txt"
    return [base64.b64decode(line) for line in path.read_text().split()] if path.exists() else []


def keep(name: str, inputs: Iterable[bytes], folder: Path = FOLDER) -> None:
    """Keep these inputs of a target, and no others."""
    ordered = sorted(set(inputs), key=lambda data: (len(data), data))
    text = "".join(base64.b64encode(data).decode() + "\n" for data in ordered)
    path = folder / f"{name}.txt"
    path.write_text(text)
    if not text:
        path.unlink()


@cache
def seeds(name: str) -> tuple[bytes, ...]:
    """What a target begins with: honest bytes, from the golden vectors where there are some."""
    make = _SEEDS.get(name)
    return tuple(dict.fromkeys(make())) if make else (b"",)


def _text(*texts: str) -> list[bytes]:
    return [text.encode() for text in texts]


def _vector_frames() -> Iterator[bytes]:
    for vector in load("messages")["messages"]:
        yield bytes.fromhex(vector["frame"])


def _cuts(*streams: bytes) -> Iterator[bytes]:
    """As the targets of streams take them: sizes of pieces, then the stream."""
    for stream in streams:
        yield b"\x03\x01\x05\x00" + stream


def _frames() -> Iterator[bytes]:
    frames = list(_vector_frames())
    for kind in range(5):
        for stream in (b"".join(frames[:5]), bytes(4), b"\xff" * 4, b"\0\0\0\5hello\0\0\0\2"):
            yield from (bytes([kind]) + data for data in _cuts(stream))


def _streams() -> Iterator[bytes]:
    frames = list(_vector_frames())
    yield from _cuts(*frames[::5], b"".join(frames[:6]), bytes(4), b"\1\0\0\1\0", b"\1\0\0\0")


def _records() -> Iterator[bytes]:
    honest = b"\0\5hello"
    for way in range(6):
        yield b"\2\7\1" + honest + bytes([way]) + b"\3abc\0\7" + honest


def _bodies_of_messages() -> Iterator[tuple[int, bytes]]:
    by_attribute = {method.attribute: method for method in METHODS.values()}
    for vector in load("messages")["messages"]:
        cls = getattr(by_attribute[vector["rpc"]], vector["kind"])
        yield wire.MESSAGE_CLASSES.index(cls), bytes.fromhex(vector["body"])


def _messages() -> Iterator[bytes]:
    for number, body in _bodies_of_messages():
        yield bytes([number, 7]) + body
    for number, cls in enumerate(wire.MESSAGE_CLASSES):
        yield bytes([number, 7]) + cls().encode()


def _answers() -> Iterator[bytes]:
    for number, body in _bodies_of_messages():
        cls = wire.MESSAGE_CLASSES[number]
        if cls in wire._ANSWERS:
            yield bytes([wire._ANSWERS.index(cls)]) + body
    for number, cls in enumerate(wire._ANSWERS):
        yield bytes([number]) + cls().encode()


def _requests() -> Iterator[bytes]:
    for frame in _vector_frames():
        if frame[4] < 0x80:
            yield frame[4:5] + frame[9:]
    for method in METHODS.values():
        yield bytes([method.opcode]) + method.encode_request()


def _edits() -> Iterator[bytes]:
    """For what takes edits of honest bytes: none, and one of each kind."""
    for way in range(1, 8):
        yield bytes([way, 2])  # nothing is added: the honest bytes
        for edit in (b"\0\0\5\1", b"\1\0\5", b"\2\0\0a", b"\3\0\5" + bytes(32), b"\4\0\5a"):
            yield bytes([way]) + edit


def _signed() -> Iterator[bytes]:
    yield b"\2"
    for at in (0, 32, 1184, 1952):
        yield b"\0" + at.to_bytes(2) + b"\1"
        yield b"\3" + at.to_bytes(2) + bytes(32)
        yield b"\3" + at.to_bytes(2) + b"\xff" * 32


def _handshake_init() -> Iterator[bytes]:
    known = zwing.recorded()
    yield from _edits()
    yield from (b"\0", b"\0" + known.first[:9], b"\0" + known.first)


def _handshake_response() -> Iterator[bytes]:
    yield from _edits()
    yield b"\1\3" + (1088).to_bytes(2) + bytes(32)  # an X25519 key of low order
    yield b"\0" + zwing.recorded().answer


def _plain_identity() -> Identity:
    """One whose keys are no secrets."""
    return Identity.from_seeds(
        ed25519=b"\1" * 32, ml_dsa=b"\2" * 32, ml_kem=b"\3" * 64, x25519=b"\4" * 32
    )


def _public_identity() -> Iterator[bytes]:
    raw = bytes(_plain_identity().public)
    lines = base64.encodebytes(raw)
    yield from (raw, lines, lines[:-5], raw[:-1], b"", b"AAAA", raw + b"\n")


def _identity_file() -> Iterator[bytes]:
    made = _plain_identity()
    keys = {
        "format": "zwing-identity-v1",
        "ed25519": b"\1" * 32,
        "ml_dsa": b"\2" * 32,
        "ml_kem": b"\3" * 64,
        "x25519": b"\4" * 32,
        "ml_dsa_public": made.public.ml_dsa,
    }
    for changes in (
        {},
        {"ml_dsa_public": b""},
        {"ml_kem": b""},
        {"ml_kem": bytes(2400), "ml_dsa_public": b""},
        {"ml_dsa": bytes(4032)},
        {"x25519": b"\4" * 31},
        {"format": "zwing-identity-v2"},
        {"format": "zwing-identity-" + "a" * 43},
    ):
        document = {
            name: value if isinstance(value, str) else base64.b64encode(value).decode()
            for name, value in {**keys, **changes}.items()
        }
        yield json.dumps(document).encode()
    yield from _text("", "[]", "{}", '{"format": 1}', "[" * 3000, '"zwing-identity-v1"', "1" * 4000)
    yield b'{"format": "zwing-identity-v1", "ed25519": []}'
    yield '{"format": "zwing-identity-v1", "ed25519": "é"}'.encode()


def _key_parts() -> Iterator[bytes]:
    for number in range(5):
        for key in (b"\1" * 32, b"\2" * 64):
            for form in (key, key.hex().encode(), base64.encodebytes(key), key + b"\n"):
                yield bytes([number]) + form


def _known_servers() -> list[bytes]:
    one, other = FINGERPRINT_PREFIX + "A" * 43, FINGERPRINT_PREFIX + "b/+" * 14 + "9"
    peer = zwing.recorded().responder.public.fingerprint
    texts = _text(
        *("", "# nothing", "\n\n", "localhost:9999", f"a:1 {one}", f"a:1 {one}\n#\nb:2\t{other}\n"),
        *(f"a:1 {one}\r\na:1 {one}", f"a:1 {one}\na:1 {other}", f"a:1 {one} extra", f"a:1 {peer}"),
        *(f"new.example:9999 {one}\n", f"new.example:9999 {peer} # it", f"a:1 {one}="),
        f"a:1 \u2028{one}",
    )
    return [*texts, b"\xff"]


def _durations() -> list[bytes]:
    return _text(
        *("500ms", "1s", "2m", "1h", "1.5", "0", "1.000000001s", "999999999999h", "60", "1", ".5"),
        *("1.s", " 1", "1 s", "1\n", "-1s", "1e3", "inf", "nan", "0.1ms", "1234567890123", "1S"),
    )


def _parameters() -> Iterator[bytes]:
    times = _durations()
    yield from times
    yield from (b"\0".join(times[at : at + 3]) for at in range(len(times) - 2))
    yield from (b"1s\0" + b"\0".join(times[at : at + 2]) for at in range(len(times) - 1))


def _grpc_timeouts() -> list[bytes]:
    return _text(
        *("30S", "1H", "5M", "100m", "100u", "1n", "0S", "00000000S", "999999999999999999H", "S"),
        *("1s", "1.5S", "-1S", " 1S", "1S\n", "123456789012345678n", "1234567890123456789n", ""),
    )


def _positions() -> list[bytes]:
    return _text(
        *("5f0c91d2-4242-17", "0123abcd-42-15", "0123abcd-42-20", "0123abcd-42-21", ""),
        *("0123abcd-42-9", "0123abcd-42-10", "0123abcd--1-10", "0123abcd-0-0", "0123ABCD-1-1"),
        *("0123abcd-42-000000000000012", "0123abcd-42-999999999999999", "0123abcd-42-12\n", "17"),
    )


def _event_types() -> list[bytes]:
    return _text("", ",", ",".join(EVENT_TYPES), "node.paused,", "nonsense" * 30, *EVENT_TYPES)


def _event_streams() -> Iterator[bytes]:
    yield from _cuts(
        b'event: status\nid: 0123abcd-1-2\ndata: {"clusterInfo":null}\n\n: alive\n\n',
        b'data: {"a":1,\r\ndata: "b":2}\r\n\r\nretry: 3000\nid\n\nid: \x7f\n\n',
        b"data: [1]\n\n",
        b"data: NaN\n\n",
        b"data: " + b"[" * 600 + b"\n\n",
        b"data: {}\n" + b"data:" + b" " * 1100,
        b"\n\n\r\nevent\nevent:\nretry: 1\nretry:\nretry: 999999999\ndata\n\n",
    )


def _terminal_texts() -> Iterator[bytes]:
    texts = ("plain", "\x1b[31mred", "a\u202eb", "e\u0301" * 9, "\\n\n", "\U0001f600", "", "\xa0")
    for text in texts:
        yield b"\x10" + text.encode()
        yield b"\xff" + text.encode()


def _json_bodies() -> Iterator[bytes]:
    values = (b"{}", b"[]", b"null", b"", b'{"nonsense": 1}')
    for number, (method, place, _) in enumerate(_bodies()):
        document = schema.to_document(_filled(method.request))
        for name in place.parameters.values():
            del document[protojson.to_camel(name)]
        yield bytes([number]) + json.dumps(document).encode()
        yield bytes([number]) + values[number % len(values)]


def _filled(cls: type) -> object:
    """A message with the examples of the documents in it."""
    given = {
        field.name: field.metadata["example"]
        for field in dataclasses.fields(cls)
        if field.metadata["example"] is not None
    }
    return cls(**given)


def _old_bodies() -> Iterator[bytes]:
    for number, (method, _) in enumerate(placed()):
        yield bytes([number]) + protojson.write(_filled(method.request), {})  # type: ignore[arg-type]
    for body in (
        *(b"", b" {} x", b"null", b"[]", b'"\\ud800"', b'{"a":1,"a":2}', b"\xff", b"NaN"),
        b"[" * 3000,
        *(b'{"chainSpecs":[{"subnetId":"x"}]}', b'{"name":null,"other":1}', b"1" * 3900, b"1e999"),
    ):
        yield b"\x01" + body
        yield b"\x0b" + body


def _tickets() -> Iterator[bytes]:
    token = _TOKENS[1]
    for ticket in ("", ".", "..", "1.2.me", _ticket(1, token), _ticket(10**15, token)):
        yield b"\0\0" + ticket.encode()
    for way in (1, 2, 3):
        for edit in (b"\2\0\0", b"\0\0\5\1", b"\1\0\5", b"\2\0\0a", b"\3\0\0 ", b"\4\0\0\0"):
            yield bytes([way, way % 2]) + edit
    yield b"\1\0\0\x1e\x84"


def _access() -> Iterator[bytes]:
    hosts = ("localhost", "127.0.0.1:8081", "[::1]:1", "ours.example", "evil.example", "", "::1")
    for first in (b"\0\0\0", b"\1\0\0", b"\0\1\1", b"\0\2\2", b"\1\1\1"):
        for host in hosts:
            yield first + host.encode()
        for origin in ("http://localhost", "https://page.example", "https://evil.example", "null"):
            yield first + b"\0".join(_text("localhost", origin, "cross-site", "cors"))
        honest = f"Bearer {_SECRET}"
        for credentials in (honest, "bearer  another", "Basic x", honest + "x"):
            yield first + b"\0".join(_text("localhost", "", "", "", credentials, "ours.example"))
        yield first + b"\0".join(_text("localhost", "", "same-origin", "navigate", "", "evil"))


def _proxies() -> Iterator[bytes]:
    for hops in ("1.2.3.4", "1.2.3.4, 10.0.0.1", "x, 10.0.0.1", "fe80::1%eth0", "fd00::1,::1", ""):
        for path in ("netrunner/v1/status", "v1/status", "netrunner"):
            for trust in (b"\0", b"\1"):
                values = _text(path, "host", "https, HTTP", "a, ours.example", hops)
                yield trust + b"\0".join(values)


def _token_lines() -> list[bytes]:
    line = auth.token_line("me", "operate", "secret")
    return [
        *_text("", "#", line, line + "\n", line + " # mine\r\n" + line, line.upper(), line + "0"),
        *_text("me read", "me write sha256:" + "0" * 64, "a" * 65 + line[2:], "zgw_" + "s" * 43),
        *_text(line.replace(" ", "\t"), line.replace(" ", "\xa0")),
        b"\xff",
    ]


_SEEDS = {
    "frames": _frames,
    "zap_stream": _streams,
    "records": _records,
    "messages": _messages,
    "encodings": lambda: [bytes([n]) + bytes(range(n, n + 40)) for n in range(30)],
    "answers": _answers,
    "requests": _requests,
    "error_texts": lambda: [
        *[bytes.fromhex(each["response_frame"])[9:] for each in load("messages")["errors"]],
        *(b"\xff", b"\xe2\x82", b"\xf0\x9f\x98\x80", b"\xed\xa0\x80", b"\xc0\x80"),
    ],
    "addresses": lambda: _text(
        *("127.0.0.1:9999", "[::1]:9999", "host", "host:0", "host:65536", ":1", "[::1]", "a:b:1"),
        *("host:00001", "a b:1", "", "[host]:1", "[fe80::1%eth0]:1", "host:1\n"),
    ),
    "handshake_init": _handshake_init,
    "handshake_init_signed": _signed,
    "handshake_response": _handshake_response,
    "handshake_response_signed": _signed,
    "public_identity": _public_identity,
    "identity_file": _identity_file,
    "key_parts": _key_parts,
    "known_servers": _known_servers,
    "durations": _durations,
    "parameters": _parameters,
    "grpc_timeouts": _grpc_timeouts,
    "positions": _positions,
    "last_event_ids": _positions,
    "event_types": _event_types,
    "json_bodies": _json_bodies,
    "old_bodies": _old_bodies,
    "tickets": _tickets,
    "access": _access,
    "proxies": _proxies,
    "token_lines": _token_lines,
    "event_streams": _event_streams,
    "terminal_texts": _terminal_texts,
}
