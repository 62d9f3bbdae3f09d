"""netrunner's old HTTP API, as the curl lines in people's scripts use it: old_api_curl.txt."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.from_thread import start_blocking_portal

from gateway.auth import new_token, token_line
from gateway.routes.control_table import OLD_ROUTES
from tests.commands.test_cli_serve import is_ready, url_of
from tests.integration.gateway_helpers import (
    Backend,
    answers,
    clean_environment,
    command,
    identity_file,
    simulator,
)
from tests.integration.zap_helpers import HANG, free_port, identity_of, serving
from zapcore import messages as m
from zapcore.methods import METHODS

TABLE = Path(__file__).with_name("old_api_curl.txt")


# The table.


@dataclass(frozen=True)
class Answer:
    """What a line answers: one JSON value, or of a stream one per line."""

    status: int
    media_type: str
    values: list[Any]


@dataclass(frozen=True)
class Row:
    """A line for the shell, and what it is to answer."""

    line: str
    answer: Answer


_TITLE = re.compile(r"^== (.+) ==\n", re.MULTILINE)
_VARIABLE = re.compile(r"^(\w+)=(.*)\n", re.MULTILINE)
_ROW = re.compile(
    r"^\$ (?P<line>.*?)\n(?P<status>\d{3}) (?P<type>\S+)\n(?P<body>.*?)(?=^[$#]|\Z)",
    re.MULTILINE | re.DOTALL,
)


def _read(text: str) -> tuple[dict[str, str], dict[str, list[Row]]]:
    """The variables that the lines use, and the rows of each section."""
    head, *rest = _TITLE.split(text)
    sections = {title: _rows(body) for title, body in zip(rest[::2], rest[1::2], strict=True)}
    return dict(_VARIABLE.findall(head)), sections


def _rows(text: str) -> list[Row]:
    clusters, rows = _Clusters(), []
    for match in _ROW.finditer(text):
        values = [clusters.in_full(value) for value in _values(match["body"])]
        rows.append(Row(match["line"], Answer(int(match["status"]), match["type"], values)))
    assert len(rows) == len(re.findall(r"^\$ ", text, re.MULTILINE))
    return rows


def _values(text: str) -> list[Any]:
    """JSON values that stand behind each other."""
    decoder, values, text = json.JSONDecoder(), [], text.lstrip()
    while text:
        value, end = decoder.raw_decode(text)
        values.append(value)
        text = text[end:].lstrip()
    return values


class _Clusters:
    """Tells clusters in full that are told by what changed."""

    def __init__(self) -> None:
        self._newest: Any = None

    def in_full(self, value: Any) -> Any:
        if value == "<as above>":
            return self._newest
        if not isinstance(value, dict):
            return value
        if "<as above, but>" in value:
            return _changed(self._newest, value["<as above, but>"])
        found = {key: self.in_full(item) for key, item in value.items()}
        self._newest = found.get("clusterInfo") or self._newest
        return found


def _changed(cluster: Any, changes: dict[str, Any]) -> Any:
    made = copy.deepcopy(cluster)
    for path, value in changes.items():
        *way, last = path.split(".")
        place = made
        for name in way:
            place = place[name]
        if value == "<gone>":
            del place[last]
        else:
            place[last] = value
    return made


VARIABLES, SECTIONS = _read(TABLE.read_text("utf-8"))


# The gateways, one for each section.


@dataclass(frozen=True)
class Stage:
    """A gateway that runs.

    Args:
        url: where.
        names: what the table calls things that are others in every run.
        variables: further ones of the section's lines.
    """

    url: str
    names: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)


def named(pid: object) -> dict[str, str]:
    """How the table calls the process of the netrunner."""
    return {f'"pid":{pid}': '"pid":"<pid>"'}


@contextmanager
def make_run(folder: Path) -> Iterator[Stage]:
    del folder
    with command("dev", "--port", "0") as running:
        url = running.line(r"Console +(http://\S+)/\n")[1]
        yield Stage(url, named(running.line(r"process (\d+)\n")[1]))
        assert running.stop() == 0
        assert "Traceback" not in running.stderr


@contextmanager
def nobody_there(folder: Path) -> Iterator[Stage]:
    upstream = f"127.0.0.1:{free_port()}"
    with command(
        *("serve", "--port", "0", "--identity", identity_file(folder, "gateway")),
        *("--upstream", upstream, "--acquire-timeout", "50ms"),
        *("--server", identity_of("server").public.fingerprint),
    ) as running:
        running.line("no connection to .* nobody listens there")
        yield Stage(url_of(running), {upstream: "<upstream>"})


@contextmanager
def serve(folder: Path, address: str, fingerprint: str, *flags: object) -> Iterator[str]:
    """`zap-gateway serve` in front of a server; gives its URL."""
    with command(
        *("serve", "--port", "0", "--identity", identity_file(folder, "gateway")),
        *("--upstream", address, "--server", fingerprint, "--drain-grace", "0", *flags),
    ) as running:
        url = url_of(running)
        is_ready(url)
        yield url


@contextmanager
def an_older_server(folder: Path) -> Iterator[Stage]:
    cluster = m.ClusterInfo(["node1"], {"node1": m.NodeInfo("node1", config=b"{}")}, pid=7)
    backend = Backend(ping=answers(m.PingResponse(7)), status=answers(m.StatusResponse(cluster)))
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serving(backend)) as server,
        serve(folder, server.address, server.identity.public.fingerprint) as url,
    ):
        yield Stage(url, named(7))


@contextmanager
def with_tokens(folder: Path) -> Iterator[Stage]:
    secrets = {"READ_TOKEN": new_token(), "OPERATE_TOKEN": new_token()}
    tokens = folder / "tokens"
    lines = zip(("rita", "otto"), ("read", "operate"), secrets.values(), strict=True)
    tokens.write_text("\n".join(token_line(*line) for line in lines))
    with (
        simulator() as netrunner,
        serve(folder, netrunner.address, netrunner.fingerprint, "--tokens", tokens) as url,
    ):
        yield Stage(url, named(netrunner.pid), secrets)


@contextmanager
def without_the_old_api(folder: Path) -> Iterator[Stage]:
    with (
        simulator() as netrunner,
        serve(folder, netrunner.address, netrunner.fingerprint, "--no-old-api") as url,
    ):
        yield Stage(url, named(netrunner.pid))


STAGES: dict[str, Callable[[Path], AbstractContextManager[Stage]]] = {
    "make run": make_run,
    "no netrunner server": nobody_there,
    "a server that knows Ping and Status only": an_older_server,
    "tokens": with_tokens,
    "--no-old-api": without_the_old_api,
}


# The lines are run word for word: where they go, and that curl tells the status, is told to curl by
# its own settings.

_CURLRC = """\
connect-to = "::{host}:{port}"
noproxy = "*"
silent
write-out = "%{{stderr}}%{{http_code}} %{{content_type}}"
"""


class Shell:
    """Runs the lines of a section, one after the other.

    Args:
        stage: the gateway.
        folder: for curl's settings.
    """

    def __init__(self, stage: Stage, folder: Path) -> None:
        url = httpx.URL(stage.url)
        (folder / ".curlrc").write_text(_CURLRC.format(host=url.host, port=url.port))
        self._environment = clean_environment(CURL_HOME=str(folder), **VARIABLES, **stage.variables)
        self._names = stage.names

    def run(self, line: str) -> Answer:
        done = subprocess.run(
            ["sh", "-c", line],
            capture_output=True,
            text=True,
            timeout=HANG,
            env=self._environment,
        )
        status, _, media_type = done.stderr.partition(" ")
        told = done.stdout
        for value, name in self._names.items():
            told = told.replace(value, name)
        return Answer(int(status), media_type, [json.loads(each) for each in told.splitlines()])


# The proof.


Play = Callable[[str], list[Answer]]


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Play:
    """Gives what a section's lines answer: all run once, in order, whichever are looked at."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")

    @cache
    def run(title: str) -> list[Answer]:
        folder = tmp_path_factory.mktemp("section")
        with STAGES[title](folder) as stage:
            shell = Shell(stage, folder)
            return [shell.run(row.line) for row in SECTIONS[title]]

    return run


def _name(title: str, number: int, row: Row) -> str:
    path = re.search(r":8081/v1/([\w/]*)", row.line)
    assert path is not None
    return f"{title.replace(' ', '-')}-{number + 1}-{path[1].rpartition('control/')[2]}"


@pytest.mark.parametrize(
    ("title", "number", "row"),
    [
        pytest.param(title, number, row, id=_name(title, number, row))
        for title, rows in SECTIONS.items()
        for number, row in enumerate(rows)
    ],
)
def test_a_line_is_answered_as_the_table_says(play: Play, title: str, number: int, row: Row):
    answer = play(title)[number]
    assert answer == row.answer, row.line
    assert _exactly(answer) == _exactly(row.answer)


def _exactly(answer: Answer) -> list[str]:
    """1, 1.0 and true are equal in Python, and not here."""
    return [json.dumps(value, sort_keys=True) for value in answer.values]


def test_every_section_has_its_gateway():
    assert SECTIONS.keys() == STAGES.keys()


def _succeeds(path: str) -> bool:
    asked = re.compile(rf"localhost:8081{path}(?= |$)", re.MULTILINE)
    return any(asked.search(row.line) and row.answer.status == 200 for row in SECTIONS["make run"])


@pytest.mark.parametrize("path", [route.path for route in OLD_ROUTES])
def test_every_address_has_a_line_that_succeeds(path: str):
    assert _succeeds(path)


def test_every_rpc_has_a_line_that_succeeds():
    assert {route.method.name for route in OLD_ROUTES if _succeeds(route.path)} == set(METHODS)


def test_the_table_shows_each_code_that_a_script_meets_with_its_status():
    told = {
        value["code"]: row.answer.status
        for rows in SECTIONS.values()
        for row in rows
        for value in row.answer.values
        if "code" in value and row.answer.media_type == "application/json"
    }
    assert told == {2: 500, 3: 400, 4: 504, 5: 404, 7: 403, 12: 501, 14: 503, 16: 401}
