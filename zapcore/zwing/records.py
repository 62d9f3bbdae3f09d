"""Records: a stream of plaintext, sealed piece by piece (protocol.md section 7). Sans-I/O."""

from __future__ import annotations

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from zapcore.errors import ProtocolError, RecordError
from zapcore.framing import LengthPrefixed
from zapcore.zwing.identity import PublicIdentity

MAX_FRAME_SIZE = 1024 * 1024
TAG_SIZE = 16
MAX_PLAINTEXT_SIZE = MAX_FRAME_SIZE - TAG_SIZE
"""The largest plaintext of one record, in bytes."""

_LENGTH = struct.Struct(">I")
_NONCE = struct.Struct(">4xQ")


class RecordWriter:
    """Seals one direction. Sequence numbers count from 0 and never repeat."""

    __slots__ = ("_cipher", "_sequence")

    def __init__(self, key: bytes) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._sequence = 0

    def send(self, plaintext: bytes) -> bytes:
        """The records of a plaintext, in as few as fit; nothing for no plaintext."""
        if 0 < len(plaintext) <= MAX_PLAINTEXT_SIZE:
            return self._seal(plaintext)
        view = memoryview(plaintext)
        starts = range(0, len(plaintext), MAX_PLAINTEXT_SIZE)
        return b"".join(self._seal(view[at : at + MAX_PLAINTEXT_SIZE]) for at in starts)

    def _seal(self, plaintext: bytes | memoryview) -> bytes:
        sealed = self._cipher.encrypt(_NONCE.pack(self._sequence), plaintext, None)
        self._sequence += 1
        return _LENGTH.pack(len(sealed)) + sealed


class RecordReader:
    """Opens one direction, however the stream is cut."""

    __slots__ = ("_cipher", "_failure", "_frames", "_sequence")

    def __init__(self, key: bytes) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._sequence = 0
        self._failure: RecordError | None = None
        self._frames = LengthPrefixed(1, MAX_FRAME_SIZE, 0, "Z-Wing frame")

    @property
    def pending(self) -> int:
        """Bytes of a record that is not whole yet."""
        return self._frames.pending

    @property
    def failure(self) -> ProtocolError | None:
        """Why nothing more can be read, behind records that opened; :meth:`receive` raises it."""
        return self._failure or self._frames.failure

    @property
    def opened(self) -> int:
        """How many records have opened."""
        return self._sequence

    def receive(self, data: bytes) -> bytes:
        """Feed bytes; the plaintext of all records that they complete.

        Raises:
            FramingError: a frame's length is outside its limits.
            RecordError: a record does not open, or is empty. The connection can't go on. Where
                records before it did open, they are given first: see :attr:`failure`.
        """
        if self._failure is not None:
            raise self._failure
        frames = self._frames.receive(data)
        if len(frames) == 1:
            return self._open(frames[0])
        opened: list[bytes] = []
        try:
            opened.extend(map(self._open, frames))
        except RecordError as error:
            if not opened:
                raise
            self._failure = error
        return b"".join(opened)

    def _open(self, sealed: bytes) -> bytes:
        try:
            plaintext = self._cipher.decrypt(_NONCE.pack(self._sequence), sealed, None)
        except InvalidTag as error:
            raise RecordError(
                f"record {self._sequence} does not open: it was changed, cut or sealed for another"
            ) from error
        if not plaintext:
            raise RecordError(f"record {self._sequence} is empty")
        self._sequence += 1
        return plaintext


class Session:
    """An established channel: who is at the other end, and the two directions."""

    __slots__ = ("_reader", "_writer", "remote")

    def __init__(self, remote: PublicIdentity, send_key: bytes, receive_key: bytes) -> None:
        self.remote = remote
        self._writer = RecordWriter(send_key)
        self._reader = RecordReader(receive_key)

    def __repr__(self) -> str:
        return f"<Session with {self.remote.fingerprint}>"

    @property
    def pending(self) -> int:
        """Received bytes that wait for the rest of their record."""
        return self._reader.pending

    @property
    def failure(self) -> ProtocolError | None:
        """See :attr:`RecordReader.failure`."""
        return self._reader.failure

    @property
    def heard(self) -> bool:
        """Whether a record has opened: that the peer holds the keys is proven by nothing less."""
        return self._reader.opened > 0

    def send(self, plaintext: bytes) -> bytes:
        """Plaintext to bytes on the wire."""
        return self._writer.send(plaintext)

    def receive(self, data: bytes) -> bytes:
        """Bytes from the wire to plaintext; see :meth:`RecordReader.receive`."""
        return self._reader.receive(data)
