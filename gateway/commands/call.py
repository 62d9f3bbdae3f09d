"""`zap-gateway call`: any RPC straight over Z-Wing, JSON out."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar, cast

from pydantic import ValidationError

from gateway import schema
from gateway.commands.options import UPSTREAM_SETTINGS, add_settings, settings_from
from gateway.durations import parse_duration
from gateway.process import run
from gateway.settings import Settings, SettingsError
from zapcore.client import NetrunnerClient, connect
from zapcore.codec import Message
from zapcore.methods import METHODS, Method
from zapcore.zwing.identity import Identity

EPILOG = """\
  zap-gateway call Status --server SHA256:...
  zap-gateway call PauseNode '{"name": "node1"}' --server SHA256:...
  zap-gateway call StreamStatus '{"pushInterval": 1000000000}' --server SHA256:...

The RPCs: """ + ", ".join(METHODS)

_MAX_REQUEST = 16 * 1024 * 1024
_QUIET, _EVERY = 1.0, 5.0
"""Seconds before the first word on a wait, and between words where there is no terminal."""

T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("rpc", metavar="RPC", help="the RPC's name; case, - and _ don't matter")
    parser.add_argument("request", metavar="JSON", nargs="?", help="its request; - reads it")
    parser.add_argument("--timeout", default="120s", metavar="TIME", help="as in 500ms, 30s, 5m")
    add_settings(parser, UPSTREAM_SETTINGS)


def main(arguments: argparse.Namespace) -> int:
    """Call, and print the answer."""
    method = _method(arguments.rpc)
    request = _request(method, arguments.request)
    try:
        timeout = parse_duration(arguments.timeout)
    except ValueError as error:
        raise SettingsError(f"--timeout {error}") from error
    with contextlib.suppress(KeyboardInterrupt):
        return run(_call(settings_from(arguments), method, request, timeout))
    return 130


def _method(name: str) -> Method[Message, Message]:
    plain = name.replace("-", "").replace("_", "").lower()
    for method in METHODS.values():
        if method.name.lower() == plain:
            return method
    raise SettingsError(f"there is no RPC {name!r}; there are: {', '.join(METHODS)}")


def _request(method: Method[Message, Message], text: str | None) -> Message:
    if text == "-":
        text = sys.stdin.read(_MAX_REQUEST)
    try:
        return schema.to_message(schema.model_of(method.request).model_validate_json(text or "{}"))
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'JSON'}: {item['msg']}" for item in error.errors()
        )
        raise SettingsError(f"the request of {method}: {wrong}") from error


async def _call(
    settings: Settings, method: Method[Message, Message], request: Message, timeout: float
) -> int:
    async with _client(settings) as client:
        if method.streaming:
            stream = cast("AsyncGenerator[Message, None]", client.stream(method, request))
            async with aclosing(stream) as states:
                async for state in states:
                    _print(state)
        else:
            _print(await _with_progress(str(method), client.call(method, request, timeout=timeout)))
    return 0


@asynccontextmanager
async def _client(settings: Settings) -> AsyncIterator[NetrunnerClient]:
    """A client as the settings say; without an identity of its own, keys for this one call."""
    identity = settings.load_identity() if settings.identity else Identity.generate()
    async with connect(
        settings.upstream,
        identity=identity,
        server=settings.expected_server(),
        connect_timeout=settings.connect_timeout,
    ) as client:
        yield client


def _print(message: Message) -> None:
    sys.stdout.write(schema.to_json(message).decode() + "\n")
    sys.stdout.flush()


async def _with_progress(name: str, call: Awaitable[T]) -> T:
    """Await a call; say on standard error that it is still under way."""
    progress = asyncio.create_task(_progress(name))
    try:
        return await call
    finally:
        progress.cancel()
        await asyncio.gather(progress, return_exceptions=True)
        if sys.stderr.isatty():
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


async def _progress(name: str) -> None:
    started = time.monotonic()
    on_terminal = sys.stderr.isatty()
    while True:
        await asyncio.sleep(_QUIET if on_terminal else _EVERY)
        text = f"{name}: waiting for {time.monotonic() - started:.0f} s"
        sys.stderr.write(f"\r{text}\033[K" if on_terminal else f"{text}\n")
        sys.stderr.flush()
