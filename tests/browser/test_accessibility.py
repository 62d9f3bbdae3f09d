"""What axe-core finds on the pages, in every state, colour scheme and width: nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from gateway.auth import new_token, token_line
from tests.browser import screenshots
from tests.browser.console_helpers import Console, console
from tests.browser.screenshots import LOOKS, Look
from zapcore import SimulatedNetrunner

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.async_playwright", reason="axe is not installed")
playwright.expect.set_options(timeout=15_000)
expect = playwright.expect

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytestmark = pytest.mark.asyncio(loop_scope="module")

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

OF_SWAGGER_UI = {
    "color-contrast": "its colours of versions, links and verbs",
    "heading-order": "it gives tags a level of their own, whatever stands above them",
    "nested-interactive": "its operations are buttons with a button and a link in them",
    "region": "it builds the page of plain divs",
    "target-size": "the addresses of its operations are links as high as their text",
}
"""Rules that Swagger UI's own markup breaks, each with what it is that breaks it."""


class Finding(NamedTuple):
    """A rule that an element breaks."""

    rule: str
    selector: str
    html: str
    why: str


async def findings(page: Page) -> list[Finding]:
    """What is wrong, where."""
    options = {"runOnly": {"type": "tag", "values": TAGS}, "resultTypes": ["violations"]}
    results = await axe.Axe().run(page, options=options)
    return [
        Finding(each["id"], found["target"][0], found["html"][:200], found.get("failureSummary"))
        for each in results.response["violations"]
        for found in each["nodes"]
    ]


# States of the console.


async def five_nodes(it: Console) -> None:
    await expect(it.headline).to_have_text("Healthy")
    await it.button("Details of node1").click()
    await it.button("Pause node2").click()
    await expect(it.event("node.paused")).to_be_visible()
    await it.page.get_by_label("Snapshot name").fill("before-upgrade")
    await it.button("Save hot").click()
    await expect(it.page.locator("#snapshots-list li")).to_have_count(1)
    specs = {"blockchainSpecs": [{"vmName": "evm", "genesis": "{}", "blockchainAlias": "mine"}]}
    await it.running.client.post("/v1/blockchains", json=specs)
    await expect(it.page.locator("#chains-rows tr")).to_have_count(1)
    await it.running.client.post("/v1/nodes/node3/pause")
    await expect(it.node("node3").locator(".badge")).to_have_text("Paused")
    await it.button("Add node…").click()
    await it.page.get_by_label("Name", exact=True).fill("node1")
    await it.dialog.get_by_role("button", name="Add").click()
    await expect(it.operation("failed")).to_be_visible()


async def no_cluster(it: Console) -> None:
    await expect(it.headline).to_have_text("No cluster")


async def netrunner_gone(it: Console) -> None:
    await expect(it.headline).to_have_text("Healthy")
    await it.server.close()
    await expect(it.headline).to_have_text("Netrunner gone")


async def question(it: Console) -> None:
    await it.button("Remove node1").click()
    await expect(it.dialog).to_be_visible()


async def start_form(it: Console) -> None:
    await it.button("Start cluster…").click()
    await it.dialog.get_by_label("More of the request (JSON)").fill("[]")
    await it.dialog.get_by_role("button", name="Start").click()
    await expect(it.dialog.get_by_role("alert")).not_to_be_empty()


async def many_nodes(it: Console) -> None:
    await expect(it.page.locator("#nodes-table tbody")).to_have_count(200)
    await expect(it.headline).to_have_text("Healthy")


async def token_wanted(it: Console) -> None:
    await expect(it.dialog).to_contain_text("wants a token")


STATES: dict[str, tuple[Any, dict[str, Any]]] = {
    "five nodes": (five_nodes, {}),
    "no cluster": (no_cluster, {"nodes": 0}),
    "netrunner gone": (netrunner_gone, {}),
    "question": (question, {}),
    "start form": (start_form, {"nodes": 0}),
    "200 nodes": (many_nodes, {"nodes": 200}),
    "token wanted": (token_wanted, {"tokens": True}),
}
looks = pytest.mark.parametrize("look", LOOKS, ids=str)


@asynccontextmanager
async def state(browser: Browser, name: str, look: Look) -> AsyncIterator[Console]:
    """The console in a state."""
    reach, given = STATES[name]
    settings = (
        {"token": (token_line("alice", "operate", new_token()),)} if given.get("tokens") else {}
    )
    backend = SimulatedNetrunner(given.get("nodes", 5), health_delay=0)
    async with console(browser, backend, options=look.options, **settings) as it:
        await reach(it)
        yield it


@looks
@pytest.mark.parametrize("name", STATES)
async def test_axe_finds_nothing_on_the_console(
    browser: Browser, name: str, look: Look, tmp_path: Path
):
    async with state(browser, name, look) as it:
        assert await findings(it.page) == []
        path = screenshots.folder(tmp_path) / f"console {name} {look}.png"
        whole = name != "200 nodes" and not await it.dialog.count()
        await screenshots.take(it.page, path, whole=whole)


@looks
async def test_axe_finds_nothing_on_the_documents(browser: Browser, look: Look, tmp_path: Path):
    async with console(
        browser, SimulatedNetrunner(health_delay=0), "/docs", options=look.options
    ) as it:
        await expect(it.page.locator(".opblock").first).to_be_visible()
        for found in await findings(it.page):
            assert found.rule in OF_SWAGGER_UI, found
            inside = f"document.querySelector({found.selector!r}).closest('.swagger-ui') !== null"
            assert await it.page.evaluate(inside), found
        await screenshots.take(
            it.page, screenshots.folder(tmp_path) / f"docs {look}.png", whole=False
        )


async def test_it_holds_still_where_that_is_wanted(browser: Browser):
    async with console(browser, SimulatedNetrunner(health_delay=0)) as it:
        await five_nodes(it)
        assert await it.page.evaluate("document.getAnimations().length") == 0


OUTLINE = """() => {
    const style = getComputedStyle(document.activeElement);
    return [document.activeElement.tagName, style.outlineStyle, style.outlineWidth];
}"""


async def test_the_focus_is_seen(browser: Browser):
    """Wherever Tab leads there is an outline, and no step leads nowhere."""
    async with console(browser, SimulatedNetrunner(health_delay=0)) as it:
        await five_nodes(it)
        seen = set()
        for _ in range(60):
            await it.page.keyboard.press("Tab")
            tag, style, width = await it.page.evaluate(OUTLINE)
            if tag == "BODY":
                break
            assert style != "none", tag
            assert width != "0px", tag
            seen.add(tag)
        assert seen >= {"A", "BUTTON", "INPUT", "SELECT"}
