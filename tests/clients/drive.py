"""Drives a cluster with the generated Python client.

A line of JSON in says what to do, `["pause", "node1"]`; one line out says what the client was told,
or which problem. test_drive.py runs this as a program of its own.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable
from typing import TypeVar

from zap_gateway_client import AuthenticatedClient, Client
from zap_gateway_client.api.chains import create_blockchains, create_chains
from zap_gateway_client.api.cluster import start, status, stop, wait_for_healthy
from zap_gateway_client.api.nodes import (
    add_node,
    get_node,
    pause_node,
    remove_node,
    restart_node,
    resume_node,
)
from zap_gateway_client.api.peers import attach_peer, send_outbound_message
from zap_gateway_client.api.snapshots import (
    get_snapshot_names,
    load_snapshot,
    remove_snapshot,
    save_hot_snapshot,
    save_snapshot,
)
from zap_gateway_client.models import (
    AddNodeRequest,
    BlockchainSpec,
    ChainSpec,
    ClusterInfo,
    CreateBlockchainsRequest,
    CreateChainsRequest,
    Event,
    Problem,
    RestartNodeRequest,
    SaveHotSnapshotRequest,
    SaveSnapshotRequest,
    SendOutboundMessageRequest,
    StartRequest,
)

Answer = TypeVar("Answer")
AnyClient = Client | AuthenticatedClient


class Refused(Exception):
    """The gateway answered with a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def good(answer: Answer | Problem | None) -> Answer:
    """The answer of a call that went well."""
    if isinstance(answer, Problem):
        raise Refused(answer)
    assert answer is not None, "an answer that the document does not know"
    return answer


def nodes(cluster: ClusterInfo | None) -> dict[str, bool]:
    """Whether each node is paused, by name."""
    assert cluster is not None
    return {name: node.paused for name, node in cluster.node_infos.additional_properties.items()}


# Steps.


def tell_status(client: AnyClient) -> object:
    return nodes(good(status.sync(client=client)).cluster_info)


def wait(client: AnyClient) -> object:
    cluster = good(wait_for_healthy.sync(client=client, timeout="10s")).cluster_info
    return cluster is not None and cluster.healthy


def start_cluster(client: AnyClient, size: str, vm_name: str) -> object:
    spec = BlockchainSpec(vm_name=vm_name)
    body = StartRequest(num_nodes=int(size), blockchain_specs=[spec])
    answer = good(start.sync(client=client, body=body))
    return {"nodes": nodes(answer.cluster_info), "chains": answer.chain_ids}


def stop_cluster(client: AnyClient) -> object:
    return nodes(good(stop.sync(client=client)).cluster_info)


def add(client: AnyClient, name: str, exec_path: str) -> object:
    body = AddNodeRequest(name=name, exec_path=exec_path)
    return nodes(good(add_node.sync(client=client, body=body)).cluster_info)


def get(client: AnyClient, name: str) -> object:
    node = good(get_node.sync(name, client=client))
    return {"name": node.name, "execPath": node.exec_path, "paused": node.paused}


def pause(client: AnyClient, name: str) -> object:
    return nodes(good(pause_node.sync(name, client=client)).cluster_info)


def resume(client: AnyClient, name: str) -> object:
    return nodes(good(resume_node.sync(name, client=client)).cluster_info)


def restart(client: AnyClient, name: str, exec_path: str) -> object:
    body = RestartNodeRequest(exec_path=exec_path)
    return nodes(good(restart_node.sync(name, client=client, body=body)).cluster_info)


def remove(client: AnyClient, name: str) -> object:
    return nodes(good(remove_node.sync(name, client=client)).cluster_info)


def attach(client: AnyClient, name: str) -> object:
    peer = good(attach_peer.sync(name, client=client)).attached_peer_info
    assert peer is not None
    return peer.id


def send(client: AnyClient, name: str, peer: str, text: str) -> object:
    body = SendOutboundMessageRequest(op=7, bytes_=base64.b64encode(text.encode()).decode())
    return good(send_outbound_message.sync(name, peer, client=client, body=body)).sent


def make_blockchain(client: AnyClient, vm_name: str, *participants: str) -> object:
    spec = BlockchainSpec(vm_name=vm_name, chain_spec=ChainSpec(participants=list(participants)))
    body = CreateBlockchainsRequest(blockchain_specs=[spec])
    return good(create_blockchains.sync(client=client, body=body)).chain_ids


def make_chain(client: AnyClient, *participants: str) -> object:
    body = CreateChainsRequest(chain_specs=[ChainSpec(participants=list(participants))])
    return good(create_chains.sync(client=client, body=body)).chain_ids


def save(client: AnyClient, name: str) -> object:
    body = SaveSnapshotRequest(snapshot_name=name)
    return good(save_snapshot.sync(client=client, body=body)).snapshot_path


def save_hot(client: AnyClient, name: str) -> object:
    body = SaveHotSnapshotRequest(snapshot_name=name)
    return good(save_hot_snapshot.sync(client=client, body=body)).snapshot_path


def load(client: AnyClient, name: str) -> object:
    return nodes(good(load_snapshot.sync(name, client=client)).cluster_info)


def forget(client: AnyClient, name: str) -> object:
    return good(remove_snapshot.sync(name, client=client)).to_dict()


def snapshots(client: AnyClient) -> object:
    return good(get_snapshot_names.sync(client=client)).snapshot_names


def watch_pause(client: AnyClient, name: str) -> object:
    """A stream has no end: it is read with the client's own httpx, into the generated types."""
    with client.get_httpx_client().stream(
        "GET",
        "/v1/events/stream",
        params={"status": "true", "interval": "100ms"},
        headers={"Accept": "application/x-ndjson"},
    ) as answer:
        lines = map(json.loads, answer.iter_lines())
        next(lines)  # The first state: what changes from here on is an event.
        pause(client, name)
        event = next(Event.from_dict(line) for line in lines if line.get("type") == "node.paused")
    return {"type": event.type_.value, "node": event.node, "year": event.time.year}


STEPS: dict[str, Callable[..., object]] = {
    "status": tell_status,
    "wait": wait,
    "start": start_cluster,
    "stop": stop_cluster,
    "add": add,
    "get": get,
    "pause": pause,
    "resume": resume,
    "restart": restart,
    "remove": remove,
    "attach": attach,
    "send": send,
    "blockchain": make_blockchain,
    "chain": make_chain,
    "save": save,
    "saveHot": save_hot,
    "load": load,
    "forget": forget,
    "snapshots": snapshots,
    "watchPause": watch_pause,
}


def told_of(problem: Problem) -> object:
    """A problem's parts, each under its own type."""
    return {
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
        "rpc": problem.rpc or None,
        "requestId": problem.request_id,
        "errors": [each.field for each in problem.errors or ()],
    }


def client_for(url: str, token: str) -> AnyClient:
    """A client, with a token where there is one."""
    return AuthenticatedClient(base_url=url, token=token) if token else Client(base_url=url)


def main() -> None:
    """Do what standard input says."""
    with client_for(os.environ["GATEWAY_URL"], os.environ["GATEWAY_TOKEN"]) as client:
        for line in sys.stdin:
            step, *words = json.loads(line)
            try:
                told = {"told": STEPS[step](client, *words)}
            except Refused as refused:
                told = {"problem": told_of(refused.problem)}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
