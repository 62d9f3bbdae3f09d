"""ZAP messages out of and into bytes (protocol.md section 2). Sans-I/O: bytes in, messages out."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from typing import Generic, NamedTuple, TypeVar

from zapcore.errors import FramingError, MessageTooLarge

MAX_MESSAGE_SIZE = 16 * 1024 * 1024
"""The largest length field of a ZAP message, in bytes: request id and body."""

REQUEST_ID_SIZE = 4
MAX_BODY_SIZE = MAX_MESSAGE_SIZE - REQUEST_ID_SIZE

MAX_ERROR_SIZE = 2 * 1024 * 1024
"""Bytes of an error text that are sent, and looked at: it is for people, and for the log."""

RESPONSE_FLAG = 0x80
ERROR_FLAG = 0x40
OPCODE_MASK = 0x3F

_HEADER = struct.Struct(">IBI")
_LENGTH = struct.Struct(">I")
_new = tuple.__new__

_Unit = TypeVar("_Unit")


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


class _Units(ABC, Generic[_Unit]):
    """Cuts a byte stream into units that start with a u32 length.

    A length outside its limits is refused as soon as its four bytes are there, before anything is
    kept for it. Memory is bounded by one unit and what was fed last.

    Args:
        minimum: smallest length allowed, in bytes.
        maximum: largest length allowed, in bytes.
        extra: bytes between the length and what it counts.
        unit: what a unit is called in errors.
    """

    __slots__ = ("_extra", "_maximum", "_minimum", "_pending", "_unit", "failure")

    def __init__(self, minimum: int, maximum: int, extra: int, unit: str) -> None:
        self._minimum = minimum
        self._maximum = maximum
        self._extra = extra
        self._unit = unit
        self._pending = bytearray()
        self.failure: FramingError | None = None
        """Why nothing more can be read, behind units that are whole; :meth:`receive` raises it."""

    @property
    def pending(self) -> int:
        """Bytes that wait for the rest of their unit."""
        return len(self._pending)

    def receive(self, data: bytes) -> list[_Unit]:
        """Feed bytes; the whole units that they complete, without their length fields.

        Raises:
            FramingError: a length is outside its limits; the stream can't be read any further.
                Where whole units came before it, they are given first: see :attr:`failure`.
        """
        if self.failure is not None:
            raise self.failure
        if self._pending:
            self._pending += data
            if len(self._pending) < self._wanted():
                return []
            data = bytes(self._pending)
            self._pending.clear()
        units: list[_Unit] = []
        try:
            at = self._cut(data, units)
        except FramingError as error:
            if not units:
                raise
            self.failure = error
            return units
        if at < len(data):
            self._pending += data[at:] if at else data
        return units

    def _wanted(self) -> int:
        """Bytes that the first pending unit takes; the length field alone while it is short."""
        if len(self._pending) < _LENGTH.size:
            return _LENGTH.size
        return self._size(_LENGTH.unpack_from(self._pending)[0])

    @abstractmethod
    def _cut(self, data: bytes, units: list[_Unit]) -> int:
        """Cut ``units`` out of ``data``; where the first byte is that belongs to none of them."""

    def _size(self, length: int) -> int:
        """Bytes of a unit with that length field."""
        if self._minimum <= length <= self._maximum:
            return _LENGTH.size + self._extra + length
        raise FramingError(
            f"a {self._unit} of {length} bytes; from {self._minimum} to {self._maximum} are allowed"
        )


class LengthPrefixed(_Units[bytes]):
    """Bytes in, units out as they stand, without their length fields."""

    __slots__ = ()

    def _cut(self, data: bytes, units: list[bytes]) -> int:
        at, size = 0, len(data)
        while size - at >= _LENGTH.size:
            end = at + self._size(_LENGTH.unpack_from(data, at)[0])
            if end > size:
                break
            units.append(data[at + _LENGTH.size : end])
            at = end
        return at


class MessageReader(_Units[Envelope]):
    """Plaintext in, ZAP messages out, however the stream is cut."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(REQUEST_ID_SIZE, MAX_MESSAGE_SIZE, 1, "ZAP message")

    def _cut(self, data: bytes, units: list[Envelope]) -> int:
        at, size = 0, len(data)
        while size - at >= _HEADER.size:
            length, kind, request_id = _HEADER.unpack_from(data, at)
            end = at + self._size(length)
            if end > size:
                return at
            unit = kind, request_id, data[at + _HEADER.size : end]
            units.append(_new(Envelope, unit))  # half the time of Envelope(...), and there are many
            at = end
        if size - at >= _LENGTH.size:
            self._size(_LENGTH.unpack_from(data, at)[0])
        return at
