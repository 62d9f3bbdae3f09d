"""ML-DSA-65 and ML-KEM-768 from whichever library has them, behind one shape.

`cryptography` is the first choice: it is fast and works on keys in seed form. pqcrypto is the
second: it works on keys in the expanded form that Go tools store, and serves where a build of
`cryptography` lacks the algorithms. All sizes are in bytes (FIPS 203, FIPS 204).
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Protocol, cast

from cryptography.exceptions import InvalidSignature
from cryptography.exceptions import UnsupportedAlgorithm as _Unsupported
from cryptography.hazmat.primitives.asymmetric import mldsa, mlkem

from zapcore.errors import InvalidIdentity, UnsupportedAlgorithm

ML_DSA_SEED_SIZE = 32
ML_DSA_EXPANDED_SIZE = 4032
ML_DSA_PUBLIC_SIZE = 1952
ML_DSA_SIGNATURE_SIZE = 3309
ML_KEM_SEED_SIZE = 64
ML_KEM_EXPANDED_SIZE = 2400
ML_KEM_PUBLIC_SIZE = 1184
ML_KEM_CIPHERTEXT_SIZE = 1088
SHARED_SECRET_SIZE = 32

# FIPS 204: an expanded signing key begins with rho (32), K (32), and tr, the public key's hash.
_TR = slice(64, 128)

# FIPS 203: an expanded decapsulation key is the PKE key (1152), then the encapsulation key.
_ML_KEM_PKE_SIZE = 1152


class SigningKey(Protocol):
    """An ML-DSA-65 private key. ``private`` is its seed, or its expanded form."""

    private: bytes
    public: bytes

    def sign(self, message: bytes, context: bytes) -> bytes:
        """A randomised signature of 3309 bytes."""


class DecapsulationKey(Protocol):
    """An ML-KEM-768 private key. ``private`` is its seed, or its expanded form."""

    private: bytes
    public: bytes

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """The shared secret of 32 bytes; garbage for a forged ciphertext (implicit rejection)."""


class SeedSigningKey:
    """ML-DSA-65 by `cryptography`, from a seed of 32 bytes."""

    def __init__(self, seed: bytes) -> None:
        self._key = mldsa.MLDSA65PrivateKey.from_seed_bytes(seed)
        self.private = seed
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes, context: bytes) -> bytes:
        """See SigningKey."""
        return self._key.sign(message, context)


class ExpandedSigningKey:
    """ML-DSA-65 by pqcrypto, from an expanded key of 4032 bytes and its public key.

    An expanded key does not contain its public key, but a hash of it (FIPS 204, algorithm 24):
    that the two belong together is checked with that, and that they work with one signature.
    """

    def __init__(self, private: bytes, public: bytes) -> None:
        self.private = private
        self.public = public
        if private[_TR] != hashlib.shake_256(public).digest(_TR.stop - _TR.start):
            raise InvalidIdentity("the ML-DSA-65 private key and public key don't belong together")
        probe = secrets.token_bytes(32)
        if not pqcrypto_verify(public, probe, self.sign(probe, b""), b""):
            raise InvalidIdentity("the ML-DSA-65 private key is damaged")

    def sign(self, message: bytes, context: bytes) -> bytes:
        """See SigningKey."""
        from pqcrypto.sign import ml_dsa_65

        return cast("bytes", ml_dsa_65.sign(self.private, message, context))


class SeedDecapsulationKey:
    """ML-KEM-768 by `cryptography`, from a seed of 64 bytes."""

    def __init__(self, seed: bytes) -> None:
        self._key = mlkem.MLKEM768PrivateKey.from_seed_bytes(seed)
        self.private = seed
        self.public = self._key.public_key().public_bytes_raw()

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """See DecapsulationKey."""
        return self._key.decapsulate(ciphertext)


class ExpandedDecapsulationKey:
    """ML-KEM-768 by pqcrypto, from an expanded key of 2400 bytes."""

    def __init__(self, private: bytes) -> None:
        self.private = private
        self.public = private[_ML_KEM_PKE_SIZE : _ML_KEM_PKE_SIZE + ML_KEM_PUBLIC_SIZE]
        ciphertext, secret = encapsulate(self.public)
        try:
            opened = self.decapsulate(ciphertext)
        except ValueError as error:  # FIPS 203 section 7.3: the hash of its own public key
            raise InvalidIdentity("the ML-KEM-768 private key contradicts itself") from error
        if opened != secret:
            raise InvalidIdentity("the ML-KEM-768 private key does not open what it should")

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """See DecapsulationKey."""
        from pqcrypto.kem import ml_kem_768

        return cast("bytes", ml_kem_768.decaps(self.private, ciphertext))


def has_native_algorithms() -> bool:
    """Whether this build of `cryptography` has ML-DSA-65 and ML-KEM-768."""
    try:
        mldsa.MLDSA65PrivateKey.generate()
        mlkem.MLKEM768PrivateKey.generate()
    except _Unsupported:
        return False
    return True


def load_signing_key(private: bytes, public: bytes | None = None) -> SigningKey:
    """An ML-DSA-65 key from its seed, or from its expanded form with its public key.

    Raises:
        InvalidIdentity: a wrong size, or parts that don't belong together.
        UnsupportedAlgorithm: no library here takes a seed.
    """
    if len(private) == ML_DSA_EXPANDED_SIZE:
        if public is None or len(public) != ML_DSA_PUBLIC_SIZE:
            raise InvalidIdentity(
                f"an expanded ML-DSA-65 key needs its public key of {ML_DSA_PUBLIC_SIZE} bytes too"
            )
        return ExpandedSigningKey(private, public)
    _check_size("ML-DSA-65 private key", private, ML_DSA_SEED_SIZE, ML_DSA_EXPANDED_SIZE)
    try:
        key = SeedSigningKey(private)
    except _Unsupported as error:
        raise _no_seeds("ML-DSA-65") from error
    if public is not None and public != key.public:
        raise InvalidIdentity("the ML-DSA-65 private key and public key don't belong together")
    return key


def load_decapsulation_key(private: bytes) -> DecapsulationKey:
    """An ML-KEM-768 key from its seed or its expanded form.

    Raises:
        InvalidIdentity: a wrong size, or a key that does not work.
        UnsupportedAlgorithm: no library here takes a seed.
    """
    if len(private) == ML_KEM_EXPANDED_SIZE:
        return ExpandedDecapsulationKey(private)
    _check_size("ML-KEM-768 private key", private, ML_KEM_SEED_SIZE, ML_KEM_EXPANDED_SIZE)
    try:
        return SeedDecapsulationKey(private)
    except _Unsupported as error:
        raise _no_seeds("ML-KEM-768") from error


def generate_signing_key() -> SigningKey:
    """A fresh ML-DSA-65 key, in seed form where `cryptography` can."""
    if has_native_algorithms():
        return SeedSigningKey(secrets.token_bytes(ML_DSA_SEED_SIZE))
    from pqcrypto.sign import ml_dsa_65

    public, private = ml_dsa_65.keygen()
    return ExpandedSigningKey(private, public)


def generate_decapsulation_key() -> DecapsulationKey:
    """A fresh ML-KEM-768 key, in seed form where `cryptography` can."""
    if has_native_algorithms():
        return SeedDecapsulationKey(secrets.token_bytes(ML_KEM_SEED_SIZE))
    from pqcrypto.kem import ml_kem_768

    _, private = ml_kem_768.keygen()
    return ExpandedDecapsulationKey(private)


def verify(public: bytes, message: bytes, signature: bytes, context: bytes) -> bool:
    """Whether an ML-DSA-65 signature holds."""
    try:
        key = mldsa.MLDSA65PublicKey.from_public_bytes(public)
        key.verify(signature, message, context)
    except _Unsupported:
        return pqcrypto_verify(public, message, signature, context)
    except (InvalidSignature, ValueError):
        return False
    return True


def encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """A fresh ciphertext (1088) and shared secret (32) for an ML-KEM-768 public key.

    Raises:
        InvalidIdentity: the public key fails the checks of FIPS 203 section 7.2.
    """
    try:
        secret, ciphertext = mlkem.MLKEM768PublicKey.from_public_bytes(public).encapsulate()
    except _Unsupported:
        return pqcrypto_encapsulate(public)
    except ValueError as error:
        raise InvalidIdentity("the ML-KEM-768 public key is not a valid one") from error
    return ciphertext, secret


def pqcrypto_verify(public: bytes, message: bytes, signature: bytes, context: bytes) -> bool:
    """Whether an ML-DSA-65 signature holds, by pqcrypto."""
    from pqcrypto import InvalidSignatureError
    from pqcrypto.sign import ml_dsa_65

    try:
        ml_dsa_65.verify(public, message, signature, context)
    except (InvalidSignatureError, ValueError):
        return False
    return True


def pqcrypto_encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """A fresh ML-KEM-768 ciphertext and shared secret, by pqcrypto."""
    from pqcrypto.kem import ml_kem_768

    try:
        ciphertext, secret = ml_kem_768.encaps(public)
    except ValueError as error:
        raise InvalidIdentity("the ML-KEM-768 public key is not a valid one") from error
    return ciphertext, secret


def _check_size(what: str, value: bytes, *sizes: int) -> None:
    if len(value) not in sizes:
        allowed = " or ".join(map(str, sizes))
        raise InvalidIdentity(f"{what}: {len(value)} bytes, not {allowed}")


def _no_seeds(algorithm: str) -> UnsupportedAlgorithm:
    return UnsupportedAlgorithm(
        f"this build of `cryptography` has no {algorithm}, so it can't take a seed:"
        " install a newer `cryptography`, or use a key in expanded form"
    )
