"""SimulatedNetrunner: a cluster that exists only in memory, with the manners of a real one.

What it does and says follows the reference: its error texts, what needs a running cluster, that a
plain snapshot stops the cluster. Nodes take a moment to become healthy.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import operator
import os
import time
from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass, field, fields, replace

from zapcore import messages as m
from zapcore.errors import AlreadyExists, NotBootstrapped, NotFound, RemoteError
from zapcore.server import Backend

DEFAULT_NODES = 5
MAX_NODES = 1000
RPC_VERSION = 1
HEALTH_DELAY = 1.0
"""Seconds that a node takes to become healthy."""

_NETWORK_ID = 1337
_FIRST_PORT = 9650
_SHORTEST_INTERVAL = 0.01
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def _identifier(*words: object) -> str:
    """A stable id that looks like the real ones: base 58 of a digest."""
    digest = hashlib.sha256("/".join(map(str, words)).encode("utf-8", "replace")).digest()
    number, text = int.from_bytes(digest, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = _BASE58[digit] + text
    return text


@dataclass(slots=True)
class _Cluster:
    """What a snapshot saves."""

    root_data_dir: str
    nodes: dict[str, m.NodeInfo] = field(default_factory=dict)
    ready_at: dict[str, float] = field(default_factory=dict)
    chains: dict[str, m.ChainInfo] = field(default_factory=dict)
    validators: dict[str, set[str]] = field(default_factory=dict)
    elastic: set[str] = field(default_factory=set)
    peers: dict[str, list[str]] = field(default_factory=dict)
    exec_path: str = "/usr/local/bin/luxd"
    plugin_dir: str = ""
    nodes_made: int = 0
    serial: int = 0

    def next_serial(self) -> int:
        """A number that no id of this cluster was made from."""
        self.serial += 1
        return self.serial


class SimulatedNetrunner(Backend):
    """A backend for NetrunnerServer.

    Args:
        nodes: size of the cluster that runs from the start; 0 for none (`not bootstrapped`).
        health_delay: seconds that a node takes to become healthy.
    """

    def __init__(self, nodes: int = DEFAULT_NODES, health_delay: float = HEALTH_DELAY) -> None:
        self._health_delay = health_delay
        self._cluster: _Cluster | None = None
        self._stopped: m.ClusterInfo | None = None
        self._snapshots: dict[str, _Cluster] = {}
        self._starts = 0
        self._pid = os.getpid()
        self._changed = asyncio.Event()
        if nodes:
            request = m.StartRequest(num_nodes=nodes)
            self._bootstrap(request, _names_of(request))

    # The cluster as a whole.

    async def ping(self, request: m.PingRequest) -> m.PingResponse:
        """The process that simulates."""
        del request
        return m.PingResponse(self._pid)

    async def rpc_version(self, request: m.RPCVersionRequest) -> m.RPCVersionResponse:
        """The interface's version."""
        del request
        return m.RPCVersionResponse(RPC_VERSION)

    async def start(self, request: m.StartRequest) -> m.StartResponse:
        """Start a cluster, once."""
        if self._cluster is not None:
            raise AlreadyExists("already bootstrapped")
        if any(spec.chain_id is not None for spec in request.blockchain_specs):
            raise RemoteError("blockchain chain id must be nil if starting a new empty network")
        names = _names_of(request)
        self._check_blockchains(request.blockchain_specs)
        for spec in request.blockchain_specs:
            if spec.chain_spec is not None:
                self._check_participants(names, spec.chain_spec.participants)
        cluster = self._bootstrap(request, names)
        chain_ids = self._make_blockchains(cluster, request.blockchain_specs)
        return m.StartResponse(self._info(cluster), chain_ids)

    def _bootstrap(self, request: m.StartRequest, names: list[str]) -> _Cluster:
        self._starts += 1
        base = request.root_data_dir or "/tmp/netrunner"  # noqa: S108 - a name, nothing is written
        cluster = _Cluster(f"{base}/network_{self._starts}", plugin_dir=request.plugin_dir)
        cluster.exec_path = request.exec_path or cluster.exec_path
        for name in names:
            config = request.custom_node_configs.get(name) or request.global_node_config or ""
            node = self._make_node(cluster, name, config)
            node.whitelisted_subnets = request.whitelisted_chains or ""
        self._cluster = cluster
        self._touch()
        return cluster

    async def stop(self, request: m.StopRequest) -> m.StopResponse:
        """Stop the cluster, if there is one."""
        del request
        self._shut_down()
        return m.StopResponse(self._stopped)

    def _shut_down(self) -> None:
        if self._cluster is not None:
            self._stopped = replace(self._info(self._cluster), healthy=False)
            self._cluster = None
            self._touch()

    async def health(self, request: m.HealthRequest) -> m.HealthResponse:
        """The state right now."""
        del request
        return m.HealthResponse(self._info(self._running()))

    async def wait_for_healthy(self, request: m.WaitForHealthyRequest) -> m.WaitForHealthyResponse:
        """The state, once all is healthy."""
        del request
        while not self._healthy(cluster := self._running()):
            wait = max(cluster.ready_at.values()) - time.monotonic()
            try:
                async with asyncio.timeout(max(wait, 0.001)):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return m.WaitForHealthyResponse(self._info(self._running()))

    async def uris(self, request: m.URIsRequest) -> m.URIsResponse:
        """Where the nodes are."""
        del request
        return m.URIsResponse(sorted(node.uri for node in self._running().nodes.values()))

    async def status(self, request: m.StatusRequest) -> m.StatusResponse:
        """The state right now."""
        del request
        return m.StatusResponse(self._info(self._running()))

    async def stream_status(
        self, request: m.StreamStatusRequest
    ) -> AsyncIterator[m.StreamStatusResponse]:
        """The state at once, then once per interval; also of a cluster that was stopped."""
        if request.push_interval <= 0:
            raise RemoteError("push interval must be positive")
        interval = max(request.push_interval / 1e9, _SHORTEST_INTERVAL)
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            info = self._stopped if self._cluster is None else self._info(self._cluster)
            yield m.StreamStatusResponse(info)
            due = max(due + interval, loop.time())
            await asyncio.sleep(due - loop.time())

    # Nodes.

    async def add_node(self, request: m.AddNodeRequest) -> m.AddNodeResponse:
        """One more node."""
        cluster = self._running()
        if not request.name:
            raise RemoteError("invalid node name")
        if request.name in cluster.nodes:
            raise AlreadyExists("node already exists")
        if len(cluster.nodes) >= MAX_NODES:
            raise RemoteError(f"too many nodes for a simulation: at most {MAX_NODES}")
        node = self._make_node(cluster, request.name, _json_text(request.node_config or ""))
        node.exec_path = request.exec_path or node.exec_path
        node.plugin_dir = request.plugin_dir or node.plugin_dir
        return m.AddNodeResponse(self._told(cluster))

    async def remove_node(self, request: m.RemoveNodeRequest) -> m.RemoveNodeResponse:
        """One node less."""
        cluster = self._running()
        self._node(cluster, request.name)
        del cluster.nodes[request.name]
        cluster.ready_at.pop(request.name)
        cluster.peers.pop(request.name, None)
        for members in cluster.validators.values():
            members.discard(request.name)
        return m.RemoveNodeResponse(self._told(cluster))

    async def restart_node(self, request: m.RestartNodeRequest) -> m.RestartNodeResponse:
        """Stop a node and start it, with what the request changes. A paused node runs again."""
        cluster = self._running()
        node = self._node(cluster, request.name)
        node.exec_path = request.exec_path or node.exec_path
        node.plugin_dir = request.plugin_dir or node.plugin_dir
        if request.whitelisted_chains is not None:
            node.whitelisted_subnets = request.whitelisted_chains
        node.paused = False
        self._boot(cluster, request.name)
        return m.RestartNodeResponse(self._told(cluster))

    async def pause_node(self, request: m.PauseNodeRequest) -> m.PauseNodeResponse:
        """Pause a running node."""
        cluster = self._running()
        node = self._node(cluster, request.name)
        if node.paused:
            raise AlreadyExists("node has been paused already")
        node.paused = True
        cluster.peers.pop(request.name, None)
        return m.PauseNodeResponse(self._told(cluster))

    async def resume_node(self, request: m.ResumeNodeRequest) -> m.ResumeNodeResponse:
        """Let a paused node run."""
        cluster = self._running()
        node = self._node(cluster, request.name)
        if not node.paused:
            raise RemoteError("node has not been paused")
        node.paused = False
        self._boot(cluster, request.name)
        return m.ResumeNodeResponse(self._told(cluster))

    # Peers.

    async def attach_peer(self, request: m.AttachPeerRequest) -> m.AttachPeerResponse:
        """A test peer at a running node."""
        cluster = self._running()
        if self._node(cluster, request.node_name).paused:
            raise RemoteError("node is paused")
        peer_id = f"NodeID-{_identifier('peer', request.node_name, cluster.next_serial())}"
        cluster.peers.setdefault(request.node_name, []).append(peer_id)
        return m.AttachPeerResponse(self._info(cluster), m.AttachedPeerInfo(peer_id))

    async def send_outbound_message(
        self, request: m.SendOutboundMessageRequest
    ) -> m.SendOutboundMessageResponse:
        """Sent, if the peer is there."""
        cluster = self._running()
        self._node(cluster, request.node_name)
        if request.peer_id not in cluster.peers.get(request.node_name, ()):
            raise NotFound("peer not found")
        return m.SendOutboundMessageResponse(True)

    # Chains and validators.

    async def create_blockchains(
        self, request: m.CreateBlockchainsRequest
    ) -> m.CreateBlockchainsResponse:
        """Blockchains, each on a given validator set or a new one."""
        cluster = self._running()
        if not request.blockchain_specs:
            raise RemoteError("no blockchain spec was provided")
        self._check_blockchains(request.blockchain_specs)
        for spec in request.blockchain_specs:
            if spec.chain_id is not None:
                self._validator_set(cluster, spec.chain_id)
            elif spec.chain_spec is not None:
                self._check_participants(cluster.nodes, spec.chain_spec.participants)
        chain_ids = self._make_blockchains(cluster, request.blockchain_specs)
        return m.CreateBlockchainsResponse(self._told(cluster), chain_ids)

    async def create_chains(self, request: m.CreateChainsRequest) -> m.CreateChainsResponse:
        """Validator sets."""
        cluster = self._running()
        for spec in request.chain_specs:
            self._check_participants(cluster.nodes, spec.participants)
        made = [self._make_validator_set(cluster, spec) for spec in request.chain_specs]
        self._settle(cluster)
        return m.CreateChainsResponse(self._told(cluster), made)

    async def transform_elastic_chains(
        self, request: m.TransformElasticChainsRequest
    ) -> m.TransformElasticChainsResponse:
        """Validator sets become elastic, once each."""
        cluster = self._running()
        if not request.elastic_chain_spec:
            raise RemoteError("no elastic chain spec was provided")
        chain_ids = [spec.chain_id for spec in request.elastic_chain_spec]
        for chain_id in chain_ids:
            self._validator_set(cluster, chain_id)
            if chain_id in cluster.elastic:
                raise AlreadyExists(f'chain id "{chain_id}" is elastic already')
        cluster.elastic.update(chain_ids)
        tx_ids = [_identifier("tx", chain_id, cluster.next_serial()) for chain_id in chain_ids]
        asset_ids = [_identifier("asset", tx_id) for tx_id in tx_ids]
        self._settle(cluster)
        return m.TransformElasticChainsResponse(self._told(cluster), tx_ids, asset_ids)

    async def add_permissionless_validator(
        self, request: m.AddPermissionlessValidatorRequest
    ) -> m.AddPermissionlessValidatorResponse:
        """Validators for elastic validator sets."""
        cluster = self._running()
        if not request.validator_spec:
            raise RemoteError("no validator spec was provided")
        for spec in request.validator_spec:
            self._validator_set(cluster, spec.chain_id)
            self._check_participants(cluster.nodes, [spec.node_name])
            if spec.chain_id not in cluster.elastic:
                raise RemoteError(f'chain id "{spec.chain_id}" is not elastic')
        for spec in request.validator_spec:
            cluster.validators[spec.chain_id].add(spec.node_name)
        self._settle(cluster)
        return m.AddPermissionlessValidatorResponse(self._told(cluster))

    async def remove_chain_validator(
        self, request: m.RemoveChainValidatorRequest
    ) -> m.RemoveChainValidatorResponse:
        """Validators out of validator sets; all of them, or none when one is not in."""
        cluster = self._running()
        if not request.validator_spec:
            raise RemoteError("no validator spec was provided")
        for spec in request.validator_spec:
            members = self._validator_set(cluster, spec.chain_id)
            for name in spec.node_names:
                if name not in members:
                    raise RemoteError(
                        f"node {name} is currently not a validator of chain {spec.chain_id}"
                    )
        for spec in request.validator_spec:
            cluster.validators[spec.chain_id].difference_update(spec.node_names)
        self._settle(cluster)
        return m.RemoveChainValidatorResponse(self._told(cluster))

    # Snapshots.

    async def save_snapshot(self, request: m.SaveSnapshotRequest) -> m.SaveSnapshotResponse:
        """Save, and stop the cluster."""
        path = self._save(request.snapshot_name)
        self._shut_down()
        return m.SaveSnapshotResponse(path)

    async def save_hot_snapshot(
        self, request: m.SaveHotSnapshotRequest
    ) -> m.SaveHotSnapshotResponse:
        """Save, and go on."""
        return m.SaveHotSnapshotResponse(self._save(request.snapshot_name))

    def _save(self, name: str) -> str:
        cluster = self._running()
        if not name:
            raise RemoteError('invalid snapshotName ""')
        if name in self._snapshots:
            raise AlreadyExists(f'snapshot "{name}" already exists')
        self._snapshots[name] = copy.deepcopy(cluster)
        return f"/tmp/netrunner/snapshots/{name}"  # noqa: S108 - a name, nothing is written

    async def load_snapshot(self, request: m.LoadSnapshotRequest) -> m.LoadSnapshotResponse:
        """A cluster as it was saved."""
        if self._cluster is not None:
            raise AlreadyExists("already bootstrapped")
        if request.snapshot_name not in self._snapshots:
            raise NotFound("snapshot not found")
        cluster = copy.deepcopy(self._snapshots[request.snapshot_name])
        self._starts += 1
        base = request.root_data_dir or "/tmp/netrunner"  # noqa: S108
        cluster.root_data_dir = f"{base}/network_{self._starts}"
        for name, node in cluster.nodes.items():
            node.exec_path = request.exec_path or node.exec_path
            node.plugin_dir = request.plugin_dir or node.plugin_dir
            self._boot(cluster, name)
        cluster.peers.clear()
        self._cluster = cluster
        return m.LoadSnapshotResponse(self._told(cluster))

    async def remove_snapshot(self, request: m.RemoveSnapshotRequest) -> m.RemoveSnapshotResponse:
        """Forget a snapshot; needs a running cluster, as in the reference."""
        self._running()
        if self._snapshots.pop(request.snapshot_name, None) is None:
            raise NotFound("snapshot not found")
        return m.RemoveSnapshotResponse()

    async def get_snapshot_names(
        self, request: m.GetSnapshotNamesRequest
    ) -> m.GetSnapshotNamesResponse:
        """The snapshots; needs a running cluster, as in the reference."""
        del request
        self._running()
        return m.GetSnapshotNamesResponse(sorted(self._snapshots))

    # Inside.

    def _running(self) -> _Cluster:
        if self._cluster is None:
            raise NotBootstrapped("not bootstrapped")
        return self._cluster

    @staticmethod
    def _node(cluster: _Cluster, name: str) -> m.NodeInfo:
        node = cluster.nodes.get(name)
        if node is None:
            raise NotFound("node not found")
        return node

    @staticmethod
    def _validator_set(cluster: _Cluster, chain_id: str) -> set[str]:
        if not chain_id:
            raise RemoteError("chainID is missing")
        members = cluster.validators.get(chain_id)
        if members is None:
            raise NotFound(f'chain id "{chain_id}" does not exist')
        return members

    @staticmethod
    def _check_participants(nodes: Collection[str], names: Iterable[str]) -> None:
        for name in names:
            if name not in nodes:
                raise RemoteError(f"participant node {name} is not in network nodes")

    @staticmethod
    def _check_blockchains(specs: list[m.BlockchainSpec]) -> None:
        if any(not spec.vm_name for spec in specs):
            raise RemoteError("invalid VM name")

    def _make_node(self, cluster: _Cluster, name: str, config: str) -> m.NodeInfo:
        port = _FIRST_PORT + 2 * cluster.nodes_made
        cluster.nodes_made += 1
        directory = f"{cluster.root_data_dir}/{name}"
        node = cluster.nodes[name] = m.NodeInfo(
            name=name,
            exec_path=cluster.exec_path,
            uri=f"http://127.0.0.1:{port}",
            id=f"NodeID-{_identifier('node', name)}",
            log_dir=f"{directory}/logs",
            db_dir=f"{directory}/db",
            config=(config or json.dumps({"network-id": _NETWORK_ID, "http-port": port})).encode(),
            plugin_dir=cluster.plugin_dir,
        )
        self._boot(cluster, name)
        return node

    def _make_validator_set(self, cluster: _Cluster, spec: m.ChainSpec | None) -> str:
        chain_id = _identifier("chain", cluster.next_serial())
        names = spec.participants if spec else []
        cluster.validators[chain_id] = set(names or cluster.nodes)
        return chain_id

    def _make_blockchains(self, cluster: _Cluster, specs: Iterable[m.BlockchainSpec]) -> list[str]:
        made = []
        for spec in specs:
            subnet_id = spec.chain_id or self._make_validator_set(cluster, spec.chain_spec)
            chain_id = _identifier("blockchain", cluster.next_serial())
            cluster.chains[chain_id] = m.ChainInfo(
                chain_name=spec.blockchain_alias or spec.vm_name,
                vm_id=_identifier("vm", spec.vm_name),
                vm_name=spec.vm_name,
                chain_id=chain_id,
                subnet_id=subnet_id,
                genesis=spec.genesis.encode(),
            )
            made.append(chain_id)
        self._settle(cluster)
        return made

    def _boot(self, cluster: _Cluster, name: str) -> None:
        cluster.ready_at[name] = time.monotonic() + self._health_delay

    def _settle(self, cluster: _Cluster) -> None:
        """A change to the chains takes every node a moment."""
        for name, node in cluster.nodes.items():
            if not node.paused:
                self._boot(cluster, name)

    def _healthy(self, cluster: _Cluster) -> bool:
        now = time.monotonic()
        return all(
            node.paused or cluster.ready_at[name] <= now for name, node in cluster.nodes.items()
        )

    def _touch(self) -> None:
        """Wake whoever waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _told(self, cluster: _Cluster) -> m.ClusterInfo:
        self._touch()
        return self._info(cluster)

    def _info(self, cluster: _Cluster) -> m.ClusterInfo:
        return m.ClusterInfo(
            node_names=sorted(cluster.nodes),
            node_infos={name: _copy(node) for name, node in cluster.nodes.items()},
            pid=self._pid,
            root_data_dir=cluster.root_data_dir,
            healthy=self._healthy(cluster),
            custom_chains=dict(cluster.chains),
            subnets=sorted(cluster.validators),
            network_id=_NETWORK_ID,
        )


_values = operator.attrgetter(*(each.name for each in fields(m.NodeInfo)))


def _copy(node: m.NodeInfo) -> m.NodeInfo:
    """As replace(node), in half the time: whoever looks often copies every node each time."""
    return m.NodeInfo(*_values(node))


def _names_of(request: m.StartRequest) -> list[str]:
    """The nodes to start. Configurations of nodes win over their number, as in the reference."""
    count = DEFAULT_NODES if request.num_nodes is None else request.num_nodes
    count = len(request.custom_node_configs) or count
    if count < 1:
        raise RemoteError("not enough nodes specified for start")
    if count > MAX_NODES:
        raise RemoteError(f"too many nodes for a simulation: at most {MAX_NODES}")
    return list(request.custom_node_configs) or [f"node{number + 1}" for number in range(count)]


def _json_text(config: str) -> str:
    """A node's configuration must be JSON, as in the reference."""
    if config:
        try:
            json.loads(config)
        except ValueError as error:
            raise RemoteError(f"node config is not JSON: {error}") from error
    return config
