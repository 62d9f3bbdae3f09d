"""ZAP messages out of and into bytes (protocol.md section 2). Sans-I/O: bytes in, messages out."""

from __future__ import annotations

import struct
from typing import NamedTuple

from zapcore.errors import FramingError, MessageTooLarge

MAX_MESSAGE_SIZE = 16 * 1024 * 1024
"""The largest length field of a ZAP message, in bytes: request id and body."""

REQUEST_ID_SIZE = 4
MAX_BODY_SIZE = MAX_MESSAGE_SIZE - REQUEST_ID_SIZE

RESPONSE_FLAG = 0x80
ERROR_FLAG = 0x40
OPCODE_MASK = 0x3F

_HEADER = struct.Struct(">IBI")
_LENGTH = struct.Struct(">I")
_TYPE_AND_ID = struct.Struct(">BI")


class Envelope(NamedTuple):
    """One ZAP message: what it is, which call it belongs to, and its body."""

    type: int
    request_id: int
    body: bytes

    @property
    def opcode(self) -> int:
        """Bits 0 to 5 of the type."""
        return self.type & OPCODE_MASK

    @property
    def is_error(self) -> bool:
        """Whether the body is an error text."""
        return bool(self.type & ERROR_FLAG)

    def encode(self) -> bytes:
        """The message as it crosses the wire.

        Raises:
            MessageTooLarge: the body is beyond MAX_BODY_SIZE bytes.
        """
        return encode_message(*self)


def encode_message(kind: int, request_id: int, body: bytes) -> bytes:
    """A message of type ``kind`` as it crosses the wire; see Envelope.encode."""
    size = len(body) + REQUEST_ID_SIZE
    if size > MAX_MESSAGE_SIZE:
        raise MessageTooLarge(
            f"a body of {len(body)} bytes is beyond the {MAX_BODY_SIZE} bytes"
            " that a ZAP message can carry: send less at once"
        )
    return _HEADER.pack(size, kind, request_id) + body


def response_type(opcode: int) -> int:
    """The type of the answer to a request of ``opcode``."""
    return opcode | RESPONSE_FLAG


def error_type(request_type: int) -> int:
    """The type of an error answer to a request of that type, whatever its flags."""
    return request_type | RESPONSE_FLAG | ERROR_FLAG


class LengthPrefixed:
    """Cuts a byte stream into units that start with a u32 length.

    A length outside its limits is refused as soon as its four bytes are there, before anything is
    kept for it. Memory is bounded by one unit and what was fed last.

    Args:
        minimum: smallest length allowed, in bytes.
        maximum: largest length allowed, in bytes.
        extra: bytes between the length and what it counts.
        unit: what a unit is called in errors.
    """

    __slots__ = ("_extra", "_maximum", "_minimum", "_pending", "_unit")

    def __init__(self, minimum: int, maximum: int, extra: int, unit: str) -> None:
        self._minimum = minimum
        self._maximum = maximum
        self._extra = extra
        self._unit = unit
        self._pending = bytearray()

    @property
    def pending(self) -> int:
        """Bytes that wait for the rest of their unit."""
        return len(self._pending)

    def receive(self, data: bytes) -> list[bytes]:
        """Feed bytes; the whole units that they complete, without their length fields.

        Raises:
            FramingError: a length is outside its limits; the stream can't be read any further.
        """
        if self._pending:
            self._pending += data
            if len(self._pending) < self._wanted():
                return []
            data = bytes(self._pending)
            self._pending.clear()
        units, at = self._cut(data)
        if at < len(data):
            self._pending += data[at:] if at else data
        return units

    def _wanted(self) -> int:
        """Bytes that the first pending unit takes; the length field alone while it is short."""
        if len(self._pending) < _LENGTH.size:
            return _LENGTH.size
        return _LENGTH.size + self._extra + self._checked(_LENGTH.unpack_from(self._pending)[0])

    def _cut(self, data: bytes) -> tuple[list[bytes], int]:
        units: list[bytes] = []
        at, size = 0, len(data)
        while size - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data, at)
            end = at + _LENGTH.size + self._extra + self._checked(length)
            if end > size:
                break
            units.append(data[at + _LENGTH.size : end])
            at = end
        return units, at

    def _checked(self, length: int) -> int:
        if self._minimum <= length <= self._maximum:
            return length
        raise FramingError(
            f"a {self._unit} of {length} bytes; from {self._minimum} to {self._maximum} are allowed"
        )


class MessageReader:
    """Plaintext in, ZAP messages out, however the stream is cut."""

    __slots__ = ("_units",)

    def __init__(self) -> None:
        self._units = LengthPrefixed(REQUEST_ID_SIZE, MAX_MESSAGE_SIZE, 1, "ZAP message")

    @property
    def pending(self) -> int:
        """Bytes of a message that is not whole yet."""
        return self._units.pending

    def receive(self, data: bytes) -> list[Envelope]:
        """Feed plaintext; the messages that it completes.

        Raises:
            FramingError: a length is below 4 or beyond 16 MiB.
        """
        return [
            Envelope(kind, request_id, unit[_TYPE_AND_ID.size :])
            for unit in self._units.receive(data)
            for kind, request_id in (_TYPE_AND_ID.unpack_from(unit),)
        ]
