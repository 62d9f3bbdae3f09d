"""The picture of the cluster: it fits every terminal, and nobody's text acts on it."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.screen import Screen

from gateway.terminal.client import Lost, Told
from gateway.terminal.screen import Picture, picture
from gateway.terminal.view import View, look
from tests.unit.test_watch_view import NO_CLUSTER, NOW, TOLD, error, event, looked, status

URL = "http://127.0.0.1:8081"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def drawn(view: View, width: int = 80, height: int = 24, age: float = 0.0, **options: bool) -> str:
    """What rich writes for a picture."""
    console = Console(
        file=io.StringIO(), width=width, height=height, force_terminal=True, **options
    )
    console.print(Screen(Picture(view, URL, NOW.seconds + age)), end="")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def lines(view: View, width: int = 80, height: int = 24, age: float = 0.0) -> list[str]:
    """A picture's lines, without colours and what is empty at their ends."""
    text = COLOURS.sub("", drawn(view, width, height, age))
    return [line.rstrip() for line in text.split("\n")]


def nodes_in(shown: list[str]) -> list[str]:
    begin = next(at for at, line in enumerate(shown) if line.startswith("NODE"))
    below = shown[begin + 1 :]
    return [line.split()[0] for line in below[: below.index("")] if not line.startswith("…")]


def many(count: int, paused: tuple[str, ...] = ()) -> Told:
    return status(*(f"node{number}" for number in range(1, count + 1)), paused=paused)


def test_a_cluster():
    view, _ = looked(
        status("node1", "node2", paused=("node2",)), event("node.paused", node="node2")
    )
    shown = lines(view, age=3.2)
    assert shown[0] == URL
    assert shown[1] == "healthy, 2 nodes (1 paused), 0 chains, PID 42, network 7  3 s ago"
    assert [line.split() for line in shown[3:6]] == [
        ["NODE", "STATE", "URI", "ID"],
        ["node1", "running", "http://node1", "NodeID-node1"],
        ["node2", "paused", "http://node2", "NodeID-node2"],
    ]
    assert shown[7] == "LATEST EVENTS"
    assert re.fullmatch(r"\d\d:\d\d:\d\d  node.paused  node2  the node was paused", shown[8])


def test_before_the_first_state_and_without_a_cluster():
    assert lines(View())[1] == "Waiting for the first state"
    assert lines(looked(NO_CLUSTER)[0])[1] == "no cluster runs  just now"


def test_a_server_that_is_away():
    shown = lines(looked(status("a"), error("refused"))[0], age=300)
    assert shown[1].startswith("Last known: healthy")
    assert shown[1].endswith("5 min ago")
    assert shown[2] == "The gateway has no news of the server: refused"


def test_a_gateway_that_is_away():
    view, _ = looked(status("a"), Lost("refused", 8.0))
    assert lines(view, age=3)[2] == "The gateway is away: refused; next attempt in 5 s"
    assert lines(view, age=9)[2] == "The gateway is away: refused; trying again"


def test_nodes_that_fit_stand_in_their_own_order():
    shown = lines(looked(many(12, paused=("node7",)))[0], height=20)
    assert nodes_in(shown) == [f"node{number}" for number in range(1, 13)]
    assert not any("more node" in line for line in shown)


def test_of_too_many_nodes_the_paused_and_the_changed_are_shown_and_the_rest_counted():
    view, _ = looked(
        many(200, paused=("node150", "node77")),
        event("node.resumed", node="node9"),
        event("node.changed", node="node200"),
    )
    shown = lines(view, height=24)
    names = nodes_in(shown)
    assert names[:6] == ["node77", "node150", "node200", "node9", "node1", "node2"]
    assert f"… and {200 - len(names)} more nodes" in shown
    assert "LATEST EVENTS" in shown
    assert len(picture(view, URL, NOW.seconds, 80, 24)) == 24


def test_the_newest_events_come_first():
    told = [event("node.paused", node=f"n{number}") for number in range(50)]
    shown = lines(looked(status("a"), *told)[0], height=15)
    below = shown[shown.index("LATEST EVENTS") + 1 :]
    assert [line.split()[2] for line in below] == [f"n{number}" for number in range(49, 41, -1)]


def test_more_room_shows_more():
    view, _ = looked(many(200))
    sizes = [len(nodes_in(lines(view, height=height))) for height in (12, 24, 50, 250)]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == 200


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (10, 5), (30, 4), (20, 100), (400, 10)])
def test_any_size_is_enough(size: tuple[int, int]):
    view, _ = looked(many(200), event("node.paused", node="node1"), Lost("x" * 500, 1.0))
    assert len(picture(view, URL, NOW.seconds, *size)) <= size[1]
    shown = lines(view, *size)
    assert len(shown) == size[1]
    assert all(cell_len(line) <= size[0] for line in shown)


def test_markup_and_emoji_codes_in_names_are_names():
    name = "[red]:smile:[/red][link=http://x]"
    assert name in "\n".join(lines(looked(status(name), event("node.paused", node=name))[0]))


def test_without_colours(monkeypatch: pytest.MonkeyPatch):
    view, _ = looked(status("a", paused=("a",)))
    assert "\x1b[33m" in drawn(view, color_system="standard")
    assert re.search(r"\x1b\[[0-9;]*3\d", drawn(view, no_color=True)) is None


@given(told=st.lists(TOLD, max_size=5), width=st.integers(1, 120), height=st.integers(1, 40))
def test_whatever_comes_fits_and_does_nothing_to_the_terminal(
    told: list[Told], width: int, height: int
):
    view = View()
    for each in told:
        view, _ = look(view, each, NOW)
    assert len(picture(view, URL, NOW.seconds, width, height)) <= height
    text = COLOURS.sub("", drawn(view, width, height))
    shown = text.split("\n")
    assert len(shown) == height
    assert all(line.isprintable() for line in shown)
    assert all(cell_len(line) <= width for line in shown)
