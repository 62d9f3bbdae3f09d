"""`zap-gateway healthcheck`: its exit status is for machines, its words for people."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.auth import new_token, token_line
from tests.commands.test_cli import Cli, cli, one_sentence
from tests.commands.test_cli_drain import Served, netrunner, serve
from tests.commands.test_cli_serve import NOBODY, identity
from tests.integration.gateway_helpers import (
    Simulator,
    clean_environment,
    command,
    run_command,
)
from tests.integration.zap_helpers import HANG, free_port

__all__ = ["cli", "identity", "netrunner"]


@pytest.fixture(scope="module")
def healthy(netrunner: Simulator, identity: Path) -> Iterator[Served]:
    """A gateway that reaches its server."""
    with serve(netrunner, identity) as served:
        yield served


@pytest.fixture(scope="module")
def lonely(identity: Path) -> Iterator[int]:
    """The port of a gateway whose server is away."""
    with command(
        *("serve", "--port", "0", "--identity", identity, "--server", NOBODY),
        *("--upstream", f"127.0.0.1:{free_port()}", "--drain-grace", "0"),
    ) as running:
        port = int(running.line(r"zap-gateway: http://127\.0\.0\.1:(\d+) → ")[1])
        running.line("no connection to .* nobody listens there")
        yield port


@contextmanager
def answering(answer: bytes | None) -> Iterator[tuple[int, list[bytes]]]:
    """A server that gives everybody the same answer, or none; its port, and what it was asked."""
    asked: list[bytes] = []
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve_them() -> None:
            while True:
                try:
                    wire, _ = listener.accept()
                except OSError:
                    return
                kept.append(wire)
                if answer is None:
                    continue
                asked.append(wire.recv(65536))
                wire.sendall(answer)
                wire.close()

        thread = threading.Thread(target=serve_them)
        thread.start()
        try:
            yield listener.getsockname()[1], asked
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for wire in kept:
                wire.close()


def http_answer(body: str, status: str = "200 OK", media_type: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n{body}".encode()


# A gateway.


def test_a_gateway_that_is_well(cli: Cli, healthy: Served):
    assert cli("healthcheck", "--port", healthy.port) == (0, "ok\n", "")
    assert cli("healthcheck", "--ready", "--port", healthy.port) == (0, "ready\n", "")


def test_a_gateway_whose_server_is_away_lives_and_is_not_ready(cli: Cli, lonely: int):
    assert cli("healthcheck", "--port", lonely) == (0, "ok\n", "")
    status, out, err = cli("healthcheck", "--ready", "--port", lonely)
    assert (status, out) == (1, "")
    assert "nobody listens there (connection refused)" in one_sentence(err)


def test_it_takes_the_settings_of_the_gateway_from_the_environment(healthy: Served, lonely: int):
    environment = {
        "ZAP_GATEWAY_PORT": str(healthy.port),
        "ZAP_GATEWAY_HOST": "127.0.0.1",
        # And minds nothing that only a gateway needs.
        "ZAP_GATEWAY_IDENTITY": "/nowhere",
        "ZAP_GATEWAY_TOKENS": "/nowhere",
        "ZAP_GATEWAY_MAX_CALLS": "7",
    }
    done = run_command("healthcheck", "--ready", **environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")
    done = run_command("healthcheck", "--ready", "--port", lonely, **environment)
    assert done.returncode == 1, "a flag counts for more"


def test_it_takes_them_from_a_file_too(cli: Cli, healthy: Served, tmp_path: Path):
    config = tmp_path / "gateway.toml"
    config.write_text(f'port = {healthy.port}\nidentity = "nowhere"\n')
    assert cli("healthcheck", "--config", config) == (0, "ok\n", "")


def test_a_gateway_on_all_interfaces(
    cli: Cli, netrunner: Simulator, identity: Path, tmp_path: Path
):
    """It needs a token, and the check needs none."""
    tokens = tmp_path / "tokens"
    tokens.write_text(token_line("me", "read", new_token()) + "\n")
    everywhere = "0.0.0.0"  # noqa: S104
    with command(
        *("serve", "--host", everywhere, "--port", "0", "--identity", identity),
        *("--upstream", netrunner.address, "--server", netrunner.fingerprint),
        *("--tokens", tokens, "--allowed-host", "gateway.example", "--drain-grace", "0"),
    ) as running:
        port = running.line(r"zap-gateway: http://0\.0\.0\.0:(\d+) → ")[1]
        running.line("connected to")
        own = ("--host", everywhere, "--port", port)
        assert cli("healthcheck", *own) == (0, "ok\n", "")
        assert cli("healthcheck", "--ready", *own) == (0, "ready\n", "")


def test_a_gateway_on_another_address_of_this_machine(
    cli: Cli, netrunner: Simulator, identity: Path
):
    with command(
        *("serve", "--host", "127.0.0.2", "--port", "0", "--identity", identity),
        *("--upstream", netrunner.address, "--server", netrunner.fingerprint),
        *("--drain-grace", "0"),
    ) as running:
        port = running.line(r"zap-gateway: http://127\.0\.0\.2:(\d+) → ")[1]
        assert cli("healthcheck", "--host", "127.0.0.2", "--port", port) == (0, "ok\n", "")


def test_a_gateway_under_a_path(cli: Cli, netrunner: Simulator, identity: Path):
    with serve(netrunner, identity, "--root-path", "/netrunner") as served:
        assert served.url.endswith("/netrunner")
        for url in (served.url, served.url + "/", f"http://localhost:{served.port}/netrunner"):
            assert cli("healthcheck", "--url", url) == (0, "ok\n", "")
            assert cli("healthcheck", "--ready", "--url", url) == (0, "ready\n", "")
        assert cli("healthcheck", "--port", served.port)[0] == 0
        status, _, err = cli("healthcheck", "--url", f"http://127.0.0.1:{served.port}/elsewhere")
        assert status == 1
        assert "/elsewhere/healthz is no address of this gateway" in one_sentence(err)


def test_what_it_asks(cli: Cli):
    for flags, path in (((), "/healthz"), (("--ready",), "/readyz")):
        with answering(http_answer('{"status": "ok"}')) as (port, asked):
            for url in (f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port}/a/b/"):
                cli("healthcheck", *flags, "--url", url)
        assert [each.split(b" ")[1].decode() for each in asked] == [path, "/a/b" + path]
        assert b"authorization" not in b"".join(asked).lower()


# What is none.


def test_nobody_there(cli: Cli):
    port = free_port()
    status, out, err = cli("healthcheck", "--port", port)
    assert (status, out) == (1, "")
    assert f"http://127.0.0.1:{port} does not answer: " in one_sentence(err)


NO_GATEWAY: dict[str, bytes] = {
    "a page": http_answer("<h1>It works!</h1>", media_type="text/html"),
    "nothing at all": http_answer(""),
    "another health": http_answer('{"status": "UP"}'),
    "another object": http_answer("{}"),
    "a list": http_answer("[1]"),
    "a page that is missing": http_answer("<h1>Nope</h1>", "404 Not Found", "text/html"),
    "a redirect": http_answer("", "301 Moved Permanently"),
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "an answer cut short": http_answer("x" * 100)[:-50],
}


@pytest.mark.parametrize("answer", NO_GATEWAY.values(), ids=NO_GATEWAY.keys())
def test_a_server_that_is_no_gateway(cli: Cli, answer: bytes):
    with answering(answer) as (port, _):
        status, out, err = cli("healthcheck", "--port", port)
    assert (status, out) == (1, "")
    assert one_sentence(err)


def test_a_server_that_accepts_and_says_nothing(cli: Cli):
    with answering(None) as (port, _):
        status, out, err = cli("healthcheck", "--port", port, "--timeout", "100ms")
    assert (status, out) == (1, "")
    assert "does not answer" in one_sentence(err)


def test_a_name_that_does_not_exist(cli: Cli):
    status, _, err = cli("healthcheck", "--url", "http://nowhere.invalid")
    assert status == 1
    assert "http://nowhere.invalid does not answer" in one_sentence(err)


def test_a_gateway_that_was_told_to_stop_is_not_ready(
    cli: Cli, netrunner: Simulator, identity: Path
):
    with serve(netrunner, identity, "--drain-grace", "1h") as served:
        served.command.send(signal.SIGTERM)
        served.command.line("told to stop")
        assert cli("healthcheck", "--port", served.port) == (0, "ok\n", "")
        status, _, err = cli("healthcheck", "--ready", "--port", served.port)
        assert status == 1
        assert "told to stop" in one_sentence(err)
        assert served.command.stop() == 1


# What is asked wrongly.


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "127.0.0.1:8081",
        "ftp://127.0.0.1",
        "http://",
        "http:///healthz",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:http",
        "http://[::1",
    ],
)
def test_a_url_that_is_none(cli: Cli, url: str):
    status, out, err = cli("healthcheck", "--url", url)
    assert "--url" in one_sentence(err)
    assert (status, out) == (2, "")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--timeout", "soon"), "--timeout 'soon' is not a time"),
        (("--timeout", "0"), "--timeout '0' is outside"),
        (("--timeout", "2h"), "--timeout '2h' is outside"),
        (("--port", "http"), "--port"),
        (("--port", "65536"), "--port"),
        (("--tls-key", "x"), "go together"),
        (("--config", "nowhere.toml"), "there is no settings file"),
    ],
)
def test_a_wrong_setting(cli: Cli, flags: tuple[str, ...], said: str):
    status, out, err = cli("healthcheck", *flags)
    assert said in one_sentence(err)
    assert (status, out) == (2, "")


def test_a_certificate_that_is_not_there(cli: Cli, healthy: Served):
    flags = ("--tls-certificate", "nowhere.pem", "--tls-key", "nowhere.key")
    status, out, err = cli("healthcheck", "--port", healthy.port, *flags)
    assert (status, out) == (1, "")
    assert one_sentence(err)


# What it costs.

MODULES = """
import json, sys
sys.argv = ["zap-gateway", *sys.argv[1:]]
from gateway.cli import main
status = main()
print(json.dumps([status, sorted(sys.modules)]))
"""


def test_it_imports_no_server(healthy: Served):
    done = subprocess.run(
        [sys.executable, "-c", MODULES, "healthcheck", "--port", str(healthy.port)],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=HANG,
    )
    assert done.stderr == ""
    words, told = done.stdout.splitlines()
    status, modules = json.loads(told)
    assert (words, status) == ("ok", 0)
    heavy = ("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "prometheus_client")
    assert not [name for name in modules if name.partition(".")[0] in (*heavy, "opentelemetry")]
    assert "gateway.app" not in modules


def test_its_words_are_one_line_whatever_is_answered(cli: Cli):
    nasty = json.dumps({"detail": "line\n\x1b[31mred", "status": 503})
    with answering(http_answer(nasty, "503 Service Unavailable")) as (port, _):
        status, _, err = cli("healthcheck", "--port", port)
    assert status == 1
    assert one_sentence(err).rstrip("\n").isprintable()
