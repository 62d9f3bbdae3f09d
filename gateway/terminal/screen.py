"""A view of the cluster on a whole terminal: the state, its nodes, and what happened last."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from types import FrameType
from typing import Self

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from gateway.terminal.view import Cluster, Entry, Node, View, summary_of

_PER_SECOND = 4
_OVERHEAD, _FEWEST = 2, 2
"""Lines of a list beside its items, a free one and a heading; and items that make it a list."""

_STATE_WIDTH = len("running")
_GAP = "  "

_TROUBLE, _QUIET, _HEADING = "bold red", "dim", "bold"


@dataclass(frozen=True)
class Picture:
    """What rich draws: exactly as many lines as the terminal has, at most."""

    view: View
    url: str
    now: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.height or options.size.height
        yield from picture(self.view, self.url, self.now, width, height)


def picture(view: View, url: str, now: float, width: int, height: int) -> list[Text]:
    """The view for a terminal.

    Args:
        view: what to show.
        url: where it comes from, made visible.
        now: on the clock of the view.
        width: columns of the terminal.
        height: its lines; what comes out has no more.
    """
    head = [_line(url, _HEADING), *_state_lines(view, now)][:height]
    nodes = view.cluster.nodes if view.cluster else ()
    for_events = _events_room(len(view.recent), len(nodes), height - len(head))
    below = [
        *_node_lines(view, nodes, width, height - len(head) - for_events),
        *_event_lines(view.recent, for_events),
    ]
    return [*head, *below]


def _line(text: str, style: str = "") -> Text:
    """One line, whatever the terminal's width."""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis", end="\n")


def _state_lines(view: View, now: float) -> Iterator[Text]:
    yield _state(view, now)
    if view.gateway_trouble:
        wait = max(0.0, view.retry_at - now)
        again = f"next attempt in {wait:.0f} s" if wait >= 1 else "trying again"
        yield _line(f"The gateway is away: {view.gateway_trouble}; {again}", _TROUBLE)
    elif view.server_trouble:
        yield _line(f"The gateway has no news of the server: {view.server_trouble}", _TROUBLE)


def _state(view: View, now: float) -> Text:
    if not view.is_known:
        return _line("Waiting for the first state", _QUIET)
    line = _line("")
    is_old = bool(view.gateway_trouble or view.server_trouble)
    if is_old:
        line.append("Last known: ", style=_TROUBLE)
    line.append(summary_of(view.cluster), style=_style_of(view.cluster))
    line.append(f"  {_age(now - view.seen_at)}", style=_TROUBLE if is_old else _QUIET)
    return line


def _style_of(cluster: Cluster | None) -> str:
    if cluster is None:
        return "yellow"
    return "green" if cluster.healthy else "red"


def _age(seconds: float) -> str:
    if seconds < 1:
        return "just now"
    if seconds < 120:
        return f"{seconds:.0f} s ago"
    return f"{seconds / 60:.0f} min ago" if seconds < 7200 else f"{seconds / 3600:.0f} h ago"


def _events_room(events: int, nodes: int, room: int) -> int:
    """Lines for the events, with a heading and a free line: a third, and what the nodes leave."""
    if room < (_OVERHEAD + _FEWEST) * (2 if nodes else 1):
        return 0
    wanted = max(events, 1) + _OVERHEAD
    left_by_nodes = room - nodes - _OVERHEAD
    return min(wanted, max(left_by_nodes, room // 3, _OVERHEAD + _FEWEST))


def _node_lines(view: View, nodes: tuple[Node, ...], width: int, room: int) -> Iterator[Text]:
    """The nodes in their own order; where not all fit, the most wanted and how many more."""
    fitting = room - _OVERHEAD
    if not nodes or fitting < min(len(nodes), _FEWEST):
        return
    shown: Sequence[Node] = nodes
    if len(nodes) > fitting:
        shown = _most_wanted_first(view, nodes)[: fitting - 1]
    yield _line("")
    yield from _table(shown, width)
    if hidden := len(nodes) - len(shown):
        yield _line(f"… and {hidden} more {'node' if hidden == 1 else 'nodes'}", _QUIET)


def _most_wanted_first(view: View, nodes: tuple[Node, ...]) -> list[Node]:
    """The paused ones, then those to which something happened, the last first."""
    newest = {entry.about: -place for place, entry in enumerate(view.recent)}
    return sorted(nodes, key=lambda node: (not node.paused, newest.get(node.name, 1)))


def _table(nodes: Sequence[Node], width: int) -> Iterator[Text]:
    names = ["NODE", *(node.name for node in nodes)]
    ids = ["ID", *(node.id for node in nodes)]
    uris = ["URI", *(node.uri for node in nodes)]
    widths = _widths(width, max(map(cell_len, names)), max(map(cell_len, uris)))
    yield _row([Text("NODE"), Text("STATE"), Text("URI"), Text("ID")], widths, _HEADING)
    for name, node_id, uri, node in zip(names[1:], ids[1:], uris[1:], nodes, strict=True):
        state = Text("paused", style="yellow") if node.paused else Text("running", style="green")
        yield _row([Text(name), state, Text(uri), Text(node_id)], widths)


def _widths(width: int, longest_name: int, longest_uri: int) -> list[int]:
    """Columns for name, state, URI and id: what is left, less and less of it for each."""
    name = max(1, min(longest_name, (width - _STATE_WIDTH) // 2))
    uri = min(longest_uri, max(0, width - name - _STATE_WIDTH - 2 * len(_GAP)))
    return [name, _STATE_WIDTH, uri, max(0, width - name - _STATE_WIDTH - uri - 3 * len(_GAP))]


def _row(cells: list[Text], widths: list[int], style: str = "") -> Text:
    line = _line("", style)
    for cell, width in zip(cells, widths, strict=True):
        if width > 0:
            cell.truncate(width, overflow="ellipsis", pad=True)
            line.append_text(cell).append(_GAP)
    line.rstrip()
    return line


def _event_lines(recent: tuple[Entry, ...], room: int) -> Iterator[Text]:
    """The newest first."""
    if room <= _OVERHEAD:
        return
    yield _line("")
    yield _line("LATEST EVENTS" if recent else "NO EVENTS YET", _HEADING)
    for entry in recent[: -(room - _OVERHEAD) - 1 : -1]:
        line = _line("")
        line.append(f"{_clock(entry.time)}  ", style=_QUIET)
        line.append(f"{entry.type}  ", style=_event_style(entry.type))
        line.append(f"{entry.about}  {entry.sentence}")
        yield line


def _event_style(kind: str) -> str:
    if kind.endswith((".lost", ".stopped", ".unhealthy", ".removed")) or kind in ("error", "gap"):
        return "red"
    return "yellow" if kind.endswith(".paused") else "cyan"


def _clock(time: str) -> str:
    """The time of day here, of a time as events tell it."""
    try:
        return datetime.fromisoformat(time).astimezone().strftime("%H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return time[:8]


class Screen:
    """The whole terminal for the length of a `with` block; what was on it comes back.

    Only for the main thread: while it stands, SIGTERM ends the block and Ctrl-Z suspends it.

    Args:
        url: where the view comes from, made visible.
        console: the terminal.
        clock: of the view, in seconds.
    """

    def __init__(
        self, url: str, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = url
        self._console = console or Console(force_terminal=True, highlight=False)
        self._clock = clock
        self._view = View()
        self._live = self._new_live()
        self._before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGTSTP)}

    def show(self, view: View) -> None:
        """Show this from now on; it is drawn four times a second."""
        self._view = view

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, _stop)
        signal.signal(signal.SIGTSTP, self._suspend)
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # it must not stop us half-way
        with suppress(OSError):  # the terminal may be gone
            self._end()
        for number, handler in {**self._before, signal.SIGINT: interrupt}.items():
            signal.signal(number, handler)

    def _new_live(self) -> Live:
        return Live(
            console=self._console,
            screen=True,
            refresh_per_second=_PER_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
            get_renderable=lambda: Picture(self._view, self._url, self._clock()),
        )

    def _begin(self) -> None:
        self._live = self._new_live()
        self._live.start(refresh=True)
        self._wrap(on=False)

    def _end(self) -> None:
        self._live.stop()
        self._wrap(on=True)

    def _wrap(self, *, on: bool) -> None:
        """Whether the terminal breaks lines: it may find a character wider than we do."""
        self._console.file.write("\x1b[?7h" if on else "\x1b[?7l")
        self._console.file.flush()

    def _suspend(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-Z: the shell must find its terminal as it was."""
        del frame
        self._end()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # returns when we are continued
        signal.signal(number, self._suspend)
        self._begin()


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    raise SystemExit(128 + number)
