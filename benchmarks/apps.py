"""The HTTP sides, each in a process of its own: python -m benchmarks.apps NAME [ARGUMENTS].

Each prints one JSON line when it serves: {"pid": …, "port": …}.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
from typing import Any

import uvicorn

from gateway import schema
from gateway.app import Gateway
from gateway.process import listen, run
from gateway.settings import load_settings
from zapcore.messages import StatusRequest, StatusResponse
from zapcore.simulator import SimulatedNetrunner
from zapcore.zwing.identity import Identity


def status_of_five_nodes() -> StatusResponse:
    """What all sides answer."""
    simulation = SimulatedNetrunner()
    return asyncio.run(simulation.status(StatusRequest()))


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

    kind = schema.model_of(StatusResponse)
    answer = kind.model_validate(schema.to_document(status_of_five_nodes()))
    app = FastAPI()

    @app.get("/v1/status", response_model=kind)
    async def status() -> Any:
        return answer

    return app


def gateway(address: str, fingerprint: str) -> Any:
    """The gateway itself."""
    settings = load_settings({"upstream": address})
    return Gateway(settings, Identity.generate(), fingerprint)


APPS = {"bare": bare, "model": model, "gateway": gateway}


def _stop_with_parent(server: uvicorn.Server) -> None:
    sys.stdin.read()
    server.should_exit = True


async def _serve(app: Any, listener: socket.socket) -> int:
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="on" if isinstance(app, Gateway) else "off",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    threading.Thread(target=_stop_with_parent, args=(server,), daemon=True).start()
    print(json.dumps({"pid": os.getpid(), "port": listener.getsockname()[1]}), flush=True)
    await server.serve([listener])
    return 0


def main() -> None:
    """Serve the application that the command line names."""
    name, *arguments = sys.argv[1:]
    run(_serve(APPS[name](*arguments), listen("127.0.0.1", 0)))


if __name__ == "__main__":
    main()
