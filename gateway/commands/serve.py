"""`zap-gateway serve`: the gateway in front of a netrunner server."""

from __future__ import annotations

import argparse
import sys

from gateway.app import Gateway
from gateway.commands.options import add_settings, settings_from
from gateway.process import configure_logging, listen, run, serve, url_of

HELP = "serve HTTP in front of a netrunner server"
EPILOG = """\
Before the first time:
  zap-gateway identity new gateway.json          # the gateway's own keys
  zap-gateway serve --upstream HOST:9999 --identity gateway.json --server SHA256:...

Where the fingerprint comes from: the server's owner, or the error text of a first attempt without
--server, compared with what the server's owner says.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add_settings(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run until a signal comes."""
    settings = settings_from(arguments)
    settings.check_bind()
    configure_logging(settings.log_level)
    identity = settings.load_identity()
    gateway = Gateway(settings, identity, settings.expected_server())
    listener = listen(settings.host, settings.port)

    async def main_loop() -> int:
        print(
            f"zap-gateway: {url_of(listener)} → {settings.upstream}, as"
            f" {identity.public.fingerprint} (docs at {url_of(listener)}/docs, Ctrl-C stops)",
            file=sys.stderr,
            flush=True,
        )
        await serve(gateway, listener)
        return 0

    return run(main_loop())
