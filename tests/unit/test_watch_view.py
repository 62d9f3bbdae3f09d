"""What `zap-gateway watch` knows and says of each thing that the stream tells."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.changes import EVENT_TYPES
from gateway.terminal.client import Frame, Lost, Reached, Silence, Told
from gateway.terminal.view import MOST_RECENT, Instant, View, look

NOW = Instant(100.0, "2026-11-22T21:10:36.123Z")


def node(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "id": f"NodeID-{name}", "uri": f"http://{name}", "paused": False, **more}


def status(*names: str, paused: tuple[str, ...] = (), **more: Any) -> Frame:
    nodes = {name: node(name, paused=name in paused) for name in names}
    info = {"nodeInfos": nodes, "healthy": True, "pid": 42, "networkId": 7, "customChains": {}}
    return Frame("status", {"clusterInfo": {**info, **more}})


NO_CLUSTER = Frame("status", {"clusterInfo": None})


def event(kind: str, **members: Any) -> Frame:
    return Frame(kind, {"id": "a-1-1", "type": kind, "time": NOW.text, **members})


def error(detail: str) -> Frame:
    return Frame("error", {"code": "upstream_unavailable", "detail": detail})


def looked(*told: Told) -> tuple[View, list[str]]:
    """The view after all of it, and what was said."""
    view, said = View(), []
    for each in told:
        view, entries = look(view, each, NOW)
        said += [str(entry).removeprefix(f"{NOW.text}  ") for entry in entries]
    return view, said


# States.


def test_the_first_state_is_said():
    view, said = looked(Reached(), status("node1", "node2", paused=("node2",)))
    assert said == ["state  cluster  healthy, 2 nodes (1 paused), 0 chains, PID 42, network 7"]
    assert view.is_known
    assert view.seen_at == NOW.seconds
    assert view.recent == ()


def test_a_state_is_said_again_when_health_or_the_number_of_nodes_changes():
    first, unhealthy = status("a"), status("a", healthy=False)
    _, said = looked(
        first,
        first,
        status("a", paused=("a",)),
        unhealthy,
        unhealthy,
        status("a", "b", healthy=False),
        NO_CLUSTER,
        NO_CLUSTER,
        first,
    )
    assert [line.partition(",")[0] for line in said] == [
        "state  cluster  healthy",
        "state  cluster  not healthy",
        "state  cluster  not healthy",
        "state  cluster  no cluster runs",
        "state  cluster  healthy",
    ]
    assert "1 node," in said[1]
    assert "2 nodes," in said[2]


def test_nodes_stand_in_the_order_in_which_people_count():
    view, _ = looked(status("node10", "node2", "node1", "a", "10", "9"))
    assert view.cluster is not None
    assert [each.name for each in view.cluster.nodes] == [
        *("9", "10", "a", "node1", "node2", "node10")
    ]


def test_the_server_going_away_is_said_once_and_its_state_when_it_is_back():
    told = [status("a"), error("gone"), error("still gone")]
    view, said = looked(*told)
    assert said[1:] == ["error  server  gone"]
    assert view.server_trouble == "still gone"
    assert view.cluster is not None, "the last state that is known stays"
    view, said = looked(*told, status("a"), status("a"))
    assert [line.split()[0] for line in said] == ["state", "error", "state"]
    assert view.server_trouble == ""


@pytest.mark.parametrize("between", [(event("gap"),), (Lost("refused", 1.0), Reached())])
def test_a_state_is_said_again_after_what_nobody_saw(between: tuple[Told, ...]):
    _, said = looked(status("a"), *between, status("a"), status("a"))
    assert [line.startswith("state") for line in said] == [True, *[False] * len(between), True]


def test_an_event_that_told_it_first_is_enough():
    view, said = looked(event("upstream.lost", detail="refused"), error("refused"))
    assert said == ["upstream.lost  server  refused"]
    assert view.server_trouble == "refused"


def test_restarts():
    server = Frame("restart", {"of": "server", "before": "1", "after": "2"})
    gateway = Frame("restart", {"of": "gateway", "before": "aa", "after": "bb"})
    restarted = event("server.restarted", before={"pid": 1}, after={"pid": 2})
    sentence = "another server process answers: PID 1 → 2"
    assert looked(gateway)[1] == ["restart  gateway  another gateway process answers"]
    assert looked(server)[1] == [f"restart  server  {sentence}"]
    assert looked(restarted, server)[1] == [f"server.restarted  server  {sentence}"]


# The gateway.


def test_the_gateway_going_away_and_coming_back_is_said_once():
    view, said = looked(status("a"), Lost("refused", 1.0), Lost("no route", 2.5))
    assert said[1:] == ["gateway.lost  gateway  the gateway is away: refused"]
    assert (view.gateway_trouble, view.retry_at) == ("no route", NOW.seconds + 2.5)
    back, entries = look(view, Reached(), NOW)
    assert [entry.sentence for entry in entries] == ["the gateway answers again"]
    assert back.gateway_trouble == ""
    assert look(back, Silence(), NOW) == (back, ())


# Events.


@pytest.mark.parametrize(
    ("kind", "members", "line"),
    [
        ("node.added", {"node": "a", "after": node("a")}, "a  a new node, at http://a"),
        ("node.removed", {"node": "a", "before": node("a")}, "a  the node is gone"),
        ("node.paused", {"node": "a"}, "a  the node was paused"),
        ("node.resumed", {"node": "a"}, "a  the node runs again"),
        (
            "node.changed",
            {"node": "a", "before": node("a"), "after": node("a", uri="http://b", config="eA==")},
            "a  uri: http://a → http://b; config changed",
        ),
        (
            "chain.added",
            {"chain": "2Z", "after": {"chainName": "C", "vmName": "evm"}},
            "2Z  a new chain, C (evm)",
        ),
        ("chain.removed", {"chain": "2Z", "before": {"chainName": "C"}}, "2Z  the chain C is gone"),
        (
            "cluster.started",
            {"after": {"nodes": 1, "networkId": 7}},
            "cluster  a cluster of 1 node,",
        ),
        ("cluster.stopped", {}, "cluster  the cluster is gone"),
        ("cluster.healthy", {}, "cluster  every node that runs is healthy"),
        ("upstream.back", {}, "server  the gateway reaches the server again"),
        ("gap", {"detail": "12 events are lost"}, "-  12 events are lost"),
        ("moon.full", {"detail": "a newer gateway"}, "-  a newer gateway"),
        ("moon.full", {}, "-"),
    ],
)
def test_every_event_is_a_line(kind: str, members: dict[str, Any], line: str):
    _, said = looked(event(kind, **members))
    (only,) = said
    assert only.startswith(f"{kind}  {line}")


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_every_type_that_the_gateway_has_makes_a_sentence(kind: str):
    (entry,) = look(View(), event(kind), NOW)[1]
    assert entry.sentence


def test_the_last_events_are_kept():
    view, _ = looked(*(event("node.paused", node=f"n{number}") for number in range(300)))
    assert len(view.recent) == MOST_RECENT
    assert view.recent[-1].about == "n299"


# Anything.

TEXTS = (
    st.text(max_size=20)
    | st.just("\x1b]0;owned\x07\r\n\u202e[red]x[/red]")
    | st.sampled_from(["x" * 10_000, "\ud800"])
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=5,
)
NODES = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("name", "id", "uri", "paused", "config", "chainName"), VALUES)
)
INFOS = st.fixed_dictionaries(
    {},
    optional={
        "nodeInfos": st.dictionaries(TEXTS, NODES | VALUES, max_size=4) | VALUES,
        "customChains": VALUES,
        "healthy": VALUES,
        "pid": VALUES,
        "networkId": VALUES,
    },
)
MEMBERS = ("detail", "time", "node", "chain", "code", "of", "before", "after")
DOCUMENTS = st.fixed_dictionaries(
    {}, optional={**dict.fromkeys(MEMBERS, NODES | VALUES), "clusterInfo": INFOS | VALUES}
)
KINDS = st.sampled_from([*EVENT_TYPES, "status", "error", "restart", "end"]) | TEXTS
TOLD = st.builds(Frame, KINDS, DOCUMENTS) | st.just(Reached()) | st.just(Lost("refused", 1.0))


HOSTILE = "\x1b]0;owned\x07\r\n\u202e"
OWNED = r"\x1b]0;owned\x07\r\n\u202e"


@pytest.mark.parametrize("kind", [*EVENT_TYPES, "status", "error", "restart", HOSTILE])
@pytest.mark.parametrize("detail", [{}, {"detail": HOSTILE}])
def test_a_text_of_others_is_written_out_wherever_it_stands(kind: str, detail: dict[str, str]):
    members = ("name", "uri", "id", "chainName", "vmName", HOSTILE)
    thing, other = dict.fromkeys(members, HOSTILE), dict.fromkeys(members, "x")
    document = dict.fromkeys(("time", "node", "chain", "of"), HOSTILE)
    info = {"nodeInfos": {HOSTILE: thing}, "pid": HOSTILE, "customChains": {HOSTILE: thing}}
    told = {**document, **detail, "before": other, "after": thing, "clusterInfo": info}
    restart = {"before": HOSTILE, "after": HOSTILE} if kind == "restart" else {}
    view, entries = look(View(), Frame(kind, {**told, **restart}), NOW)
    (entry,) = entries
    assert str(entry).isprintable()
    assert kind == "status" or OWNED in str(entry) or (kind == "error" and not detail)
    nodes = view.cluster.nodes if view.cluster else ()
    assert all((each.name, each.uri, each.id) == (OWNED,) * 3 for each in nodes)


@given(told=st.lists(TOLD, max_size=6))
def test_whatever_comes_each_line_is_one_that_can_be_printed(told: list[Told]):
    view = View()
    for each in told:
        view, entries = look(view, each, NOW)
        assert len(entries) <= 1
        if isinstance(each, Frame) and each.kind not in ("status", "error", "restart", "end"):
            assert len(entries) == 1
        for entry in entries:
            assert str(entry).isprintable()
            assert len(str(entry)) < 3000


def test_a_state_that_is_no_state_does_not_hide_what_follows():
    view, _ = looked(Frame("status", {"clusterInfo": {"nodeInfos": {"a": 1, "b": {}}}}))
    assert view.cluster is not None
    assert [each.name for each in view.cluster.nodes] == ["b"]
