"""Two ways to call an RPC and get its answer as JSON: over HTTP, and over a pool directly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from pydantic.alias_generators import to_camel

from gateway import schema
from gateway.errors import KINDS, kind_of
from gateway.routes.table import place_of
from zapcore import ConnectionPool
from zapcore.codec import Message
from zapcore.connection import parse_address
from zapcore.errors import ZapError
from zapcore.methods import Method

TABLE = {(kind.status, kind.code) for kind in KINDS}
"""Every documented error."""


class Failed(Exception):
    """The call was answered with an error of the table."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Caller(Protocol):
    """Calls one RPC at a time."""

    async def ask(
        self, method: Method[Message, Message], request: Message, timeout: float | None
    ) -> bytes:
        """The answer's JSON.

        Raises:
            Failed: there is another answer.
        """


class OverPool:
    """Calls over a pool."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    async def ask(
        self, method: Method[Message, Message], request: Message, timeout: float | None
    ) -> bytes:
        try:
            return schema.to_json(await self._pool.call(method, request, timeout=timeout))
        except ZapError as error:
            raise Failed(kind_of(error).code, str(error)) from error


class OverHttp:
    """Calls over a connection that is kept, as a browser does it, and costs next to nothing."""

    def __init__(self, address: str) -> None:
        self._host, self._port = parse_address(address)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(
        self, method: Method[Message, Message], request: Message, timeout: float | None
    ) -> bytes:
        status, body = await self.fetch(*_http(method, request, timeout))
        if status == 200:
            return body
        problem = json.loads(body)
        assert (status, problem["code"]) in TABLE, (status, body)
        assert problem["status"] == status
        assert problem["rpc"] == method.name
        raise Failed(problem["code"], problem["detail"])

    async def fetch(self, verb: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
        """An answer's status and body. Whoever gives up leaves the connection."""
        if self._reader is None or self._writer is None or self._reader.at_eof():
            await self.close()
            connecting = asyncio.open_connection(self._host, self._port)
            self._reader, self._writer = await connecting
        head = [f"{verb} {target} HTTP/1.1", f"Host: {self._host}:{self._port}"]
        if body:
            head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        self._writer.write("\r\n".join([*head, "", ""]).encode() + body)
        try:
            return await _answer(self._reader)
        except asyncio.CancelledError:
            await self.close()
            raise

    async def close(self) -> None:
        if self._writer is not None:
            writer, self._reader, self._writer = self._writer, None, None
            writer.close()
            await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    (size,) = (int(line[15:]) for line in lines if line.startswith(b"content-length:"))
    return int(status.split()[1]), await reader.readexactly(size)


@asynccontextmanager
async def over_http(address: str, count: int) -> AsyncIterator[list[OverHttp]]:
    """Clients of the gateway at host:port."""
    clients = [OverHttp(address) for _ in range(count)]
    try:
        yield clients
    finally:
        await asyncio.gather(*(client.close() for client in clients))


def _http(
    method: Method[Message, Message], request: Message, timeout: float | None
) -> tuple[str, str, bytes]:
    """The HTTP request for a call: verb, target, body."""
    place = place_of(method)
    given = {name: getattr(request, field) for name, field in place.parameters.items()}
    target = place.path.format(**given)
    if timeout is not None:
        target += f"?timeout={timeout:g}s"
    fields = json.loads(schema.to_json(request))
    in_path = {to_camel(field) for field in place.parameters.values()}
    rest = {name: value for name, value in fields.items() if name not in in_path}
    return place.verb, target, json.dumps(rest).encode() if rest else b""
