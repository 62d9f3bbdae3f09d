"""`zap-gateway identity`: make, show and import identities."""

from __future__ import annotations

import argparse
import base64
import binascii
import contextlib
import json
from pathlib import Path

from gateway.settings import SettingsError
from zapcore.errors import InvalidIdentity, KeyFileError
from zapcore.zwing import algorithms
from zapcore.zwing.identity import ED25519_SIZE, X25519_SIZE, Identity, PublicIdentity

EPILOG = """\
  zap-gateway identity new gateway.json                  make one
  zap-gateway identity show gateway.json                 its fingerprint, for others to compare
  zap-gateway identity show --public gateway.json        its public identity, for an allow-list
  zap-gateway identity import gateway.json --ed25519 F --ml-dsa F --ml-dsa-public F \\
                                           --ml-kem F --x25519 F
"""

_MAX_KEY_TEXT = 64 * 1024

# What each part may be, in bytes. Go's crypto/ed25519 keeps seed and public key together.
_PARTS = {
    "ed25519": (ED25519_SIZE, 2 * ED25519_SIZE),
    "ml_dsa": (algorithms.ML_DSA_SEED_SIZE, algorithms.ML_DSA_EXPANDED_SIZE),
    "ml_dsa_public": (algorithms.ML_DSA_PUBLIC_SIZE,),
    "ml_kem": (algorithms.ML_KEM_SEED_SIZE, algorithms.ML_KEM_EXPANDED_SIZE),
    "x25519": (X25519_SIZE,),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = actions.add_parser("new", help="make an identity file that only you can read")
    new.add_argument("file", type=Path, help="the file to make")
    new.add_argument("--json", action="store_true", help="tell the fingerprint as JSON")
    show = actions.add_parser("show", help="show the public side of an identity")
    show.add_argument("file", type=Path, help="an identity file, or a public identity file")
    show.add_argument("--public", action="store_true", help="the whole public identity, in base64")
    show.add_argument("--json", action="store_true", help="as JSON")
    add = actions.add_parser("import", help="make an identity file from keys of other tools")
    add.add_argument("file", type=Path, help="the file to make")
    add.add_argument("--json", action="store_true", help="tell the fingerprint as JSON")
    for name, sizes in _PARTS.items():
        allowed = " or ".join(map(str, sizes))
        add.add_argument(
            "--" + name.replace("_", "-"),
            type=Path,
            metavar="FILE",
            required=name != "ml_dsa_public",
            help=f"{allowed} bytes, raw, in hex or in base64"
            + ("; needed with an expanded ML-DSA key" if name == "ml_dsa_public" else ""),
        )


def main(arguments: argparse.Namespace) -> int:
    """Do what was asked."""
    action = {"new": _new, "show": _show, "import": _import}[arguments.action]
    action(arguments)
    return 0


def _new(arguments: argparse.Namespace) -> None:
    identity = Identity.generate()
    identity.save(arguments.file)
    _tell(arguments, identity.public)


def _import(arguments: argparse.Namespace) -> None:
    parts = {
        name: _read_part(path, name)
        for name in _PARTS
        if (path := vars(arguments)[name]) is not None
    }
    parts["ed25519"] = _ed25519_seed(parts["ed25519"])
    identity = Identity.from_private_keys(**parts)
    identity.save(arguments.file)
    _tell(arguments, identity.public)


def _show(arguments: argparse.Namespace) -> None:
    public = _public_of(arguments.file)
    if arguments.public and not arguments.json:
        print(base64.encodebytes(bytes(public)).decode(), end="")
        return
    _tell(arguments, public)


def _public_of(path: Path) -> PublicIdentity:
    """A public identity file's, or an identity file's."""
    try:
        return PublicIdentity.load(path)
    except KeyFileError:
        return Identity.load(path).public


def _tell(arguments: argparse.Namespace, public: PublicIdentity) -> None:
    if not arguments.json:
        print(public.fingerprint)
        return
    told = {"fingerprint": public.fingerprint}
    if getattr(arguments, "public", False):
        told["publicIdentity"] = base64.b64encode(bytes(public)).decode()
    print(json.dumps(told))


def _read_part(path: Path, name: str) -> bytes:
    """A key in whatever form a tool wrote it. Errors never quote it."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_KEY_TEXT)
    except OSError as error:
        raise SettingsError(f"can't read {path}: {error.strerror}") from error
    sizes = _PARTS[name]
    for decode in (_from_hex, _from_base64, _raw):
        with contextlib.suppress(binascii.Error, ValueError):
            decoded = decode(data)
            if len(decoded) in sizes:
                return decoded
    allowed = " or ".join(map(str, sizes))
    raise SettingsError(f"{path} does not hold {allowed} bytes, raw, in hex or in base64")


def _ed25519_seed(key: bytes) -> bytes:
    """The seed; Go's longer form ends with the public key, which must be the seed's."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    seed, public = key[:ED25519_SIZE], key[ED25519_SIZE:]
    made = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    if public and public != made:
        raise InvalidIdentity("the Ed25519 private key and public key don't belong together")
    return seed


def _from_hex(data: bytes) -> bytes:
    return binascii.unhexlify(b"".join(data.split()))


def _from_base64(data: bytes) -> bytes:
    return base64.b64decode(b"".join(data.split()), validate=True)


def _raw(data: bytes) -> bytes:
    """The bytes themselves. All of them printable means a text that nothing else could read."""
    if data.isascii() and data.decode().isprintable():
        raise ValueError("a text")
    return data
