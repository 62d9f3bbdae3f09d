"""`zap-gateway watch`: the cluster in a terminal, and a line per event where there is none."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import select
import ssl
import stat
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import TypeAlias
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from gateway.auth import is_loopback
from gateway.durations import parse_bounded
from gateway.settings import DEFAULT_PORT, ENVIRONMENT_PREFIX, SettingsError
from gateway.terminal.client import Frame, Lost, Reached, StreamRefused, Target, Told, follow
from gateway.terminal.text import visible
from gateway.terminal.view import Instant, View, look

TOKEN_VARIABLE = f"{ENVIRONMENT_PREFIX}CLIENT_TOKEN"
DEFAULT_URL = f"http://127.0.0.1:{DEFAULT_PORT}"

EPILOG = f"""\
  zap-gateway watch                                the gateway on this machine
  zap-gateway watch https://tools.example/netrunner
  zap-gateway watch --types node.paused,node.resumed | tee events.txt
  zap-gateway watch --json | jq 'select(.type == "upstream.lost")'

On a terminal: the nodes and the latest events, until Ctrl-C. Elsewhere: a line per event, and one
for the state when it begins or when its health or the number of nodes changes. A gateway that goes
away is waited for, and asked for what happened meanwhile; a line tells where some is missing (gap).

A gateway with tokens wants one (the scope read is enough): in the variable
{TOKEN_VARIABLE}, or in a file that only you can read, with --token-file.
"""

_STREAM = "v1/events/stream"
_SHORTEST, _LONGEST = 0.1, 3600.0
_TOKEN = re.compile(r"[!-~]{1,4096}")
_MAX_TOKEN_FILE = 64 * 1024
_UNKNOWN_ISSUER = frozenset({18, 19, 20, 21})
"""OpenSSL's codes for a certificate that nobody who is trusted has signed."""

_WRAPPED = frozenset({"status", "error", "restart", "end"})

Stream: TypeAlias = Iterable[Told]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "url", metavar="URL", nargs="?", default=DEFAULT_URL, help=f"the gateway ({DEFAULT_URL})"
    )
    parser.add_argument(
        "--interval", default="1s", metavar="TIME", help="between two looks, as in 500ms, 5s (1s)"
    )
    parser.add_argument("--types", metavar="A,B", help="only these events (default: all)")
    parser.add_argument("--json", action="store_true", help="everything as it comes, as NDJSON")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file that holds a token")
    parser.add_argument(
        "--ca",
        type=Path,
        metavar="FILE",
        help="certificate (PEM) to trust, not the system's",
    )


def main(arguments: argparse.Namespace) -> int:
    """Watch until interrupted, or until there is nothing to watch."""
    url = _url(arguments.url)
    target = Target(
        _stream_url(url, arguments), _token(arguments.token_file), _trust(url, arguments.ca)
    )
    if target.token is not None and url.scheme == "http" and not is_loopback(url.hostname or ""):
        _say("the token crosses the network in the clear: use https")
    output = _json if arguments.json else _screen if _has_screen() else _plain
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names that its encoding lacks
    try:
        with closing(follow(target)) as stream:
            output(stream, visible(url.geturl()))
    except StreamRefused as error:
        if error.status == HTTPStatus.UNPROCESSABLE_ENTITY:
            raise SettingsError(str(error)) from error
        _say(f"{visible(url.geturl())}: {error}{_hint(error, target)}")
    return 1


def _say(text: str) -> None:
    print(f"zap-gateway watch: {text}", file=sys.stderr, flush=True)


def _hint(error: StreamRefused, target: Target) -> str:
    if error.status == HTTPStatus.UNAUTHORIZED and target.token is None:
        return f" (put the token into {TOKEN_VARIABLE}, or into a file for --token-file)"
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError) and cause.verify_code in _UNKNOWN_ISSUER:
        return " (give the authority's certificate with --ca FILE)"
    return ""


# What was asked for.


def _url(text: str) -> SplitResult:
    """Where the gateway is. What is refused is not quoted: a password may be in it."""
    try:
        url = urlsplit(text)
        is_plain = not (url.query or url.fragment or "@" in url.netloc)
        if url.scheme in ("http", "https") and url.hostname and url.port != 0 and is_plain:
            return url._replace(path=quote(url.path.rstrip("/"), safe="/%~"))
    except ValueError:  # a port that is none, a bracket that is not closed
        pass
    raise SettingsError(
        f"the URL is none that can be watched: give it as in {DEFAULT_URL} or"
        " https://tools.example/netrunner, without a user, a query or a fragment"
    )


def _stream_url(url: SplitResult, arguments: argparse.Namespace) -> SplitResult:
    try:
        parse_bounded(arguments.interval, _SHORTEST, _LONGEST)
    except ValueError as error:
        raise SettingsError(f"--interval {error}") from error
    query = {"status": "true", "interval": arguments.interval}
    if arguments.types is not None:
        query["types"] = arguments.types
    return url._replace(path=f"{url.path}/{_STREAM}", query=urlencode(query, safe=","))


def _trust(url: SplitResult, authority: Path | None) -> ssl.SSLContext | None:
    if url.scheme == "http":
        if authority is not None:
            raise SettingsError("--ca is for a gateway that speaks HTTPS: give an https URL")
        return None
    try:
        context = ssl.create_default_context(cafile=authority)
    except OSError as error:
        raise SettingsError(f"--ca {authority}: {error.strerror or error}") from error
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it may be the gateway's own
    if authority is not None:
        # From 3.13 on Python demands more of certificates than those that are made by hand have.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _token(path: Path | None) -> str | None:
    """The token to show, without quoting what is none."""
    if path is None:
        source, token = TOKEN_VARIABLE, os.environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            return None
    else:
        source, token = str(path), _read_private(path).strip()
    if _TOKEN.fullmatch(token) is None:
        raise SettingsError(
            f"{source} holds no token: `zap-gateway token new NAME` makes one, and what belongs"
            " here begins with zgw_"
        )
    return token


def _read_private(path: Path) -> str:
    try:
        with path.open("rb") as file:
            _check_mode(path, os.fstat(file.fileno()))
            return file.read(_MAX_TOKEN_FILE).decode("ascii", "replace")
    except OSError as error:
        raise SettingsError(f"can't read {path}: {error.strerror}") from error


def _check_mode(path: Path, status: os.stat_result) -> None:
    """Refuse what others can read, by the rule for identity files."""
    mode = stat.S_IMODE(status.st_mode)
    if mode & (0o077 if status.st_uid == os.geteuid() else 0o007):
        raise SettingsError(f"others can read {path} (mode {mode:04o}): chmod 600 {path}")


# What is shown.


def _has_screen() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def _now() -> Instant:
    text = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Instant(time.monotonic(), text)


def _screen(stream: Stream, url: str) -> None:
    from gateway.terminal.screen import Screen  # only here: it takes a while to load

    view = View()
    stream = _after_first(stream)
    with Screen(url) as screen:
        for told in stream:
            view, _ = look(view, told, _now())
            screen.show(view)


def _after_first(stream: Stream) -> Stream:
    """The same, once there is a first word: what can't be had at all needs no screen."""
    waiting = iter(stream)
    first = next(waiting)

    def all_of_them() -> Stream:
        yield first
        yield from waiting

    return all_of_them()


def _plain(stream: Stream, url: str) -> None:
    del url
    view = View()
    for told in stream:
        if isinstance(told, (Lost, Reached)):
            view = _say_of_gateway(view, told)
        else:
            view, entries = look(view, told, _now())
            for entry in entries:
                print(entry, flush=True)
        _check_reader()


def _say_of_gateway(view: View, told: Lost | Reached) -> View:
    """What is about the gateway itself is no event, and does not belong between them."""
    view, entries = look(view, told, _now())
    for entry in entries:
        _say(entry.sentence)
    return view


def _json(stream: Stream, url: str) -> None:
    del url
    view = View()
    for told in stream:
        if isinstance(told, Frame):
            document = {told.kind: told.document} if told.kind in _WRAPPED else told.document
            # In ASCII, and so nothing that a terminal would act on.
            print(json.dumps(document, separators=(",", ":")), flush=True)
        elif isinstance(told, (Lost, Reached)):
            view = _say_of_gateway(view, told)
        _check_reader()


def _check_reader() -> None:
    """See that nobody reads any more even where there is nothing to write.

    Raises:
        BrokenPipeError: nobody does.
    """
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    poll = select.poll()
    poll.register(descriptor, 0)
    if any(state & select.POLLERR for _, state in poll.poll(0)):
        raise BrokenPipeError
