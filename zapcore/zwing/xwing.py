"""X-Wing as Z-Wing uses it: ML-KEM-768 and X25519 in one KEM (protocol.md section 7).

The combiner puts its label first and spells it differently from the IETF draft. That is what
Z-Wing peers compute; it must not be "fixed".
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from zapcore.errors import InvalidIdentity
from zapcore.zwing import algorithms

if TYPE_CHECKING:
    from zapcore.zwing.identity import Identity

CIPHERTEXT_SIZE = algorithms.ML_KEM_CIPHERTEXT_SIZE + 32
_LABEL = b"\x5c\x2e\x2fX-Wing"


def combine(ss_m: bytes, ss_x: bytes, ct_x: bytes, pk_x: bytes) -> bytes:
    """The shared secret of 32 bytes, from four values of 32 bytes each.

    Args:
        ss_m: ML-KEM's shared secret.
        ss_x: X25519's shared secret.
        ct_x: the ephemeral X25519 public key.
        pk_x: the recipient's static X25519 public key.
    """
    return hashlib.sha3_256(_LABEL + ss_m + ss_x + ct_x + pk_x).digest()


def encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """A fresh ciphertext (1120 bytes) and shared secret (32) for an X-Wing public key (1216).

    Raises:
        InvalidIdentity: either half of the public key is not a valid one.
    """
    ml_kem, pk_x = public[: algorithms.ML_KEM_PUBLIC_SIZE], public[algorithms.ML_KEM_PUBLIC_SIZE :]
    ct_m, ss_m = algorithms.encapsulate(ml_kem)
    ephemeral = X25519PrivateKey.generate()
    ct_x = ephemeral.public_key().public_bytes_raw()
    return ct_m + ct_x, combine(ss_m, _exchange(ephemeral, pk_x), ct_x, pk_x)


def decapsulate(identity: Identity, ciphertext: bytes) -> bytes:
    """The shared secret (32 bytes) of a ciphertext (1120).

    A forged ciphertext gives a secret that nobody else has (implicit rejection).

    Raises:
        InvalidIdentity: the ephemeral X25519 key gives the all-zero secret.
    """
    split = algorithms.ML_KEM_CIPHERTEXT_SIZE
    ct_m, ct_x = ciphertext[:split], ciphertext[split:]
    ss_m = identity.ml_kem.decapsulate(ct_m)
    ss_x = _exchange(identity.x25519, ct_x)
    return combine(ss_m, ss_x, ct_x, identity.public.xwing[algorithms.ML_KEM_PUBLIC_SIZE :])


def _exchange(private: X25519PrivateKey, public: bytes) -> bytes:
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:  # RFC 7748 section 6.1: the all-zero result
        raise InvalidIdentity("the X25519 public key is of low order") from error
