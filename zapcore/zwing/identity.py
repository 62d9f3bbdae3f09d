"""Identities: the keys of one peer, and the signatures that prove them (protocol.md section 7)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import mmap
import secrets
import struct
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from zapcore.errors import InvalidIdentity
from zapcore.zwing import algorithms

if TYPE_CHECKING:
    from os import PathLike

ED25519_SIZE = 32
ED25519_SIGNATURE_SIZE = 64
X25519_SIZE = 32
XWING_PUBLIC_SIZE = algorithms.ML_KEM_PUBLIC_SIZE + X25519_SIZE
PUBLIC_IDENTITY_SIZE = ED25519_SIZE + algorithms.ML_DSA_PUBLIC_SIZE + XWING_PUBLIC_SIZE
SIGNATURE_SIZE = ED25519_SIGNATURE_SIZE + algorithms.ML_DSA_SIGNATURE_SIZE

DOMAIN = b"lux.zwing.v1"
FINGERPRINT_PREFIX = "SHA256:"


def _digest(label: bytes, message: bytes) -> bytes:
    """What both algorithms sign. The label's length is one byte, so at most 255."""
    return hashlib.sha256(DOMAIN + bytes((len(label),)) + label + message).digest()


def _label_bytes(label: str | bytes) -> bytes:
    return label.encode() if isinstance(label, str) else label


class PublicIdentity:
    """A peer's public keys: 3200 bytes, Ed25519 ‖ ML-DSA-65 ‖ X-Wing. Equal by those bytes."""

    __slots__ = ("__dict__", "_raw")

    def __init__(self, raw: bytes) -> None:
        if len(raw) != PUBLIC_IDENTITY_SIZE:
            raise InvalidIdentity(
                f"a public identity has {PUBLIC_IDENTITY_SIZE} bytes, this has {len(raw)}"
            )
        self._raw = bytes(raw)

    @classmethod
    def from_bytes(cls, raw: bytes) -> PublicIdentity:
        """From the 3200 bytes that cross the wire.

        Raises:
            InvalidIdentity: another size.
        """
        return cls(raw)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> PublicIdentity:
        """From a public identity file: the 3200 bytes themselves, or their base64.

        Raises:
            KeyFileError: it can't be read, or holds something else.
        """
        from zapcore.zwing import keyfile

        return cls(keyfile.read_public(Path(path)))

    def save(self, path: str | PathLike[str]) -> None:
        """Write a public identity file (base64, readable by all). Never overwrites.

        Raises:
            KeyFileError: it exists already or can't be written.
        """
        from zapcore.zwing import keyfile

        keyfile.write_public(Path(path), self._raw)

    def __bytes__(self) -> bytes:
        return self._raw

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PublicIdentity):
            return NotImplemented
        return hmac.compare_digest(self._raw, other._raw)

    def __hash__(self) -> int:
        return hash(self._raw)

    def __repr__(self) -> str:
        return f"<PublicIdentity {self.fingerprint}>"

    @property
    def ed25519(self) -> bytes:
        """The Ed25519 public key, 32 bytes."""
        return self._raw[:ED25519_SIZE]

    @property
    def ml_dsa(self) -> bytes:
        """The ML-DSA-65 public key, 1952 bytes."""
        return self._raw[ED25519_SIZE:-XWING_PUBLIC_SIZE]

    @property
    def xwing(self) -> bytes:
        """The X-Wing public key, 1216 bytes."""
        return self._raw[-XWING_PUBLIC_SIZE:]

    @cached_property
    def fingerprint(self) -> str:
        """A digest of all 3200 bytes for people to compare, in the form ssh uses."""
        digest = hashlib.sha256(self._raw).digest()
        return FINGERPRINT_PREFIX + base64.b64encode(digest).decode().rstrip("=")

    def verify(self, label: str | bytes, message: bytes, signature: bytes) -> bool:
        """Whether both halves of a 3373-byte signature over (label, message) hold."""
        if len(signature) != SIGNATURE_SIZE:
            return False
        digest = _digest(_label_bytes(label), message)
        classical, post_quantum = (
            signature[:ED25519_SIGNATURE_SIZE],
            signature[ED25519_SIGNATURE_SIZE:],
        )
        try:
            Ed25519PublicKey.from_public_bytes(self.ed25519).verify(classical, digest)
        except (InvalidSignature, ValueError):
            return False
        return algorithms.verify(self.ml_dsa, digest, post_quantum, DOMAIN)


class ReplayFilter:
    """Tells what was seen before. Never forgets, in 4 MiB: a Bloom filter with four bits for each.

    So something new may be taken for known: once in 80 000 after 500 000 others, once in 100 after
    three million. Forgetting instead would let an attacker wait, or see to it, until it has.
    Pages of an anonymous mapping take memory only once they are written.
    """

    __slots__ = ("_bits",)

    _SIZE = 4 * 1024 * 1024
    _PLACES = struct.Struct(">4I")

    def __init__(self) -> None:
        self._bits = mmap.mmap(-1, self._SIZE)

    def is_new(self, value: bytes) -> bool:
        """Whether this was never seen; from now on it was."""
        digest = hashlib.sha256(value).digest()
        new = False
        for place in self._PLACES.unpack_from(digest):
            at, bit = place // 8 % self._SIZE, 1 << place % 8
            new = new or not self._bits[at] & bit
            self._bits[at] |= bit
        return new


class Identity:
    """A peer's private keys. Never shows them: not in repr, not in errors."""

    def __init__(
        self,
        ed25519: bytes,
        ml_dsa: algorithms.SigningKey,
        ml_kem: algorithms.DecapsulationKey,
        x25519: bytes,
    ) -> None:
        for name, key, size in (
            ("Ed25519", ed25519, ED25519_SIZE),
            ("X25519", x25519, X25519_SIZE),
        ):
            if len(key) != size:
                raise InvalidIdentity(f"{name} private key: {len(key)} bytes, not {size}")
        self._ed25519 = Ed25519PrivateKey.from_private_bytes(ed25519)
        self._ml_dsa = ml_dsa
        self.ml_kem = ml_kem
        self.x25519 = X25519PrivateKey.from_private_bytes(x25519)
        self.public = PublicIdentity(
            self._ed25519.public_key().public_bytes_raw()
            + ml_dsa.public
            + ml_kem.public
            + self.x25519.public_key().public_bytes_raw()
        )
        self.answers = ReplayFilter()
        """Handshakes' answers that were accepted under these keys; see Initiator."""

    @classmethod
    def generate(cls) -> Identity:
        """A fresh identity, from the system's random source."""
        return cls(
            secrets.token_bytes(ED25519_SIZE),
            algorithms.generate_signing_key(),
            algorithms.generate_decapsulation_key(),
            secrets.token_bytes(X25519_SIZE),
        )

    @classmethod
    def from_seeds(cls, *, ed25519: bytes, ml_dsa: bytes, ml_kem: bytes, x25519: bytes) -> Identity:
        """From seeds of 32, 32, 64 and 32 bytes.

        Raises:
            InvalidIdentity: a seed has another size.
            UnsupportedAlgorithm: no library here takes seeds.
        """
        return cls.from_private_keys(ed25519=ed25519, ml_dsa=ml_dsa, ml_kem=ml_kem, x25519=x25519)

    @classmethod
    def from_private_keys(
        cls,
        *,
        ed25519: bytes,
        ml_dsa: bytes,
        ml_kem: bytes,
        x25519: bytes,
        ml_dsa_public: bytes | None = None,
    ) -> Identity:
        """From seeds, or from the expanded forms that Go tools store.

        Args:
            ed25519: seed, 32 bytes.
            ml_dsa: seed, 32 bytes, or expanded key, 4032 bytes.
            ml_kem: seed, 64 bytes, or expanded key, 2400 bytes.
            x25519: scalar, 32 bytes.
            ml_dsa_public: 1952 bytes; needed with an expanded ``ml_dsa``.

        Raises:
            InvalidIdentity: a wrong size, or parts that don't belong together.
            UnsupportedAlgorithm: no library here works with this form.
        """
        return cls(
            ed25519,
            algorithms.load_signing_key(ml_dsa, ml_dsa_public),
            algorithms.load_decapsulation_key(ml_kem),
            x25519,
        )

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Identity:
        """From an identity file.

        Raises:
            KeyFileError: it can't be read, others can read it, or it is malformed.
            InvalidIdentity: its keys don't belong together.
        """
        from zapcore.zwing import keyfile

        return cls.from_private_keys(**keyfile.read_private(Path(path)))

    def save(self, path: str | PathLike[str]) -> None:
        """Write an identity file that only its owner can read. Never overwrites.

        Raises:
            KeyFileError: it exists already or can't be written.
        """
        from zapcore.zwing import keyfile

        keyfile.write_private(
            Path(path),
            {
                "ed25519": self._ed25519.private_bytes_raw(),
                "ml_dsa": self._ml_dsa.private,
                "ml_kem": self.ml_kem.private,
                "x25519": self.x25519.private_bytes_raw(),
                "ml_dsa_public": self._ml_dsa.public,
            },
        )

    def __repr__(self) -> str:
        return f"<Identity {self.public.fingerprint}>"

    def sign(self, label: str | bytes, message: bytes) -> bytes:
        """Sign (label, message): 3373 bytes, Ed25519 ‖ ML-DSA-65. Randomised."""
        digest = _digest(_label_bytes(label), message)
        return self._ed25519.sign(digest) + self._ml_dsa.sign(digest, DOMAIN)
