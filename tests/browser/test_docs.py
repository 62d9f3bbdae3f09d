"""/docs in a real browser: it shows the whole API, calls it, and asks nobody but the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from gateway.auth import new_token, token_line
from tests.integration.gateway_helpers import (
    Running,
    all_operations,
    document,
    operations,
    running_gateway,
)
from tests.integration.test_gateway_tls import Authority
from tests.integration.zap_helpers import eventually, serving
from zapcore import SimulatedNetrunner

if TYPE_CHECKING:
    from playwright.async_api import Browser, ConsoleMessage, Locator, Page

# One browser for the whole file.
pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = "/netrunner"
STATUS, TICKETS = ("GET", "/v1/status"), ("POST", "/v1/stream-tickets")
STREAMS = [
    (verb, path)
    for (verb, path), operation in sorted(all_operations().items())
    if operation.get("x-zap", {}).get("streaming")
]

TELL_VIOLATIONS = """
document.addEventListener('securitypolicyviolation', (event) =>
    console.error('violation', event.violatedDirective, event.blockedURI, event.sample));
"""


@dataclass
class Docs:
    """/docs in a page of its own, and what it did."""

    page: Page
    url: str
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def on_console(self, message: ConsoleMessage) -> None:
        refusal = "the server responded with a status of 401" in message.text
        if message.type in ("error", "warning") and not refusal:
            self.complaints.append(message.text)

    async def show(self) -> None:
        """Go there, or there anew."""
        await self.page.goto(f"{self.url}/docs")
        await self.page.locator(".opblock").first.wait_for()

    def block(self, verb: str, path: str) -> Locator:
        """An operation on the page."""
        of_path = self.page.locator(f'[data-path="{path}"]')
        of_verb = self.page.locator(".opblock-summary-method", has_text=verb)
        return self.page.locator(".opblock", has=of_path).filter(has=of_verb)

    async def open(self, verb: str, path: str) -> Locator:
        """Open an operation."""
        block = self.block(verb, path)
        await block.locator(".opblock-summary-control").click()
        await block.locator(".opblock-body").wait_for()
        return block

    async def call(self, block: Locator) -> tuple[int, object]:
        """Execute what was opened for a try; the answer's status and JSON, as they are shown."""
        answered = block.locator("table.live-responses-table tbody")
        if await answered.count():
            await block.get_by_role("button", name="Clear", exact=True).click()
            await answered.wait_for(state="detached")
        await block.get_by_role("button", name="Execute").click()
        status = await answered.locator(".response-col_status").inner_text()
        body = await answered.locator(".highlight-code code").first.inner_text()
        return int(status.split()[0]), json.loads(body)

    async def try_out(self, verb: str, path: str) -> Locator:
        """Open an operation for a try."""
        block = await self.open(verb, path)
        await block.get_by_role("button", name="Try it out").click()
        return block

    async def authorize(self, token: str) -> None:
        """Enter a token."""
        await self.page.locator(".auth-wrapper .authorize").click()
        form = self.page.locator(".auth-container", has_text="http, Bearer")
        await form.locator("input").fill(token)
        await form.get_by_role("button", name="Apply credentials").click()
        await form.get_by_role("button", name="Remove authorization").wait_for()
        await form.get_by_role("button", name="Close").click()


@asynccontextmanager
async def docs_at(browser: Browser, url: str) -> AsyncIterator[Docs]:
    """/docs of a gateway; in the end it asked nobody else, and nothing went wrong on it."""
    context = await browser.new_context(ignore_https_errors=True)
    context.set_default_timeout(15_000)
    await context.add_init_script(TELL_VIOLATIONS)
    docs = Docs(await context.new_page(), url)
    docs.page.on("request", lambda request: docs.asked.append(request.url))
    docs.page.on("console", docs.on_console)
    docs.page.on("pageerror", lambda error: docs.complaints.append(str(error)))
    try:
        await docs.show()
        yield docs
        assert docs.complaints == []
        assert [each for each in docs.asked if not each.startswith((f"{url}/", "data:"))] == []
        assert f"{url}/static/icon.svg" in docs.asked
    finally:
        await context.close()


@asynccontextmanager
async def gateway(**settings: object) -> AsyncIterator[Running]:
    async with (
        serving(SimulatedNetrunner(health_delay=0)) as server,
        running_gateway(server, **settings) as running,
    ):
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Running]:
    async with gateway() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def docs(browser: Browser, running: Running) -> AsyncIterator[Docs]:
    """Of a gateway without tokens."""
    async with docs_at(browser, running.url) as shown:
        yield shown


# What it shows.


async def test_it_lists_every_operation_and_no_other(docs: Docs):
    listed = await docs.page.locator(".opblock-summary").evaluate_all(
        """(all) => all.map((each) => [
            each.querySelector('.opblock-summary-method').textContent,
            each.querySelector('[data-path]').dataset.path,
        ])"""
    )
    assert sorted(map(tuple, listed)) == sorted(all_operations())


async def test_it_is_dark_where_that_is_wanted(docs: Docs):
    is_dark = """() => {
        const colour = getComputedStyle(document.documentElement).backgroundColor;
        const [red, green, blue, opacity = 1] = colour.match(/[\\d.]+/g).map(Number);
        return opacity === 1 && Math.max(red, green, blue) < 64;
    }"""
    assert not await docs.page.evaluate(is_dark)
    await docs.page.emulate_media(color_scheme="dark")
    await docs.page.locator("html.dark-mode").wait_for()
    assert await docs.page.evaluate(is_dark)
    await docs.page.emulate_media(color_scheme="light")
    await docs.page.locator("html:not(.dark-mode)").wait_for()
    assert not await docs.page.evaluate(is_dark)


async def test_its_swagger_ui_reads_openapi_3_1(docs: Docs):
    version = await docs.page.evaluate("window.versions.swaggerUI.version")
    assert version.startswith("5.")
    assert await docs.page.locator(".version-stamp", has_text="OAS 3.1").count() == 1


async def test_every_operation_opens_and_all_that_ends_can_be_tried(docs: Docs):
    """Their elements are made when they are shown; the page's policy must let them be.

    Of the old API some do: they are all alike, and each takes its time.
    """
    old = [("POST", f"/v1/control/{name}") for name in ("start", "streamstatus")]
    for key in [*operations(), *old]:
        operation = all_operations()[key]
        block = await docs.open(*key)
        assert operation["responses"]["200"]["description"] in await block.inner_text()
        tries = await block.get_by_role("button", name="Try it out").count()
        assert tries == (key not in STREAMS), key
        await block.locator(".opblock-summary-control").click()  # many open ones are slow


async def test_a_schema_opens(docs: Docs):
    schema = next(iter(document()["components"]["schemas"].values()))
    shown = docs.page.locator("section.models")
    await shown.get_by_role("button", name="Expand all").first.click()
    for name in schema["properties"]:
        await shown.get_by_text(name, exact=True).first.wait_for()


# What it does.


async def test_it_calls_the_api(docs: Docs):
    status, answer = await docs.call(await docs.try_out(*STATUS))
    assert status == 200
    assert isinstance(answer, dict)
    assert "node1" in answer["clusterInfo"]["nodeNames"]
    status, answer = await docs.call(await docs.try_out(*TICKETS))
    assert status == 200
    assert isinstance(answer, dict)
    assert answer["expiresIn"] > 0


@pytest.mark.parametrize(("verb", "path"), STREAMS)
async def test_a_stream_can_not_be_tried_and_it_says_why(docs: Docs, verb: str, path: str):
    """Its answer has no end, and Swagger UI shows none before its end."""
    block = await docs.open(verb, path)
    assert await block.get_by_role("button", name="Try it out").count() == 0
    assert "can’t be tried here" in (await block.inner_text()).replace("'", "’")
    link = block.get_by_role("link", name="console")
    assert await link.evaluate("(link) => link.href") == f"{docs.url}/"


async def test_a_token_is_used_and_kept_nowhere(browser: Browser):
    token = new_token()
    async with (
        gateway(token=(token_line("reader", "read", token),)) as running,
        docs_at(browser, running.url) as docs,
    ):
        block = await docs.try_out(*STATUS)
        status, problem = await docs.call(block)
        assert status == 401
        assert isinstance(problem, dict)
        assert problem["code"] == "unauthenticated"

        await docs.authorize(token)
        assert (await docs.call(block))[0] == 200
        kept = "[{...localStorage}, {...sessionStorage}, document.cookie, location.href]"
        assert not any(token in json.dumps(each) for each in await docs.page.evaluate(kept))
        assert await docs.page.evaluate("localStorage.length + sessionStorage.length") == 0
        assert not any(token in url for url in docs.asked)

        await docs.show()
        assert (await docs.call(await docs.try_out(*STATUS)))[0] == 401


async def test_browsers_are_told_to_remember_no_token(docs: Docs):
    await docs.page.locator(".auth-wrapper .authorize").click()
    inputs = docs.page.locator(".auth-container input")
    assert await inputs.count() >= 2
    for each in await inputs.all():
        assert await each.get_attribute("autocomplete") == "off"
        assert await each.get_attribute("spellcheck") == "false"


async def test_texts_that_would_be_scripts_are_refused(browser: Browser, running: Running):
    """The policy that lets Swagger UI make elements from text lets it make nothing else."""
    async with docs_at(browser, running.url) as docs:
        for sink in (
            "document.createElement('script').src = '/static/docs.js'",
            "document.createElement('script').text = 'x'",
            "trustedTypes.createPolicy('another', {createScript: (text) => text})",
            "setTimeout('x')",
        ):
            script = f"(() => {{ try {{ {sink}; }} catch {{ return 'refused'; }} }})()"
            assert await docs.page.evaluate(script) == "refused", sink
        await eventually(lambda: len(docs.complaints) >= 4)
        docs.complaints.clear()  # these were wanted


# Behind proxies.


class Proxy:
    """A proxy that shows a gateway under a path, one request per connection.

    Args:
        port: the gateway's.
        strips: it takes that path away.
        scheme: what it speaks with its clients.
    """

    def __init__(self, port: int, *, strips: bool, scheme: str) -> None:
        self.port = port
        self.strips = strips
        self.scheme = scheme

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a client."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            request, _, headers = head.partition("\r\n")
            verb, path, version = request.split(" ")
            if path.startswith(f"{ROOT}/"):
                await self._forward(
                    f"{verb} {path.removeprefix(ROOT) if self.strips else path} {version}\r\n"
                    f"X-Forwarded-Proto: {self.scheme}\r\nConnection: close\r\n"
                    + headers.replace("Connection: keep-alive\r\n", ""),
                    reader,
                    writer,
                )
            else:
                writer.write(b"HTTP/1.1 418 Not here\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def _forward(
        self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        answer, request = await asyncio.open_connection("127.0.0.1", self.port)
        request.write(head.encode("latin-1"))
        request.write(await reader.readexactly(length_of_body(head)))
        while data := await answer.read(65536):
            writer.write(data)
            await writer.drain()
        request.close()


def length_of_body(head: str) -> int:
    """What a request's head says."""
    told = re.search(r"^content-length: *(\d+)", head, re.IGNORECASE | re.MULTILINE)
    return int(told[1]) if told else 0


@asynccontextmanager
async def behind_proxy(
    directory: Path, *, strips: bool, scheme: str
) -> AsyncIterator[tuple[Running, str]]:
    """A gateway, and the address under which a proxy shows it."""
    tls = None
    if scheme == "https":
        certificate, key = directory / "certificate.pem", directory / "key.pem"
        Authority().issue(certificate, key)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate, key)
    async with gateway(root_path=ROOT, trusted_proxy=("127.0.0.1",)) as running:
        proxy = Proxy(running.port, strips=strips, scheme=scheme)
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, ssl=tls)
        async with server:
            port = server.sockets[0].getsockname()[1]
            yield running, f"{scheme}://127.0.0.1:{port}{ROOT}"


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("strips", [False, True], ids=["path left", "path stripped"])
async def test_it_works_where_a_proxy_shows_it(
    browser: Browser, tmp_path: Path, strips: bool, scheme: str
):
    async with (
        behind_proxy(tmp_path, strips=strips, scheme=scheme) as (running, url),
        docs_at(browser, url) as docs,
    ):
        assert len(await docs.page.locator(".opblock").all()) == len(all_operations())
        for key in (STATUS, TICKETS):
            block = await docs.try_out(*key)
            assert (await docs.call(block))[0] == 200
            assert (await block.locator(".request-url").inner_text()).endswith(f"{url}{key[1]}")
        block = await docs.open(*STREAMS[0])
        link = block.get_by_role("link", name="console")
        assert await link.evaluate("(link) => link.href") == f"{url}/"
        assert urlsplit(url).netloc not in running.url
