"""`zap-gateway token`: make a token for the gateway's clients."""

from __future__ import annotations

import argparse
import json

from gateway.auth import TokenFileError, new_token, token_line
from gateway.settings import SettingsError

EPILOG = """\
  zap-gateway token new alice --scope read

The token is shown once. Put the line that comes with it into the file given to `serve --tokens`:
it holds a digest, and the token can't be read from it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = actions.add_parser("new", help="make one")
    new.add_argument("name", help="whose it is, for the log")
    new.add_argument(
        "--scope",
        choices=("read", "operate"),
        default="read",
        help="what it allows: only reading (the default), or everything",
    )
    new.add_argument("--json", action="store_true", help="as JSON")


def main(arguments: argparse.Namespace) -> int:
    """Make one and print it."""
    secret = new_token()
    try:
        line = token_line(arguments.name, arguments.scope, secret)
    except TokenFileError as error:
        raise SettingsError(str(error)) from error
    if arguments.json:
        print(json.dumps({"token": secret, "line": line}))
    else:
        print(f"Token, shown once:  {secret}")
        print(f"Line for the file:  {line}")
    return 0
