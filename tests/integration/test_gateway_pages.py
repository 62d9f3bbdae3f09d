"""The pages and their files as they are served; how they behave is for tests/browser."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

import gateway
from gateway.auth import OPEN_PATHS, STATIC_FILES, new_token, token_line
from gateway.routes.pages import add_pages
from tests.integration.gateway_helpers import Running, is_problem, running_gateway
from tests.integration.zap_helpers import serving, soon
from zapcore import SimulatedNetrunner

# One gateway for the whole file: nothing here changes anything.
pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGES = ("/", "/docs")
STATIC = tuple(f"/static/{name}" for name in sorted(STATIC_FILES))
ICONS = ("/favicon.ico", "/static/icon.svg")
ALL = (*PAGES, *STATIC, "/favicon.ico")
BUNDLE = "/static/swagger-ui-bundle.js"
FOLDER = Path(gateway.__file__).parent / "static"

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ico": "image/svg+xml",
    "": "text/html; charset=utf-8",
}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'"
)
POLICIES = {"/": POLICY, "/docs": f"{POLICY}; trusted-types default dompurify"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Running]:
    """One with tokens; none is ever shown to it here."""
    tokens = (token_line("somebody", "read", new_token()),)
    async with (
        serving(SimulatedNetrunner()) as server,
        running_gateway(server, token=tokens) as started,
    ):
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_gateway() -> AsyncIterator[Running]:
    async with serving(SimulatedNetrunner()) as server, running_gateway(server) as started:
        yield started


class References(HTMLParser):
    """What a page refers to: files that it loads, and places that its links lead to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.files: set[str] = set()
        self.links: set[str] = set()
        self.inline: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.files |= {given[name] or "" for name in ("src",) if name in given}
        if "href" in given:
            (self.links if tag == "a" else self.files).add(given["href"] or "")
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)
        self.inline += [name for name in given if name == "style" or name.startswith("on")]


IMPORTS = re.compile(
    r"""^\s*(?:import\s*|(?:import|export)\b[^"'()=;]*\bfrom\s*)["']([^"']+)["']""", re.MULTILINE
)
REFERENCES_OF_STYLES = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""")


# What is served.


@pytest.mark.parametrize("path", ALL)
async def test_a_page_or_file_is_served_to_everybody_with_its_type(running: Running, path: str):
    answer = await running.client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == TYPES[Path(path).suffix]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert int(answer.headers["content-length"]) == len(answer.content) > 0
    assert path in OPEN_PATHS


DIFFERS_EACH_TIME = {"date", "x-request-id"}


@pytest.mark.parametrize("path", ALL)
async def test_head_tells_what_get_would(running: Running, path: str):
    got, headed = await running.client.get(path), await running.client.head(path)
    assert headed.status_code == 200
    assert headed.content == b""
    assert headed.headers.keys() == got.headers.keys()
    for name in set(got.headers) - DIFFERS_EACH_TIME:
        assert headed.headers[name] == got.headers[name], name


async def test_after_head_the_connection_goes_on(running: Running):
    """Nothing of the body was sent: it would be taken for the next answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(f"HEAD {BUNDLE} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answers = await soon(reader.read())
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert answers.endswith(b'{"status":"ok"}')
    assert len(answers) < 2000
    writer.close()


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_may_do_nothing_but_what_it_is_for(running: Running, path: str):
    headers = (await running.client.get(path)).headers
    assert headers["content-security-policy"] == POLICIES[path]
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"


@pytest.mark.parametrize("path", PAGES)
async def test_all_that_a_page_refers_to_is_there_and_here(running: Running, path: str):
    """And with it all that its scripts and styles refer to, and so on."""
    page = References((await running.client.get(path)).text)
    assert page.inline == [], "the page's policy would not run it"
    found, waiting = set(), {*page.files, *page.links}
    while waiting:
        reference = waiting.pop()
        if reference.startswith(("#", "data:")) or reference in found:
            continue
        found.add(reference)
        parts = urlsplit(reference)
        assert (parts.scheme, parts.netloc) == ("", ""), reference
        assert parts.path in OPEN_PATHS, reference
        text = (await running.client.get(reference)).text
        if reference.endswith(".js") and reference != BUNDLE:
            waiting |= {str(httpx.URL(reference).join(each)) for each in IMPORTS.findall(text)}
        if reference.endswith(".css"):
            for each in REFERENCES_OF_STYLES.findall(text):
                target = next(filter(None, each))
                waiting.add(str(httpx.URL(reference).join(target)))
    assert found >= {"/static/icon.svg"}


async def test_every_file_of_the_folder_is_served_and_nothing_else_is_promised():
    ours = {path.name for path in FOLDER.iterdir()} - {"console.html", "docs.html"}
    assert {name for name in STATIC_FILES if not name.startswith("swagger-ui")} == ours


async def test_browsers_find_an_icon_without_being_told(running: Running):
    answers = [await running.client.get(path) for path in ICONS]
    assert answers[0].content == answers[1].content == (FOLDER / "icon.svg").read_bytes()
    assert b"<svg" in answers[0].content


async def test_swagger_ui_is_one_that_reads_the_document(running: Running):
    """OpenAPI 3.1 is read from version 5 on."""
    document = (await running.client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1.")
    bundle = await running.client.get(BUNDLE)
    packed = resources.files("fastapi_swagger").joinpath("resources/swagger-ui-bundle.js")
    assert bundle.content == packed.read_bytes()
    (version,) = re.findall(r'PACKAGE_VERSION:"([\d.]+)"', bundle.text)
    assert version.startswith("5.")


async def test_large_files_leave_piece_by_piece(running: Running):
    """As a client that takes nothing would else have all of one in the gateway's memory."""
    sizes = []

    async def send(message: dict[str, object]) -> None:
        body = message.get("body", b"")
        assert isinstance(body, bytes)
        sizes.append(len(body))

    api = FastAPI(openapi_url=None)
    add_pages(api, "")
    scope = {"type": "http", "method": "GET", "path": BUNDLE, "headers": [], "query_string": b""}
    await api(scope, asyncio.Event().wait, send)
    assert sum(sizes) > 1_000_000
    assert max(sizes) <= 64 * 1024


# What is not.


@pytest.mark.parametrize(
    "path",
    [
        "/static",
        "/static/",
        "/static/nothing.js",
        "/static/console.html",
        "/static/docs.html",
        "/static/Console.css",
        "/static/console.css/",
        "/static//console.css",
        "/static/./console.css",
        "/static/../auth.py",
        "/static/..%2fauth.py",
        "/static/%2e%2e/auth.py",
        "/static/%2e%2e%2fauth.py",
        "/static/..%5cauth.py",
        "/static/....//auth.py",
        "/static/%252e%252e%252fauth.py",
        "/static/console.css%00",
        "/static/console.css%00.js",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/C:%5cwindows%5cwin.ini",
        "/static/favicon-32x32.png",
        "/static/__init__.py",
    ],
)
async def test_no_other_name_leads_to_a_file(running: Running, open_gateway: Running, path: str):
    """The path goes out as it is written here; what needs a token is not even told to be absent."""
    for asked, status, code in (
        (open_gateway, 404, "not_found"),
        (running, 401, "unauthenticated"),
    ):
        request = asked.client.build_request("GET", "/")
        request.extensions["target"] = path.encode()
        is_problem(await asked.client.send(request), status, code)


@pytest.mark.parametrize("path", ALL)
async def test_they_can_only_be_got(running: Running, open_gateway: Running, path: str):
    for verb in ("POST", "PUT", "DELETE", "PATCH"):
        answer = await open_gateway.client.request(verb, path)
        is_problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ALL)
async def test_pages_of_others_get_none_of_them(running: Running, path: str):
    client = running.client
    for headers in (
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "origin": "https://x.example"},
        {"origin": "https://x.example"},
    ):
        is_problem(await client.get(path, headers=headers), 403, "forbidden")
    own = {"sec-fetch-site": "same-origin", "sec-fetch-mode": "no-cors"}
    assert (await client.get(path, headers=own)).status_code == 200


@pytest.mark.parametrize("path", ALL)
async def test_under_a_foreign_name_there_is_none_of_them(open_gateway: Running, path: str):
    answer = await open_gateway.client.get(path, headers={"host": "evil.example"})
    is_problem(answer, 403, "forbidden")


@pytest.mark.parametrize("path", PAGES)
async def test_a_link_from_elsewhere_opens_a_page(running: Running, path: str):
    visit = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert (await running.client.get(path, headers=visit)).status_code == 200


# The root path.


@pytest.mark.parametrize("prefix", ["/netrunner", ""], ids=["left by the proxy", "stripped"])
@pytest.mark.parametrize("path", PAGES)
async def test_pages_refer_to_where_the_proxy_shows_them(prefix: str, path: str):
    async with (
        serving(SimulatedNetrunner()) as server,
        running_gateway(server, root_path="/netrunner") as running,
    ):
        top = httpx.URL(running.url).join("/")
        answer = await running.client.get(top.join(prefix + path))
        assert answer.status_code == 200
        assert "{root}" not in answer.text
        page = References(answer.text)
        references = {each for each in (*page.files, *page.links) if each[:1] != "#"}
        assert references
        for reference in references:
            assert reference.startswith("/netrunner/")
            for served in (reference, reference.removeprefix("/netrunner")):
                assert (await running.client.get(top.join(served))).status_code == 200


@pytest.mark.parametrize("path", PAGES)
async def test_a_root_path_can_add_nothing_to_a_page(path: str):
    """Settings take no such one; the pages do not count on that."""
    api = FastAPI(openapi_url=None)
    add_pages(api, """/"'><script>&""")
    transport = httpx.ASGITransport(app=api)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        page = (await client.get(path)).text
    assert "<script>" not in page
    assert "/&quot;&#x27;&gt;&lt;script&gt;&amp;/static/icon.svg" in page


# What the pages add to elsewhere: nothing.


async def test_they_are_no_part_of_the_document(running: Running):
    document = (await running.client.get("/openapi.json")).json()
    assert not {"/", "/docs", "/static/{name}", "/favicon.ico"} & set(document["paths"])
    assert "static" not in json.dumps(document)


async def test_the_document_is_made_once_and_not_on_the_event_loop():
    threads = []
    api = FastAPI(openapi_url=None)
    api.openapi = lambda: threads.append(threading.get_ident()) or {"openapi": "3.1.0"}
    add_pages(api, "/below")
    transport = httpx.ASGITransport(api)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        first, *others = await asyncio.gather(*(client.get("/openapi.json") for _ in range(5)))
    assert first.json() == {"openapi": "3.1.0", "servers": [{"url": "/below"}]}
    assert {other.content for other in others} == {first.content}
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()
