"""Z-Wing v1: a post-quantum secure channel with mutual authentication (protocol.md section 7)."""

from zapcore.zwing import xwing
from zapcore.zwing.handshake import Expected, Initiator, Responder, Trust
from zapcore.zwing.identity import Identity, PublicIdentity
from zapcore.zwing.keyfile import KnownServers
from zapcore.zwing.records import Session

__all__ = [
    "Expected",
    "Identity",
    "Initiator",
    "KnownServers",
    "PublicIdentity",
    "Responder",
    "Session",
    "Trust",
    "xwing",
]
