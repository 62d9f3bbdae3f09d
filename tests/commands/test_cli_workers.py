"""`zap-gateway serve --workers N`: several processes that are one gateway to everybody else."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway import workers
from gateway.auth import new_token, token_line
from gateway.metrics import SHARED_FOLDER
from tests.commands.test_cli import Cli, cli, one_sentence
from tests.commands.test_cli_drain import (
    ask_once,
    drives,
    netrunner,
    no_longer_listens,
    slow_netrunner,
    were_all_answered,
)
from tests.commands.test_cli_serve import NOBODY, eventually, identity
from tests.integration.gateway_helpers import (
    Command,
    Simulator,
    clean_environment,
    command,
    run_command,
)
from tests.integration.zap_helpers import HANG

__all__ = ["cli", "identity", "netrunner", "slow_netrunner"]


def state_of(pid: int) -> str:
    """As the system tells it: R, S, T where it is stopped, Z where it ended; empty for none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return stat.rpartition(")")[2].split()[0]


def is_gone(pid: int) -> bool:
    """Whether a process has ended; somebody may still have to take note of it."""
    return state_of(pid) in ("", "Z")


def children_of(pid: int) -> set[int]:
    """The processes that a process has started and that still run."""
    found = (path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return {int(child) for children in found for child in children if not is_gone(int(child))}


@dataclass(frozen=True)
class Fleet:
    """A gateway of several processes."""

    command: Command
    port: int
    count: int
    secret: str = ""
    seen: set[int] = field(default_factory=set)

    @property
    def workers(self) -> set[int]:
        found = children_of(self.command.pid)
        self.seen.update(found)
        return found

    @property
    def folder(self) -> Path:
        """Where the workers share their numbers."""
        variables = Path(f"/proc/{min(self.workers)}/environ").read_bytes().split(b"\0")
        prefix = SHARED_FOLDER.encode() + b"="
        (value,) = (each for each in variables if each.startswith(prefix))
        return Path(value.removeprefix(prefix).decode())

    @contextmanager
    def only(self, worker: int) -> Iterator[None]:
        """For a while no other worker takes anything."""
        others = self.workers - {worker}
        try:
            for other in others:
                os.kill(other, signal.SIGSTOP)
            eventually(lambda: all(state_of(other) == "T" for other in others))
            yield
        finally:
            for other in others:
                with suppress(ProcessLookupError):
                    os.kill(other, signal.SIGCONT)

    def ask(self, verb: str, path: str, secret: str = "", **headers: str) -> tuple[int, bytes]:
        """One call over a connection of its own."""
        secret = secret or self.secret
        if secret:
            headers["Authorization"] = f"Bearer {secret}"
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG)) as wire:
            wire.request(verb, path, headers=headers)
            response = wire.getresponse()
            return response.status, response.read()

    def get(self, path: str, secret: str = "") -> int:
        """The status of a read over a connection of its own."""
        return self.ask("GET", path, secret)[0]

    def numbers(self) -> dict[tuple[str, frozenset[str]], float]:
        """The metrics, by name without prefix and the values of labels."""
        status, text = self.ask("GET", "/metrics")
        assert status == 200
        return {
            (
                sample.name.removeprefix("zap_gateway_"),
                frozenset(sample.labels.values()),
            ): sample.value
            for family in text_string_to_metric_families(text.decode())
            for sample in family.samples
        }

    def number(self, name: str, *labels: str) -> float:
        """One of them; 0 where it is not told."""
        return self.numbers().get((name, frozenset(labels)), 0.0)

    def is_whole(self) -> None:
        """Wait until as many workers serve as there should be."""
        eventually(lambda: len(self.workers) == self.count)
        # Two connections of each.
        every = 2 * self.count
        eventually(lambda: self.number("upstream_connections", "connected") == every)

    def clean_up(self) -> None:
        """Whatever happened, leave no worker running, not even one that lost its parent."""
        if self.command.process.poll() is None:
            self.command.send(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.command.process.wait(timeout=HANG)
        for worker in self.seen:
            if not is_gone(worker):
                os.kill(worker, signal.SIGKILL)

    def has_stopped(self, status: int = 0) -> None:
        """All of it ends by itself; called while it still runs."""
        folder, found = self.folder, self.workers
        assert self.command.wait() == status, self.command.stderr
        assert all(map(is_gone, found))
        assert not folder.exists()
        assert "Traceback" not in self.command.stderr


@contextmanager
def fleet(
    upstream: Simulator, identity: Path, *flags: object, count: int = 2, secret: str = ""
) -> Iterator[Fleet]:
    """`zap-gateway serve --workers`, once all of them serve."""
    with command(
        *("serve", "--port", "0", "--identity", identity, "--upstream", upstream.address),
        *("--server", upstream.fingerprint, "--workers", count, *flags),
        ZAP_GATEWAY_DRAIN_GRACE="0",
    ) as running:
        port = int(running.line(r"zap-gateway: http://127\.0\.0\.1:(\d+) → ")[1])
        started = Fleet(running, port, count, secret)
        try:
            started.is_whole()
            yield started
        finally:
            started.clean_up()


@dataclass(frozen=True)
class Guarded:
    """Three workers with tokens, for tests that leave them as they are."""

    fleet: Fleet
    tokens: Path
    secret: str


@pytest.fixture(scope="module")
def guarded(
    netrunner: Simulator, identity: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    secret = new_token()
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text(token_line("me", "operate", secret) + "\n")
    with fleet(netrunner, identity, "--tokens", tokens, count=3, secret=secret) as started:
        yield Guarded(started, tokens, secret)


# They share the port.


@contextmanager
def stream(fleet: Fleet, **params: str) -> Iterator[Iterator[str]]:
    """The lines of a stream."""
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{fleet.port}", trust_env=False) as client,
        client.stream(
            *("GET", "/v1/status/stream"),
            params={"interval": "1h", **params},
            headers={"Authorization": f"Bearer {fleet.secret}"}
            if fleet.secret and not params
            else {},
            timeout=HANG,
        ) as response,
    ):
        assert response.status_code == 200, response.read()
        yield response.iter_lines()


def epoch_of(lines: Iterator[str]) -> str:
    """What the ids of one process' events have in common."""
    line = next(line for line in lines if line.startswith("id: "))
    return line.removeprefix("id: ").rpartition("-")[0]


def test_each_worker_answers_by_itself(guarded: Guarded):
    epochs = set()
    for worker in guarded.fleet.workers:
        with guarded.fleet.only(worker), stream(guarded.fleet) as lines:
            epochs.add(epoch_of(lines))
    assert len(epochs) == 3


def test_several_workers_take_what_comes_at_once(guarded: Guarded):
    epochs: set[str] = set()
    with ExitStack() as stack:
        until = time.monotonic() + HANG
        while len(epochs) < 2:
            assert time.monotonic() < until
            epochs.add(epoch_of(stack.enter_context(stream(guarded.fleet))))


def test_a_ticket_of_one_worker_opens_a_stream_on_all(guarded: Guarded):
    fleet = guarded.fleet
    for maker in fleet.workers:
        with fleet.only(maker):
            ticket = json.loads(fleet.ask("POST", "/v1/stream-tickets")[1])["ticket"]
        for worker in fleet.workers:
            with fleet.only(worker), stream(fleet, ticket=ticket) as lines:
                assert next(lines).startswith("retry")


def test_sighup_reaches_all_workers(guarded: Guarded):
    fleet, another = guarded.fleet, new_token()
    mine = guarded.tokens.read_text()
    guarded.tokens.write_text(mine + token_line("another", "read", another) + "\n")
    fleet.command.send(signal.SIGHUP)
    for worker in fleet.workers:
        with fleet.only(worker):
            eventually(lambda: fleet.get("/v1/status", another) == 200)
    guarded.tokens.write_text(mine)
    fleet.command.send(signal.SIGHUP)
    for worker in fleet.workers:
        with fleet.only(worker):
            eventually(lambda: fleet.get("/v1/status", another) == 401)
            assert fleet.get("/v1/status") == 200


# Metrics.


def test_any_worker_tells_the_sums_over_all(guarded: Guarded):
    fleet, label = guarded.fleet, ("GET", "/v1/version", "200")
    for worker in fleet.workers:  # so that each has something to add
        with fleet.only(worker):
            assert fleet.get("/v1/version") == 200
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(fleet.get, ["/v1/version"] * 97)) == {200}
    eventually(lambda: fleet.number("http_requests_total", *label) >= 100)
    for worker in fleet.workers:
        with fleet.only(worker):
            assert fleet.number("http_requests_total", *label) == 100
            assert fleet.number("http_request_duration_seconds_count", *label[:2]) == 100
            assert fleet.number("zap_calls_total", "RPCVersion", "ok") == 100
            assert fleet.number("zap_call_duration_seconds_count", "RPCVersion") == 100
            assert fleet.number("upstream_connections", "connected") == 6
            build = [value for (name, _), value in fleet.numbers().items() if name == "build_info"]
            assert build == [1]


def test_a_worker_that_is_killed_is_replaced_and_its_counts_stay(guarded: Guarded):
    fleet, label = guarded.fleet, ("GET", "/v1/uris", "200")
    victim = min(fleet.workers)
    for worker in fleet.workers:
        with fleet.only(worker):
            assert [fleet.get("/v1/uris") for _ in range(10)] == [200] * 10
    eventually(lambda: fleet.number("http_requests_total", *label) == 30)
    eventually(lambda: fleet.number("stream_readers") == 0)
    with ExitStack() as reader:
        with fleet.only(victim):
            lines = reader.enter_context(stream(fleet))
            assert next(lines).startswith("retry")
            eventually(lambda: fleet.number("stream_readers") == 1)
            os.kill(victim, signal.SIGKILL)
            eventually(lambda: is_gone(victim))
        assert fleet.number("http_requests_total", *label) == 30
        with suppress(httpx.HTTPError):
            reader.close()
    counts = set()

    def vanishes() -> bool:
        numbers = fleet.numbers()
        counts.add(numbers["http_requests_total", frozenset(label)])
        return numbers["stream_readers", frozenset()] == 0

    eventually(vanishes)
    fleet.is_whole()
    assert vanishes()
    assert counts == {30}

    assert victim not in fleet.workers
    for worker in fleet.workers:
        with fleet.only(worker):
            assert fleet.get("/v1/uris") == 200
    eventually(lambda: fleet.number("http_requests_total", *label) == 33)
    for worker in fleet.workers:
        with fleet.only(worker):
            assert fleet.number("http_requests_total", *label) == 33
    words = rf"worker {victim} ended \(status -9\); another is started in [\d.]+ s"
    assert re.search(words, fleet.command.stderr)


# Signals.


def test_sigterm_to_the_parent_drains_all_workers(netrunner: Simulator, identity: Path):
    with (
        fleet(netrunner, identity, "--drain-grace", "1s") as started,
        ThreadPoolExecutor(4) as threads,
    ):
        running = [threads.submit(each) for each in drives(started.port)]
        time.sleep(0.2)
        told_at = time.monotonic()
        started.command.send(signal.SIGTERM)
        started.has_stopped()
        calls = [call for each in running for call in each.result(timeout=HANG)]
        were_all_answered(calls, told_at)


def test_sigint_to_the_parent_alone_ends_the_streams_of_all_workers(
    netrunner: Simulator, identity: Path
):
    with (
        fleet(netrunner, identity) as started,
        ExitStack() as stack,
    ):
        readers = []
        for worker in started.workers:
            with started.only(worker):
                lines = stack.enter_context(stream(started))
                assert next(lines).startswith("retry")
                readers.append(lines)
        started.command.send(signal.SIGINT)
        for lines in readers:
            told = list(lines)
            assert "event: end" in told
            assert '"code":"shutting_down"' in told[told.index("event: end") + 1]
        started.has_stopped()


def test_nobody_is_let_in_while_calls_finish_and_a_second_signal_ends_them(
    slow_netrunner: Simulator, identity: Path
):
    """Who connected then would wait for an answer that nobody gives."""
    flags = ("--drain-timeout", "1h")
    with (
        fleet(slow_netrunner, identity, *flags) as started,
        ThreadPoolExecutor(1) as threads,
    ):
        call = threads.submit(ask_once, started.port, "GET", "/v1/health/wait?timeout=1h")
        eventually(lambda: started.number("zap_calls_under_way"))
        started.command.send(signal.SIGTERM)
        no_longer_listens(started.port)
        assert started.command.process.poll() is None
        assert not call.done()
        # The second one reaches also a worker that does not react any more.
        for worker in started.workers:
            os.kill(worker, signal.SIGSTOP)
        started.command.send(signal.SIGTERM)
        started.has_stopped(1)
        call.result(timeout=HANG)


def test_workers_whose_parent_is_killed_stop_by_themselves(netrunner: Simulator, identity: Path):
    with fleet(netrunner, identity) as started:
        folder, found = started.folder, started.workers
        started.command.send(signal.SIGKILL)
        try:
            eventually(lambda: all(map(is_gone, found)))
        finally:
            shutil.rmtree(folder)  # nobody is left who could
        started.command.wait()
        told = started.command.stderr
        assert told.count("the process that started this worker is gone") == 2
        assert "Traceback" not in told


@pytest.mark.parametrize("count", [1, 2])
def test_sighup_while_it_starts_does_not_end_it(netrunner: Simulator, identity: Path, count: int):
    with command(
        *("serve", "--port", "0", "--identity", identity, "--upstream", netrunner.address),
        *("--server", netrunner.fingerprint, "--workers", count),
        ZAP_GATEWAY_DRAIN_GRACE="0",
    ) as running:
        port = int(running.line(r"zap-gateway: http://127\.0\.0\.1:(\d+) → ")[1])
        for _ in range(10):
            running.send(signal.SIGHUP)
            time.sleep(0.05)
        assert running.process.poll() is None
        connected = 2 * count
        started = Fleet(running, port, count)
        eventually(lambda: started.number("upstream_connections", "connected") == connected)
        assert "ended (status" not in running.stderr


def test_told_to_stop_while_workers_start_nothing_is_left(netrunner: Simulator, identity: Path):
    with command(
        *("serve", "--port", "0", "--identity", identity, "--upstream", netrunner.address),
        *("--server", netrunner.fingerprint, "--workers", "3"),
        ZAP_GATEWAY_DRAIN_GRACE="0",
    ) as running:
        started = Fleet(running, 0, 3)
        eventually(lambda: len(started.workers) == 3)
        running.send(signal.SIGTERM)
        started.has_stopped()


# What goes wrong.


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--workers", "0"), "--workers"),
        (("--workers", "65"), "--workers"),
        (("--workers", "many"), "--workers"),
        (("--workers", "3", "--tokens", "nowhere"), "can't read nowhere"),
        (("--workers", "3", "--server", "nowhere"), "neither a fingerprint"),
        (("--workers", "3", "--tls-certificate", "x", "--tls-key", "y"), "can't use the certific"),
    ],
)
def test_a_wrong_setting_is_said_once_and_no_worker_is_started(
    cli: Cli, identity: Path, flags: tuple[str, ...], said: str
):
    status, out, err = cli("serve", "--port", "0", "--identity", identity, *flags)
    assert said in one_sentence(err)
    assert (status, out) == (2, "")


def test_a_port_that_is_taken_is_said_once(netrunner: Simulator, identity: Path):
    flags = ("--identity", identity, "--server", NOBODY, "--workers", "3")
    done = run_command("serve", "--port", netrunner.port, *flags)
    assert f"can't listen on 127.0.0.1 port {netrunner.port}" in one_sentence(done.stderr)
    assert (done.returncode, done.stdout) == (2, "")


def test_a_worker_that_cant_start_is_tried_again_with_pauses(
    netrunner: Simulator, identity: Path, tmp_path: Path
):
    mine = tmp_path / "mine.json"
    shutil.copy(identity, mine)
    with fleet(netrunner, mine) as started:
        victim, other = sorted(started.workers)
        mine.unlink()
        os.kill(victim, signal.SIGKILL)
        started.command.line(r"worker \d+ ended \(status 2\); another is started in [\d.]+ s")
        told = started.command.stderr
        assert f"worker {victim} ended (status -9)" in told
        pauses = [float(each) for each in re.findall(r"another is started in ([\d.]+) s", told)]
        assert sorted(set(pauses)) == pauses, "each longer than the one before"
        assert len(pauses) == 2
        assert f"can't read {mine}" in told
        assert started.workers == {other}
        assert started.get("/v1/status") == 200
        # It is told to stop in the midst of a pause.
        started.command.send(signal.SIGTERM)
        started.has_stopped()


def test_workers_are_started_from_any_folder(netrunner: Simulator, identity: Path, tmp_path: Path):
    """What lies there is not what they run."""
    script = Path(shutil.which("zap-gateway", path=str(Path(sys.executable).parent)) or "")
    if not script.name:
        pytest.skip("zap-gateway is not installed beside this interpreter")
    (tmp_path / "gateway.py").write_text("raise SystemExit('not this one')")
    running = subprocess.Popen(
        [
            *(script, "serve", "--port", "0", "--identity", identity, "--workers", "2"),
            *("--upstream", netrunner.address, "--server", NOBODY),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(ZAP_GATEWAY_DRAIN_GRACE="0"),
        cwd=tmp_path,
    )
    with running:
        assert running.stderr is not None
        told = running.stderr.readline()
        port = int(re.search(r":(\d+) → ", told)[1])
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as wire:
            try:
                wire.request("GET", "/healthz")
                assert wire.getresponse().status == 200
            finally:
                running.terminate()
                told += running.communicate(timeout=HANG)[1]
        assert "not this one" not in told


def test_what_workers_share_is_for_their_owner_alone(
    guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert guarded.fleet.folder.name.startswith("zap-gateway-")
    assert guarded.fleet.folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(workers, "_MEMORY", tmp_path / "nowhere")
    monkeypatch.setattr(workers.tempfile, "tempdir", str(tmp_path))
    elsewhere = Path(workers._shared_folder())
    assert elsewhere.parent == tmp_path
    assert elsewhere.stat().st_mode & 0o777 == 0o700


def test_a_worker_without_a_parent_ends(identity: Path):
    """Nobody starts one by hand; and if somebody does, it tells."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done: Any = subprocess.run(
            [
                *(sys.executable, "-m", "gateway", "serve", "--identity", identity),
                *("--server", NOBODY, workers.LISTENER_FLAG, str(listener.fileno())),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            pass_fds=(listener.fileno(),),
            env=clean_environment(),
            timeout=HANG,
        )
    assert done.returncode != 0
    assert "zap-gateway serve --workers N" in done.stderr
