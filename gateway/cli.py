"""The command `zap-gateway`."""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

COMMANDS = {
    "dev": "run a simulated netrunner and the gateway, to try everything",
    "serve": "serve HTTP in front of a netrunner server",
    "simulate": "run a simulated netrunner server",
    "watch": "show the cluster and what happens to it, in a terminal or line by line",
    "call": "call an RPC straight over Z-Wing, without the gateway",
    "identity": "make, show and import identities",
    "token": "make a token for the gateway's clients",
    "healthcheck": "ask a running gateway whether it is well",
    "openapi": "print the OpenAPI document",
}

DESCRIPTION = """\
HTTP/JSON and Server-Sent Events for netrunner's native protocol over Z-Wing.
"""
EPILOG = """\
Start here:
  zap-gateway dev                     a simulated cluster and the gateway, on this machine
  zap-gateway serve --help            the gateway in front of a real netrunner server
"""


def build_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """The parser: all commands by name, and the chosen one with its flags.

    Only that one's module is imported: a health check must not cost what a server does.
    """
    parser = argparse.ArgumentParser(
        "zap-gateway",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version("zap-gateway"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == chosen:
            module = importlib.import_module(f"gateway.commands.{name}")
            command.epilog = module.EPILOG
            module.add_arguments(command)
            command.set_defaults(main=module.main)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit status is 0, 1 for what went wrong, 2 for what was asked wrongly."""
    given = sys.argv[1:] if argv is None else list(argv)
    chosen = next((word for word in given if not word.startswith("-")), None)
    gc.disable()  # what is imported stays, and looking for garbage in it takes its time
    try:
        arguments = build_parser(chosen).parse_args(given)
    finally:
        gc.freeze()
        gc.enable()
    arguments.argv = given
    return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    from gateway.settings import SettingsError
    from zapcore.errors import ZapError

    try:
        status: int = arguments.main(arguments)
    except SettingsError as error:
        print(f"zap-gateway {arguments.command}: {error}", file=sys.stderr)
        return 2
    except ZapError as error:
        print(f"zap-gateway {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output had enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return status
