"""What a web page of another site can do to a gateway, in a real browser: nothing.

Each attempt is made by pages of several origins, and must be refused by the gateway before the
netrunner hears of it. The same attempts by a page that was let in show that they would work.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import pytest_asyncio

from gateway.auth import new_token, token_line
from tests.integration.gateway_helpers import Running, Watched, running_gateway
from tests.integration.zap_helpers import eventually, serving, soon
from zapcore import SimulatedNetrunner

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page, Route

# One browser, one netrunner and its gateways for the whole file.
pytestmark = pytest.mark.asyncio(loop_scope="module")

PAUSE, NODE = "/v1/nodes/node1/pause", "/v1/nodes/node1"
OLD_PAUSE = "/v1/control/pausenode"
STATUS, STREAM = "/v1/status", "/v1/status/stream"
TOKEN = new_token()


# The pages of others.

HTML = "<!doctype html><title>Another site</title><link rel=icon href=data:,><body>"

SPECIAL = {
    "/sandboxed": "Content-Security-Policy: sandbox allow-scripts allow-forms allow-popups",
    "/silent": "Referrer-Policy: no-referrer",
}
"""Pages with a header that changes what their requests tell of them."""

REBOUND = "/rebound"
"""Where a page is that came from another machine, before its name resolved to this one."""


async def _serve_page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        special = SPECIAL.get(head.split()[1].decode(), "X-Nothing: special")
        fixed = f"Content-Type: text/html\r\nContent-Length: {len(HTML)}\r\nConnection: close"
        writer.write(f"HTTP/1.1 200 OK\r\n{fixed}\r\n{special}\r\n\r\n{HTML}".encode())
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # a connection that the browser opened in advance
    finally:
        writer.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pages() -> AsyncIterator[int]:
    """The port of a server of pages."""
    server = await asyncio.start_server(_serve_page, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


class Site(NamedTuple):
    """A page, and the name by which it asks for the gateway."""

    page: str
    gateway: str


LET_IN = "http://localhost:{pages}"

SITES = {
    "another port": Site("http://127.0.0.1:{pages}/", "127.0.0.1"),
    "another name": Site(f"{LET_IN}/", "127.0.0.1"),
    "another port of the same name": Site(f"{LET_IN}/", "localhost"),
    "another site": Site("http://evil.example:{pages}/", "127.0.0.1"),
    "a name that resolves to us": Site("http://evil.example:{gateway}" + REBOUND, "evil.example"),
    "no origin": Site("http://evil.example:{pages}/sandboxed", "127.0.0.1"),
    "no referrer": Site(f"{LET_IN}/silent", "127.0.0.1"),
}

HELPERS = """
const pause = '/v1/nodes/node1/pause';
const read = async (answer) =>
    answer.type === 'opaque' ? 'opaque' : `${answer.status} ${await answer.text()}`;
const failed = (error) => `failed: ${error}`;
const ask = (url, options) => fetch(url, options).then(read).catch(failed);
const post = (gateway, options) => ask(gateway + pause, {method: 'POST', ...options});
const fields = () => { const form = new FormData(); form.append('name', 'node1'); return form; };
const until = (element, ...events) => new Promise((resolve) => {
    for (const event of events) element.addEventListener(event, () => resolve(event));
});
const embed = async (name, attributes) => {
    const element = document.createElement(name);
    Object.assign(element, attributes);
    const happened = until(element, 'load', 'error');
    document.body.append(element);
    const event = await happened;
    const text = element.contentDocument?.body.innerText ?? '';
    return `${event} ${element.naturalWidth ?? ''} ${text}`;
};
const submit = async (gateway, enctype, path = pause) => {
    const frame = document.createElement('iframe');
    frame.name = `frame${Math.random()}`;
    document.body.append(frame);
    const form = document.createElement('form');
    Object.assign(form, {method: 'POST', action: gateway + path, target: frame.name, enctype});
    // As text/plain it is {"name":"node1","a":"="}, a whole request of the old API.
    const input = document.createElement('input');
    Object.assign(input, {name: '{"name":"node1","a":"', value: '"}'});
    form.append(input);
    document.body.append(form);
    form.submit();
    return 'submitted';
};
const add = async (name, attributes) => {
    const blocked = until(document, 'securitypolicyviolation');
    try {
        document.head.append(Object.assign(document.createElement(name), attributes));
    } catch {} // refused before it is there
    return await blocked;
};
const follow = (url) => new Promise((resolve) => {
    const source = new EventSource(url);
    const end = (text) => { source.close(); resolve(text); };
    source.addEventListener('status', (event) => end(event.data));
    source.onerror = () => end('failed');
});
const followWithTicket = async (gateway, token) => {
    const headers = {authorization: `Bearer ${token}`};
    const answer = await fetch(`${gateway}/v1/stream-tickets`, {method: 'POST', headers});
    const {ticket} = await answer.json();
    const url = `${gateway}/v1/status/stream?ticket=${encodeURIComponent(ticket)}`;
    return [ticket, await follow(url)];
};
const knock = (url) => new Promise((resolve) => {
    const socket = new WebSocket(url.replace('http', 'ws'));
    socket.onmessage = (event) => resolve(event.data);
    socket.onopen = () => resolve('open');
    socket.onerror = () => resolve('failed');
});
"""


class Attempt(NamedTuple):
    """Something that a page tries.

    ``reaches`` is the RPC that it would lead to from a page that was let in; empty where that page
    gets nowhere either, as its browser does not say whose page it is. ``reads`` tells whether it
    would get the answer.
    """

    script: str
    path: str = PAUSE
    reaches: str = "pause_node"
    reads: bool = False


JSON_HEADER = "headers: {'content-type': 'application/json'}"
TEXT = "body: JSON.stringify({name: 'node1'})"
FORM = "body: new URLSearchParams({name: 'node1'})"

ATTEMPTS = {
    # fetch that would read the answer; all but JSON go out without a preflight.
    "fetch JSON": Attempt(f"post(gateway, {{{JSON_HEADER}, body: '{{}}'}})", reads=True),
    "fetch text": Attempt(f"post(gateway, {{{TEXT}}})", reads=True),
    "fetch form": Attempt(f"post(gateway, {{{FORM}}})", reads=True),
    "fetch multipart": Attempt("post(gateway, {body: fields()})", reads=True),
    "fetch without a body": Attempt("post(gateway, {})", reads=True),
    "fetch DELETE": Attempt(
        "ask(gateway + '/v1/nodes/node2', {method: 'DELETE'})",
        *("/v1/nodes/node2", "remove_node", True),
    ),
    "fetch status": Attempt("ask(gateway + '/v1/status', {})", STATUS, "status", reads=True),
    "fetch status with a token": Attempt(
        "ask(gateway + '/v1/status', {headers: {authorization: 'Bearer x'}})",
        *(STATUS, "status", True),
    ),
    # fetch that does not care for the answer.
    "no-cors JSON": Attempt(f"post(gateway, {{mode: 'no-cors', {JSON_HEADER}, {TEXT}}})"),
    "no-cors text": Attempt(f"post(gateway, {{mode: 'no-cors', {TEXT}}})"),
    "no-cors form": Attempt(f"post(gateway, {{mode: 'no-cors', {FORM}}})"),
    "no-cors multipart": Attempt("post(gateway, {mode: 'no-cors', body: fields()})"),
    "no-cors that outlives its page": Attempt(
        f"post(gateway, {{mode: 'no-cors', keepalive: true, {TEXT}}})"
    ),
    "no-cors status": Attempt("ask(gateway + '/v1/status', {mode: 'no-cors'})", STATUS, ""),
    # Beacons.
    "beacon text": Attempt("navigator.sendBeacon(gateway + pause, 'node1')"),
    "beacon form": Attempt("navigator.sendBeacon(gateway + pause, new URLSearchParams('a=b'))"),
    "beacon multipart": Attempt("navigator.sendBeacon(gateway + pause, fields())"),
    "beacon JSON": Attempt(
        "navigator.sendBeacon(gateway + pause, new Blob(['{}'], {type: 'application/json'}))"
    ),
    # Forms.
    "form": Attempt("submit(gateway, 'application/x-www-form-urlencoded')"),
    "form multipart": Attempt("submit(gateway, 'multipart/form-data')"),
    "form text": Attempt("submit(gateway, 'text/plain')"),
    # The old API, which takes any Content-Type.
    "form to the old API": Attempt(f"submit(gateway, 'text/plain', '{OLD_PAUSE}')", OLD_PAUSE),
    "no-cors to the old API": Attempt(
        f"ask(gateway + '{OLD_PAUSE}', {{method: 'POST', mode: 'no-cors', {TEXT}}})", OLD_PAUSE
    ),
    "old status": Attempt(
        "ask(gateway + '/v1/control/status', {method: 'POST'})",
        *("/v1/control/status", "status", True),
    ),
    # What is embedded.
    "image": Attempt("embed('img', {src: gateway + '/v1/status'})", STATUS, ""),
    "script": Attempt("embed('script', {src: gateway + '/v1/status'})", STATUS, ""),
    "script that asks with CORS": Attempt(
        "embed('script', {src: gateway + '/v1/status', crossOrigin: 'anonymous'})",
        *(STATUS, "status"),
    ),
    "frame": Attempt("embed('iframe', {src: gateway + '/v1/status'})", STATUS, ""),
    "window": Attempt("Boolean(open(gateway + '/v1/status'))", STATUS, ""),
    # Streams.
    "EventSource": Attempt("follow(gateway + '/v1/status/stream')", STREAM, "stream_status", True),
    "WebSocket": Attempt("knock(gateway + '/v1/status')", STATUS, "status"),
}


# What is asked.


class Seen(logging.Handler):
    """What the gateways were asked for, and how they answered."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[tuple[str, str, int]] = []

    def emit(self, record: logging.LogRecord) -> None:
        told = vars(record)
        self.answers.append((told["method"], told["path"], told["status"]))

    def statuses(self, path: str) -> list[int]:
        """Of the answers at a path."""
        return [status for _, other, status in self.answers if other == path]


@pytest.fixture
def seen() -> Iterator[Seen]:
    logger, handler = logging.getLogger("gateway.request"), Seen()
    before = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def netrunner() -> Watched:
    return Watched(SimulatedNetrunner(health_delay=0))


class Gateways(NamedTuple):
    """On loopback; letting a page's origin in; doing so with a token; behind a proxy."""

    closed: Running
    letting_in: Running
    guarded: Running
    proxied: Running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateways(netrunner: Watched, pages: int) -> AsyncIterator[Gateways]:
    origins = (LET_IN.format(pages=pages),)
    line = token_line("page", "read", TOKEN)
    async with serving(netrunner) as server, AsyncExitStack() as stack:
        yield Gateways(
            *[
                await stack.enter_async_context(running_gateway(server, **settings))
                for settings in (
                    {},
                    {"allowed_origin": origins},
                    {"allowed_origin": origins, "token": (line,)},
                    {"trusted_proxy": ("127.0.0.1",)},
                )
            ]
        )


async def _rebound(route: Route) -> None:
    await route.fulfill(body=HTML, content_type="text/html")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    context = await browser.new_context()
    context.set_default_timeout(15_000)
    await context.route(f"**{REBOUND}", _rebound)
    yield context
    await context.close()


@pytest_asyncio.fixture(loop_scope="module")
async def node(gateways: Gateways, netrunner: Watched) -> AsyncIterator[None]:
    """A node that runs, and a netrunner that has not been asked for anything."""
    await gateways.closed.client.post("/v1/nodes/node1/resume")
    netrunner.received.clear()
    yield
    await eventually(lambda: not netrunner.streams)


async def is_paused(gateways: Gateways) -> bool:
    """Whether the node that pages try to pause is."""
    answer = await gateways.closed.client.get(NODE)
    return bool(answer.json()["paused"])


@asynccontextmanager
async def opened(context: BrowserContext, url: str) -> AsyncIterator[Page]:
    """A page; it goes with all that it opened."""
    before = context.pages
    page = await context.new_page()
    try:
        await page.goto(url)
        yield page
    finally:
        for each in context.pages:
            if each not in before:
                await each.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def friend(context: BrowserContext, pages: int) -> AsyncIterator[Page]:
    """A page whose origin is let in."""
    async with opened(context, LET_IN.format(pages=pages)) as page:
        yield page


async def run(page: Page, script: str, **given: object) -> Any:
    """What an expression comes to in a page; names in it stand for what is given."""
    names = ", ".join(given)
    function = f"async ({{{names}}}) => {{ {HELPERS} return await {script}; }}"
    return await soon(page.evaluate(function, given))


@pytest.mark.parametrize("site", SITES.values(), ids=SITES.keys())
async def test_a_page_of_another_site_does_nothing_and_learns_nothing(
    *,
    site: Site,
    context: BrowserContext,
    gateways: Gateways,
    netrunner: Watched,
    node: None,
    seen: Seen,
    pages: int,
):
    running = gateways.closed
    gateway = f"http://{site.gateway}:{running.port}"
    url = site.page.format(pages=pages, gateway=running.port)
    async with opened(context, url) as page:
        for name, attempt in ATTEMPTS.items():
            seen.answers.clear()
            told = str(await run(page, attempt.script, gateway=gateway))
            await eventually(lambda path=attempt.path: seen.statuses(path))
            assert set(seen.statuses(attempt.path)) == {403}, name
            assert netrunner.received == [], name
            assert "clusterInfo" not in told, name
            assert "node1" not in told.replace(PAUSE, ""), name
    assert netrunner.received == []
    assert not await is_paused(gateways)


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS.keys())
async def test_a_page_that_was_let_in_gets_as_far_as_its_browser_says_whose_it_is(
    *,
    attempt: Attempt,
    friend: Page,
    gateways: Gateways,
    netrunner: Watched,
    node: None,
    seen: Seen,
):
    """The counter-check: each attempt would do what it is after."""
    told = str(await run(friend, attempt.script, gateway=gateways.letting_in.url))
    if attempt.reaches:
        await eventually(lambda: netrunner.counts[attempt.reaches])
    else:
        await eventually(lambda: seen.statuses(attempt.path))
        assert netrunner.received == []
    assert ("clusterInfo" in told) == attempt.reads, told
    assert await is_paused(gateways) == (attempt.reaches == "pause_node")


async def test_a_page_can_not_speak_as_the_proxy_on_this_machine(
    context: BrowserContext, gateways: Gateways, netrunner: Watched, node: None
):
    """It comes from the same address; what it says of the Host is its own word."""
    url = f"http://evil.example:{gateways.proxied.port}"
    forwarded = {"x-forwarded-host": "localhost", "x-forwarded-for": "127.0.0.1"}
    async with opened(context, url + REBOUND) as page:
        for script in ("ask('/v1/status', {headers})", "post('', {headers})"):
            told = await run(page, script, headers=forwarded)
            assert told.startswith("403 "), told[:100]
    assert netrunner.received == []


# Frames and visits.


async def test_no_page_has_ours_in_a_frame(
    context: BrowserContext, gateways: Gateways, seen: Seen, pages: int
):
    docs = f"{gateways.letting_in.url}/docs"
    async with opened(context, LET_IN.format(pages=pages)) as page:
        await run(page, "embed('iframe', {src: docs})", docs=docs)
        await eventually(lambda: seen.statuses("/docs") == [200])  # it was asked for, and came
        (frame,) = page.main_frame.child_frames
        await eventually(lambda: frame.url.startswith("chrome-error:"))
        assert "swagger" not in await frame.content()


async def test_our_own_page_runs_and_may_ask(
    context: BrowserContext, gateways: Gateways, netrunner: Watched, node: None
):
    """Its policy lets its own script run, and nothing keeps it from the gateway."""
    url = gateways.closed.url
    async with opened(context, f"{url}/docs") as page:
        await page.locator(".opblock").first.wait_for()
        document = await run(page, "ask('/openapi.json')")
        assert document.startswith('200 {"openapi"')
        told = await run(page, f"post('', {{{JSON_HEADER}, body: '{{}}'}})")
        assert told.startswith("200 ")
        assert netrunner.counts["pause_node"] == 1
    assert await is_paused(gateways)


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_our_own_pages_run_and_load_nothing_that_is_not_their_own(
    context: BrowserContext, gateways: Gateways, pages: int, path: str
):
    evil = f"http://evil.example:{pages}"
    async with opened(context, f"{gateways.closed.url}{path}") as page:
        for name, attributes in (
            ("script", {"src": f"{evil}/x.js"}),
            ("script", {"textContent": "window.foreign = true"}),
            ("p", {"innerHTML": "<img src=data:, onerror='window.foreign = true'>"}),
            ("link", {"rel": "stylesheet", "href": f"{evil}/x.css"}),
            ("img", {"src": f"{evil}/x.png"}),
        ):
            blocked = await run(page, "add(name, attributes)", name=name, attributes=attributes)
            assert blocked == "securitypolicyviolation", name
        assert await page.evaluate("window.foreign") is None


# Tokens and tickets.


async def test_a_page_that_was_let_in_follows_the_stream_with_a_ticket(
    *,
    context: BrowserContext,
    friend: Page,
    gateways: Gateways,
    node: None,
    seen: Seen,
    pages: int,
):
    url = gateways.guarded.url
    stream = f"{url}{STREAM}"
    script = "followWithTicket(url, token)"
    ticket, state = await run(friend, script, url=url, token=TOKEN)
    assert "node1" in json.loads(state)["clusterInfo"]["nodeNames"]
    for wrong in ("", f"?ticket={ticket}x"):
        assert await run(friend, "follow(url)", url=stream + wrong) == "failed"
    await eventually(lambda: sorted(seen.statuses(STREAM)) == [200, 401, 401])
    async with opened(context, f"http://evil.example:{pages}/") as page:
        stolen = f"{stream}?ticket={ticket}"
        assert await run(page, "follow(url)", url=stolen) == "failed"
        await eventually(lambda: sorted(seen.statuses(STREAM)) == [200, 401, 401, 403])


async def test_a_page_that_was_let_in_needs_a_token_all_the_same(
    friend: Page, gateways: Gateways, netrunner: Watched, node: None
):
    status = f"{gateways.guarded.url}{STATUS}"
    told = await run(friend, "ask(url, {})", url=status)
    assert told.startswith("401 ")
    assert '"unauthenticated"' in told, "a page that was let in may read why"
    assert netrunner.received == []
    headers = {"authorization": f"Bearer {TOKEN}"}
    told = await run(friend, "ask(url, {headers})", url=status, headers=headers)
    assert told.startswith("200 ")
    assert "node1" in told
