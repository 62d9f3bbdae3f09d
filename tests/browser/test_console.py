"""The console: what it shows of the cluster, what it does to it, and what it says when it can't."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gateway.auth import new_token, token_line
from tests.browser.console_helpers import Console, Stated, console, focused, node, visit
from tests.integration.gateway_helpers import Watched, running_gateway
from tests.integration.zap_helpers import eventually, free_port, identity_of, serving, soon
from zapcore import NetrunnerServer, SimulatedNetrunner
from zapcore import messages as m

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
playwright.expect.set_options(timeout=15_000)
expect = playwright.expect

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytestmark = pytest.mark.asyncio(loop_scope="module")


def quick(nodes: int = 5) -> SimulatedNetrunner:
    """A simulated netrunner whose nodes are healthy at once."""
    return SimulatedNetrunner(nodes, health_delay=0)


# What is shown.


async def test_a_cluster_at_a_glance(browser: Browser):
    async with console(browser, quick()) as it:
        await expect(it.headline).to_have_text("Healthy")
        await expect(it.page).to_have_title("Healthy – zap-gateway")
        await expect(it.page.locator("#nodes-table tbody")).to_have_count(5)
        for number in range(1, 6):
            row = it.node(f"node{number}")
            await expect(row.locator(".badge")).to_have_text("Running")
            await expect(row.get_by_role("link")).to_have_attribute(
                "href", f"http://127.0.0.1:{9648 + 2 * number}/"
            )
            await expect(row.get_by_role("link")).to_have_attribute("rel", "noopener noreferrer")
        for fact, text in {
            "nodes": "5",
            "chains": "0",
            "network": "1337",
            "version": "1",
            "root": "/tmp/netrunner/network_1",  # noqa: S108 - a name
        }.items():
            await expect(it.page.locator(f"#fact-{fact}")).to_have_text(text)
        await expect(it.page.locator("#nodes-count")).to_have_text("5 of 5")


async def test_unhealthy_is_said_and_so_is_the_return_of_health(browser: Browser):
    backend = Stated(node("node1"), healthy=False)
    async with console(browser, backend) as it:
        await expect(it.headline).to_have_text("Unhealthy")
        backend.say(node("node1"), healthy=True)
        await expect(it.headline).to_have_text("Healthy")
        await expect(it.event("cluster.healthy").locator(".sentence")).to_have_text(
            "Healthy: 1 node"
        )
        heard = it.page.locator("#announcer p")
        await expect(heard.last).to_contain_text("Healthy.")
        backend.say(node("node1"), node("node2"))
        await expect(it.node("node2")).to_be_visible()
        said = {text.partition(".")[0] for text in await heard.all_text_contents()}
        assert said <= {"Connecting", "Unhealthy", "Healthy", "Stale"}, "not each change of a node"


async def test_the_details_of_a_node_stay_open_while_it_changes(browser: Browser):
    backend = Stated(node("node1", exec_path="/bin/one"), node("node2"))
    async with console(browser, backend) as it:
        await it.button("Details of node1").click()
        details = it.node("node1").locator(".details")
        await expect(details).to_contain_text("/bin/one")
        changed = node("node1", exec_path="/bin/two", config=b'{"a": 1}')
        backend.say(changed, node("node2"))
        await expect(details).to_contain_text("/bin/two")
        await expect(details).to_contain_text('{"a": 1}')
        sentence = it.event("node.changed").locator(".sentence")
        await expect(sentence).to_contain_text("exec path from /bin/one to /bin/two; config")


async def test_chains_are_shown(browser: Browser):
    backend = Stated(node("node1"))
    chain = m.ChainInfo("mine", "vm1", "evm", "2bRCr6B4", "set1")
    async with console(browser, backend) as it:
        await expect(it.headline).to_have_text("Healthy")
        await expect(it.page.get_by_text("No chains were created")).to_be_visible()
        backend.say(node("node1"), chains=(chain,))
        cells = it.page.locator("#chains-rows td")
        await expect(cells).to_have_text(["mine", "evm", "2bRCr6B4", "set1"])
        await expect(it.event("chain.added")).to_contain_text("Created, of evm: 2bRCr6B4")


async def test_what_others_change_appears_by_itself(browser: Browser):
    async with console(browser, quick()) as it:
        await expect(it.node("node5")).to_be_visible()
        await it.running.client.post("/v1/nodes/node2/pause")
        await expect(it.node("node2").locator(".badge")).to_have_text("Paused")
        await expect(it.event("node.paused").locator(".subject")).to_have_text("node2")
        await it.running.client.delete("/v1/nodes/node5")
        await expect(it.node("node5")).to_have_count(0)
        await it.running.client.post("/v1/nodes", json={"name": "node6"})
        await expect(it.node("node6")).to_be_visible()
        await expect(it.page.locator(".operation")).to_have_count(0)


async def test_nothing_is_drawn_again_that_did_not_change(browser: Browser):
    backend = Stated(node("node1"), node("node2"))
    async with console(browser, backend) as it:
        await expect(it.node("node2")).to_be_visible()
        await it.page.evaluate("""() => {
            window.drawn = [];
            const watch = (records) => window.drawn.push(...records.map((each) => each.target));
            const all = {childList: true, subtree: true, characterData: true, attributes: true};
            new MutationObserver(watch).observe(document.querySelector("#nodes-table"), all);
        }""")
        backend.say(node("node1"), node("node2", paused=True))
        await expect(it.node("node2").locator(".badge")).to_have_text("Paused")
        rows = "window.drawn.map((each) => each.closest?.('tbody')?.textContent.slice(0, 5))"
        assert set(await it.page.evaluate(rows)) == {"node2"}


# What is done.


async def test_a_node_is_paused_and_resumed(browser: Browser):
    async with console(browser, quick()) as it:
        await it.button("Pause node1").click()
        await expect(it.operation("done")).to_contain_text("Paused node1")
        await expect(it.node("node1").locator(".badge")).to_have_text("Paused")
        await expect(it.node("node2").locator(".badge")).to_have_text("Running")
        await expect(it.event("node.paused")).to_contain_text("node1")
        await expect(it.page.locator("#fact-nodes")).to_have_text("5, 1 paused")
        await it.button("Resume node1").click()
        await expect(it.node("node1").locator(".badge")).to_have_text("Running")
        await it.button("Clear finished operations").click()
        await expect(it.page.locator(".operation")).to_have_count(0)


async def test_a_node_is_paused_with_the_keyboard_alone(browser: Browser):
    async with console(browser, quick()) as it:
        await expect(it.button("Pause node1")).to_be_visible()
        keyboard = it.page.keyboard
        await keyboard.press("Tab")
        assert await focused(it.page) == "Skip to the nodes"
        await keyboard.press("Enter")
        for _ in range(30):
            await keyboard.press("Tab")
            if await focused(it.page) == "Pause node2":
                break
        await keyboard.press("Enter")
        await expect(it.node("node2").locator(".badge")).to_have_text("Paused")
        assert await focused(it.page) == "Resume node2", "the focus stays where it was"


async def test_a_node_is_restarted(browser: Browser):
    watched = Watched(quick())
    async with console(browser, watched) as it:
        await it.button("Restart node3").click()
        await expect(it.operation("done")).to_contain_text("Restarted node3")
        assert watched.last("restart_node").name == "node3"


async def test_a_node_is_removed_once_that_is_sure(browser: Browser):
    watched = Watched(quick())
    async with console(browser, watched) as it:
        await it.button("Remove node4").click()
        await expect(it.dialog).to_contain_text("Remove this node?")
        await expect(it.dialog.locator(".subject")).to_have_text("node4")
        assert await focused(it.page) == "Cancel", "the safe answer"
        await it.page.keyboard.press("Enter")
        await expect(it.dialog).to_have_count(0)
        assert await focused(it.page) == "Remove node4"
        await it.button("Remove node4").click()
        await it.page.keyboard.press("Escape")
        assert watched.counts["remove_node"] == 0
        await it.button("Remove node4").click()
        await it.dialog.get_by_role("button", name="Remove").click()
        await expect(it.node("node4")).to_have_count(0)
        await expect(it.event("node.removed")).to_contain_text("node4")
        assert watched.counts["remove_node"] == 1


async def test_a_node_is_added(browser: Browser):
    watched = Watched(quick())
    async with console(browser, watched) as it:
        await it.button("Add node…").click()
        await it.page.get_by_label("Name", exact=True).fill("mine")
        await it.dialog.get_by_label("Node binary on the server").fill("/opt/luxd")
        await it.page.get_by_label("Its configuration (JSON)").fill('{"log-level": "debug"}')
        more = it.dialog.get_by_label("More of the request (JSON)")
        await more.fill("[1]")
        await it.dialog.get_by_role("button", name="Add").click()
        await expect(it.dialog.get_by_role("alert")).to_contain_text("must be a JSON object")
        await more.fill("{nonsense")
        await it.dialog.get_by_role("button", name="Add").click()
        await expect(it.dialog.get_by_role("alert")).to_contain_text("is not JSON")
        await more.fill('{"chainConfigs": {"C": "{}"}}')
        await it.dialog.get_by_role("button", name="Add").click()
        await expect(it.node("mine")).to_be_visible()
        request = watched.last("add_node")
        assert (request.name, request.exec_path) == ("mine", "/opt/luxd")
        assert request.node_config == '{"log-level": "debug"}'
        assert request.chain_configs == {"C": "{}"}


async def test_a_cluster_is_stopped_and_started(browser: Browser):
    watched = Watched(quick())
    async with console(browser, watched) as it:
        await it.button("Stop cluster…").click()
        await it.dialog.get_by_role("button", name="Cancel").click()
        assert watched.counts["stop"] == 0
        await it.button("Stop cluster…").click()
        await it.dialog.get_by_role("button", name="Stop cluster").click()
        await expect(it.headline).to_have_text("No cluster")
        await expect(it.event("cluster.stopped")).to_be_visible()
        await expect(it.page.locator("#nodes-table tbody")).to_have_count(0)
        await expect(it.button("Stop cluster…")).to_be_hidden()

        await it.button("Start cluster…").click()
        await it.page.get_by_label("Number of nodes").fill("3")
        await it.page.get_by_label("Root data directory").fill("/srv/lux")
        await it.page.get_by_label("Let the system choose all ports").check()
        await it.dialog.get_by_label("More of the request (JSON)").fill(
            '{"chainConfigs": {"C": "{}"}}'
        )
        await it.page.get_by_label("Number of nodes").press("Enter")
        await expect(it.headline).to_have_text("Healthy")
        await expect(it.page.locator("#nodes-table tbody")).to_have_count(3)
        await expect(it.page.locator("#fact-root")).to_have_text("/srv/lux/network_2")
        await expect(it.event("cluster.started")).to_contain_text("Started: 3 nodes")
        request = watched.last("start")
        assert (request.num_nodes, request.dynamic_ports, request.exec_path) == (3, True, "")
        assert request.reassign_ports_if_used is None
        assert request.chain_configs == {"C": "{}"}


async def test_snapshots_are_saved_loaded_and_removed(browser: Browser):
    watched = Watched(quick())
    async with console(browser, watched) as it:
        name = it.page.get_by_label("Snapshot name")
        listed = it.page.locator("#snapshots-list .name")
        await expect(it.page.locator("#snapshots-note")).to_have_text("There are none.")
        await name.fill("hot one")
        await it.button("Save hot").click()
        await expect(listed).to_have_text(["hot one"])
        await expect(it.headline).to_have_text("Healthy")
        await expect(name).to_have_value("")

        await name.fill("cold one")
        await it.button("Save and stop…").click()
        await expect(it.dialog).to_contain_text("Save and stop the cluster?")
        await it.dialog.get_by_role("button", name="Cancel").click()
        assert watched.counts["save_snapshot"] == 0
        await it.button("Save and stop…").click()
        await it.dialog.get_by_role("button", name="Save and stop").click()
        await expect(it.headline).to_have_text("No cluster")
        await expect(listed).to_have_text(["cold one", "hot one"])

        await it.button("Load cold one").click()
        await expect(it.headline).to_have_text("Healthy")
        await expect(it.node("node5")).to_be_visible()

        await it.button("Remove hot one").click()
        await expect(it.dialog.locator(".subject")).to_have_text("hot one")
        await it.dialog.get_by_role("button", name="Remove").click()
        await expect(listed).to_have_text(["cold one"])
        assert watched.last("remove_snapshot").snapshot_name == "hot one"


async def test_a_snapshot_over_a_running_cluster_is_asked_about(browser: Browser):
    watched = Watched(quick())
    async with console(browser, watched) as it:
        await expect(it.headline).to_have_text("Healthy")
        await it.page.get_by_label("Snapshot name").fill("mine")
        await it.button("Load").click()
        await expect(it.dialog).to_contain_text("Load while a cluster runs?")
        assert watched.counts["load_snapshot"] == 0
        await it.dialog.get_by_role("button", name="Load").click()
        await expect(it.operation("failed")).to_contain_text("already bootstrapped")


# How it goes.


async def test_an_error_is_shown_as_the_api_tells_it_until_it_is_dismissed(browser: Browser):
    async with console(browser, quick()) as it:
        await it.button("Add node…").click()
        await it.page.get_by_label("Name", exact=True).fill("node1")
        async with it.page.expect_response("**/v1/nodes") as asked:
            await it.dialog.get_by_role("button", name="Add").click()
        problem = await (await asked.value).json()
        failed = it.operation("failed")
        await expect(failed).to_contain_text("Adding node1 failed")
        for key in ("title", "detail", "code", "requestId", "status"):
            await expect(failed).to_contain_text(str(problem[key]))
        await expect(it.page.locator("#announcer")).to_contain_text("Adding node1 failed")
        await it.button("Dismiss: Adding node1 failed").click()
        await expect(it.page.locator(".operation")).to_have_count(0)
        await it.button("Add node…").click()
        await expect(it.page.get_by_label("Name", exact=True)).to_have_value("node1")


async def test_each_wrong_part_of_a_request_is_told(browser: Browser):
    async with console(browser, quick()) as it:
        await it.button("Add node…").click()
        await it.page.get_by_label("Name", exact=True).fill("mine")
        more = it.dialog.get_by_label("More of the request (JSON)")
        await more.fill('{"chainConfigs": 1, "unheardOf": 2}')
        await it.dialog.get_by_role("button", name="Add").click()
        failed = it.operation("failed")
        await expect(failed).to_contain_text("422")
        await expect(failed.locator("code", has_text="chainConfigs")).to_be_visible()


class Slow:
    """Pauses a node when it is told to."""

    def __init__(self, inner: SimulatedNetrunner) -> None:
        self.inner = inner
        self.go = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def pause_node(self, request: m.PauseNodeRequest) -> m.PauseNodeResponse:
        await self.go.wait()
        return await self.inner.pause_node(request)


async def test_what_is_under_way_counts_and_is_not_sent_twice(browser: Browser):
    slow = Slow(quick())
    watched = Watched(slow)
    async with console(browser, watched) as it:
        await it.button("Pause node1").dblclick()
        running = it.operation("running")
        await expect(running).to_contain_text("Pausing node1…")
        await expect(running.locator(".time")).not_to_have_text("0 s")
        await expect(it.page.locator("#operations-count")).to_have_text("1 under way")
        for name in ("Pause node1", "Restart node1", "Remove node1"):
            await expect(it.button(name)).to_have_attribute("aria-disabled", "true")
        await it.button("Remove node1").click(force=True)
        await expect(it.dialog).to_have_count(0)
        await expect(it.button("Pause node2")).not_to_have_attribute("aria-disabled", "true")
        slow.go.set()
        await expect(it.operation("done")).to_have_count(1)
        await expect(it.button("Restart node1")).not_to_have_attribute("aria-disabled", "true")
        assert watched.counts["pause_node"] == 1


async def test_an_outcome_that_nobody_knows_is_said_to_be_so(browser: Browser):
    watched = Watched(Slow(quick()))
    async with console(browser, watched) as it:
        await it.button("Pause node1").click()
        await eventually(lambda: watched.counts["pause_node"])
        await it.server.close()
        failed = it.operation("failed")
        await expect(failed).to_contain_text("outcome_unknown")
        await expect(failed.locator(".unknown")).to_contain_text("before you repeat it")


async def test_a_gateway_that_breaks_off_leaves_an_outcome_unknown_too(browser: Browser):
    async with console(browser, quick()) as it:
        await it.page.route("**/pause", lambda route: route.abort())
        await it.button("Pause node1").click()
        failed = it.operation("failed")
        await expect(failed).to_contain_text("The gateway did not answer")
        await expect(failed.locator(".unknown")).to_contain_text("before you repeat it")


async def test_what_worked_leaves_by_itself_and_what_failed_stays(browser: Browser):
    async with console(browser, quick()) as it:
        await expect(it.headline).to_have_text("Healthy")
        await it.page.clock.install()
        await it.button("Pause node1").click()
        await it.running.client.delete("/v1/nodes/node2")
        await expect(it.operation("done")).to_have_count(1)
        await it.page.route("**/node3/pause", lambda route: route.abort())
        await it.button("Pause node3").click()
        await expect(it.operation("failed")).to_have_count(1)
        await it.page.clock.fast_forward("00:30")
        await expect(it.operation("done")).to_have_count(0)
        await expect(it.operation("failed")).to_have_count(1)


async def test_only_so_many_operations_are_kept(browser: Browser):
    nodes = [node(f"node{number}") for number in range(60)]
    async with console(browser, Stated(*nodes)) as it:
        await it.page.route("**/pause", lambda route: route.abort())
        await expect(it.node("node59")).to_be_visible()
        for button in await it.page.locator("[data-verb=pause]").all():
            await button.click()
        await expect(it.operation("running")).to_have_count(0)
        await expect(it.operation("failed")).to_have_count(50)
        await expect(it.operation("failed").first).to_contain_text("node59")


# Events.


async def test_only_so_many_events_are_kept_and_a_kind_can_be_chosen(browser: Browser):
    backend = Stated(node("first"))
    async with console(browser, backend) as it:
        await expect(it.headline).to_have_text("Healthy")
        log = it.page.get_by_role("log", name="Events")
        await expect(log).to_have_attribute("aria-live", "off")
        await it.page.get_by_label("Read aloud").check()
        await expect(log).to_have_attribute("aria-live", "polite")
        many = [node(f"n{number:03}") for number in range(210)]
        backend.say(*many, healthy=False)
        await expect(it.page.locator(".event")).to_have_count(200)
        await expect(it.page.locator(".event").first).to_contain_text("cluster.unhealthy")
        await it.page.get_by_label("Kind of events to show").select_option(label="Cluster")
        await expect(it.page.locator(".event:visible")).to_have_count(1)
        await expect(it.page.locator("#events-count")).to_have_text("1 of 200")
        backend.say(*many, healthy=True)
        await expect(it.page.locator(".event:visible")).to_have_count(2)
        await it.page.get_by_label("Kind of events to show").select_option(label="Chains")
        await expect(it.page.locator("#events-empty")).to_have_text("None of this kind.")


# Away, and back.


async def test_a_netrunner_that_goes_is_said_to_be_gone_and_its_return_heals(browser: Browser):
    server = NetrunnerServer(quick(), identity_of("server"))
    await server.start(port=0)
    port = int(server.address.rpartition(":")[2])
    async with running_gateway(server) as running, visit(browser, running.url) as page:
        it = Console(page, running, server)
        await expect(it.headline).to_have_text("Healthy")
        await page.evaluate("window.same = true")
        await server.close()
        await expect(it.headline).to_have_text("Netrunner gone")
        await expect(page.locator("#explanation")).to_contain_text("can't be reached")
        await expect(it.event("upstream.lost")).to_be_visible()
        await expect(it.node("node1")).to_be_visible()
        await it.button("Pause node1").click()
        await expect(it.operation("failed")).to_contain_text("upstream_unavailable")
        again = NetrunnerServer(quick(3), identity_of("server"))
        async with again.serving(port=port):
            await expect(it.headline).to_have_text("Healthy")
            await expect(page.locator("#nodes-table tbody")).to_have_count(3)
            await expect(it.event("upstream.back")).to_be_visible()
            assert await page.evaluate("window.same") is True


async def test_a_gateway_that_goes_is_said_to_be_gone_and_its_return_heals(browser: Browser):
    port = free_port()
    async with serving(quick()) as server, AsyncExitStack() as stack:
        async with running_gateway(server, port=port) as running:
            page = await stack.enter_async_context(visit(browser, running.url))
            it = Console(page, running, server)
            await expect(it.headline).to_have_text("Healthy")
            await page.evaluate("window.same = true")
        await expect(it.headline).to_have_text("Gateway gone")
        await expect(page.locator("#explanation")).to_contain_text("Trying again")
        async with running_gateway(server, port=port) as running:
            await running.client.post("/v1/nodes/node1/pause")
            await expect(it.headline).to_have_text("Healthy")
            await expect(it.node("node1").locator(".badge")).to_have_text("Paused")
            await expect(it.event("gap")).to_contain_text("Some events are missing here")
            assert await page.evaluate("window.same") is True
            await stack.aclose()


async def test_a_stream_that_falls_silent_is_stale(browser: Browser):
    backend = Stated(node("node1"))
    async with console(browser, backend) as it:
        await expect(it.headline).to_have_text("Healthy")
        backend.silent.set()
        await expect(it.headline).to_have_text("Stale")
        await expect(it.page.locator("#explanation")).to_contain_text("Last heard")
        backend.silent.clear()
        await expect(it.headline).to_have_text("Healthy")


async def test_what_an_answer_says_that_is_not_a_stream(browser: Browser):
    """A gateway that refuses is not gone."""
    async with console(browser, quick()) as it:
        problem = {"title": "Too many calls are under way", "detail": "later", "code": "overloaded"}
        await it.page.route(
            "**/v1/events/stream*",
            lambda route: route.fulfill(
                status=503, content_type="application/problem+json", body=json.dumps(problem)
            ),
        )
        await it.page.reload()
        await expect(it.headline).to_have_text("Refused by the gateway")
        await expect(it.page.locator("#explanation")).to_contain_text(problem["title"])
        await it.page.unroute("**/v1/events/stream*")
        await expect(it.headline).to_have_text("Healthy")


# Tokens.

ALICE, READER = new_token(), new_token()
TOKENS = (token_line("alice", "operate", ALICE), token_line("reader", "read", READER))


async def give(page: Page, secret: str) -> None:
    """Fill in the dialog for the token, in which no error of a test shows it."""
    try:
        await page.locator("#token").fill(secret)
    except playwright.Error:
        raise AssertionError("the token could not be filled in") from None
    await page.get_by_role("button", name="Use token").click()


async def test_a_token_is_asked_for_once_and_kept_in_this_tab_alone(browser: Browser):
    asked: list[str] = []
    async with console(browser, quick(), token=TOKENS) as it:
        it.page.on("request", lambda request: asked.append(request.url))
        await expect(it.dialog).to_contain_text("This gateway wants a token")
        await expect(it.headline).to_have_text("Connecting")
        await expect(it.page.get_by_label("Token", exact=True)).to_have_attribute(
            "type", "password"
        )
        await give(it.page, new_token())
        await expect(it.dialog).to_contain_text("not one of this gateway's")
        await give(it.page, "tok–en")
        await expect(it.dialog).to_contain_text("characters that no token has")
        await give(it.page, ALICE)
        await expect(it.headline).to_have_text("Healthy")
        await expect(it.dialog).to_have_count(0)
        await it.button("Pause node1").click()
        await expect(it.node("node1").locator(".badge")).to_have_text("Paused")

        await it.page.reload()
        await expect(it.headline).to_have_text("Healthy")
        await expect(it.dialog).to_have_count(0)
        assert await it.page.evaluate("localStorage.length") == 0
        assert await it.page.evaluate("document.cookie") == ""
        assert not any(ALICE in url for url in asked), "a token stands in an address"
        async with visit(browser, it.running.url) as other:
            await expect(other.locator("dialog[open]")).to_contain_text("wants a token")

        await it.button("Forget token").click()
        await expect(it.dialog).to_contain_text("This gateway wants a token")
        assert await it.page.evaluate("sessionStorage.length") == 0
        await expect(it.page.locator("#nodes-table tbody")).to_have_count(0)


async def test_who_does_not_give_a_token_can_do_it_later(browser: Browser):
    async with console(browser, quick(), token=TOKENS) as it:
        await it.dialog.get_by_role("button", name="Cancel").click()
        await expect(it.headline).to_have_text("Token needed")
        await it.button("Enter token…").click()
        await give(it.page, ALICE)
        await expect(it.headline).to_have_text("Healthy")
        await expect(it.button("Enter token…")).to_be_hidden()


async def test_a_token_that_only_reads_is_told_so(browser: Browser):
    async with console(browser, quick(), token=TOKENS) as it:
        await give(it.page, READER)
        await expect(it.headline).to_have_text("Healthy")
        await it.button("Pause node1").click()
        failed = it.operation("failed")
        await expect(failed).to_contain_text("may only read")
        await expect(failed).to_contain_text("403 · forbidden")
        await expect(it.dialog).to_have_count(0)


async def test_a_token_that_is_taken_away_is_asked_for_again(browser: Browser, tmp_path: Path):
    file = tmp_path / "tokens"
    file.write_text("\n".join(TOKENS))
    async with console(browser, quick(), tokens=file) as it:
        await give(it.page, READER)
        await expect(it.headline).to_have_text("Healthy")
        file.write_text(TOKENS[0])
        it.running.gateway.reload_tokens()
        await expect(it.dialog).to_contain_text("not one of this gateway's")
        await give(it.page, ALICE)
        await expect(it.dialog).to_have_count(0)
        await it.button("Pause node1").click()
        await expect(it.node("node1").locator(".badge")).to_have_text("Paused")


# Elsewhere, and large.


async def test_under_a_root_path(browser: Browser):
    """All that the page asks for is below the path under which a proxy shows it."""
    async with console(browser, quick(), root_path="/netrunner") as it:
        asked: list[str] = []
        it.page.on("request", lambda request: asked.append(request.url))
        await it.page.reload()
        await it.button("Pause node1").click()
        await expect(it.node("node1").locator(".badge")).to_have_text("Paused")
        assert all(url.startswith(f"{it.running.url}/") for url in asked), asked
        link = it.page.get_by_role("link", name="API reference")
        await expect(link).to_have_attribute("href", "/netrunner/docs")
        assert it.running.url.endswith("/netrunner")


async def test_two_hundred_nodes_stay_usable(browser: Browser):
    async with console(browser, quick(200)) as it:
        rows = it.page.locator("#nodes-table tbody:visible")
        names = it.page.locator("#nodes-table tbody:visible th")
        await expect(rows).to_have_count(200)
        await expect(names.nth(1)).to_have_text("node2")
        await expect(names.nth(9)).to_have_text("node10")
        await it.button("Name").click()
        await expect(names.first).to_have_text("node200")
        header = it.page.get_by_role("columnheader", name="Name")
        await expect(header).to_have_attribute("aria-sort", "descending")

        await it.page.get_by_label("Filter nodes by name, id or URI").fill("NODE19")
        await expect(rows).to_have_count(11)
        await expect(it.page.locator("#nodes-count")).to_have_text("11 of 200")
        await it.button("Details of node195").click()
        await it.button("Remove node195").focus()
        await it.running.client.post("/v1/nodes/node197/pause")
        await it.running.client.post("/v1/nodes", json={"name": "node1950"})
        await expect(rows).to_have_count(12)
        await expect(it.page.locator("#nodes-count")).to_have_text("12 of 201")
        assert await focused(it.page) == "Remove node195"
        await expect(it.node("node195").locator(".more")).to_be_visible()

        await it.button("State").click()
        await it.button("Restart node197").focus()
        await it.running.client.post("/v1/nodes/node1/pause")
        await it.running.client.post("/v1/nodes/node197/resume")
        await expect(it.node("node197").locator(".badge")).to_have_text("Running")
        assert await focused(it.page) == "Restart node197", "also where its row moves"


async def test_the_focus_has_somewhere_to_go_when_its_row_goes(browser: Browser):
    async with console(browser, quick()) as it:
        await it.button("Restart node3").focus()
        await it.running.client.delete("/v1/nodes/node3")
        await expect(it.node("node3")).to_have_count(0)
        assert await it.page.evaluate("document.activeElement.id") == "nodes"


# The parser.

PIECES = """async ([root, pieces, longest]) => {
    const { SseParser } = await import(`${root}/static/stream.js`);
    const events = [];
    const parser = new SseParser((event) => events.push(event), longest);
    try {
        for (const piece of pieces) parser.push(piece);
    } catch (error) {
        return error.message;
    }
    return [events.map(({type, data, id}) => [type, data, id]), parser.lastId];
}"""

STREAM = (
    "retry: 1000\nid: a-0-1\n\n: keep-alive\n\nevent: status\rid: a-0-2\rdata: one\r\r"
    "event: x\r\ndata:two\r\ndata:  three\r\n\r\nid: b\0c\ndata\n\nevent: lost\ndata: no end"
)
EVENTS = [["status", "one", "a-0-2"], ["x", "two\n three", "a-0-2"], ["message", "", "a-0-2"]]


async def test_events_are_read_in_whatever_pieces_they_come(browser: Browser):
    async with console(browser, quick()) as it:

        async def read(pieces: list[str], longest: int = 1000) -> object:
            return await soon(it.page.evaluate(PIECES, ["", pieces, longest]))

        for size in (1, 2, 3, 7, len(STREAM)):
            pieces = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
            assert await read(pieces) == [EVENTS, "a-0-2"], size
        assert "too large" in str(await read(["data: ", "x" * 1001]))
        assert "too large" in str(await read(["data: x\n"] * 200))
        comments = await read([": " + "x" * 900 + "\n"] * 9 + ["data: y\n\n"])
        assert comments == [[["message", "y", ""]], ""]
