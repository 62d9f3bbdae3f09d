"""The addresses of netrunner's old HTTP API, made from METHODS."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.routes.table import operation_id
from zapcore.codec import Message
from zapcore.methods import METHODS, Method, Rpcs

TIMEOUT_HEADER = "Grpc-Timeout"

_BELOW = "/v1/control/"
_PING = "/v1/ping"


@dataclass(frozen=True, slots=True)
class OldRoute:
    """One address of the old API.

    ``also`` tells fields of the answer, as they are called in JSON, that are told once more under
    their older names.
    """

    path: str
    method: Method[Message, Message]
    name: str
    also: dict[str, str] = field(default_factory=dict)


def _route(method: Method[Message, Message], name: str = "", **also: str) -> OldRoute:
    name = name or _capitalized(operation_id(method))
    path = _PING if method is Rpcs.ping else _BELOW + name.lower()
    return OldRoute(path, method, name, also)


def _capitalized(name: str) -> str:
    return name[0].upper() + name[1:]


OLD_ROUTES = (
    *(_route(method) for method in METHODS.values()),
    # What they were called before validator sets were called chains.
    _route(Rpcs.create_chains, "CreateSubnets", chainIds="subnetIds"),
    _route(Rpcs.transform_elastic_chains, "TransformElasticSubnets"),
    _route(Rpcs.remove_chain_validator, "RemoveSubnetValidator"),
)
OLD_STREAM_PATHS = frozenset(route.path for route in OLD_ROUTES if route.method.streaming)
OLD_READ_PATHS = frozenset(route.path for route in OLD_ROUTES if route.method.read_only)
"""Where POST changes nothing."""


def is_old(verb: str, path: str) -> bool:
    """Whether a request is for the old API, known to it or not."""
    if path == _PING:
        return verb == "POST"
    return path.startswith(_BELOW) or path == _BELOW.rstrip("/")
