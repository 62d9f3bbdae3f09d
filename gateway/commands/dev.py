"""`zap-gateway dev`: a simulated netrunner and the gateway, with keys that go with them."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypedDict

from gateway.app import Gateway
from gateway.logs import configure_logging
from gateway.process import Server, allow_open_files, listen, run, url_of
from gateway.settings import DEFAULT_PORT, Settings, SettingsError, load_settings
from zapcore.errors import ZapError
from zapcore.simulator import DEFAULT_NODES
from zapcore.zwing.identity import Identity

EPILOG = "This is what `make run` does. Everything it makes is gone when it stops."

_START_TIME = 20.0

logger = logging.getLogger(__name__)


class Announcement(TypedDict):
    """What the simulated netrunner says of itself."""

    address: str
    fingerprint: str
    pid: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("--host", default="127.0.0.1", help="the gateway's address (127.0.0.1)")
    parser.add_argument(
        "--port", default=str(DEFAULT_PORT), help=f"the gateway's port ({DEFAULT_PORT}); 0 for any"
    )
    parser.add_argument(
        "--nodes", default=str(DEFAULT_NODES), help=f"nodes to simulate ({DEFAULT_NODES})"
    )


def main(arguments: argparse.Namespace) -> int:
    """Run both until a signal comes."""
    configure_logging("warning")
    # What the environment says is meant for a real gateway, not for this one.
    given = {"host": arguments.host, "port": arguments.port, "drain_grace": 0}
    settings = load_settings(given, environment=False)
    settings.check_bind()
    allow_open_files(settings.max_connections)
    listener = listen(settings.host, settings.port)
    return run(_dev(settings, listener, arguments.nodes))


async def _dev(settings: Settings, listener: socket.socket, nodes: str) -> int:
    """Run both. A signal while they start must leave neither the keys nor a process behind."""
    serving = asyncio.Event()
    running = asyncio.create_task(_run_both(settings, listener, nodes, serving))

    def stop_starting() -> None:
        if not serving.is_set():  # the HTTP server handles its own signals
            running.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop_starting)
    await asyncio.wait((running,))
    if not running.cancelled():
        running.result()
    return 0


async def _run_both(
    settings: Settings, listener: socket.socket, nodes: str, serving: asyncio.Event
) -> None:
    identity, server_identity = Identity.generate(), Identity.generate()
    with tempfile.TemporaryDirectory(prefix="zap-gateway-") as name:
        folder = Path(name)
        identity.public.save(folder / "gateway.pub")
        server_identity.save(folder / "netrunner.json")
        async with _simulation(folder, nodes) as (process, announcement):
            settings = settings.model_copy(update={"upstream": announcement["address"]})
            gateway = Gateway(settings, identity, server_identity.public)
            watching = asyncio.create_task(_watch(process))
            greeting = asyncio.create_task(_greet(gateway, url_of(listener), announcement))
            serving.set()
            try:
                await Server(gateway, settings).serve([listener])
            finally:
                for task in (watching, greeting):
                    task.cancel()
                await asyncio.gather(watching, greeting, return_exceptions=True)


@asynccontextmanager
async def _simulation(folder: Path, nodes: str) -> AsyncIterator[tuple[Process, Announcement]]:
    """The simulated netrunner in a process of its own; it ends when its standard input does."""
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-P",
            "-m",
            "gateway",
            "simulate",
            "--port",
            "0",
            "--nodes",
            nodes,
            "--json",
        ),
        *("--identity", str(folder / "netrunner.json"), "--client", str(folder / "gateway.pub")),
        "--exit-with-stdin",
        stdin=PIPE,
        stdout=PIPE,
        start_new_session=True,  # Ctrl-C is for the gateway, which then ends this process
    )
    assert process.stdin is not None  # noqa: S101 - they are pipes
    assert process.stdout is not None  # noqa: S101
    try:
        async with asyncio.timeout(_START_TIME):
            line = await process.stdout.readline()
        if not line:
            raise SettingsError("the simulated netrunner did not start; its reason stands above")
        yield process, json.loads(line)
    finally:
        process.stdin.close()
        await process.wait()


async def _watch(process: Process) -> None:
    status = await process.wait()
    logger.warning("the simulated netrunner ended (status %d); the gateway answers 503", status)


async def _greet(gateway: Gateway, url: str, announcement: Announcement) -> None:
    """Say what runs where, once it does."""
    try:
        await gateway.pool.wait_connected(_START_TIME)
    except ZapError as error:
        logger.error("no connection to the simulated netrunner: %s", error)
    watched = "" if url == f"http://127.0.0.1:{DEFAULT_PORT}" else f" {url}"
    print(
        f"""
Simulated netrunner  {announcement["address"]}, process {announcement["pid"]}
                     {announcement["fingerprint"]}
Console              {url}/
API documents        {url}/docs

Try, in another terminal:

  curl {url}/v1/status
  curl -X POST {url}/v1/nodes/node1/pause
  curl -N {url}/v1/events/stream
  {_program()} watch{watched}

Ctrl-C stops both.
""",
        flush=True,
    )


def _program() -> str:
    """This command, as it can be typed again."""
    given = Path(sys.argv[0])
    if given.name != "zap-gateway":
        return "zap-gateway"
    try:
        return str(given.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(given)
