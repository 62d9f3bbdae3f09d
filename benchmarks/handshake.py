"""A handshake, both sides of it in one process, beside the primitives that it is made of.

python -m benchmarks.handshake SECONDS prints one JSON line with the processor time of a handshake,
and of each of its primitives as often as it needs it, timed alone on the same keys. All take turns,
twenty handshakes' worth at once, so that a slow moment hits both sides.

A primitive takes and gives bytes as the standards have it: to verify with, or to encapsulate for, a
public key that came over the wire includes reading that key. The identities exist beforehand.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from benchmarks.processes import MEASURED_CORE, command_line, measured, python
from benchmarks.sides import Figure, Run, Side, Unavailable
from zapcore.zwing import Identity, Initiator, Responder
from zapcore.zwing.algorithms import has_native_algorithms
from zapcore.zwing.handshake import RESPONSE_SIZE
from zapcore.zwing.identity import DOMAIN, PUBLIC_IDENTITY_SIZE
from zapcore.zwing.xwing import CIPHERTEXT_SIZE

_LENGTH_SIZE = 4
_AT_ONCE = 20
_WHOLE = "handshake"
_LONGER = 4
"""Of a side's time: how often ML-DSA tries until a signature fits is chance, and is most of it."""
_COMBINED_SIZE = 134
"""Bytes that X-Wing hashes: its label and four values of 32 bytes."""

Primitive = tuple[int, Callable[[], object]]
"""How often both sides together need it, and the thing itself."""


class Seeds(NamedTuple):
    """The keys of both sides: they have the same ones, and each thing is timed with them."""

    ed25519: bytes
    ml_dsa: bytes
    ml_kem: bytes
    x25519: bytes


def new_seeds() -> Seeds:
    """Keys of which nothing is known."""
    return Seeds(*map(os.urandom, (32, 32, 64, 32)))


def whole(seeds: Seeds) -> Callable[[], object]:
    """One handshake, as a connection makes it."""
    client, server = (Identity.from_seeds(**seeds._asdict()) for _ in range(2))
    fingerprint = server.public.fingerprint

    def handshake() -> object:
        initiator, responder = Initiator(client, fingerprint), Responder(server)
        answer, _ = responder.respond(initiator.initiate()[_LENGTH_SIZE:])
        return initiator.finish(answer[_LENGTH_SIZE:])

    return handshake


def primitives(seeds: Seeds) -> dict[str, Primitive]:
    """What both sides compute (protocol.md section 7), with sizes as they are there."""
    return {**_signatures(seeds), **_key_exchange(seeds), **_symmetric()}


def _signatures(seeds: Seeds) -> dict[str, Primitive]:
    """Each side signs a digest, and checks the other's."""
    digest = os.urandom(32)
    classical = Ed25519PrivateKey.from_private_bytes(seeds.ed25519)
    post_quantum = MLDSA65PrivateKey.from_seed_bytes(seeds.ml_dsa)
    classical_public = classical.public_key().public_bytes_raw()
    post_quantum_public = post_quantum.public_key().public_bytes_raw()
    by_classical = classical.sign(digest)
    by_post_quantum = post_quantum.sign(digest, DOMAIN)

    def verify_classical() -> None:
        Ed25519PublicKey.from_public_bytes(classical_public).verify(by_classical, digest)

    def verify_post_quantum() -> None:
        key = MLDSA65PublicKey.from_public_bytes(post_quantum_public)
        key.verify(by_post_quantum, digest, DOMAIN)

    return {
        "Ed25519 sign": (2, lambda: classical.sign(digest)),
        "Ed25519 verify": (2, verify_classical),
        "ML-DSA-65 sign": (2, lambda: post_quantum.sign(digest, DOMAIN)),
        "ML-DSA-65 verify": (2, verify_post_quantum),
    }


def _key_exchange(seeds: Seeds) -> dict[str, Primitive]:
    """X-Wing: the responder encapsulates, the initiator decapsulates."""
    kem = MLKEM768PrivateKey.from_seed_bytes(seeds.ml_kem)
    static = X25519PrivateKey.from_private_bytes(seeds.x25519)
    kem_public = kem.public_key().public_bytes_raw()
    static_public = static.public_key().public_bytes_raw()
    _, ciphertext = kem.public_key().encapsulate()
    combined = os.urandom(_COMBINED_SIZE)

    def encapsulate() -> object:
        return MLKEM768PublicKey.from_public_bytes(kem_public).encapsulate()

    def generate() -> bytes:
        return X25519PrivateKey.generate().public_key().public_bytes_raw()

    def exchange() -> bytes:
        return static.exchange(X25519PublicKey.from_public_bytes(static_public))

    return {
        "ML-KEM-768 encapsulate": (1, encapsulate),
        "ML-KEM-768 decapsulate": (1, lambda: kem.decapsulate(ciphertext)),
        "X25519 generate": (1, generate),
        "X25519 exchange": (2, exchange),
        "SHA3-256": (2, lambda: hashlib.sha3_256(combined).digest()),
    }


def _symmetric() -> dict[str, Primitive]:
    """Each side derives three keys and hashes; the responder's identity is sealed and opened."""
    secret, nonce, ciphertext = os.urandom(32), os.urandom(12), os.urandom(CIPHERTEXT_SIZE)
    identity = os.urandom(PUBLIC_IDENTITY_SIZE)
    proof = os.urandom(RESPONSE_SIZE - CIPHERTEXT_SIZE)
    cipher = ChaCha20Poly1305(os.urandom(32))
    sealed = cipher.encrypt(nonce, proof, ciphertext)

    def derive() -> bytes:
        return HKDF(SHA256(), 32, None, b"lux.zwing.v1/i2r").derive(secret)

    return {
        "HKDF-SHA256": (6, derive),
        "SHA-256 of an identity": (4, lambda: hashlib.sha256(identity).digest()),
        "ChaCha20-Poly1305 seal": (1, lambda: cipher.encrypt(nonce, proof, ciphertext)),
        "ChaCha20-Poly1305 open": (1, lambda: cipher.decrypt(nonce, sealed, ciphertext)),
    }


def _cost(things: dict[str, Primitive], seconds: float) -> dict[str, float]:
    """Processor seconds of each, as often as a handshake needs it."""
    used = dict.fromkeys(things, 0.0)
    until, turns = time.perf_counter() + seconds, 0
    while time.perf_counter() < until:
        for name, (times, thing) in things.items():
            before = time.process_time()
            for _ in range(_AT_ONCE * times):
                thing()
            used[name] += time.process_time() - before
        turns += 1
    return {name: total / turns / _AT_ONCE for name, total in used.items()}


def _round(run: Run) -> tuple[dict[str, float], str]:
    command = python("benchmarks.handshake", _LONGER * run.seconds)
    told: dict[str, float] = measured(MEASURED_CORE, *command)
    return told, command_line(MEASURED_CORE, command)


def _side(*, whole: bool) -> Side:
    def side(run: Run) -> Figure:
        if not has_native_algorithms():
            raise Unavailable("this build of `cryptography` has no ML-DSA-65 and ML-KEM-768")
        costs, command = run.once(f"handshake {run.round}", lambda: _round(run))
        parts = {name: cost for name, cost in costs.items() if (name == _WHOLE) is whole}
        return Figure(sum(parts.values()) * 1e3, "ms", command, parts)

    return side


SIDES: dict[str, Side] = {"handshake": _side(whole=True), "primitives": _side(whole=False)}

if __name__ == "__main__":
    seeds = new_seeds()
    things = {_WHOLE: (1, whole(seeds)), **primitives(seeds)}
    print(json.dumps(_cost(things, float(sys.argv[1]))))
