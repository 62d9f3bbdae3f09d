"""Where `zap-gateway serve` takes its tokens from, and how they change while it runs."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from gateway.auth import MAX_TOKENS, Token, digest_of, new_token, token_line
from gateway.cli import build_parser
from gateway.commands.options import settings_from
from tests.commands.test_cli import Cli, cli, one_sentence
from tests.commands.test_cli_serve import eventually, url_of
from tests.integration.gateway_helpers import (
    Command,
    Simulator,
    command,
    identity_file,
    simulator,
)
from tests.integration.zap_helpers import HANG

__all__ = ["cli"]

READER, OPERATOR, OTHER = new_token(), new_token(), new_token()
RITA, OTTO = token_line("rita", "read", READER), token_line("otto", "operate", OPERATOR)
OLGA = token_line("olga", "operate", OTHER)
VARIABLE = "ZAP_GATEWAY_TOKEN"
RESTART = ("POST", "/v1/nodes/node1/restart")

ANYWHERE = "0.0.0.0"  # noqa: S104


@pytest.fixture(scope="module")
def netrunner() -> Iterator[Simulator]:
    with simulator() as running:
        yield running


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return identity_file(tmp_path_factory.mktemp("keys"), "gateway")


class Served(NamedTuple):
    """A gateway in a process of its own, and a client of it."""

    command: Command
    client: httpx.Client

    def status(
        self, secret: str = "", verb: str = "GET", path: str = "/v1/ping", **headers: str
    ) -> int:
        """The answer's status to a request with a token."""
        if secret:
            headers["authorization"] = f"Bearer {secret}"
        return self.client.request(verb, path, headers=headers).status_code

    def logged(self, text: str) -> int:
        """How many lines have a text."""
        return sum(text in line for line in self.command.stderr.splitlines())

    def reloads(self, text: str) -> None:
        """Tell it to read its tokens again, and wait until another line with a text comes."""
        before = self.logged(text)
        self.command.send(signal.SIGHUP)
        eventually(lambda: self.logged(text) > before)


Serve = Callable[..., "contextmanager[Served]"]


@pytest.fixture
def serve(netrunner: Simulator, identity: Path) -> Serve:
    """Runs `zap-gateway serve` with flags and environment, and waits until it is ready."""

    @contextmanager
    def run(*flags: object, **environment: str) -> Iterator[Served]:
        with command(
            *("serve", "--port", "0", "--identity", identity, "--log-format", "json"),
            *("--upstream", netrunner.address, "--server", netrunner.fingerprint),
            *("--drain-grace", "0", *flags),
            **environment,
        ) as running:
            url = url_of(running).replace(ANYWHERE, "127.0.0.1")
            with httpx.Client(base_url=url, timeout=HANG, trust_env=False) as client:
                eventually(lambda: client.get("/readyz").status_code == 200)
                yield Served(running, client)
            assert running.stop() == 0
        said = running.stdout + running.stderr
        assert "Traceback" not in said
        assert not any(secret in said for secret in (READER, OPERATOR, OTHER))

    return run


# Where they come from.

Given = tuple[list[object], dict[str, str]]
"""Flags and environment."""


def of_file(folder: Path) -> Given:
    tokens = folder / "tokens"
    tokens.write_text(f"# ours\n\n{RITA}\r\n  {OTTO}  # the second\n")
    return ["--tokens", tokens], {}


def of_file_and_flag(folder: Path) -> Given:
    tokens = folder / "tokens"
    tokens.write_text(RITA)
    return ["--tokens", tokens, "--token", OTTO], {}


def of_file_by_environment(folder: Path) -> Given:
    (_, path), _ = of_file(folder)
    return [], {"ZAP_GATEWAY_TOKENS": str(path)}


def of_environment(text: str) -> Callable[[Path], Given]:
    return lambda _: ([], {VARIABLE: text})


def of_toml(text: str) -> Callable[[Path], Given]:
    def made(folder: Path) -> Given:
        config = folder / "gateway.toml"
        config.write_text(text)
        return ["--config", config], {}

    return made


SOURCES: dict[str, Callable[[Path], Given]] = {
    "file": of_file,
    "file by the environment": of_file_by_environment,
    "environment with a semicolon": of_environment(f"{RITA};{OTTO}"),
    "environment with a comma": of_environment(f" {RITA} , {OTTO},"),
    "environment with line breaks": of_environment(f"\n{RITA}\n# the second\r\n{OTTO}\n"),
    "flags": lambda _: (["--token", RITA, "--token", OTTO], {}),
    "file and flag": of_file_and_flag,
    "TOML, a list": of_toml(f'token = ["{RITA}", "{OTTO}"]'),
    "TOML, a text": of_toml(f'token = """\n{RITA}\n{OTTO}\n"""'),
}
RUN = ("file and flag", "environment with line breaks", "TOML, a list")


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_tokens_are_taken_from(
    source: Callable[[Path], Given], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As `serve` reads them."""
    flags, environment = source(tmp_path)
    for name in ("ZAP_GATEWAY_TOKENS", VARIABLE):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    arguments = build_parser("serve").parse_args(["serve", *map(str, flags)])
    settings = settings_from(arguments)
    settings.check_bind()
    assert settings.load_tokens() == (
        Token("rita", "read", digest_of(READER)),
        Token("otto", "operate", digest_of(OPERATOR)),
    )


@pytest.mark.parametrize("name", RUN)
def test_tokens_let_in_their_holders_and_nobody_else(serve: Serve, tmp_path: Path, name: str):
    flags, environment = SOURCES[name](tmp_path)
    with serve(*flags, **environment) as running:
        assert running.status(READER) == 200
        assert running.status(READER, *RESTART) == 403
        assert running.status(OPERATOR) == 200
        assert running.status(OPERATOR, *RESTART) == 200
        for wrong in ("", OTHER, "rita", digest_of(READER).hex()):
            assert running.status(wrong) == 401


def test_a_line_as_the_command_prints_it_is_taken(cli: Cli, serve: Serve):
    status, out, _ = cli("token", "new", "me", "--scope", "operate", "--json")
    assert status == 0
    made = json.loads(out)
    with serve(**{VARIABLE: made["line"]}) as running:
        assert running.status(made["token"], *RESTART) == 200
        assert running.status() == 401
    assert made["token"] not in running.command.stderr


def test_flags_stand_in_place_of_the_environment(serve: Serve):
    with serve("--token", RITA, **{VARIABLE: OTTO}) as running:
        assert running.status(READER) == 200
        assert running.status(OPERATOR) == 401


# What is refused, with one sentence.


def lines(count: int, first: int = 0) -> list[str]:
    return [token_line(f"t{number}", "read", "x") for number in range(first, first + count)]


Refused = Callable[..., str]


@pytest.fixture
def refused(cli: Cli, identity: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Gives the one sentence with which `serve` refuses to start."""

    def listen(host: str, port: int) -> None:
        raise AssertionError(f"it starts, and listens on {host}")

    monkeypatch.setattr("gateway.commands.serve.listen", listen)

    def run(*flags: object) -> str:
        status, out, err = cli("serve", "--port", "0", "--identity", identity, *flags)
        assert (status, out) == (2, "")
        assert err.startswith("zap-gateway serve: ")
        for secret in (READER, OPERATOR, OTHER):
            assert secret not in err
            assert digest_of(secret).hex() not in err
        return one_sentence(err)

    return run


TWICE = token_line("rita", "operate", OTHER)


@pytest.mark.parametrize(
    ("of_file", "of_flags", "of_environment"),
    [
        (f"{RITA}\n{TWICE}\n", (), ""),
        (f"{RITA}\n{RITA}\n", (), ""),
        (RITA, ("--token", TWICE), ""),
        (RITA, (), TWICE),
        ("", ("--token", RITA, "--token", TWICE), ""),
        ("", (), f"{RITA};{TWICE}"),
    ],
    ids=["file", "the very same", "file and flag", "file and environment", "flags", "environment"],
)
def test_two_tokens_of_one_name_are_refused(
    refused: Refused,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    of_file: str,
    of_flags: tuple[str, ...],
    of_environment: str,
):
    flags = list(of_flags)
    if of_file:
        (tmp_path / "tokens").write_text(of_file)
        flags += ["--tokens", str(tmp_path / "tokens")]
    if of_environment:
        monkeypatch.setenv(VARIABLE, of_environment)
    assert "2 tokens are named 'rita'" in refused(*flags)


@pytest.mark.parametrize("of_file", [0, 200, MAX_TOKENS + 1])
def test_too_many_tokens_are_refused(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_file: int
):
    flags: list[object] = []
    if of_file:
        (tmp_path / "tokens").write_text("\n".join(lines(of_file)))
        flags = ["--tokens", tmp_path / "tokens"]
    monkeypatch.setenv(VARIABLE, ";".join(lines(MAX_TOKENS + 1 - of_file, of_file)))
    said = refused(*flags)
    assert "257 tokens" in said
    assert "256" in said


def test_as_many_tokens_as_may_be_are_taken(serve: Serve, tmp_path: Path):
    (tmp_path / "tokens").write_text("\n".join([*lines(MAX_TOKENS - 2), RITA]))
    with serve("--tokens", tmp_path / "tokens", "--token", OTTO) as running:
        assert running.status(READER) == 200
        assert running.status(OPERATOR) == 200


NO_LINES = {
    "a secret": OPERATOR,
    "a name and a secret": f"otto operate {OPERATOR}",
    "no scope": f"otto sha256:{digest_of(OPERATOR).hex()}",
    "another scope": OTTO.replace("operate", "admin"),
    "two on one line": f"{RITA} {OTTO}",
}


@pytest.mark.parametrize("line", NO_LINES.values(), ids=NO_LINES.keys())
def test_what_is_no_token_is_refused_without_repeating_it(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
):
    """Whoever gives the secret itself must not find it in the log."""
    file, config = tmp_path / "tokens", tmp_path / "gateway.toml"
    file.write_text(f"{RITA}\n{line}\n")
    config.write_text(f'token = ["{line}"]')
    assert "line 2" in refused("--tokens", file)
    assert "--token, line 1" in refused("--token", line)
    assert "--token, line 1" in refused("--config", config)
    monkeypatch.setenv(VARIABLE, f"{RITA};{line}")
    assert "--token, line 2" in refused()


@pytest.mark.parametrize("value", ['{ otto = "%s" }', '[["%s"]]', '[{ secret = "%s" }]'])
def test_settings_that_hold_a_secret_in_another_form_are_refused_without_repeating_it(
    refused: Refused, tmp_path: Path, value: str
):
    config = tmp_path / "gateway.toml"
    config.write_text("token = " + value % OPERATOR)
    assert "--token" in refused("--config", config)


# Read again.


def test_a_signal_adds_tokens_and_takes_them_away(serve: Serve, tmp_path: Path):
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{RITA}\n{OTTO}\n")
    with serve("--tokens", tokens, "--token", OLGA) as running:
        assert [running.status(secret) for secret in (READER, OPERATOR, OTHER)] == [200, 200, 200]
        added = new_token()
        tokens.write_text(f"{OTTO}\n{token_line('anna', 'read', added)}\n")
        running.reloads("read 3 tokens")
        assert running.status(READER) == 401
        assert [running.status(secret) for secret in (OPERATOR, OTHER, added)] == [200, 200, 200]
        assert running.status(added, "DELETE", "/v1/cluster") == 403
        assert added not in running.command.stderr


def test_a_signal_changes_what_a_token_may(serve: Serve, tmp_path: Path):
    tokens = tmp_path / "tokens"
    tokens.write_text(OTTO)
    with serve("--tokens", tokens) as running:
        assert running.status(OPERATOR, *RESTART) == 200
        tokens.write_text(token_line("otto", "read", OPERATOR))
        running.reloads("read 1 tokens")
        assert running.status(OPERATOR, *RESTART) == 403
        tokens.write_text(token_line("otto", "operate", OTHER))
        running.reloads("read 1 tokens")
        assert running.status(OPERATOR) == 401
        assert running.status(OTHER, *RESTART) == 200


BREAKS: dict[str, Callable[[Path], object]] = {
    "a secret in place of a digest": lambda path: path.write_text(f"{RITA}\nolga read {OTHER}"),
    "half a line": lambda path: path.write_text(OLGA[:-1]),
    "no text": lambda path: path.write_bytes(b"\xff\xfe" + OLGA.encode("utf-16-le")),
    "empty": lambda path: path.write_text(""),
    "comments only": lambda path: path.write_text(f"# {OLGA}\n"),
    "a name twice": lambda path: path.write_text(f"{OLGA}\n{OLGA}\n"),
    "too many": lambda path: path.write_text("\n".join(lines(MAX_TOKENS + 1))),
    "too large": lambda path: path.write_text(f"{OLGA}\n" + "#" * 1024 * 1024),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: path.mkdir(),
}


def test_a_broken_file_changes_nothing_and_is_told_without_its_content(
    serve: Serve, tmp_path: Path
):
    """One way to break it after the other, and at the end it is whole again."""
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{RITA}\n{OTTO}\n")
    with serve("--tokens", tokens) as running:
        for name, break_it in BREAKS.items():
            break_it(tokens)
            running.reloads("the old tokens stay")
            assert running.status(READER) == 200, name
            assert running.status(OPERATOR) == 200, name
            assert running.status(OTHER) == 401, name
        errors = [line for line in running.command.stderr.splitlines() if "tokens stay" in line]
        assert len(errors) == len(BREAKS)
        for line in errors:
            told = json.loads(line)
            assert told["level"] == "error"
            assert "sha256:" not in told["message"].replace("sha256:…", "")
            assert len(told["message"]) < 400
        assert digest_of(OTHER).hex() not in running.command.stderr
        tokens.rmdir()
        tokens.write_text(OLGA)
        running.reloads("read 1 tokens")
        assert running.status(OTHER) == 200
        assert running.status(READER) == 401


# Beyond this machine.


def test_beyond_loopback_tokens_of_the_environment_will_do(serve: Serve):
    with serve("--host", ANYWHERE, **{VARIABLE: f"{RITA};{OTTO}"}) as running:
        assert running.status(READER) == 200
        assert running.status() == 401
        assert running.status(host="gateway.example") == 401
        assert running.status(READER, host="gateway.example") == 200


@pytest.mark.parametrize("host", [ANYWHERE, "::", "gateway.example", "192.0.2.1"])
def test_beyond_loopback_it_does_not_start_without_tokens(refused: Refused, host: str):
    assert "lets other machines in" in refused("--host", host)


NO_TOKENS: dict[str, tuple[tuple[str, ...], str | None, str]] = {
    "environment empty": ((), "", ""),
    "environment of separators": ((), " ; ,\n", ""),
    "environment of a comment": ((), f"# {RITA}", ""),
    "flag empty": (("--token", ""), None, ""),
    "flag of a blank": (("--token", " "), None, ""),
    "flag of a comment": (("--token", f"# {RITA}"), None, ""),
    "TOML of nothing": ((), None, "token = []"),
    "TOML of an empty text": ((), None, 'token = [""]'),
}


@pytest.mark.parametrize(("flags", "variable", "config"), NO_TOKENS.values(), ids=NO_TOKENS.keys())
def test_beyond_loopback_what_holds_no_token_is_none(
    refused: Refused,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, ...],
    variable: str | None,
    config: str,
):
    """As where a variable that is not set is put into a flag: --token "$TOKEN"."""
    if variable is not None:
        monkeypatch.setenv(VARIABLE, variable)
    file = tmp_path / "gateway.toml"
    file.write_text(config)
    assert "lets other machines in" in refused("--host", ANYWHERE, "--config", file, *flags)
