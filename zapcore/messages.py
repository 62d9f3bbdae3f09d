"""Every message of the netrunner protocol, once (protocol.md section 5), fields in wire order.

The same classes serve the wire, the simulator and, through the gateway, the JSON. A class that is
marked provisional in ``methods`` has a layout that the reference reserves but does not write.
"""

from __future__ import annotations

from typing import Annotated

from zapcore.codec import KeyedBy, Message, i32, i64, message, octets, u32, u64, wire

# Defaults of map and list fields; `wire` gives every message a fresh one.
_NO_MAP: dict[str, str] = {}
_NO_TEXTS: list[str] = []

_CHAIN_CONFIGS = "Chain configuration (JSON text) by chain id or alias."
_CHAIN_CONFIGS_EXAMPLE = {"C": '{"pruning-enabled": false}'}
_UPGRADE_CONFIGS = "Network upgrade configuration (JSON text) by chain id or alias."
_UPGRADE_CONFIGS_EXAMPLE = {"C": '{"precompileUpgrades": []}'}
_CHAIN_CONFIG_FILES = "Configuration of the chain's validator set (JSON text) by chain id."
_CHAIN_CONFIG_FILES_EXAMPLE = {"2bRCr6B4": '{"validatorOnly": true}'}
_PLUGIN_DIR = "Directory of the VM plugins; empty for the node's own default."
_PLUGIN_DIR_EXAMPLE = "/usr/local/lib/lux/plugins"
_EXEC_PATH_EXAMPLE = "/usr/local/bin/luxd"
_CHAIN_ID_EXAMPLE = "2bRCr6B4MiEfSjidDwxDpdCyviwnfUVqB2HGwhm947w9YYqb7r"
_NODE_CONFIG_EXAMPLE = '{"log-level": "debug"}'


@message
class NodeInfo(Message):
    """One node of the cluster."""

    name: str = wire("", "The node's name, unique in the cluster.", "node1")
    exec_path: str = wire("", "Path of the node's binary.", _EXEC_PATH_EXAMPLE)
    uri: str = wire("", "Base URI of the node's own API.", "http://127.0.0.1:9650")
    id: str = wire("", "The node's id in the network.", "NodeID-7Xhw2mDxuDS44j42TCB6U5579esbSt3Lg")
    log_dir: str = wire("", "Directory of the node's logs.", "/tmp/netrunner/node1/logs")  # noqa: S108
    db_dir: str = wire("", "Directory of the node's database.", "/tmp/netrunner/node1/db")  # noqa: S108
    config: bytes = wire(b"", "The node's configuration file.", b'{"network-id":1337}')
    plugin_dir: str = wire("", _PLUGIN_DIR, _PLUGIN_DIR_EXAMPLE)
    whitelisted_subnets: str = wire("", "Chains that the node tracks, comma-separated.", "")
    paused: bool = wire(False, "Whether the node is paused.", False)


@message
class ChainInfo(Message):
    """One blockchain that was created on the cluster."""

    chain_name: str = wire("", "The chain's name.", "C")
    vm_id: str = wire("", "Id of the virtual machine that runs the chain.", "mgj786NP7uDwBCcq6YwT")
    vm_name: str = wire("", "Name of that virtual machine.", "evm")
    chain_id: str = wire("", "The chain's id.", _CHAIN_ID_EXAMPLE)
    subnet_id: str = wire("", "Id of the validator set that validates the chain.", "primary")
    genesis: bytes = wire(b"", "The chain's genesis.", b'{"chainId":96369}')


@message
class ClusterInfo(Message):
    """The state of the whole cluster."""

    node_names: list[str] = wire(_NO_TEXTS, "Names of all nodes, sorted.", ["node1", "node2"])
    node_infos: Annotated[dict[str, NodeInfo], KeyedBy("name")] = wire({}, "The nodes, by name.")
    pid: i32 = wire(0, "Process id of the netrunner server.", 4242)
    root_data_dir: str = wire("", "Directory of the cluster's data.", "/tmp/netrunner")  # noqa: S108
    healthy: bool = wire(False, "Whether every node that is not paused is healthy.", True)
    custom_chains: Annotated[dict[str, ChainInfo], KeyedBy("chain_id")] = wire(
        {}, "Blockchains created on the cluster, by chain id."
    )
    subnets: list[str] = wire(_NO_TEXTS, "Ids of the validator sets created.", [_CHAIN_ID_EXAMPLE])
    network_id: u32 = wire(0, "The network's id.", 1337)


# What several messages begin with.


@message
class ClusterAnswer(Message):
    """An answer that tells the cluster's state."""

    cluster_info: ClusterInfo | None = wire(
        None, "The cluster's state; null when the server has none to tell."
    )


@message
class NodeChoice(Message):
    """A request that is about one node."""

    name: str = wire("", "The node's name.", "node1", required=True)


@message
class NewSnapshot(Message):
    """A request that makes a snapshot."""

    snapshot_name: str = wire("", "A name that no snapshot has.", "before-upgrade", required=True)


@message
class SnapshotChoice(Message):
    """A request that is about one snapshot."""

    snapshot_name: str = wire("", "The snapshot's name.", "before-upgrade", required=True)


@message
class SavedSnapshot(Message):
    """An answer that tells where a snapshot is."""

    snapshot_path: str = wire("", "Its path on the server.", "/tmp/netrunner/snapshots/mine")  # noqa: S108


@message
class PingRequest(Message):
    """Nothing to ask."""


@message
class PingResponse(Message):
    """The server is there."""

    pid: i32 = wire(0, "Process id of the netrunner server.", 4242)


@message
class RPCVersionRequest(Message):
    """Nothing to ask."""


@message
class RPCVersionResponse(Message):
    """The version of the RPC interface that the server speaks."""

    version: u32 = wire(0, "The interface's version.", 1)


@message
class ChainSpec(Message):
    """A validator set to create."""

    participants: list[str] = wire(
        _NO_TEXTS, "Names of the nodes that validate it; empty for all.", ["node1", "node2"]
    )
    chain_config_file: str = wire("", "Its configuration (JSON text, or a path).", "")


@message
class BlockchainSpec(Message):
    """A blockchain to create."""

    vm_name: str = wire("", "Name of the virtual machine to run.", "evm", required=True)
    genesis: str = wire("", "The genesis (text, or a path on the server).", '{"chainId":96369}')
    chain_id: str | None = wire(
        None, "Validator set to create it on; absent to create one from chainSpec."
    )
    chain_spec: ChainSpec | None = wire(None, "The validator set to create for it.")
    chain_config: str = wire("", "Chain configuration (JSON text, or a path).", "")
    network_upgrade: str = wire("", "Network upgrade configuration (JSON text, or a path).", "")
    blockchain_alias: str = wire("", "Another name for the chain.", "mychain")
    per_node_chain_config: str = wire("", "Chain configuration by node (JSON text, or a path).", "")


_NO_BLOCKCHAINS: list[BlockchainSpec] = []


@message
class StartRequest(Message):
    """How to start a cluster."""

    exec_path: str = wire("", "Path of the node binary on the server.", _EXEC_PATH_EXAMPLE)
    num_nodes: u32 | None = wire(None, "How many nodes to start; absent for five.", 5)
    whitelisted_chains: str | None = wire(None, "Chains for all nodes to track, comma-separated.")
    global_node_config: str | None = wire(
        None, "Configuration for all nodes (JSON text).", _NODE_CONFIG_EXAMPLE
    )
    root_data_dir: str | None = wire(None, "Directory for the cluster's data.")
    plugin_dir: str = wire("", _PLUGIN_DIR, _PLUGIN_DIR_EXAMPLE)
    blockchain_specs: list[BlockchainSpec] = wire(
        _NO_BLOCKCHAINS, "Blockchains to create once the nodes are healthy.", []
    )
    custom_node_configs: dict[str, str] = wire(
        _NO_MAP, "Configuration (JSON text) by node name; sets how many nodes there are.", {}
    )
    chain_configs: dict[str, str] = wire(_NO_MAP, _CHAIN_CONFIGS, _CHAIN_CONFIGS_EXAMPLE)
    upgrade_configs: dict[str, str] = wire(_NO_MAP, _UPGRADE_CONFIGS, _UPGRADE_CONFIGS_EXAMPLE)
    reassign_ports_if_used: bool | None = wire(None, "Take other ports where some are in use.")
    dynamic_ports: bool | None = wire(None, "Let the system choose all ports.")
    chain_config_files: dict[str, str] = wire(
        _NO_MAP, _CHAIN_CONFIG_FILES, _CHAIN_CONFIG_FILES_EXAMPLE
    )


@message
class StartResponse(ClusterAnswer):
    """The cluster that was started."""

    chain_ids: list[str] = wire(_NO_TEXTS, "Ids of the blockchains created.", [_CHAIN_ID_EXAMPLE])


@message
class HealthRequest(Message):
    """Nothing to ask."""


@message
class HealthResponse(ClusterAnswer):
    """The cluster's state as of its last health check."""


@message
class WaitForHealthyRequest(Message):
    """Nothing to ask."""


@message
class WaitForHealthyResponse(ClusterAnswer):
    """The cluster's state, now that it is healthy."""


@message
class URIsRequest(Message):
    """Nothing to ask."""


@message
class URIsResponse(Message):
    """Where the nodes' own APIs are."""

    uris: list[str] = wire(_NO_TEXTS, "Base URIs of the nodes, sorted.", ["http://127.0.0.1:9650"])


@message
class StatusRequest(Message):
    """Nothing to ask."""


@message
class StatusResponse(ClusterAnswer):
    """The cluster's state right now."""


@message
class StreamStatusRequest(Message):
    """How often to push the state."""

    push_interval: i64 = wire(0, "Time between two answers, in nanoseconds.", 1_000_000_000)


@message
class StreamStatusResponse(ClusterAnswer):
    """The cluster's state at one moment of the stream."""


@message
class CreateBlockchainsRequest(Message):
    """Blockchains to create."""

    blockchain_specs: list[BlockchainSpec] = wire(
        _NO_BLOCKCHAINS, "At least one blockchain.", required=True
    )


@message
class CreateBlockchainsResponse(ClusterAnswer):
    """The blockchains that were created."""

    chain_ids: list[str] = wire(
        _NO_TEXTS, "Ids of the blockchains, in the request's order.", [_CHAIN_ID_EXAMPLE]
    )


_NO_CHAINS: list[ChainSpec] = []


@message
class CreateChainsRequest(Message):
    """Validator sets to create."""

    chain_specs: list[ChainSpec] = wire(_NO_CHAINS, "At least one.", required=True)


@message
class CreateChainsResponse(ClusterAnswer):
    """The validator sets that were created."""

    chain_ids: list[str] = wire(
        _NO_TEXTS, "Ids of the validator sets, in the request's order.", [_CHAIN_ID_EXAMPLE]
    )


@message
class ElasticChainSpec(Message):
    """How to turn a validator set into an elastic one, with its own staking token."""

    chain_id: str = wire("", "The validator set to transform.", _CHAIN_ID_EXAMPLE, required=True)
    asset_name: str = wire("", "Name of the staking token.", "Example Token")
    asset_symbol: str = wire("", "Symbol of the staking token.", "EXT")
    initial_supply: u64 = wire(0, "Tokens at the start.", 240_000_000)
    max_supply: u64 = wire(0, "Tokens there can ever be.", 720_000_000)
    min_consumption_rate: u64 = wire(0, "Lowest yearly reward rate, in millionths.", 100_000)
    max_consumption_rate: u64 = wire(0, "Highest yearly reward rate, in millionths.", 120_000)
    min_validator_stake: u64 = wire(0, "Least stake of a validator.", 2_000)
    max_validator_stake: u64 = wire(0, "Most stake of a validator.", 3_000_000)
    min_stake_duration: u64 = wire(0, "Shortest stake, in hours.", 336)
    max_stake_duration: u64 = wire(0, "Longest stake, in hours.", 8_760)
    min_delegation_fee: u32 = wire(0, "Least fee of a delegation, in millionths.", 20_000)
    min_delegator_stake: u64 = wire(0, "Least stake of a delegator.", 25)
    max_validator_weight_factor: u32 = wire(0, "Most weight of a validator to its own stake.", 5)
    uptime_requirement: u32 = wire(0, "Uptime that earns a reward, in millionths.", 800_000)


_NO_ELASTIC_CHAINS: list[ElasticChainSpec] = []


@message
class TransformElasticChainsRequest(Message):
    """Validator sets to make elastic."""

    elastic_chain_spec: list[ElasticChainSpec] = wire(
        _NO_ELASTIC_CHAINS, "At least one.", required=True
    )


@message
class TransformElasticChainsResponse(ClusterAnswer):
    """The transformations that were made."""

    tx_ids: list[str] = wire(_NO_TEXTS, "Ids of the transactions.", [_CHAIN_ID_EXAMPLE])
    asset_ids: list[str] = wire(_NO_TEXTS, "Ids of the new tokens.", [_CHAIN_ID_EXAMPLE])


@message
class PermissionlessValidatorSpec(Message):
    """A validator to add to an elastic validator set."""

    chain_id: str = wire("", "The elastic validator set.", _CHAIN_ID_EXAMPLE, required=True)
    node_name: str = wire("", "The node that validates.", "node1", required=True)
    staked_token_amount: u64 = wire(0, "Tokens to stake.", 2_000)
    asset_id: str = wire("", "Id of the staking token.", _CHAIN_ID_EXAMPLE)
    start_time: str = wire("", "When it starts (UTC, YYYY-MM-DD hh:mm:ss); empty for now.", "")
    stake_duration: u64 = wire(0, "How long it stakes, in hours.", 336)


_NO_VALIDATORS: list[PermissionlessValidatorSpec] = []


@message
class AddPermissionlessValidatorRequest(Message):
    """Validators to add."""

    validator_spec: list[PermissionlessValidatorSpec] = wire(
        _NO_VALIDATORS, "At least one.", required=True
    )


@message
class AddPermissionlessValidatorResponse(ClusterAnswer):
    """The cluster with its new validators."""


@message
class RemoveChainValidatorSpec(Message):
    """Validators to remove from a validator set."""

    chain_id: str = wire("", "The validator set.", _CHAIN_ID_EXAMPLE, required=True)
    node_names: list[str] = wire(
        _NO_TEXTS, "Names of the nodes to remove from it.", ["node1"], required=True
    )


_NO_REMOVALS: list[RemoveChainValidatorSpec] = []


@message
class RemoveChainValidatorRequest(Message):
    """Validators to remove."""

    validator_spec: list[RemoveChainValidatorSpec] = wire(
        _NO_REMOVALS, "At least one.", required=True
    )


@message
class RemoveChainValidatorResponse(ClusterAnswer):
    """The cluster without those validators."""


@message
class AddNodeRequest(Message):
    """A node to add to the cluster."""

    name: str = wire("", "A name that no node of the cluster has.", "node6", required=True)
    exec_path: str = wire("", "Path of its binary; empty for the cluster's.", _EXEC_PATH_EXAMPLE)
    node_config: str | None = wire(None, "Its configuration (JSON text).", _NODE_CONFIG_EXAMPLE)
    chain_configs: dict[str, str] = wire(_NO_MAP, _CHAIN_CONFIGS, _CHAIN_CONFIGS_EXAMPLE)
    upgrade_configs: dict[str, str] = wire(_NO_MAP, _UPGRADE_CONFIGS, _UPGRADE_CONFIGS_EXAMPLE)
    chain_config_files: dict[str, str] = wire(
        _NO_MAP, _CHAIN_CONFIG_FILES, _CHAIN_CONFIG_FILES_EXAMPLE
    )
    plugin_dir: str = wire("", _PLUGIN_DIR, _PLUGIN_DIR_EXAMPLE)


@message
class AddNodeResponse(ClusterAnswer):
    """The cluster with the new node."""


@message
class RemoveNodeRequest(NodeChoice):
    """Which node to remove."""


@message
class RemoveNodeResponse(ClusterAnswer):
    """The cluster without the node."""


@message
class RestartNodeRequest(NodeChoice):
    """Which node to restart, and what to change about it."""

    exec_path: str | None = wire(None, "Another binary to run; absent to keep it.")
    whitelisted_chains: str | None = wire(None, "Chains to track; absent to keep them.")
    chain_configs: dict[str, str] = wire(_NO_MAP, _CHAIN_CONFIGS, _CHAIN_CONFIGS_EXAMPLE)
    upgrade_configs: dict[str, str] = wire(_NO_MAP, _UPGRADE_CONFIGS, _UPGRADE_CONFIGS_EXAMPLE)
    chain_config_files: dict[str, str] = wire(
        _NO_MAP, _CHAIN_CONFIG_FILES, _CHAIN_CONFIG_FILES_EXAMPLE
    )
    plugin_dir: str = wire("", _PLUGIN_DIR, _PLUGIN_DIR_EXAMPLE)


@message
class RestartNodeResponse(ClusterAnswer):
    """The cluster with the node restarted."""


@message
class PauseNodeRequest(NodeChoice):
    """Which node to pause."""


@message
class PauseNodeResponse(ClusterAnswer):
    """The cluster with the node paused."""


@message
class ResumeNodeRequest(NodeChoice):
    """Which node to resume."""


@message
class ResumeNodeResponse(ClusterAnswer):
    """The cluster with the node running again."""


@message
class StopRequest(Message):
    """Nothing to ask."""


@message
class StopResponse(ClusterAnswer):
    """The cluster as it was left."""


@message
class AttachPeerRequest(Message):
    """Which node to attach a test peer to."""

    node_name: str = wire("", "The node's name.", "node1", required=True)


@message
class AttachedPeerInfo(Message):
    """A test peer that is attached to a node."""

    id: str = wire("", "The peer's id.", "NodeID-MFrZFVCXPv5iCn6M9K6XduxGTYp891xXZ")


@message
class AttachPeerResponse(ClusterAnswer):
    """The peer that was attached."""

    attached_peer_info: AttachedPeerInfo | None = wire(None, "The new peer.")


@message
class SendOutboundMessageRequest(Message):
    """A network message to send to a node in a test peer's name."""

    node_name: str = wire("", "The node that the peer is attached to.", "node1", required=True)
    peer_id: str = wire("", "The peer's id.", "NodeID-MFrZFVCXPv5iCn6M9K6XduxGTYp891xXZ")
    op: u32 = wire(0, "The network message's operation code.", 16)
    bytes: octets = wire(b"", "The network message.", b"\x00\x00\x00\x10")


@message
class SendOutboundMessageResponse(Message):
    """Whether the message left."""

    sent: bool = wire(False, "Whether the message was sent.", True)


@message
class SaveSnapshotRequest(NewSnapshot):
    """What to call the snapshot."""


@message
class SaveSnapshotResponse(SavedSnapshot):
    """The snapshot that was saved."""


@message
class SaveHotSnapshotRequest(NewSnapshot):
    """What to call the snapshot."""


@message
class SaveHotSnapshotResponse(SavedSnapshot):
    """The snapshot that was saved."""


@message
class LoadSnapshotRequest(SnapshotChoice):
    """Which snapshot to start a cluster from, and how."""

    exec_path: str | None = wire(None, "Path of the node binary; absent for the saved one.")
    plugin_dir: str = wire("", _PLUGIN_DIR, _PLUGIN_DIR_EXAMPLE)
    root_data_dir: str | None = wire(None, "Directory for the cluster's data.")
    chain_configs: dict[str, str] = wire(_NO_MAP, _CHAIN_CONFIGS, _CHAIN_CONFIGS_EXAMPLE)
    upgrade_configs: dict[str, str] = wire(_NO_MAP, _UPGRADE_CONFIGS, _UPGRADE_CONFIGS_EXAMPLE)
    global_node_config: str | None = wire(
        None, "Configuration for all nodes (JSON text).", _NODE_CONFIG_EXAMPLE
    )
    reassign_ports_if_used: bool | None = wire(None, "Take other ports where some are in use.")
    chain_config_files: dict[str, str] = wire(
        _NO_MAP, _CHAIN_CONFIG_FILES, _CHAIN_CONFIG_FILES_EXAMPLE
    )


@message
class LoadSnapshotResponse(ClusterAnswer):
    """The cluster that was started from the snapshot."""


@message
class RemoveSnapshotRequest(SnapshotChoice):
    """Which snapshot to remove."""


@message
class RemoveSnapshotResponse(Message):
    """The snapshot is gone."""


@message
class GetSnapshotNamesRequest(Message):
    """Nothing to ask."""


@message
class GetSnapshotNamesResponse(Message):
    """The snapshots there are."""

    snapshot_names: list[str] = wire(_NO_TEXTS, "Their names, sorted.", ["before-upgrade"])
