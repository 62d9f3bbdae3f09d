"""`zap-gateway` in general, and the commands that only make or print something."""

from __future__ import annotations

import base64
import gc
import json
import logging
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pqcrypto.kem import ml_kem_768
from pqcrypto.sign import ml_dsa_65

from gateway.auth import load_tokens
from gateway.cli import COMMANDS, main
from gateway.settings import Settings, flag_of
from tests.integration.gateway_helpers import clean_environment, run_command, running_gateway
from tests.integration.zap_helpers import free_port
from zapcore.zwing import Identity, PublicIdentity

ROOT = Path(__file__).parents[2]
IDENTITIES = json.loads((ROOT / "tests" / "vectors" / "identity.json").read_text())["identities"]

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command in this process: status, standard output, standard error."""
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)

    def run(*arguments: object) -> tuple[int, str, str]:
        loggers = [logging.getLogger(name) for name in (None, "asyncio", "uvicorn")]
        levels = [logger.level for logger in loggers]
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as ended:
            status = int(ended.code or 0)
        finally:
            gc.unfreeze()  # a command owns its process, and this one goes on
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
        out, err = capsys.readouterr()
        return status, out, err

    return run


def one_sentence(text: str) -> str:
    """Check that an error is one line without a traceback."""
    assert "Traceback" not in text
    assert text.count("\n") == 1, text
    return text


# The command as such.


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(cli: Cli, command: str):
    status, out, err = cli(command, "--help")
    assert (status, err) == (0, "")
    assert f"zap-gateway {command}" in out


@pytest.mark.parametrize(
    "words", [("identity", "new"), ("identity", "show"), ("identity", "import"), ("token", "new")]
)
def test_every_action_has_help(cli: Cli, words: tuple[str, ...]):
    status, out, _ = cli(*words, "--help")
    assert status == 0
    assert " ".join(words) in out


def test_the_overview_names_every_command(cli: Cli):
    status, out, _ = cli("--help")
    assert status == 0
    assert all(re.search(rf"^    {name}\s+\w", out, re.MULTILINE) for name in COMMANDS)


def test_help_of_serve_tells_every_setting_its_default_and_its_variable(cli: Cli):
    _, out, _ = cli("serve", "--help")
    assert all(f"{flag_of(name)} " in out for name in Settings.model_fields)
    assert "ZAP_GATEWAY_" in out
    assert "8081" in out


@pytest.mark.parametrize(
    "arguments", [(), ("nonsense",), ("serve", "--nonsense"), ("identity",), ("token", "old")]
)
def test_what_is_no_command_line_ends_with_2_and_usage(cli: Cli, arguments: tuple[str, ...]):
    status, out, err = cli(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("usage: zap-gateway")


def test_version(cli: Cli):
    assert cli("--version") == (0, version("zap-gateway") + "\n", "")


def test_python_m_gateway_is_the_command():
    done = run_command("--version")
    assert (done.returncode, done.stdout.strip()) == (0, version("zap-gateway"))
    script = Path(sys.executable).with_name("zap-gateway")
    if script.exists():
        installed = subprocess.run([script, "--version"], capture_output=True, text=True)
        assert installed.stdout == done.stdout


# identity


def test_a_new_identity_is_for_its_owner_alone(cli: Cli, tmp_path: Path):
    path = tmp_path / "id.json"
    status, out, err = cli("identity", "new", path)
    assert (status, err) == (0, "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Identity.load(path).public.fingerprint == out.strip()


def test_an_identity_is_never_overwritten(cli: Cli, tmp_path: Path):
    path = tmp_path / "id.json"
    cli("identity", "new", path)
    before = path.read_bytes()
    status, out, err = cli("identity", "new", path)
    assert (status, out) == (1, "")
    assert "exists already" in one_sentence(err)
    assert path.read_bytes() == before


def test_an_identity_in_a_folder_that_is_not_there(cli: Cli, tmp_path: Path):
    status, _, err = cli("identity", "new", tmp_path / "nowhere" / "id.json")
    assert status == 1
    assert "can't write" in one_sentence(err)


def test_an_identity_is_shown_in_every_form(cli: Cli, tmp_path: Path):
    path = tmp_path / "id.json"
    fingerprint = json.loads(cli("identity", "new", path, "--json")[1])["fingerprint"]
    raw = bytes(Identity.load(path).public)

    assert cli("identity", "show", path) == (0, fingerprint + "\n", "")
    told = json.loads(cli("identity", "show", "--json", path)[1])
    assert told == {"fingerprint": fingerprint}
    told = json.loads(cli("identity", "show", "--json", "--public", path)[1])
    assert base64.b64decode(told["publicIdentity"]) == raw

    public = tmp_path / "id.pub"
    public.write_text(cli("identity", "show", "--public", path)[1])
    assert bytes(PublicIdentity.load(public)) == raw
    assert cli("identity", "show", public) == (0, fingerprint + "\n", "")


def test_nothing_that_is_shown_is_private(cli: Cli, tmp_path: Path):
    path = tmp_path / "id.json"
    shown = cli("identity", "new", path)[1]
    for flags in ((), ("--json",), ("--public",), ("--public", "--json")):
        shown += cli("identity", "show", path, *flags)[1]
    keys = json.loads(path.read_text())
    for name in ("ed25519", "ml_dsa", "ml_kem", "x25519"):
        assert keys[name] not in shown


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_an_identity_that_others_can_read_is_refused(cli: Cli, tmp_path: Path):
    path = tmp_path / "id.json"
    cli("identity", "new", path)
    path.chmod(0o644)
    status, out, err = cli("identity", "show", path)
    assert (status, out) == (1, "")
    assert "chmod 600" in one_sentence(err)
    status, _, err = cli("serve", "--identity", path, "--server", "SHA256:" + "A" * 43)
    assert status != 0
    assert "chmod 600" in one_sentence(err)


@pytest.mark.parametrize("content", [b"", b"{}", b"banana", b"\0" * 3199, b"x" * 70_000])
def test_what_is_no_identity_is_told_so_without_quoting_it(
    cli: Cli, tmp_path: Path, content: bytes
):
    path = tmp_path / "id.json"
    path.write_bytes(content)
    path.chmod(0o600)
    status, out, err = cli("identity", "show", path)
    assert (status, out) == (1, "")
    assert str(path) in one_sentence(err)
    assert "banana" not in err


def raw(data: bytes) -> bytes:
    return data


def hexadecimal(data: bytes) -> bytes:
    return data.hex().encode()


def hexadecimal_in_lines(data: bytes) -> bytes:
    text = data.hex().upper()
    return "\n".join(text[at : at + 60] for at in range(0, len(text), 60)).encode() + b"\n"


FORMS = [raw, hexadecimal, hexadecimal_in_lines, base64.b64encode, base64.encodebytes]


def key_files(folder: Path, form: Callable[[bytes], bytes], **parts: bytes) -> list[Any]:
    flags: list[Any] = []
    for name, data in parts.items():
        path = folder / name
        path.write_bytes(form(data))
        flags += ["--" + name.replace("_", "-"), path]
    return flags


def seeds_of(vector: dict[str, str]) -> dict[str, bytes]:
    return {
        "ed25519": bytes.fromhex(vector["ed25519_seed"]),
        "ml_dsa": bytes.fromhex(vector["mldsa_seed"]),
        "ml_kem": bytes.fromhex(vector["mlkem_seed"]),
        "x25519": bytes.fromhex(vector["x25519_private"]),
    }


@pytest.mark.parametrize("form", FORMS)
def test_seeds_are_imported_in_every_form(cli: Cli, tmp_path: Path, form: Any):
    vector = IDENTITIES[0]
    path = tmp_path / "id.json"
    flags = key_files(tmp_path, form, **seeds_of(vector))
    status, out, err = cli("identity", "import", path, *flags)
    assert (status, err) == (0, "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded = Identity.load(path).public
    assert bytes(loaded).hex() == vector["public_identity"]
    assert out.strip() == loaded.fingerprint


@pytest.mark.parametrize("form", FORMS)
def test_expanded_keys_of_go_tools_are_imported_and_work(cli: Cli, tmp_path: Path, form: Any):
    seed = os.urandom(32)
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    dsa_public, dsa_private = ml_dsa_65.keygen()
    kem_public, kem_private = ml_kem_768.keygen()
    path = tmp_path / "id.json"
    flags = key_files(
        tmp_path,
        form,
        ed25519=seed + public,
        ml_dsa=dsa_private,
        ml_dsa_public=dsa_public,
        ml_kem=kem_private,
        x25519=os.urandom(32),
    )
    status, out, err = cli("identity", "import", path, *flags, "--json")
    assert (status, err) == (0, "")
    identity = Identity.load(path)
    assert json.loads(out) == {"fingerprint": identity.public.fingerprint}
    assert bytes(identity.public).startswith(public + dsa_public + kem_public)
    assert identity.public.verify("label", b"text", identity.sign("label", b"text"))


def test_an_import_without_the_public_key_that_it_needs(cli: Cli, tmp_path: Path):
    _, private = ml_dsa_65.keygen()
    parts = {**seeds_of(IDENTITIES[0]), "ml_dsa": private}
    status, _, err = cli("identity", "import", tmp_path / "id", *key_files(tmp_path, raw, **parts))
    assert status == 1
    assert "public" in one_sentence(err)
    assert not (tmp_path / "id").exists()


def test_keys_that_do_not_belong_together(cli: Cli, tmp_path: Path):
    seeds = seeds_of(IDENTITIES[0])
    other, _ = ml_dsa_65.keygen()
    _, private = ml_dsa_65.keygen()
    for parts in (
        {**seeds, "ed25519": seeds["ed25519"] + bytes(32)},
        {**seeds, "ml_dsa": private, "ml_dsa_public": other},
    ):
        flags = key_files(tmp_path, raw, **parts)
        status, _, err = cli("identity", "import", tmp_path / "id", *flags)
        assert status == 1
        assert "belong" in one_sentence(err)
        assert not (tmp_path / "id").exists()


@pytest.mark.parametrize("content", [b"", b"00" * 31, b"\0" * 33, b"zz" * 32, b"x" * 100_000])
def test_a_key_of_another_size_is_refused_without_quoting_it(
    cli: Cli, tmp_path: Path, content: bytes
):
    flags = key_files(tmp_path, raw, **seeds_of(IDENTITIES[0]))
    (tmp_path / "x25519").write_bytes(content)
    status, _, err = cli("identity", "import", tmp_path / "id", *flags)
    assert status == 2
    assert "does not hold 32 bytes" in one_sentence(err)
    assert len(err) < 400


def test_a_key_file_that_is_not_there(cli: Cli, tmp_path: Path):
    flags = key_files(tmp_path, raw, **seeds_of(IDENTITIES[0]))
    (tmp_path / "ml_kem").unlink()
    status, _, err = cli("identity", "import", tmp_path / "id", *flags)
    assert status == 2
    assert "No such file" in one_sentence(err)


def test_an_import_does_not_overwrite(cli: Cli, tmp_path: Path):
    (tmp_path / "id").write_text("precious")
    flags = key_files(tmp_path, raw, **seeds_of(IDENTITIES[0]))
    status, _, err = cli("identity", "import", tmp_path / "id", *flags)
    assert status == 1
    assert "exists already" in one_sentence(err)
    assert (tmp_path / "id").read_text() == "precious"


# token


@pytest.mark.parametrize(("flags", "scope"), [((), "read"), (("--scope", "operate"), "operate")])
def test_a_token_and_its_line(cli: Cli, tmp_path: Path, flags: tuple[str, ...], scope: str):
    status, out, _ = cli("token", "new", "alice", *flags, "--json")
    assert status == 0
    made = json.loads(out)
    assert made["token"] not in made["line"]
    (tmp_path / "tokens").write_text(made["line"] + "\n")
    (token,) = load_tokens(tmp_path / "tokens")
    assert (token.name, token.scope) == ("alice", scope)


def test_a_token_is_shown_for_people_too(cli: Cli):
    status, out, _ = cli("token", "new", "bob-1")
    assert status == 0
    assert "zgw_" in out
    assert "bob-1 read sha256:" in out


@pytest.mark.parametrize("name", ["", "two words", "a#b", "x" * 65, "a\nb"])
def test_a_name_that_would_break_the_token_file(cli: Cli, name: str):
    status, out, err = cli("token", "new", name)
    assert (status, out) == (2, "")
    assert "token name" in one_sentence(err)


# openapi


def test_the_document_in_the_repository_is_what_the_command_prints(cli: Cli):
    """When this fails: zap-gateway openapi > openapi/openapi.json"""
    status, out, _ = cli("openapi")
    assert status == 0
    assert out == (ROOT / "openapi" / "openapi.json").read_text("utf-8")


async def test_the_document_in_the_repository_is_what_a_gateway_serves():
    async with running_gateway(f"127.0.0.1:{free_port()}", ready=False) as running:
        served: httpx.Response = await running.client.get("/openapi.json")
    assert served.json() == json.loads((ROOT / "openapi" / "openapi.json").read_text("utf-8"))
