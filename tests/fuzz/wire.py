"""What crosses the wire: streams cut into units, records, messages, requests, texts of errors."""

from __future__ import annotations

import json

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from gateway import protojson, schema
from tests.fuzz import reference
from tests.fuzz.oracles import Source, pieces
from tests.unit.strategies import MESSAGE_CLASSES
from zapcore.codec import Message, decode_text
from zapcore.connection import parse_address
from zapcore.errors import (
    CodecError,
    DecodeError,
    FramingError,
    InvalidAddress,
    RecordError,
    RemoteError,
    Truncated,
    remote_error,
)
from zapcore.framing import MAX_MESSAGE_SIZE, Envelope, LengthPrefixed, MessageReader
from zapcore.methods import METHODS, UnknownMethod, parse_request
from zapcore.zwing.handshake import INIT_SIZE, RESPONSE_SIZE
from zapcore.zwing.records import MAX_FRAME_SIZE, RecordReader, RecordWriter

# Streams.

_FRAMES = (
    (1, MAX_FRAME_SIZE, 0),
    (INIT_SIZE, INIT_SIZE, 0),
    (RESPONSE_SIZE, RESPONSE_SIZE, 0),
    (4, MAX_MESSAGE_SIZE, 1),
    (2, 40, 3),
)
"""Smallest and largest length, and bytes that a length leaves out."""


def frames(data: bytes) -> None:
    """A stream of units with a length, however it is cut, gives what a plain reading gives."""
    source = Source(data)
    limits = _FRAMES[source.byte() % len(_FRAMES)]
    sizes, stream = source.some(), source.rest()
    expected = reference.cut(stream, *limits)
    for cut in ([stream], pieces(stream, b"\1"), pieces(stream, sizes)):
        reader = LengthPrefixed(*limits, "unit")
        found: list[bytes] = []
        refused = False
        try:
            for piece in cut:
                found += reader.receive(piece)
                assert reader.pending <= len(stream)
        except FramingError:
            refused = True
        refused = refused or reader.failure is not None
        assert refused == expected.refused
        assert found == expected.units
        if not refused:
            assert reader.pending == len(expected.rest)


def zap_stream(data: bytes) -> None:
    """Messages out of a stream, which make the same stream again."""
    source = Source(data)
    sizes, stream = source.some(), source.rest()
    expected = reference.cut(stream, 4, MAX_MESSAGE_SIZE, 1)
    reader = MessageReader()
    found: list[Envelope] = []
    refused = False
    try:
        for piece in pieces(stream, sizes):
            found += reader.receive(piece)
    except FramingError:
        refused = True
    refused = refused or reader.failure is not None
    assert refused == expected.refused
    assert b"".join(each.encode() for each in found) == stream[: _size_of(found)]
    if not refused:
        assert _size_of(found) + reader.pending == len(stream)
    for each, unit in zip(found, expected.units, strict=True):
        assert each == (unit[0], int.from_bytes(unit[1:5]), unit[5:])
        assert (each.opcode, each.is_error) == (unit[0] % 64, unit[0] // 64 % 2 == 1)


def _size_of(messages: list[Envelope]) -> int:
    return sum(9 + len(each.body) for each in messages)


# Records.

_KEY = bytes(32)


class _Sender:
    """Seals records, some honestly, and puts others between them, as an input says.

    ``stream`` is what crosses the wire, ``honest`` what must come out of it, and ``tampered``
    whether anything is in it that must not go unnoticed once it is read.
    """

    def __init__(self, source: Source) -> None:
        self._writer = RecordWriter(_KEY)
        self._made: list[tuple[bytes, bytes]] = []
        self._next = 0
        self.stream = self.honest = b""
        self.tampered = False
        ways = (self._send, self._flip, self._repeat, self._seal, self._inject, self._empty)
        while source.has_more:
            ways[source.byte() % len(ways)](source)

    def _seal(self, source: Source) -> int:
        """Seal a record, and send nothing; its number."""
        plaintext = source.some() or b"nothing"
        self._made.append((plaintext, self._writer.send(plaintext)))
        return len(self._made) - 1

    def _put(self, number: int) -> None:
        plaintext, sealed = self._made[number]
        self.stream += sealed
        self.tampered |= number != self._next
        if not self.tampered:
            self.honest += plaintext
            self._next += 1

    def _send(self, source: Source) -> None:
        self._put(self._seal(source))

    def _repeat(self, source: Source) -> None:
        if self._made:
            self._put(source.byte() % len(self._made))

    def _flip(self, source: Source) -> None:
        changed = bytearray(self._made[self._seal(source)][1])
        changed[source.short() % len(changed)] ^= source.byte() or 1
        self.stream += changed
        self.tampered = True

    def _inject(self, source: Source) -> None:
        raw = source.some()
        self.stream += raw
        self.tampered |= bool(raw)

    def _empty(self, source: Source) -> None:
        nonce = bytes(4) + self._next.to_bytes(8)
        self.stream += (16).to_bytes(4) + ChaCha20Poly1305(_KEY).encrypt(nonce, b"", None)
        self.tampered = True


def records(data: bytes) -> None:
    """What was sealed comes out, up to where anything was changed, and nothing behind that."""
    source = Source(data)
    sizes = source.some()
    sender = _Sender(source)
    stream = sender.stream
    for cut in ([stream], pieces(stream, b"\1"), pieces(stream, sizes)):
        found, failed = b"", False
        reader = RecordReader(_KEY)
        try:
            for piece in cut:
                found += reader.receive(piece)
        except (FramingError, RecordError):
            failed = True
        failed = failed or reader.failure is not None
        assert found == sender.honest
        assert sender.tampered or not failed
        assert sender.tampered or reader.pending == 0


# Messages.


def _spoil(message: object) -> None:
    """Change everything in a message that can be: what is decoded next must not show it."""
    for name in getattr(message, "__slots__", ()):
        value = getattr(message, name)
        if isinstance(value, dict):
            for item in value.values():
                _spoil(item)
            value.clear()
        elif isinstance(value, list):
            for item in value:
                _spoil(item)
            value.append("spoilt")
        elif isinstance(value, Message):
            _spoil(value)
        setattr(message, name, None)


def _read(cls: type[Message], body: bytes) -> tuple[Message, reference.Reader] | None:
    reader = reference.Reader(body)
    try:
        return reader.message(cls), reader
    except reference.Refused:
        return None


def _decoded(cls: type[Message], body: bytes) -> Message | None:
    """What a body is decoded to, or None for a refusal: as the plain reading has it."""
    known = _read(cls, body)
    try:
        decoded = cls.decode(body)
    except Truncated:
        assert known is None
        return None
    assert known is not None
    assert decoded == known[0]
    return decoded


_MORE = bytes(300)


def messages(data: bytes) -> None:
    """A body is read as the protocol says, and what is written of it is read the same.

    That holds again, and for others that begin the same: decoders remember.
    """
    source = Source(data)
    cls = MESSAGE_CLASSES[source.byte() % len(MESSAGE_CLASSES)]
    at, body = source.byte(), source.rest()
    for each in (body, body[:at], body, body, body, body + _MORE):
        _spoil(_decoded(cls, each))
    decoded, known = _decoded(cls, body), _read(cls, body)
    if decoded is None or known is None:
        return
    expected, reader = known
    encoded = decoded.encode()
    if reader.canonical:
        assert encoded == body[: reader.at]
    assert cls.decode(encoded) == expected
    if encoded:
        assert _decoded(cls, encoded[: at % len(encoded)]) is None


def answers(data: bytes) -> None:
    """The JSON of an answer is the one that a plain reading of the answer gives."""
    source = Source(data)
    cls = _ANSWERS[source.byte() % len(_ANSWERS)]
    body = source.rest()
    for each in (body, body[: len(body) // 2], body, body + _MORE):
        _check_json(cls, each)


def _check_json(cls: type[Message], body: bytes) -> None:
    known = _read(cls, body)
    try:
        told = schema.json_of(cls, body)
    except DecodeError:
        assert known is None
        return
    assert known is not None
    expected = known[0]
    document = reference.to_json(expected)
    assert json.loads(told) == document
    assert list(json.loads(told)) == list(document)
    assert told == schema.to_json(expected)
    wide = json.loads(protojson.write(expected, {}))
    assert wide == reference.to_json(expected, wide_as_text=True)


_ANSWERS = list(dict.fromkeys(method.response for method in METHODS.values()))


def requests(data: bytes) -> None:
    """A request is of an RPC that there is, or refused; written anew it is the same."""
    source = Source(data)
    opcode, body = source.byte(), source.rest()
    try:
        method, rest = parse_request(opcode, body)
    except UnknownMethod:
        known = {(row.opcode, row.sub_opcode) for row in METHODS.values()}
        assert (opcode, None) not in known
        assert not body or (opcode, body[0]) not in known
        return
    assert METHODS[method.name] is method
    assert method.opcode == opcode
    try:
        request = method.request.decode(rest)
    except DecodeError:
        return
    again, rest = parse_request(opcode, method.encode_request(request))
    assert again is method
    assert again.request.decode(rest) == request


def error_texts(data: bytes) -> None:
    """A server's error text becomes an error of some kind that tells it."""
    text = decode_text(data)
    assert text == reference.text(data)
    error = remote_error(text)
    assert isinstance(error, RemoteError)
    assert str(error) == text


def addresses(data: bytes) -> None:
    """host:port, or a refusal."""
    text = data.decode("latin-1")
    try:
        host, port = parse_address(text)
    except InvalidAddress:
        return
    assert 0 < port < 65536
    assert host
    assert not set("/@[] \n") & set(host)
    written = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    assert parse_address(written) == (host, port)


def encodings(data: bytes) -> None:
    """A message with fields of the wrong kind is refused, and never sent as something else."""
    source = Source(data)
    cls = MESSAGE_CLASSES[source.byte() % len(MESSAGE_CLASSES)]
    values = {name: _anything(source) for name in cls.__slots__}
    message = cls(**values)
    try:
        encoded = message.encode()
    except CodecError:
        return
    assert cls.decode(encoded).encode() == encoded


def _anything(source: Source, depth: int = 0) -> object:
    kind = source.byte() % 12
    if kind == 0:
        return source.some().decode("utf-8", "surrogateescape" if source.byte() % 2 else "replace")
    if kind == 1:
        return source.some()
    if kind == 2:
        return int.from_bytes(source.take(9), signed=True)
    if kind == 3:
        return bool(source.byte() % 2)
    if kind in (4, 5) and depth < 3:
        return [_anything(source, depth + 1) for _ in range(source.byte() % 4)]
    if kind in (6, 7) and depth < 3:
        keys = [source.some().decode("latin-1") for _ in range(source.byte() % 4)]
        return {key: _anything(source, depth + 1) for key in keys}
    if kind in (8, 9) and depth < 3:
        cls = MESSAGE_CLASSES[source.byte() % len(MESSAGE_CLASSES)]
        return cls(**{name: _anything(source, depth + 1) for name in cls.__slots__})
    if kind == 10:
        return source.byte() / 8
    return None
