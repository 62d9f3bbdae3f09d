"""`zap-gateway serve` and `dev`, as their users run them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from gateway.auth import new_token, token_line
from tests.commands.test_cli import Cli, cli, one_sentence
from tests.integration.gateway_helpers import (
    Command,
    Simulator,
    command,
    identity_file,
    run_command,
    simulator,
)
from tests.integration.zap_helpers import HANG, free_port, identity_of

__all__ = ["cli"]

NOBODY = "SHA256:" + "A" * 43


def eventually(predicate: Callable[[], object]) -> None:
    """Poll until the predicate holds."""
    until = time.monotonic() + HANG
    while not predicate():
        assert time.monotonic() < until
        time.sleep(0.01)


def get(url: str, path: str, **options: object) -> httpx.Response:
    with httpx.Client(base_url=url, timeout=HANG, trust_env=False) as client:
        return client.get(path, **options)


def url_of(running: Command) -> str:
    """Where `serve` says that it listens."""
    return str(running.line(r"zap-gateway: (http://\S+) → ")[1])


def is_ready(url: str) -> None:
    eventually(lambda: get(url, "/readyz").status_code == 200)


def exists(pid: int) -> bool:
    """Whether a process is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def netrunner() -> Iterator[Simulator]:
    with simulator() as running:
        yield running


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return identity_file(tmp_path_factory.mktemp("keys"), "gateway")


# serve


def test_serve_from_end_to_end(netrunner: Simulator, identity: Path):
    with command(
        *("serve", "--port", "0", "--identity", identity),
        *("--upstream", netrunner.address, "--server", netrunner.fingerprint),
    ) as running:
        url = url_of(running)
        assert identity_of("gateway").public.fingerprint in running.stderr
        is_ready(url)
        status = get(url, "/v1/status").json()
        assert status["clusterInfo"]["pid"] == netrunner.pid
        assert running.stdout == "", "standard output is nobody's log"
        assert running.stop(signal.SIGTERM) == 0
        assert "Traceback" not in running.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_streams_cleanly_and_then_the_process(
    netrunner: Simulator, identity: Path, number: int
):
    with command(
        *("serve", "--port", "0", "--identity", identity),
        *("--upstream", netrunner.address, "--server", netrunner.fingerprint),
    ) as running:
        url = url_of(running)
        is_ready(url)
        with (
            httpx.Client(base_url=url, timeout=HANG, trust_env=False) as client,
            client.stream("GET", "/v1/status/stream", params={"interval": "1h"}) as response,
        ):
            lines = response.iter_lines()
            while not next(lines).startswith("data:"):
                pass
            running.send(number)
            end, data = [line for line in lines if line]  # and no broken connection
            assert end == "event: end"
            assert '"code":"shutting_down"' in data
        assert running.wait() == 0
        assert "Traceback" not in running.stderr


def test_a_second_signal_ends_it_at_once(identity: Path):
    with (
        simulator("--health-delay", "3600") as slow,
        command(
            *("serve", "--port", "0", "--identity", identity),
            *("--upstream", slow.address, "--server", slow.fingerprint),
        ) as running,
    ):
        url = url_of(running)
        is_ready(url)

        port = httpx.URL(url).port
        with socket.create_connection(("127.0.0.1", port), timeout=HANG) as waiting:
            target = "/v1/health/wait?timeout=1h"
            waiting.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert get(url, "/healthz").status_code == 200
            running.send(signal.SIGINT)
            eventually(lambda: not _listens(port))
            assert running.process.poll() is None, "the call may finish"
            again = time.monotonic()
            running.send(signal.SIGINT)
            running.wait()
            assert time.monotonic() - again < 7, "not the ten seconds of grace"


def _listens(port: int | None) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port or 0)) == 0


def test_serve_starts_before_its_server_and_waits_for_it(tmp_path: Path, identity: Path):
    keys = identity_file(tmp_path, "server")
    port = free_port()
    with command(
        *("serve", "--port", "0", "--identity", identity, "--acquire-timeout", "50ms"),
        *("--upstream", f"127.0.0.1:{port}", "--server", identity_of("server").public.fingerprint),
    ) as running:
        url = url_of(running)
        running.line("no connection to .* nobody listens there")
        assert get(url, "/v1/status").status_code == 503
        assert get(url, "/healthz").status_code == 200
        with simulator("--identity", keys, "--port", port):
            is_ready(url)
            assert get(url, "/v1/status").status_code == 200
        assert running.stop() == 0


def test_flags_before_the_environment_before_the_file(
    tmp_path: Path, netrunner: Simulator, identity: Path
):
    """Each wins where it says something, and what one leaves out the next may say."""
    config = tmp_path / "gateway.toml"
    config.write_text(
        f"""
        upstream = "{netrunner.address}"
        server = "{NOBODY}"
        host = "127.0.0.2"
        port = 1
        max_body = 2000
        call_timeout = "7s"
        allowed_host = ["from-file", "also-file"]
        """
    )
    environment = {
        "ZAP_GATEWAY_SERVER": netrunner.fingerprint,
        "ZAP_GATEWAY_IDENTITY": str(identity),
        "ZAP_GATEWAY_PORT": "2",
        "ZAP_GATEWAY_MAX_BODY": "3000",
        "ZAP_GATEWAY_ALLOWED_HOST": "from-environment, also-environment",
    }
    with command("serve", "--config", config, "--port", "0", **environment) as running:
        url = url_of(running)
        assert url.startswith("http://127.0.0.2:")
        is_ready_at = {"host": "from-environment"}
        eventually(lambda: get(url, "/readyz", headers=is_ready_at).status_code == 200)
        for name, status in (("also-environment", 200), ("from-file", 403), ("127.0.0.3", 403)):
            assert get(url, "/v1/ping", headers={"host": name}).status_code == status
        with httpx.Client(base_url=url, trust_env=False, headers=is_ready_at) as client:
            for size, status in ((2500, 422), (3500, 413)):
                response = client.post("/v1/chains", json={"x": "y" * size})
                assert response.status_code == status
        assert running.stop() == 0


def test_beyond_loopback_with_tokens(tmp_path: Path, netrunner: Simulator, identity: Path):
    secret = new_token()
    tokens = tmp_path / "tokens"
    tokens.write_text(token_line("me", "operate", secret) + "\n")
    with command(
        *("serve", "--host", "0.0.0.0", "--port", "0", "--identity", identity),  # noqa: S104
        *("--upstream", netrunner.address, "--server", netrunner.fingerprint),
        *("--tokens", tokens),
    ) as running:
        url = url_of(running).replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        is_ready(url)
        headers = {"authorization": f"Bearer {secret}", "host": "gateway.example"}
        assert get(url, "/v1/status", headers=headers).status_code == 200
        assert get(url, "/v1/status", headers={"host": "gateway.example"}).status_code == 401
        assert running.stop() == 0
        assert secret not in running.stderr


def test_a_changed_server_is_refused_and_said(tmp_path: Path, identity: Path):
    known = tmp_path / "known"
    with simulator() as first:
        port = first.port
        flags = ["serve", "--port", "0", "--identity", identity, "--upstream", first.address]
        flags += ["--known-servers", known]
        with command(*flags, "--trust-on-first-use") as running:
            is_ready(url_of(running))
            assert running.stop() == 0
    with simulator("--port", port) as second, command(*flags) as running:
        url = url_of(running)
        running.line(re.escape(second.fingerprint))
        response = get(url, "/v1/status")
        assert (response.status_code, response.json()["code"]) == (
            502,
            "upstream_identity_mismatch",
        )
        assert "replace the line" in response.json()["detail"]
        assert get(url, "/readyz").status_code == 503
        assert running.stop() == 0


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


WRONG = {
    "no identity": ((), "an identity is needed", {}),
    "port that is none": (("--port", "http"), "--port (or ZAP_GATEWAY_PORT) 'http'", {}),
    "port beyond all": (("--port", "65536"), "--port (or ZAP_GATEWAY_PORT) '65536'", {}),
    "port below all": (("--port", "-1"), "--port", {}),
    "upstream without a port": (("--upstream", "a:b:c"), "give host:port", {}),
    "upstream empty": (("--upstream", ""), "give host:port", {}),
    "no connections": (("--connections", "0"), "--connections", {}),
    "time without sense": (("--call-timeout", "soon"), "'soon' is not a time", {}),
    "no time": (("--call-timeout", "0"), "--call-timeout", {}),
    "too much time": (("--change-timeout", "25h"), "--change-timeout", {}),
    "tiny bodies": (("--max-body", "10"), "--max-body", {}),
    "huge bodies": (("--max-body", str(2**40)), "--max-body", {}),
    "log level": (("--log-level", "loud"), "--log-level", {}),
    "origin": (("--allowed-origin", "tools.example"), "is no origin", {}),
    "origin with a path": (("--allowed-origin", "https://a.example/b"), "is no origin", {}),
    "environment": ((), "ZAP_GATEWAY_MAX_CALLS", {"ZAP_GATEWAY_MAX_CALLS": "many"}),
    "beyond loopback": (("--host", "0.0.0.0"), "lets other machines in", {}),  # noqa: S104
    "every interface": (("--host", "::"), "lets other machines in", {}),
    "a name of a host": (("--host", "gateway.example"), "lets other machines in", {}),
    "no such settings": (("--config", "nowhere.toml"), "there is no settings file", {}),
    "settings that are no TOML": (("--config", "{broken}"), "can't read the settings", {}),
    "settings with a slip": (("--config", "{slip}"), "there is no setting 'prot'", {}),
    "settings of a wrong type": (("--config", "{type}"), "--max-calls", {}),
    "no such tokens": (("--identity", "{id}", "--tokens", "nowhere"), "can't read nowhere", {}),
    "no tokens": (("--identity", "{id}", "--tokens", "{empty}"), "has no tokens", {}),
    "tokens that are none": (("--identity", "{id}", "--tokens", "{slip}"), "line 1", {}),
    "no such identity": (("--identity", "nowhere"), "can't read nowhere", {}),
    "a server that is none": (("--identity", "{id}", "--server", "x"), "neither a fingerprint", {}),
    "known servers that are none": (
        ("--identity", "{id}", "--known-servers", "{slip}"),
        "line 1",
        {},
    ),
}


@pytest.mark.parametrize(("flags", "said", "environment"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_setting_ends_with_2_and_one_sentence(
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    identity: Path,
    flags: tuple[str, ...],
    said: str,
    environment: dict[str, str],
):
    names = {
        "{broken}": write(tmp_path / "broken.toml", "port = = 1"),
        "{slip}": write(tmp_path / "slip.toml", 'prot = "8080"\n'),
        "{type}": write(tmp_path / "type.toml", 'max_calls = "many"\n'),
        "{empty}": write(tmp_path / "empty", "# nobody\n"),
        "{id}": identity,
    }
    arguments = [names.get(flag, flag) for flag in flags]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    status, out, err = cli("serve", "--port", "0", *arguments)
    assert said in one_sentence(err)
    assert err.startswith("zap-gateway serve: ")
    assert (status, out) == (2, "")


def test_several_wrong_settings_are_told_at_once(cli: Cli, identity: Path):
    status, _, err = cli("serve", "--port", "x", "--max-calls", "0", "--identity", identity)
    assert status == 2
    assert "--port" in one_sentence(err)
    assert "--max-calls" in err


def test_a_port_that_is_taken(cli: Cli, netrunner: Simulator, identity: Path):
    flags = ("--identity", identity, "--server", NOBODY, "--port", netrunner.port)
    status, _, err = cli("serve", *flags)
    assert status == 2
    assert f"can't listen on 127.0.0.1 port {netrunner.port}" in one_sentence(err)


# dev


def test_dev_runs_both_and_prints_lines_that_work(tmp_path: Path):
    with command("dev", "--port", "0", "--nodes", "3", TMPDIR=str(tmp_path)) as running:
        url = str(running.line(r"Console +(http://127\.0\.0\.1:\d+)/\n")[1])
        address, pid = running.line(r"Simulated netrunner +(\S+), process (\d+)").groups()
        running.line("Ctrl-C stops both")
        (folder,) = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert get(url, "/readyz").json()["upstream"] == address
        assert get(url, "/v1/status").json()["clusterInfo"]["nodeNames"] == [
            "node1",
            "node2",
            "node3",
        ]
        lines = re.findall(r"^  (curl .+)$", running.stdout, re.MULTILINE)
        assert len(lines) == 3
        if shutil.which("curl"):
            run_curl_lines(lines)
        assert running.stop(signal.SIGINT) == 0
        assert not exists(int(pid))
        assert list(tmp_path.iterdir()) == [], "the keys went with it"
        assert "Traceback" not in running.stderr


def run_curl_lines(lines: list[str]) -> None:
    """What a user pastes into a shell; the last line is a stream, read for its beginning."""
    for line in lines[:2]:
        done = subprocess.run(line + " -sS --fail", shell=True, capture_output=True, text=True)  # noqa: S602
        assert done.returncode == 0, done.stderr
        assert '"clusterInfo"' in done.stdout
    stream = f"{lines[2]} -sS --fail | head -n 3"
    done = subprocess.run(stream, shell=True, capture_output=True, text=True, timeout=HANG)  # noqa: S602
    assert "retry: 1000" in done.stdout


def test_dev_ends_on_sigterm_too_and_leaves_nothing(tmp_path: Path):
    with command("dev", "--port", "0", TMPDIR=str(tmp_path)) as running:
        pid = int(running.line(r"process (\d+)")[1])
        running.line("Ctrl-C stops both")
        assert running.stop(signal.SIGTERM) == 0
        assert not exists(pid)
        assert list(tmp_path.iterdir()) == []


def test_dev_says_when_its_netrunner_dies(tmp_path: Path):
    with command("dev", "--port", "0", TMPDIR=str(tmp_path)) as running:
        url = str(running.line(r"Console +(\S+)/\n")[1])
        running.line("Ctrl-C stops both")
        os.kill(int(running.line(r"process (\d+)")[1]), signal.SIGKILL)
        running.line("the simulated netrunner ended")
        eventually(lambda: get(url, "/readyz").status_code == 503)
        assert running.stop(signal.SIGINT) == 0
        assert list(tmp_path.iterdir()) == []


def test_dev_told_to_stop_while_it_starts_leaves_nothing(tmp_path: Path):
    """Private keys would be left in the folder."""
    with command("dev", "--port", "0", TMPDIR=str(tmp_path)) as running:
        eventually(lambda: list(tmp_path.glob("*/netrunner.json")))
        running.stop(signal.SIGTERM)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--port", "x"), "--port"),
        (("--port", "70000"), "--port"),
        (("--host", "0.0.0.0"), "lets other machines in"),  # noqa: S104
        (("--port", "0", "--nodes", "5000"), "--nodes 5000: from 0 to 1000"),
        (("--port", "0", "--nodes", "some"), "--nodes"),
    ],
)
def test_dev_with_a_wrong_flag(tmp_path: Path, flags: tuple[str, ...], said: str):
    done = run_command("dev", *flags, TMPDIR=str(tmp_path))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_dev_where_the_port_is_taken(netrunner: Simulator, tmp_path: Path):
    done = run_command("dev", "--port", netrunner.port, TMPDIR=str(tmp_path))
    assert done.returncode == 2
    assert f"port {netrunner.port}" in one_sentence(done.stderr)


def test_dev_minds_no_settings_that_are_meant_for_a_real_gateway(tmp_path: Path):
    environment = {
        "ZAP_GATEWAY_UPSTREAM": "192.0.2.1:1",
        "ZAP_GATEWAY_SERVER": NOBODY,
        "ZAP_GATEWAY_IDENTITY": "/nowhere",
        "TMPDIR": str(tmp_path),
    }
    with command("dev", "--port", "0", **environment) as running:
        url = str(running.line(r"Console +(\S+)/\n")[1])
        assert get(url, "/v1/status").status_code == 200
        assert running.stop(signal.SIGINT) == 0
