"""The handshake's two messages, key files, known servers.

The keys are those of the golden vectors, so that an input means the same in every process.
"""

from __future__ import annotations

import base64
import binascii
import struct
from functools import cache
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from gateway.commands import identity as identity_command
from gateway.settings import SettingsError
from tests.fuzz.oracles import Source, check_quotes_nothing, edited, file_with, new_path
from tests.unit.vectors import identity_of, load
from zapcore.errors import (
    HandshakeError,
    IdentityMismatch,
    InvalidIdentity,
    KeyFileError,
    KnownServersError,
    UnknownServer,
)
from zapcore.zwing import Identity, Initiator, KnownServers, PublicIdentity, Responder, keyfile
from zapcore.zwing.handshake import RESPONSE_SIZE, Expected
from zapcore.zwing.identity import (
    FINGERPRINT_PREFIX,
    PUBLIC_IDENTITY_SIZE,
    XWING_PUBLIC_SIZE,
    ReplayFilter,
)

_SEAL_NONCE = b"zwing-resp-i"
_TRANSCRIPT = b"lux.zwing.v1/transcript"


class Recorded(NamedTuple):
    """A handshake that was recorded."""

    initiator: Identity
    responder: Identity
    first: bytes
    """What the initiator sent, without its length."""
    answer: bytes
    ciphertext: bytes
    seal: ChaCha20Poly1305
    """Of the answer's identity."""
    proof: bytes
    """What is in the seal."""
    transcript: bytes


@cache
def recorded() -> Recorded:
    vector: dict[str, Any] = load("handshake")["handshakes"][0]
    first, answer = (bytes.fromhex(frame["bytes"])[4:] for frame in vector["frames"])
    return Recorded(
        *(identity_of(vector["initiator"]), identity_of(vector["responder"])),
        *(first, answer),
        bytes.fromhex(vector["xwing_ciphertext"]),
        ChaCha20Poly1305(bytes.fromhex(vector["resp_id_key"])),
        bytes.fromhex(vector["resp_id_plaintext"]),
        bytes.fromhex(vector["transcript_hash"]),
    )


def proof_of(identity: Identity, public: bytes, label: str, message: bytes) -> bytes:
    """A proof as a peer sends it: a public identity that may be another one, and a signature."""
    signature = identity.sign(label, message)
    return b"".join(struct.pack(">H", len(part)) + part for part in (public, signature))


# The first message.


def _talk(one: Any, other: Any) -> None:
    for sender, receiver in ((one, other), (other, one)):
        assert receiver.receive(sender.send(b"hello")) == b"hello"


def handshake_init(data: bytes) -> None:
    """The honest first message is taken, and no other: no bit of it may differ."""
    known, source = recorded(), Source(data)
    payload = source.rest() if source.byte() % 8 == 0 else edited(known.first, source)
    refused = _responds(payload)
    assert refused == (payload != known.first)


def _responds(payload: bytes) -> bool:
    """Whether a responder refuses; where it does not, both sides can talk."""
    known = recorded()
    try:
        answer, session = Responder(known.responder).respond(payload)
    except HandshakeError:
        return True
    assert len(answer) == 4 + RESPONSE_SIZE
    if session.remote == known.initiator.public:
        _talk(_initiator(known.responder.public).finish(answer[4:]), session)
    return False


def handshake_init_signed(data: bytes) -> None:
    """Whoever proves an identity may have any X-Wing key in it: it is used, or refused."""
    known = recorded()
    public = bytes(known.initiator.public)
    key = edited(public[-XWING_PUBLIC_SIZE:], Source(data))[:XWING_PUBLIC_SIZE]
    public = public[:-XWING_PUBLIC_SIZE] + key.ljust(XWING_PUBLIC_SIZE, b"\0")
    label = "lux.zwing.v1/handshake-init"
    _responds(proof_of(known.initiator, public, label, public))


# The answer.


def _initiator(expected: Expected) -> Initiator:
    """One that remembers no answer: a run may not depend on those before."""
    identity = recorded().initiator
    identity.answers = ReplayFilter()
    return Initiator(identity, expected)


def handshake_response(data: bytes) -> None:
    """The honest answer is taken, and no other: neither outside nor inside its seal."""
    known, source = recorded(), Source(data)
    way = source.byte() % 8
    payload = known.answer
    if way == 0:
        payload = source.rest()
    elif way < 4:
        payload = edited(known.answer, source)
    else:
        payload = _sealed(edited(known.proof, source))
    initiator = _initiator(known.responder.public)
    try:
        session = initiator.finish(payload)
    except (HandshakeError, IdentityMismatch):
        assert payload != known.answer
        return
    assert payload == known.answer
    assert session.remote == known.responder.public
    try:
        initiator.finish(payload)
    except HandshakeError:
        return
    raise AssertionError("an answer is taken twice")


def _sealed(proof: bytes) -> bytes:
    known = recorded()
    sealed = known.seal.encrypt(_SEAL_NONCE, proof, known.ciphertext)
    return known.ciphertext + struct.pack(">H", len(sealed) % 65536) + sealed


def handshake_response_signed(data: bytes) -> None:
    """Whoever answers with an identity of their own is not the one who was expected."""
    known, source = recorded(), Source(data)
    public = edited(bytes(known.responder.public), source)[:PUBLIC_IDENTITY_SIZE]
    public = public.ljust(PUBLIC_IDENTITY_SIZE, b"\0")
    label = "lux.zwing.v1/handshake-response"
    payload = _sealed(proof_of(known.responder, public, label, known.transcript))
    try:
        session = _initiator(known.responder.public.fingerprint).finish(payload)
    except (HandshakeError, IdentityMismatch):
        assert public != bytes(known.responder.public)
        return
    assert bytes(session.remote) == public == bytes(known.responder.public)


# Files.


def public_identity(data: bytes) -> None:
    """3200 bytes, or their base64; what is written of it is read the same."""
    path = file_with(data)
    try:
        found = PublicIdentity.load(path)
    except KeyFileError:
        assert len(data) != PUBLIC_IDENTITY_SIZE
        return
    expected = data
    if len(data) != PUBLIC_IDENTITY_SIZE:
        expected = base64.b64decode(b"".join(data.split()), validate=True)
    assert bytes(found) == expected
    written = new_path()
    found.save(written)
    assert PublicIdentity.load(written) == found
    assert keyfile.is_fingerprint(found.fingerprint)


def identity_file(data: bytes) -> None:
    """An identity that works and can be saved and loaded, or a refusal that quotes nothing."""
    path = file_with(data)
    try:
        found = Identity.load(path)
    except (KeyFileError, InvalidIdentity) as error:
        if "is a 'zwing-identity-v" not in str(error):  # the version, and nothing else
            check_quotes_nothing(error, data, path, keyfile)
        return
    written = new_path()
    found.save(written)
    assert Identity.load(written).public == found.public
    assert found.public.verify("label", b"text", found.sign("label", b"text"))
    assert repr(found) == f"<Identity {found.public.fingerprint}>"


_PARTS = tuple(identity_command._PARTS.items())


def key_parts(data: bytes) -> None:
    """A key that another tool wrote: raw, in hex or in base64; or a refusal that quotes nothing."""
    source = Source(data)
    name, sizes = _PARTS[source.byte() % len(_PARTS)]
    held = source.rest()
    path = file_with(held)
    forms = [held]
    for decode in (bytes.fromhex, _from_base64):
        try:
            forms.append(decode(b"".join(held.split()).decode("latin-1")))
        except ValueError:
            continue
    try:
        found = identity_command._read_part(path, name)
    except SettingsError as error:
        check_quotes_nothing(error, held, path, identity_command)
        assert not any(len(form) in sizes for form in forms[1:])
        return
    assert len(found) in sizes
    assert found in forms


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError from error


def known_servers(data: bytes) -> None:
    """Addresses and fingerprints; a line that is added is found, and changes no other."""
    path = file_with(data)
    known = KnownServers(path)
    peer = recorded().responder.public
    try:
        found = known.fingerprints()
    except KnownServersError:
        try:
            known.check("host:1", peer)
        except KnownServersError:
            return
        raise AssertionError("a file that can't be read lets a server in") from None
    assert found == _plainly(data.decode())
    for address, fingerprint in found.items():
        assert keyfile.is_fingerprint(fingerprint)
        _check_is_refused(known, address, peer, fingerprint)
    _check_is_refused(known, "new.example:9999", peer, found.get("new.example:9999"))
    if "new.example:9999" not in found:
        KnownServers(path, trust_on_first_use=True).check("new.example:9999", peer)
        assert known.fingerprints() == {**found, "new.example:9999": peer.fingerprint}


def _check_is_refused(
    known: KnownServers, address: str, peer: PublicIdentity, fingerprint: str | None
) -> None:
    """Whoever is not the one in the file."""
    try:
        known.check(address, peer)
    except UnknownServer:
        assert fingerprint is None
    except IdentityMismatch:
        assert fingerprint not in (None, peer.fingerprint)
    else:
        assert fingerprint == peer.fingerprint


def _plainly(text: str) -> dict[str, str]:
    """The lines of a file that can be read."""
    lines = [line.partition("#")[0].split() for line in text.split("\n")]
    pairs = [line for line in lines if line]
    assert all(fingerprint.startswith(FINGERPRINT_PREFIX) for _, fingerprint in pairs)
    found = dict(pairs)  # type: ignore[arg-type]
    assert all(found[address] == fingerprint for address, fingerprint in pairs)
    return found
