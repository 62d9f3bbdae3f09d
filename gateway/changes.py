"""What changed between two states of the cluster. Pure: no clock, no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic_core import core_schema

from gateway import schema
from zapcore.codec import Message
from zapcore.messages import ChainInfo, ClusterInfo, NodeInfo

EventType = Literal[
    "node.added",
    "node.removed",
    "node.paused",
    "node.resumed",
    "node.changed",
    "chain.added",
    "chain.removed",
    "chain.changed",
    "cluster.started",
    "cluster.stopped",
    "cluster.healthy",
    "cluster.unhealthy",
    "server.restarted",
    "upstream.lost",
    "upstream.back",
    "gap",
]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)

Document = dict[str, object]
_Item = TypeVar("_Item", bound=Message)


class ClusterSummary(BaseModel):
    """A cluster in a few words; its nodes and chains have events of their own."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    healthy: Annotated[bool, Field(description="Whether every node that runs is healthy.")]
    nodes: Annotated[int, Field(description="How many nodes it has.", examples=[5])]
    chains: Annotated[int, Field(description="How many blockchains were created on it.")]
    network_id: Annotated[int, Field(description="The network's id.", examples=[1337])]
    root_data_dir: Annotated[str, Field(description="Directory of its data.")]


class ServerProcess(BaseModel):
    """A process of the netrunner server."""

    pid: Annotated[int, Field(description="Its process id.", examples=[4242])]


@dataclass(frozen=True)
class _OneOf:
    """Says of which kinds a JSON object can be; one that was made from a message is taken as is."""

    models: tuple[type[BaseModel], ...]

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        del source
        kinds: list[core_schema.CoreSchema | tuple[core_schema.CoreSchema, str]] = [
            handler.generate_schema(model) for model in self.models
        ]
        return core_schema.no_info_wrap_validator_function(
            lambda value, _: value,
            core_schema.nullable_schema(core_schema.union_schema(kinds)),
            serialization=core_schema.wrap_serializer_function_ser_schema(lambda value, _: value),
        )


_Subject = Annotated[
    Document | None,
    _OneOf((schema.model_of(NodeInfo), schema.model_of(ChainInfo), ClusterSummary, ServerProcess)),
]


class Event(BaseModel):
    """One change, as readers get it."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    id: Annotated[
        str,
        Field(
            description="Its place in the stream, for `Last-Event-ID`.",
            examples=["5f0c91d2-4242-17"],
        ),
    ]
    type: Annotated[EventType, Field(description="What happened.", examples=["node.paused"])]
    time: Annotated[
        str,
        Field(
            description="When the gateway saw it (RFC 3339, UTC).",
            json_schema_extra={"format": "date-time"},
        ),
    ]
    node: Annotated[
        str | None, Field(description="Name of the node that it is about.", examples=["node1"])
    ] = None
    chain: Annotated[str | None, Field(description="Id of the chain that it is about.")] = None
    before: Annotated[_Subject, Field(description="The node, chain, cluster or server before.")] = (
        None
    )
    after: Annotated[_Subject, Field(description="The same thing after.")] = None
    detail: Annotated[
        str | None, Field(description="Why, in a sentence, where there is more to say.")
    ] = None


@dataclass(frozen=True, slots=True)
class Change:
    """One change, before it has a place and a time; the fields are those of :class:`Event`."""

    type: EventType
    node: str | None = None
    chain: str | None = None
    before: Document | None = None
    after: Document | None = None
    detail: str | None = None


def changes_between(before: ClusterInfo | None, after: ClusterInfo | None) -> Iterator[Change]:
    """What makes one state into the other, in the order in which it could have happened.

    Args:
        before: the earlier state; None for no cluster.
        after: the later one.
    """
    if before is not None and after is not None and before.root_data_dir != after.root_data_dir:
        # Each start and each load of a snapshot has a directory of its own.
        yield from changes_between(before, None)
        yield from changes_between(None, after)
        return
    if before is None and after is not None:
        yield Change("cluster.started", after=_summary(after))
    yield from _node_changes(before.node_infos if before else {}, after.node_infos if after else {})
    yield from _chain_changes(
        before.custom_chains if before else {}, after.custom_chains if after else {}
    )
    yield from _cluster_changes(before, after)


def restarted(before: int, after: int) -> Change:
    """Another server process answers.

    Args:
        before: the process id that was known.
        after: the one that answers now.
    """
    return Change("server.restarted", before={"pid": before}, after={"pid": after})


def _cluster_changes(before: ClusterInfo | None, after: ClusterInfo | None) -> Iterator[Change]:
    if after is None:
        if before is not None:
            yield Change("cluster.stopped", before=_summary(before))
    elif after.healthy != (before is not None and before.healthy):
        summary = None if before is None else _summary(before)
        kind: EventType = "cluster.healthy" if after.healthy else "cluster.unhealthy"
        yield Change(kind, before=summary, after=_summary(after))


def _node_changes(
    before: Mapping[str, NodeInfo], after: Mapping[str, NodeInfo]
) -> Iterator[Change]:
    for name, old, new in _pairs(before, after):
        if old is None or new is None:
            yield _appeared_or_gone("node.added", "node.removed", old, new, node=name)
            continue
        was, now = schema.to_document(old), schema.to_document(new)
        if old.paused != new.paused:
            kind: EventType = "node.paused" if new.paused else "node.resumed"
            yield Change(kind, node=name, before=was, after=now)
        if replace(old, paused=new.paused) != new:
            yield Change("node.changed", node=name, before=was, after=now)


def _chain_changes(
    before: Mapping[str, ChainInfo], after: Mapping[str, ChainInfo]
) -> Iterator[Change]:
    for chain_id, old, new in _pairs(before, after):
        if old is None or new is None:
            yield _appeared_or_gone("chain.added", "chain.removed", old, new, chain=chain_id)
        else:
            yield Change(
                "chain.changed",
                chain=chain_id,
                before=schema.to_document(old),
                after=schema.to_document(new),
            )


def _appeared_or_gone(
    appeared: EventType,
    gone: EventType,
    old: Message | None,
    new: Message | None,
    node: str | None = None,
    chain: str | None = None,
) -> Change:
    return Change(
        gone if new is None else appeared,
        node,
        chain,
        None if old is None else schema.to_document(old),
        None if new is None else schema.to_document(new),
    )


def _pairs(
    before: Mapping[str, _Item], after: Mapping[str, _Item]
) -> Iterator[tuple[str, _Item | None, _Item | None]]:
    """Every key whose item is not the same in both; what is gone comes first."""
    for key, old in before.items():
        if key not in after:
            yield key, old, None
    for key, new in after.items():
        known = before.get(key)
        if known is not new and known != new:
            yield key, known, new


def _summary(cluster: ClusterInfo) -> Document:
    return ClusterSummary(
        healthy=cluster.healthy,
        nodes=len(cluster.node_infos),
        chains=len(cluster.custom_chains),
        network_id=cluster.network_id,
        root_data_dir=cluster.root_data_dir,
    ).model_dump(by_alias=True)
