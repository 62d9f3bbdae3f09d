"""The handshake: one round trip, both sides prove who they are (protocol.md section 7). Sans-I/O.

initiator = Initiator(identity, expected_remote=server)
send(initiator.initiate())
session = initiator.finish(payload_of_the_answer)

responder = Responder(identity)
answer, session = responder.respond(payload_of_the_first_frame)
send(answer)
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from zapcore.errors import HandshakeError, IdentityMismatch, InvalidIdentity
from zapcore.zwing import xwing
from zapcore.zwing.identity import PUBLIC_IDENTITY_SIZE, SIGNATURE_SIZE, Identity, PublicIdentity
from zapcore.zwing.records import TAG_SIZE, Session

Trust = Callable[[PublicIdentity], None]
"""Accepts a peer's identity by returning, refuses it by raising IdentityMismatch.

An Initiator asks it about a proven identity. A Responder asks about one that is only claimed so
far, and checks the proof after: a rule for its side must not write anything down.
"""

Expected = PublicIdentity | str | Trust | None
"""Whom to accept: one identity, one fingerprint, a rule, or (None) anybody who proves a key."""

_INIT_LABEL = "lux.zwing.v1/handshake-init"
_RESPONSE_LABEL = "lux.zwing.v1/handshake-response"
_TRANSCRIPT_LABEL = b"lux.zwing.v1/transcript"
_RESPONSE_NONCE = b"zwing-resp-id"[:12]

_PROOF_SIZE = 2 + PUBLIC_IDENTITY_SIZE + 2 + SIGNATURE_SIZE
INIT_SIZE = _PROOF_SIZE
"""Bytes of the first message, without its frame's length field."""

RESPONSE_SIZE = xwing.CIPHERTEXT_SIZE + 2 + _PROOF_SIZE + TAG_SIZE
"""Bytes of the answer, without its frame's length field."""

_LENGTH = struct.Struct(">I")
_SHORT = struct.Struct(">H")


class Keys(NamedTuple):
    """What the shared secret gives: three keys of 32 bytes."""

    initiator_to_responder: bytes
    responder_to_initiator: bytes
    response_identity: bytes

    def __repr__(self) -> str:
        return "<Keys>"


def derive_keys(shared_secret: bytes) -> Keys:
    """The key schedule: HKDF-SHA256 without salt, one label per key (RFC 5869)."""
    labels = (b"lux.zwing.v1/i2r", b"lux.zwing.v1/r2i", b"lux.zwing.v1/resp-id")
    return Keys(*(HKDF(SHA256(), 32, None, label).derive(shared_secret) for label in labels))


def transcript_hash(initiator: PublicIdentity, ciphertext: bytes) -> bytes:
    """What the responder signs: who asked, and the ciphertext that only they can open."""
    parts = (bytes(initiator), ciphertext)
    counted = b"".join(_LENGTH.pack(len(part)) + part for part in parts)
    return hashlib.sha256(_TRANSCRIPT_LABEL + counted).digest()


def trust(expected: Expected) -> Trust:
    """The rule behind what a user may give as an expected identity."""
    if expected is None:
        return _accept_anybody
    if isinstance(expected, str):
        return _fingerprint_rule(expected)
    if isinstance(expected, PublicIdentity):
        return _identity_rule(expected)
    return expected


def _accept_anybody(remote: PublicIdentity) -> None:
    del remote


def _fingerprint_rule(fingerprint: str) -> Trust:
    def check(remote: PublicIdentity) -> None:
        if not hmac.compare_digest(remote.fingerprint.encode(), fingerprint.encode()):
            raise _mismatch(remote, fingerprint)

    return check


def _identity_rule(identity: PublicIdentity) -> Trust:
    def check(remote: PublicIdentity) -> None:
        if remote != identity:
            raise _mismatch(remote, identity.fingerprint)

    return check


def _mismatch(remote: PublicIdentity, expected: str) -> IdentityMismatch:
    return IdentityMismatch(
        f"the peer's identity is {remote.fingerprint}, and {expected} was expected:"
        " either its keys were changed, or somebody is in between."
        " If the change is known to be right, pin the new fingerprint"
    )


class Initiator:
    """The client's side.

    The session's keys follow from our own keys and the answer: nothing of them is fresh from our
    side. A replayed answer would make us seal other records under the same keys and sequence
    numbers, which tells what is in them and lets others forge some. So an identity takes each
    answer once. That is remembered as long as its process lives, and by that process alone.

    Args:
        identity: ours.
        expected_remote: whom to accept as the responder; None accepts anybody.
    """

    def __init__(self, identity: Identity, expected_remote: Expected = None) -> None:
        self._identity = identity
        self._trust = trust(expected_remote)

    def initiate(self) -> bytes:
        """The first frame, whole, with its length prefix."""
        proof = _proof(self._identity, _INIT_LABEL, bytes(self._identity.public))
        return _LENGTH.pack(len(proof)) + proof

    def finish(self, payload: bytes) -> Session:
        """Check the responder's answer, a frame's payload without its length prefix.

        Raises:
            HandshakeError: the answer is malformed, was not sealed for us, is badly signed, or was
                there before.
            IdentityMismatch: the responder is not the expected one.
        """
        if len(payload) != RESPONSE_SIZE:
            raise HandshakeError(f"an answer of {len(payload)} bytes, not {RESPONSE_SIZE}")
        ciphertext, sealed = payload[: xwing.CIPHERTEXT_SIZE], payload[xwing.CIPHERTEXT_SIZE :]
        (length,) = _SHORT.unpack_from(sealed)
        if length != len(sealed) - _SHORT.size:
            raise HandshakeError(f"the sealed identity's length is given as {length} bytes")
        try:
            keys = derive_keys(xwing.decapsulate(self._identity, ciphertext))
        except InvalidIdentity as error:
            raise HandshakeError(f"the answer's ciphertext is malformed: {error}") from error
        remote = self._open(keys, ciphertext, sealed[_SHORT.size :])
        self._trust(remote)
        if not self._identity.answers.is_new(ciphertext):
            raise HandshakeError("the answer is a replay of one from before")
        return Session(remote, keys.initiator_to_responder, keys.responder_to_initiator)

    def _open(self, keys: Keys, ciphertext: bytes, sealed: bytes) -> PublicIdentity:
        cipher = ChaCha20Poly1305(keys.response_identity)
        try:
            proof = cipher.decrypt(_RESPONSE_NONCE, sealed, ciphertext)
        except InvalidTag as error:
            raise HandshakeError("the answer was not sealed for this identity") from error
        transcript = transcript_hash(self._identity.public, ciphertext)
        remote, signature = _parse_proof(proof)
        if not remote.verify(_RESPONSE_LABEL, transcript, signature):
            raise HandshakeError("the responder's signature does not hold")
        return remote


class Responder:
    """The server's side.

    Args:
        identity: ours.
        expected_remote: whom to accept as the initiator; None accepts anybody. Asked before any
            signature is checked, so that a stranger costs little.
    """

    def __init__(self, identity: Identity, expected_remote: Expected = None) -> None:
        self._identity = identity
        self._trust = trust(expected_remote)

    def respond(self, payload: bytes) -> tuple[bytes, Session]:
        """Answer the initiator's first frame, given without its length prefix.

        Returns:
            The answer, a whole frame with its length prefix, and the session.

        Raises:
            HandshakeError: the message is malformed or badly signed.
            IdentityMismatch: the initiator is not among the expected ones.
        """
        remote, signature = _parse_proof(payload)
        self._trust(remote)
        if not remote.verify(_INIT_LABEL, bytes(remote), signature):
            raise HandshakeError("the initiator's signature does not hold")
        try:
            ciphertext, secret = xwing.encapsulate(remote.xwing)
        except InvalidIdentity as error:
            raise HandshakeError(f"the initiator's identity is unusable: {error}") from error
        keys = derive_keys(secret)
        sealed = self._seal(keys, ciphertext, transcript_hash(remote, ciphertext))
        answer = ciphertext + _SHORT.pack(len(sealed)) + sealed
        session = Session(remote, keys.responder_to_initiator, keys.initiator_to_responder)
        return _LENGTH.pack(len(answer)) + answer, session

    def _seal(self, keys: Keys, ciphertext: bytes, transcript: bytes) -> bytes:
        proof = _proof(self._identity, _RESPONSE_LABEL, transcript)
        cipher = ChaCha20Poly1305(keys.response_identity)
        return cipher.encrypt(_RESPONSE_NONCE, proof, ciphertext)


def _proof(identity: Identity, label: str, message: bytes) -> bytes:
    """A public identity and its signature, each behind a u16 length."""
    signature = identity.sign(label, message)
    parts = (bytes(identity.public), signature)
    return b"".join(_SHORT.pack(len(part)) + part for part in parts)


def _parse_proof(proof: bytes) -> tuple[PublicIdentity, bytes]:
    """Every length must be the one there can be, and nothing may follow."""
    if len(proof) != _PROOF_SIZE:
        raise HandshakeError(f"an identity and signature of {len(proof)} bytes, not {_PROOF_SIZE}")
    signature_at = _SHORT.size + PUBLIC_IDENTITY_SIZE
    lengths = (_SHORT.unpack_from(proof)[0], _SHORT.unpack_from(proof, signature_at)[0])
    if lengths != (PUBLIC_IDENTITY_SIZE, SIGNATURE_SIZE):
        raise HandshakeError(f"lengths of {lengths[0]} and {lengths[1]} bytes in a handshake")
    remote = PublicIdentity(proof[_SHORT.size : signature_at])
    return remote, proof[signature_at + _SHORT.size :]
