"""Pages for people: the console at /, the API at /docs, and what they are made of.

They hold no secret, so they need no token. Nothing on them comes from elsewhere: they work on a
machine without the internet, and their policies allow nothing else.
"""

from __future__ import annotations

import asyncio
import html
import json
from collections.abc import Awaitable, Callable
from importlib import resources
from pathlib import PurePosixPath
from typing import NamedTuple

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.auth import STATIC_FILES

_OURS, _HTML = "gateway", "text/html"


class _File(NamedTuple):
    """A file of an installed package."""

    package: str
    path: str
    media_type: str


CONSOLE = _File(_OURS, "static/console.html", _HTML)
DOCS = _File(_OURS, "static/docs.html", _HTML)
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def _static(name: str) -> _File:
    media_type = _TYPES[PurePosixPath(name).suffix]
    if name.startswith("swagger-ui"):
        return _File("fastapi_swagger", f"resources/{name}", media_type)
    return _File(_OURS, f"static/{name}", media_type)


STATIC = {name: _static(name) for name in STATIC_FILES}
"""All that is to be had below /static: no name leads to any other file."""

_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
}
"""What a page may do: nothing but with its own files and the gateway's API."""

# Swagger UI makes elements from text. docs.js lets it, by the policy that is called `default`; it
# makes text safe by the one that is called `dompurify`. There can be no other.
_POLICY_OF_DOCS = {**_POLICY, "trusted-types": "default dompurify"}

_OURS_ONLY = {"cross-origin-resource-policy": "same-origin"}


def _page_headers(policy: dict[str, str]) -> dict[str, str]:
    return {
        **_OURS_ONLY,
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
    }


class _Whole(Response):
    """An answer that goes out piece by piece, each when the client took the one before.

    In one piece, a large file would be in memory once per client that asks and does not read.
    """

    _PIECE = 64 * 1024

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        del scope, receive
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        whole = memoryview(self.body)
        for at in range(0, len(whole), self._PIECE):
            piece = bytes(whole[at : at + self._PIECE])
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class _Files:
    """Files, read when they are asked for first: most gateways never are.

    Args:
        root_path: what `{root}` in a page stands for.
    """

    def __init__(self, root_path: str) -> None:
        self._root = html.escape(root_path)
        self._read: dict[_File, bytes] = {}

    def answer(self, file: _File, headers: dict[str, str]) -> Response:
        """The answer with a file."""
        if file not in self._read:
            content = resources.files(file.package).joinpath(file.path).read_bytes()
            if file.media_type == _HTML:
                content = content.replace(b"{root}", self._root.encode())
            self._read[file] = content
        return _Whole(self._read[file], headers=headers, media_type=file.media_type)


class _Document:
    """The OpenAPI document, made when it is asked for first.

    Args:
        api: whose.
        root_path: where a proxy shows the gateway; empty for the top.
    """

    def __init__(self, api: FastAPI, root_path: str) -> None:
        self._api = api
        self._root_path = root_path
        self._made: bytes | None = None
        self._making = asyncio.Lock()

    async def answer(self) -> Response:
        """The answer with it."""
        async with self._making:
            if self._made is None:
                # On the event loop everybody would wait, some tenths of a second.
                self._made = await asyncio.to_thread(self._make)
        return _Whole(self._made, media_type="application/json")

    def _make(self) -> bytes:
        document = self._api.openapi()
        if self._root_path:
            document = {**document, "servers": [{"url": self._root_path}]}
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def add_pages(api: FastAPI, root_path: str) -> None:
    """Add them.

    Args:
        api: the application.
        root_path: where a proxy shows the gateway; empty for the top.
    """
    files, openapi = _Files(root_path), _Document(api, root_path)
    of_console, of_docs = _page_headers(_POLICY), _page_headers(_POLICY_OF_DOCS)

    async def console() -> Response:
        return files.answer(CONSOLE, of_console)

    async def docs() -> Response:
        return files.answer(DOCS, of_docs)

    async def static(name: str) -> Response:
        file = STATIC.get(name)
        if file is None:
            raise HTTPException(404)
        return files.answer(file, _OURS_ONLY)

    async def icon() -> Response:
        """What browsers ask for of themselves where they show no page of ours but an answer."""
        return files.answer(STATIC["icon.svg"], _OURS_ONLY)

    routes: tuple[tuple[str, Callable[..., Awaitable[Response]]], ...] = (
        ("/", console),
        ("/docs", docs),
        ("/openapi.json", openapi.answer),
        ("/static/{name}", static),
        ("/favicon.ico", icon),
    )
    for path, endpoint in routes:
        api.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)
