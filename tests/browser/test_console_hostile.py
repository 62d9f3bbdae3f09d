"""The console shows what a server says as text, and asks only for what was meant."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.browser.console_helpers import Stated, console, node
from tests.integration.gateway_helpers import Watched
from tests.integration.zap_helpers import eventually
from zapcore import messages as m

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
playwright.expect.set_options(timeout=15_000)
expect = playwright.expect

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytestmark = pytest.mark.asyncio(loop_scope="module")

ATTACK = "<img src=x onerror=alert(1)>"
NAMES = (
    ATTACK,
    "<script>alert(1)</script>",
    "</td></table><h1>Healthy",
    "\"onmouseover='alert(1)'",
    "{root}",
    "\u202egnp.exe\u202d",
    "left\u200fright\u061c",
    "tab\tnew\nline\r\u0001\u007f",
    "👩‍💻🇦🇶",
    "Ａ",
    "node1",
    "Node1",
    "NODE1",
    "__proto__",
    "constructor",
    "hasOwnProperty",
    "x" * 10_000,
    "wide " * 2_000,
    "a/b",
    "..",
    ".",
    "%2e%2e",
    "a?b#c",
    " space ",
    "&amp;",
    "${alert(1)}",
)
URIS = (
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "java\nscript:alert(1)",
    "\u0001javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:x",
    "file:///etc/passwd",
    "//evil.example",
    "blob:http://127.0.0.1/x",
    ATTACK,
    "",
)


async def fits(page: Page) -> bool:
    """Whether nothing stands out sideways."""
    script = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    return bool(await page.evaluate(script))


@pytest.mark.parametrize("width", [360, 1280])
async def test_names_are_text(browser: Browser, width: int):
    chains = tuple(m.ChainInfo(name, name, name, f"id {name}", name) for name in NAMES)
    backend = Stated(node("node1"))
    options = {"viewport": {"width": width, "height": 900}}
    async with console(browser, backend, options=options) as it:
        await expect(it.headline).to_have_text("Healthy")
        nodes = [
            node(name, id=name, uri=name, exec_path=name, config=name.encode()) for name in NAMES
        ]
        backend.say(*nodes, chains=chains, root=ATTACK)
        await expect(it.page.locator("#nodes-table tbody")).to_have_count(len(NAMES))
        await expect(it.page.locator("#chains-rows tr")).to_have_count(len(NAMES))
        shown = await it.page.locator("#nodes-table th bdi").all_text_contents()
        short = {name if len(name) <= 100 else name[:100] + "…" for name in NAMES}
        assert set(shown) == short
        for name in ("__proto__", "constructor", "Node1", "NODE1"):
            await expect(it.node(name)).to_have_count(1)
        await expect(it.page.locator("#fact-root")).to_have_text(ATTACK)
        assert await it.page.locator("img").count() == 1, "our own icon"
        assert await it.page.locator("h1").count() == 1
        assert await it.page.locator("#nodes-table a").count() == 0
        for button in await it.page.locator(".disclose").all():
            await button.click()
        for summary in await it.page.locator("summary:visible").all():
            await summary.click()
        whole = it.page.locator(".details .whole", has_text="x" * 10_000)
        await expect(whole.first).to_be_visible()
        assert await fits(it.page)
        assert await it.page.locator("img").count() == 1


async def test_only_addresses_of_the_web_are_links(browser: Browser):
    nodes = [node(f"node{number}", uri=uri) for number, uri in enumerate(URIS)]
    backend = Stated(*nodes, node("good", uri="https://[::1]:9650/x?y"))
    async with console(browser, backend) as it:
        await expect(it.node("good")).to_be_visible()
        links = it.page.locator("#nodes-table a")
        await expect(links).to_have_count(1)
        await expect(links).to_have_attribute("href", "https://[::1]:9650/x?y")
        uris = await it.page.locator("#nodes-table td.c-uri").all_text_contents()
        assert set(uris) == {*URIS, "https://[::1]:9650/x?y"}


async def test_what_can_not_be_seen_is_pointed_out(browser: Browser):
    async with console(browser, Stated(node("a\u202eb"), node("👩‍💻"), node("plain"))) as it:
        await expect(it.node("plain")).to_be_visible()
        notes = it.page.locator("#nodes-table .unseen")
        await expect(notes).to_have_text(["U+202E"])


async def test_names_in_addresses_stay_one_part(browser: Browser):
    """What the gateway or the server makes of them is theirs to say."""
    names = ("a/b", "a?b#c", "%2e%2e", "__proto__", "👩‍💻", ATTACK, "../cluster", "x y+z")
    watched = Watched(Stated(*(node(name) for name in names)))
    async with console(browser, watched) as it:
        asked: list[str] = []
        it.page.on("request", lambda request: request.method != "GET" and asked.append(request.url))
        for name in names:
            await it.node(name).locator("[data-verb=pause]").click()
        await expect(it.operation("failed")).to_have_count(len(names))
        await expect(it.operation("running")).to_have_count(0)
        paths = [url.removeprefix(it.running.url) for url in asked]
        assert all(path.startswith("/v1/nodes/") and path.endswith("/pause") for path in paths)
        assert all(path.count("/") == 4 and "?" not in path for path in paths), paths


async def test_names_that_no_address_can_hold_are_not_sent(browser: Browser):
    watched = Watched(Stated(node("."), node("..")))
    async with console(browser, watched) as it:
        asked: list[str] = []
        it.page.on("request", lambda request: request.method != "GET" and asked.append(request.url))
        for row in (it.node("."), it.node("..")):
            await row.locator("[data-verb=restart]").click()
            await row.locator("[data-verb=remove]").click()
            await it.dialog.get_by_role("button", name="Remove").click()
        failed = it.operation("failed")
        await expect(failed).to_have_count(4)
        await expect(failed.first).to_contain_text("This was not sent")
        assert asked == []


class Refusing(Stated):
    """Refuses with a text that a page could fall for, and has snapshots with such names."""

    async def pause_node(self, request: m.PauseNodeRequest) -> m.PauseNodeResponse:
        raise ValueError(ATTACK)

    async def get_snapshot_names(
        self, request: m.GetSnapshotNamesRequest
    ) -> m.GetSnapshotNamesResponse:
        return m.GetSnapshotNamesResponse([*NAMES, *NAMES])


async def test_questions_errors_snapshots_and_events_are_text_too(browser: Browser):
    backend = Refusing(*(node(name) for name in NAMES))
    async with console(browser, backend) as it:
        await expect(it.page.locator("#snapshots-list li")).to_have_count(len(NAMES))
        await it.page.route(
            "**/pause",
            lambda route: route.fulfill(
                status=502,
                content_type="application/problem+json",
                body=json.dumps(
                    {
                        "title": ATTACK,
                        "detail": ATTACK * 900,
                        "code": ATTACK,
                        "requestId": ATTACK,
                        "errors": [{"field": ATTACK, "message": ATTACK}],
                    }
                ),
            ),
        )
        for name in (ATTACK, "x" * 10_000, "\u202egnp.exe\u202d"):
            title = name if len(name) <= 100 else name[:100] + "…"
            await it.node(title).locator("[data-verb=pause]").click()
            await it.node(title).locator("[data-verb=remove]").click()
            await expect(it.dialog.locator(".subject")).to_contain_text(name[:80])
            assert await fits(it.page)
            await it.page.keyboard.press("Escape")
        await expect(it.operation("failed")).to_have_count(3)
        backend.say(healthy=False)
        await expect(it.event("node.removed")).to_have_count(len(NAMES))
        await expect(it.page.locator(".event .subject", has_text=ATTACK)).to_have_count(1)
        assert await it.page.locator("img").count() == 1
        assert await fits(it.page)


async def test_a_stream_of_nonsense_is_left_and_opened_again(browser: Browser):
    async with console(browser, Stated(node("node1"))) as it:
        await expect(it.headline).to_have_text("Healthy")
        bodies = ["data: {nonsense\n\n", "event: status\ndata: 1\n\n", "event: x.y\ndata: {}\n\n"]
        left = list(bodies)

        async def nonsense(route: playwright.Route) -> None:
            if not left:
                await route.continue_()
                return
            await route.fulfill(status=200, content_type="text/event-stream", body=left.pop(0))

        await it.page.route("**/v1/events/stream*", nonsense)
        await it.page.reload()
        await eventually(lambda: not left)
        await expect(it.headline).to_have_text("Healthy")
        await expect(it.node("node1")).to_be_visible()
