"""The command `zap-gateway`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from gateway.settings import SettingsError
from zapcore.errors import ZapError

COMMANDS = ("dev", "serve", "simulate", "call", "identity", "token", "openapi")

DESCRIPTION = """\
HTTP/JSON and Server-Sent Events for netrunner's native protocol over Z-Wing.
"""
EPILOG = """\
Start here:
  zap-gateway dev                     a simulated cluster and the gateway, on this machine
  zap-gateway serve --help            the gateway in front of a real netrunner server
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    parser = argparse.ArgumentParser(
        "zap-gateway",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version("zap-gateway"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"gateway.commands.{name}")
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=f"{module.HELP[0].upper()}{module.HELP[1:]}.",
            epilog=module.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(main=module.main)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit status is 0, 1 for what went wrong, 2 for what was asked wrongly."""
    arguments = build_parser().parse_args(argv)
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
