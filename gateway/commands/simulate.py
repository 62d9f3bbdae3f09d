"""`zap-gateway simulate`: a netrunner server whose cluster exists only in memory."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from gateway.logs import configure_logging
from gateway.process import run
from gateway.settings import SettingsError
from zapcore.connection import DEFAULT_PORT
from zapcore.errors import IdentityError
from zapcore.server import NetrunnerServer
from zapcore.simulator import DEFAULT_NODES, HEALTH_DELAY, MAX_NODES, SimulatedNetrunner
from zapcore.zwing.identity import Identity, PublicIdentity

EPILOG = """\
It speaks the real protocol over real Z-Wing, so the gateway, `zap-gateway call` and Go clients
can't tell it from a real one. Nothing is written and no node runs.
"""


_LONGEST_DELAY = 86_400.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument(
        "--port",
        type=int,
        default=DEFAULT_PORT,
        help=f"port to listen on ({DEFAULT_PORT}); 0 takes any free one",
    )
    parser.add_argument(
        "--nodes",
        type=int,
        default=DEFAULT_NODES,
        help=f"nodes that run from the start ({DEFAULT_NODES}); 0 for no cluster yet",
    )
    parser.add_argument(
        "--health-delay",
        type=float,
        default=HEALTH_DELAY,
        metavar="SECONDS",
        help=f"time that a node takes to become healthy ({HEALTH_DELAY:g})",
    )
    parser.add_argument(
        "--identity", type=Path, metavar="FILE", help="its identity file (default: fresh keys)"
    )
    parser.add_argument(
        "--client",
        type=Path,
        action="append",
        metavar="FILE",
        help="public identity of a client to let in (repeatable; default: everybody)",
    )
    parser.add_argument("--json", action="store_true", help="say where it listens as JSON")
    parser.add_argument("--exit-with-stdin", action="store_true", help=argparse.SUPPRESS)


def main(arguments: argparse.Namespace) -> int:
    """Run until a signal comes."""
    if not 0 <= arguments.nodes <= MAX_NODES:
        raise SettingsError(f"--nodes {arguments.nodes}: from 0 to {MAX_NODES} can be simulated")
    if not 0 <= arguments.health_delay <= _LONGEST_DELAY:  # which nan is not either
        raise SettingsError(
            f"--health-delay {arguments.health_delay:g}: from 0 to {_LONGEST_DELAY:g} seconds"
        )
    if not 0 <= arguments.port <= 65535:
        raise SettingsError(f"--port {arguments.port}: ports are 0 to 65535")
    configure_logging("warning")
    try:
        identity = Identity.load(arguments.identity) if arguments.identity else Identity.generate()
        clients = [PublicIdentity.load(path) for path in arguments.client or ()]
    except IdentityError as error:
        raise SettingsError(str(error)) from error
    return run(_serve(arguments, identity, clients or None))


async def _serve(
    arguments: argparse.Namespace, identity: Identity, clients: list[PublicIdentity] | None
) -> int:
    backend = SimulatedNetrunner(arguments.nodes, arguments.health_delay)
    server = NetrunnerServer(backend, identity, clients)
    try:
        await server.start(arguments.host, arguments.port)
    except OSError as error:
        raise SettingsError(
            f"can't listen on {arguments.host} port {arguments.port}: {error.strerror or error}."
            " Choose another with --port"
        ) from error
    stop = _stop_by_signal()
    _announce(server, identity, arguments.nodes, as_json=arguments.json)
    await _told_to_stop(stop, arguments.exit_with_stdin)
    await server.close()
    return 0


def _announce(server: NetrunnerServer, identity: Identity, nodes: int, *, as_json: bool) -> None:
    fingerprint = identity.public.fingerprint
    if as_json:
        told = {"address": server.address, "fingerprint": fingerprint, "pid": os.getpid()}
        print(json.dumps(told), flush=True)
        return
    print(f"Simulated netrunner with {nodes} nodes on {server.address}, process {os.getpid()}")
    print(f"Fingerprint: {fingerprint}")
    print("Try, in another terminal:")
    print(f"  zap-gateway call Status --upstream {server.address} --server {fingerprint}")
    print("Ctrl-C stops it.", flush=True)


def _stop_by_signal() -> asyncio.Event:
    """What SIGINT and SIGTERM set, from now on."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _told_to_stop(stop: asyncio.Event, with_stdin: bool) -> None:
    loop = asyncio.get_running_loop()
    if with_stdin:
        loop.add_reader(sys.stdin.fileno(), stop.set)
    await stop.wait()
    if with_stdin:
        loop.remove_reader(sys.stdin.fileno())
