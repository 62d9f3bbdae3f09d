"""The HTTP sides, each in a process of its own: python -m benchmarks.apps NAME [ARGUMENTS].

Each prints one JSON line when it serves: {"pid": …, "port": …}.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn

from benchmarks.codec import status_of_five_nodes
from gateway import schema
from gateway.app import Gateway
from gateway.logs import RequestLog, configure_logging
from gateway.process import Server, allow_open_files, listen, run
from gateway.settings import load_settings
from zapcore.messages import StatusResponse
from zapcore.zwing.identity import Identity


def bare() -> Any:
    """The least that an ASGI application can do: the same bytes every time."""
    body = schema.to_json(status_of_five_nodes())
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def model() -> Any:
    """A plain FastAPI route that returns a pydantic model from memory."""
    from fastapi import FastAPI

    told = status_of_five_nodes()
    assert told.cluster_info is not None
    for node in told.cluster_info.node_infos.values():
        node.config = base64.b64encode(node.config)  # the model gives bytes as text, as they are
    kind = schema.model_of(StatusResponse)
    answer = kind.model_validate(schema.to_document(told))
    app = FastAPI()

    @app.get("/v1/status", response_model=kind)
    async def status() -> Any:
        return answer

    return app


def broadcast() -> Any:
    """The least that a stream can do: one future per reader, the same bytes for all of them."""
    state = schema.to_json(status_of_five_nodes())
    waiting: list[asyncio.Future[bytes]] = []
    tasks: list[asyncio.Task[None]] = []

    async def push() -> None:
        for number in itertools.count(1):
            stamp = f'"/stamp/{number}/{time.monotonic_ns()}"'.encode()
            event = b"event: status\ndata: [" + state + b"," + stamp + b"]\n\n"
            for future in waiting:
                if not future.done():
                    future.set_result(event)
            waiting.clear()
            await asyncio.sleep(1)

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        loop = asyncio.get_running_loop()
        if not tasks:
            tasks.append(loop.create_task(push()))
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while True:
            future = loop.create_future()
            waiting.append(future)
            await send({"type": "http.response.body", "body": await future, "more_body": True})

    return app


APPS = {"bare": bare, "model": model, "broadcast": broadcast}


def _stop_with_parent(stop: Callable[[], None]) -> None:
    sys.stdin.read()
    stop()


async def _serve_app(app: Any, listener: socket.socket) -> int:
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,  # the broadcast's readers never end by themselves
    )
    server = uvicorn.Server(config)

    def stop() -> None:
        server.should_exit = True

    await _announced(server, listener, stop)
    return 0


async def _serve_gateway(
    address: str, fingerprint: str, connections: int, listener: socket.socket, log: RequestLog
) -> int:
    """The gateway as it ships: its own server, limits, metrics, and a log line per request."""
    given = {"upstream": address, "drain_grace": 0}
    if connections:
        given |= {"max_connections": connections, "max_streams": connections}
    settings = load_settings(given, environment=False)
    allow_open_files(settings.max_connections)
    gateway = Gateway(settings, Identity.generate(), fingerprint, request_log=log)
    server = Server(gateway, settings)
    await _announced(server, listener, lambda: server.handle_exit(signal.SIGTERM, None))
    return 0


async def _announced(
    server: uvicorn.Server, listener: socket.socket, stop: Callable[[], None]
) -> None:
    threading.Thread(target=_stop_with_parent, args=(stop,), daemon=True).start()
    print(json.dumps({"pid": os.getpid(), "port": listener.getsockname()[1]}), flush=True)
    await server.serve([listener])


def main() -> None:
    """Serve the application that the command line names."""
    name, *arguments = sys.argv[1:]
    listener = listen("127.0.0.1", 0)
    if name == "gateway":
        with open(os.devnull, "w") as nowhere:
            sys.stderr = nowhere
            log = configure_logging("info", "json")
            address, fingerprint, connections = (*arguments, "0")[:3]
            run(_serve_gateway(address, fingerprint, int(connections), listener, log))
    else:
        run(_serve_app(APPS[name](), listener))


if __name__ == "__main__":
    main()
