"""Identity files, public identity files and known servers, as ssh users know them."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypedDict, cast

from zapcore.errors import (
    IdentityMismatch,
    KeyFileError,
    KnownServersError,
    UnknownServer,
)
from zapcore.zwing.handshake import Trust
from zapcore.zwing.identity import FINGERPRINT_PREFIX, PUBLIC_IDENTITY_SIZE, PublicIdentity

_FORMAT = "zwing-identity-v1"
_MAX_FILE_SIZE = 64 * 1024
_MAX_KNOWN_SERVERS_SIZE = 1024 * 1024
_FINGERPRINT = re.compile(re.escape(FINGERPRINT_PREFIX) + r"[A-Za-z0-9+/]{43}")


class PrivateKeys(TypedDict):
    """What an identity file holds; see Identity.from_private_keys."""

    ed25519: bytes
    ml_dsa: bytes
    ml_kem: bytes
    x25519: bytes
    ml_dsa_public: bytes


def is_fingerprint(text: str) -> bool:
    """Whether a text has the form of a fingerprint."""
    return _FINGERPRINT.fullmatch(text) is not None


def read_private(path: Path) -> PrivateKeys:
    """The keys in an identity file.

    Raises:
        KeyFileError: unreadable, readable by others, too large or malformed.
    """
    data = _read(path, private=True)
    try:
        document = json.loads(data)
        _check_format(path, document["format"])
        decoded = {name: base64.b64decode(document[name], validate=True) for name in _key_names()}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise KeyFileError(
            f"{path} is not an identity file; `zap-gateway identity new {path}` makes one"
            " (with another name, or once this file is gone)"
        ) from None  # the cause may quote what the file holds, and that could be a key
    return cast("PrivateKeys", decoded)


def _check_format(path: Path, found: str) -> None:
    """Quote only what has the form of a version: what else stands there could be a key."""
    if found == _FORMAT:
        return
    if re.fullmatch(r"zwing-identity-v\d{1,4}", found, re.ASCII):
        raise KeyFileError(f"{path} is a {found!r} file, not {_FORMAT!r}: use a newer zap-gateway")
    raise ValueError("another format")


def _key_names() -> list[str]:
    return list(PrivateKeys.__annotations__)


def write_private(path: Path, keys: PrivateKeys) -> None:
    """Write an identity file with mode 0600.

    Raises:
        KeyFileError: it exists already, or can't be written.
    """
    encoded = {name: base64.b64encode(keys[name]).decode() for name in _key_names()}  # type: ignore[literal-required]
    document = json.dumps({"format": _FORMAT, **encoded}, indent=2)
    _create(path, document.encode() + b"\n", 0o600)


def read_public(path: Path) -> bytes:
    """The 3200 bytes in a public identity file: raw, or base64 (white space is ignored).

    Raises:
        KeyFileError: unreadable, too large or something else.
    """
    data = _read(path, private=False)
    if len(data) == PUBLIC_IDENTITY_SIZE:
        return data
    with suppress(binascii.Error, ValueError):
        decoded = base64.b64decode(b"".join(data.split()), validate=True)
        if len(decoded) == PUBLIC_IDENTITY_SIZE:
            return decoded
    raise KeyFileError(
        f"{path} is not a public identity: it holds neither {PUBLIC_IDENTITY_SIZE} bytes nor their"
        " base64; `zap-gateway identity show --public FILE` prints one"
    )


def write_public(path: Path, raw: bytes) -> None:
    """Write a public identity file (base64 in lines, mode 0644).

    Raises:
        KeyFileError: it exists already, or can't be written.
    """
    _create(path, base64.encodebytes(raw), 0o644)


def _read(path: Path, *, private: bool) -> bytes:
    try:
        with path.open("rb") as file:
            if private:
                _check_mode(path, os.fstat(file.fileno()))
            data = file.read(_MAX_FILE_SIZE + 1)
    except OSError as error:
        raise KeyFileError(f"can't read {path}: {error.strerror}") from error
    if len(data) > _MAX_FILE_SIZE:
        raise KeyFileError(f"{path} is too large for a key file (over {_MAX_FILE_SIZE} bytes)")
    return data


def _check_mode(path: Path, status: os.stat_result) -> None:
    """Refuse what others can read.

    A file of another owner that our group may read is let through: that is how a container gets
    a secret, and we could not change its mode.
    """
    if os.name != "posix":
        return
    mode = stat.S_IMODE(status.st_mode)
    ours = status.st_uid == os.geteuid()
    if mode & (0o077 if ours else 0o007):
        raise KeyFileError(
            f"others can read {path} (mode {mode:04o}): chmod 600 {path},"
            " and make a new identity if somebody may have seen this one"
        )


def _create(path: Path, data: bytes, mode: int) -> None:
    """Write a new file, whole or not at all."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise KeyFileError(f"{path} exists already: choose another name, or remove it") from error
    except OSError as error:
        raise KeyFileError(f"can't write {path}: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise KeyFileError(f"can't write {path}: {error.strerror}") from error


class KnownServers:
    """A file of addresses and fingerprints: one `host:port SHA256:…` per line, # for comments.

    Args:
        path: the file; it need not exist yet.
        trust_on_first_use: accept a server that has no line, and write one for it.
    """

    def __init__(self, path: str | os.PathLike[str], *, trust_on_first_use: bool = False) -> None:
        self.path = Path(path)
        self.trust_on_first_use = trust_on_first_use

    def fingerprints(self) -> dict[str, str]:
        """Fingerprint by address.

        Raises:
            KnownServersError: unreadable, too large, or a malformed line (named by its number).
        """
        try:
            with self.path.open("rb") as file:
                data = file.read(_MAX_KNOWN_SERVERS_SIZE + 1)
            text = data.decode()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise KnownServersError(f"can't read {self.path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise KnownServersError(f"{self.path} is not text") from error
        if len(data) > _MAX_KNOWN_SERVERS_SIZE:
            raise KnownServersError(f"{self.path} is over {_MAX_KNOWN_SERVERS_SIZE} bytes")
        return self._parse(text)

    def _parse(self, text: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for number, line in enumerate(text.split("\n"), 1):
            words = line.split("#", 1)[0].split()
            if not words:
                continue
            if len(words) != 2 or not is_fingerprint(words[1]):
                raise KnownServersError(
                    f"{self.path}, line {number}: not `host:port {FINGERPRINT_PREFIX}…`;"
                    " correct the line or remove it"
                )
            if found.get(words[0], words[1]) != words[1]:
                raise KnownServersError(
                    f"{self.path}, line {number}: another fingerprint for {words[0]} than above;"
                    " remove one of the lines"
                )
            found[words[0]] = words[1]
        return found

    def rule(self, address: str) -> Trust:
        """Whom to accept at an address."""

        def check(remote: PublicIdentity) -> None:
            self.check(address, remote)

        return check

    def check(self, address: str, remote: PublicIdentity) -> None:
        """Accept a server's proven identity, or refuse it.

        Raises:
            UnknownServer: no line for the address, and first use is not trusted.
            IdentityMismatch: its line has another fingerprint.
            KnownServersError: the file can't be read or written.
        """
        known = self.fingerprints().get(address)
        if known is None and self.trust_on_first_use:
            self.add(address, remote)
        elif known is None:
            raise UnknownServer(
                f"{address} is unknown; its fingerprint is {remote.fingerprint}. Compare that with"
                " what the server's owner says, then pin it (--server) or add it to"
                f" {self.path}: {address} {remote.fingerprint}"
            )
        elif known != remote.fingerprint:
            raise IdentityMismatch(
                f"{address} has the fingerprint {remote.fingerprint}, and {self.path} says {known}:"
                " either its keys were changed, or somebody is in between. If the change is known"
                f" to be right, replace the line of {address}"
            )

    def add(self, address: str, remote: PublicIdentity) -> None:
        """Write a line for a server.

        Raises:
            KnownServersError: the file can't be written.
        """
        line = f"{address} {remote.fingerprint}\n".encode()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, flags, 0o600)
            with os.fdopen(descriptor, "r+b") as file:
                file.write(line if _ends_with_newline(file) else b"\n" + line)
        except OSError as error:
            raise KnownServersError(f"can't write {self.path}: {error.strerror}") from error


def _ends_with_newline(file: BinaryIO) -> bool:
    """Whether a line can be appended as it is; a person's editor may have left none."""
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
