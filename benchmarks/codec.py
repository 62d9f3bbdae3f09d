"""Decoding a StatusResponse of five nodes and giving its JSON.

python -m benchmarks.codec new|one|same SECONDS [WAY…] prints one JSON line with the seconds of
processor time for one message; the ways, ours and protobuf, take turns, a hundred messages at once.

new:  no text of an answer was in any answer before, so nothing that is remembered helps.
one:  one node's log directory differs from the answer before, as with `simulate`.
same: always the same bytes.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from benchmarks.processes import MEASURED_CORE, command_line, measured, python
from benchmarks.sides import Figure, Run, Side, Unavailable
from gateway import schema
from zapcore.messages import StatusRequest, StatusResponse
from zapcore.simulator import SimulatedNetrunner

_DIFFERENT = 300
"""Messages in turn: more than anybody would remember."""

_AT_ONCE = 100

Render = Callable[[bytes], bytes | str]


def status_of_five_nodes() -> StatusResponse:
    """What the simulation says."""
    simulation = SimulatedNetrunner(health_delay=0)
    return asyncio.run(simulation.status(StatusRequest()))


# Contents.


def new(number: int) -> StatusResponse:
    """Every text in it, and every number, is of this message alone; all are of one size."""
    status = status_of_five_nodes()
    cluster = status.cluster_info
    assert cluster is not None
    nodes = {}
    for node in cluster.node_infos.values():
        values = {each.name: _renewed(getattr(node, each.name), number) for each in fields(node)}
        nodes[values["name"]] = type(node)(**values)
    return StatusResponse(
        replace(
            cluster,
            node_names=sorted(nodes),
            node_infos=nodes,
            pid=number,
            root_data_dir=_renewed(cluster.root_data_dir, number),
        )
    )


def _renewed(value: Any, number: int) -> Any:
    if isinstance(value, str) and value:
        return f"{number:06}{value[6:]}" if len(value) > 12 else f"{value}{number:06}"
    if isinstance(value, bytes) and value:
        return b"%06d" % number + value
    return value


def one(number: int) -> StatusResponse:
    """One node's log directory has a number."""
    status = status_of_five_nodes()
    assert status.cluster_info is not None
    nodes = status.cluster_info.node_infos
    nodes["node1"] = replace(nodes["node1"], log_dir=f"/tmp/netrunner/{number:06}")  # noqa: S108
    return status


def same(number: int) -> StatusResponse:
    """Always the same."""
    del number
    return status_of_five_nodes()


CONTENTS = {"new": new, "one": one, "same": same}


# Ways.


def ours() -> tuple[Callable[[StatusResponse], bytes], Render]:
    """How a message is encoded, and what is measured: as the gateway does it, each time."""

    def render(body: bytes) -> bytes:
        return schema.json_of(StatusResponse, body)

    return StatusResponse.encode, render


def protobuf() -> tuple[Callable[[StatusResponse], bytes], Render]:
    """The same with protobuf: parse, and json_format of the same document in the fewest bytes."""
    from google.protobuf import json_format

    from benchmarks.status_proto import fill, protobuf_class

    made = protobuf_class()

    def encode(message: StatusResponse) -> bytes:
        target = made()
        fill(target, message)
        return target.SerializeToString()

    def render(body: bytes) -> str:
        return json_format.MessageToJson(
            made.FromString(body), indent=None, always_print_fields_with_no_presence=True
        )

    return encode, render


WAYS = {"ours": ours, "protobuf": protobuf}


class Measured:
    """One way, on its messages in turn."""

    def __init__(self, way: str, content: str) -> None:
        encode, self._render = WAYS[way]()
        count = 1 if content == "same" else _DIFFERENT
        self._bodies = itertools.cycle(
            [encode(CONTENTS[content](number)) for number in range(count)]
        )
        self.count, self.used = 0, 0.0

    def render_some(self) -> None:
        """A hundred messages."""
        render = self._render
        some = list(itertools.islice(self._bodies, _AT_ONCE))
        before = time.process_time()
        for body in some:
            render(body)
        self.used += time.process_time() - before
        self.count += len(some)


def main() -> None:
    """Measure and print."""
    content, seconds, *names = sys.argv[1:]
    ways = {name: Measured(name, content) for name in names or WAYS}
    until = time.perf_counter() + float(seconds)
    while time.perf_counter() < until:
        for way in ways.values():
            way.render_some()
    print(json.dumps({name: way.used / way.count for name, way in ways.items()}))


# Sides.


def _check_protobuf() -> None:
    try:
        from google.protobuf.internal import api_implementation
    except ImportError as error:
        raise Unavailable("protobuf is not installed (make test installs it)") from error
    if api_implementation.Type() != "upb":
        raise Unavailable(f"this protobuf is the {api_implementation.Type()} one, not upb")


def _round(run: Run, content: str) -> tuple[dict[str, float], str]:
    try:
        _check_protobuf()
    except Unavailable:
        ways = ["ours"]
    else:
        ways = list(WAYS)
    command = python("benchmarks.codec", content, len(ways) * run.seconds, *ways)
    told: dict[str, float] = measured(MEASURED_CORE, *command)
    return told, command_line(MEASURED_CORE, command)


def _side(way: str, content: str) -> Side:
    def side(run: Run) -> Figure:
        if way == "protobuf":
            _check_protobuf()
        costs, command = run.once(f"codec {content} {run.round}", lambda: _round(run, content))
        return Figure(costs[way] * 1e6, "µs each", command)

    return side


SIDES: dict[str, Side] = {
    f"codec {way} {content}": _side(way, content) for way in WAYS for content in CONTENTS
}

if __name__ == "__main__":
    main()
