"""Changes: what makes one state into another, and that the document knows every event."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from gateway import schema
from gateway.changes import EVENT_TYPES, Change, changes_between, restarted
from gateway.journal import Position, event_item
from tests.integration.gateway_helpers import document
from tests.unit.strategies import instances
from zapcore.messages import ChainInfo, ClusterInfo, NodeInfo

PLACE = Position("5f0c91d2", 4242, 17)


def node(name: str = "node1", **fields: Any) -> NodeInfo:
    return NodeInfo(name=name, **fields)


def chain(chain_id: str = "chain1", **fields: Any) -> ChainInfo:
    return ChainInfo(chain_id=chain_id, **fields)


def cluster(*items: NodeInfo | ChainInfo, **fields: Any) -> ClusterInfo:
    nodes = {item.name: item for item in items if isinstance(item, NodeInfo)}
    chains = {item.chain_id: item for item in items if isinstance(item, ChainInfo)}
    return ClusterInfo(node_infos=nodes, custom_chains=chains, **fields)


def types(before: ClusterInfo | None, after: ClusterInfo | None) -> list[str]:
    return [change.type for change in changes_between(before, after)]


def only(before: ClusterInfo | None, after: ClusterInfo | None) -> Change:
    (change,) = changes_between(before, after)
    return change


# Strategies: two states that have something to do with each other.


@st.composite
def succeeding(draw: st.DrawFn, before: ClusterInfo) -> ClusterInfo:
    """What may come after a state: some things gone, some new, some different."""
    other = cast("ClusterInfo", draw(instances(ClusterInfo)))
    nodes = {
        name: draw(
            st.just(old)
            | st.just(replace(old, paused=not old.paused))
            | st.builds(lambda old, path: replace(old, exec_path=path), st.just(old), st.text())
            | st.builds(
                lambda old, path: replace(old, paused=not old.paused, exec_path=path),
                st.just(old),
                st.text(),
            )
        )
        for name, old in before.node_infos.items()
        if draw(st.booleans())
    }
    chains = {
        chain_id: draw(st.just(old) | st.just(replace(old, chain_name=old.chain_name + "2")))
        for chain_id, old in before.custom_chains.items()
        if draw(st.booleans())
    }
    return replace(
        other,
        node_infos={**nodes, **other.node_infos},
        custom_chains={**chains, **other.custom_chains},
        root_data_dir=draw(st.sampled_from([before.root_data_dir, other.root_data_dir])),
    )


CLUSTERS = cast("st.SearchStrategy[ClusterInfo]", instances(ClusterInfo))
PAIRS = st.tuples(st.none() | CLUSTERS, st.none() | CLUSTERS) | CLUSTERS.flatmap(
    lambda before: st.tuples(st.just(before), succeeding(before))
)


# Applying events, as a reader who keeps its own picture does.


def documents(items: dict[str, Any]) -> dict[str, object]:
    return {key: schema.to_document(item) for key, item in items.items()}


def applied(items: dict[str, object], changes: Iterable[Change], kind: str) -> dict[str, object]:
    """The things after the changes; each change says truly how its thing was before."""
    items = dict(items)
    for change in changes:
        if not change.type.startswith(f"{kind}."):
            continue
        key = change.node if kind == "node" else change.chain
        assert key is not None
        assert items.get(key) == change.before or change.type == f"{kind}.changed"
        if change.after is None:
            assert change.type == f"{kind}.removed"
            del items[key]
        else:
            assert (change.before is None) == (change.type == f"{kind}.added")
            items[key] = change.after
    return items


@given(PAIRS)
def test_events_make_the_earlier_state_into_the_later(
    pair: tuple[ClusterInfo | None, ClusterInfo | None],
):
    before, after = (state or ClusterInfo() for state in pair)
    changes = list(changes_between(*pair))
    nodes = applied(documents(before.node_infos), changes, "node")
    assert nodes == documents(after.node_infos)
    chains = applied(documents(before.custom_chains), changes, "chain")
    assert chains == documents(after.custom_chains)


@given(PAIRS)
def test_what_the_cluster_is_follows_from_events(
    pair: tuple[ClusterInfo | None, ClusterInfo | None],
):
    """Whether there is one, whether it is healthy, and where it is."""
    before, after = pair
    runs, healthy = before is not None, before is not None and before.healthy
    root = before and before.root_data_dir
    for change in changes_between(before, after):
        match change.type:
            case "cluster.started":
                assert not runs
                runs, healthy = True, False
                assert change.before is None
                assert change.after is not None
                root = cast("str", change.after["rootDataDir"])
            case "cluster.stopped":
                assert runs
                runs, healthy, root = False, False, None
                assert change.after is None
            case "cluster.healthy" | "cluster.unhealthy":
                assert runs
                assert healthy != (change.type == "cluster.healthy")
                healthy = change.type == "cluster.healthy"
    assert runs == (after is not None)
    assert healthy == (after is not None and after.healthy)
    assert root == (after and after.root_data_dir)


@given(st.none() | CLUSTERS, st.integers(1, 99), st.lists(st.text(), max_size=2))
def test_equal_states_make_no_event(state: ClusterInfo | None, pid: int, names: list[str]):
    twin = None if state is None else ClusterInfo.decode(state.encode())
    assert types(state, twin) == []
    if state is not None:
        # Those are told otherwise, or say nothing that the nodes do not say.
        assert types(state, replace(state, pid=pid, node_names=names, subnets=names)) == []


@given(PAIRS)
def test_nothing_changes_twice(pair: tuple[ClusterInfo | None, ClusterInfo | None]):
    before, after = pair
    told = [(change.type, change.node, change.chain) for change in changes_between(before, after)]
    assert len(told) == len(set(told))


# One of each type.


def test_a_node_comes_and_goes():
    was, is_now = cluster(node("node1")), cluster(node("node1"), node("node2"))
    told = only(was, is_now)
    assert (told.type, told.node, told.chain, told.before) == ("node.added", "node2", None, None)
    assert told.after == schema.to_document(node("node2"))
    told = only(is_now, was)
    assert (told.type, told.node, told.after) == ("node.removed", "node2", None)
    assert told.before == schema.to_document(node("node2"))


def test_a_node_pauses_and_resumes():
    runs, rests = node(exec_path="/luxd"), node(exec_path="/luxd", paused=True)
    for before, after, kind in ((runs, rests, "node.paused"), (rests, runs, "node.resumed")):
        told = only(cluster(before), cluster(after))
        assert (told.type, told.node, told.chain) == (kind, "node1", None)
        assert told.before == schema.to_document(before)
        assert told.after == schema.to_document(after)


def test_a_node_changes():
    told = only(cluster(node(exec_path="/old")), cluster(node(exec_path="/new")))
    assert (told.type, told.node) == ("node.changed", "node1")
    assert told.before == schema.to_document(node(exec_path="/old"))
    assert told.after == schema.to_document(node(exec_path="/new"))


def test_a_paused_node_that_is_restarted_with_another_binary_resumes_and_changes():
    before = cluster(node(exec_path="/old", paused=True))
    assert types(before, cluster(node(exec_path="/new"))) == ["node.resumed", "node.changed"]


def test_a_chain_comes_changes_and_goes():
    none, one, other = cluster(), cluster(chain(vm_name="evm")), cluster(chain(vm_name="new"))
    for before, after, kind in (
        (none, one, "chain.added"),
        (one, other, "chain.changed"),
        (other, none, "chain.removed"),
    ):
        told = only(before, after)
        assert (told.type, told.node, told.chain) == (kind, None, "chain1")
        held = [state.custom_chains.get("chain1") for state in (before, after)]
        assert [told.before, told.after] == [
            None if item is None else schema.to_document(item) for item in held
        ]


def test_a_cluster_becomes_healthy_and_unhealthy():
    well = cluster(node(), chain(), healthy=True, network_id=1337, root_data_dir="/here")
    ill = replace(well, healthy=False)
    in_words = {"nodes": 1, "chains": 1, "networkId": 1337, "rootDataDir": "/here"}
    for before, after, kind in ((well, ill, "cluster.unhealthy"), (ill, well, "cluster.healthy")):
        told = only(before, after)
        assert (told.type, told.node, told.chain) == (kind, None, None)
        assert told.before == {"healthy": before.healthy, **in_words}
        assert told.after == {"healthy": after.healthy, **in_words}


def test_a_start_is_told_before_what_it_starts():
    state = cluster(node("node1"), node("node2"), chain(), healthy=True)
    started = ["cluster.started", "node.added", "node.added", "chain.added"]
    assert types(None, state) == [*started, "cluster.healthy"]
    assert types(None, replace(state, healthy=False)) == started


def test_a_stop_is_told_behind_what_it_stops():
    state = cluster(node("node1"), node("node2"), chain(), healthy=True)
    stopped = ["node.removed", "node.removed", "chain.removed", "cluster.stopped"]
    for before in (state, replace(state, healthy=False)):
        assert types(before, None) == stopped


def test_what_is_gone_is_told_before_what_is_new():
    before, after = cluster(node("a"), chain("b")), cluster(node("c"), chain("d"))
    told = ["node.removed", "node.added", "chain.removed", "chain.added"]
    assert types(before, after) == told


def test_another_data_directory_is_another_cluster():
    """The same names mean other nodes then."""
    before = cluster(node(), healthy=True, root_data_dir="/one")
    after = cluster(node(), healthy=True, root_data_dir="/two")
    assert types(before, after) == [
        "node.removed",
        "cluster.stopped",
        "cluster.started",
        "node.added",
        "cluster.healthy",
    ]
    changes = {change.type: change for change in changes_between(before, after)}
    assert cast("Any", changes["cluster.stopped"].before)["rootDataDir"] == "/one"
    assert cast("Any", changes["cluster.started"].after)["rootDataDir"] == "/two"


def test_a_server_process_is_told_by_its_number():
    told = restarted(17, 4242)
    assert told.type == "server.restarted"
    assert (told.before, told.after) == ({"pid": 17}, {"pid": 4242})


# Events as they are sent.


@cache
def _validator() -> Draft202012Validator:
    parts = {"components": document()["components"], "$ref": "#/components/schemas/Event"}
    return Draft202012Validator(parts)


def as_sent(change: Change) -> dict[str, Any]:
    event = json.loads(event_item(PLACE, change).data)
    _validator().validate(event)
    assert set(event) == {
        "id", "type", "time", "node", "chain", "before", "after", "detail"
    }  # fmt: skip
    assert event["id"] == str(PLACE)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"])
    return cast("dict[str, Any]", event)


@given(PAIRS)
def test_events_are_as_the_document_says(pair: tuple[ClusterInfo | None, ClusterInfo | None]):
    for change in changes_between(*pair):
        event = as_sent(change)
        assert event["type"] == change.type
        assert (event["node"], event["chain"]) == (change.node, change.chain)
        assert (event["before"], event["after"]) == (change.before, change.after)
        assert event["detail"] is None


def test_events_of_the_gateway_are_as_the_document_says():
    for change in (
        restarted(1, 2),
        Change("upstream.lost", detail="it went away"),
        Change("upstream.back"),
        Change("gap", detail="some are not to be had"),
    ):
        event = as_sent(change)
        assert (event["type"], event["detail"]) == (change.type, change.detail)


def test_the_document_refuses_what_is_no_event():
    """The schema would be worth nothing if it took everything."""
    good = as_sent(Change("node.paused", node="node1", after=schema.to_document(node())))
    for wrong in (
        {"type": "node.exploded"},
        {"after": {"some": "thing"}},
        {"after": "node1"},
        {"after": {**good["after"], "paused": "yes"}},
        {"node": 1},
        {"id": None},
    ):
        assert not _validator().is_valid({**good, **wrong}), wrong


def test_the_document_lists_every_type():
    kinds = document()["components"]["schemas"]["Event"]["properties"]["type"]["enum"]
    assert kinds == list(EVENT_TYPES)


@given(CLUSTERS)
def test_an_event_is_one_line(state: ClusterInfo):
    """Whatever the names are: a line more would be a field more of a Server-Sent Event."""
    for change in changes_between(None, state):
        item = event_item(PLACE, change)
        assert b"\n" not in item.data
        assert b"\r" not in item.data
        assert item.sse.count(b"\n") == 4
        assert item.line.count(b"\n") == item.wrapped_line.count(b"\n") == 1
