"""GET /v1/status: the gateway, and what it is compared with, loaded by 32 clients."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from benchmarks.processes import (
    LOAD_CORE,
    MEASURED_CORE,
    answer_of,
    measured,
    processor_seconds,
    python,
    upstream_bytes,
)
from benchmarks.sides import Figure, Process, Run, Side, Unavailable
from tools.go_peer import PeerError, build

CLIENTS = 32
PATH = "/v1/status"
ONE_PROCESSOR = {"GOMAXPROCS": "1"}
_WARM_UP = 0.5


class Served(NamedTuple):
    """An HTTP server under measurement."""

    process: Process
    port: int


def go_peer(run: Run) -> str:
    """The Go program, built if need be.

    Raises:
        Unavailable: there is no Go here, or it can't build it.
    """
    try:
        return str(run.once("go peer", build))
    except PeerError as error:
        raise Unavailable(str(error)) from error


def upstream(server: Any) -> tuple[str, str, str, str]:
    """What the Go program is told of a server."""
    return ("-address", server["address"], "-server", server["identity"])


def app(run: Run, name: str) -> Served:
    """The application of that name on the measured core; its first answer is checked."""
    server = "--changing" if name.endswith("changing") else ""
    if name == "go gateway":
        program, told = go_peer(run), run.server(server)
        command = lambda: (program, "gateway", *upstream(told))  # noqa: E731
        process = run.process(name, MEASURED_CORE, command, ONE_PROCESSOR)
        port = int(process.told["address"].rpartition(":")[2])
    else:
        process = run.process(name, MEASURED_CORE, lambda: _ours(run, name, server))
        port = process.told["port"]
    run.once(f"warm {name}", lambda: _warm_up(port, check=not server))
    return Served(process, port)


def _ours(run: Run, name: str, server: str) -> tuple[str, ...]:
    if not name.startswith("gateway"):
        return python("benchmarks.apps", name)
    told = run.server(server)
    return python("benchmarks.apps", "gateway", told["address"], told["fingerprint"])


def _warm_up(port: int, *, check: bool) -> None:
    """All sides answer with the same document, but for the process id of the server in it."""
    from benchmarks.codec import status_of_five_nodes
    from gateway import schema

    document = json.loads(answer_of(f"http://127.0.0.1:{port}{PATH}"))
    expected = schema.to_document(status_of_five_nodes())
    if check and _without_pid(document) != _without_pid(expected):
        raise RuntimeError(f"another answer than was expected: {document}")
    load(port, CLIENTS, _WARM_UP)


def _without_pid(document: Any) -> Any:
    return {"clusterInfo": {**document["clusterInfo"], "pid": 0}}


def load(port: int, clients: int, seconds: float) -> Any:
    """Load a server from the other core; what the load tells."""
    return measured(LOAD_CORE, *python("benchmarks.load", port, PATH, clients, seconds))


def _side(name: str, clients: int = CLIENTS) -> Side:
    def side(run: Run) -> Figure:
        served = app(run, name)
        before = processor_seconds(served.process.pid)
        told = load(served.port, clients, run.seconds)
        used = processor_seconds(served.process.pid) - before
        per_second = told["answers"] / told["seconds"]
        more = {**told, "processor_seconds": used, "per_second": per_second}
        return Figure(told["answers"] / used, "per core s", served.process.command, more)

    return side


def _bytes_from_server(clients: int) -> Side:
    """What the server sends for each answer: less where requests share a call."""

    def side(run: Run) -> Figure:
        served = app(run, "gateway")
        before = upstream_bytes(served.port)
        told = load(served.port, clients, min(run.seconds, _WARM_UP))
        received = upstream_bytes(served.port) - before
        return Figure(received / told["answers"], "bytes each", served.process.command, told)

    return side


SIDES: dict[str, Side] = {
    name: _side(name) for name in ("bare", "model", "gateway", "gateway changing", "go gateway")
}
SIDES["bare 1"] = _side("bare", 1)
SIDES["gateway 1"] = _side("gateway", 1)
SIDES["bytes 1"] = _bytes_from_server(1)
SIDES["bytes 32"] = _bytes_from_server(CLIENTS)
