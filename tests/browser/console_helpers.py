"""The console in a real browser, watched: what it asks for, and what must never happen on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.integration.gateway_helpers import Running, running_gateway
from tests.integration.zap_helpers import serving, soon
from zapcore import NetrunnerServer
from zapcore import messages as m
from zapcore.errors import NotBootstrapped

if TYPE_CHECKING:
    from playwright.async_api import Browser, Locator, Page, Request

HANG = 15_000
"""Milliseconds after which a page is taken to hang."""

_TRAPS = """
for (const name of ["alert", "confirm", "prompt"]) {
    window[name] = () => console.error(`${name} was called`);
}
document.addEventListener("securitypolicyviolation", (event) =>
    console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""
_REFUSED = "Failed to load resource"
"""What Chromium itself says of every answer from 400 up, and of a gateway that is gone."""


class Trouble(list[str]):
    """What a page did that no page of ours may do."""

    def __init__(self, host: str) -> None:
        super().__init__()
        self.host = host
        self.urls: list[str] = []

    def watch(self, page: Page) -> None:
        page.on("dialog", lambda dialog: self.append(f"dialog: {dialog.message}"))
        page.on("pageerror", lambda error: self.append(f"error: {error}"))
        page.on("popup", lambda popup: self.append(f"popup: {popup.url}"))
        page.on("console", lambda said: self._said(said.type, said.text))
        page.on("request", self._asked)

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not text.startswith(_REFUSED):
            self.append(f"{kind}: {text}")

    def _asked(self, request: Request) -> None:
        self.urls.append(request.url)
        url = urlsplit(request.url)
        if url.scheme not in ("data", "blob") and url.netloc != self.host:
            self.append(f"asked {request.url}")


@asynccontextmanager
async def visit(browser: Browser, url: str, **options: Any) -> AsyncIterator[Page]:
    """A page in a context of its own; it fails if the page does what it must not.

    Args:
        browser: the browser.
        url: where to go.
        options: of the context: its size, its colour scheme.
    """
    given = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **options}
    context = await browser.new_context(**given)
    context.set_default_timeout(HANG)
    await context.add_init_script(_TRAPS)
    trouble = Trouble(urlsplit(url).netloc)
    context.on("page", trouble.watch)
    try:
        page = await context.new_page()
        await page.goto(url)
        yield page
    finally:
        await context.close()
    assert trouble == []


@dataclass
class Console:
    """The console's page, the gateway that it is of, and the netrunner behind that."""

    page: Page
    running: Running
    server: NetrunnerServer

    def node(self, name: str) -> Locator:
        """A node's rows."""
        title = self.page.locator(f"th bdi:text-is('{name}')")
        return self.page.locator("#nodes-table tbody").filter(has=title)

    def button(self, name: str) -> Locator:
        """A button by its whole accessible name."""
        return self.page.get_by_role("button", name=name, exact=True)

    @property
    def headline(self) -> Locator:
        return self.page.locator("#headline")

    def event(self, kind: str) -> Locator:
        """Events of a type."""
        return self.page.locator(f".event[data-type='{kind}']")

    def operation(self, state: str) -> Locator:
        """Operations that are running, done or failed."""
        return self.page.locator(f".operation[data-state='{state}']")

    @property
    def dialog(self) -> Locator:
        return self.page.locator("dialog[open]")


@asynccontextmanager
async def console(
    browser: Browser,
    backend: object,
    path: str = "/",
    options: dict[str, Any] | None = None,
    **settings: object,
) -> AsyncIterator[Console]:
    """The console of a gateway in front of a backend.

    Args:
        browser: the browser.
        backend: the netrunner.
        path: where the page is.
        options: of the browser's context.
        settings: of the gateway.
    """
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(backend))
        running = await stack.enter_async_context(running_gateway(server, **settings))
        page = await stack.enter_async_context(
            visit(browser, running.url + path, **(options or {}))
        )
        yield Console(page, running, server)


class Stated:
    """A backend that is in the state that it was given, and changes only by `say`."""

    def __init__(self, *nodes: m.NodeInfo, healthy: bool = True) -> None:
        self.silent = asyncio.Event()
        self.say(*nodes, healthy=healthy)

    def say(
        self,
        *nodes: m.NodeInfo,
        healthy: bool = True,
        chains: tuple[m.ChainInfo, ...] = (),
        root: str = "/tmp/netrunner",  # noqa: S108 - a name
    ) -> None:
        """Be in another state."""
        self.state: m.ClusterInfo | None = m.ClusterInfo(
            node_names=sorted(node.name for node in nodes),
            node_infos={node.name: node for node in nodes},
            custom_chains={chain.chain_id: chain for chain in chains},
            root_data_dir=root,
            healthy=healthy,
            network_id=1337,
            pid=4242,
        )

    async def ping(self, request: m.PingRequest) -> m.PingResponse:
        return m.PingResponse(4242)

    async def rpc_version(self, request: m.RPCVersionRequest) -> m.RPCVersionResponse:
        return m.RPCVersionResponse(1)

    async def status(self, request: m.StatusRequest) -> m.StatusResponse:
        if self.state is None:
            raise NotBootstrapped("not bootstrapped")
        return m.StatusResponse(self.state)

    async def get_snapshot_names(
        self, request: m.GetSnapshotNamesRequest
    ) -> m.GetSnapshotNamesResponse:
        return m.GetSnapshotNamesResponse([])

    async def stream_status(self, request: m.StreamStatusRequest) -> Any:
        while True:
            if not self.silent.is_set():
                yield m.StreamStatusResponse(self.state)
            await asyncio.sleep(min(request.push_interval / 1e9, 0.2))


def node(name: str, **facts: Any) -> m.NodeInfo:
    """A node that runs."""
    given = {"id": f"NodeID-{name}", "uri": "http://127.0.0.1:9650", **facts}
    return m.NodeInfo(name=name, **given)


async def focused(page: Page) -> str:
    """The accessible name of what has the focus, or its text."""
    script = "document.activeElement.ariaLabel || document.activeElement.textContent.trim()"
    return str(await soon(page.evaluate(script)))
