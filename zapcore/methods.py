"""METHODS: one row per RPC (protocol.md section 4).

A row and its two messages are all there is to an RPC: the client's methods, the server's dispatch,
the gateway's routes, the documents and the command line are derived from here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, Protocol, Self, TypeVar, overload

from zapcore import messages as m
from zapcore.codec import Message
from zapcore.errors import DecodeError

OPCODE_PING = 60
OPCODE_RPC_VERSION = 61
OPCODE_START = 62
OPCODE_STOP = 63

Request_co = TypeVar("Request_co", bound=Message, covariant=True)
Response_co = TypeVar("Response_co", bound=Message, covariant=True)
Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


@dataclass(frozen=True, eq=False)
class Method(Generic[Request_co, Response_co]):
    """One RPC.

    On a class whose instances can carry calls (a :class:`Caller`) a row is the RPC's method:
    ``await client.pause_node(name="node1")``.
    """

    name: str
    opcode: int
    sub_opcode: int | None
    request: type[Request_co]
    response: type[Response_co]
    summary: str
    streaming: bool = False
    read_only: bool = False
    provisional: bool = False
    attribute: str = field(default="", init=False)

    def __set_name__(self, owner: type, name: str) -> None:
        object.__setattr__(self, "attribute", name)

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Caller, owner: type) -> BoundMethod[Request_co, Response_co]: ...
    def __get__(
        self, instance: Caller | None, owner: type
    ) -> Self | BoundMethod[Request_co, Response_co]:
        return self if instance is None else BoundMethod(self, instance)

    def __str__(self) -> str:
        return self.name

    @cached_property
    def _prefix(self) -> bytes:
        return b"" if self.sub_opcode is None else bytes((self.sub_opcode,))

    @cached_property
    def _default_request(self) -> bytes:
        return self._prefix + self.request().encode()

    def encode_request(self, request: Message | None = None) -> bytes:
        """The request as a ZAP message's body: the sub-opcode, if the RPC has one, goes first.

        None stands for a request with nothing but defaults.
        """
        if request is None:
            return self._default_request
        return self._prefix + request.encode()


@dataclass(frozen=True, eq=False)
class StreamingMethod(Method[Request_co, Response_co]):
    """An RPC with many answers: ``async for status in client.stream_status(...)``."""

    streaming: bool = True

    @overload  # type: ignore[override]
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Caller, owner: type) -> BoundStream[Request_co, Response_co]: ...
    def __get__(
        self, instance: Caller | None, owner: type
    ) -> Self | BoundStream[Request_co, Response_co]:
        return self if instance is None else BoundStream(self, instance)


class Caller(Protocol):
    """What can carry calls: a connection, a pool, or a client over either."""

    def call(
        self,
        method: Method[Request, Response],
        request: Message | None = None,
        *,
        timeout: float | None = None,
    ) -> Coroutine[None, None, Response]:
        """Call once and decode the answer; ``timeout`` in seconds."""

    def stream(
        self, method: Method[Request, Response], request: Message | None = None
    ) -> AsyncIterator[Response]:
        """Call and decode answer after answer."""


class BoundMethod(Generic[Request_co, Response_co]):
    """An RPC of one caller. Takes a request message, or its fields by name."""

    __slots__ = ("_caller", "method")

    def __init__(self, method: Method[Request_co, Response_co], caller: Caller) -> None:
        self.method = method
        self._caller = caller

    def __call__(
        self,
        request: Message | None = None,
        *,
        timeout: float | None = None,
        **fields: object,
    ) -> Coroutine[None, None, Response_co]:
        """The server's answer; see :meth:`Caller.call` for what can go wrong."""
        if fields and request is None:
            request = self.method.request(**fields)
        return self._caller.call(self.method, request, timeout=timeout)


class BoundStream(Generic[Request_co, Response_co]):
    """A streaming RPC of one caller."""

    __slots__ = ("_caller", "method")

    def __init__(self, method: Method[Request_co, Response_co], caller: Caller) -> None:
        self.method = method
        self._caller = caller

    def __call__(
        self, request: Message | None = None, **fields: object
    ) -> AsyncIterator[Response_co]:
        """The server's answers, until it ends the stream or the iterator is closed."""
        if fields and request is None:
            request = self.method.request(**fields)
        return self._caller.stream(self.method, request)


class Rpcs:
    """The rows, as attributes named as the RPC's Python method."""

    ping = Method(
        "Ping",
        OPCODE_PING,
        None,
        m.PingRequest,
        m.PingResponse,
        "Is the netrunner server there?",
        read_only=True,
    )
    rpc_version = Method(
        "RPCVersion",
        OPCODE_RPC_VERSION,
        None,
        m.RPCVersionRequest,
        m.RPCVersionResponse,
        "The version of the RPC interface",
        read_only=True,
    )
    start = Method(
        "Start",
        OPCODE_START,
        0,
        m.StartRequest,
        m.StartResponse,
        "Start a cluster",
        provisional=True,
    )
    health = Method(
        "Health",
        OPCODE_START,
        1,
        m.HealthRequest,
        m.HealthResponse,
        "Check the cluster's health",
        read_only=True,
    )
    wait_for_healthy = Method(
        "WaitForHealthy",
        OPCODE_START,
        2,
        m.WaitForHealthyRequest,
        m.WaitForHealthyResponse,
        "Wait until the cluster is healthy",
        read_only=True,
    )
    uris = Method(
        "URIs",
        OPCODE_START,
        3,
        m.URIsRequest,
        m.URIsResponse,
        "The addresses of the nodes' own APIs",
        read_only=True,
    )
    status = Method(
        "Status",
        OPCODE_START,
        4,
        m.StatusRequest,
        m.StatusResponse,
        "The cluster's state",
        read_only=True,
    )
    stream_status = StreamingMethod(
        "StreamStatus",
        OPCODE_START,
        5,
        m.StreamStatusRequest,
        m.StreamStatusResponse,
        "The cluster's state, again and again",
        read_only=True,
        provisional=True,
    )
    create_blockchains = Method(
        "CreateBlockchains",
        OPCODE_START,
        10,
        m.CreateBlockchainsRequest,
        m.CreateBlockchainsResponse,
        "Create blockchains",
        provisional=True,
    )
    create_chains = Method(
        "CreateChains",
        OPCODE_START,
        11,
        m.CreateChainsRequest,
        m.CreateChainsResponse,
        "Create validator sets",
        provisional=True,
    )
    transform_elastic_chains = Method(
        "TransformElasticChains",
        OPCODE_START,
        12,
        m.TransformElasticChainsRequest,
        m.TransformElasticChainsResponse,
        "Turn validator sets into elastic ones",
        provisional=True,
    )
    add_permissionless_validator = Method(
        "AddPermissionlessValidator",
        OPCODE_START,
        13,
        m.AddPermissionlessValidatorRequest,
        m.AddPermissionlessValidatorResponse,
        "Add validators to elastic validator sets",
        provisional=True,
    )
    remove_chain_validator = Method(
        "RemoveChainValidator",
        OPCODE_START,
        14,
        m.RemoveChainValidatorRequest,
        m.RemoveChainValidatorResponse,
        "Remove validators from validator sets",
        provisional=True,
    )
    add_node = Method(
        "AddNode",
        OPCODE_START,
        20,
        m.AddNodeRequest,
        m.AddNodeResponse,
        "Add a node",
    )
    remove_node = Method(
        "RemoveNode",
        OPCODE_START,
        21,
        m.RemoveNodeRequest,
        m.RemoveNodeResponse,
        "Remove a node",
    )
    restart_node = Method(
        "RestartNode",
        OPCODE_START,
        22,
        m.RestartNodeRequest,
        m.RestartNodeResponse,
        "Restart a node",
    )
    pause_node = Method(
        "PauseNode",
        OPCODE_START,
        23,
        m.PauseNodeRequest,
        m.PauseNodeResponse,
        "Pause a node",
    )
    resume_node = Method(
        "ResumeNode",
        OPCODE_START,
        24,
        m.ResumeNodeRequest,
        m.ResumeNodeResponse,
        "Resume a paused node",
    )
    attach_peer = Method(
        "AttachPeer",
        OPCODE_START,
        30,
        m.AttachPeerRequest,
        m.AttachPeerResponse,
        "Attach a test peer to a node",
    )
    send_outbound_message = Method(
        "SendOutboundMessage",
        OPCODE_START,
        31,
        m.SendOutboundMessageRequest,
        m.SendOutboundMessageResponse,
        "Send a network message to a node in a test peer's name",
    )
    save_snapshot = Method(
        "SaveSnapshot",
        OPCODE_START,
        40,
        m.SaveSnapshotRequest,
        m.SaveSnapshotResponse,
        "Save a snapshot and stop the cluster",
        provisional=True,
    )
    save_hot_snapshot = Method(
        "SaveHotSnapshot",
        OPCODE_START,
        41,
        m.SaveHotSnapshotRequest,
        m.SaveHotSnapshotResponse,
        "Save a snapshot while the cluster runs on",
        provisional=True,
    )
    load_snapshot = Method(
        "LoadSnapshot",
        OPCODE_START,
        42,
        m.LoadSnapshotRequest,
        m.LoadSnapshotResponse,
        "Start a cluster from a snapshot",
        provisional=True,
    )
    remove_snapshot = Method(
        "RemoveSnapshot",
        OPCODE_START,
        43,
        m.RemoveSnapshotRequest,
        m.RemoveSnapshotResponse,
        "Remove a snapshot",
        provisional=True,
    )
    get_snapshot_names = Method(
        "GetSnapshotNames",
        OPCODE_START,
        44,
        m.GetSnapshotNamesRequest,
        m.GetSnapshotNamesResponse,
        "The names of the snapshots",
        read_only=True,
        provisional=True,
    )
    stop = Method(
        "Stop",
        OPCODE_STOP,
        None,
        m.StopRequest,
        m.StopResponse,
        "Stop the cluster",
    )


METHODS: dict[str, Method[Message, Message]] = {
    row.name: row for row in vars(Rpcs).values() if isinstance(row, Method)
}

_BY_OPCODE = {(row.opcode, row.sub_opcode): row for row in METHODS.values()}
_WITH_SUB_OPCODE = {row.opcode for row in METHODS.values() if row.sub_opcode is not None}


class UnknownMethod(DecodeError):
    """A request names an opcode or sub-opcode that no row has."""


def parse_request(opcode: int, body: bytes) -> tuple[Method[Message, Message], bytes]:
    """The row that a request asks for, and the rest of its body.

    Raises:
        UnknownMethod: no row has that opcode or sub-opcode; the text is the reference's own.
    """
    sub_opcode: int | None = None
    if opcode in _WITH_SUB_OPCODE:
        if not body:
            raise UnknownMethod("zapwire: missing sub-opcode byte")
        sub_opcode, body = body[0], body[1:]
    row = _BY_OPCODE.get((opcode, sub_opcode))
    if row is None:
        raise UnknownMethod(unknown_method_text(opcode, sub_opcode))
    return row, body


def unknown_method_text(opcode: int, sub_opcode: int | None) -> str:
    """The reference's error text for what it does not implement."""
    if sub_opcode is None:
        return f"zapwire: unknown opcode 0x{opcode:02x}"
    return f"zapwire: unknown SubOp 0x{sub_opcode:02x} for OpStart"
