"""`zap-gateway serve`: the gateway in front of a netrunner server."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
import sys

from gateway.app import Gateway
from gateway.auth import is_loopback
from gateway.commands.options import add_settings, settings_from
from gateway.logs import RequestLog, configure_logging
from gateway.process import Server, allow_open_files, listen, load_certificate, run, url_of
from gateway.settings import Settings
from gateway.tracing import Tracing, TracingError, start_tracing
from gateway.workers import LISTENER_FLAG, Workers, read_key
from zapcore.zwing.identity import Identity

EPILOG = """\
Before the first time:
  zap-gateway identity new gateway.json          # the gateway's own keys
  zap-gateway serve --upstream HOST:9999 --identity gateway.json --server SHA256:...

Where the fingerprint comes from: the server's owner, or the error text of a first attempt without
--server, compared with what the server's owner says.

Signals: SIGTERM and Ctrl-C drain and stop, a second one stops at once; SIGHUP reads the tokens and
the certificate again.
"""

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add_settings(parser)
    parser.add_argument(LISTENER_FLAG, type=int, help=argparse.SUPPRESS)


def main(arguments: argparse.Namespace) -> int:
    """Run until a signal comes."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to read again
    settings = settings_from(arguments)
    settings.check_bind()
    log = configure_logging(settings.log_level, settings.log_format)
    allow_open_files(settings.max_connections)
    identity = settings.load_identity()
    if arguments.worker_listener is not None:
        listener = socket.socket(fileno=arguments.worker_listener)
        return run(_serve(settings, identity, listener, log, read_key()))
    # Also where workers will do so again: what is wrong shows once, and at once.
    load_certificate(settings)
    settings.expected_server()
    settings.load_tokens()
    listener = listen(settings.host, settings.port)
    _announce(settings, identity, listener)
    if settings.workers > 1:
        # Not on uvloop: it would undo what a worker inherits of signals.
        return asyncio.run(Workers(settings.workers, listener, arguments.argv).run())
    return run(_serve(settings, identity, listener, log))


def _announce(settings: Settings, identity: Identity, listener: socket.socket) -> None:
    url = url_of(listener, settings)
    print(
        f"zap-gateway: {url} → {settings.upstream}, as {identity.public.fingerprint}"
        f" (docs at {url}/docs, Ctrl-C stops)",
        file=sys.stderr,
        flush=True,
    )
    if settings.tls_certificate is None and not is_loopback(settings.host):
        logger.warning(
            "tokens cross the network in the clear: give --tls-certificate and --tls-key, or let"
            " only a proxy that speaks TLS reach this address"
        )


def _tracing() -> Tracing | None:
    try:
        return start_tracing()
    except TracingError as error:
        logger.warning("there are no traces: %s", error)
        return None


async def _serve(
    settings: Settings,
    identity: Identity,
    listener: socket.socket,
    log: RequestLog,
    ticket_key: bytes | None = None,
) -> int:
    gateway = Gateway(
        settings,
        identity,
        settings.expected_server(),
        ticket_key=ticket_key,
        tracing=_tracing(),
        request_log=log,
    )
    server = Server(gateway, settings, load_certificate(settings))
    if ticket_key is not None:
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _parent_is_gone, server)
    await server.serve([listener])
    return 1 if server.force_exit else 0


def _parent_is_gone(server: Server) -> None:
    asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
    logger.warning("the process that started this worker is gone: it stops too")
    server.stop()
