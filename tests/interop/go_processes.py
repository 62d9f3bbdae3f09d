"""The Go program as a process: what it says, what it is told, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import secret_search
from tests.integration.zap_helpers import soon
from tests.interop.go_json import from_go, to_go
from zapcore.codec import Message
from zapcore.methods import METHODS, Method
from zapcore.zwing import PublicIdentity

_LONGEST_LINE = 64 * 1024 * 1024
"""Bytes. A request of 16 MiB is a third more in base64."""


class GoProcess:
    """One run of the program. Its output is read as it comes, so that it never waits for us."""

    def __init__(self, process: asyncio.subprocess.Process, arguments: tuple[str, ...]) -> None:
        self.process = process
        self.arguments = arguments
        self.lines: list[Any] = []
        """What it said on its standard output, parsed."""
        self.stderr = ""
        self._came = asyncio.Event()
        self._ended = False
        self._taken = 0
        self._readers = [
            asyncio.create_task(self._read_output()),
            asyncio.create_task(self._read_errors()),
        ]

    async def _read_output(self) -> None:
        assert self.process.stdout is not None
        try:
            async for line in self.process.stdout:
                self.lines.append(json.loads(line))
                self._came.set()
        finally:
            self._ended = True
            self._came.set()

    async def _read_errors(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.stderr += line.decode("utf-8", "replace")

    @property
    def pid(self) -> int:
        return self.process.pid

    async def line(self) -> Any:
        """The next line that nobody took yet."""
        await soon(self._more())
        self._taken += 1
        return self.lines[self._taken - 1]

    async def _more(self) -> None:
        while len(self.lines) <= self._taken:
            assert not self._ended, f"the Go program said no more: {self.stderr}"
            self._came.clear()
            await self._came.wait()

    async def tell(self, value: object) -> None:
        """A JSON line on its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(value).encode() + b"\n")
        with suppress(ConnectionError):  # what became of it, its exit status tells
            await self.process.stdin.drain()

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    async def wait(self) -> int:
        """Its exit status, once it is gone and everything that it said is read."""
        status = await soon(self.process.wait())
        await soon(asyncio.gather(*self._readers))
        return status

    async def finish(self) -> int:
        """End its input, which ends it; its exit status."""
        assert self.process.stdin is not None
        with suppress(ConnectionError):
            self.process.stdin.close()
            await self.process.stdin.wait_closed()
        return await self.wait()

    async def kill(self) -> None:
        """End it as the system does when memory runs out: nothing is said to anybody."""
        self.send(signal.SIGKILL)
        assert await self.wait() == -signal.SIGKILL

    async def clean_up(self) -> None:
        """Whatever happened, leave nothing running, and show what it said to people."""
        try:
            if self.process.returncode is None:
                await self.finish()
        except TimeoutError as error:
            raise AssertionError("the Go program did not end with its input") from error
        finally:
            if self.process.returncode is None:
                self.process.kill()
                await self.process.wait()
            await asyncio.gather(*self._readers, return_exceptions=True)
            self._show()

    def _show(self) -> None:
        """pytest shows it with a test that fails."""
        words = ("peer", *self.arguments[:1])
        secret_search.session.command(words, self.stderr, repr(self.lines))
        if self.stderr:
            sys.stderr.write(f"`{' '.join(words)}` said:\n{self.stderr}")


@asynccontextmanager
async def go_process(peer: Path, *arguments: object) -> AsyncIterator[GoProcess]:
    """Run the program for the length of the block; the end of its input tells it to stop."""
    words = tuple(map(str, arguments))
    process = await asyncio.create_subprocess_exec(
        peer,
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
    )
    running = GoProcess(process, words)
    try:
        yield running
    finally:
        await running.clean_up()
    assert process.returncode is not None


@dataclass
class GoServer:
    """`peer serve`: the reference's server with the scripted backend (see script.py)."""

    process: GoProcess
    address: str
    identity: PublicIdentity

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    async def received(self) -> list[tuple[str, Message]]:
        """End it; all that reached its backend, but for Pings, which a pool sends by itself.

        While it runs, an answer may be here before the line about its request.
        """
        assert await self.process.finish() == 0
        return [
            (line["rpc"], from_go(METHODS[line["rpc"]].request, line["request"]))
            for line in self.process.lines[1:]
            if line["rpc"] != "Ping"
        ]

    @property
    def rpcs(self) -> list[str]:
        """The RPCs that reached its backend so far, likewise."""
        return [line["rpc"] for line in self.process.lines[1:] if line["rpc"] != "Ping"]

    async def received_rpcs(self) -> list[str]:
        """The RPCs of `received`."""
        await self.received()
        return self.rpcs


@asynccontextmanager
async def go_server(
    peer: Path,
    *,
    port: int = 0,
    seed: str | None = None,
    client: PublicIdentity | None = None,
) -> AsyncIterator[GoServer]:
    """A Go server.

    Args:
        peer: the program.
        port: 0 takes any.
        seed: makes its identity the same each time.
        client: the only client that it lets in.
    """
    options: list[object] = ["-listen", f"127.0.0.1:{port}"]
    if seed is not None:
        options += ["-seed", seed]
    if client is not None:
        options += ["-client", bytes(client).hex()]
    async with go_process(peer, "serve", *options) as process:
        first = await process.line()
        assert set(first) == {"address", "identity", "pid"}
        assert first["pid"] == process.pid
        identity = PublicIdentity.from_bytes(bytes.fromhex(first["identity"]))
        yield GoServer(process, first["address"], identity)


class GoError(Exception):
    """What the Go client made of an error text."""


class GoClient:
    """`peer client`: the reference's client."""

    def __init__(self, process: GoProcess, identity: PublicIdentity) -> None:
        self.process = process
        self.identity = identity

    async def call(
        self, method: Method[Message, Message], request: Message | None = None
    ) -> Message:
        """Call once.

        Raises:
            GoError: with the text that the Go client gives.
        """
        await self.send(method, request)
        return await self.answer(method)

    async def send(self, method: Method[Message, Message], request: Message | None = None) -> None:
        """Tell it to call; it makes one call after the other."""
        fields = to_go(method.request() if request is None else request)
        await self.process.tell({"rpc": method.name, "request": fields})

    async def answer(self, method: Method[Message, Message]) -> Message:
        """The next call's answer."""
        line = await self.process.line()
        assert line["rpc"] == method.name
        if "error" in line:
            assert set(line) == {"rpc", "error"}
            raise GoError(line["error"])
        assert set(line) == {"rpc", "response"}
        return from_go(method.response, line["response"])


@asynccontextmanager
async def go_client(
    peer: Path, address: str, server: PublicIdentity | None = None, seed: str | None = None
) -> AsyncIterator[GoClient]:
    """A Go client of a server of ours; ``server`` is whom it accepts."""
    options: list[object] = ["-address", address]
    if server is not None:
        options += ["-server", bytes(server).hex()]
    if seed is not None:
        options += ["-seed", seed]
    async with go_process(peer, "client", *options) as process:
        first = await process.line()
        assert set(first) == {"identity"}
        yield GoClient(process, PublicIdentity.from_bytes(bytes.fromhex(first["identity"])))


def one_line(text: str) -> str:
    """What a program that failed tells people: one line, and no trace of its inside."""
    (line,) = text.splitlines()
    assert "goroutine" not in line
    return line
