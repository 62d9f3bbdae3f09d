"""What the Go server's scripted backend has and answers, told a second time."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from zapcore import messages as m
from zapcore.codec import Message
from zapcore.framing import MAX_BODY_SIZE
from zapcore.methods import METHODS, Method, Rpcs

VERIFIED = [method for method in METHODS.values() if not method.provisional]
"""What the reference implements."""

PROVISIONAL = [method for method in METHODS.values() if method.provisional]

NODES = ["node1", "node2", "node3", "node4", "node5"]
URIS = [f"http://127.0.0.1:{port}" for port in (9630, 9632, 9634, 9636, 9638)]
NOT_UTF_8 = b"\x00\xff\xfe"
UNICODE = "nœud-é-节点-🚀"
"""Sorts behind the script's own nodes."""

CHAIN = m.ChainInfo(
    chain_name="C-Test",
    vm_id="vm-1",
    vm_name="subnetevm",
    chain_id="chain-1",
    subnet_id="subnet-1",
    genesis='{"x":"ü"}'.encode() + b"\x80",
)


def node(name: str, number: int) -> m.NodeInfo:
    """A node as it is at the start."""
    return m.NodeInfo(
        name=name,
        exec_path="/opt/luxd/luxd",
        uri=f"http://127.0.0.1:{9630 + 2 * (number - 1)}",
        id=f"NodeID-{name}",
        log_dir=f"/var/lib/netrunner/{name}/logs",
        db_dir=f"/var/lib/netrunner/{name}/db",
        config=f'{{"node":"{name}"}}'.encode() + NOT_UTF_8,
        plugin_dir="/opt/luxd/plugins",
        whitelisted_subnets="subnet-1,subnet-2",
        paused=False,
    )


def cluster(pid: int, **changed: m.NodeInfo | None) -> m.ClusterInfo:
    """The cluster.

    Args:
        pid: of the Go process.
        changed: nodes that are not as at the start; None for one that is gone.
    """
    nodes = {name: node(name, number) for number, name in enumerate(NODES, 1)}
    infos = {name: info for name, info in {**nodes, **changed}.items() if info is not None}
    return m.ClusterInfo(
        node_names=sorted(infos),
        node_infos=infos,
        pid=pid,
        root_data_dir="/var/lib/netrunner",
        healthy=not any(info.paused for info in infos.values()),
        custom_chains={CHAIN.chain_id: CHAIN},
        subnets=["subnet-1", "subnet-2"],
        network_id=1337,
    )


@dataclass(frozen=True)
class Case:
    """A call, and its answer by a server whose process has the id that is given."""

    method: Method[Message, Message]
    request: Message
    answer: Callable[[int], Message]
    title: str = ""

    def __str__(self) -> str:
        return f"{self.method}-{self.title}" if self.title else str(self.method)


def _changed(
    method: Method[Message, Message], request: Message, title: str = "", **nodes: m.NodeInfo | None
) -> Case:
    """A call that is answered with the cluster, some nodes of which are changed by it."""
    return Case(method, request, lambda pid: method.response(cluster(pid, **nodes)), title)


def _told(method: Method[Message, Message]) -> Case:
    """A call that asks nothing, and is answered with the cluster."""
    return _changed(method, method.request())


_MAPS: dict[str, Any] = {
    "chain_configs": {"C": '{"pruning":false}', "节点": UNICODE, "": "empty key"},
    "upgrade_configs": {"P": ""},
    "chain_config_files": {"2bRCr6B4": "/etc/a.json", "X": "/etc/b.json"},
}


def _added(request: m.AddNodeRequest) -> m.NodeInfo:
    return replace(
        node(request.name, 6),
        exec_path=request.exec_path,
        config=(request.node_config or "").encode(),
        plugin_dir=request.plugin_dir,
    )


def _adding(title: str, **fields: Any) -> Case:
    request = m.AddNodeRequest(**fields)
    return _changed(Rpcs.add_node, request, title, **{request.name: _added(request)})


def _restarting(title: str, after: m.NodeInfo, **fields: Any) -> Case:
    return _changed(
        Rpcs.restart_node, m.RestartNodeRequest(name="node2", **fields), title, node2=after
    )


_NODE2 = node("node2", 2)


def _attaching(name: str, title: str, peer: str | None, *, with_cluster: bool) -> Case:
    def answer(pid: int) -> Message:
        return m.AttachPeerResponse(
            cluster(pid) if with_cluster else None,
            None if peer is None else m.AttachedPeerInfo(peer),
        )

    return Case(Rpcs.attach_peer, m.AttachPeerRequest(name), answer, title)


def _sending(title: str, sent: bool, **fields: Any) -> Case:
    request = m.SendOutboundMessageRequest(**fields)
    answer = m.SendOutboundMessageResponse(sent)
    return Case(Rpcs.send_outbound_message, request, lambda _: answer, title)


CASES = [
    Case(Rpcs.ping, m.PingRequest(), m.PingResponse),
    Case(Rpcs.rpc_version, m.RPCVersionRequest(), lambda _: m.RPCVersionResponse(1)),
    Case(Rpcs.uris, m.URIsRequest(), lambda _: m.URIsResponse(list(URIS))),
    *map(_told, (Rpcs.health, Rpcs.wait_for_healthy, Rpcs.status, Rpcs.stop)),
    _adding("nothing but a name", name="node6"),
    _adding("an empty configuration is one", name="node6", node_config=""),
    _adding(
        "everything",
        name=UNICODE,
        exec_path=f"/opt/{UNICODE}",
        node_config=f'{{"x":"{UNICODE}"}}',
        plugin_dir="/opt/other",
        **_MAPS,
    ),
    _changed(Rpcs.remove_node, m.RemoveNodeRequest("node4"), node4=None),
    _restarting("nothing but a name", replace(_NODE2, plugin_dir="")),
    _restarting(
        "empty texts are not absent ones",
        replace(_NODE2, exec_path="", whitelisted_subnets="", plugin_dir=""),
        exec_path="",
        whitelisted_chains="",
    ),
    _restarting(
        "one of two optional texts",
        replace(_NODE2, whitelisted_subnets=UNICODE, plugin_dir=""),
        whitelisted_chains=UNICODE,
    ),
    _restarting(
        "everything",
        replace(_NODE2, exec_path="/new", whitelisted_subnets="a,b", plugin_dir="/plugins"),
        exec_path="/new",
        whitelisted_chains="a,b",
        plugin_dir="/plugins",
        **_MAPS,
    ),
    _changed(
        Rpcs.pause_node, m.PauseNodeRequest("node3"), node3=replace(node("node3", 3), paused=True)
    ),
    _changed(Rpcs.resume_node, m.ResumeNodeRequest("node3"), node3=node("node3", 3)),
    _attaching("node1", "a peer", "peer-of-node1", with_cluster=True),
    _attaching("none", "neither cluster nor peer", None, with_cluster=False),
    _attaching("size:0", "an empty id", "", with_cluster=False),
    _attaching(f"sleep:0:{UNICODE}", "Unicode", UNICODE, with_cluster=False),
    _sending("to a node", True, node_name="node1", peer_id="p", op=7, bytes=NOT_UTF_8),
    _sending("nothing but a node", True, node_name="node5"),
    _sending("to nobody", False, node_name=UNICODE, peer_id="", op=2**32 - 1, bytes=b""),
]

ERRORS = {
    "an unknown node": (Rpcs.pause_node, m.PauseNodeRequest("node9"), 'node "node9" not found'),
    "an unknown node in Unicode": (
        Rpcs.remove_node,
        m.RemoveNodeRequest(UNICODE),
        f'node "{UNICODE}" not found',
    ),
    "a node that is there": (Rpcs.add_node, m.AddNodeRequest("node1"), "node already exists"),
    "a panic": (Rpcs.attach_peer, m.AttachPeerRequest("panic"), "handler panic: asked to"),
    **{
        title: (Rpcs.attach_peer, m.AttachPeerRequest(f"text:{text}"), text)
        for title, text in {
            "any text": "rpc error: code = Unknown desc = 100% of it",
            "Unicode": UNICODE,
            "no text": "",
            "many lines": "one\r\ntwo\n\tthree \x00 four ",
            "a text beyond one record": "ü" * 1_000_000,
        }.items()
    },
}
"""What is asked for, and the error text that answers it."""

SMALLEST_REQUEST = Rpcs.health
"""Its body is one byte, the sub-opcode."""

_MESSAGE = m.SendOutboundMessageRequest(node_name="node1", peer_id="p", op=1)
_LARGEST_MESSAGE = MAX_BODY_SIZE - len(Rpcs.send_outbound_message.encode_request(_MESSAGE))

LARGEST_REQUEST = replace(_MESSAGE, bytes=bytes(range(256)) * (_LARGEST_MESSAGE // 256 + 1))
LARGEST_REQUEST.bytes = LARGEST_REQUEST.bytes[:_LARGEST_MESSAGE]
"""Fills a ZAP message to the last byte."""

TOO_LARGE_REQUEST = replace(LARGEST_REQUEST, bytes=LARGEST_REQUEST.bytes + b"!")

LARGEST_ID = MAX_BODY_SIZE - len(m.AttachPeerResponse(None, m.AttachedPeerInfo("")).encode())
"""Letters of a peer's id whose answer fills a ZAP message to the last byte."""


def as_json(value: object) -> Any:
    """A message as the gateway's documents describe it, made without the gateway."""
    if isinstance(value, Message):
        fields = dataclasses.fields(value)  # type: ignore[arg-type]
        return {camel(field.name): as_json(getattr(value, field.name)) for field in fields}
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def camel(name: str) -> str:
    """A field's name in JSON."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
