"""Who is let in, as one table: four gateways on real ports, and what a request must look like."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import NamedTuple

import httpx
import pytest
import pytest_asyncio

from gateway.auth import token_line
from tests.integration.gateway_helpers import Running, Watched, is_problem, running_gateway
from tests.integration.zap_helpers import eventually, serving, soon
from zapcore import SimulatedNetrunner

# One netrunner and four gateways for the whole file; what is changed may be changed again.
pytestmark = pytest.mark.asyncio(loop_scope="module")

# Always the same: they are in the names of tests.
READER, OPERATOR, STRANGER = (f"zgw_{letter * 43}" for letter in "roS")
LINES = (token_line("rita", "read", READER), token_line("otto", "operate", OPERATOR))

SITE = "https://tools.example"
PAGES = "http://pages.example:8000"
NAMES = {"allowed_host": ("tools.example", "10.0.0.7"), "allowed_origin": (SITE, PAGES)}

OPEN, NAMED, GUARDED, BOTH = "open", "named", "guarded", "both"
GATEWAYS: dict[str, dict[str, object]] = {
    OPEN: {},
    NAMED: NAMES,
    GUARDED: {"token": LINES},
    BOTH: {"token": LINES, **NAMES},
}

STATUS, STREAM, TICKETS = "/v1/status", "/v1/status/stream", "/v1/stream-tickets"
RESTART, NODE, CLUSTER = "/v1/nodes/node1/restart", "/v1/nodes/node1", "/v1/cluster"
CONSOLE, DOCS, HEALTH, METRICS = "/", "/docs", "/healthz", "/metrics"
SCRIPT = "/static/docs.js"

CODES = {
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
}

Headers = Mapping[str, str]


def host(name: str) -> dict[str, str]:
    return {"host": name}


def origin(name: str) -> dict[str, str]:
    return {"origin": name}


def fetch(site: str, mode: str = "cors") -> dict[str, str]:
    return {"sec-fetch-site": site, "sec-fetch-mode": mode}


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


READ, OPERATE = bearer(READER), bearer(OPERATOR)
ASKS = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
VISIT = fetch("cross-site", "navigate")
SAME = fetch("same-origin")
EVIL = origin("http://evil.example")


class Row(NamedTuple):
    """A request, and what becomes of it.

    In headers and path, ``{port}`` is the gateway's own, ``{ticket}`` a fresh ticket of its reader,
    ``{foreign}`` one of another gateway with the same tokens.
    """

    gateway: str
    verb: str
    path: str
    headers: Headers
    status: int

    def __str__(self) -> str:
        told = " ".join(f"{name}={value}" for name, value in self.headers.items())
        return f"{self.gateway} {self.verb} {self.path} {told} {self.status}"


OPEN_ROWS = [
    # Hosts: this machine's names, with any port, in any case.
    Row(OPEN, "GET", STATUS, {}, 200),
    Row(OPEN, "GET", STATUS, host("127.0.0.1"), 200),
    Row(OPEN, "GET", STATUS, host("localhost:{port}"), 200),
    Row(OPEN, "GET", STATUS, host("LocalHost:1"), 200),
    Row(OPEN, "GET", STATUS, host("[::1]"), 200),
    Row(OPEN, "GET", STATUS, host("[::1]:{port}"), 200),
    # And no others, whatever they look like.
    Row(OPEN, "POST", RESTART, host("evil.example"), 403),
    Row(OPEN, "POST", RESTART, host("evil.example:{port}"), 403),
    Row(OPEN, "POST", RESTART, host("localhost.evil.example:{port}"), 403),
    Row(OPEN, "POST", RESTART, host("127.0.0.1.nip.example:{port}"), 403),
    Row(OPEN, "POST", RESTART, host("7f000001.rebind.example:{port}"), 403),
    Row(OPEN, "POST", RESTART, host("localhost@evil.example"), 403),
    Row(OPEN, "POST", RESTART, host("evil.example@localhost"), 403),
    Row(OPEN, "POST", RESTART, host("user:secret@localhost:{port}"), 403),
    Row(OPEN, "POST", RESTART, host("localhost."), 403),
    Row(OPEN, "POST", RESTART, host("localhost:evil"), 403),
    Row(OPEN, "POST", RESTART, host("localhost:123456"), 403),
    Row(OPEN, "POST", RESTART, host("localhost, evil.example"), 403),
    Row(OPEN, "POST", RESTART, host("localhost/evil.example"), 403),
    Row(OPEN, "POST", RESTART, host("localhost#.evil.example"), 403),
    Row(OPEN, "POST", RESTART, host("0.0.0.0:{port}"), 403),
    Row(OPEN, "POST", RESTART, host("2130706433"), 403),
    Row(OPEN, "POST", RESTART, host("0x7f.1"), 403),
    Row(OPEN, "POST", RESTART, host("127.0.0.2"), 403),
    Row(OPEN, "POST", RESTART, host("[::]:{port}"), 403),
    Row(OPEN, "POST", RESTART, host("[::ffff:127.0.0.1]"), 403),
    Row(OPEN, "POST", RESTART, host("[::1].evil.example"), 403),
    Row(OPEN, "POST", RESTART, host("[evil.example]"), 403),
    Row(OPEN, "POST", RESTART, host("::1"), 403),
    Row(OPEN, "POST", RESTART, host(""), 403),
    Row(OPEN, "POST", RESTART, host("tools.example"), 403),
    Row(OPEN, "GET", STATUS, host("evil.example"), 403),
    Row(OPEN, "GET", STREAM, host("evil.example"), 403),
    Row(OPEN, "GET", DOCS, host("evil.example"), 403),
    Row(OPEN, "GET", HEALTH, host("evil.example"), 403),
    Row(OPEN, "GET", "/nowhere", host("evil.example"), 403),
    # A page under its own name that resolves to us: same-origin in its browser's eyes.
    Row(
        *(OPEN, "POST", RESTART),
        host("evil.example:{port}") | origin("http://evil.example:{port}") | SAME,
        403,
    ),
    Row(OPEN, "GET", STATUS, host("evil.example:{port}") | SAME, 403),
    # Nobody but a trusted proxy may say what the Host was.
    Row(OPEN, "POST", RESTART, host("evil.example") | {"x-forwarded-host": "localhost"}, 403),
    Row(OPEN, "POST", RESTART, host("evil.example") | {"forwarded": "host=localhost"}, 403),
    Row(
        *(OPEN, "POST", RESTART),
        origin("https://127.0.0.1:{port}") | {"x-forwarded-proto": "https"},
        403,
    ),
    # Origins: our own, and no other.
    Row(OPEN, "POST", RESTART, {}, 200),
    Row(OPEN, "POST", RESTART, origin("http://127.0.0.1:{port}") | SAME, 200),
    Row(OPEN, "POST", RESTART, origin("HTTP://127.0.0.1:{port}"), 200),
    Row(
        *(OPEN, "POST", RESTART),
        host("localhost:{port}") | origin("http://localhost:{port}") | SAME,
        200,
    ),
    Row(OPEN, "POST", RESTART, origin("https://127.0.0.1:{port}"), 403),
    Row(OPEN, "POST", RESTART, origin("http://127.0.0.1"), 403),
    Row(OPEN, "POST", RESTART, origin("http://127.0.0.1:1"), 403),
    Row(OPEN, "POST", RESTART, origin("http://127.0.0.1:{port}/"), 403),
    Row(OPEN, "POST", RESTART, origin("http://127.0.0.1:{port}.evil.example"), 403),
    Row(OPEN, "POST", RESTART, origin("http://localhost:{port}"), 403),
    Row(OPEN, "POST", RESTART, origin("null"), 403),
    Row(OPEN, "POST", RESTART, origin("file://"), 403),
    Row(OPEN, "POST", RESTART, origin("chrome-extension://abcdefghijklmnop"), 403),
    Row(OPEN, "POST", RESTART, EVIL, 403),
    Row(OPEN, "POST", RESTART, EVIL | SAME, 403),
    Row(OPEN, "POST", RESTART, EVIL | bearer("anything"), 403),
    Row(OPEN, "DELETE", CLUSTER, EVIL, 403),
    Row(OPEN, "DELETE", NODE, origin("null"), 403),
    Row(OPEN, "GET", STATUS, EVIL, 403),
    Row(OPEN, "GET", STREAM, EVIL | fetch("cross-site"), 403),
    Row(OPEN, "POST", TICKETS, EVIL, 403),
    Row(OPEN, "GET", METRICS, EVIL, 403),
    Row(OPEN, "GET", HEALTH, EVIL, 403),
    Row(OPEN, "HEAD", STATUS, EVIL, 403),
    # Where a browser sends no Origin, it still says whose page asks.
    Row(OPEN, "GET", STATUS, SAME, 200),
    Row(OPEN, "GET", STATUS, fetch("none", "navigate"), 200),
    Row(OPEN, "GET", STATUS, fetch("cross-site", "no-cors"), 403),
    Row(OPEN, "GET", STATUS, fetch("same-site", "no-cors"), 403),
    Row(OPEN, "GET", STREAM, fetch("same-site"), 403),
    Row(OPEN, "POST", RESTART, fetch("cross-site", "no-cors"), 403),
    Row(OPEN, "POST", RESTART, fetch("same-site", "navigate"), 403),
    Row(OPEN, "POST", RESTART, fetch("SAME-ORIGIN"), 403),
    Row(OPEN, "POST", RESTART, fetch("what comes next"), 403),
    # A link from elsewhere opens what is for people, and nothing of the API.
    Row(OPEN, "GET", DOCS, {}, 200),
    Row(OPEN, "GET", DOCS, VISIT, 200),
    Row(OPEN, "GET", "/openapi.json", VISIT, 200),
    Row(OPEN, "GET", CONSOLE, VISIT, 200),
    Row(OPEN, "GET", STATUS, VISIT, 403),
    Row(OPEN, "GET", STREAM, VISIT, 403),
    Row(OPEN, "GET", DOCS, fetch("cross-site", "no-cors"), 403),
    Row(OPEN, "GET", CONSOLE, fetch("cross-site", "no-cors"), 403),
    Row(OPEN, "GET", SCRIPT, fetch("cross-site", "no-cors"), 403),
    Row(OPEN, "GET", SCRIPT, SAME, 200),
    Row(OPEN, "GET", CONSOLE, host("evil.example"), 403),
    Row(OPEN, "GET", SCRIPT, host("evil.example"), 403),
    Row(OPEN, "GET", DOCS, VISIT | EVIL, 403),
    Row(OPEN, "POST", DOCS, VISIT, 403),
    Row(OPEN, "POST", DOCS, VISIT | EVIL, 403),
    # Preflights of pages that nobody let in.
    Row(OPEN, "OPTIONS", RESTART, EVIL | ASKS | fetch("cross-site"), 403),
    Row(OPEN, "OPTIONS", RESTART, origin("null") | ASKS, 403),
    Row(OPEN, "OPTIONS", RESTART, {}, 405),
    # Without tokens a ticket is neither needed nor a hindrance.
    Row(OPEN, "POST", TICKETS, {}, 200),
    Row(OPEN, "GET", STREAM, {}, 200),
    Row(OPEN, "GET", f"{STREAM}?ticket=", {}, 200),
    Row(OPEN, "GET", f"{STREAM}?ticket={{foreign}}", {}, 200),
    Row(OPEN, "GET", f"{STREAM}?ticket={{foreign}}", EVIL, 403),
    Row(OPEN, "GET", "/nowhere", {}, 404),
]

NAMED_ROWS = [
    Row(NAMED, "GET", STATUS, {}, 200),
    Row(NAMED, "GET", STATUS, host("localhost:{port}"), 200),
    Row(NAMED, "GET", STATUS, host("TOOLS.example:8443"), 200),
    Row(NAMED, "GET", STATUS, host("10.0.0.7:{port}"), 200),
    Row(NAMED, "POST", RESTART, host("tools.example"), 200),
    Row(NAMED, "POST", RESTART, host("tools.example") | origin("http://tools.example"), 200),
    Row(NAMED, "POST", RESTART, host("tools.example") | EVIL, 403),
    Row(NAMED, "POST", RESTART, host("a.tools.example"), 403),
    Row(NAMED, "POST", RESTART, host("tools.example.evil.example"), 403),
    Row(NAMED, "POST", RESTART, host("tools.example."), 403),
    Row(NAMED, "POST", RESTART, host("pages.example"), 403),
    Row(NAMED, "POST", RESTART, host("evil.example") | origin(SITE), 403),
    Row(NAMED, "POST", RESTART, origin(SITE) | fetch("cross-site"), 200),
    Row(NAMED, "POST", RESTART, origin("HTTPS://Tools.Example"), 200),
    Row(NAMED, "POST", RESTART, origin(PAGES) | fetch("cross-site"), 200),
    Row(NAMED, "GET", STREAM, origin(SITE) | fetch("cross-site"), 200),
    Row(NAMED, "POST", RESTART, origin("http://tools.example"), 403),
    Row(NAMED, "POST", RESTART, origin("https://tools.example:444"), 403),
    Row(NAMED, "POST", RESTART, origin("https://a.tools.example"), 403),
    Row(NAMED, "POST", RESTART, origin("https://tools.example.evil.example"), 403),
    Row(NAMED, "POST", RESTART, origin("https://tools.example/"), 403),
    Row(NAMED, "POST", RESTART, origin("http://pages.example"), 403),
    Row(NAMED, "POST", RESTART, origin("https://pages.example:8000"), 403),
    Row(NAMED, "POST", RESTART, origin("null"), 403),
    Row(NAMED, "POST", RESTART, fetch("cross-site"), 403),
    Row(NAMED, "GET", STATUS, fetch("cross-site", "no-cors"), 403),
    Row(NAMED, "OPTIONS", RESTART, origin(SITE) | ASKS | fetch("cross-site"), 204),
    Row(NAMED, "OPTIONS", "/nowhere", origin(PAGES) | ASKS, 204),
    Row(NAMED, "OPTIONS", RESTART, EVIL | ASKS, 403),
    Row(NAMED, "OPTIONS", RESTART, origin("http://tools.example") | ASKS, 403),
    Row(NAMED, "OPTIONS", RESTART, host("evil.example") | origin(SITE) | ASKS, 403),
]

GUARDED_ROWS = [
    # Without a token: health and documents, and not even a word on what else there is.
    Row(GUARDED, "GET", HEALTH, {}, 200),
    Row(GUARDED, "GET", "/readyz", {}, 200),
    Row(GUARDED, "GET", DOCS, {}, 200),
    Row(GUARDED, "GET", "/openapi.json", {}, 200),
    Row(GUARDED, "GET", DOCS, VISIT, 200),
    Row(GUARDED, "GET", STATUS, {}, 401),
    Row(GUARDED, "GET", STREAM, {}, 401),
    Row(GUARDED, "GET", METRICS, {}, 401),
    Row(GUARDED, "GET", METRICS, VISIT, 401),
    Row(GUARDED, "GET", "/nowhere", {}, 401),
    Row(GUARDED, "GET", CONSOLE, {}, 200),
    Row(GUARDED, "GET", SCRIPT, {}, 200),
    Row(GUARDED, "HEAD", SCRIPT, {}, 200),
    Row(GUARDED, "GET", "/favicon.ico", {}, 200),
    Row(GUARDED, "POST", SCRIPT, {}, 405),
    Row(GUARDED, "GET", "/static", {}, 401),
    Row(GUARDED, "GET", "/static/", {}, 401),
    Row(GUARDED, "GET", "/static/nothing.js", {}, 401),
    Row(GUARDED, "GET", "/static/../v1/status", {}, 401),
    Row(GUARDED, "GET", "/static/%2e%2e/v1/status", {}, 401),
    Row(GUARDED, "GET", "/healthz/", {}, 401),
    Row(GUARDED, "GET", "/healthz/../v1/status", {}, 401),
    Row(GUARDED, "GET", "//docs", {}, 401),
    Row(GUARDED, "GET", "/docs%2f..%2fv1/status", {}, 401),
    Row(GUARDED, "POST", RESTART, {}, 401),
    Row(GUARDED, "DELETE", CLUSTER, {}, 401),
    Row(GUARDED, "OPTIONS", RESTART, {}, 401),
    Row(GUARDED, "POST", TICKETS, {}, 401),
    # With something that is no token of ours.
    Row(GUARDED, "POST", RESTART, bearer(STRANGER), 401),
    Row(GUARDED, "POST", RESTART, bearer(OPERATOR[:-1]), 401),
    Row(GUARDED, "POST", RESTART, bearer(OPERATOR + "x"), 401),
    Row(GUARDED, "POST", RESTART, bearer(OPERATOR.swapcase()), 401),
    Row(GUARDED, "POST", RESTART, {"authorization": "Bearer"}, 401),
    Row(GUARDED, "POST", RESTART, bearer("otto"), 401),
    Row(GUARDED, "POST", RESTART, bearer(LINES[1].rpartition(":")[2]), 401),
    Row(GUARDED, "POST", RESTART, {"authorization": OPERATOR}, 401),
    Row(GUARDED, "POST", RESTART, {"authorization": f"Basic {OPERATOR}"}, 401),
    Row(GUARDED, "POST", RESTART, {"authorization": f"Bearer {OPERATOR}, Bearer x"}, 401),
    Row(GUARDED, "POST", RESTART, {"x-api-key": OPERATOR, "cookie": f"token={OPERATOR}"}, 401),
    Row(GUARDED, "POST", f"{RESTART}?token={OPERATOR}", {}, 401),
    Row(GUARDED, "POST", f"{RESTART}?access_token={OPERATOR}", {}, 401),
    Row(GUARDED, "POST", TICKETS, bearer(STRANGER), 401),
    # A reader reads.
    Row(GUARDED, "GET", STATUS, READ, 200),
    Row(GUARDED, "GET", STREAM, READ, 200),
    Row(GUARDED, "GET", METRICS, READ, 200),
    Row(GUARDED, "POST", TICKETS, READ, 200),
    Row(GUARDED, "GET", "/nowhere", READ, 404),
    Row(GUARDED, "HEAD", CLUSTER, READ, 405),
    Row(GUARDED, "POST", RESTART, READ, 403),
    Row(GUARDED, "DELETE", NODE, READ, 403),
    Row(GUARDED, "DELETE", CLUSTER, READ, 403),
    Row(GUARDED, "POST", CLUSTER, READ, 403),
    Row(GUARDED, "PUT", NODE, READ, 403),
    Row(GUARDED, "PATCH", NODE, READ, 403),
    Row(GUARDED, "POST", "/nowhere", READ, 403),
    Row(GUARDED, "DELETE", TICKETS, READ, 403),
    Row(GUARDED, "POST", TICKETS + "/", READ, 403),
    Row(GUARDED, "OPTIONS", RESTART, READ, 403),
    Row(GUARDED, "POST", RESTART, READ | {"x-http-method-override": "GET"}, 403),
    # An operator does all.
    Row(GUARDED, "POST", RESTART, OPERATE, 200),
    Row(GUARDED, "POST", RESTART, {"authorization": f"bearer {OPERATOR}"}, 200),
    Row(GUARDED, "PUT", NODE, OPERATE, 405),
    Row(GUARDED, "POST", RESTART, OPERATE | host("any.example"), 200),
    # No token makes up for a foreign page.
    Row(GUARDED, "POST", RESTART, OPERATE | EVIL, 403),
    Row(GUARDED, "POST", RESTART, OPERATE | origin("null"), 403),
    Row(GUARDED, "GET", STATUS, READ | fetch("cross-site"), 403),
    Row(GUARDED, "POST", TICKETS, READ | EVIL, 403),
    Row(GUARDED, "OPTIONS", RESTART, EVIL | ASKS, 403),
    Row(
        *(GUARDED, "POST", RESTART),
        host("evil.example:{port}") | origin("http://evil.example:{port}") | SAME,
        401,
    ),
    # A ticket opens streams, and nothing else.
    Row(GUARDED, "GET", f"{STREAM}?ticket={{ticket}}", {}, 200),
    Row(GUARDED, "GET", f"{STREAM}?interval=1h&ticket={{ticket}}", {}, 200),
    Row(GUARDED, "GET", f"{STREAM}?ticket={{ticket}}", EVIL, 403),
    Row(GUARDED, "GET", f"{STREAM}?ticket={{ticket}}", VISIT, 403),
    Row(GUARDED, "GET", f"{STREAM}?ticket={{ticket}}", bearer(STRANGER), 401),
    Row(GUARDED, "GET", f"{STREAM}?ticket={{ticket}}x", {}, 401),
    Row(GUARDED, "GET", f"{STREAM}?ticket=x&ticket={{ticket}}", {}, 401),
    Row(GUARDED, "GET", f"{STREAM}?Ticket={{ticket}}", {}, 401),
    Row(GUARDED, "GET", f"{STREAM}?ticket={{foreign}}", {}, 401),
    Row(GUARDED, "GET", f"{STREAM}?ticket={READER}", {}, 401),
    Row(GUARDED, "GET", f"{STREAM}?ticket=", {}, 401),
    Row(GUARDED, "GET", STREAM, bearer("{ticket}"), 401),
    Row(GUARDED, "GET", f"{STATUS}?ticket={{ticket}}", {}, 401),
    Row(GUARDED, "GET", f"{METRICS}?ticket={{ticket}}", {}, 401),
    Row(GUARDED, "GET", f"{STREAM}/?ticket={{ticket}}", {}, 401),
    Row(GUARDED, "GET", f"/nowhere?ticket={{ticket}}", {}, 401),  # noqa: F541
    Row(GUARDED, "POST", f"{TICKETS}?ticket={{ticket}}", {}, 401),
    Row(GUARDED, "POST", f"{RESTART}?ticket={{ticket}}", {}, 401),
    Row(GUARDED, "DELETE", f"{CLUSTER}?ticket={{ticket}}", {}, 401),
]

BOTH_ROWS = [
    # The Host counts for all, before anything else.
    Row(BOTH, "GET", STATUS, READ, 200),
    Row(BOTH, "GET", STATUS, READ | host("tools.example"), 200),
    Row(BOTH, "POST", RESTART, OPERATE | host("evil.example"), 403),
    Row(BOTH, "GET", STATUS, host("evil.example"), 403),
    Row(BOTH, "GET", HEALTH, host("evil.example"), 403),
    Row(BOTH, "GET", HEALTH, host("tools.example"), 200),
    Row(BOTH, "GET", f"{STREAM}?ticket={{ticket}}", host("evil.example"), 403),
    # A page that was let in needs a token like everybody, its preflights do not.
    Row(BOTH, "POST", RESTART, origin(SITE), 401),
    Row(BOTH, "POST", RESTART, origin(SITE) | bearer(STRANGER), 401),
    Row(BOTH, "POST", RESTART, origin(SITE) | READ, 403),
    Row(BOTH, "POST", RESTART, origin(SITE) | fetch("cross-site") | OPERATE, 200),
    Row(BOTH, "POST", RESTART, EVIL | OPERATE, 403),
    Row(BOTH, "OPTIONS", RESTART, origin(SITE) | ASKS | fetch("cross-site"), 204),
    Row(BOTH, "OPTIONS", CLUSTER, origin(PAGES) | ASKS, 204),
    Row(BOTH, "OPTIONS", RESTART, EVIL | ASKS, 403),
    Row(BOTH, "OPTIONS", RESTART, host("evil.example") | origin(SITE) | ASKS, 403),
    Row(BOTH, "OPTIONS", RESTART, ASKS, 401),
    Row(BOTH, "POST", TICKETS, origin(SITE) | READ, 200),
    Row(BOTH, "POST", TICKETS, origin(SITE), 401),
    Row(BOTH, "GET", f"{STREAM}?ticket={{ticket}}", origin(SITE) | fetch("cross-site"), 200),
    Row(BOTH, "GET", f"{STREAM}?ticket={{ticket}}", origin("http://tools.example"), 403),
    Row(BOTH, "GET", f"{STATUS}?ticket={{ticket}}", origin(SITE), 401),
]

ROWS = [*OPEN_ROWS, *NAMED_ROWS, *GUARDED_ROWS, *BOTH_ROWS]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def netrunner() -> Watched:
    return Watched(SimulatedNetrunner(health_delay=0))


@pytest.fixture
def watched(netrunner: Watched) -> Watched:
    netrunner.received.clear()
    return netrunner


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateways(netrunner: Watched) -> AsyncIterator[dict[str, Running]]:
    """The four, by name."""
    async with serving(netrunner) as server, AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(running_gateway(server, **settings))
            for name, settings in GATEWAYS.items()
        }


async def ticket_of(running: Running) -> str:
    answer = await running.client.post(TICKETS, headers=READ)
    return str(answer.json()["ticket"])


async def ask(gateways: dict[str, Running], row: Row) -> httpx.Response:
    """Send a row's request; of a stream, the answer's head and its first event are read."""
    running = gateways[row.gateway]
    text = f"{row.path} {row.headers}"
    filled = {"{port}": str(running.port)}
    if "{ticket}" in text:
        filled["{ticket}"] = await ticket_of(running)
    if "{foreign}" in text:
        filled["{foreign}"] = await ticket_of(gateways[BOTH if row.gateway == GUARDED else GUARDED])

    def fill(value: str) -> str:
        return re.sub(r"{\w+}", lambda found: filled[found[0]], value)

    headers = {name: fill(value) for name, value in row.headers.items()}
    extensions = {"target": fill(row.path).encode()}  # to the byte: clients mend some paths
    async with running.client.stream(
        row.verb, "/", headers=headers, extensions=extensions
    ) as response:
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            async for line in response.aiter_lines():
                if line.startswith("data:"):
                    break
        else:
            await response.aread()
    return response


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_who_is_let_in(gateways: dict[str, Running], watched: Watched, row: Row):
    response = await ask(gateways, row)
    assert response.status_code == row.status, response.headers
    challenge = response.headers.get("www-authenticate", "")
    assert challenge.startswith("Bearer") == (row.status == 401)
    if row.status in CODES and row.verb != "HEAD":
        is_problem(response, row.status, CODES[row.status])
    path = row.path.partition("?")[0]
    if row.status == 200 and path.startswith("/v1/") and path != TICKETS:
        assert watched.received, "a request that is let in reaches the netrunner"
        await eventually(lambda: not watched.streams)
    else:
        assert watched.received == []


@pytest.mark.parametrize("row", [row for row in ROWS if "origin" in row.headers], ids=str)
async def test_pages_are_told_who_was_let_in_and_no_others(gateways: dict[str, Running], row: Row):
    """Leave to read goes to the origins that were let in, by name, and never to all."""
    response = await ask(gateways, row)
    asking = row.headers["origin"]
    named = row.gateway in (NAMED, BOTH) and asking.lower() in (SITE, PAGES)
    allowed = response.headers.get("access-control-allow-origin")
    assert allowed == (asking if named else None)
    assert "access-control-allow-credentials" not in response.headers
    preflight = row.status == 204
    assert ("access-control-allow-methods" in response.headers) == preflight
    assert ("access-control-allow-headers" in response.headers) == preflight
    if named:
        assert "origin" in response.headers["vary"].lower()


# What no well-behaved client sends.


async def status_of(running: Running, *lines: str) -> int:
    """The status of the answer to a request that is written as it is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    try:
        writer.write("\r\n".join((*lines, "", "")).encode())
        return int((await soon(reader.readline())).split()[1])
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ((f"POST {RESTART} HTTP/1.1", "Host: localhost"), 200),
        ((f"POST {RESTART} HTTP/1.1",), 403),
        ((f"POST {RESTART} HTTP/1.0",), 403),
        ((f"POST {RESTART} HTTP/1.1", "Host:"), 403),
        ((f"POST http://localhost{RESTART} HTTP/1.1", "Host: evil.example"), 403),
    ],
)
async def test_a_request_names_its_host_in_its_header(
    gateways: dict[str, Running], watched: Watched, lines: tuple[str, ...], status: int
):
    assert await status_of(gateways[OPEN], *lines) == status
    assert bool(watched.received) == (status == 200)


@pytest.mark.parametrize(
    ("gateway", "headers"),
    [
        (OPEN, ("Host: localhost", "Host: evil.example")),
        (OPEN, ("Host: evil.example", "Host: localhost")),
        (OPEN, ("Host: localhost", "HOST: localhost")),
        (OPEN, ("Host: localhost", "Origin: http://evil.example", "Origin: http://localhost")),
        (OPEN, ("Host: localhost", "Origin: http://localhost", "Origin: http://evil.example")),
        (OPEN, ("Host: localhost", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: none")),
        (OPEN, ("Host: localhost", "Sec-Fetch-Mode: cors", "Sec-Fetch-Mode: navigate")),
        (
            GUARDED,
            ("Host: localhost", "Authorization: Bearer x", f"Authorization: Bearer {OPERATOR}"),
        ),
    ],
)
async def test_a_header_that_decides_and_comes_twice_lets_nobody_in(
    gateways: dict[str, Running], watched: Watched, gateway: str, headers: tuple[str, ...]
):
    """Something on the way may have heeded the other one."""
    assert await status_of(gateways[gateway], f"POST {RESTART} HTTP/1.1", *headers) == 400
    assert watched.received == []


@pytest.mark.parametrize(
    ("gateway", "headers", "status"),
    [(OPEN, EVIL, 403), (OPEN, host("evil.example"), 403), (GUARDED, {}, 401)],
)
async def test_a_query_of_very_many_fields_changes_nothing(
    gateways: dict[str, Running], watched: Watched, gateway: str, headers: Headers, status: int
):
    row = Row(gateway, "GET", f"{STREAM}?{'&x=1' * 1000}", headers, status)
    response = await ask(gateways, row)
    is_problem(response, status, CODES[status])
    assert watched.received == []
