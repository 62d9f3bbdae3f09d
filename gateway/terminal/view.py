"""What a reader of the event stream knows of the cluster, and what there is to say of each event.

Pure: no clock, no I/O. Every text that comes out was made visible; what comes in is anybody's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from gateway.terminal.client import Document, Frame, Lost, Reached, Told, text_of
from gateway.terminal.text import visible

MOST_RECENT = 200
"""Events that are kept to be shown."""

_MAX_NAME = 100
_MAX_SENTENCE = 500
_MOST_FIELDS = 3
_LARGEST_NUMBER = 1 << 63
_BYTES = frozenset({"config", "genesis"})
"""Fields that hold bytes, in base64."""

_DIGITS = re.compile(r"(\d{1,18})")
_ABOUT = {"cluster": "cluster", "server": "server", "upstream": "server"}


class Instant(NamedTuple):
    """A moment, on two clocks."""

    seconds: float
    """Of a clock that only counts."""
    text: str
    """UTC, as events tell it."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node, as it is shown."""

    name: str
    id: str
    uri: str
    paused: bool


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster, as it is shown; its nodes in the order in which people count."""

    healthy: bool
    nodes: tuple[Node, ...]
    chains: int
    pid: int
    network_id: int

    @property
    def paused(self) -> int:
        """How many nodes are."""
        return sum(node.paused for node in self.nodes)


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened: a line."""

    time: str
    type: str
    about: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.time}  {self.type}  {self.about}  {self.sentence}".rstrip()


@dataclass(frozen=True, slots=True)
class View:
    """What is known."""

    is_known: bool = False
    """Whether any state has come."""
    cluster: Cluster | None = None
    seen_at: float = 0.0
    """When the last state came."""
    server_trouble: str = ""
    """Why the gateway learns nothing of the server; empty where it does."""
    gateway_trouble: str = ""
    retry_at: float = 0.0
    is_state_due: bool = True
    """Whether the next state is worth a line, whatever it is: nobody saw what was before it."""
    server_pid: str = ""
    """Of the server process that was told last."""
    recent: tuple[Entry, ...] = ()
    """Oldest first, without states."""


def look(view: View, told: Told, now: Instant) -> tuple[View, tuple[Entry, ...]]:
    """The view after something was told, and what there is to say about it.

    Args:
        view: what was known.
        told: by the stream.
        now: when that was.
    """
    match told:
        case Frame(kind="status"):
            return _status(view, _member(told.document, "clusterInfo"), now)
        case Frame(kind="error"):
            return _error(view, told.document, now)
        case Frame(kind="restart"):
            return _restart(view, told.document, now)
        case Frame(kind="end"):
            return view, ()  # why it ends is told when the stream is lost
        case Frame():
            return _event(view, told)
        case Lost():
            return _lost(view, told, now)
        case Reached():
            return _reached(view, now)
    return view, ()


def _keep(view: View, entry: Entry) -> tuple[View, tuple[Entry, ...]]:
    recent = (*view.recent, entry)[-MOST_RECENT:]
    return replace(view, recent=recent), (entry,)


# States.


def _status(view: View, info: Document | None, now: Instant) -> tuple[View, tuple[Entry, ...]]:
    cluster = None if info is None else cluster_of(info)
    changed = view.is_state_due or _key(view.cluster) != _key(cluster)
    view = replace(
        view,
        is_known=True,
        cluster=cluster,
        seen_at=now.seconds,
        server_trouble="",
        is_state_due=False,
    )
    if not changed:
        return view, ()
    return view, (Entry(now.text, "state", "cluster", summary_of(cluster)),)


def _key(cluster: Cluster | None) -> tuple[bool, int] | None:
    """What makes a state worth a line of its own."""
    return None if cluster is None else (cluster.healthy, len(cluster.nodes))


def summary_of(cluster: Cluster | None) -> str:
    """A cluster in a few words."""
    if cluster is None:
        return "no cluster runs"
    paused = f" ({cluster.paused} paused)" if cluster.paused else ""
    return (
        f"{'healthy' if cluster.healthy else 'not healthy'}, {_count(len(cluster.nodes), 'node')}"
        f"{paused}, {_count(cluster.chains, 'chain')}, PID {cluster.pid},"
        f" network {cluster.network_id}"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def cluster_of(info: Document) -> Cluster:
    """A cluster, out of a ClusterInfo that may lack anything."""
    nodes = _member(info, "nodeInfos") or {}
    chains = _member(info, "customChains") or {}
    shown = (_node(name, node) for name, node in nodes.items() if isinstance(node, dict))
    return Cluster(
        healthy=info.get("healthy") is True,
        nodes=tuple(sorted(shown, key=_as_people_count)),
        chains=len(chains),
        pid=_number(info, "pid"),
        network_id=_number(info, "networkId"),
    )


def _node(name: str, node: Document) -> Node:
    return Node(
        visible(name, _MAX_NAME),
        visible(text_of(node, "id"), _MAX_NAME),
        visible(text_of(node, "uri"), _MAX_NAME),
        node.get("paused") is True,
    )


def _as_people_count(node: Node) -> list[tuple[int, str]]:
    """node2 before node10."""
    parts = _DIGITS.split(node.name)
    return [(int(part), "") if index % 2 else (0, part) for index, part in enumerate(parts)]


# What is said in between.


def _error(view: View, problem: Document, now: Instant) -> tuple[View, tuple[Entry, ...]]:
    detail = _sentence(problem) or "the gateway gave no reason"
    known = view.server_trouble
    view = replace(view, server_trouble=detail, is_state_due=True)
    if known:
        return view, ()
    return _keep(view, Entry(now.text, "error", "server", detail))


def _restart(view: View, told: Document, now: Instant) -> tuple[View, tuple[Entry, ...]]:
    before, after = _short(told, "before"), _short(told, "after")
    if text_of(told, "of") == "gateway":
        sentence = "another gateway process answers"
        return _keep(view, Entry(now.text, "restart", "gateway", sentence))
    if after == view.server_pid:
        return view, ()  # an event told it
    view = replace(view, server_pid=after)
    sentence = f"another server process answers: PID {before} → {after}"
    return _keep(view, Entry(now.text, "restart", "server", sentence))


def _short(told: Document, name: str) -> str:
    found = told.get(name)
    return visible(str(found), 40) if isinstance(found, (str, int)) else "?"


def _lost(view: View, lost: Lost, now: Instant) -> tuple[View, tuple[Entry, ...]]:
    known, retry_at = view.gateway_trouble, now.seconds + lost.wait
    view = replace(view, gateway_trouble=lost.reason, retry_at=retry_at)
    if known:
        return view, ()
    sentence = f"the gateway is away: {lost.reason}"
    return _keep(view, Entry(now.text, "gateway.lost", "gateway", sentence))


def _reached(view: View, now: Instant) -> tuple[View, tuple[Entry, ...]]:
    if not view.gateway_trouble:
        return view, ()
    view = replace(view, gateway_trouble="", is_state_due=True)
    return _keep(view, Entry(now.text, "gateway.back", "gateway", "the gateway answers again"))


# Events.


def _event(view: View, frame: Frame) -> tuple[View, tuple[Entry, ...]]:
    event = frame.document
    if frame.kind == "upstream.lost":
        trouble = _sentence(event) or "the gateway gave no reason"
        view = replace(view, server_trouble=trouble, is_state_due=True)
    if frame.kind == "gap":
        view = replace(view, is_state_due=True)
    if frame.kind == "server.restarted":
        view = replace(view, server_pid=str(_number(_member(event, "after") or {}, "pid")))
    return _keep(view, entry_of(frame))


def entry_of(frame: Frame) -> Entry:
    """An event as a line."""
    event = frame.document
    family = frame.kind.partition(".")[0]
    about = text_of(event, "node") or text_of(event, "chain") or _ABOUT.get(family, "-")
    return Entry(
        visible(text_of(event, "time"), 40) or "-",
        visible(frame.kind, 40),
        visible(about, _MAX_NAME),
        _SENTENCES.get(frame.kind, _sentence)(event),
    )


def _sentence(event: Document) -> str:
    return visible(text_of(event, "detail"), _MAX_SENTENCE)


def _always(sentence: str) -> Callable[[Document], str]:
    return lambda event: _sentence(event) or sentence


def _added_node(event: Document) -> str:
    uri = visible(text_of(_member(event, "after") or {}, "uri"), _MAX_NAME)
    return f"a new node, at {uri}" if uri else "a new node"


def _added_chain(event: Document) -> str:
    return f"a new chain, {_chain_name(event, 'after')}"


def _removed_chain(event: Document) -> str:
    return f"the chain {_chain_name(event, 'before')} is gone"


def _chain_name(event: Document, when: str) -> str:
    chain = _member(event, when) or {}
    name, vm = (visible(text_of(chain, key), _MAX_NAME) for key in ("chainName", "vmName"))
    return f"{name or 'without a name'} ({vm})" if vm else name or "without a name"


def _started_cluster(event: Document) -> str:
    after = _member(event, "after") or {}
    nodes, network = _number(after, "nodes"), _number(after, "networkId")
    return f"a cluster of {_count(nodes, 'node')}, network {network}"


def _restarted_server(event: Document) -> str:
    before, after = (_number(_member(event, when) or {}, "pid") for when in ("before", "after"))
    return f"another server process answers: PID {before} → {after}"


def _differences(event: Document) -> str:
    """Which fields changed, and how where that is short."""
    before, after = _member(event, "before") or {}, _member(event, "after") or {}
    names = [name for name in after if after[name] != before.get(name) and name != "paused"]
    told = [_difference(name, before, after) for name in names[:_MOST_FIELDS]]
    if len(names) > _MOST_FIELDS:
        told.append(f"and {len(names) - _MOST_FIELDS} more")
    return "; ".join(told) or "changed"


def _difference(name: str, before: Document, after: Document) -> str:
    shown = visible(name, _MAX_NAME)
    old, new = text_of(before, name), text_of(after, name)
    if not (old and new) or name in _BYTES or max(len(old), len(new)) > _MAX_NAME:
        return f"{shown} changed"
    return f"{shown}: {visible(old, _MAX_NAME)} → {visible(new, _MAX_NAME)}"


_SENTENCES: dict[str, Callable[[Document], str]] = {
    "node.added": _added_node,
    "node.removed": _always("the node is gone"),
    "node.paused": _always("the node was paused"),
    "node.resumed": _always("the node runs again"),
    "node.changed": _differences,
    "chain.added": _added_chain,
    "chain.removed": _removed_chain,
    "chain.changed": _differences,
    "cluster.started": _started_cluster,
    "cluster.stopped": _always("the cluster is gone"),
    "cluster.healthy": _always("every node that runs is healthy"),
    "cluster.unhealthy": _always("not every node that runs is healthy"),
    "server.restarted": _restarted_server,
    "upstream.lost": _always("the gateway does not reach the server"),
    "upstream.back": _always("the gateway reaches the server again"),
    "gap": _always("some events are not to be had"),
}


# JSON of anybody.


def _member(document: Document, name: str) -> Document | None:
    found = document.get(name)
    return found if isinstance(found, dict) else None


def _number(document: Document, name: str) -> int:
    found = document.get(name)
    return found if isinstance(found, int) and abs(found) < _LARGEST_NUMBER else 0
