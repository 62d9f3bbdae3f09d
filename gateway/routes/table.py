"""The REST table: where each RPC lives. All else about a route comes from METHODS."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from zapcore.codec import Message
from zapcore.methods import METHODS, Method


@dataclass(frozen=True, slots=True)
class Place:
    """Where an RPC lives.

    ``path_fields`` names the request's field that a path parameter fills, where their names
    differ. ``timeout`` is a default for the call in seconds, and lets the user give another.
    """

    verb: str
    path: str
    tag: str
    path_fields: dict[str, str] = field(default_factory=dict)
    timeout: float | None = None

    @property
    def parameters(self) -> dict[str, str]:
        """The request's field by path parameter."""
        names = re.findall(r"{(\w+)}", self.path)
        return {name: self.path_fields.get(name, name) for name in names}


CLUSTER, NODES, PEERS, CHAINS, SNAPSHOTS, SERVER, GATEWAY, COMPATIBILITY = (
    "cluster",
    "nodes",
    "peers",
    "chains",
    "snapshots",
    "server",
    "gateway",
    "compatibility",
)

TAGS = {
    CLUSTER: "The cluster as a whole: start, stop, health, state.",
    NODES: "The nodes of the cluster.",
    PEERS: "Test peers attached to nodes.",
    CHAINS: "Blockchains, validator sets and validators.",
    SNAPSHOTS: "Saved states of the cluster.",
    SERVER: "The netrunner server.",
    GATEWAY: "This gateway.",
    COMPATIBILITY: (
        "netrunner's old HTTP API, for scripts that use it. New ones are better off with the other"
        " routes: here whatever the server refuses is 500, and what is misspelt is ignored."
    ),
}

_OF_NODE = {"name": "node_name"}
_OF_SNAPSHOT = {"name": "snapshot_name"}

PLACES: dict[str, Place] = {
    "Ping": Place("GET", "/v1/ping", SERVER),
    "RPCVersion": Place("GET", "/v1/version", SERVER),
    "Start": Place("POST", "/v1/cluster", CLUSTER),
    "Stop": Place("DELETE", "/v1/cluster", CLUSTER),
    "Health": Place("GET", "/v1/health", CLUSTER),
    "WaitForHealthy": Place("GET", "/v1/health/wait", CLUSTER, timeout=120.0),
    "URIs": Place("GET", "/v1/uris", CLUSTER),
    "Status": Place("GET", "/v1/status", CLUSTER),
    "StreamStatus": Place("GET", "/v1/status/stream", CLUSTER),
    "AddNode": Place("POST", "/v1/nodes", NODES),
    "RemoveNode": Place("DELETE", "/v1/nodes/{name}", NODES),
    "RestartNode": Place("POST", "/v1/nodes/{name}/restart", NODES),
    "PauseNode": Place("POST", "/v1/nodes/{name}/pause", NODES),
    "ResumeNode": Place("POST", "/v1/nodes/{name}/resume", NODES),
    "AttachPeer": Place("POST", "/v1/nodes/{name}/peers", PEERS, _OF_NODE),
    "SendOutboundMessage": Place(
        "POST",
        "/v1/nodes/{name}/peers/{peerId}/messages",
        PEERS,
        {"name": "node_name", "peerId": "peer_id"},
    ),
    "CreateBlockchains": Place("POST", "/v1/blockchains", CHAINS),
    "CreateChains": Place("POST", "/v1/chains", CHAINS),
    "TransformElasticChains": Place("POST", "/v1/chains/elastic", CHAINS),
    "AddPermissionlessValidator": Place("POST", "/v1/validators", CHAINS),
    "RemoveChainValidator": Place("POST", "/v1/validators/remove", CHAINS),
    "SaveSnapshot": Place("POST", "/v1/snapshots", SNAPSHOTS),
    "SaveHotSnapshot": Place("POST", "/v1/snapshots/hot", SNAPSHOTS),
    "LoadSnapshot": Place("POST", "/v1/snapshots/{name}/load", SNAPSHOTS, _OF_SNAPSHOT),
    "RemoveSnapshot": Place("DELETE", "/v1/snapshots/{name}", SNAPSHOTS, _OF_SNAPSHOT),
    "GetSnapshotNames": Place("GET", "/v1/snapshots", SNAPSHOTS),
}


def operation_id(method: Method[Message, Message]) -> str:
    """The RPC's name in camelCase."""
    first, *rest = method.attribute.split("_")
    return first + "".join(word.capitalize() for word in rest)


def place_of(method: Method[Message, Message]) -> Place:
    """An RPC's place; one that the table does not know yet lives under /v1/rpc."""
    known = PLACES.get(method.name)
    if known is not None:
        return known
    verb = "GET" if method.read_only else "POST"
    return Place(verb, f"/v1/rpc/{method.attribute.replace('_', '-')}", SERVER)


def placed() -> list[tuple[Method[Message, Message], Place]]:
    """Every RPC with its place."""
    return [(method, place_of(method)) for method in METHODS.values()]
