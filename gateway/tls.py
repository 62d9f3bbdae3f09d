"""TLS for the HTTP side: a certificate and its key, read again when their files change."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

logger = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT = 10.0
"""Seconds that a client has for its TLS handshake."""


class CertificateError(Exception):
    """The certificate or its key can't be used; the text says why."""


class ServerCertificate:
    """A context for TLS 1.2 and newer that new connections take the newest certificate from.

    Args:
        certificate: PEM file of the certificate, followed by its chain.
        key: PEM file of its private key.

    Raises:
        CertificateError: they can't be used.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self.context = _new_context()
        self._seen = self._state()
        self._load_into(self.context)

    def reload(self) -> bool:
        """Read the files again; whether that worked. If not, the old certificate stays."""
        self._seen = self._state()
        try:
            # A pair that doesn't fit would leave the context with half of each.
            self._load_into(_new_context())
            self._load_into(self.context)
        except CertificateError as error:
            logger.error("the old certificate stays: %s", error)
            return False
        logger.info("read the certificate %s", self._certificate)
        return True

    def reload_if_changed(self) -> None:
        """Read the files again if they are others than last time."""
        if self._state() != self._seen:
            self.reload()

    def _load_into(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self._certificate, self._key, password=_no_password)
        except (OSError, ValueError) as error:
            raise CertificateError(
                f"can't use the certificate {self._certificate} with the key {self._key}: {error}"
            ) from error

    def _state(self) -> list[tuple[int, int, int] | None]:
        return [_state_of(path) for path in (self._certificate, self._key)]


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _no_password() -> str:
    """Without this, OpenSSL would ask on the terminal."""
    raise ValueError("the key is encrypted; give one that is not, in a file only we can read")


def _state_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
