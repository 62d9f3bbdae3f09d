"""Tickets: short-lived leave to open one kind of thing, for clients that can't send headers.

A browser's EventSource sends no Authorization header. A ticket goes into the URL instead; it is
worth nothing after a minute and opens streams only, so a URL in a proxy's log gives nothing away.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Iterable

from gateway.auth import Token

LIFETIME = 60
"""Seconds in which a ticket opens a stream. A stream that is open stays open."""

KEY_SIZE = 32

_PURPOSE = b"zap-gateway stream ticket v1"
_MAX_SIZE = 256
_EXPIRY = re.compile(r"[1-9][0-9]{0,15}")


def new_key() -> bytes:
    """A fresh key. All workers of one gateway share theirs."""
    return secrets.token_bytes(KEY_SIZE)


class Tickets:
    """Makes tickets, and knows its own again without keeping them.

    A ticket is `expiry.mac.name`: when it ends (seconds since 1970), an HMAC-SHA256 over that, the
    token's name and its digest, and the name. A token that is taken away takes its tickets along.

    Args:
        key: 32 secret bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def issue(self, token: Token) -> str:
        """A ticket that stands for a token for :data:`LIFETIME` seconds."""
        expiry = int(time.time()) + LIFETIME
        return f"{expiry}.{self._mac(expiry, token)}.{token.name}"

    def redeem(self, ticket: str, tokens: Iterable[Token]) -> Token | None:
        """The token that a ticket stands for; None where it is forged, expired or another's."""
        expiry, _, rest = ticket[:_MAX_SIZE].partition(".")
        mac, _, name = rest.partition(".")
        if _EXPIRY.fullmatch(expiry) is None or not mac.isascii():
            return None
        if not 0 <= int(expiry) - time.time() <= LIFETIME:
            return None
        named = (token for token in tokens if token.name == name)
        token = next(named, None)
        if token is None or not hmac.compare_digest(mac, self._mac(int(expiry), token)):
            return None
        return token

    def _mac(self, expiry: int, token: Token) -> str:
        parts = (_PURPOSE, str(expiry).encode(), token.name.encode(), token.digest)
        return hmac.digest(self._key, b"\0".join(parts), "sha256").hex()
