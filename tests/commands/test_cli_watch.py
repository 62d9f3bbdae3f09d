"""`zap-gateway watch`, as a process, against gateways that come and go."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from gateway.auth import new_token, token_line
from gateway.terminal.client import Frame, Lost, StreamRefused, Target, Told, follow
from tests import secret_search
from tests.commands.test_cli import Cli, cli, one_sentence
from tests.commands.test_cli_drain import Served, netrunner, serve
from tests.commands.test_cli_healthcheck import answering, http_answer
from tests.commands.test_cli_serve import eventually, identity
from tests.integration.gateway_helpers import (
    Command,
    Simulator,
    clean_environment,
    command,
    command_line,
    identity_file,
    simulator,
)
from tests.integration.test_gateway_tls import Files, authority, files, pem_of
from tests.integration.zap_helpers import HANG, free_port

__all__ = ["authority", "cli", "files", "identity", "netrunner"]

OFTEN = ("--interval", "100ms")
HOSTILE = "\x1b]0;owned\x07\x1b[2J\n\u202enode\x9b31m[red]x[/red]"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\n\u202enode\x9b31m[red]x[/red]"
STRANGER = "what answers there is no zap-gateway"


@pytest.fixture(scope="module")
def gateway(netrunner: Simulator, identity: Path) -> Iterator[Served]:
    """One without tokens."""
    with serve(netrunner, identity) as served:
        yield served


@contextmanager
def changed(gateway: Served, node: str = "node1") -> Iterator[None]:
    """A node that is paused for the length of the block."""
    post(gateway, f"/v1/nodes/{node}/pause")
    try:
        yield
    finally:
        post(gateway, f"/v1/nodes/{node}/resume")


def post(gateway: Served, path: str, **options: Any) -> None:
    with httpx.Client(base_url=gateway.url, timeout=HANG, trust_env=False) as client:
        client.post(path, **options).raise_for_status()


def objects(running: Command) -> list[dict[str, Any]]:
    return [json.loads(line) for line in running.stdout.splitlines(keepends=True) if "\n" in line]


# Lines.


def test_a_state_at_first_and_a_line_per_event(gateway: Served, netrunner: Simulator):
    with command("watch", gateway.url, *OFTEN) as running:
        state = running.line(r"(?m)^\S+Z  state  cluster  (.*)\n")[1]
        assert state == f"healthy, 5 nodes, 0 chains, PID {netrunner.pid}, network 1337"
        with changed(gateway):
            running.line(r"(?m)^20\S+Z  node\.paused  node1  the node was paused\n")
        running.line(r"(?m)^20\S+Z  node\.resumed  node1  the node runs again\n")
        assert running.stop(signal.SIGINT) == 130
        assert running.stderr == ""


def test_only_the_types_that_were_asked_for(gateway: Served):
    with command("watch", "--json", gateway.url, *OFTEN, "--types", "node.resumed") as running:
        with changed(gateway):
            running.line('"paused":true')
        running.line('"type":"node.resumed"')
        assert "node.paused" not in running.stdout


def test_json_is_what_the_gateway_tells(gateway: Served):
    with command("watch", "--json", gateway.url, *OFTEN) as running:
        running.line(r'{"status":{"clusterInfo":{')
        with changed(gateway, "node2"):
            running.line(r"node\.paused.*\n")
        assert running.stop(signal.SIGINT) == 130
        assert running.stderr == ""
    told = objects(running)
    assert len(told[0]["status"]["clusterInfo"]["nodeInfos"]) == 5
    (paused,) = (each for each in told if each.get("type") == "node.paused")
    assert (paused["node"], paused["before"]["paused"], paused["after"]["paused"]) == (
        *("node2", False, True),
    )
    assert re.fullmatch(r"[0-9a-f]{8}-\d+-\d+", paused["id"])


@contextmanager
def hostile_gateway() -> Iterator[str]:
    """One that tells of a node with such a name; its URL. No real one would let it be made."""
    node = {"name": HOSTILE, "uri": HOSTILE, "id": HOSTILE, "paused": True}
    state = {"clusterInfo": {"nodeInfos": {HOSTILE: node}, "healthy": True}}
    added = {"type": "node.added", "time": HOSTILE, "node": HOSTILE, "after": node}
    told = [("status", state), ("node.added", added), (HOSTILE.replace("\n", ""), added)]
    body = "".join(
        f"event: {kind}\ndata: {json.dumps(document, ensure_ascii=False)}\n\n"
        for kind, document in told
    )
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    with answering_at(0, (head + body).encode(), closes=False) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_names_of_others_write_nothing_but_lines(flags: tuple[str, ...]):
    with hostile_gateway() as url, command("watch", url, *flags) as running:
        running.line(r"(?:.*\n){3}")
        assert running.stop(signal.SIGINT) == 130
    assert running.stdout.count("\n") == 3
    assert running.stdout.replace("\n", "").isprintable()
    if flags:
        assert [each.get("node") for each in objects(running)] == [None, HOSTILE, HOSTILE]
    else:
        assert f"  node.added  {SHOWN}  a new node, at {SHOWN}\n" in running.stdout


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_reader_that_had_enough_is_no_defect(gateway: Served, flags: tuple[str, ...]):
    """`zap-gateway watch | head -1`: it ends, also where nothing happens any more."""
    process = subprocess.Popen(
        command_line("watch", gateway.url, *OFTEN, *flags),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=HANG) == 141
        assert process.stderr.read() == b""


# What goes away, and comes back.


def test_a_server_that_goes_away_and_comes_back(identity: Path, tmp_path: Path):
    keys = identity_file(tmp_path, "server")
    with ExitStack() as first_life:
        first = first_life.enter_context(simulator("--health-delay", "0", "--identity", keys))
        with (
            serve(first, identity) as gateway,
            command("watch", gateway.url, *OFTEN) as running,
        ):
            running.line(f"state  cluster  healthy, 5 nodes, .*PID {first.pid}")
            first.command.send(signal.SIGKILL)
            running.line(r"upstream\.lost  server  \S")
            first_life.close()
            again = ("--identity", keys, "--port", first.port, "--nodes", "3")
            with simulator("--health-delay", "0", *again) as second:
                running.line(r"upstream\.back  server  the gateway reaches the server again")
                running.line(rf"server\.restarted  .*: PID {first.pid} → {second.pid}")
                running.line(f"state  cluster  healthy, 3 nodes, .*PID {second.pid}")
            assert "is away" not in running.stderr


def test_a_gateway_that_is_restarted(netrunner: Simulator, identity: Path):
    with ExitStack() as first_life:
        gateway = first_life.enter_context(serve(netrunner, identity))
        with command("watch", gateway.url, *OFTEN) as running:
            running.line("state  cluster  healthy")
            gateway.stops()
            first_life.close()
            running.line("watch: the gateway is away: it stops\n")
            with serve(netrunner, identity, "--port", gateway.port) as again:
                running.line("watch: the gateway answers again\n")
                running.line("gap  -  ")
                running.line("restart  gateway  another gateway process answers\n")
                running.line("(?s)state  cluster  .*state  cluster  healthy")
                with changed(again):
                    running.line("node.paused  node1")
                assert running.stop(signal.SIGINT) == 130
        assert running.stderr.count("is away") == 1
        assert running.stderr.count("answers again") == 1


def event(number: int, text: str = "{}") -> str:
    return f"event: gap\nid: aaaaaaaa-1-{number}\ndata: {text}\n\n"


def target(port: int, **options: Any) -> Target:
    return Target(urlsplit(f"http://127.0.0.1:{port}/v1/events/stream"), **options)


def taken(stream: Iterator[Told], count: int) -> list[str]:
    return [
        told.kind if isinstance(told, Frame) else type(told).__name__
        for told in islice(stream, count)
    ]


def test_it_goes_on_behind_the_last_event():
    waits: list[float] = []
    stream_of_one = http_answer("retry: 100\n\n" + event(7), media_type="text/event-stream")
    with answering(stream_of_one) as (port, asked):
        stream = follow(target(port, token="secret-of-this-test"), waits.append)  # noqa: S106
        with closing(stream):
            assert taken(stream, 5) == ["Reached", "gap", "Lost", "Reached", "gap"]
    assert b"Last-Event-ID" not in asked[0]
    assert b"\r\nLast-Event-ID: aaaaaaaa-1-7\r\n" in asked[1]
    assert all(b"\r\nAuthorization: Bearer secret-of-this-test\r\n" in each for each in asked)
    assert all(0.05 <= wait <= 0.1 for wait in waits)


def test_a_gateway_that_falls_silent_is_left():
    silent = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + event(1).encode()
    with answering_at(0, silent, closes=False) as port:
        stream = follow(target(port, patience=0.05), lambda _: None)
        with closing(stream):
            assert taken(stream, 2) == ["Reached", "gap"]
            lost = next(stream)
            assert isinstance(lost, Lost)
            assert lost.reason == "it said nothing for 0.05 s"
            assert taken(stream, 2) == ["Reached", "gap"]


@contextmanager
def answering_at(port: int, answer: bytes, *, closes: bool = True) -> Iterator[int]:
    """A server that gives everybody the same answer on a port, and closes or falls silent."""
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", port)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    wire, _ = listener.accept()
                    kept.append(wire)
                    wire.recv(65536)
                    wire.sendall(answer)
                    if closes:
                        wire.close()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for wire in kept:
                wire.close()


def test_pauses_grow_while_nobody_answers():
    waits: list[float] = []
    stream_of_one = http_answer(event(1), media_type="text/event-stream")
    with ExitStack() as life:
        port, _ = life.enter_context(answering(stream_of_one))
        with closing(follow(target(port), waits.append)) as stream:
            assert taken(stream, 3) == ["Reached", "gap", "Lost"]
            life.close()
            assert taken(stream, 7) == ["Lost"] * 7
    assert all(2.0 ** (n - 1) <= 2 * wait <= 2.0**n for n, wait in enumerate(waits[:5], 1))
    assert max(waits) <= 30


@pytest.mark.parametrize(
    ("status", "code", "goes_on"),
    [
        ("503 Service Unavailable", "shutting_down", True),
        ("404 Not Found", "not_found", True),
        ("401 Unauthorized", "unauthenticated", False),
        ("403 Forbidden", "forbidden", False),
    ],
)
def test_what_may_pass_is_waited_for_and_what_is_final_is_not(
    status: str, code: str, goes_on: bool
):
    with answering(http_answer(event(1), media_type="text/event-stream")) as (port, _):
        stream = follow(target(port), lambda _: None)
        assert taken(stream, 3) == ["Reached", "gap", "Lost"]
    with ExitStack() as life:
        life.callback(stream.close)
        life.enter_context(answering_at(port, problem_answer(status, code, "the reason")))
        if goes_on:
            assert taken(stream, 2) == ["Lost", "Lost"]
        else:
            with pytest.raises(StreamRefused, match="the reason"):
                next(stream)


def problem_answer(status: str, code: str, detail: str) -> bytes:
    document = json.dumps({"code": code, "detail": detail})
    return http_answer(document, status, "application/problem+json")


# Tokens.


class Tokens:
    """A token file of a gateway, and the tokens' own files."""

    def __init__(self, folder: Path) -> None:
        self.secret = new_token()
        self.lines = folder / "tokens"
        self.lines.write_text(token_line("watcher", "read", self.secret) + "\n")
        self.file = folder / "token"
        self.file.touch(0o600)
        self.file.write_text(self.secret + "\n")


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path)


@pytest.fixture
def guarded(netrunner: Simulator, identity: Path, tokens: Tokens) -> Iterator[Served]:
    """One that wants tokens."""
    with serve(netrunner, identity, "--tokens", tokens.lines) as served:
        yield served


def test_a_gateway_with_tokens(cli: Cli, guarded: Served, tokens: Tokens, tmp_path: Path):
    status, out, err = cli("watch", guarded.url)
    assert (status, out) == (1, "")
    assert "put the token into ZAP_GATEWAY_CLIENT_TOKEN, or into a file for --token-file" in err
    one_sentence(err)

    other = tmp_path / "other"
    other.touch(0o600)
    other.write_text(new_token())
    status, out, err = cli("watch", guarded.url, "--token-file", other)
    assert (status, out) == (1, "")
    assert "the token is not one of this gateway's" in one_sentence(err)

    with command("watch", guarded.url, "--token-file", tokens.file) as running:
        running.line("state  cluster  healthy")
    with command("watch", guarded.url, ZAP_GATEWAY_CLIENT_TOKEN=tokens.secret) as running:
        running.line("state  cluster  healthy")
    flags = ("--token-file", tokens.file)
    nonsense = {"ZAP_GATEWAY_CLIENT_TOKEN": "nonsense"}
    with command("watch", guarded.url, *flags, **nonsense) as running:
        running.line("state  cluster  healthy")


def test_a_token_that_is_taken_away(guarded: Served, tokens: Tokens):
    with command("watch", guarded.url, *OFTEN, "--token-file", tokens.file) as running:
        running.line("state  cluster  healthy")
        tokens.lines.write_text(token_line("another", "read", new_token()) + "\n")
        guarded.command.send(signal.SIGHUP)
        assert running.wait() == 1
    assert "the gateway ended the stream: the token was taken away" in one_sentence(running.stderr)


def test_a_token_that_others_can_read_is_refused(cli: Cli, tokens: Tokens):
    tokens.file.chmod(0o644)
    status, out, err = cli("watch", "--token-file", tokens.file)
    assert (status, out) == (2, "")
    assert f"chmod 600 {tokens.file}" in one_sentence(err)


@pytest.mark.parametrize("content", ["", "two words", "a\nb", "\x1b[31m", "tökén", "x" * 5000])
def test_what_is_no_token_is_not_quoted(cli: Cli, tmp_path: Path, content: str):
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(content)
    status, out, err = cli("watch", "--token-file", path)
    assert (status, out) == (2, "")
    assert "holds no token" in one_sentence(err)
    assert not content or content not in err


# What can't be watched.


def test_nobody_listens(cli: Cli):
    status, out, err = cli("watch", f"http://127.0.0.1:{free_port()}")
    assert (status, out) == (1, "")
    assert "nobody listens there (connection refused)" in one_sentence(err)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (http_answer("<html>", media_type="text/html"), STRANGER),
        (http_answer("{}"), STRANGER),
        (http_answer("nothing here", "404 Not Found", "text/plain"), f"{STRANGER} (404 Not Found)"),
        (problem_answer("404 Not Found", "not_found", "no such route"), STRANGER),
        (http_answer("", "401 Unauthorized"), f"{STRANGER} (401 Unauthorized)"),
        (http_answer("[" * 100_000, "500 Oh"), f"{STRANGER} (500 Oh)"),
        (http_answer("data: <\n\n", media_type="text/event-stream"), f"{STRANGER}: an event is"),
        (b"220 mail.example ESMTP\r\n", STRANGER),
        (b"", "it closed the connection without an answer"),
        (
            b"HTTP/1.1 302 Found\r\nLocation: https://x.example/\x1b[2J\r\n\r\n",
            "https://x.example/",
        ),
        (problem_answer("403 Forbidden", "forbidden", "no \x1b[2J entry"), r"no \x1b[2J entry"),
        (problem_answer("503 Service Unavailable", "overloaded", "too many"), "too many"),
    ],
)
def test_what_is_no_gateway_or_refuses(cli: Cli, answer: bytes, said: str):
    with answering(answer) as (port, _):
        status, out, err = cli("watch", f"http://127.0.0.1:{port}/some/root")
    assert (status, out) == (1, "")
    assert said in one_sentence(err)
    assert err.rstrip("\n").isprintable()


def test_a_gateway_under_a_root_path(netrunner: Simulator, identity: Path):
    with (
        serve(netrunner, identity, "--root-path", "/net/runner") as gateway,
        command("watch", f"http://127.0.0.1:{gateway.port}/net/runner/") as running,
    ):
        running.line("state  cluster  healthy")


def test_https(cli: Cli, netrunner: Simulator, identity: Path, files: Files, tmp_path: Path):
    root = tmp_path / "root.pem"
    root.write_bytes(pem_of(files.authority.root))
    with serve(netrunner, identity, *files.flags) as gateway:
        for trusted in (root, files.certificate):
            with command("watch", gateway.url, "--ca", trusted) as running:
                running.line("state  cluster  healthy")
        status, _, err = cli("watch", gateway.url)
        assert status == 1
        assert "its certificate can't be trusted: " in one_sentence(err)
        assert "--ca" in err
        status, _, err = cli("watch", gateway.url.replace("https", "http"))
        assert status == 1
        assert "maybe it wants https" in one_sentence(err)
    with answering(http_answer("{}")) as (port, _):
        status, _, err = cli("watch", f"https://127.0.0.1:{port}")
        assert status == 1
        assert "no TLS" in one_sentence(err)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ftp://127.0.0.1",), "the URL"),
        (("127.0.0.1:8081",), "the URL"),
        (("http://127.0.0.1:99999",), "the URL"),
        (("http://[::1",), "the URL"),
        (("http://me:hunter2@127.0.0.1:8081",), "the URL"),
        (("http://127.0.0.1:8081/?token=hunter2",), "the URL"),
        (("--interval", "soon"), "--interval 'soon' is not a time"),
        (("--interval", "1ms"), "--interval '1ms' is outside"),
        (("--ca", "nowhere"), "--ca is for"),
        (("https://127.0.0.1", "--ca", "nowhere"), "--ca nowhere: No such file"),
        (("https://127.0.0.1", "--ca", __file__), f"--ca {__file__}: "),
        (("--token-file", "nowhere"), "can't read nowhere: No such file"),
        (("--token-file", "/"), "can't read /: Is a directory"),
    ],
)
def test_what_is_asked_wrongly_ends_with_2_and_a_sentence(
    cli: Cli, arguments: tuple[str, ...], said: str
):
    status, out, err = cli("watch", *arguments)
    assert said in one_sentence(err)
    assert (status, out) == (2, "")
    assert "hunter2" not in err


def test_types_that_the_gateway_does_not_know(cli: Cli, gateway: Served):
    status, out, err = cli("watch", gateway.url, "--types", "node.paused,moon.full")
    assert (status, out) == (2, "")
    assert "'moon.full'" in one_sentence(err)
    assert "node.resumed" in err


# On a terminal.


class Terminal:
    """A command on a pseudo-terminal, and what can be seen there."""

    def __init__(self, *arguments: object, rows: int = 24, columns: int = 80, **more: str) -> None:
        self.arguments = arguments
        self._ours, theirs = pty.openpty()
        self._theirs = theirs
        self.resize(rows, columns)
        environment = clean_environment(**{"TERM": "xterm-256color", **more})
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
            if name not in more:
                environment.pop(name, None)
        self.process = subprocess.Popen(
            command_line(*arguments),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            process_group=0,
        )
        self.output = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self) -> None:
        with suppress(OSError):
            while data := os.read(self._ours, 65536):
                self.output += data

    @property
    def raw(self) -> str:
        return self.output.decode("utf-8", "replace")

    @property
    def lines(self) -> list[str]:
        """The picture that was drawn last, without colours."""
        pictures = re.sub(r"\x1b\[[0-9;]*m", "", self.raw).split("\x1b[H")
        return [line.rstrip() for line in pictures[-2].split("\r\n")] if len(pictures) > 2 else []

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def shows(self, pattern: str) -> None:
        """Wait until it does."""
        try:
            eventually(lambda: re.search(pattern, self.text))
        except AssertionError as error:
            raise AssertionError(f"no {pattern!r} in {self.raw[-3000:]!r}") from error

    def stop(self, number: int) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        status = self.process.wait(timeout=HANG)
        os.close(self._theirs)
        self._theirs = -1
        self._thread.join(timeout=HANG)
        return status

    def clean_up(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.wait()
        os.close(self._ours)
        secret_search.session.command(self.arguments, self.raw)


@contextmanager
def terminal(*arguments: object, **options: Any) -> Iterator[Terminal]:
    started = Terminal(*arguments, **options)
    try:
        yield started
    finally:
        started.clean_up()


def is_restored(raw: str) -> bool:
    """Whether the last words about the screen, the cursor and line breaks are the usual ones."""
    switches = {"?1049": "l", "?25": "h", "?7": "h"}
    said = {name: re.findall(re.escape(f"\x1b[{name}") + "([hl])", raw) for name in switches}
    return all(said[name] and said[name][-1] == usual for name, usual in switches.items())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_table_that_is_updated_in_place(gateway: Served, number: int, status: int):
    with terminal("watch", gateway.url, *OFTEN) as running:
        running.shows(r"(?m)^node5  running  http://\S+ ")
        assert running.lines[0] == gateway.url
        assert running.lines[1].startswith("healthy, 5 nodes, 0 chains, PID ")
        assert len(running.lines) == 24
        with changed(gateway, "node3"):
            running.shows(r"(?m)^node3  paused ")
            running.shows(r"(?m)^\d\d:\d\d:\d\d  node\.paused  node3  the node was paused$")
            running.shows(r"\(1 paused\)")
        running.shows(r"(?m)^node3  running ")
        assert running.raw.startswith("\x1b[?1049h")
        assert running.raw.count("\x1b[?1049h") == 1
        assert not is_restored(running.raw)
        assert running.stop(number) == status
        assert is_restored(running.raw)
        assert "Traceback" not in running.raw


def test_a_terminal_of_another_size(gateway: Served):
    with terminal("watch", gateway.url, *OFTEN, rows=24, columns=80) as running:
        running.shows("node5")
        running.resize(8, 30)
        eventually(lambda: len(running.lines) == 8)
        running.shows("… and ")
        assert all(len(line) <= 30 for line in running.lines)
        running.resize(40, 120)
        eventually(lambda: len(running.lines) == 40)
        running.shows(r"(?m)^node5  running  http://\S+  NodeID-")


def test_colours_only_where_they_are_wanted(gateway: Served):
    colour = r"\x1b\[[0-9;]*3[0-9]m"
    with terminal("watch", gateway.url) as running:
        running.shows("node5")
        assert re.search(colour, running.raw)
    with terminal("watch", gateway.url, NO_COLOR="1") as running:
        running.shows("node5")
        assert not re.search(colour, running.raw)


def test_ctrl_z_gives_the_terminal_back_until_it_is_continued(gateway: Served):
    with terminal("watch", gateway.url, *OFTEN) as running:
        running.shows("node5")
        running.process.send_signal(signal.SIGTSTP)
        _, state = os.waitpid(running.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(state)
        eventually(lambda: is_restored(running.raw))
        running.process.send_signal(signal.SIGCONT)
        eventually(lambda: running.raw.count("\x1b[?1049h") == 2)
        with changed(gateway, "node4"):
            running.shows(r"(?m)^node4  paused ")
        assert running.stop(signal.SIGINT) == 130
        assert is_restored(running.raw)


def test_names_of_others_on_a_terminal():
    with hostile_gateway() as url, terminal("watch", url, columns=250) as running:
        running.shows(rf"(?m)^{re.escape(SHOWN)}  paused ")
        running.shows(re.escape(f"  node.added  {SHOWN}  a new node, at {SHOWN}"))
        assert running.stop(signal.SIGINT) == 130
    ours = re.sub(r"\x1b(?:\[[0-9;]*m|\[H|\[\?(?:1049|25|7)[hl])|\r\n", "", running.raw)
    assert ours.isprintable()


def test_a_gateway_that_goes_away_is_said_on_the_screen(netrunner: Simulator, identity: Path):
    with ExitStack() as first_life:
        gateway = first_life.enter_context(serve(netrunner, identity))
        with terminal("watch", gateway.url, *OFTEN, columns=150) as running:
            running.shows("node5")
            gateway.stops()
            first_life.close()
            running.shows("The gateway is away: .*; (?:next attempt in|trying again)")
            running.shows("Last known: healthy, 5 nodes")
            with serve(netrunner, identity, "--port", gateway.port):
                running.shows("gateway.back  gateway  the gateway answers again")
                running.shows("(?m)^healthy, 5 nodes")
            assert running.stop(signal.SIGINT) == 130
            assert is_restored(running.raw)


def test_why_it_ends_is_left_on_the_terminal(guarded: Served, tokens: Tokens):
    flags = ("--token-file", tokens.file)
    with terminal("watch", guarded.url, *OFTEN, *flags, columns=200) as running:
        running.shows("node5")
        tokens.lines.write_text(token_line("another", "read", new_token()) + "\n")
        guarded.command.send(signal.SIGHUP)
        assert running.wait() == 1
        assert is_restored(running.raw)
        left = running.raw.rpartition("\x1b[?1049l")[2]
        assert "the gateway ended the stream: the token was taken away" in left


def test_what_can_not_be_had_needs_no_screen():
    with terminal("watch", f"http://127.0.0.1:{free_port()}", columns=200) as running:
        assert running.wait() == 1
        assert "nobody listens there" in running.raw
        assert "\x1b" not in running.raw


def test_a_terminal_that_can_do_nothing_gets_lines(gateway: Served):
    with terminal("watch", gateway.url, TERM="dumb", columns=200) as running:
        eventually(lambda: "state  cluster  healthy, 5 nodes" in running.raw)
        assert running.stop(signal.SIGINT) == 130
        assert "\x1b" not in running.raw
