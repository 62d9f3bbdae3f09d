"""The log of `zap-gateway serve`: a line per request and per event of the upstream, no secrets."""

from __future__ import annotations

import http.client
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from gateway.auth import digest_of, new_token, token_line
from tests.commands.test_cli_drain import Served, netrunner, serve
from tests.commands.test_cli_serve import eventually, get, identity, is_ready
from tests.integration.gateway_helpers import (
    Simulator,
    clean_environment,
    command_line,
    identity_file,
    simulator,
)
from tests.integration.zap_helpers import HANG, free_port

__all__ = ["identity", "netrunner"]


@dataclass
class Logged:
    """A gateway with tokens, and what it logs."""

    served: Served
    secrets: dict[str, str]

    @property
    def port(self) -> int:
        return self.served.port

    @property
    def raw(self) -> list[str]:
        """All whole lines but the announcement, which is for people."""
        announcement, *lines = self.served.command.stderr.split("\n")
        assert announcement.startswith("zap-gateway: http")
        assert lines.pop() == ""
        return lines

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.raw]

    def of(self, request_id: str) -> dict[str, Any]:
        """The one line of a request."""
        eventually(lambda: [each for each in self.raw if f'"{request_id}"' in each])
        (found,) = (line for line in self.lines() if line.get("request_id") == request_id)
        return found

    def ask(
        self, verb: str, target: str, body: str | None = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """One call over a connection of its own, with the target as it is."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG)) as wire:
            wire.putrequest(verb, target, skip_accept_encoding=True)
            for name, value in named.items():
                wire.putheader(name, value)
            if body is not None:
                wire.putheader("Content-Length", str(len(body)))
            wire.endheaders(None if body is None else body.encode())
            response = wire.getresponse()
            return response, response.read()

    def send(self, data: bytes) -> bytes:
        """Bytes as they are, and what is answered."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=HANG) as wire:
            wire.sendall(data)
            wire.shutdown(socket.SHUT_WR)
            answer = b""
            while part := wire.recv(65536):
                answer += part
            return answer

    def bearer(self, name: str = "operator") -> str:
        return f"Bearer {self.secrets[name]}"


@contextmanager
def logged(netrunner: Simulator, identity: Path, folder: Path, *flags: object) -> Iterator[Logged]:
    secrets = {name: new_token() for name in ("operator", "reader")}
    tokens = folder / "tokens"
    tokens.write_text(
        token_line("operator", "operate", secrets["operator"])
        + "\n"
        + token_line("reader", "read", secrets["reader"])
        + "\n"
    )
    with serve(netrunner, identity, "--tokens", tokens, *flags) as served:
        eventually(lambda: served.command.stderr.count("connected to") == 2)
        yield Logged(served, secrets)
        served.stops()


@pytest.fixture(scope="module")
def detailed(
    netrunner: Simulator, identity: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Logged]:
    """JSON, because standard error is no terminal, and all there is."""
    folder = tmp_path_factory.mktemp("detailed")
    with logged(netrunner, identity, folder, "--log-level", "debug") as running:
        yield running


@pytest.fixture(scope="module")
def plain(
    netrunner: Simulator, identity: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Logged]:
    """Text, of the usual level."""
    folder = tmp_path_factory.mktemp("plain")
    with logged(netrunner, identity, folder, "--log-format", "text") as running:
        yield running


# A line per request.


@pytest.mark.parametrize(
    ("verb", "target", "route", "rpc", "outcome", "status"),
    [
        ("GET", "/v1/status", "/v1/status", "Status", "ok", 200),
        ("GET", "/v1/status?timeout=5s", "/v1/status", "Status", "ok", 200),
        ("GET", "/v1/nodes", "/v1/nodes", "Status", "ok", 200),
        ("POST", "/v1/nodes/node1/restart", "/v1/nodes/{name}/restart", "RestartNode", "ok", 200),
        ("POST", "/v1/nodes/x/pause", "/v1/nodes/{name}/pause", "PauseNode", "not_found", 404),
        ("DELETE", "/v1/snapshots/x", "/v1/snapshots/{name}", "RemoveSnapshot", "not_found", 404),
    ],
)
def test_the_line_of_a_call(
    detailed: Logged, verb: str, target: str, route: str, rpc: str, outcome: str, status: int
):
    response, body = detailed.ask(verb, target, Authorization=detailed.bearer())
    assert response.status == status
    line = detailed.of(response.headers["x-request-id"])
    assert line["time"].endswith("Z")
    assert line["level"] == "info"
    assert line["client"] == "127.0.0.1"
    assert line["method"] == verb
    assert line["path"] == target.partition("?")[0]
    assert line["route"] == route
    assert line["status"] == status
    assert line["token"] == "operator"  # noqa: S105
    assert line["rpc"] == rpc
    assert line["outcome"] == outcome
    assert line["sent_bytes"] == len(body)
    assert 0 < line["upstream_ms"] <= line["duration_ms"] < HANG * 1000
    assert line.get("code", "ok") == outcome


def test_the_line_of_what_is_no_call(detailed: Logged):
    for verb, target, status, code in (
        ("GET", "/nowhere", 404, "not_found"),
        ("PUT", "/v1/status", 405, "method_not_allowed"),
        ("POST", "/v1/nodes", 422, "invalid_request"),
    ):
        response, _ = detailed.ask(verb, target, Authorization=detailed.bearer())
        line = detailed.of(response.headers["x-request-id"])
        assert (line["status"], line["code"]) == (status, code)
        assert not {"rpc", "outcome", "upstream_ms"} & line.keys()
    response, _ = detailed.ask("GET", "/v1/status")
    line = detailed.of(response.headers["x-request-id"])
    assert (line["status"], line["code"]) == (401, "unauthenticated")
    assert "token" not in line


def test_the_line_of_a_stream_comes_when_it_ends(detailed: Logged):
    with closing(http.client.HTTPConnection("127.0.0.1", detailed.port, timeout=HANG)) as wire:
        wire.request("GET", "/v1/status/stream", headers={"Authorization": detailed.bearer()})
        response = wire.getresponse()
        received = len(response.readline())
        request_id = response.headers["x-request-id"]
        assert not any(f'"{request_id}"' in line for line in detailed.raw)
        response.close()
    line = detailed.of(request_id)
    assert (line["status"], line["route"], line["rpc"]) == (
        200,
        "/v1/status/stream",
        "StreamStatus",
    )
    assert line["sent_bytes"] >= received


def test_requests_that_run_at_once_are_not_mixed_up(detailed: Logged):
    def ask(number: int) -> tuple[str, str]:
        verb, target = ("GET", "/v1/uris") if number % 2 else ("POST", "/v1/nodes/node2/restart")
        response, _ = detailed.ask(
            verb, target, Authorization=detailed.bearer(), X_Request_Id=f"at-once-{number}"
        )
        return target, response.headers["x-request-id"]

    with ThreadPoolExecutor(8) as threads:
        asked = list(threads.map(ask, range(60)))
    for target, request_id in asked:
        line = detailed.of(request_id)
        assert line["path"] == target
        assert line["rpc"] == ("URIs" if target == "/v1/uris" else "RestartNode")


# Ids.


def test_a_wellformed_id_is_the_clients(detailed: Logged):
    for given in ("a", "A.b-c_9", "x" * 64, "550e8400-e29b-41d4-a716-446655440000"):
        response, body = detailed.ask("GET", f"/nowhere/{given}", X_Request_Id=given)
        assert response.headers["x-request-id"] == given
        assert json.loads(body)["requestId"] == given
        assert detailed.of(given)["path"] == f"/nowhere/{given}"


@pytest.mark.parametrize(
    "given", ["", " ", "x" * 65, "a b", "a/b", 'a"b', "\xe4", "a\tb", "{}", "$(id)", "a,b"]
)
def test_another_id_is_replaced(detailed: Logged, given: str):
    made = set()
    for _ in range(2):
        response, body = detailed.ask("GET", "/nowhere", X_Request_Id=given)
        request_id = response.headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{16}", request_id)
        assert json.loads(body)["requestId"] == request_id
        assert detailed.of(request_id)["status"] == 401
        made.add(request_id)
    assert len(made) == 2


def test_a_request_that_is_no_http_has_an_id_too(detailed: Logged):
    head, _, body = detailed.send(b"this is no HTTP\r\n\r\n").partition(b"\r\n\r\n")
    (request_id,) = re.findall(rb"x-request-id: (\w+)", head)
    assert json.loads(body)["requestId"] == request_id.decode()
    line = detailed.of(request_id.decode())
    assert line["client"] == "127.0.0.1"
    assert "refused" in line["message"]


# Nobody forges a line.

FORGED = '{"level":"error","message":"forged"}'
PATHS = (
    "/" + quote(f"\n{FORGED}"),
    "/" + quote("\r\n12:00:00 ERROR   gateway.app: forged"),
    "/" + quote("\x1b[31mred\x1b[0m"),
    "/" + quote("\x1b]0;title\x07"),
    "/%c2%9b31m",
    "/%e2%80%a8line%e2%80%a9separators%c2%85",
    "/%00%7f%08",
    "/%ff%fe%80",
    "/%c3%28",
    "/%ed%a0%80",
    "/%e2%80%aegnirts",
    "/" + "long" * 6_000,
    "/v1/nodes/%0Anode/pause",
)


def is_clean(line: str) -> bool:
    """Whether a line has nothing that a terminal, or a reader of lines, takes for a command."""
    return not any(unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs") for char in line)


def send_nasty_things(logged: Logged) -> list[str]:
    """Requests that would like to be seen elsewhere; their ids."""
    ids = []
    for path in PATHS:
        for verb in ("GET", "POST"):
            response, _ = logged.ask(
                *(verb, path),
                Authorization=logged.bearer(),
                User_Agent="\x9b31m",
                Referer=FORGED,
                X_Forwarded_For=f"{FORGED}, 192.0.2.1",
            )
            assert response.status in (404, 405, 422), path
            ids.append(str(response.headers["x-request-id"]))
    huge = b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    bare = b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    folded = b"GET / HTTP/1.1\r\nHost: localhost\r\n\x1b[31m: x\r\n\r\n"
    for data in (huge, bare, folded, b"\x1b[31m\n" + FORGED.encode() + b"\r\n\r\n"):
        answer = logged.send(data)
        ids += [each.decode() for each in re.findall(rb"x-request-id: (\w+)", answer)]
    assert len(ids) == 2 * len(PATHS) + 4
    return ids


def test_no_request_forges_a_line_of_json(detailed: Logged):
    before = len(detailed.raw)
    ids = send_nasty_things(detailed)
    for request_id in ids:
        line = detailed.of(request_id)
        assert line["client"] == "127.0.0.1"
        assert len(line.get("path", "")) <= 500
    assert len(detailed.raw) - before == len(ids)
    assert not any(line["message"] == "forged" for line in detailed.lines())
    assert all(map(is_clean, detailed.raw))


def test_no_request_forges_a_line_of_text(plain: Logged):
    before = len(plain.raw)
    ids = send_nasty_things(plain)
    for request_id in ids:
        eventually(lambda request_id=request_id: f"request_id={request_id}" in "".join(plain.raw))
    assert len(plain.raw) - before == len(ids)
    for line in plain.raw:
        assert is_clean(line)
        assert re.match(r"\d\d:\d\d:\d\d (INFO   |WARNING|ERROR  ) [\w.]+: ", line), line
        assert len(line) < 1000
    assert not any(re.match(r"\S+ ERROR", line) for line in plain.raw)


# Levels.


def test_requests_for_health_and_metrics_are_told_at_debug_only(detailed: Logged, plain: Logged):
    before = len(plain.raw)
    for path in ("/healthz", "/readyz", "/metrics"):
        response, _ = detailed.ask("GET", path, Authorization=detailed.bearer())
        assert response.status == 200
        line = detailed.of(response.headers["x-request-id"])
        assert (line["level"], line["route"]) == ("debug", path)

        response, _ = plain.ask("GET", path, Authorization=plain.bearer())
        assert response.status == 200
    response, _ = plain.ask("GET", "/v1/status", Authorization=plain.bearer())
    eventually(lambda: response.headers["x-request-id"] in "".join(plain.raw))
    assert [re.findall(r"route=(\S+)", line) for line in plain.raw[before:]] == [["/v1/status"]]


def test_the_upstreams_events_and_what_fails_because_of_them(tmp_path: Path, identity: Path):
    keys, port = identity_file(tmp_path, "server"), free_port()
    with simulator("--identity", keys, "--port", port) as first:
        manager = serve(first, identity, "--acquire-timeout", "50ms")
        served = manager.__enter__()
        try:
            running = Logged(served, {})
            eventually(lambda: served.command.stderr.count("connected to") == 2)
            first.command.stop()
            served.command.line(r"connection to \S+ lost: ")
            served.command.line(r"\S+ is down: calls fail at once until it is back")
            response, _ = running.ask("GET", "/v1/status")
            assert response.status == 503
            line = running.of(response.headers["x-request-id"])
            assert (line["level"], line["code"]) == ("warning", "upstream_unavailable")
            assert (line["rpc"], line["outcome"]) == ("Status", "upstream_unavailable")
            response, _ = running.ask("GET", "/readyz")
            line = running.of(response.headers["x-request-id"])
            assert (line["level"], line["status"]) == ("warning", 503)
            with simulator("--identity", keys, "--port", port):
                served.command.line(r"connected to \S+ again")
                is_ready(served.url)
            events = [each for each in running.lines() if each["logger"].startswith("zapcore")]
            said = {(each["level"], each["message"].split("127.0.0.1")[0]) for each in events}
            assert ("info", "connected to ") in said
            assert ("warning", "connection to ") in said
            assert ("warning", "connected to ") in said
            assert sum(" is down: " in each["message"] for each in events) <= 2
        finally:
            manager.__exit__(None, None, None)


# No secrets.


def test_nothing_secret_is_in_the_log_whatever_the_level(
    netrunner: Simulator, identity: Path, tmp_path: Path
):
    mine = {name: f"sesame-{name}-{os.urandom(8).hex()}" for name in ("body", "query", "header")}
    with logged(netrunner, identity, tmp_path, "--log-level", "debug") as running:
        bearer, body = running.bearer(), json.dumps({"name": mine["body"], "x": mine["body"]})
        response, answer = running.ask("POST", "/v1/stream-tickets", Authorization=bearer)
        ticket = json.loads(answer)["ticket"]
        assert response.status == 200

        running.ask("GET", f"/v1/status?token={mine['query']}", Authorization=bearer)
        running.ask("GET", f"/v1/status/stream?ticket={ticket}&interval=x")
        running.ask("GET", f"/v1/status/stream?ticket={mine['query']}")
        running.ask("GET", f"/nowhere?ticket={ticket}", Authorization=bearer)
        running.ask("POST", "/v1/nodes", body, Authorization=bearer)  # no JSON's media type
        for sent in (body, body[:-1], json.dumps({"nodeConfig": mine["body"]})):
            running.ask(
                *("POST", "/v1/nodes", sent),
                Authorization=bearer,
                Content_Type="application/json",
                Cookie=f"session={mine['header']}",
                X_Api_Key=mine["header"],
            )
        running.ask("POST", "/v1/cluster", body, Authorization=running.bearer("reader"))
        for scheme in ("Bearer", "Basic", "bearer  ", "Token"):
            running.ask("GET", "/v1/status", Authorization=f"{scheme} {mine['header']}")
        running.ask("GET", "/v1/status", Authorization=mine["header"])
        running.ask("GET", "/v1/status", Host=mine["header"], Authorization=bearer)
        running.ask("GET", "/v1/status", Origin=f"https://{mine['header']}", Authorization=bearer)
        secret = running.secrets["operator"].encode()
        for data in (
            b"GET /?token=" + secret + b" HTTP/9.9\r\n\r\n",
            b"GET / HTTP/1.1\r\nAuthorization: Bearer " + secret + b"\r\nbroken\r\n\r\n",
            b"GET / HTTP/1.1\r\nAuthorization: Bearer " + secret * 2000 + b"\r\n\r\n",
            b"\x16\x03\x01" + secret + b"\r\n\r\n",
        ):
            running.send(data)
        with closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=HANG)) as wire:
            wire.request("GET", f"/v1/status/stream?ticket={ticket}")
            response = wire.getresponse()
            assert response.status == 200
            response.readline()
            response.close()
        running.served.command.send(signal.SIGHUP)
        running.served.command.line(r"read 2 tokens")
        assert get(running.served.url, "/healthz").status_code == 200

        running.served.stops()
        told = running.served.command.stderr
        keys = json.loads(identity.read_text())
        hidden = {**mine, **running.secrets, "ticket": ticket, "mac": ticket.split(".")[1]}
        hidden |= {
            f"digest {name}": digest_of(each).hex() for name, each in running.secrets.items()
        }
        hidden |= {name: text for name, text in _texts(keys) if len(text) > 60}
        assert len(hidden) >= 8
        assert [name for name, text in hidden.items() if text in told] == []
        assert "earer" not in told
        assert "ticket=" not in told
        assert "Traceback" not in told


def _texts(value: object, name: str = "key") -> Iterator[tuple[str, str]]:
    """Every text in an identity's file."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _texts(part, f"{name}.{key}")
    elif isinstance(value, str):
        yield name, value


# Where it goes.


def read_all(descriptor: int) -> Iterator[bytes]:
    """What a terminal shows until it is gone."""
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:
            return
        if not part:
            return
        yield part


def test_a_terminal_gets_text(netrunner: Simulator, identity: Path):
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        command_line(
            *("serve", "--port", "0", "--identity", identity),
            *("--upstream", netrunner.address, "--server", netrunner.fingerprint),
        ),
        stderr=theirs,
        env=clean_environment(ZAP_GATEWAY_DRAIN_GRACE="0"),
    )
    os.close(theirs)
    shown = bytearray()
    reader = threading.Thread(target=lambda: [shown.extend(part) for part in read_all(ours)])
    reader.start()
    try:
        eventually(lambda: b"connected to" in shown)
        port = int(re.search(rb":(\d+) ", bytes(shown))[1])
        assert get(f"http://127.0.0.1:{port}", "/v1/status").status_code == 200
        eventually(lambda: b"route=/v1/status status=200" in shown)
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=HANG) == 0
        reader.join(timeout=HANG)
        os.close(ours)
    announcement, *lines = shown.decode().replace("\r\n", "\n").splitlines()
    assert announcement.startswith("zap-gateway: ")
    assert len(lines) >= 4
    assert all(re.match(r"\d\d:\d\d:\d\d [A-Z]+ +[\w.]+: ", line) for line in lines), lines


def test_a_log_that_nobody_reads_any_more_does_not_end_the_gateway(identity: Path):
    """Also where its lines are written at once, as those of failures are."""
    running = subprocess.Popen(
        command_line(
            *("serve", "--port", "0", "--identity", identity, "--acquire-timeout", "20ms"),
            *("--upstream", f"127.0.0.1:{free_port()}", "--server", "SHA256:" + "A" * 43),
        ),
        stderr=subprocess.PIPE,
        env=clean_environment(ZAP_GATEWAY_DRAIN_GRACE="0"),
    )
    try:
        assert running.stderr is not None
        port = int(re.search(rb":(\d+) ", running.stderr.readline())[1])
        running.stderr.close()
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=HANG)) as wire:
            wire.connect()
            kept = wire.sock
            for path, status in (("/v1/status", 503), ("/healthz", 200), ("/v1/status", 503)) * 3:
                wire.request("GET", path)
                response = wire.getresponse()
                response.read()
                assert response.status == status
                assert wire.sock is kept
        assert running.poll() is None
    finally:
        running.terminate()
        running.wait(timeout=HANG)


TALKER = """
import asyncio, logging, sys
from gateway.logs import configure_logging
configure_logging("info", "json")
logger = logging.getLogger("talker")

async def main():
    for number in range(3000):
        logger.info("x" * 300, extra={"number": number})
        if number % 50 == 0:
            await asyncio.sleep(0)

asyncio.run(main())
"""


def test_lines_of_several_processes_are_whole_where_they_are_read_slowly():
    """As those of workers, who share their parent's standard error."""
    ours, theirs = os.pipe()
    talkers = [subprocess.Popen([sys.executable, "-c", TALKER], stderr=theirs) for _ in range(3)]
    os.close(theirs)
    data = bytearray()
    for part in read_all(ours):
        data += part
        if len(data) < 500_000:
            time.sleep(0.002)
    os.close(ours)
    assert [talker.wait(timeout=HANG) for talker in talkers] == [0, 0, 0]
    lines = bytes(data).split(b"\n")
    assert lines.pop() == b""
    assert all(line.startswith(b'{"time"') and line.endswith(b"}") for line in lines)
    assert sorted(json.loads(line)["number"] for line in lines) == sorted([*range(3000)] * 3)
