"""One hierarchy, and what becomes of a server's error text."""

import pytest

from zapcore import errors
from zapcore.errors import (
    AlreadyExists,
    ConnectionLost,
    DeadlineExceeded,
    NotBootstrapped,
    NotFound,
    RemoteError,
    UnsupportedByServer,
    ZapError,
    remote_error,
)

ALL = [
    value for value in vars(errors).values() if isinstance(value, type) and value is not ZapError
    and issubclass(value, BaseException)
]  # fmt: skip
FAMILIES = (
    errors.CodecError,
    errors.ProtocolError,
    errors.IdentityError,
    errors.TransportError,
    errors.RemoteError,
)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_belongs_to_one_family(kind):
    assert sum(issubclass(kind, family) for family in FAMILIES) == 1
    assert issubclass(kind, ZapError)
    assert kind.__doc__


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("node not found", NotFound),
        ('node "node9" not found', NotFound),
        ("snapshot does not exist", NotFound),
        ("not bootstrapped", NotBootstrapped),
        ("cluster: not bootstrapped", NotBootstrapped),
        ("node already exists", AlreadyExists),
        ("already bootstrapped", AlreadyExists),
        ("repeated node name node1", AlreadyExists),
        ("zapwire: unknown SubOp 0x05 for OpStart", UnsupportedByServer),
        ("zapwire: unknown SubOp 0xff for OpStart", UnsupportedByServer),
        ("zapwire: unknown opcode 0x01", UnsupportedByServer),
        ("zapwire: missing sub-opcode byte", RemoteError),
        ("handler panic: boom", RemoteError),
        ("handler panic: 'node1' not found", RemoteError),
        ("handler panic: file already closed", RemoteError),
        ("unexpected EOF", RemoteError),
        ("the zapwire: unknown opcode 0x01", RemoteError),
        ("gracefully", RemoteError),
        ("", RemoteError),
    ],
)
def test_a_server_s_text_becomes_the_typed_error(text, kind):
    error = remote_error(text)
    assert type(error) is kind
    assert str(error) == text


@pytest.mark.parametrize(
    ("begin", "end", "kind"),
    [
        ("node ", " not found", NotFound),
        ("node already exists: ", "", AlreadyExists),
        ("handler panic: ", " not found", RemoteError),
        ("", ": not bootstrapped", NotBootstrapped),
        ("not", "found", RemoteError),
    ],
)
def test_of_a_long_text_both_ends_tell_what_it_is(begin, end, kind):
    text = f"{begin}{'x' * 1_000_000}{end}"
    error = remote_error(text)
    assert type(error) is kind
    assert str(error) == text


def test_a_lost_connection_may_have_sent_the_call_unless_it_says_otherwise():
    assert ConnectionLost("gone").sent is True
    assert ConnectionLost("gone", sent=False).sent is False


def test_a_deadline_is_a_timeout_for_those_who_know_nothing_of_zap():
    assert issubclass(DeadlineExceeded, TimeoutError)
