"""Life behind a proxy: the path it shows us under, and the client that it speaks for."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from starlette.types import Scope

_MOST_HOPS = 32
"""Proxies between a client and us that are looked at; a header may name thousands."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Seen(NamedTuple):
    """A request as the client made it."""

    path: str
    """Without the root path."""
    scheme: str
    host: str
    client: str


class Proxies:
    """Undoes what proxies do to requests.

    The root path may be there or not: some proxies strip it. The X-Forwarded headers count only on
    connections from a trusted proxy; anybody else could claim anything.

    Args:
        root_path: as in /netrunner; empty for none.
        trusted: addresses and networks.
    """

    def __init__(self, root_path: str = "", trusted: tuple[str, ...] = ()) -> None:
        self.root_path = root_path
        self._trusted: tuple[Network, ...] = tuple(map(ipaddress.ip_network, trusted))

    def look(self, scope: Scope, headers: dict[bytes, bytes]) -> Seen:
        """The request as the client made it; the scope is brought in line with that."""
        path = scope["path"]
        if self.root_path:
            path = self._without_root(scope, path)
        host = headers.get(b"host", b"").decode("latin-1")
        client = scope["client"][0] if scope["client"] else ""
        if self._trusted and self._trusts(client):
            host, client = self._forwarded(scope, headers, host, client)
        return Seen(path, scope["scheme"], host, client)

    def _without_root(self, scope: Scope, path: str) -> str:
        root = self.root_path
        if path.startswith(root + "/"):
            path = path[len(root) :]
        scope["root_path"] = root
        scope["path"] = root + path
        return path

    def _forwarded(
        self, scope: Scope, headers: dict[bytes, bytes], host: str, client: str
    ) -> tuple[str, str]:
        scheme = _last(headers, b"x-forwarded-proto").lower()
        if scheme in ("http", "https"):
            scope["scheme"] = scheme
        host = _last(headers, b"x-forwarded-host") or host
        hops = headers.get(b"x-forwarded-for", b"").decode("latin-1").rsplit(",", _MOST_HOPS)
        # Each proxy adds the address that it saw, so the last one that is no proxy is the client.
        for hop in reversed(hops[-_MOST_HOPS:]):
            address = hop.strip()
            if not _is_address(address):
                break
            client = address
            if not self._trusts(address):
                break
        return host, client

    def _trusts(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)


def _last(headers: dict[bytes, bytes], name: bytes) -> str:
    """What the nearest proxy says; others before it may have been the client itself."""
    return headers.get(name, b"").decode("latin-1").rpartition(",")[2].strip()


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
