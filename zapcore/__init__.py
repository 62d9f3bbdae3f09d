"""The netrunner's native protocol, ZAP, over Z-Wing: client, pool, server and a simulation.

async with connect("host:9999", identity=Identity.load("id.json"), server=pinned) as client:
    status = await client.status()
"""

from zapcore import errors, messages
from zapcore.client import NetrunnerClient, connect
from zapcore.errors import ZapError
from zapcore.methods import METHODS, Method
from zapcore.pool import ConnectionPool, PoolLimits
from zapcore.server import Backend, NetrunnerServer, ServerLimits
from zapcore.simulator import SimulatedNetrunner
from zapcore.zwing.identity import Identity, PublicIdentity
from zapcore.zwing.keyfile import KnownServers

__all__ = [
    "METHODS",
    "Backend",
    "ConnectionPool",
    "Identity",
    "KnownServers",
    "Method",
    "NetrunnerClient",
    "NetrunnerServer",
    "PoolLimits",
    "PublicIdentity",
    "ServerLimits",
    "SimulatedNetrunner",
    "ZapError",
    "connect",
    "errors",
    "messages",
]
