"""Gateways over real sockets: in this process for tests that look inside, or as commands."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    aclosing,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from jsonschema import Draft202012Validator

from gateway import process
from gateway.api import build_api
from gateway.app import Gateway
from gateway.errors import MEDIA_TYPE, TYPE_PREFIX
from gateway.routes.table import COMPATIBILITY
from gateway.settings import ENVIRONMENT_PREFIX, load_settings
from tests import secret_search
from tests.integration.zap_helpers import HANG, eventually, identity_of, soon, turns
from zapcore import messages as m
from zapcore.errors import NotBootstrapped
from zapcore.methods import METHODS
from zapcore.zwing import Identity

OURS = ("cache-control", "x-content-type-options", "x-request-id")
"""Headers of every answer."""


# The document, and answers that must be as it says.


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document."""
    return build_api(load_settings({}, environment=False)).openapi()


@cache
def all_operations() -> dict[tuple[str, str], dict[str, Any]]:
    """Every documented operation by method and path."""
    return {
        (verb.upper(), path): operation
        for path, verbs in document()["paths"].items()
        for verb, operation in verbs.items()
    }


@cache
def operations() -> dict[tuple[str, str], dict[str, Any]]:
    """Those that are not of netrunner's old API, which has manners of its own."""
    return {
        key: operation
        for key, operation in all_operations().items()
        if COMPATIBILITY not in operation["tags"]
    }


@cache
def old_operations() -> dict[tuple[str, str], dict[str, Any]]:
    """Those of netrunner's old API."""
    return {
        key: operation
        for key, operation in all_operations().items()
        if COMPATIBILITY in operation["tags"]
    }


@cache
def _path_patterns() -> list[tuple[re.Pattern[str], str]]:
    paths = sorted({path for _, path in all_operations()}, key=lambda path: path.count("{"))
    return [(re.compile(re.sub(r"{\w+}", "[^/]+", path)), path) for path in paths]


def operation_of(request: httpx.Request) -> tuple[str, str] | None:
    """The documented operation that a request is for."""
    target = request.extensions.get("target") or request.url.raw_path
    path = target.decode("ascii", "replace").partition("?")[0]
    for pattern, template in _path_patterns():
        if pattern.fullmatch(path) and (request.method, template) in all_operations():
            return request.method, template
    return None


@cache
def _validator(schema: str) -> Draft202012Validator:
    whole = {"components": document()["components"], **json.loads(schema)}
    return Draft202012Validator(whole)


async def is_as_documented(response: httpx.Response) -> None:
    """A hook for clients: status, media type and body are what the document says."""
    assert all(name in response.headers for name in OURS)
    key = operation_of(response.request)
    if key is None:
        return
    documented = all_operations()[key]["responses"]
    assert str(response.status_code) in documented, (key, response.status_code)
    contents = documented[str(response.status_code)]["content"]
    media_type = response.headers["content-type"].partition(";")[0]
    assert media_type in contents, (key, media_type)
    streamed = all_operations()[key].get("x-zap", {}).get("rpc") == "StreamStatus"
    if media_type == MEDIA_TYPE or (media_type == "application/json" and not streamed):
        await response.aread()
        _validator(json.dumps(contents[media_type]["schema"])).validate(response.json())


# A gateway in this process.


@dataclass
class Running:
    """A gateway that serves on a real port, in this event loop."""

    gateway: Gateway
    url: str
    client: httpx.AsyncClient
    server: process.Server
    serving: asyncio.Task[None]

    @property
    def port(self) -> int:
        return httpx.URL(self.url).port or 0

    def tell_to_stop(self) -> None:
        """What SIGTERM does."""
        self.server.handle_exit(signal.SIGTERM, None)


def client_for(url: str, **options: Any) -> httpx.AsyncClient:
    """A client that goes nowhere else, and that holds every answer against the document."""
    return httpx.AsyncClient(
        base_url=url,
        timeout=HANG,
        trust_env=False,
        event_hooks={"response": [is_as_documented]},
        limits=httpx.Limits(max_connections=None),
        **options,
    )


@asynccontextmanager
async def running_gateway(
    upstream: Any, pin: object = None, *, ready: bool = True, **settings: object
) -> AsyncIterator[Running]:
    """A gateway in front of ``upstream``: an address, or anything that has one.

    Args:
        upstream: the server.
        pin: whom to accept as that server; the tests' own server where None.
        ready: wait until a connection stands.
        settings: as for `serve`.
    """
    address = upstream if isinstance(upstream, str) else upstream.address
    given = {"upstream": address, "port": 0, "drain_grace": 0, **settings}
    loaded = load_settings(given, environment=False)
    gateway = Gateway(loaded, identity_of("gateway"), pin or identity_of("server").public)
    listener = process.listen(loaded.host, loaded.port)
    server = process.Server(gateway, loaded, process.load_certificate(loaded))
    serving = asyncio.get_running_loop().create_task(server.serve([listener]))
    await eventually(lambda: serving.done() or server.started)
    url = process.url_of(listener, loaded)
    try:
        if ready:
            await eventually(lambda: gateway.pool.connected_now)
        async with client_for(url) as client:
            yield Running(gateway, url, client, server, serving)
    finally:
        await turns()  # connections that were closed just now are seen to be
        if not gateway.draining:
            server.handle_exit(signal.SIGTERM, None)
        await soon(serving)


# Backends.


class Watched:
    """A backend around another: what it received, and how many streams are read."""

    def __init__(self, inner: object) -> None:
        self.inner = inner
        self.received: list[tuple[str, Any]] = []
        self.streams = 0
        self.attributes = {row.attribute: row for row in METHODS.values()}

    def __getattr__(self, name: str) -> Any:
        handler = getattr(self.inner, name)
        if name not in self.attributes:
            return handler
        watch = self._stream if self.attributes[name].streaming else self._call
        return lambda request: watch(handler, name, request)

    def _call(self, handler: Callable[[Any], Any], name: str, request: Any) -> Any:
        if name != "ping":  # the pool sends those by itself
            self.received.append((name, request))
        return handler(request)

    async def _stream(self, handler: Callable[[Any], Any], name: str, request: Any) -> Any:
        self.received.append((name, request))
        self.streams += 1
        try:
            async with aclosing(handler(request)) as states:
                async for state in states:
                    yield state
        finally:
            self.streams -= 1

    @property
    def counts(self) -> Counter[str]:
        """How often each RPC was received."""
        return Counter(name for name, _ in self.received)

    def last(self, name: str) -> Any:
        """The last request of an RPC."""
        return next(request for other, request in reversed(self.received) if other == name)


class Backend:
    """A backend made of the handlers given: ``Backend(status=...)``."""

    def __init__(self, **handlers: Callable[[Any], Any]) -> None:
        vars(self).update(handlers)


class Stage:
    """A backend that shows the state that it is given: None for no cluster.

    Args:
        state: the cluster's state.
        pid: what it answers to Ping.
    """

    def __init__(self, state: m.ClusterInfo | None = None, pid: int = 0) -> None:
        self.state = state
        self.pid = pid
        self.intervals: list[float] = []
        """Of each stream that began, in seconds."""
        self.streams = 0
        self.most_streams = 0
        """At the same time."""
        self.pushes = 0

    async def ping(self, request: m.PingRequest) -> m.PingResponse:
        return m.PingResponse(self.pid)

    async def status(self, request: m.StatusRequest) -> m.StatusResponse:
        if self.state is None:
            raise NotBootstrapped("not bootstrapped")
        return m.StatusResponse(self.state)

    async def stream_status(self, request: m.StreamStatusRequest) -> Any:
        self.intervals.append(request.push_interval / 1e9)
        self.streams += 1
        self.most_streams = max(self.most_streams, self.streams)
        try:
            while True:
                self.pushes += 1
                yield m.StreamStatusResponse(self.state)
                await asyncio.sleep(request.push_interval / 1e9)
        finally:
            self.streams -= 1


def answers(value: object) -> Callable[[Any], Any]:
    """A handler that always answers the same, or raises it."""

    async def handler(request: Any) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    return handler


# Problem documents.


def is_problem(
    response: httpx.Response, status: int, code: str, rpc: str | None = None
) -> dict[str, Any]:
    """Check all that problems have in common; gives the document."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == MEDIA_TYPE
    problem: dict[str, Any] = response.json()
    assert problem["code"] == code, problem
    assert problem["status"] == status
    assert problem["type"] == TYPE_PREFIX + code
    assert problem["title"]
    assert problem["detail"]
    assert problem.get("rpc") == rpc
    assert problem["requestId"] == response.headers["x-request-id"]
    assert ("retry-after" in response.headers) == (status in (429, 503))
    return problem


# Streams.


@dataclass(frozen=True)
class SseEvent:
    """One event of a stream of Server-Sent Events."""

    type: str
    id: str
    data: Any

    @property
    def sequence(self) -> int:
        """The number in the id."""
        return int(self.id.rpartition("-")[2])

    @property
    def epoch(self) -> str:
        """What the ids of one process have in common."""
        return self.id.partition("-")[0]


@dataclass
class SseReader:
    """Parses a stream as a browser does."""

    response: httpx.Response
    comments: list[str] = field(default_factory=list)
    retry: int | None = None
    last_id: str = ""
    """What a browser would come back with."""

    def __post_init__(self) -> None:
        self._lines = self.response.aiter_lines()

    async def next(self) -> SseEvent:
        """The next event; StopAsyncIteration at the end of the stream."""
        async with asyncio.timeout(HANG):
            return await self._next()

    async def some(self, count: int) -> list[SseEvent]:
        """The next so many events."""
        return [await self.next() for _ in range(count)]

    async def opening(self) -> str:
        """Read what a stream begins with, which is no event; the id that it tells."""
        async with asyncio.timeout(HANG):
            while line := await anext(self._lines):
                name, _, value = line.partition(": ")
                assert name in ("id", "retry", ""), line
                if name == "retry":
                    self.retry = int(value)
                elif name == "id":
                    self.last_id = value
        return self.last_id

    async def _next(self) -> SseEvent:
        fields: dict[str, str] = {}
        while True:
            line = await anext(self._lines)
            if line.startswith(":"):
                self.comments.append(line[1:].strip())
            elif line:
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                assert name in ("event", "id", "data", "retry"), line
                if name == "retry":
                    self.retry = int(value)
                else:
                    assert name not in fields, "one line each"
                    fields[name] = value
            else:
                self.last_id = fields.get("id", self.last_id)
                if "data" in fields:
                    data = json.loads(fields["data"])
                    return SseEvent(fields["event"], fields.get("id", ""), data)
                fields.clear()

    async def until(self, predicate: Callable[[SseEvent], object]) -> SseEvent:
        """The next event for which the predicate holds."""
        async with asyncio.timeout(HANG):
            while not predicate(event := await self._next()):
                pass
        return event

    async def ends(self) -> bool:
        """Read to the end of the stream; whether it comes, and cleanly."""
        async with asyncio.timeout(HANG):
            async for _ in self._lines:
                pass
        return True

    async def aclose(self) -> None:
        """Read no more."""
        await self._lines.aclose()  # type: ignore[attr-defined]


def sse(
    client: httpx.AsyncClient, *, last_id: str = "", **params: object
) -> AbstractAsyncContextManager[SseReader]:
    """Read /v1/status/stream; ``last_id`` is what the reader comes back with."""
    return _reading(client, "/v1/status/stream", last_id, params)


def events(
    client: httpx.AsyncClient, *, last_id: str = "", **params: object
) -> AbstractAsyncContextManager[SseReader]:
    """Read /v1/events/stream."""
    return _reading(client, "/v1/events/stream", last_id, params)


@asynccontextmanager
async def _reading(
    client: httpx.AsyncClient, path: str, last_id: str, params: dict[str, object]
) -> AsyncIterator[SseReader]:
    headers = {"last-event-id": last_id} if last_id else {}
    async with client.stream("GET", path, params=params, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        async with aclosing(SseReader(response)) as reader:
            yield reader


@asynccontextmanager
async def ndjson(
    client: httpx.AsyncClient, path: str, *, last_id: str = "", **params: object
) -> AsyncIterator[AsyncGenerator[Any, None]]:
    """Read a stream as a program does: one JSON value per line."""
    headers = {"accept": "application/x-ndjson"}
    if last_id:
        headers["last-event-id"] = last_id
    async with client.stream("GET", path, params=params, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].partition(";")[0] == headers["accept"]

        async def values() -> AsyncGenerator[Any, None]:
            async with aclosing(response.aiter_lines()) as lines:
                async for line in lines:
                    yield json.loads(line)

        async with aclosing(values()) as found:
            yield found


# Commands.


def clean_environment(**more: str) -> dict[str, str]:
    """This process' environment without settings of a gateway."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(ENVIRONMENT_PREFIX)
    }
    return {**kept, "PYTHONUNBUFFERED": "1", **more}


def command_line(*arguments: object) -> list[str]:
    """`zap-gateway` as this interpreter runs it."""
    return [sys.executable, "-m", "gateway", *map(str, arguments)]


def run_command(
    *arguments: object, stdin: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    done = subprocess.run(
        command_line(*arguments),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env=clean_environment(**environment),
    )
    secret_search.session.command(arguments, done.stdout, done.stderr)
    return done


class Command:
    """A command that runs until it is told to stop."""

    def __init__(self, *arguments: object, stdin: bool = False, **environment: str) -> None:
        self.arguments = arguments
        self.process = subprocess.Popen(
            command_line(*arguments),
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(**environment),
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._threads = [
            threading.Thread(target=lines.extend, args=(pipe,), daemon=True)
            for lines, pipe in ((self.out, self.process.stdout), (self.err, self.process.stderr))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stdout(self) -> str:
        return "".join(self.out)

    @property
    def stderr(self) -> str:
        return "".join(self.err)

    def line(self, pattern: str) -> re.Match[str]:
        """Wait until what it says, on either stream, has a match."""
        until = time.monotonic() + HANG
        while time.monotonic() < until:
            ended = self.process.poll() is not None
            if ended:
                self._join()
            for text in (self.stdout, self.stderr):
                if match := re.search(pattern, text):
                    return match
            if ended:
                break
            time.sleep(0.005)
        raise AssertionError(f"no {pattern!r} in {self.stdout!r}, {self.stderr!r}")

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit status, once it and all that it started are gone."""
        status = self.process.wait(timeout=HANG)
        self._join()
        assert not any(thread.is_alive() for thread in self._threads), "a child holds the pipes"
        return status

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Tell it to stop; its exit status."""
        self.send(number)
        return self.wait()

    def _join(self) -> None:
        for thread in self._threads:
            thread.join(timeout=HANG)

    def clean_up(self) -> None:
        """Whatever happened, leave nothing running."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        secret_search.session.command(self.arguments, self.stdout, self.stderr)


@contextmanager
def command(*arguments: object, stdin: bool = False, **environment: str) -> Iterator[Command]:
    """Run a command for the length of the block."""
    started = Command(*arguments, stdin=stdin, **environment)
    try:
        yield started
    finally:
        started.clean_up()


@dataclass
class Simulator:
    """A simulated netrunner in a process of its own."""

    command: Command
    address: str
    fingerprint: str
    pid: int

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


@contextmanager
def simulator(*arguments: object, **options: Any) -> Iterator[Simulator]:
    """`zap-gateway simulate`, on a free port unless the arguments say otherwise."""
    with command("simulate", "--json", "--port", "0", *arguments, **options) as running:
        told = json.loads(running.line(r"{.*}\n")[0])
        yield Simulator(running, **told)


def identity_file(folder: Path, name: str, identity: Identity | None = None) -> Path:
    """An identity, saved."""
    path = folder / f"{name}.json"
    (identity or identity_of(name)).save(path)
    return path
