"""Every error that zapcore raises, under one root.

Five families, by who has to act:

* :class:`CodecError`: a message can't be written, or its bytes can't be read.
* :class:`ProtocolError`: the peer broke a rule of ZAP or Z-Wing; its connection ends.
* :class:`IdentityError`: keys, key files, and peers that are not who they should be.
* :class:`TransportError`: no connection, a broken one, too many calls, a deadline.
* :class:`RemoteError`: the server understood the call and answered with an error text.
"""

from __future__ import annotations

import re


class ZapError(Exception):
    """The root: catch this to catch everything that zapcore raises on purpose."""


class CodecError(ZapError):
    """A message and its bytes don't go together."""


class EncodeError(CodecError):
    """A message holds a value that its field can't carry on the wire."""


class DecodeError(CodecError):
    """A body is not the message that it should be."""


class Truncated(DecodeError):
    """A body ends before its last field does, or counts more items than it can hold."""


class ProtocolError(ZapError):
    """The peer broke a rule of the protocol; the connection can't go on."""


class FramingError(ProtocolError):
    """A length on the wire is outside its limits."""


class RecordError(ProtocolError):
    """A record does not open under the session's key, or holds nothing."""


class HandshakeError(ProtocolError):
    """The Z-Wing handshake failed: malformed, unverifiable, too slow or refused."""


class IdentityError(ZapError):
    """Something is wrong with an identity: ours, or the peer's."""


class InvalidIdentity(IdentityError):
    """Key material has a wrong size, or its parts don't belong together."""


class UnsupportedAlgorithm(IdentityError):
    """No installed library can work with this form of key."""


class KeyFileError(IdentityError):
    """An identity file can't be read, written, or trusted."""


class KnownServersError(IdentityError):
    """The known-servers file can't be read or written, or a line of it is malformed."""


class IdentityMismatch(IdentityError):
    """The peer proved an identity, and it is not the expected one."""


class UnknownServer(IdentityMismatch):
    """The server proved an identity that nobody vouched for yet."""


class TransportError(ZapError):
    """A call could not be carried to the server and back."""


class InvalidAddress(TransportError):
    """A server's address is not of the form host:port."""


class ConnectFailed(TransportError):
    """No connection to the server can be had right now."""


class ConnectionLost(TransportError):
    """The connection broke before the answer came.

    ``sent`` tells whether any byte of the call may have left: only when it is False
    is it certain that the server never saw the call.
    """

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class Overloaded(TransportError):
    """Too many calls are under way already; nothing was sent."""


class MessageTooLarge(TransportError):
    """A request is beyond the 16 MiB that a ZAP message may have; nothing was sent."""


class OutcomeUnknown(TransportError):
    """The connection broke while a changing call was under way.

    It may or may not have taken effect, and it was not repeated.
    """


class DeadlineExceeded(TransportError, TimeoutError):
    """The answer did not come in time; a changing call may still take effect."""


class RemoteError(ZapError):
    """The server's own error text for a call."""


class NotFound(RemoteError):
    """What the call names does not exist."""


class NotBootstrapped(RemoteError):
    """There is no running cluster: Start or LoadSnapshot first."""


class AlreadyExists(RemoteError):
    """The cluster, node or snapshot is there already."""


class UnsupportedByServer(RemoteError):
    """The server does not implement this RPC."""


# The reference has error texts and no codes, so the text is all there is to tell them apart.
_REMOTE_ERRORS: tuple[tuple[re.Pattern[str], type[RemoteError]], ...] = (
    (re.compile(r"^handler panic: "), RemoteError),  # a defect, whatever it says
    (re.compile(r"^zapwire: unknown (SubOp|opcode) 0x[0-9a-f]{2}\b"), UnsupportedByServer),
    (re.compile(r"\bnot bootstrapped$"), NotBootstrapped),
    (re.compile(r"\balready\b|^repeated node name\b"), AlreadyExists),
    (re.compile(r"\bnot found\b|\bdoes not exi(st|ts)\b"), NotFound),
)


_TELLING = 32 * 1024
"""Characters at each end of an error text in which its kind is looked for."""


def remote_error(text: str) -> RemoteError:
    """The typed error for a server's error text (protocol.md sections 4 and 8)."""
    # A text may fill a message: all of it would take tenths of a second, on an event loop.
    telling = text if len(text) <= 2 * _TELLING else f"{text[:_TELLING]}\0{text[-_TELLING:]}"
    for pattern, kind in _REMOTE_ERRORS:
        if pattern.search(telling):
            return kind(text)
    return RemoteError(text)
