"""What a netrunner's cluster must look like after each request: a model, for both APIs at once."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

Step = Generator[None, Any, None]
"""What a request does: raises Refused, or yields for the answer and then takes effect."""


class Refused(Exception):
    """The server refuses a request; the text is the code that the gateway has for that."""


@dataclass
class Cluster:
    """A cluster that runs, or was saved."""

    paused: dict[str, bool]
    """By node."""
    peers: dict[str, list[str]] = field(default_factory=dict)
    """By node."""
    members: dict[str, set[str]] = field(default_factory=dict)
    """Of each validator set."""
    elastic: set[str] = field(default_factory=set)
    blockchains: set[str] = field(default_factory=set)


class World:
    """A method per RPC, with the fields of its request; what is in lists is as in JSON."""

    def __init__(self) -> None:
        self.cluster: Cluster | None = None
        self.snapshots: dict[str, Cluster] = {}

    @property
    def running(self) -> Cluster:
        if self.cluster is None:
            raise Refused("not_bootstrapped")
        return self.cluster

    def _has(self, name: str) -> Cluster:
        if name not in self.running.paused:
            raise Refused("not_found")
        return self.running

    def _knows(self, chains: Iterable[str]) -> Cluster:
        if any(chain not in self.running.members for chain in chains):
            raise Refused("not_found")
        return self.running

    # The cluster.

    def start(self, **fields: Any) -> Step:
        if self.cluster is not None:
            raise Refused("already_exists")
        yield
        self.cluster = Cluster({f"node{n + 1}": False for n in range(fields["num_nodes"])})

    def stop(self) -> Step:
        yield
        self.cluster = None

    def status(self) -> Step:
        cluster = self.running
        answer = yield
        self._agrees(cluster, answer["clusterInfo"])

    health = wait_for_healthy = status

    def uris(self) -> Step:
        cluster = self.running
        answer = yield
        assert len(answer["uris"]) == len(cluster.paused)

    @staticmethod
    def _agrees(cluster: Cluster, told: Any) -> None:
        nodes = told["nodeInfos"]
        assert told["nodeNames"] == sorted(cluster.paused)
        assert {name: node["paused"] for name, node in nodes.items()} == cluster.paused
        assert told["subnets"] == sorted(cluster.members)
        assert set(told["customChains"]) == cluster.blockchains

    # Nodes and peers.

    def add_node(self, name: str, **_: Any) -> Step:
        if name in self.running.paused:
            raise Refused("already_exists")
        answer = yield
        self.running.paused[name] = False
        self._agrees(self.running, answer["clusterInfo"])

    def remove_node(self, name: str) -> Step:
        cluster = self._has(name)
        answer = yield
        del cluster.paused[name]
        cluster.peers.pop(name, None)
        for members in cluster.members.values():
            members.discard(name)
        self._agrees(cluster, answer["clusterInfo"])

    def pause_node(self, name: str) -> Step:
        cluster = self._has(name)
        if cluster.paused[name]:
            raise Refused("already_exists")
        answer = yield
        cluster.paused[name] = True
        cluster.peers.pop(name, None)
        self._agrees(cluster, answer["clusterInfo"])

    def resume_node(self, name: str) -> Step:
        cluster = self._has(name)
        if not cluster.paused[name]:
            raise Refused("upstream_error")
        answer = yield
        cluster.paused[name] = False
        self._agrees(cluster, answer["clusterInfo"])

    def restart_node(self, name: str) -> Step:
        cluster = self._has(name)
        answer = yield
        cluster.paused[name] = False
        self._agrees(cluster, answer["clusterInfo"])

    def attach_peer(self, node_name: str) -> Step:
        cluster = self._has(node_name)
        if cluster.paused[node_name]:
            raise Refused("upstream_error")
        answer = yield
        cluster.peers.setdefault(node_name, []).append(answer["attachedPeerInfo"]["id"])

    def send_outbound_message(self, node_name: str, peer_id: str) -> Step:
        if peer_id not in self._has(node_name).peers.get(node_name, ()):
            raise Refused("not_found")
        answer = yield
        assert answer["sent"] is True

    # Chains and validators. Each request has one specification.

    def create_chains(self, chain_specs: Any) -> Step:
        (spec,), cluster = chain_specs, self.running
        if not set(spec["participants"]) <= set(cluster.paused):
            raise Refused("upstream_error")
        answer = yield
        (chain,) = answer["chainIds"]
        cluster.members[chain] = set(spec["participants"] or cluster.paused)

    def create_blockchains(self, blockchain_specs: Any) -> Step:
        (spec,), cluster = blockchain_specs, self.running
        if (chain := spec["chainId"]) is not None:
            self._knows([chain])
        answer = yield
        cluster.blockchains.update(answer["chainIds"])
        if chain is None:
            (made,) = set(answer["clusterInfo"]["subnets"]) - set(cluster.members)
            cluster.members[made] = set(cluster.paused)
        self._agrees(cluster, answer["clusterInfo"])

    def transform_elastic_chains(self, elastic_chain_spec: Any) -> Step:
        chain = elastic_chain_spec[0]["chainId"]
        if chain in self._knows([chain]).elastic:
            raise Refused("already_exists")
        yield
        self.running.elastic.add(chain)

    def add_permissionless_validator(self, validator_spec: Any) -> Step:
        chain, node = validator_spec[0]["chainId"], validator_spec[0]["nodeName"]
        cluster = self._knows([chain])
        if node not in cluster.paused or chain not in cluster.elastic:
            raise Refused("upstream_error")
        yield
        cluster.members[chain].add(node)

    def remove_chain_validator(self, validator_spec: Any) -> Step:
        chain, nodes = validator_spec[0]["chainId"], validator_spec[0]["nodeNames"]
        members = self._knows([chain]).members[chain]
        if not members >= set(nodes):
            raise Refused("upstream_error")
        yield
        members.difference_update(nodes)

    # Snapshots.

    def save_hot_snapshot(self, snapshot_name: str) -> Step:
        cluster = self.running
        if snapshot_name in self.snapshots:
            raise Refused("already_exists")
        yield
        self.snapshots[snapshot_name] = copy.deepcopy(cluster)

    def save_snapshot(self, snapshot_name: str) -> Step:
        yield from self.save_hot_snapshot(snapshot_name)
        self.cluster = None

    def load_snapshot(self, snapshot_name: str) -> Step:
        if self.cluster is not None:
            raise Refused("already_exists")
        if snapshot_name not in self.snapshots:
            raise Refused("not_found")
        answer = yield
        self.cluster = copy.deepcopy(self.snapshots[snapshot_name])
        self.cluster.peers.clear()
        self._agrees(self.cluster, answer["clusterInfo"])

    def remove_snapshot(self, snapshot_name: str) -> Step:
        if snapshot_name not in (self.running and self.snapshots):
            raise Refused("not_found")
        yield
        del self.snapshots[snapshot_name]

    def get_snapshot_names(self) -> Step:
        names = self.running and sorted(self.snapshots)
        answer = yield
        assert answer["snapshotNames"] == names
