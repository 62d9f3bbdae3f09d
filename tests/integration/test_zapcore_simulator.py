"""Every RPC against the simulated netrunner, through a real connection."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.integration.zap_helpers import eventually, identity_of, serving, soon
from zapcore import METHODS, NetrunnerClient, SimulatedNetrunner, connect, messages
from zapcore.codec import Message
from zapcore.errors import AlreadyExists, NotBootstrapped, NotFound, RemoteError
from zapcore.simulator import MAX_NODES

FIVE = ["node1", "node2", "node3", "node4", "node5"]
NANO = 10**9

AT_ONCE = 0.0
"""Nodes are healthy when they start."""
NEVER = 3600.0
"""Nodes are not healthy before the test is over."""


@asynccontextmanager
async def netrunner(
    nodes: int = 5, health_delay: float = AT_ONCE
) -> AsyncIterator[NetrunnerClient]:
    """A client of a fresh simulation."""
    async with serving(SimulatedNetrunner(nodes, health_delay)) as server:
        pin = server.identity.public
        async with connect(server.address, identity=identity_of("client"), server=pin) as client:
            yield client


def cluster(response: Message) -> messages.ClusterInfo:
    """The cluster in a response, which must have one."""
    info = response.cluster_info
    assert isinstance(info, messages.ClusterInfo)
    return info


async def status(client: NetrunnerClient) -> messages.ClusterInfo:
    return cluster(await soon(client.status()))


async def made(client: NetrunnerClient, *participants: str) -> str:
    """A validator set."""
    spec = messages.ChainSpec(list(participants))
    (chain_id,) = (await soon(client.create_chains(chain_specs=[spec]))).chain_ids
    return chain_id


# The server and the cluster as a whole.


def test_a_simulation_can_be_made_outside_an_event_loop() -> None:
    netrunner = SimulatedNetrunner()

    async def ask() -> messages.WaitForHealthyResponse:
        return await netrunner.wait_for_healthy(messages.WaitForHealthyRequest())

    assert cluster(asyncio.run(ask())).healthy
    assert cluster(asyncio.run(ask())).healthy, "and used in a second event loop"


async def test_ping_tells_the_process() -> None:
    async with netrunner() as client:
        pid = (await soon(client.ping())).pid
        assert pid > 0
        assert (await status(client)).pid == pid


async def test_the_rpc_version_is_one() -> None:
    async with netrunner(0) as client:
        assert (await soon(client.rpc_version())).version == 1


async def test_a_simulation_has_five_nodes() -> None:
    async with netrunner() as client:
        info = await status(client)
        assert info.node_names == FIVE
        assert sorted(info.node_infos) == FIVE
        for name, node in info.node_infos.items():
            assert node.name == name
            assert node.id.startswith("NodeID-")
            assert node.log_dir.startswith(info.root_data_dir)
            assert b"network-id" in node.config
            assert not node.paused
        assert len({node.id for node in info.node_infos.values()}) == 5
        assert info.network_id == 1337


async def test_uris_are_those_of_the_nodes() -> None:
    async with netrunner() as client:
        uris = (await soon(client.uris())).uris
        infos = (await status(client)).node_infos
        assert uris == sorted(node.uri for node in infos.values())
        assert len(set(uris)) == 5


async def test_nodes_become_healthy_after_a_moment() -> None:
    async with netrunner(health_delay=0.3) as client:
        before = cluster(await soon(client.health()))
        after = cluster(await soon(client.wait_for_healthy()))
        assert (before.healthy, after.healthy) == (False, True)
        assert cluster(await soon(client.health())).healthy
        assert (await status(client)).healthy


async def test_waiting_for_health_takes_as_long_as_that_takes() -> None:
    async with netrunner(health_delay=NEVER) as client:
        waiting = asyncio.create_task(client.wait_for_healthy())
        assert not (await status(client)).healthy
        assert not waiting.done()
        for name in FIVE:  # a paused node is not waited for
            assert not waiting.done()
            await soon(client.pause_node(name=name))
        assert cluster(await soon(waiting)).healthy


async def test_waiting_for_health_ends_with_the_cluster() -> None:
    async with netrunner(health_delay=NEVER) as client:
        waiting = asyncio.create_task(client.wait_for_healthy())
        await status(client)
        await soon(client.stop())
        with pytest.raises(NotBootstrapped):
            await soon(waiting)


async def test_start_starts_what_it_is_told() -> None:
    async with netrunner(0) as client:
        response = await soon(
            client.start(
                exec_path="/bin/node",
                num_nodes=3,
                whitelisted_chains="a,b",
                global_node_config='{"x": 1}',
                root_data_dir="/data",
                plugin_dir="/plugins",
                blockchain_specs=[messages.BlockchainSpec("evm", "{}", blockchain_alias="mine")],
            )
        )
        info = cluster(response)
        assert info.node_names == ["node1", "node2", "node3"]
        assert info.root_data_dir.startswith("/data/")
        node = info.node_infos["node1"]
        assert (node.exec_path, node.plugin_dir) == ("/bin/node", "/plugins")
        assert (node.config, node.whitelisted_subnets) == (b'{"x": 1}', "a,b")
        (chain_id,) = response.chain_ids
        assert info.custom_chains[chain_id].chain_name == "mine"
        assert await status(client) == info


async def test_start_makes_five_nodes_where_it_is_not_told() -> None:
    async with netrunner(0) as client:
        assert cluster(await soon(client.start())).node_names == FIVE


async def test_start_takes_names_and_configurations_of_nodes() -> None:
    configs = {"alpha": '{"a": 1}', "beta": ""}
    async with netrunner(0) as client:
        request = messages.StartRequest(
            num_nodes=9, custom_node_configs=configs, global_node_config='{"g": 1}'
        )
        infos = cluster(await soon(client.start(request))).node_infos
        assert {name: node.config for name, node in infos.items()} == {
            "alpha": b'{"a": 1}',
            "beta": b'{"g": 1}',
        }


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"num_nodes": 0}, "not enough nodes specified for start"),
        ({"num_nodes": MAX_NODES + 1}, f"at most {MAX_NODES}"),
        ({"num_nodes": 2**32 - 1}, f"at most {MAX_NODES}"),
        ({"blockchain_specs": [messages.BlockchainSpec("")]}, "invalid VM name"),
        (
            {"blockchain_specs": [messages.BlockchainSpec("evm", chain_id="x")]},
            "blockchain chain id must be nil",
        ),
        (
            {
                "blockchain_specs": [
                    messages.BlockchainSpec("evm", chain_spec=messages.ChainSpec(["nobody"]))
                ]
            },
            "participant node nobody is not in network nodes",
        ),
    ],
)
async def test_a_start_that_can_not_be_leaves_no_cluster(
    fields: dict[str, object], text: str
) -> None:
    async with netrunner(0) as client:
        with pytest.raises(RemoteError, match=text):
            await soon(client.start(**fields))
        with pytest.raises(NotBootstrapped):
            await soon(client.status())


async def test_a_cluster_is_started_once() -> None:
    async with netrunner() as client:
        with pytest.raises(AlreadyExists, match=r"^already bootstrapped$"):
            await soon(client.start())
        with pytest.raises(AlreadyExists, match=r"^already bootstrapped$"):
            await soon(client.load_snapshot(snapshot_name="x"))


async def test_stop_tells_the_last_state_and_a_new_start_begins_anew() -> None:
    async with netrunner() as client:
        await soon(client.add_node(name="extra"))
        before = await status(client)
        stopped = cluster(await soon(client.stop()))
        assert stopped.node_names == [*sorted(["extra", *FIVE])]
        assert not stopped.healthy
        started = cluster(await soon(client.start()))
        assert started.node_names == FIVE
        assert started.root_data_dir != before.root_data_dir


async def test_stop_without_a_cluster_is_no_error() -> None:
    async with netrunner(0) as client:
        assert (await soon(client.stop())).cluster_info is None
        assert (await soon(client.ping())).pid > 0


NEEDS_A_CLUSTER = sorted(set(METHODS) - {"Ping", "RPCVersion", "Start", "Stop", "StreamStatus"})


@pytest.mark.parametrize("name", NEEDS_A_CLUSTER)
@pytest.mark.parametrize("before", ["start", "restart"])
async def test_without_a_cluster_an_rpc_says_not_bootstrapped(name: str, before: str) -> None:
    async with netrunner(0 if before == "start" else 5) as client:
        if before == "restart":
            await soon(client.stop())
        if name == "LoadSnapshot":  # what it needs is that there is none
            with pytest.raises(NotFound, match=r"^snapshot not found$"):
                await soon(client.call(METHODS[name]))
            return
        with pytest.raises(NotBootstrapped, match=r"^not bootstrapped$"):
            await soon(client.call(METHODS[name]))


# The stream.


def push(interval: float) -> messages.StreamStatusRequest:
    return messages.StreamStatusRequest(push_interval=int(interval * NANO))


async def test_the_status_is_pushed_at_once_and_then_per_interval() -> None:
    async with netrunner() as client:
        stream = client.stream_status(push(0.02))
        for _ in range(5):
            assert cluster(await soon(anext(stream))).node_names == FIVE
        await stream.aclose()
        rare = client.stream_status(push(3600))
        assert cluster(await soon(anext(rare))).node_names == FIVE
        following = asyncio.create_task(anext(rare))
        await status(client)
        assert not following.done()
        following.cancel()
        await asyncio.wait([following])
        await rare.aclose()


async def test_a_stream_shows_changes_and_the_end_of_the_cluster() -> None:
    async with netrunner() as client:
        stream = client.stream_status(push(0.01))
        assert not cluster(await soon(anext(stream))).node_infos["node1"].paused
        await soon(client.pause_node(name="node1"))
        while not cluster(await soon(anext(stream))).node_infos["node1"].paused:
            pass
        await soon(client.stop())
        while cluster(await soon(anext(stream))).healthy:
            pass
        await soon(client.start(num_nodes=1))
        while cluster(await soon(anext(stream))).node_names != ["node1"]:
            pass
        await stream.aclose()


async def test_a_stream_before_the_first_start_tells_of_no_cluster() -> None:
    async with netrunner(0) as client:
        stream = client.stream_status(push(0.01))
        assert (await soon(anext(stream))).cluster_info is None
        await soon(client.start())
        while (await soon(anext(stream))).cluster_info is None:
            pass
        await stream.aclose()


@pytest.mark.parametrize("interval", [0, -1, -(2**63)])
async def test_a_stream_needs_a_positive_interval(interval: int) -> None:
    async with netrunner() as client:
        with pytest.raises(RemoteError, match="push interval must be positive"):
            await soon(anext(client.stream_status(push_interval=interval)))


@pytest.mark.parametrize("interval", [1, 2**63 - 1])
async def test_a_stream_takes_extreme_intervals(interval: int) -> None:
    async with netrunner() as client:
        stream = client.stream_status(push_interval=interval)
        assert cluster(await soon(anext(stream))).node_names == FIVE
        await stream.aclose()
        assert (await status(client)).node_names == FIVE


# Nodes.


async def test_add_node_adds_a_node() -> None:
    async with netrunner() as client:
        request = messages.AddNodeRequest(
            name="node6", exec_path="/x", node_config='{"a": 1}', plugin_dir="/p"
        )
        info = cluster(await soon(client.add_node(request)))
        assert info.node_names == [*FIVE, "node6"]
        node = info.node_infos["node6"]
        assert (node.exec_path, node.config, node.plugin_dir) == ("/x", b'{"a": 1}', "/p")
        assert await status(client) == info
        assert len(set((await soon(client.uris())).uris)) == 6


async def test_a_new_node_takes_a_moment_to_be_healthy() -> None:
    async with netrunner(health_delay=0.05) as client:
        await soon(client.wait_for_healthy())
        assert not cluster(await soon(client.add_node(name="late"))).healthy
        assert cluster(await soon(client.wait_for_healthy())).healthy


@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        ({"name": "node1"}, AlreadyExists, "^node already exists$"),
        ({"name": ""}, RemoteError, "^invalid node name$"),
        ({"name": "x", "node_config": "{"}, RemoteError, "^node config is not JSON"),
    ],
)
async def test_a_node_that_can_not_be_added_is_not(
    fields: dict[str, str], kind: type[RemoteError], text: str
) -> None:
    async with netrunner() as client:
        with pytest.raises(kind, match=text):
            await soon(client.add_node(**fields))
        assert (await status(client)).node_names == FIVE


async def test_a_simulation_is_bounded() -> None:
    async with netrunner(MAX_NODES) as client:
        with pytest.raises(RemoteError, match=f"at most {MAX_NODES}"):
            await soon(client.add_node(name="one more"))


async def test_remove_node_removes_a_node_and_its_name_can_be_used_again() -> None:
    async with netrunner() as client:
        info = cluster(await soon(client.remove_node(name="node3")))
        assert info.node_names == ["node1", "node2", "node4", "node5"]
        assert len((await soon(client.uris())).uris) == 4
        info = cluster(await soon(client.add_node(name="node3")))
        assert info.node_names == FIVE
        assert len({node.uri for node in info.node_infos.values()}) == 5


async def test_pause_and_resume_change_the_node() -> None:
    async with netrunner() as client:
        paused = cluster(await soon(client.pause_node(name="node2")))
        assert [name for name, node in paused.node_infos.items() if node.paused] == ["node2"]
        with pytest.raises(AlreadyExists, match=r"^node has been paused already$"):
            await soon(client.pause_node(name="node2"))
        assert (await status(client)).node_infos["node2"].paused
        resumed = cluster(await soon(client.resume_node(name="node2")))
        assert not resumed.node_infos["node2"].paused
        with pytest.raises(RemoteError, match=r"^node has not been paused$"):
            await soon(client.resume_node(name="node2"))


async def test_restart_node_changes_what_it_is_told_and_keeps_the_rest() -> None:
    async with netrunner() as client:
        before = (await status(client)).node_infos["node1"]
        await soon(client.pause_node(name="node1"))
        request = messages.RestartNodeRequest("node1", exec_path="/new", whitelisted_chains="c")
        node = cluster(await soon(client.restart_node(request))).node_infos["node1"]
        assert (node.exec_path, node.whitelisted_subnets, node.paused) == ("/new", "c", False)
        assert (node.uri, node.id) == (before.uri, before.id)
        node = cluster(await soon(client.restart_node(name="node1"))).node_infos["node1"]
        assert (node.exec_path, node.whitelisted_subnets) == ("/new", "c")


async def test_a_restarted_node_takes_a_moment_to_be_healthy() -> None:
    async with netrunner(health_delay=0.05) as client:
        await soon(client.wait_for_healthy())
        assert not cluster(await soon(client.restart_node(name="node1"))).healthy
        assert cluster(await soon(client.wait_for_healthy())).healthy


NODE_RPCS = ["RemoveNode", "RestartNode", "PauseNode", "ResumeNode", "AttachPeer"]


@pytest.mark.parametrize("name", [*NODE_RPCS, "SendOutboundMessage"])
async def test_a_node_that_is_not_there_is_not_found(name: str) -> None:
    field = "name" if name.endswith("Node") else "node_name"
    async with netrunner() as client:
        with pytest.raises(NotFound, match=r"^node not found$"):
            await soon(client.call(METHODS[name], METHODS[name].request(**{field: "nobody"})))


# Peers.


async def test_a_message_goes_out_in_an_attached_peers_name() -> None:
    async with netrunner() as client:
        attached = (await soon(client.attach_peer(node_name="node1"))).attached_peer_info
        assert attached.id.startswith("NodeID-")
        another = (await soon(client.attach_peer(node_name="node1"))).attached_peer_info
        assert another.id != attached.id
        request = messages.SendOutboundMessageRequest("node1", attached.id, 16, b"\x00\x01")
        assert (await soon(client.send_outbound_message(request))).sent


async def test_a_peer_belongs_to_one_node_and_leaves_when_that_is_paused() -> None:
    async with netrunner() as client:
        peer = (await soon(client.attach_peer(node_name="node1"))).attached_peer_info.id
        with pytest.raises(NotFound, match=r"^peer not found$"):
            await soon(client.send_outbound_message(node_name="node2", peer_id=peer))
        await soon(client.pause_node(name="node1"))
        with pytest.raises(RemoteError, match=r"^node is paused$"):
            await soon(client.attach_peer(node_name="node1"))
        await soon(client.resume_node(name="node1"))
        with pytest.raises(NotFound, match=r"^peer not found$"):
            await soon(client.send_outbound_message(node_name="node1", peer_id=peer))


# Chains and validators.


async def test_create_blockchains_makes_blockchains_and_their_validator_sets() -> None:
    async with netrunner() as client:
        existing = await made(client)
        specs = [
            messages.BlockchainSpec("evm", "genesis 1", blockchain_alias="one"),
            messages.BlockchainSpec("evm", "genesis 2", chain_spec=messages.ChainSpec(["node1"])),
            messages.BlockchainSpec("other", "genesis 3", chain_id=existing),
        ]
        response = await soon(client.create_blockchains(blockchain_specs=specs))
        info = cluster(response)
        chains = [info.custom_chains[chain_id] for chain_id in response.chain_ids]
        assert [chain.chain_name for chain in chains] == ["one", "evm", "other"]
        assert [chain.vm_name for chain in chains] == ["evm", "evm", "other"]
        assert [chain.genesis for chain in chains] == [b"genesis 1", b"genesis 2", b"genesis 3"]
        assert chains[2].subnet_id == existing
        assert len(set(response.chain_ids)) == 3
        assert info.subnets == sorted({chain.subnet_id for chain in chains})
        assert len(info.subnets) == 3


@pytest.mark.parametrize(
    ("specs", "text"),
    [
        ([], "^no blockchain spec was provided$"),
        ([messages.BlockchainSpec("")], "^invalid VM name$"),
        ([messages.BlockchainSpec("evm", chain_id="x")], '^chain id "x" does not exist$'),
        ([messages.BlockchainSpec("evm", chain_id="")], "^chainID is missing$"),
        (
            [messages.BlockchainSpec("evm", chain_spec=messages.ChainSpec(["nobody"]))],
            "^participant node nobody is not in network nodes$",
        ),
    ],
)
async def test_blockchains_that_can_not_be_are_not_made(
    specs: list[messages.BlockchainSpec], text: str
) -> None:
    """Not the good ones before them either."""
    good = [messages.BlockchainSpec("evm")] if specs else []
    async with netrunner() as client:
        with pytest.raises(RemoteError, match=text):
            await soon(client.create_blockchains(blockchain_specs=good + specs))
        info = await status(client)
        assert (info.custom_chains, info.subnets) == ({}, [])


async def test_create_chains_makes_validator_sets() -> None:
    async with netrunner() as client:
        specs = [messages.ChainSpec(["node1", "node2"]), messages.ChainSpec()]
        response = await soon(client.create_chains(chain_specs=specs))
        assert cluster(response).subnets == sorted(response.chain_ids)
        assert len(set(response.chain_ids)) == 2
        with pytest.raises(RemoteError, match="participant node nobody is not in network nodes"):
            await made(client, "nobody")


async def test_a_change_to_the_chains_takes_the_nodes_a_moment() -> None:
    async with netrunner(health_delay=0.05) as client:
        await soon(client.wait_for_healthy())
        assert not cluster(await soon(client.create_chains())).healthy
        assert cluster(await soon(client.wait_for_healthy())).healthy


async def test_a_validator_set_becomes_elastic_once_and_takes_validators() -> None:
    async with netrunner() as client:
        chain_id = await made(client, "node1")
        validator = messages.PermissionlessValidatorSpec(chain_id, "node2")
        with pytest.raises(RemoteError, match=f'^chain id "{chain_id}" is not elastic$'):
            await soon(client.add_permissionless_validator(validator_spec=[validator]))
        elastic = [messages.ElasticChainSpec(chain_id, "Token", "TOK")]
        response = await soon(client.transform_elastic_chains(elastic_chain_spec=elastic))
        assert len(response.tx_ids) == len(response.asset_ids) == 1
        assert cluster(response).subnets == [chain_id]
        with pytest.raises(AlreadyExists, match="is elastic already"):
            await soon(client.transform_elastic_chains(elastic_chain_spec=elastic))
        added = await soon(client.add_permissionless_validator(validator_spec=[validator]))
        assert cluster(added).node_names == FIVE
        removal = [messages.RemoveChainValidatorSpec(chain_id, ["node1", "node2"])]
        await soon(client.remove_chain_validator(validator_spec=removal))


async def test_validators_are_removed_all_or_none() -> None:
    async with netrunner() as client:
        chain_id = await made(client, "node1", "node2")

        async def remove(*names: str) -> None:
            removal = messages.RemoveChainValidatorSpec(chain_id, list(names))
            response = await soon(client.remove_chain_validator(validator_spec=[removal]))
            assert cluster(response).subnets == [chain_id]

        text = f"^node node3 is currently not a validator of chain {chain_id}$"
        with pytest.raises(RemoteError, match=text):
            await remove("node1", "node3")
        await remove("node1")
        with pytest.raises(RemoteError, match="node node1 is currently not a validator"):
            await remove("node1")


async def test_a_removed_node_validates_no_more() -> None:
    async with netrunner() as client:
        chain_id = await made(client)
        await soon(client.remove_node(name="node1"))
        removal = [messages.RemoveChainValidatorSpec(chain_id, ["node1"])]
        with pytest.raises(RemoteError, match="currently not a validator"):
            await soon(client.remove_chain_validator(validator_spec=removal))


@pytest.mark.parametrize(
    ("name", "field", "text"),
    [
        ("TransformElasticChains", "elastic_chain_spec", "no elastic chain spec was provided"),
        ("AddPermissionlessValidator", "validator_spec", "no validator spec was provided"),
        ("RemoveChainValidator", "validator_spec", "no validator spec was provided"),
    ],
)
async def test_chain_rpcs_need_a_spec_of_a_validator_set_there_is(
    name: str, field: str, text: str
) -> None:
    row = METHODS[name]
    spec = {
        "TransformElasticChains": messages.ElasticChainSpec,
        "AddPermissionlessValidator": messages.PermissionlessValidatorSpec,
        "RemoveChainValidator": messages.RemoveChainValidatorSpec,
    }[name]
    async with netrunner() as client:
        with pytest.raises(RemoteError, match=f"^{text}$"):
            await soon(client.call(row))
        with pytest.raises(RemoteError, match=r"^chainID is missing$"):
            await soon(client.call(row, row.request(**{field: [spec()]})))
        with pytest.raises(NotFound, match=r'^chain id "x" does not exist$'):
            await soon(client.call(row, row.request(**{field: [spec(chain_id="x")]})))


async def test_a_validator_must_be_a_node() -> None:
    async with netrunner() as client:
        chain_id = await made(client)
        validator = messages.PermissionlessValidatorSpec(chain_id, "nobody")
        with pytest.raises(RemoteError, match="participant node nobody is not in network nodes"):
            await soon(client.add_permissionless_validator(validator_spec=[validator]))


# Snapshots.


def without_place(info: messages.ClusterInfo) -> dict[str, object]:
    """What a snapshot brings back: everything but where the data lies and health."""
    return {
        "nodes": {name: (node.uri, node.id, node.paused) for name, node in info.node_infos.items()},
        "names": info.node_names,
        "chains": info.custom_chains,
        "subnets": info.subnets,
        "network": info.network_id,
    }


async def prepared(client: NetrunnerClient) -> messages.ClusterInfo:
    """A cluster with something to lose."""
    await soon(client.add_node(name="extra"))
    await soon(client.pause_node(name="node2"))
    specs = [messages.BlockchainSpec("evm", "{}")]
    await soon(client.create_blockchains(blockchain_specs=specs))
    return await status(client)


async def test_a_plain_snapshot_stops_the_cluster_and_loading_brings_it_back() -> None:
    async with netrunner() as client:
        before = await prepared(client)
        saved = await soon(client.save_snapshot(snapshot_name="mine"))
        assert saved.snapshot_path.endswith("/mine")
        with pytest.raises(NotBootstrapped):
            await soon(client.status())
        loaded = cluster(await soon(client.load_snapshot(snapshot_name="mine")))
        assert without_place(loaded) == without_place(before)
        assert await status(client) == loaded
        assert cluster(await soon(client.wait_for_healthy())).healthy


async def test_a_hot_snapshot_lets_the_cluster_go_on_and_is_not_changed_by_it() -> None:
    async with netrunner() as client:
        before = await prepared(client)
        await soon(client.save_hot_snapshot(snapshot_name="hot"))
        assert await status(client) == before
        await soon(client.remove_node(name="node1"))
        await soon(client.resume_node(name="node2"))
        await soon(client.stop())
        for _ in range(2):  # what is done to the cluster does not change its snapshot
            loaded = cluster(await soon(client.load_snapshot(snapshot_name="hot")))
            assert without_place(loaded) == without_place(before)
            await soon(client.remove_node(name="node5"))
            await soon(client.stop())


async def test_loading_takes_what_it_is_told_to_change() -> None:
    async with netrunner() as client:
        await soon(client.save_snapshot(snapshot_name="mine"))
        request = messages.LoadSnapshotRequest(
            "mine", exec_path="/new", plugin_dir="/p", root_data_dir="/elsewhere"
        )
        info = cluster(await soon(client.load_snapshot(request)))
        assert info.root_data_dir.startswith("/elsewhere/")
        assert {node.exec_path for node in info.node_infos.values()} == {"/new"}
        assert {node.plugin_dir for node in info.node_infos.values()} == {"/p"}


async def test_peers_do_not_outlive_a_snapshot() -> None:
    async with netrunner() as client:
        peer = (await soon(client.attach_peer(node_name="node1"))).attached_peer_info.id
        await soon(client.save_snapshot(snapshot_name="mine"))
        await soon(client.load_snapshot(snapshot_name="mine"))
        with pytest.raises(NotFound, match=r"^peer not found$"):
            await soon(client.send_outbound_message(node_name="node1", peer_id=peer))


async def test_snapshots_have_names_and_can_be_removed() -> None:
    async with netrunner() as client:
        assert (await soon(client.get_snapshot_names())).snapshot_names == []
        for name in ("b", "a"):
            await soon(client.save_hot_snapshot(snapshot_name=name))
        assert (await soon(client.get_snapshot_names())).snapshot_names == ["a", "b"]
        assert await soon(client.remove_snapshot(snapshot_name="a")) == (
            messages.RemoveSnapshotResponse()
        )
        assert (await soon(client.get_snapshot_names())).snapshot_names == ["b"]
        with pytest.raises(NotFound, match=r"^snapshot not found$"):
            await soon(client.remove_snapshot(snapshot_name="a"))


@pytest.mark.parametrize("name", ["SaveSnapshot", "SaveHotSnapshot"])
async def test_a_snapshot_needs_a_name_that_none_has(name: str) -> None:
    row = METHODS[name]
    async with netrunner() as client:
        await soon(client.save_hot_snapshot(snapshot_name="taken"))
        with pytest.raises(AlreadyExists, match=r'^snapshot "taken" already exists$'):
            await soon(client.call(row, row.request(snapshot_name="taken")))
        with pytest.raises(RemoteError, match=r'^invalid snapshotName ""$'):
            await soon(client.call(row))
        assert (await status(client)).node_names == FIVE, "a snapshot that failed stops nothing"


async def test_snapshots_outlive_the_cluster() -> None:
    async with netrunner() as client:
        await soon(client.save_snapshot(snapshot_name="old"))
        await soon(client.start(num_nodes=1))
        assert (await soon(client.get_snapshot_names())).snapshot_names == ["old"]


# All of them.


def test_every_rpc_is_exercised_here() -> None:
    """Each row is called by its method; a row added to METHODS needs tests here."""
    text = Path(__file__).read_text()
    called = set(re.findall(r"\bclient\.(\w+)\(", text))
    assert {row.attribute for row in METHODS.values()} - called == set()


async def test_two_clients_see_the_same_cluster() -> None:
    async with serving(SimulatedNetrunner(health_delay=AT_ONCE)) as server:
        identity = identity_of("client")
        async with (
            connect(server.address, identity=identity) as one,
            connect(server.address, identity=identity) as other,
        ):
            await soon(one.add_node(name="new"))
            assert "new" in (await status(other)).node_names
        await eventually(lambda: server.connections == 0)
