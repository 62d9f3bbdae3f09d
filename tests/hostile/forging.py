"""First messages, answers and sessions that an attacker can make, see, cut and change."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from functools import cache

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from tests.integration.zap_helpers import identity_of
from zapcore.framing import Envelope
from zapcore.methods import OPCODE_PING
from zapcore.zwing import Identity, Initiator, PublicIdentity, Responder, xwing
from zapcore.zwing.handshake import INIT_SIZE, RESPONSE_SIZE, derive_keys, transcript_hash

INIT_LABEL = "lux.zwing.v1/handshake-init"
RESPONSE_LABEL = "lux.zwing.v1/handshake-response"

_P = 2**255 - 19
_OF_ORDER_8 = (
    0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
    0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
)
LOW_ORDER = [
    point.to_bytes(32, "little")
    for low in (0, 1, _P - 1, _P, _P + 1, *_OF_ORDER_8)
    for point in (low, low | 1 << 255)
]
"""X25519 public keys that give the all-zero secret, whatever the private key is."""

INIT_FIELDS = {
    "identity's length": (0, 2),
    "Ed25519 key": (2, 34),
    "ML-DSA key": (34, 1986),
    "ML-KEM key": (1986, 3170),
    "X25519 key": (3170, 3202),
    "signature's length": (3202, 3204),
    "Ed25519 signature": (3204, 3268),
    "ML-DSA signature": (3268, 6577),
}
"""Where each part of the first message begins and ends."""

ANSWER_FIELDS = {
    "ML-KEM ciphertext": (0, 1088),
    "ephemeral X25519 key": (1088, 1120),
    "sealed part's length": (1120, 1122),
    "sealed identity's length": (1122, 1124),
    "sealed identity": (1124, 4324),
    "sealed signature's length": (4324, 4326),
    "sealed signature": (4326, 7699),
    "tag": (7699, 7715),
}
"""And of the answer."""


def frame(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


def counted(part: bytes) -> bytes:
    return struct.pack(">H", len(part)) + part


def proof(public: bytes, signature: bytes) -> bytes:
    return counted(public) + counted(signature)


@cache
def init_of(name: str = "victim") -> bytes:
    """A recorded first message, without its frame's length."""
    return Initiator(identity_of(name)).initiate()[4:]


def flipped(chance: random.Random, data: bytes, begin: int, end: int) -> bytes:
    """With one bit changed, even one that X25519 itself ignores."""
    position, bit = chance.randrange(begin, end), 1 << chance.randrange(8)
    return data[:position] + bytes([data[position] ^ bit]) + data[position + 1 :]


def replaced(chance: random.Random, data: bytes, begin: int, end: int) -> bytes:
    """With one field of noise."""
    return data[:begin] + chance.randbytes(end - begin) + data[end:]


# First messages that no server may answer.

Forged = Callable[[random.Random], bytes]


def random_frame(chance: random.Random) -> bytes:
    return frame(chance.randbytes(INIT_SIZE))


def noise(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randrange(1, 2 * INIT_SIZE))


def truncated(chance: random.Random) -> bytes:
    return frame(init_of())[: chance.randrange(INIT_SIZE + 4)]


def misframed(chance: random.Random) -> bytes:
    """Its frame's length is another."""
    length = chance.choice([0, 1, INIT_SIZE - 1, INIT_SIZE + 1, RESPONSE_SIZE, 2**20, 2**32 - 1])
    return struct.pack(">I", length) + init_of()


def bit_flip(chance: random.Random) -> bytes:
    begin, end = chance.choice(list(INIT_FIELDS.values()))
    return frame(flipped(chance, init_of(), begin, end))


def field_of_noise(chance: random.Random) -> bytes:
    begin, end = chance.choice(list(INIT_FIELDS.values()))
    return frame(replaced(chance, init_of(), begin, end))


def crossed(chance: random.Random) -> bytes:
    """Each field of one of two recorded messages, but not all of the same."""
    names = [name for name in INIT_FIELDS if "length" not in name]
    taken = chance.sample(names, chance.randrange(1, len(names)))
    parts = (
        (init_of("another") if name in taken else init_of())[begin:end]
        for name, (begin, end) in INIT_FIELDS.items()
    )
    return frame(b"".join(parts))


@cache
def _signed_badly() -> list[bytes]:
    """A victim's identity, and signatures that do not prove it."""
    victim, mallory = identity_of("victim"), identity_of("mallory")
    public = bytes(victim.public)
    ours, theirs = mallory.sign(INIT_LABEL, public), victim.sign(INIT_LABEL, public)
    signatures = [
        ours,
        victim.sign(RESPONSE_LABEL, public),
        victim.sign("", public),
        victim.sign(INIT_LABEL, public[:-1]),
        theirs[:64] + ours[64:],
        ours[:64] + theirs[64:],
        bytes(len(ours)),
        theirs[64:] + theirs[:64],
    ]
    return [frame(proof(public, signature)) for signature in signatures]


def wrongly_signed(chance: random.Random) -> bytes:
    return chance.choice(_signed_badly())


@cache
def _weak_keys() -> list[bytes]:
    """Keys that no honest peer has, signed as they should be."""
    mallory = identity_of("mallory")
    raw = bytes(mallory.public)
    publics = [raw[:-32] + point for point in LOW_ORDER]
    publics += [raw[:1986] + b"\xff" * 1184 + raw[-32:]]
    return [frame(proof(public, mallory.sign(INIT_LABEL, public))) for public in publics]


def weak_keys(chance: random.Random) -> bytes:
    return chance.choice(_weak_keys())


@cache
def _reflected() -> list[bytes]:
    """What a server has sent, sent back to it, also after being opened."""
    mallory = identity_of("mallory")
    initiator = Initiator(mallory)
    answer, _ = Responder(identity_of("server")).respond(initiator.initiate()[4:])
    opened = opened_proof(mallory, answer[4:])
    return [answer, answer[: INIT_SIZE + 4], frame(answer[-INIT_SIZE:]), frame(opened)]


def opened_proof(initiator: Identity, answer: bytes) -> bytes:
    """What a responder sealed for the initiator."""
    ciphertext, sealed = answer[:1120], answer[1122:]
    key = derive_keys(xwing.decapsulate(initiator, ciphertext)).response_identity
    return ChaCha20Poly1305(key).decrypt(b"zwing-resp-i", sealed, ciphertext)


def reflected(chance: random.Random) -> bytes:
    return chance.choice(_reflected())


def doubled(chance: random.Random) -> bytes:
    """With bytes behind it, which nobody can have sealed already."""
    return frame(init_of()) + chance.choice([b"?", frame(init_of()), chance.randbytes(100)])


REFUSED: dict[str, Forged] = {
    each.__name__: each
    for each in (
        random_frame,
        noise,
        truncated,
        misframed,
        bit_flip,
        field_of_noise,
        crossed,
        wrongly_signed,
        weak_keys,
        reflected,
        doubled,
    )
}
"""First messages that no server may answer, by what they are."""


# First messages that are answered: whoever sent them can't read the answer.


@cache
def borrowed_xwing() -> bytes:
    """An identity of our own, but for the X-Wing key, which is somebody else's."""
    mallory, victim = identity_of("mallory"), identity_of("victim")
    public = bytes(mallory.public)[:-1216] + victim.public.xwing
    return frame(proof(public, mallory.sign(INIT_LABEL, public)))


@cache
def recorded_session(name: str = "victim") -> tuple[bytes, bytes]:
    """The first message of a whole session, and the records of its requests."""
    initiator = Initiator(identity_of(name))
    init = initiator.initiate()
    answer, _ = Responder(identity_of("server")).respond(init[4:])
    session = initiator.finish(answer[4:])
    pings = (Envelope(OPCODE_PING, number, b"").encode() for number in (1, 2, 3))
    return init, b"".join(map(session.send, pings))


# Answers that no client may accept. They get the client's first message.

ForgedAnswer = Callable[[random.Random, bytes], bytes]


@cache
def answer_for(name: str = "client") -> bytes:
    """An honest server's answer, without its frame's length."""
    return Responder(identity_of("server")).respond(init_of(name))[0][4:]


def sealed_for(init: bytes, prove: Callable[[bytes], bytes]) -> bytes:
    """An answer, sealed as it should be, around what is made of the transcript."""
    initiator = PublicIdentity(init[2:3202])
    ciphertext, secret = xwing.encapsulate(initiator.xwing)
    key = derive_keys(secret).response_identity
    told = prove(transcript_hash(initiator, ciphertext))
    sealed = ChaCha20Poly1305(key).encrypt(b"zwing-resp-i", told, ciphertext)
    return frame(ciphertext + counted(sealed))


def _proof_by(signer: str, public: str = "server", label: str = RESPONSE_LABEL) -> ForgedAnswer:
    """Whose signature, and for whose identity."""

    def forged(_: random.Random, init: bytes) -> bytes:
        identity = bytes(identity_of(public).public)
        signing = identity_of(signer)
        return sealed_for(init, lambda text: proof(identity, signing.sign(label, text)))

    return forged


def _proof_of_another_transcript(_: random.Random, init: bytes) -> bytes:
    server = identity_of("server")
    old = proof(bytes(server.public), server.sign(RESPONSE_LABEL, b"another"))
    return sealed_for(init, lambda _: old)


def _half_signed(_: random.Random, init: bytes) -> bytes:
    server, mallory = identity_of("server"), identity_of("mallory")

    def prove(text: bytes) -> bytes:
        signed = server.sign(RESPONSE_LABEL, text)[:64] + mallory.sign(RESPONSE_LABEL, text)[64:]
        return proof(bytes(server.public), signed)

    return sealed_for(init, prove)


def _of_another_size(chance: random.Random, init: bytes) -> bytes:
    told = chance.randbytes(chance.choice([0, 1, INIT_SIZE - 1, INIT_SIZE + 1]))
    return sealed_for(init, lambda _: told)


def _changed(change: Callable[[random.Random, bytes, int, int], bytes]) -> ForgedAnswer:
    def forged(chance: random.Random, _: bytes) -> bytes:
        begin, end = chance.choice(list(ANSWER_FIELDS.values()))
        return frame(change(chance, answer_for(), begin, end))

    return forged


def _with_weak_key(chance: random.Random, _: bytes) -> bytes:
    answer = answer_for()
    return frame(answer[:1088] + chance.choice(LOW_ORDER) + answer[1120:])


def _crossed_answers(_: random.Random, init: bytes) -> bytes:
    """One answer's ciphertext, and another's sealed part."""
    other = Responder(identity_of("server")).respond(init)[0][4:]
    return frame(answer_for()[:1120] + other[1120:])


def _misframed_answer(chance: random.Random, _: bytes) -> bytes:
    length = chance.choice([0, 1, RESPONSE_SIZE - 1, RESPONSE_SIZE + 1, 2**20, 2**32 - 1])
    return struct.pack(">I", length) + answer_for()


def _own_proof_sealed(_: random.Random, init: bytes) -> bytes:
    """The client's own identity and signature, given back to it as the server's."""
    return sealed_for(init, lambda _: init)


UNACCEPTABLE: dict[str, ForgedAnswer] = {
    "noise": lambda chance, _: chance.randbytes(chance.randrange(1, 2 * RESPONSE_SIZE)),
    "a frame of noise": lambda chance, _: frame(chance.randbytes(RESPONSE_SIZE)),
    "cut short": lambda chance, _: frame(answer_for())[: chance.randrange(RESPONSE_SIZE + 4)],
    "another length": _misframed_answer,
    "a bit changed": _changed(flipped),
    "a field of noise": _changed(replaced),
    "a weak key": _with_weak_key,
    "two answers mixed": _crossed_answers,
    "meant for somebody else": lambda *_: frame(answer_for("another")),
    "the client's own message": lambda _, init: frame(init),
    "the client's own proof": _own_proof_sealed,
    "bytes behind it": lambda chance, _: frame(answer_for()) + chance.randbytes(50),
    "signed by another": _proof_by("mallory"),
    "signed for another": _proof_by("server", public="mallory"),
    "signed for another purpose": _proof_by("server", label=INIT_LABEL),
    "signed at another time": _proof_of_another_transcript,
    "half signed": _half_signed,
    "sealed nonsense": _of_another_size,
    "somebody else's honest one": _proof_by("mallory", public="mallory"),
}
"""Answers to a client that expects the server, by what they are."""
