"""`zap-gateway call` and `simulate`: the native protocol without the gateway."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.test_cli import Cli, cli, one_sentence
from tests.integration.gateway_helpers import (
    Simulator,
    clean_environment,
    command,
    command_line,
    identity_file,
    run_command,
    simulator,
)
from tests.integration.zap_helpers import HANG, free_port, identity_of

__all__ = ["cli"]


@pytest.fixture(scope="module")
def netrunner() -> Iterator[Simulator]:
    with simulator("--health-delay", "0.05") as running:
        yield running


@pytest.fixture
def at(netrunner: Simulator) -> list[str]:
    """The flags that lead to the simulated netrunner."""
    return ["--upstream", netrunner.address, "--server", netrunner.fingerprint]


# call


def test_an_rpc_without_a_request(cli: Cli, at: list[str], netrunner: Simulator):
    status, out, err = cli("call", "Ping", *at)
    assert (status, json.loads(out), err) == (0, {"pid": netrunner.pid}, "")


@pytest.mark.parametrize(
    "name", ["Status", "status", "STATUS", "RPCVersion", "rpc-version", "rpc_version", "URIs"]
)
def test_names_are_taken_in_every_spelling(cli: Cli, at: list[str], name: str):
    status, out, _ = cli("call", name, *at)
    assert status == 0
    assert out.count("\n") == 1
    assert json.loads(out)


def test_rpcs_with_requests(cli: Cli, at: list[str]):
    def call(rpc: str, request: str) -> dict:
        status, out, err = cli("call", rpc, request, *at)
        assert (status, err) == (0, "")
        return json.loads(out)

    paused = call("PauseNode", '{"name": "node1"}')
    assert paused["clusterInfo"]["nodeInfos"]["node1"]["paused"] is True
    call("ResumeNode", '{"name": "node1"}')
    peer = call("AttachPeer", '{"nodeName": "node2"}')["attachedPeerInfo"]["id"]
    message = {"node_name": "node2", "peerId": peer, "op": "1", "bytes": "aGk"}
    assert call("SendOutboundMessage", json.dumps(message)) == {"sent": True}
    assert call("WaitForHealthy", "{}")["clusterInfo"]["healthy"] is True


def test_a_request_from_standard_input(at: list[str]):
    done = run_command("call", "AddNode", "-", *at, stdin='{"name": "nœud-🚀"}\n')
    assert done.returncode == 0
    assert "nœud-🚀" in json.loads(done.stdout)["clusterInfo"]["nodeNames"]
    gone = run_command("call", "RemoveNode", '{"name": "nœud-🚀"}', *at)
    assert gone.returncode == 0


def test_the_servers_error_is_the_commands_error(cli: Cli, at: list[str]):
    status, out, err = cli("call", "PauseNode", '{"name": "nobody"}', *at)
    assert (status, out) == (1, "")
    assert one_sentence(err) == "zap-gateway call: node not found\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("Nonsense",), "there is no RPC 'Nonsense'; there are: Ping, "),
        (("PauseNode",), "the request of PauseNode: name: Field required"),
        (("PauseNode", "{"), "the request of PauseNode: JSON: "),
        (("PauseNode", "[]"), "the request of PauseNode: "),
        (("PauseNode", '{"name": "x", "size": 1}'), "size: Extra inputs"),
        (("Status", "--timeout", "soon"), "--timeout 'soon' is not a time"),
        (("Status", "--upstream", "nowhere:99999"), "--upstream"),
        (("Status", "--connect-timeout", "-1"), "--connect-timeout"),
        (("Status", "--server", "SHA256:short"), "--server SHA256:short"),
        (("Status", "--config", "/nonexistent.toml"), "there is no settings file"),
    ],
)
def test_what_is_asked_wrongly_ends_with_2_and_a_sentence(
    cli: Cli, arguments: tuple[str, ...], said: str
):
    status, out, err = cli("call", *arguments)
    assert said in one_sentence(err)
    assert (status, out) == (2, "")


def test_nobody_listens(cli: Cli):
    address = f"127.0.0.1:{free_port()}"
    status, _, err = cli("call", "Ping", "--upstream", address, "--server", "SHA256:" + "A" * 43)
    assert status == 1
    assert f"can't connect to {address}" in one_sentence(err)


def test_a_deadline(cli: Cli):
    with simulator("--health-delay", "3600") as slow:
        flags = ["--upstream", slow.address, "--server", slow.fingerprint]
        status, out, err = cli("call", "WaitForHealthy", *flags, "--timeout", "50ms")
    assert (status, out) == (1, "")
    assert "no answer to WaitForHealthy within 0.05 s" in one_sentence(err)


def test_a_stream_is_a_line_per_state_until_it_is_interrupted(at: list[str]):
    with command("call", "StreamStatus", '{"pushInterval": 10000000}', *at) as running:
        running.line(r"(?:{.*}\n){3}")
        assert running.stop(signal.SIGINT) == 130
        assert "Traceback" not in running.stderr
        states = [json.loads(line) for line in running.out]
        assert len(states) >= 3
        assert all("clusterInfo" in state for state in states)


def test_a_reader_that_had_enough_is_no_defect(at: list[str]):
    """`zap-gateway call StreamStatus … | head -1`"""
    process = subprocess.Popen(
        command_line("call", "StreamStatus", '{"pushInterval": 10000000}', *at),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        process.wait(timeout=HANG)
        assert b"Traceback" not in process.stderr.read()


def test_progress_while_it_waits(monkeypatch: pytest.MonkeyPatch, cli: Cli, at: list[str]):
    monkeypatch.setattr("gateway.commands.call._EVERY", 0.005)
    err = ""
    for _ in range(20):  # where the machine is busy, the node may be healthy before we ask
        cli("call", "RestartNode", '{"name": "node1"}', *at)
        status, out, err = cli("call", "WaitForHealthy", *at)
        assert status == 0
        if err:
            break
    assert json.loads(out)["clusterInfo"]["healthy"] is True
    assert all(line.startswith("WaitForHealthy: waiting for ") for line in err.splitlines())
    assert err


# Whom to trust.


def test_an_unknown_server_is_refused_with_its_fingerprint(
    cli: Cli, netrunner: Simulator, tmp_path: Path
):
    known = tmp_path / "known_servers"
    flags = ["--upstream", netrunner.address, "--known-servers", known]
    status, out, err = cli("call", "Ping", *flags)
    assert (status, out) == (1, "")
    assert f"{netrunner.address} {netrunner.fingerprint}" in one_sentence(err)
    assert not known.exists()


def test_trust_on_first_use_and_never_again_another(cli: Cli, tmp_path: Path):
    known = tmp_path / "folder" / "known_servers"
    with simulator() as first:
        flags = ["--upstream", first.address, "--known-servers", known]
        assert cli("call", "Ping", *flags, "--trust-on-first-use")[0] == 0
        assert known.read_text() == f"{first.address} {first.fingerprint}\n"
        assert cli("call", "Ping", *flags)[0] == 0
        port = first.port
    with simulator("--port", port) as second:
        assert second.fingerprint != first.fingerprint
        for extra in ([], ["--trust-on-first-use"]):
            status, _, err = cli("call", "Ping", *flags, *extra)
            assert status == 1
            assert first.fingerprint in one_sentence(err)
            assert second.fingerprint in err
        known.write_text(f"{second.address} {second.fingerprint}\n")
        assert cli("call", "Ping", *flags)[0] == 0


def test_a_known_servers_file_that_makes_no_sense(cli: Cli, tmp_path: Path):
    known = tmp_path / "known_servers"
    known.write_text("# ours\nhost:1 nonsense\n")
    status, _, err = cli("call", "Ping", "--known-servers", known)
    assert status == 2
    assert "line 2" in one_sentence(err)


def test_a_pinned_public_identity_file(cli: Cli, tmp_path: Path):
    keys = identity_file(tmp_path, "server")
    public = tmp_path / "server.pub"
    identity_of("server").public.save(public)
    with simulator("--identity", keys) as running:
        flags = ["--upstream", running.address, "--server", public]
        assert cli("call", "Ping", *flags)[0] == 0


def test_another_server_than_the_pinned_one(cli: Cli, netrunner: Simulator):
    pinned = "SHA256:" + "A" * 43
    status, _, err = cli("call", "Ping", "--upstream", netrunner.address, "--server", pinned)
    assert status == 1
    assert netrunner.fingerprint in one_sentence(err)


def test_a_server_that_lets_only_some_clients_in(cli: Cli, tmp_path: Path):
    ours = identity_file(tmp_path, "client")
    public = tmp_path / "client.pub"
    identity_of("client").public.save(public)
    with simulator("--client", public) as running:
        flags = ["--upstream", running.address, "--server", running.fingerprint]
        assert cli("call", "Ping", *flags, "--identity", ours)[0] == 0
        status, _, err = cli("call", "Ping", *flags)
        assert status == 1
        assert "may not accept this client's identity" in one_sentence(err)


# simulate


def test_simulate_says_where_it_is_and_ends_on_sigterm():
    with simulator() as running:
        assert running.pid == running.command.pid
        assert running.fingerprint.startswith("SHA256:")
        assert running.command.stop(signal.SIGTERM) == 0
        assert running.command.stderr == ""


def test_simulate_says_it_for_people_too(cli: Cli):
    with command("simulate", "--port", "0", "--nodes", "2") as running:
        address = running.line(r"Simulated netrunner with 2 nodes on (\S+), ")[1]
        fingerprint = running.line(r"Fingerprint: (\S+)\n")[1]
        flags = ["--upstream", address, "--server", fingerprint]
        assert f"zap-gateway call Status {' '.join(flags)}\n" in running.stdout
        status, out, _ = cli("call", "Status", *flags)
        assert status == 0
        assert json.loads(out)["clusterInfo"]["nodeNames"] == ["node1", "node2"]
        assert running.stop(signal.SIGINT) == 0


def test_simulate_ends_with_its_standard_input_when_told_so():
    with simulator("--exit-with-stdin", stdin=True) as running:
        stdin = running.command.process.stdin
        assert stdin is not None
        stdin.close()
        assert running.command.wait() == 0


def test_simulate_drops_clients_and_ends_while_they_call(cli: Cli):
    with simulator("--health-delay", "3600") as running:
        flags = ["--upstream", running.address, "--server", running.fingerprint]
        with command("call", "WaitForHealthy", *flags) as waiting:
            cli("call", "Ping", *flags)
            assert running.command.stop() == 0
            assert waiting.wait() == 1
            assert "Traceback" not in waiting.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--nodes", "-1"), "--nodes -1: from 0 to 1000"),
        (("--nodes", "1001"), "--nodes 1001: from 0 to 1000"),
        (("--port", "65536"), "--port 65536: ports are 0 to 65535"),
        (("--port", "-1"), "--port -1: ports are 0 to 65535"),
        (("--port", "0", "--host", "192.0.2.1"), "can't listen on 192.0.2.1 port 0"),
        (("--port", "0", "--health-delay", "nan"), "--health-delay"),
        (("--port", "0", "--health-delay", "-1"), "--health-delay"),
    ],
)
def test_a_simulation_that_can_not_be(cli: Cli, flags: tuple[str, ...], said: str):
    status, out, err = cli("simulate", *flags)
    assert said in one_sentence(err)
    assert (status, out) == (2, "")


def test_a_port_that_is_taken(cli: Cli, netrunner: Simulator):
    status, _, err = cli("simulate", "--port", netrunner.port)
    assert status == 2
    assert f"can't listen on 127.0.0.1 port {netrunner.port}" in one_sentence(err)
